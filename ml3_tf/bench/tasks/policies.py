"""Policies of a point mass and of an arm: each learns to get to one goal, from one rollout a step.

The equations are those of the environments of `ml3_tf.envs`. A learned loss sees states and actions of the rollout, as
Algorithm 5 of ML3 has it, and needs no equations. Any other loss sees where the rollout ended, and its gradient flows
through the true equations.

Shape letters: P problems, N policies, T time, S = 4 columns of a state (position or angles, then velocities).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from ml3_tf.bench.task import Kind, Problems, Task
from ml3_tf.envs import pointmass, reacher
from ml3_tf.learner import Parameters
from ml3_tf.meta_loss import MetaLoss
from ml3_tf.rl import Squash, Trajectory, get_loss_inputs, learning_batch, rollout_model

NUM_GOALS = 10  # of a seed
REST = (0.0, 1.2)  # rad, of the arm that learns to reach what is near
LAYOUTS: dict[Kind, tuple[str, ...]] = {
    "pointmass": ("pointmass",),
    "arm": ("reacher_model_based", "reacher_demonstrations"),
}
"""Kind -> names of the `LossInputs` that a learned loss may have."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyTask(Task):
    """A task of policies. Examples are starts `[P, 1, S]` and the ways `[P, 1, 2]` from there to the goals.

    Args:
        dynamics: Function of states `[N, 1, S]` and actions `[N, 1, 2]` that returns the next states.
        horizon: T, the number of steps of a rollout.
    """

    dynamics: Callable[[Any, Any], Any]
    horizon: int

    def make_examples(self, loss: Any, predict: Callable[..., Any]) -> Callable[[Parameters, Any], Any]:
        inputs = find_inputs(loss, self.kind) if isinstance(loss, MetaLoss) else None

        def examples(parameters: Parameters, rows: Any) -> Any:
            trajectory = self._roll_out(predict, parameters, *rows)
            if inputs is None:
                return learning_batch(trajectory, final_error)
            return learning_batch(tf.nest.map_structure(tf.stop_gradient, trajectory), inputs)

        return examples

    def predict(self, predict: Callable[..., Any], parameters: Parameters, x: Any) -> Any:
        trajectory = self._roll_out(predict, parameters, x, x[..., :2])
        return trajectory.observations[..., -1, :2] - x[..., :2]

    def _roll_out(self, predict: Callable[..., Any], parameters: Parameters, starts: Any, ways: Any) -> Trajectory:
        return rollout_model(
            lambda states: predict(parameters, states),
            self.dynamics,
            starts,
            horizon=self.horizon,
            goal=starts[..., :2] + ways,
            weights=parameters.trainable,
        )


class FinalDistance(keras.losses.Loss):
    """The distance between the end of a rollout and its goal: the length of the final error.

    >>> float(FinalDistance()(ops.array([[3.0, 4.0]]), ops.zeros((1, 2))))
    5.0
    """

    def __init__(self) -> None:
        super().__init__(name="final_distance")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        squares: Any = ops.sum(ops.square(y_true), axis=-1)
        return ops.sqrt(squares + 1e-12)  # with a slope at zero


class SquaredFinalDistance(keras.losses.Loss):
    """The square of `FinalDistance`.

    >>> float(SquaredFinalDistance()(ops.array([[3.0, 4.0]]), ops.zeros((1, 2))))
    25.0
    """

    def __init__(self) -> None:
        super().__init__(name="squared_final_distance")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.sum(ops.square(y_true), axis=-1)


def final_error(trajectory: Trajectory) -> tf.Tensor:
    """Returns the last position or angles minus the goal, the same at each time: `[..., T, 2]`."""
    error = trajectory.observations[..., -1, :2] - trajectory.goal
    return tf.repeat(error[..., tf.newaxis, :], trajectory.actions.shape[-2], axis=-2)


def find_inputs(loss: MetaLoss, kind: Kind) -> Any:
    """Returns the `LossInputs` of a kind whose features a loss has, or `None`."""
    layouts = map(get_loss_inputs, LAYOUTS.get(kind, ()))
    return next((inputs for inputs in layouts if dict(inputs.features) == dict(loss.features)), None)


def build_policy(limit: float, *, center: Sequence[float], scale: Sequence[float]) -> keras.Model:
    """Returns a policy with one hidden layer, from states to actions within a limit.

    A fresh policy hardly acts. The biases of its hidden units are spread, so that it sees its state at the center, too.
    """
    layers, initializers = keras.layers, keras.initializers
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Rescaling([1 / s for s in scale], [-c / s for c, s in zip(center, scale, strict=True)]),
            layers.Dense(64, "tanh", bias_initializer=initializers.RandomUniform(-1.0, 1.0)),
            layers.Dense(2, kernel_initializer=initializers.VarianceScaling(0.01, "fan_avg"), name="output"),
            Squash(limit),
        ]
    )


def draw_pointmass(seed: int) -> Problems:
    """Draws goals around the origin, where the mass rests."""
    goals = np.random.default_rng([seed, 3]).uniform(-pointmass.MAX_GOAL, pointmass.MAX_GOAL, (NUM_GOALS, 2))
    return _problems(np.zeros((NUM_GOALS, 2)), goals)


def draw_near_poses(seed: int) -> Problems:
    """Draws starts within 0.3 rad of a pose, and goals within 1.2 rad, along each joint."""
    generator = np.random.default_rng([seed, 4])
    return _problems(*(REST + generator.uniform(-size, size, (NUM_GOALS, 2)) for size in (0.3, 1.2)))


def draw_far_poses(seed: int) -> Problems:
    """Draws starts and goals between -pi and 0, both joints."""
    starts, goals = np.random.default_rng([seed, 5]).uniform(-np.pi, 0, (2, NUM_GOALS, 2))
    return _problems(starts, goals)


def _problems(positions: np.ndarray, goals: np.ndarray) -> Problems:
    """Problems whose policies start at rest."""
    starts = np.concatenate([positions, np.zeros_like(positions)], axis=1)
    part = starts[:, np.newaxis].astype("float32"), (goals - positions)[:, np.newaxis].astype("float32")
    return Problems(part, part, *[np.ones(len(starts), int)] * 2)


POINTMASS = PolicyTask(
    names=("pointmass",),
    kind="pointmass",
    build=functools.partial(build_policy, pointmass.MAX_ACCELERATION, center=(0, 0, 0, 0), scale=(0.5, 0.5, 0.5, 0.5)),
    draw=draw_pointmass,
    dynamics=pointmass.pointmass_step,
    horizon=25,
    num_steps=10,
)
ARM_NEAR, ARM_FAR = (
    PolicyTask(
        names=(name,),
        kind="arm",
        build=functools.partial(build_policy, reacher.MAX_TORQUE, center=(*center, 0, 0), scale=scale),
        draw=draw,
        dynamics=reacher.reacher_step,
        horizon=65,
        num_steps=num_steps,
    )
    for name, center, scale, draw, num_steps in (
        ("arm_near", REST, (0.5, 0.5, 2.5, 2.5), draw_near_poses, 20),
        ("arm_far", (0, 0), (2, 2, 10, 10), draw_far_poses, 10),
    )
)
