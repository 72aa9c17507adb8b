"""The baselines of `reacher_demonstrations.py`: cloned policies, and one of them as a teacher."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ml3_tf import LossInputs
from ml3_tf.baselines import behavior_cloning
from ml3_tf.rl import meta_test_in_env, observation_and_goal
from parts.experiment import Result
from parts.reacher_demonstrations.settings import BaselineSettings
from parts.reacher_demonstrations.task import (
    HORIZON,
    Experts,
    build_policy,
    draw_starts,
    draw_targets,
    final_distances,
    make_env,
    make_experts,
    plan,
    roll_out,
)

CLONED = {"cloning": False, "goal_cloning": True}  # method -> whether the policy sees the goal
BATCH_SIZE = 64
FIRST_TUNING_SEED = 1000
TAUGHT_INPUTS = LossInputs(observation_and_goal, {"torque": 2, "state": 4, "goal": 2})


class TuningTask(NamedTuple):
    """The experts and test targets of one seed that baselines are tuned on."""

    seed: int
    experts: Experts
    starts: np.ndarray
    targets: np.ndarray


def run_baselines(
    experts: Experts,
    settings: BaselineSettings,
    starts: np.ndarray,
    targets: np.ndarray,
    *,
    num_steps: int,
    seed: int,
    test_seed: int,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Tests all baselines in the real environment.

    Args:
        experts: The demonstrations.
        settings: The settings.
        starts: `[N, 4]`.
        targets: `[N, 2]`.
        num_steps: Number of updates of `taught`.
        seed: Seed of the cloned policies.
        test_seed: Seed of the policies that are taught.

    Returns:
        Method -> states, `[num_steps + 1, N, T + 1, 4]` (`[1, ...]` where nothing is learned), and method ->
        imitation error.
    """
    paths, errors = {}, {}
    for method, (rate, epochs) in {"cloning": settings.cloning, "goal_cloning": settings.goal_cloning}.items():
        policy = clone_experts(method, experts, settings.policy_units, seed, rate=rate, epochs=epochs)
        paths[method] = roll_out(policy, starts, targets, sees_goal=CLONED[method])[np.newaxis]
        errors[method] = imitation_error(policy, experts, sees_goal=CLONED[method])
    teacher = policy  # that of `goal_cloning`, the last one
    paths["taught"] = train_taught(
        teacher, settings, settings.taught, starts, targets, num_steps=num_steps, seed=test_seed
    )
    trained = experts["targets"][np.linalg.norm(targets[:, np.newaxis] - experts["targets"], axis=-1).argmin(1)]
    stay = np.concatenate([trained, np.zeros_like(trained)], -1)
    paths["nearest"] = np.repeat(stay[np.newaxis, :, np.newaxis], HORIZON + 1, 2)
    paths["ilqr"] = plan(starts, targets).states[np.newaxis]
    return paths, errors


