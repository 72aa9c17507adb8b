"""How near policies get, last and best, and what a use of a method costs, for the recipes that reach goals."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from parts.costs import UpdateClock, count_core_minutes, steps_to_level
from parts.goal_reaching.experiment import Experiment, Tasks, Trained, make_env
from parts.goal_reaching.meta_testing import meta_test
from parts.goal_reaching.settings import GoalReachingSettings

LATER_STEP = 20  # update of the `later_` metrics
MEASURED_STEPS = 10  # updates by which the core-minutes of one are measured


def compute_metrics(
    prefix: str, method: str, distances: np.ndarray, settings: GoalReachingSettings
) -> dict[str, float]:
    """Returns the metrics of one method, for the goals of one prefix.

    They are taken at the horizon, and three and ten times beyond it: the last distance and the best one up to then.

    Args:
        prefix: Prefix of the metrics.
        method: Name of the method.
        distances: Final distances `[num_updates + 1, N]`.
        settings: The settings.
    """
    curve, end = distances.mean(axis=1), len(distances) - 1
    metrics = {
        f"{prefix}initial_distance": float(curve[0]),
        f"{prefix}later_final_distance_{method}": float(curve[min(LATER_STEP, end)]),
    }
    for factor in (1, 3, 10):
        step = min(factor * settings.reported_step, end)
        name = f"final_distance_{method}" + ("" if factor == 1 else f"_{step}")
        metrics |= {f"{prefix}{name}": float(curve[step]), f"{prefix}best_{name}": float(curve[: step + 1].min())}
    return metrics


def count_costs(
    experiment: Experiment,
    settings: GoalReachingSettings,
    trained: Trained,
    tasks: Tasks,
    distances: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Returns the costs of a seed, see `parts/costs.py`; a use trains the policy of one goal.

    A step of the learned loss takes an episode of the real system. A baseline takes none for a use: it learns in the
    model, which has cost the samples of meta-training.

    Args:
        experiment: `Experiment`.
        settings: The settings.
        trained: The result of meta-training.
        tasks: Starts and goals of the first prefix.
        distances: "learned" and "baseline" -> their final distances for these, `[num_updates + 1, N]`.
    """
    curves = {role: values.mean(axis=1) for role, values in distances.items()}
    horizon = settings.reported_step
    per_step = {}
    for role, method in (("learned", "learned"), ("baseline", settings.best_baseline)):
        clock = UpdateClock(make_env(experiment, len(tasks[0]), tasks))
        meta_test(experiment, settings.replace(test_steps=MEASURED_STEPS), method, trained, tasks, seed=0, env=clock)
        per_step[role] = clock.core_minutes
    updates = steps_to_level(curves["learned"], curves["baseline"][horizon])
    return {
        "core_minutes": count_core_minutes(
            trained.costs["core_minutes"], curves=curves, per_step=per_step, horizon=horizon
        ),
        "samples": {
            "meta_train": trained.costs["samples"],
            "learned": None if updates is None else updates * experiment.horizon,
            "baseline": 0,
        },
    }
