"""DOC"""

from pathlib import Path
from typing import Literal

import tyro
from ant_model_free_task import EXPERIMENT
from experiment import command_line
from model_free_reaching_report import run_experiment
from model_free_reaching_report import run_seed as run_seed_of
from model_free_reaching_report import run_tuning as run_tuning_of

CONFIG = {
    "hidden_units": [128, 128],
    "activation": "silu",
    "output_scale": 0.01,
    "policy_units": 64,
    "train_tasks": {},
    "inner_steps": 48,
    "inner_optimizer": "adam",
    "inner_rate": 1e-2,
    "batch_size": 10,
    "test_rate": 1e-2,
    "test_batch_size": 10,
    "num_tasks": 64,
    "episodes": 1,
    "outer_steps": 10,
    "outer_epochs": 3,
    "outer_batch_size": 4,
    "outer_rate": 2e-3,
    "outer_clipnorm": 1.0,
    "clip_range": 0.2,
    "excess_weight": 100.0,
    "guide_weight": 1000.0,
    "discount": 0.98,
    "gae_lambda": 0.95,
    "baseline": "quadratic",
    "test_updates": 100,
    "num_test_tasks": 10,
    "num_shifted_tasks": 3,
    "num_policies": 1,
    "num_tuning_tasks": 4,
    "ppo_rates": [1e-3, 3e-3],
    "ppo_episodes": [8, 20],
    "ppo_batch": 200,
    "ppo_epochs": 10,
    "ppo_samples": 160_000,
    "paper_ppo_samples": 160_000,
    "goal_conditioned_tasks": 64,
    "goal_conditioned_units": 128,
    "goal_conditioned_samples": 2_000_000,
    "goal_conditioned_rate": 1e-3,
    "goal_conditioned_batch": 400,
    "goal_conditioned_epochs": 10,
    "goal_conditioned_discount": 0.98,
    "goal_conditioned_lambda": 0.95,
    "smoke": False,
}
SMOKE = {
    "hidden_units": [8],
    "policy_units": 8,
    "inner_steps": 2,
    "batch_size": 50,
    "test_batch_size": 50,
    "num_tasks": 2,
    "outer_steps": 2,
    "outer_epochs": 1,
    "outer_batch_size": 1,
    "test_updates": 2,
    "num_test_tasks": 2,
    "num_shifted_tasks": 1,
    "num_tuning_tasks": 1,
    "ppo_rates": [1e-3],
    "ppo_episodes": [2],
    "ppo_epochs": 1,
    "ppo_samples": 400,
    "paper_ppo_samples": 2000,
    "goal_conditioned_tasks": 4,
    "goal_conditioned_units": 8,
    "goal_conditioned_samples": 800,
    "goal_conditioned_epochs": 1,
    "smoke": True,
}


def run_tuning(_, config, output_dir, verbose):
    return run_tuning_of(EXPERIMENT, config)


def run_seed(seed, config, output_dir, verbose):
    return run_seed_of(EXPERIMENT, config, seed, output_dir, verbose)


def main(
    seeds: int = 1,
    first_seed: int = 0,
    losses: tuple[Literal["learned", "learned_alone"], ...] = ("learned",),
    policy_layers: tuple[int, ...] = (2,),
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("results/ant_model_free"),
):
    """Meta-learns a loss from experience, and trains policies with it for unseen tasks, beside PPO.

    Args:
        seeds: Number of seeds.
        first_seed: The first seed.
        losses: The losses to be learned; `learned` is always among them.
        policy_layers: Numbers of hidden layers of the policies that the loss is tested on.
        smoke: Run a few steps only, to see that everything works.
        jobs: Number of processes; each takes seeds of its own.
        output_dir: Where results go. An interrupted run resumes from it.

    Returns:
        The metrics, name -> one value per seed.

    Raises:
        ValueError: A number of layers below 1.
    """
    command = command_line(main, locals())
    config = {**CONFIG, "losses": losses, "policy_layers": policy_layers, **(SMOKE if smoke else {})}
    numbers = range(first_seed, first_seed + seeds)
    return run_experiment(EXPERIMENT, command, (run_tuning, run_seed), numbers, config, output_dir, jobs)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
