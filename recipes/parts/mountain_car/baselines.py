"""The shaped task loss itself, descended with tuned optimizers through the model that losses are learned in.

A baseline needs the model and the task loss for each use; the learned loss needs neither.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
import keras
import numpy as np

from ml3_tf.baselines import train_in_model
from ml3_tf.envs import mountain_car
from parts.costs import UpdateClock, count_core_minutes, steps_to_level
from parts.experiment import Result, Seed
from parts.mountain_car.settings import LossSettings
from parts.mountain_car.task import HORIZON, TaskLoss, build_policy, draw_starts
from parts.mountain_car.training import make_env, meta_test_seed
from parts.tuned_optimizers import OPTIMIZERS, build_optimizers, tune_optimizers

if TYPE_CHECKING:
    from pathlib import Path

    from mountain_car import Settings

BASELINES = tuple(f"task_{name}" for name in OPTIMIZERS)
TUNED_SETTINGS = ("optimizer_rates", "best_optimizer", "task_loss_stage")
STAGES = (0.0, 1.0)  # shares of meta-training: its task loss changes on the way, and begins with the path alone
TUNING_SEED = 1000  # of the starts and policies that the optimizers are tuned with
MEASURED_STEPS = 10  # updates by which the core-minutes of one are measured


def train_baseline(
    optimizer: keras.optimizers.Optimizer,
    settings: LossSettings,
    env: gymnasium.vector.VectorEnv,
    seed: int,
    *,
    num_steps: int,
    stage: float,
) -> np.ndarray:
    """Trains N fresh policies with the task loss, as it is at one stage of meta-training.

    Args:
        optimizer: The optimizer.
        settings: The settings of policies and task loss.
        env: N environments, see `make_env`.
        seed: Seed of the run. All methods start from the same policies.
        num_steps: Number of updates of each policy.
        stage: Share of meta-training that is done, one of `STAGES`.

    Returns:
        States `[num_steps + 1, N, T + 1, 2]`.
    """
    task_loss = TaskLoss(settings)
    task_loss.set_progress(stage)
    return train_in_model(
        lambda: build_policy(settings),
        task_loss,
        optimizer,
        dynamics=mountain_car.mountain_car_step,
        env=env,
        num_steps=num_steps,
        horizon=HORIZON,
        seed=meta_test_seed(seed),
    ).observations


def train_baselines(settings: "Settings", starts: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Returns the states of each of `BASELINES`, see `train_baseline`."""
    optimizers, steps = build_optimizers(settings.optimizer_rates).values(), settings.test_steps
    stage, improved = settings.task_loss_stage, settings.improved
    return {
        method: train_baseline(optimizer, improved, make_env(starts), seed, num_steps=steps, stage=stage)
        for method, optimizer in zip(BASELINES, optimizers)
    }


def tune(_: Seed, settings: "Settings", output_dir: "Path", verbose: int) -> Result:
    """Returns the rates and the stage of the task loss with which policies end nearest to the goal.

    They start at other random places. The stage is that of the best optimizer.
    """
    starts, steps = draw_starts("random", TUNING_SEED, settings.num_tuning_policies), settings.reported_step

    def final_distance(optimizer: keras.optimizers.Optimizer, stage: float) -> float:
        env = make_env(starts)
        states = train_baseline(optimizer, settings.improved, env, TUNING_SEED, num_steps=steps, stage=stage)
        return float(np.linalg.norm(states[-1, :, -1] - mountain_car.GOAL, axis=-1).mean())

    found = {
        stage: tune_optimizers(
            lambda optimizer, stage=stage: final_distance(optimizer, stage),
            sgd_rates=settings.sgd_rates,
            adaptive_rates=settings.adaptive_rates,
        )
        for stage in STAGES
    }
    stage = min(STAGES, key=lambda stage: min(found[stage].scores))
    return dict(zip(TUNED_SETTINGS, (found[stage].rates, found[stage].best, stage)))


def count_costs(
    meta_trained: Mapping[str, float],
    train: Mapping[str, Callable[[gymnasium.vector.VectorEnv, int], Any]],
    starts: np.ndarray,
    *,
    distances: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Returns the costs of a seed, see `parts/costs.py`; a use trains a policy from the paper's start.

    The level is the least distance of the baseline, at any of its updates. (On its way it ends farther from the goal
    than a fresh policy, which would have the level of then without a step.) Samples are steps of the car's equations.
    An update takes an episode of them, in the car or in the model.

    Args:
        meta_trained: Core-minutes and samples of meta-training.
        train: "learned" and "baseline" -> function of environments and a number of steps that trains policies.
        starts: Starts of these policies.
        distances: "learned" and "baseline" -> final distances `[num_updates + 1, N]`.
    """
    curves = {role: np.median(values, axis=1) for role, values in distances.items()}
    per_step = {}
    for role, trains in train.items():
        clock = UpdateClock(make_env(starts))
        trains(clock, MEASURED_STEPS)
        per_step[role] = clock.core_minutes
    nearest = int(np.argmin(curves["baseline"]))
    level = curves["baseline"][nearest]
    updates = {role: steps_to_level(curve, level) for role, curve in curves.items()}
    samples = {role: None if number is None else number * HORIZON for role, number in updates.items()}
    return {
        "core_minutes": count_core_minutes(
            meta_trained["core_minutes"], curves=curves, per_step=per_step, horizon=nearest
        ),
        "samples": {"meta_train": meta_trained["samples"], **samples},
    }
