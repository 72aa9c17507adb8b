"""The problem of the recipe `mountain_car.py`: its policies, inputs of the losses, task losses and starts, and iLQR."""

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from ml3_tf import LossInputs
from ml3_tf.baselines import ILQRResult, ilqr
from ml3_tf.envs import mountain_car
from ml3_tf.rl import Trajectory, get_loss_inputs
from parts.mountain_car.settings import LossSettings

HORIZON = 35
SHAPED_STEPS = 15  # states that belong to the intermediate goal, the first one included
CHANGE = (0.3, 0.45)  # between these shares of meta-training the weights and starts go from begin to end
STRICT_DISTANCE = 0.1
END_WIDTH = 0.1  # final distances below it count little more
RANDOM_STARTS = (-0.6, -0.4)
RANDOM_CENTER = -0.5  # m, of the wider starts of meta-training
ILQR_WEIGHTS = (1e-2, 0.1, 10.0)  # of the squared force, of the squared distance along the way, and at the end
ILQR_GRID = list(itertools.product((1e-4, 1e-2, 1.0), (0.0, 0.1, 1.0), (1.0, 10.0, 100.0, 1000.0)))


def build_policy(settings: LossSettings) -> keras.Model:
    """Builds a policy, from states `[B, 2]` to forces `[B, 1]`."""
    layers, scale, limit = keras.layers, [1 / scale for scale in settings.policy_scale], mountain_car.MAX_FORCE
    if settings.policy == "linear":
        clip = layers.Activation(lambda force: keras.ops.clip(force, -limit, limit))
        dense = [layers.Dense(settings.policy_units, use_bias=False), layers.Dense(1, use_bias=False)]
        return keras.Sequential([keras.Input((2,)), *dense, clip])
    small = keras.initializers.VarianceScaling(0.01, "fan_avg", "uniform")  # a fresh policy hardly pushes
    return keras.Sequential(
        [
            keras.Input((2,)),
            layers.Rescaling(scale, offset=[-RANDOM_CENTER * scale[0], 0.0]),
            layers.Dense(settings.policy_units, "tanh"),
            layers.Dense(1, "tanh", kernel_initializer=small, name="output"),
            layers.Rescaling(limit),
        ]
    )


def final_distance(trajectory: Trajectory) -> tf.Tensor:
    """Returns the state, and the distance of the last state to the goal: `[..., T, 3]`, as in the public reference.

    The distance has no sign: a car that arrives too fast looks like one that arrives too slowly. Some losses of the
    improved setting then leave policies beside the goal.
    """
    seen = FINAL_ERROR(trajectory)
    return tf.concat([seen[..., :2], tf.norm(seen[..., 2:], axis=-1, keepdims=True)], -1)


FINAL_ERROR = get_loss_inputs("mountain_car")
LAYOUTS = {
    "final_error": FINAL_ERROR,
    "final_distance": LossInputs(final_distance, {"force": 1, "state": 2, "final_distance": 1}),
}


class TaskLoss:
    """The cost of each episode in meta-training, with weights that change in its course.

    Args:
        settings: The settings of the loss.
    """

    def __init__(self, settings: LossSettings) -> None:
        self.settings = settings
        self.path_weight, self.end_weight = (tf.Variable(0.0, trainable=False) for _ in range(2))
        self.set_progress(0.0)

    def set_progress(self, done: float) -> None:
        """Sets the weights for a share of meta-training that is done."""
        change = change_share(done)
        for weight, (first, last) in (
            (self.path_weight, self.settings.path_weight),
            (self.end_weight, self.settings.end_weight),
        ):
            weight.assign(first + (last - first) * change)

    def __call__(self, trajectory: Trajectory) -> tf.Tensor:
        """Returns the cost of each episode, `[N, B]`."""
        settings, states, goal = self.settings, trajectory.observations, trajectory.goal[..., tf.newaxis, :]
        begin = SHAPED_STEPS if settings.shaped else 0
        cost = self.path_weight * norm(states[..., begin:, :] - goal)
        if settings.shaped:
            away = states[..., :begin, :] - mountain_car.INTERMEDIATE_GOAL
            cost += settings.shaping_weight * self.path_weight * norm(away)
        # A logarithm: the last tenths count, and an episode that ends far away does not drown the others.
        end = tf.reduce_sum(tf.square(states[..., -1, :] - trajectory.goal), -1)
        cost += self.end_weight * 0.5 * tf.math.log(end + END_WIDTH**2)
        saturation = tf.reduce_mean((trajectory.actions / mountain_car.MAX_FORCE) ** 4, [-2, -1])
        return cost + settings.saturation_weight * saturation


