"""The problem of the recipe `reacher_model_based.py`: its policies, its task loss, and its starts and goals."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.baselines import ILQRResult, ilqr
from ml3_tf.envs import reacher
from ml3_tf.rl import MLPPolicy, Trajectory
from parts.goal_reaching.experiment import DrawTasks, Tasks
from parts.goal_reaching.settings import GoalReachingSettings

HORIZON = 65
# Angles (rad) of both joints in which starts and goals are drawn. The untrained side is the trained one's mirror image:
# meta-training visits neither its shoulder angles nor its elbow angles, and the forces of the turning arm change sign.
SIDES = {"trained": (0.0, np.pi), "untrained": (-np.pi, 0.0)}
ANGLE_SCALE, SPEED_SCALE = 2.0, 10.0  # rad, rad/s
# A goal can be reached if iLQR with the true model gets so near, and so slow. The arm moves in a horizontal plane:
# at rest in a pose it stays there, so that such a goal can also be held.
REACHED_DISTANCE, REACHED_SPEED = 0.02, 0.2  # rad, rad/s


def build_policy(hidden_units: Sequence[int]) -> keras.Model:
    """Builds a policy, from states `[B, 4]` to torques `[B, 2]`; a fresh policy hardly pushes."""
    scale = [ANGLE_SCALE] * 2 + [SPEED_SCALE] * 2
    return MLPPolicy(4, 2, hidden_units=hidden_units, action_limit=reacher.MAX_TORQUE, observation_scale=scale)


def task_loss(trajectory: Trajectory, settings: GoalReachingSettings) -> tf.Tensor:
    """Returns the cost of each episode, `[N, B]`.

    It weighs mean and final distance (rad), final speed (rad/s), and torques near their limits. The last term keeps
    policies where the squashing of their torques has a slope.
    """
    distances = length(trajectory.observations[..., 1:, :2] - trajectory.goal[..., tf.newaxis, :])
    saturation = tf.reduce_mean((trajectory.actions / reacher.MAX_TORQUE) ** 4, [-2, -1])
    cost = settings.path_weight * tf.reduce_mean(distances, -1) + settings.end_weight * distances[..., -1]
    cost += settings.speed_weight * length(trajectory.observations[..., -1, 2:])
    return cost + settings.saturation_weight * saturation


def length(vectors: tf.Tensor) -> tf.Tensor:
    """Returns the length of vectors `[..., W]`, with a slope at zero."""
    return tf.sqrt(tf.reduce_sum(tf.square(vectors), -1) + 1e-4)


def tasks_on_side(side: str) -> DrawTasks:
    """Returns a function that draws starts at rest and goals on one of the `SIDES`."""

    def draw(generator: np.random.Generator, number: int) -> Tasks:
        angles, goals = generator.uniform(*SIDES[side], (2, number, 2))
        return np.concatenate([angles, np.zeros_like(angles)], -1), goals

    return draw


def reachable_tasks(side: str) -> DrawTasks:
    """Returns a function like that of `tasks_on_side`; iLQR with the true model reaches all of its goals."""

    def draw(generator: np.random.Generator, number: int) -> Tasks:
        starts, goals = tasks_on_side(side)(generator, 2 * number)
        chosen = np.flatnonzero(is_reachable(starts, goals))[:number]
        if len(chosen) < number:
            raise RuntimeError(f"Of {2 * number} goals {len(chosen)} can be reached in time; {number} are needed.")
        return starts[chosen], goals[chosen]

    return draw


def is_reachable(starts: np.ndarray, goals: np.ndarray, *, horizon: int = HORIZON) -> np.ndarray:
    """Returns whether iLQR gets from each start `[N, 4]` to rest at its goal `[N, 2]` in time, `[N]`."""
    final = plan(starts, goals, horizon=horizon).states[:, -1]
    away, speed = np.linalg.norm(final[:, :2] - goals, axis=-1), np.linalg.norm(final[:, 2:], axis=-1)
    return (away < REACHED_DISTANCE) & (speed < REACHED_SPEED)


def plan(starts: np.ndarray, goals: np.ndarray, *, horizon: int = HORIZON) -> ILQRResult:
    """Runs iLQR with the true model, from zero torque, for all starts at once."""
    goals = tf.constant(goals, tf.float64)

    def final_cost(states: tf.Tensor) -> tf.Tensor:
        away, velocity = states[..., :2] - goals, states[..., 2:]
        return 100.0 * tf.reduce_sum(away**2, -1) + 0.1 * tf.reduce_sum(velocity**2, -1)

    return ilqr(
        reacher.reacher_step,
        running_cost=lambda states, torques: 1e-3 * tf.reduce_sum(torques**2, -1),
        final_cost=final_cost,
        initial_states=np.asarray(starts, np.float64),
        controls=np.zeros((len(starts), horizon, 2)),
        lower=-reacher.MAX_TORQUE,
        upper=reacher.MAX_TORQUE,
        max_iterations=60,
        tolerance=1e-6,
    )
