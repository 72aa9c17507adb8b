"""Meta-test of the learned losses and their baselines in the real environment, and the tuning of the baselines."""

from collections.abc import Callable
from typing import Any

import gymnasium
import keras
import numpy as np
import tensorflow as tf

from ml3_tf.baselines import train_in_model
from ml3_tf.rl import DynamicsEnsemble, Trajectory, meta_test_in_env
from parts.goal_reaching.experiment import Experiment, Tasks, Trained, make_env
from parts.goal_reaching.settings import GoalReachingSettings
from parts.tuned_optimizers import OPTIMIZER_NAMES, OPTIMIZERS, tune_rate

COSTS = ("", "_squared")  # endings of the baselines of the task loss, and of the squared final distance
ADAPTIVE = ("adam", "adamw", "muon")  # the optimizers beside SGD, which is that of `tuned`
BASELINES = tuple(name + cost for name in ("tuned", *ADAPTIVE) for cost in COSTS)
METHODS = ("learned", "same_rate", *BASELINES)
TUNED_SETTINGS = (*(name + cost for name in ("tuned", "optimizer_rates") for cost in COSTS), "best_baseline")
TUNING_SEED = 1000  # of the dynamics, goals and policies that the baselines are tuned with
# Of the baselines. Six a decade: near its best rate, twice the rate may leave a multiple of the distance.
RATES = [float(f"{rate:.2g}") for rate in np.logspace(-4, 2, 37)]


def meta_test(
    experiment: Experiment,
    settings: GoalReachingSettings,
    method: str,
    trained: Trained,
    tasks: Tasks,
    *,
    seed: int,
    env: gymnasium.vector.VectorEnv | None = None,
) -> np.ndarray:
    """Trains N fresh policies, one for each task, and rolls them out in the real environment.

    The learned loss trains them in the environment alone (Algorithm 5); a baseline, with the gradient of its cost
    through the learned dynamics.

    Args:
        experiment: `Experiment`.
        settings: The settings.
        method: One of `METHODS`.
        trained: The learned loss and the learned dynamics.
        tasks: Starts `[N, S]` and goals `[N, G]`.
        seed: Seed of the run. All methods start from the same policies.
        env: Environments for these tasks. None: those of `make_env`.

    Returns:
        States `[num_updates + 1, N, T + 1, S]`.
    """
    optimizer, env = build_optimizer(method, settings), env or make_env(experiment, len(tasks[0]), tasks)
    if method == "learned":
        return meta_test_in_env(
            lambda: experiment.build_policy(settings),
            trained.meta_loss,
            optimizer,
            env,
            num_steps=settings.test_steps,
            horizon=experiment.horizon,
            loss_inputs=experiment.loss_inputs(settings),
            seed=meta_test_seed(seed),
        ).observations
    steps = settings.test_steps
    return _train_baseline(experiment, settings, method, trained.dynamics, env, optimizer, num_steps=steps, seed=seed)


def build_optimizer(method: str, settings: GoalReachingSettings) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a method, at its rate."""
    name = method.removesuffix("_squared")
    rate, clipnorm = settings.inner_rate, settings.inner_clipnorm
    if name in ADAPTIVE:
        rates = getattr(settings, "optimizer_rates" + method.removeprefix(name))
        return OPTIMIZERS[name](rates[ADAPTIVE.index(name)])
    if name == "tuned":
        rate, clipnorm = getattr(settings, method)
    return keras.optimizers.SGD(rate, clipnorm=clipnorm)


def _train_baseline(
    experiment: Experiment,
    settings: GoalReachingSettings,
    method: str,
    dynamics: DynamicsEnsemble,
    env: gymnasium.vector.VectorEnv,
    optimizer: keras.optimizers.Optimizer,
    *,
    num_steps: int,
    seed: int,
    rates: np.ndarray | None = None,
) -> np.ndarray:
    """States of a baseline, as in `meta_test`; `rates` `[N]` replace the rate of the optimizer."""
    cost = squared_final_distance if method.endswith("_squared") else experiment.task_loss
    return train_in_model(
        lambda: experiment.build_policy(settings),
        lambda trajectory: cost(trajectory, settings),
        optimizer,
        dynamics=dynamics.next_states,
        env=env,
        num_steps=num_steps,
        horizon=experiment.horizon,
        learning_rates=rates,
        seed=meta_test_seed(seed),
    ).observations


def squared_final_distance(trajectory: Trajectory, settings: GoalReachingSettings) -> tf.Tensor:
    """Returns the squared distance between the last state and the goal, `[N, B]`: that of the methods `..._squared`."""
    last = trajectory.observations[..., -1, : trajectory.goal.shape[-1]]
    return tf.reduce_sum(tf.square(last - trajectory.goal), -1)


def meta_test_seed(seed: int) -> int:
    """Returns the seed of policies that meta-training has not drawn."""
    return 10_000 + seed


def draw_test_tasks(experiment: Experiment, seed: int, number: int) -> dict[str, Tasks]:
    """Draws the tasks of meta-test: prefix of metrics -> starts `[number, S]` and goals `[number, G]`."""
    generator = np.random.default_rng([seed, 1])
    return {prefix: draw(generator, number) for prefix, draw in experiment.test_tasks.items()}


def final_distances(states: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Returns the distance between the last state and the goal, `[num_updates + 1, N]`."""
    return np.linalg.norm(states[:, :, -1, : goals.shape[-1]] - goals, axis=-1)