def norm(values: tf.Tensor) -> tf.Tensor:
    """Returns the Frobenius norm over time and state, with a slope at zero."""
    return tf.sqrt(tf.reduce_sum(tf.square(values), [-2, -1]) + 1e-8)


def change_share(done: float) -> float:
    """Returns how far weights and starts have changed at a share of meta-training: a ramp from 0 to 1."""
    begin, end = CHANGE
    return min(max((done - begin) / (end - begin), 0.0), 1.0)


def draw_outer_steps(settings: LossSettings, seed: int) -> tf.data.Dataset:
    """Returns starts and goals of the outer steps; the range of the starts widens in the course of meta-training."""
    first, last = settings.start_spread
    center = mountain_car.START[0]

    def draw() -> Iterator[dict[str, Any]]:
        generator = np.random.default_rng(seed)
        for step in range(settings.outer_steps):
            change = change_share(step / settings.outer_steps) if last > first else 0.0
            position, velocity = generator.uniform(-1.0, 1.0, (2, settings.num_tasks, 1, 1))
            position = center + change * (RANDOM_CENTER - center) + (first + change * (last - first)) * position
            part = (
                np.concatenate([position, settings.speed_spread * velocity], -1),
                np.full((*position.shape[:2], 2), mountain_car.GOAL),
            )
            yield {"support": part, "query": part}

    spec = tf.TensorSpec((settings.num_tasks, 1, 2))
    tasks = tf.data.Dataset.from_generator(draw, output_signature={"support": (spec,) * 2, "query": (spec,) * 2})
    return tasks.prefetch(1)


def draw_starts(kind: Literal["nominal", "random"], seed: int, number: int) -> np.ndarray:
    """Returns starts `[number, 2]` at rest: all at the place of the paper, or at random places."""
    positions = np.full(number, mountain_car.START[0])
    if kind == "random":
        positions = np.random.default_rng([seed, 1]).uniform(*RANDOM_STARTS, number)
    return np.stack([positions, np.zeros(number)], 1)


def plan(starts: np.ndarray, weights: tuple[float, float, float] = ILQR_WEIGHTS) -> ILQRResult:
    """Runs iLQR with the true model, from zero force, for all starts at once."""
    goal, (control, path, end) = tf.constant(mountain_car.GOAL, tf.float64), weights
    squared_distance = lambda states: tf.reduce_sum((states - goal) ** 2, -1)
    return ilqr(
        mountain_car.mountain_car_step,
        running_cost=lambda states, forces: control * tf.reduce_sum(forces**2, -1) + path * squared_distance(states),
        final_cost=lambda states: end * squared_distance(states),
        initial_states=starts,
        controls=np.zeros((len(starts), HORIZON, 1)),
        lower=-mountain_car.MAX_FORCE,
        upper=mountain_car.MAX_FORCE,
    )


def scores(states: np.ndarray) -> dict[str, float]:
    """Returns the three metrics of rollouts `[N, T + 1, 2]`."""
    distances = np.linalg.norm(states[:, -1] - mountain_car.GOAL, axis=-1)
    return {
        "final_distance": float(np.median(distances)),
        "reach_rate": float(np.mean(states[..., 0].max(axis=1) >= mountain_car.MAX_POSITION - 1e-6)),
        "strict_rate": float(np.mean(distances < STRICT_DISTANCE)),
    }
