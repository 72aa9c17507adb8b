"""Meta-learn a loss that teaches an arm to reach, from nothing but experience, and count the samples that it saves
against PPO (ML3, section 4.1 and figure 4, a and c).

    python recipes/reacher_model_free.py                     one seed, six minutes, and the tuning of PPO, two
    python recipes/reacher_model_free.py --losses learned_alone learned_paper      other losses beside it
    python recipes/reacher_model_free.py --seeds 10 --losses learned_alone learned_paper learned_rewards \
        --policy-layers 1 2 3 4                              the reported run

A planar arm of two links has to bring its fingertip to a place and keep it there, for 65 steps of 0.01 s, driven by
torques of at most 1 N m. A task is where the arm rests at first, at random angles, and the place. A motor may turn the
other way round, which no observation tells. The reward of a step is the negative distance in m, the return their sum
over an episode. At meta-test a fresh policy takes gradient steps with the learned loss alone on its own experience,
without rewards (Algorithm 5): one episode, then a step of Adam for each mini-batch of 2 time steps. The rate of Adam
falls to zero over the life of the policy.

Meta-training is Algorithm 4, with places in three quarters of all directions from the shoulder; the last quarter, below
the arm, is for the shifted tasks. It is shaped (eq. 9) by a guide, which only meta-training has: one policy for all
goals, trained by PPO before (its samples count). The task loss is eq. 8, and two gaps: on the same fresh rollouts the
squared gap between the means of policy and guide; and the squared gap between the slopes that the learned loss gives to
means and the way from the guide's mean to them. So the loss stores the knowledge of the guide, for policies that start
anew.

Methods:
    learned: the learned loss. It sees mean, standard deviation and action, and the observation turned into the frame of
        the upper arm with the moments of way and velocity about both joints
        (`ml3_tf.rl.get_loss_inputs("reacher_model_free")`).
    learned_alone: the same without the guide, a smaller loss meta-trained for 480 steps, not 30: eq. 8 tells less.
    learned_paper: as `learned_alone`, of the plain observation, the paper's form.
    learned_rewards: as `learned`, reward-aware. It also sees how the reward changes from action to action, once and
        twice (`ml3_tf.rl.with_reward_changes`), and how the arm answered to the actions of the episode: the torques
        that its motion took, of an arm with usual links, as multiples of the actions (`ml3_tf.rl.with_response`). It is
        meta-trained, for 60 steps, on arms whose motors have gains between 0.5 and 1, either way round. The guide's
        torques are turned into actions of such motors (`for_motors`): only meta-training knows the gains.
    ppo: PPO for each task from scratch, at the rate and number of episodes of a grid that need the fewest samples to
        80 % on 20 tasks of their own ("config", "ppo"). The grid grows until its optimum lies inside ("ppo_grid"; its
        curves in `seeds/tuning/`). Discount and lambda are those of eq. 8 here. The rate is constant: falling to zero
        from the same or twice the rate, it moved the final return by -3 to 3 % on seeds 101 to 103.
    paper_ppo: the same with 20 episodes an update, as a reader of the paper might set it, at the same rate.
    goal_conditioned: the guide, trained on 1,024 tasks in 5.2 million environment steps. It observes the goal, in a
        frame turned until that lies straight ahead (`turned_to_goal`), and so knows all directions, the last quarter
        included. It needs no sample of a new task.

All but the guide, which has layers of 128, start from networks of two tanh layers of 64 units with a linear mean and a
fixed standard deviation of 0.5, and run in the same simulation, which equals the environment
`ml3_tf/ReacherFingertipGoal-v0` step by step.

Expected result, ten seeds: `learned` ends within a tenth of the return of `ppo` on all seeds. `learned_alone` reaches
the level, but ends more than a tenth below `ppo` in the mean. With reversed motors `learned` makes policies worse, and
`learned_rewards` reaches the level on all seeds. Samples to the level, in the median over seeds:

    | tasks | learned | learned_alone | learned_rewards | ppo | paper_ppo |
    |---|---|---|---|---|---|
    | unseen | 325 | 390 | 650 | 4,680 | 13,000 |
    | reversed motors | not reached | not reached | 585 | 4,420 | 13,000 |

Fixed in advance: a curve is the mean over 10 tasks that meta-training has not seen, with 3 fresh policies each, of the
return of the mean policy (without noise; those of the noisy policy are named on_policy), against the environment
steps of one policy. Rollouts that only measure count for no method. Curves are not smoothed. The level is 80 % of the
way from the fresh policies' return to the best final return of `learned`, `ppo` and `paper_ppo`; it is reached where a
curve stays at or above it to its end (sustained). A final return is the mean of the last 5 evaluations. Settings were
chosen with seeds of 100 and more.

Metrics (`summary.json`, one value per seed; METHOD is one of the above):
    sample_ratio_to_ppo: samples to the level of `ppo` over those of `learned`; 0 if `learned` does not get there, and
        if PPO does not, with all of its samples (a lower bound).
    sample_ratio_to_paper_ppo: the same for `paper_ppo`.
    samples_to_level_METHOD: samples to the level, environment steps; -1 if it is not reached.
    samples_to_ppo_return_METHOD: samples to the final return of `ppo`, reached as a level is; -1 if it is not reached.
    samples_to_learned_return_METHOD: the same for the final return of `learned`.
    final_return_METHOD: final return of the mean policy, m.
    on_policy_final_return_METHOD: that of the noisy policy, m.
    late_rise_METHOD: rise of a straight line through the last fifth of the curve, m; about 0 where it has converged.
    initial_return: return of fresh policies, m.
    level: the level, m.
    meta_train_env_steps_METHOD: environment steps that meta-training used, those of the guide included.
    shifted_METRIC: a metric on 10 tasks with goals outside the training distribution.
    reversed_METRIC: a metric on 10 tasks with reversed motors.
    weak_METRIC: a metric on 10 tasks with motors of gains between 0.3 and 0.5; here and below with one policy each.
    strong_METRIC: a metric on 10 tasks with motors of gain 1.5.
    long_METRIC: a metric on 10 tasks with one link 1.3 times as long. Some goals are out of reach there.
    noisy_METRIC: a metric on 10 tasks with sensors of errors up to 0.01 rad in angles and 0.1 rad/s in velocities.
    layers_D_final_return: `final_return_learned` for policies of D hidden layers, m (with `--policy-layers`; the loss
        was meta-trained with two).
    spread_between_layers, spread_between_tasks: standard deviation of final returns over depths (mean over tasks) and
        over tasks (mean over depths), m.

Departures from the paper, which names neither rates nor sizes of this experiment: the guide; the reward is the negative
distance alone; eq. 8 has discounted, normalized advantages and a quadratic baseline, serves three passes over the
rollouts, in batches of 4 tasks, with PPO's clipping, and comes with a penalty on means beyond the limits of the
torques; the loss sees the observation in the arm's frame, which is knowledge of the arm, though not of the task (the
paper's form is `learned_paper`, without a guide); the reward-aware loss knows the inertia of a usual arm, too; inner
steps are those of Adam, at a rate that falls to zero over the life of a policy, 24 episodes in meta-training and 60 at
meta-test.

Files: `summary.json`, `history.csv`, `figure.png`, `before_and_after.gif` (the mean policy before and after
it learned a task, half speed), and the learned loss of the first seed in `meta_loss/`.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from parts.experiment import Metrics, Result, Seed
from parts.model_free.report import run_experiment, run_one_seed
from parts.model_free.settings import ModelFreeSettings, TuningSettings
from parts.model_free.tuning import run_setting
from parts.reacher_model_free.task import EXPERIMENT, VARIANTS
from parts.settings import recorded_command, run_command


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(ModelFreeSettings):
    """Settings of this recipe; those that are not here are in `ModelFreeSettings`."""

    losses: tuple[Literal["learned", "learned_alone", "learned_paper", "learned_rewards"], ...] = ("learned",)
    """The losses to be learned; `learned` is always among them."""
    layout: Literal["arm", "paper", "rewards"] = "arm"
    """Inputs of the loss: in the arm's frame, the plain observation, or in the arm's frame with reward changes."""
    motors: Literal["usual", "varied"] = "usual"
    """Motors in meta-training: of gain 1, or between 0.5 and 1, either way round."""
    inner_steps: int = 24
    """Episodes of a policy in meta-training; it learns from each."""
    batch_size: int = 13
    """Time steps in a mini-batch of a policy in meta-training."""
    num_tasks: int = 32
    """Tasks of an outer step."""
    outer_steps: int = 30
    """Outer steps of meta-training: each trains fresh policies for their whole life."""
    excess_weight: float = 65.0
    """Weight of means beyond the limits of the torques."""
    guide_limit: float = 2.0
    """Largest mean of the guide (N m), which is clipped there."""
    discount: float = 0.9
    """Gamma, of eq. 8 and of PPO."""
    gae_lambda: float = 0.9
    """Lambda of the generalized advantage estimates, of eq. 8 and of PPO."""
    test_updates: int = 60
    """Updates of a policy at meta-test, with an episode each."""
    num_shifted_tasks: int = 10
    """Tasks of each further kind at meta-test: shifted, reversed, weak and so on."""
    num_policies: int = 3
    """Fresh policies for each task of meta-test."""
    num_tuning_tasks: int = 20
    """Tasks that PPO is tuned on."""
    ppo_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    """Rates of Adam that are tried for PPO."""
    ppo_episodes: tuple[int, ...] = (1, 2, 4, 8)
    """Episodes of an update that are tried for PPO."""
    ppo_batch: int = 65
    """Time steps in a mini-batch of PPO."""
    ppo_samples: int = 20_800
    """Environment steps of PPO for each task."""
    paper_ppo_samples: int = 26_000
    """Environment steps of `paper_ppo` for each task."""
    goal_conditioned_tasks: int = 1024
    """Tasks of the guide, with an episode of each in an update."""
    goal_conditioned_samples: int = 5_200_000
    """Environment steps of the guide."""
    goal_conditioned_batch: int = 1024
    """Time steps in a mini-batch of the guide."""
    goal_conditioned_epochs: int = 6
    """Passes over the experience of an update of the guide."""
    goal_conditioned_discount: float = 0.9
    """Gamma of the guide."""
    goal_conditioned_lambda: float = 0.9
    """Lambda of the guide."""

    variants = VARIANTS

    def smoke(self) -> "Settings":
        return self.replace(
            policy_units=8,
            inner_steps=2,
            batch_size=32,
            num_tasks=2,
            outer_steps=2,
            outer_batch_size=1,
            test_updates=2,
            num_test_tasks=2,
            num_shifted_tasks=2,
            num_policies=1,
            num_tuning_tasks=1,
            ppo_rates=(3e-3,),
            ppo_episodes=(2,),
            ppo_samples=260,
            paper_ppo_samples=1300,
            goal_conditioned_tasks=4,
            goal_conditioned_samples=520,
            goal_conditioned_batch=65,
            goal_conditioned_epochs=1,
            goal_conditioned_units=8,
            same_sizes=True,
            jit_compile=False,
        )


def run_tuning(name: Seed, settings: TuningSettings, output_dir: Path, verbose: int) -> Result:
    """Trains by PPO with one rate and number of episodes of the grid, on tasks of their own."""
    return run_setting(EXPERIMENT, settings, str(name))


def run_seed(seed: int, settings: Settings, output_dir: Path, verbose: int) -> Result:
    """Meta-trains with one seed, and tests every method on unseen tasks."""
    return run_one_seed(EXPERIMENT, settings, seed, output_dir, verbose=verbose)


def main(
    settings: Settings = Settings(),
    *,
    seeds: int = 1,
    first_seed: int = 0,
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("runs/reacher_model_free"),
) -> Metrics:
    """Meta-learns a loss from experience, and trains policies with it for unseen tasks, beside PPO.

    Args:
        settings: The settings.
        seeds: Number of seeds.
        first_seed: The first seed.
        smoke: Run a few steps only, to see that everything works.
        jobs: Number of processes; each runs seeds of its own.
        output_dir: Folder of the results. An interrupted run resumes from it.

    Returns:
        The metrics, name -> one value per seed.

    Raises:
        ValueError: A number of layers below 1.
    """
    command = recorded_command(main, settings, seeds=seeds, first_seed=first_seed, smoke=smoke)
    return run_experiment(
        EXPERIMENT,
        settings.smoke() if smoke else settings,
        range(first_seed, first_seed + seeds),
        command=command,
        run_tuning=run_tuning,
        run_seed=run_seed,
        jobs=jobs,
        output_dir=output_dir,
    )


if __name__ == "__main__":
    run_command(main, description=__doc__)
