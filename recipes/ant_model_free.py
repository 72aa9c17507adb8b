"""Meta-learn a loss that teaches an ant to walk to a goal, and count the samples that it saves against PPO (ML3,
section 4.1 and figure 4, b and d).

    python recipes/ant_model_free.py                       one seed, 20 minutes, and the tuning of PPO, 14
    python recipes/ant_model_free.py --seeds 3 --policy-layers 1 2 3 4         the reported run
    python recipes/ant_model_free.py --losses learned_alone                    also a loss without a guide

The ant of `ml3_tf/AntGoal-v0`, four legs and eight torques, has to walk to a place 2 m away, in any direction, within
100 steps of 0.05 s. A task is a stance and the place. The reward of a step is the negative distance in m, the return
their sum over an episode: but for a constant the metric of ML3, the decrease of the distance, summed over time. At
meta-test a fresh policy takes gradient steps with the learned loss alone on its own experience, without rewards
(Algorithm 5): one episode, then a step of Adam for each mini-batch of 2 time steps.

Meta-training is Algorithm 4, shaped (eq. 9) by a guide, which only meta-training has: one policy for all goals, trained
by PPO before (its samples count). The task loss is eq. 8, and two gaps: on the same fresh rollouts the squared gap
between the means of policy and guide; and the squared gap between the slopes that the learned loss gives to means and
the way from the guide's mean to them. So the loss stores the knowledge of the guide, for policies that start anew. The
guide learns goals in the front quarter, and turns all others there by the symmetry of the four legs.

Returns on seed 100 with different task losses, from -203 m for fresh policies, at a standard deviation of 0.3:

    | task loss | return (m) |
    |---|---|
    | eq. 8 alone, five settings, 2 to 5 million steps | -187 to -174 |
    | with the gap between means, and not better with twice the steps | -100 |
    | with the gap between slopes, too | -53 |

Methods:
    learned: the learned loss. It sees mean, standard deviation, observation and action, the paper's form.
    learned_alone: the same, meta-trained without the guide (with `--losses learned_alone`).
    ppo: PPO for each task from scratch, at the rate and number of episodes of a grid that need the fewest samples to
        80 % on 4 tasks of their own ("config", "ppo"). The grid grows until its optimum lies inside ("ppo_grid"; its
        curves in `seeds/tuning/`). Discount and lambda are those of eq. 8 here.
    paper_ppo: the same with 20 episodes an update, as a reader of the paper might set it, at the best rate of the grid.
    goal_conditioned: the guide. It needs no sample of a new task.

All but the guide, which has layers of 128, start from networks of two tanh layers of 64 units with a linear mean and a
fixed standard deviation of 0.2.

Expected result, three seeds: `learned` reaches the level after 1,400 to 3,200 samples, `ppo` after 136,000 or not at
all. `learned` ends with a better return than `ppo` and `paper_ppo` on all seeds; the guide ends ahead of it. On goals
3 m away two seeds of `learned` end ahead of PPO, one behind.

Fixed in advance: a curve is the mean over 10 tasks that meta-training has not seen, with a fresh policy each, of the
return of the mean policy (without noise; those of the noisy policy are named on_policy), against the environment
steps of one policy. Rollouts that only measure count for no method. Curves are not smoothed. PPO has 160,000 steps a
task, and still rises at their end: more of them would lift its final return. The level is 80 % of the way from the
fresh policies' return to the best final return of `learned`, `ppo` and `paper_ppo`; it is reached where a curve stays
at or above it to its end (sustained). A final return is the mean of the last 5 evaluations. Settings were chosen with
seed 100.

Metrics (`summary.json`, one value per seed; METHOD is one of the above):
    sample_ratio_to_ppo: samples to the level of `ppo` over those of `learned`; 0 if `learned` does not get there, and
        if PPO does not, with all of its samples (a lower bound).
    sample_ratio_to_paper_ppo: the same for `paper_ppo`.
    samples_to_level_METHOD: samples to the level, environment steps; -1 if it is not reached.
    samples_to_ppo_return_METHOD: samples to the final return of `ppo`, reached as a level is; -1 if it is not reached.
    samples_to_learned_return_METHOD: the same for the final return of `learned`.
    level: the level, m.
    final_return_METHOD: final return of the mean policy, m.
    on_policy_final_return_METHOD: that of the noisy policy, m.
    late_rise_METHOD: rise of a straight line through the last fifth of the curve, m; about 0 where it has converged.
    initial_return: return of fresh policies, m.
    meta_train_env_steps_METHOD: environment steps that meta-training used, those of the guide included.
    shifted_METRIC: a metric on 3 tasks with goals 3 m away, farther than all of meta-training.
    layers_D_final_return: `final_return_learned` for policies of D hidden layers, m (with `--policy-layers`; the loss
        was meta-trained with two).
    spread_between_layers, spread_between_tasks: standard deviation of final returns over depths (mean over tasks) and
        over tasks (mean over depths), m.

Departures from the paper, which names neither rates nor sizes of this experiment: the guide; the reward is the negative
distance alone; eq. 8 has normalized advantages and a quadratic baseline, serves three passes over the rollouts with
PPO's clipping, and comes with a penalty on means beyond the limits of the torques; inner steps are those of Adam, at a
rate that falls to zero over the life of a policy, 48 episodes in meta-training and 100 at meta-test.

Files: `summary.json`, `history.csv`, `figure.png`, `before_and_after.gif` (the mean policy before and after it learned
a task, half speed), and the learned loss of the first seed in `meta_loss/`.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from parts.ant_model_free.task import EXPERIMENT, VARIANTS
from parts.experiment import Metrics, Result, Seed
from parts.model_free.report import run_experiment, run_one_seed
from parts.model_free.settings import ModelFreeSettings, TuningSettings
from parts.model_free.tuning import run_setting
from parts.settings import recorded_command, run_command


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(ModelFreeSettings):
    """Settings of this recipe; those that are not here are in `ModelFreeSettings`."""

    losses: tuple[Literal["learned", "learned_alone"], ...] = ("learned",)
    """The losses to be learned; `learned` is always among them."""
    layout: Literal["observation"] = "observation"
    """Inputs of the loss: the plain observation."""
    inner_steps: int = 48
    """Episodes of a policy in meta-training; it learns from each."""
    batch_size: int = 10
    """Time steps in a mini-batch of a policy in meta-training."""
    num_tasks: int = 64
    """Tasks of an outer step."""
    outer_steps: int = 8
    """Outer steps of meta-training: each trains fresh policies for their whole life."""
    excess_weight: float = 100.0
    """Weight of means beyond the limits of the torques."""
    guide_limit: float = 1.0
    """Largest mean of the guide, which is clipped there."""
    discount: float = 0.98
    """Gamma, of eq. 8 and of PPO."""
    gae_lambda: float = 0.95
    """Lambda of the generalized advantage estimates, of eq. 8 and of PPO."""
    test_updates: int = 100
    """Updates of a policy at meta-test, with an episode each."""
    num_shifted_tasks: int = 3
    """Tasks with goals 3 m away at meta-test."""
    num_policies: int = 1
    """Fresh policies for each task of meta-test."""
    num_tuning_tasks: int = 4
    """Tasks that PPO is tuned on."""
    ppo_rates: tuple[float, ...] = (5e-4, 1e-3, 3e-3)
    """Rates of Adam that are tried for PPO."""
    ppo_episodes: tuple[int, ...] = (8, 20, 40)
    """Episodes of an update that are tried for PPO."""
    ppo_batch: int = 200
    """Time steps in a mini-batch of PPO."""
    ppo_samples: int = 160_000
    """Environment steps of PPO for each task."""
    paper_ppo_samples: int = 160_000
    """Environment steps of `paper_ppo` for each task."""
    goal_conditioned_tasks: int = 64
    """Tasks of the guide, with an episode of each in an update."""
    goal_conditioned_samples: int = 2_000_000
    """Environment steps of the guide."""
    goal_conditioned_batch: int = 400
    """Time steps in a mini-batch of the guide."""
    goal_conditioned_epochs: int = 10
    """Passes over the experience of an update of the guide."""
    goal_conditioned_discount: float = 0.98
    """Gamma of the guide."""
    goal_conditioned_lambda: float = 0.95
    """Lambda of the guide."""

    variants = VARIANTS

    def smoke(self) -> "Settings":
        return self.replace(
            hidden_units=(8,),
            policy_units=8,
            inner_steps=2,
            batch_size=50,
            test_batch_size=50,
            num_tasks=2,
            outer_steps=2,
            outer_epochs=1,
            outer_batch_size=1,
            test_updates=2,
            num_test_tasks=2,
            num_shifted_tasks=1,
            num_tuning_tasks=1,
            ppo_rates=(1e-3,),
            ppo_episodes=(2,),
            ppo_epochs=1,
            ppo_samples=400,
            paper_ppo_samples=2000,
            goal_conditioned_tasks=4,
            goal_conditioned_units=8,
            goal_conditioned_samples=800,
            goal_conditioned_epochs=1,
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
    output_dir: Path = Path("runs/ant_model_free"),
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