def clone_experts(
    method: str,
    experts: Experts,
    policy_units: int,
    seed: int,
    *,
    rate: float,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> keras.Model:
    """Returns a policy cloned on all demonstrations, with Adam."""
    keras.utils.set_random_seed(seed)
    policy = build_policy(policy_units, sees_goal=CLONED[method])
    behavior_cloning(
        policy,
        experts["states"],
        experts["torques"],
        goals=expert_goals(experts) if CLONED[method] else None,
        optimizer=keras.optimizers.Adam(rate),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        callbacks=callbacks,
        verbose=0,
    )
    return policy


def imitation_error(policy: keras.Model, experts: Experts, *, sees_goal: bool) -> float:
    """Returns the mean squared difference to the experts' torques, (N m)^2."""
    inputs = np.concatenate([experts["states"], expert_goals(experts)], -1) if sees_goal else experts["states"]
    torques = policy(inputs.reshape(-1, inputs.shape[-1])).numpy().reshape(experts["torques"].shape)
    return float(np.mean((torques - experts["torques"]) ** 2))


def expert_goals(experts: Experts) -> np.ndarray:
    """Returns the target of each state of the demonstrations, `[4, D, T, 2]`."""
    return np.broadcast_to(experts["targets"][:, np.newaxis, np.newaxis], (*experts["states"].shape[:-1], 2))


def taught_by(teacher: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns the loss of `taught`: the squared difference to the torques of a goal-conditioned policy.

    Its `y_true` is state and goal, side by side.
    """

    def loss(y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        answers = teacher(tf.reshape(y_true, [-1, y_true.shape[-1]]))
        return tf.reduce_mean(tf.square(y_pred - tf.reshape(answers, tf.shape(y_pred))), -1)

    return loss


def train_taught(
    teacher: keras.Model,
    settings: BaselineSettings,
    rate: float,
    starts: np.ndarray,
    targets: np.ndarray,
    *,
    num_steps: int,
    seed: int,
) -> np.ndarray:
    """Trains policies as the learned loss does, but from a teacher: states `[num_steps + 1, N, T + 1, 4]`."""
    return meta_test_in_env(
        lambda: build_policy(settings.policy_units),
        taught_by(teacher),
        keras.optimizers.SGD(rate, clipnorm=settings.inner_clipnorm),
        make_env(starts, targets),
        num_steps=num_steps,
        horizon=HORIZON,
        loss_inputs=TAUGHT_INPUTS,
        seed=seed,
    ).observations


def tune(settings: BaselineSettings) -> Result:
    """Finds rate and epochs of each baseline: the best on other targets, mean final distance over a few other seeds.

    Returns:
        "cloning" and "goal_cloning": rate and epochs; "taught": rate; "grids": method -> mean final distances.
    """
    seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + settings.num_tuning_seeds)
    epochs = [passes // settings.demonstrations for passes in settings.cloning_passes]
    tasks = [_draw_tuning_task(seed, settings) for seed in seeds]
    rates = settings.cloning_rates
    grids = {
        method: np.mean([[_curve(method, task, settings, rate, epochs) for rate in rates] for task in tasks], 0)
        for method in CLONED
    }
    best = {method: np.unravel_index(grid.argmin(), grid.shape) for method, grid in grids.items()}
    tuned = {method: (rates[rate], epochs[number]) for method, (rate, number) in best.items()}
    grids["taught"] = np.mean([_taught_row(task, settings, *tuned["goal_cloning"]) for task in tasks], 0)
    taught = settings.taught_rates[grids["taught"].argmin()]
    return {**tuned, "taught": taught, "grids": {method: grid.tolist() for method, grid in grids.items()}}


def _draw_tuning_task(seed: int, settings: BaselineSettings) -> TuningTask:
    targets = draw_targets(seed, settings.num_targets)[1]
    experts = make_experts(seed, demonstrations=settings.demonstrations, pushes=settings.pushes)
    return TuningTask(seed, experts, draw_starts([seed, 4], len(targets)), targets)


def _curve(method: str, task: TuningTask, settings: BaselineSettings, rate: float, epochs: Sequence[int]) -> list:
    """Mean final distance after so many epochs."""
    distances = {}

    def score(epoch: int, _: object) -> None:
        if epoch + 1 in epochs:
            states = roll_out(callback.model, task.starts, task.targets, sees_goal=CLONED[method])
            distances[epoch + 1] = final_distances(states, task.targets).mean()

    callback = keras.callbacks.LambdaCallback(on_epoch_end=score)
    clone_experts(
        method,
        task.experts,
        settings.policy_units,
        task.seed,
        rate=rate,
        epochs=max(epochs),
        callbacks=[callback],
    )
    return [distances[number] for number in epochs]


def _taught_row(task: TuningTask, settings: BaselineSettings, rate: float, epochs: int) -> list[float]:
    """Mean final distance for each rate of the pupils; a rate that diverges is the worst."""
    teacher = clone_experts("goal_cloning", task.experts, settings.policy_units, task.seed, rate=rate, epochs=epochs)
    row = []
    for taught_rate in settings.taught_rates:
        states = train_taught(
            teacher,
            settings,
            taught_rate,
            task.starts,
            task.targets,
            num_steps=settings.reported_step,
            seed=task.seed,
        )
        row.append(np.nan_to_num(final_distances(states[-1], task.targets).mean(), nan=np.inf))
    return row
