"""The baselines of `reacher_demonstrations.py`: cloned policies, and one of them as a teacher."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import gymnasium
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

BuildPolicy: TypeAlias = Callable[[], keras.Model]
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
        build = functools.partial(build_policy, settings.policy_units, sees_goal=CLONED[method])
        policy = clone_experts(build, experts, seed, sees_goal=CLONED[method], rate=rate, epochs=epochs)
        paths[method] = roll_out(policy, starts, targets, sees_goal=CLONED[method])[np.newaxis]
        errors[method] = imitation_error(policy, experts, sees_goal=CLONED[method])
    teacher = policy  # that of `goal_cloning`, the last one
    paths["taught"] = train_taught(
        teacher, settings, settings.taught, make_env(starts, targets), num_steps=num_steps, seed=test_seed
    )
    trained = experts["targets"][np.linalg.norm(targets[:, np.newaxis] - experts["targets"], axis=-1).argmin(1)]
    stay = np.concatenate([trained, np.zeros_like(trained)], -1)
    paths["nearest"] = np.repeat(stay[np.newaxis, :, np.newaxis], HORIZON + 1, 2)
    paths["ilqr"] = plan(starts, targets).states[np.newaxis]
    return paths, errors


def clone_experts(
    build: BuildPolicy,
    experts: Experts,
    seed: int,
    *,
    sees_goal: bool,
    rate: float,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> keras.Model:
    """Returns a policy cloned on all demonstrations, with Adam."""
    keras.utils.set_random_seed(seed)
    policy = build()
    behavior_cloning(
        policy,
        experts["states"],
        experts["torques"],
        goals=expert_goals(experts) if sees_goal else None,
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
    env: gymnasium.vector.VectorEnv,
    *,
    num_steps: int,
    seed: int,
    policy: BuildPolicy | None = None,
) -> np.ndarray:
    """Trains policies as the learned loss does, but from a teacher: states `[num_steps + 1, N, T + 1, 4]`."""
    return meta_test_in_env(
        policy or (lambda: build_policy(settings.policy_units)),
        taught_by(teacher),
        keras.optimizers.SGD(rate, clipnorm=settings.inner_clipnorm),
        env,
        num_steps=num_steps,
        horizon=HORIZON,
        loss_inputs=TAUGHT_INPUTS,
        seed=seed,
    ).observations


def tune(settings: BaselineSettings, others: Mapping[str, BuildPolicy]) -> Result:
    """Finds rate and epochs of each baseline: the best on other targets, mean final distance over a few other seeds.

    Args:
        settings: The settings.
        others: Name -> function that builds a policy of another kind, which sees the goal.

    Returns:
        "cloning" and "goal_cloning": rate and epochs; "other_cloning": the same for each of `others`; "taught": rate;
        "grids": method -> mean final distances.
    """
    seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + settings.num_tuning_seeds)
    epochs = [passes // settings.demonstrations for passes in settings.cloning_passes]
    tasks = [_draw_tuning_task(seed, settings) for seed in seeds]
    rates = settings.cloning_rates
    builders = {
        method: (functools.partial(build_policy, settings.policy_units, sees_goal=sees_goal), sees_goal)
        for method, sees_goal in CLONED.items()
    }
    grids = {
        method: np.mean([[_curve(*builder, task, rate, epochs) for rate in rates] for task in tasks], 0)
        for method, builder in {**builders, **{name: (build, True) for name, build in others.items()}}.items()
    }
    best = {method: np.unravel_index(grid.argmin(), grid.shape) for method, grid in grids.items()}
    tuned = {method: (rates[rate], epochs[number]) for method, (rate, number) in best.items()}
    grids["taught"] = np.mean([_taught_row(task, settings, *tuned["goal_cloning"]) for task in tasks], 0)
    return {
        **{method: tuned[method] for method in CLONED},
        "other_cloning": [tuned[name] for name in others],
        "taught": settings.taught_rates[grids["taught"].argmin()],
        "grids": {method: grid.tolist() for method, grid in grids.items()},
    }


def _draw_tuning_task(seed: int, settings: BaselineSettings) -> TuningTask:
    targets = draw_targets(seed, settings.num_targets)[1]
    experts = make_experts(seed, demonstrations=settings.demonstrations, pushes=settings.pushes)
    return TuningTask(seed, experts, draw_starts([seed, 4], len(targets)), targets)


def _curve(build: BuildPolicy, sees_goal: bool, task: TuningTask, rate: float, epochs: Sequence[int]) -> list[float]:
    """Mean final distance of a clone after so many epochs."""
    distances = {}

    def score(epoch: int, _: object) -> None:
        if epoch + 1 in epochs:
            states = roll_out(callback.model, task.starts, task.targets, sees_goal=sees_goal)
            distances[epoch + 1] = final_distances(states, task.targets).mean()

    callback = keras.callbacks.LambdaCallback(on_epoch_end=score)
    number = max(epochs)
    clone_experts(build, task.experts, task.seed, sees_goal=sees_goal, rate=rate, epochs=number, callbacks=[callback])
    return [distances[number] for number in epochs]


def _taught_row(task: TuningTask, settings: BaselineSettings, rate: float, epochs: int) -> list[float]:
    """Mean final distance for each rate of the pupils; a rate that diverges is the worst."""
    build = functools.partial(build_policy, settings.policy_units, sees_goal=True)
    teacher = clone_experts(build, task.experts, task.seed, sees_goal=True, rate=rate, epochs=epochs)
    row = []
    for taught_rate in settings.taught_rates:
        states = train_taught(
            teacher,
            settings,
            taught_rate,
            make_env(task.starts, task.targets),
            num_steps=settings.reported_step,
            seed=task.seed,
        )
        row.append(np.nan_to_num(final_distances(states[-1], task.targets).mean(), nan=np.inf))
    return row
