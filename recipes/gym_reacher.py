"""DOC"""

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
    num_test_tasks: int = 20
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
