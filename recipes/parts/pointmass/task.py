"""The problem of the recipe `pointmass.py`: its policies, the inputs of its losses, its task loss, starts and goals."""

import keras
import numpy as np
import tensorflow as tf

from ml3_tf import LossInputs
from ml3_tf.envs import pointmass
from ml3_tf.rl import Squash, Trajectory, get_loss_inputs
from parts.goal_reaching.experiment import DrawTasks, Tasks
from parts.goal_reaching.settings import GoalReachingSettings

HORIZON = 25


def build_policy() -> keras.Model:
    """Builds a policy, from states `[B, 4]` to accelerations `[B, 2]`."""
    dense, initializers = keras.layers.Dense, keras.initializers
    spread = initializers.RandomUniform(-1.0, 1.0)
    small = initializers.VarianceScaling(0.01, "fan_avg", "uniform")  # a fresh policy hardly pushes
    return keras.Sequential(
        [
            keras.Input((4,)),
            dense(64, "tanh", kernel_initializer=initializers.RandomNormal(stddev=0.3), bias_initializer=spread),
            dense(2, kernel_initializer=small, name="output"),
            Squash(pointmass.MAX_ACCELERATION),
        ]
    )


def way_and_velocity(trajectory: Trajectory) -> tf.Tensor:
    """Returns the way to the goal (m) and the velocity (m/s), `[..., T, 4]`."""
    states, goal = trajectory.observations[..., :-1, :], trajectory.goal[..., tf.newaxis, :]
    return tf.concat([goal - states[..., :2], states[..., 2:]], -1)


LAYOUTS = {
    "absolute": get_loss_inputs("pointmass"),
    "relative": LossInputs(way_and_velocity, {"acceleration": 2, "to_goal": 2, "velocity": 2}),
}


def task_loss(trajectory: Trajectory, settings: GoalReachingSettings, *, end_width: float) -> tf.Tensor:
    """Returns the cost of each episode, `[N, B]`: distances, final speed, and accelerations near their limit.

    The end counts by the logarithm of the distance: so the last tenths count, and an episode that ends far away does
    not drown the others. Below `end_width` (m) the logarithm levels out.
    """
    away = trajectory.observations[..., 1:, :2] - trajectory.goal[..., tf.newaxis, :]
    squares = tf.reduce_sum(tf.square(away), -1)
    speeds = tf.reduce_sum(tf.square(trajectory.observations[..., -1, 2:]), -1)
    saturation = tf.reduce_mean((trajectory.actions / pointmass.MAX_ACCELERATION) ** 4, [-2, -1])
    cost = settings.path_weight * tf.reduce_mean(tf.sqrt(squares + end_width**2), -1)
    cost += settings.end_weight * 0.5 * tf.math.log(squares[..., -1] + end_width**2)
    cost += settings.speed_weight * speeds
    return cost + settings.saturation_weight * saturation


def train_tasks(generator: np.random.Generator, number: int) -> Tasks:
    """Draws starts `[number, 4]` and goals `[number, 2]` of meta-training, all in the right half-plane."""
    starts, goals = [], []
    while len(starts) < number:
        start, goal = generator.uniform([[0.0, -pointmass.MAX_GOAL]] * 2, pointmass.MAX_GOAL)
        if np.abs(goal - start).max() <= pointmass.MAX_GOAL:
            starts.append(np.concatenate([start, generator.uniform(-0.3, 0.3, 2)]))
            goals.append(goal)
    return np.array(starts), np.array(goals)


def tasks_on_side(side: float) -> DrawTasks:
    """Returns a function that draws goals on the right (`side` 1) or left (-1), and starts at rest at the origin."""

    def draw(generator: np.random.Generator, number: int) -> Tasks:
        goals = generator.uniform([0.0, -pointmass.MAX_GOAL], pointmass.MAX_GOAL, (number, 2)) * [side, 1.0]
        return np.zeros((number, 4)), goals

    return draw
