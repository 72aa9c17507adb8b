"""The ant of `ant_model_free.py`: its simulation, tasks and policies, and what the learned losses see."""

import functools

import gymnasium
import numpy as np
import tensorflow as tf
from model_free_reaching import Experiment, Layout

import ml3_tf.envs  # noqa: F401 - registers the environment
from ml3_tf.envs.ant import GOAL_RADIUS, AntGoalEnv
from ml3_tf.experience import state_and_action
from ml3_tf.policies import GaussianPolicy

HORIZON = 100
POLICY_STD = 0.3
# Of the columns of an observation: position (m), orientation, joints (rad), velocity (m/s), spin and velocities of the
# joints (rad/s), way to the goal (m).
STATE_SCALE = [1.0, 1.0, 0.2, 1.0, 0.3, 0.3, 0.3, *[0.3] * 8, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, *[5.0] * 8, 1.0, 1.0]


@functools.cache
def simulator(num_episodes):
    """The ants of so many episodes, in one batch."""
    return gymnasium.make_vec("ml3_tf/AntGoal-v0", num_envs=num_episodes, vectorization_mode="vector_entry_point")


def draw_tasks(generator, number, episodes=1, arc=(-np.pi, np.pi)):
    """Tasks `{"state": [N, E, 29], "goal": [N, E, 2]}`: stances and goals on the circle; all episodes of a task agree.

    The directions of the goals, seen from the ant, which faces along x, are uniform in `arc` (rad).
    """
    env = AntGoalEnv()
    env.np_random = generator
    state = np.stack([env.draw_state() for _ in range(number)])
    direction = generator.uniform(*arc, number)
    goal = GOAL_RADIUS * np.stack([np.cos(direction), np.sin(direction)], -1)
    return {name: np.repeat(values[:, None], episodes, 1) for name, values in (("state", state), ("goal", goal))}


def build_policy(config, depth=2):
    """From observations `[B, 31]` to mean and standard deviation of the torques, `[B, 16]`."""
    units = (config["policy_units"],) * depth
    return GaussianPolicy(31, 8, units, std=POLICY_STD, learn_std=False, state_scale=STATE_SCALE)


def in_the_ants_frame(trajectory):
    """What the loss sees in place of the observation, and the action: the same, as the ant sees it.

    Height; the upward direction, the velocity and the way to the goal, each in the frame of the torso (of the way the
    two columns that lie along it); joints, spin and velocities of the joints, as they are; the distance.

    Args:
        trajectory: `Trajectory` of observations.

    Returns:
        `[..., T, 37]`.
    """
    observations = trajectory.states[..., :-1, :]
    position, orientation, joints, velocity, spin, speeds, way = tf.split(observations, [3, 4, 8, 3, 3, 8, 2], -1)
    zeros = tf.zeros_like(way[..., :1])
    upward = _in_frame(orientation, tf.concat([zeros, zeros, zeros + 1.0], -1))
    ahead = _in_frame(orientation, tf.concat([way, zeros], -1))[..., :2]
    distance = tf.sqrt(tf.reduce_sum(tf.square(way), -1, keepdims=True) + 1e-8)
    velocity = _in_frame(orientation, velocity)
    parts = [position[..., 2:], upward, joints, velocity, spin, speeds, ahead, distance, trajectory.actions]
    return tf.concat(parts, -1)


def _in_frame(orientation, vectors):
    """Vectors `[..., 3]` as a body of this orientation, a unit quaternion `[..., 4]`, sees them: `R(q)^T v`."""
    real, axis = orientation[..., :1], -orientation[..., 1:]
    twice = 2.0 * tf.linalg.cross(axis, vectors)
    return vectors + real * twice + tf.linalg.cross(axis, twice)