def tune(experiment: Experiment, settings: GoalReachingSettings, dynamics: DynamicsEnsemble) -> dict[str, Any]:
    """Chooses the rate of each baseline that ends nearest to other goals, and the clipping of those of SGD.

    Args:
        experiment: `Experiment`.
        settings: The settings.
        dynamics: `DynamicsEnsemble` that was learned with `TUNING_SEED`.

    Returns:
        The `TUNED_SETTINGS`; "nearest": name of a baseline -> mean final distance at its best; "distances": of the
        baselines `tuned...`, clipnorm -> that at each rate.
    """
    draw, clipnorms = next(iter(experiment.test_tasks.values())), settings.tuned_clipnorms
    tasks = draw(np.random.default_rng([TUNING_SEED, 2]), settings.num_tuning_goals)
    found, nearest, distances = {}, {}, {}
    for cost in COSTS:
        method = f"tuned{cost}"
        grid = np.array(
            [distances_at_rates(experiment, settings, method, dynamics, tasks, clipnorm) for clipnorm in clipnorms]
        )
        best = np.unravel_index(grid.argmin(), grid.shape)
        found[method], nearest[method] = (RATES[best[1]], clipnorms[best[0]]), grid.min()
        distances[method] = {str(clipnorm): values.tolist() for clipnorm, values in zip(clipnorms, grid)}
        for name in ADAPTIVE:
            measure = _measure(experiment, settings, name + cost, dynamics, tasks)
            rate, nearest[name + cost] = tune_rate(measure, settings.adaptive_rates, name=OPTIMIZER_NAMES[name])
            found[f"optimizer_rates{cost}"] = [*found.get(f"optimizer_rates{cost}", []), rate]
    return {**found, "best_baseline": min(nearest, key=nearest.__getitem__), "nearest": nearest, "distances": distances}


def _measure(
    experiment: Experiment, settings: GoalReachingSettings, method: str, dynamics: DynamicsEnsemble, tasks: Tasks
) -> Callable[[float], float]:
    """Returns the function of a rate that trains by an optimizer of `ADAPTIVE`, and returns the mean final distance.

    A run for each rate: the steps of Muon are taken one policy after the other.
    """

    def measure(rate: float) -> float:
        optimizer, steps = OPTIMIZERS[method.removesuffix("_squared")](rate), settings.reported_step
        env = make_env(experiment, len(tasks[0]), tasks)
        states = _train_baseline(
            experiment, settings, method, dynamics, env, optimizer, num_steps=steps, seed=TUNING_SEED
        )
        return float(final_distances(states, tasks[1])[-1].mean())

    return measure


def distances_at_rates(
    experiment: Experiment,
    settings: GoalReachingSettings,
    method: str,
    dynamics: DynamicsEnsemble,
    tasks: Tasks,
    clipnorm: float | None,
) -> np.ndarray:
    """Returns the mean final distance of a baseline after the reported update, `[rates]`; one run tries them all."""
    repeated = tuple(np.repeat(values, len(RATES), axis=0) for values in tasks)
    states = _train_baseline(
        experiment,
        settings,
        method,
        dynamics,
        make_env(experiment, len(repeated[0]), repeated),
        keras.optimizers.SGD(0.0, clipnorm=clipnorm),
        num_steps=settings.reported_step,
        seed=TUNING_SEED,
        rates=np.tile(RATES, len(tasks[1])),
    )
    return final_distances(states, repeated[1])[-1].reshape(-1, len(RATES)).mean(0)
