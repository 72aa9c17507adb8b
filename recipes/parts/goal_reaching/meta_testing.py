"""Meta-test of the learned losses and their baselines in the real environment, and the tuning of the baselines."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.baselines import train_in_model
from ml3_tf.rl import DynamicsEnsemble, Trajectory, meta_test_in_env
from parts.goal_reaching.experiment import Experiment, Tasks, Trained, make_env
from parts.goal_reaching.settings import GoalReachingSettings

METHODS = ("learned", "same_rate", "tuned", "tuned_squared")
TUNED = ("tuned", "tuned_squared")
TUNING_SEED = 1000  # of the dynamics, goals and policies that the baselines are tuned with
# Of the baselines. Six a decade: near its best rate, twice the rate may leave a multiple of the distance.
RATES = [float(f"{rate:.2g}") for rate in np.logspace(-4, 2, 37)]


def meta_test(
    experiment: Experiment, settings: GoalReachingSettings, method: str, trained: Trained, tasks: Tasks, *, seed: int
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

    Returns:
        States `[num_updates + 1, N, T + 1, S]`.
    """
    inner_optimizer = keras.optimizers.SGD(settings.inner_rate, clipnorm=settings.inner_clipnorm)
    if method == "learned":
        return meta_test_in_env(
            lambda: experiment.build_policy(settings),
            trained.meta_loss,
            inner_optimizer,
            make_env(experiment, len(tasks[0]), tasks),
            num_steps=settings.test_steps,
            horizon=experiment.horizon,
            loss_inputs=experiment.loss_inputs(settings),
            seed=meta_test_seed(seed),
        ).observations
    tuned = {"tuned": settings.tuned, "tuned_squared": settings.tuned_squared}
    optimizer = inner_optimizer
    if method in tuned:
        rate, clipnorm = tuned[method]
        optimizer = keras.optimizers.SGD(rate, clipnorm=clipnorm)
    return _train_baseline(
        experiment, settings, method, trained.dynamics, tasks, optimizer, num_steps=settings.test_steps, seed=seed
    )


def _train_baseline(
    experiment: Experiment,
    settings: GoalReachingSettings,
    method: str,
    dynamics: DynamicsEnsemble,
    tasks: Tasks,
    optimizer: keras.optimizers.Optimizer,
    *,
    num_steps: int,
    seed: int,
    rates: np.ndarray | None = None,
) -> np.ndarray:
    """States of a baseline, as in `meta_test`; `rates` `[N]` replace the rate of the optimizer."""
    cost = squared_final_distance if method == "tuned_squared" else experiment.task_loss
    return train_in_model(
        lambda: experiment.build_policy(settings),
        lambda trajectory: cost(trajectory, settings),
        optimizer,
        dynamics=dynamics.next_states,
        env=make_env(experiment, len(tasks[0]), tasks),
        num_steps=num_steps,
        horizon=experiment.horizon,
        learning_rates=rates,
        seed=meta_test_seed(seed),
    ).observations


def squared_final_distance(trajectory: Trajectory, settings: GoalReachingSettings) -> tf.Tensor:
    """Returns the squared distance between the last state and the goal, `[N, B]`: the cost of `tuned_squared`."""
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
    """Chooses the rate and the clipping of each baseline that end nearest to other goals.

    Args:
        experiment: `Experiment`.
        settings: The settings.
        dynamics: `DynamicsEnsemble` that was learned with `TUNING_SEED`.

    Returns:
        Name of a baseline -> `(rate, clipnorm)`; "distances": name -> clipnorm -> mean final distance at each rate.
    """
    draw, clipnorms = next(iter(experiment.test_tasks.values())), settings.tuned_clipnorms
    tasks = draw(np.random.default_rng([TUNING_SEED, 2]), settings.num_tuning_goals)
    chosen, distances = {}, {}
    for method in TUNED:
        grid = np.array(
            [distances_at_rates(experiment, settings, method, dynamics, tasks, clipnorm) for clipnorm in clipnorms]
        )
        best = np.unravel_index(grid.argmin(), grid.shape)
        chosen[method] = RATES[best[1]], clipnorms[best[0]]
        distances[method] = {str(clipnorm): values.tolist() for clipnorm, values in zip(clipnorms, grid)}
    return {**chosen, "distances": distances}


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
        repeated,
        keras.optimizers.SGD(0.0, clipnorm=clipnorm),
        num_steps=settings.reported_step,
        seed=TUNING_SEED,
        rates=np.tile(RATES, len(tasks[1])),
    )
    return final_distances(states, repeated[1])[-1].reshape(-1, len(RATES)).mean(0)
