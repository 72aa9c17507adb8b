"""Meta-learn a loss for an environment that is not ours, gymnasium's `Reacher-v5`, and count the samples that it saves
against PPO, and against a policy that has seen as much.

    python recipes/gym_reacher.py                            one seed, 12 core-minutes, and the tuning of PPO
    python recipes/gym_reacher.py --losses learned_alone     also a loss without a guide
    python recipes/gym_reacher.py --seeds 10                 the run to report

This is what docs/guides/own_environment.md shows, with longer meta-training. Nothing of the environment is changed,
wrapped, or told to the loss but the spread of its columns. Two torques drive an arm, so that its fingertip gets to a
place and stays there, for 50 steps of 0.02 s. A task is the seed of a reset, which draws the place and the start; a
policy observes both. The reward of a step is the negative distance (m) less a tenth of the squared action, the return
their sum over an episode. At meta-test a fresh policy takes gradient steps with the learned loss alone on its own
experience, without rewards (Algorithm 5): one episode, then a step of Adam for each mini-batch of 2 time steps. The
rate of Adam falls to zero over the life of the policy.

Meta-training is Algorithm 4, shaped (eq. 9) by a guide as in `reacher_model_free.py`: one policy for all tasks, trained
by PPO before on the resets of other seeds (its samples count). The task loss is eq. 8, and two gaps: on the same fresh
rollouts the squared gap between the means of policy and guide; and the squared gap between the slopes that the learned
loss gives to means and the way from the guide's mean to them.

Methods:
    learned: the learned loss. It sees mean, standard deviation, observation and action, the paper's form.
    learned_alone: the same, meta-trained without the guide (with `--losses learned_alone`).
    ppo: PPO for each task from scratch, at the rate and number of episodes of a grid that need the fewest samples to
        80 % on 10 tasks of their own ("config", "ppo"). The grid grows until its optimum lies inside
        ("ppo_grid"; its curves in `seeds/tuning/`). Discount and lambda are those of eq. 8 here.
    paper_ppo: the same with 20 episodes an update, as a reader of the paper might set it, at the same rate.
    goal_conditioned: the guide. It needs no sample of a new task.
    fine_tuned: the guide, trained further by PPO on each task, with as many samples as `learned`. It is what to do with
        a pretrained policy, and asks more than a loss does: policies of its architecture, that start from its weights.
        FTSENTENCE

All but the guide and its copies, which have layers of 128, start from networks of two tanh layers of 64 units with a
linear mean and a fixed standard deviation of 0.1.

Expected result: not yet reported over ten seeds. On seed 101, with a longer meta-training of 20 outer steps, `learned` goes from
-10.7 to -4.3 after 200 samples and to -3.9 after 3,000, the return of its guide on the same tasks. An earlier form of
this recipe had PPO at -4.8 after 5,000 samples there and at -4.0 after 20,000, and `fine_tuned` at -3.7: where a
policy for all tasks can be used, that is better.

Fixed in advance: a curve is the mean over 16 tasks that meta-training has not seen, with a fresh policy each, of the
return of the mean policy (without noise; those of the noisy policy are named on_policy), against the environment steps
of one policy. Rollouts that only measure count for no method. Curves are not smoothed. The level is 80 % of the way
from the fresh policies' return to the best final return of `learned`, `ppo` and `paper_ppo`; it is reached where a
curve stays at or above it to its end (sustained). A final return is the mean of the last 5 evaluations. Settings were
chosen with seed 101.

Metrics (`summary.json`, one value per seed; METHOD is one of the above):
    sample_ratio_to_ppo: samples to the level of `ppo` over those of `learned`; 0 if `learned` does not get there, and
        if PPO does not, with all of its samples (a lower bound).
    sample_ratio_to_paper_ppo: the same for `paper_ppo`.
    samples_to_level_METHOD: samples to the level, environment steps; -1 if it is not reached.
    samples_to_ppo_return_METHOD: samples to the final return of `ppo`, reached as a level is; -1 if it is not reached.
    samples_to_learned_return_METHOD: the same for the final return of `learned`.
    final_return_METHOD: final return of the mean policy.
    on_policy_final_return_METHOD: that of the noisy policy.
    late_rise_METHOD: rise of a straight line through the last fifth of the curve; about 0 where it has converged.
    initial_return: return of fresh policies.
    level: the level.
    meta_train_env_steps_METHOD: environment steps that meta-training used, those of the guide included.
    layers_D_final_return: `final_return_learned` for policies of D hidden layers (with `--policy-layers`; the loss was
        meta-trained with two).
    spread_between_layers, spread_between_tasks: standard deviation of final returns over depths (mean over tasks) and
        over tasks (mean over depths).

Departures from the paper, which has no such experiment: those of `reacher_model_free.py`, but that the loss sees the
plain observation, with inner lives of 20 episodes in meta-training and 60 at meta-test.

Files: `summary.json`, `history.csv`, `figure.png`, and the learned loss of the first seed in `meta_loss/`.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from parts.experiment import Metrics, Result, Seed
from parts.gym_reacher.task import EXPERIMENT, VARIANTS
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
    inner_steps: int = 20
    """Episodes of a policy in meta-training; it learns from each."""
    batch_size: int = 10
    """Time steps in a mini-batch of a policy in meta-training."""
    num_tasks: int = 32
    """Tasks of an outer step."""
    outer_steps: int = 20
    """Outer steps of meta-training: each trains fresh policies for their whole life."""
    excess_weight: float = 50.0
    """Weight of means beyond the limits of the actions."""
    guide_limit: float = 1.0
    """Largest mean of the guide, which is clipped there."""
    discount: float = 0.95
    """Gamma, of eq. 8 and of PPO."""
    gae_lambda: float = 0.9
    """Lambda of the generalized advantage estimates, of eq. 8 and of PPO."""
    test_updates: int = 60
    """Updates of a policy at meta-test, with an episode each."""
    num_shifted_tasks: int = 0
    """Tasks of each further kind at meta-test: there is none."""
    num_test_tasks: int = 16
    """Tasks of meta-test."""
    num_policies: int = 1
    """Fresh policies for each task of meta-test."""
    num_tuning_tasks: int = 10
    """Tasks that PPO is tuned on."""
    ppo_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    """Rates of Adam that are tried for PPO."""
    ppo_episodes: tuple[int, ...] = (2, 4, 8)
    """Episodes of an update that are tried for PPO."""
    ppo_batch: int = 50
    """Time steps in a mini-batch of PPO."""
    ppo_samples: int = 20_000
    """Environment steps of PPO for each task."""
    paper_ppo_samples: int = 20_000
    """Environment steps of `paper_ppo` for each task."""
    goal_conditioned_tasks: int = 128
    """Tasks of the guide, with an episode of each in an update."""
    goal_conditioned_samples: int = 640_000
    """Environment steps of the guide."""
    goal_conditioned_rate: float = 2e-3
    """Initial rate of Adam, which trains the guide; it falls to a twentieth."""
    goal_conditioned_batch: int = 640
    """Time steps in a mini-batch of the guide."""
    goal_conditioned_epochs: int = 10
    """Passes over the experience of an update of the guide."""
    goal_conditioned_discount: float = 0.95
    """Gamma of the guide."""
    goal_conditioned_lambda: float = 0.9
    """Lambda of the guide."""
    fine_tuning_rate: float = 3e-4
    """Rate of Adam with which PPO fine-tunes the guide."""
    fine_tuning_episodes: int = 4
    """Episodes of an update of that fine-tuning."""

    variants = VARIANTS

    @property
    def fine_tuning(self) -> tuple[float, int, int]:
        return self.fine_tuning_rate, self.fine_tuning_episodes, self.test_updates * EXPERIMENT.horizon

    def smoke(self) -> "Settings":
        return self.replace(
            hidden_units=(8,),
            policy_units=8,
            inner_steps=2,
            batch_size=25,
            test_batch_size=25,
            num_tasks=2,
            outer_steps=2,
            outer_epochs=1,
            outer_batch_size=1,
            test_updates=2,
            num_test_tasks=2,
            num_policies=1,
            num_tuning_tasks=1,
            ppo_rates=(3e-3,),
            ppo_episodes=(2,),
            ppo_epochs=1,
            ppo_samples=200,
            paper_ppo_samples=1000,
            goal_conditioned_tasks=4,
            goal_conditioned_samples=400,
            goal_conditioned_batch=50,
            goal_conditioned_epochs=1,
            goal_conditioned_units=8,
            fine_tuning_episodes=2,
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
    output_dir: Path = Path("runs/gym_reacher"),
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
