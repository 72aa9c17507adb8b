"""The ant of `ant_model_free.py`: its simulation, tasks and policies, and its symmetry."""

import functools

import gymnasium
import numpy as np
import tensorflow as tf
from model_free_reaching import Experiment, Layout

import ml3_tf.envs  # noqa: F401 - registers the environment
from ml3_tf.envs.ant import GOAL_RADIUS, AntGoalEnv
from ml3_tf.rl.loss_inputs import state_and_action
from ml3_tf.rl.policies import GaussianPolicy

HORIZON = 100
POLICY_STD = 0.2
# Of the columns of an observation: position (m), orientation, joints (rad), velocity (m/s), spin and velocities of the
# joints (rad/s), way to the goal (m).
STATE_SCALE = [1.0, 1.0, 0.2, 1.0, 0.3, 0.3, 0.3, *[0.3] * 8, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, *[5.0] * 8, 1.0, 1.0]


@functools.cache
def simulator(num_episodes):
    """The ants of so many episodes, in one batch."""
    return gymnasium.make_vec("ml3_tf/AntGoal-v0", num_envs=num_episodes, vectorization_mode="vector_entry_point")


def draw_tasks(generator, number, episodes=1, arc=(-np.pi, np.pi), radius=GOAL_RADIUS):
    """Tasks `{"state": [N, E, 29], "goal": [N, E, 2]}`: stances and goals on a circle; all episodes of a task agree.

    The directions of the goals, seen from the ant, which faces along x, are uniform in `arc` (rad); `radius` in m.
    """
    env = AntGoalEnv()
    env.np_random = generator
    state = np.stack([env.draw_state() for _ in range(number)])
    direction = generator.uniform(*arc, number)
    goal = radius * np.stack([np.cos(direction), np.sin(direction)], -1)
    return {name: np.repeat(values[:, None], episodes, 1) for name, values in (("state", state), ("goal", goal))}


def build_policy(config, depth=2):
    """From observations `[B, 31]` to mean and standard deviation of the torques, `[B, 16]`."""
    units = (config["policy_units"],) * depth
    return GaussianPolicy(31, 8, units, std=POLICY_STD, learn_std=False, state_scale=STATE_SCALE)


def _quarter_turn(number):
    """The ant, seen by who has walked so many quarter turns around it: a linear map of observations, `[31, 31]`.

    The four legs are alike, so that what a leg does for a goal on one side, the next does for a goal a quarter turn
    further. Positions, velocities and ways turn; legs change their places, with the axes of the torso that they define.
    """
    matrix, leg_of = np.zeros((31, 31)), [(leg + number) % 4 for leg in range(4)]
    cos, sin = np.round([np.cos(number * np.pi / 2), np.sin(number * np.pi / 2)])
    for start in (0, 15, 18, 29):  # x and y of position, velocity, spin and way
        matrix[start : start + 2, start : start + 2] = [[cos, sin], [-sin, cos]]
    for height in (2, 17, 20):
        matrix[height, height] = 1.0
    turn = np.array([np.cos(number * np.pi / 4), 0.0, 0.0, np.sin(number * np.pi / 4)])
    matrix[3:7, 3:7] = _product(turn * [1, -1, -1, -1], "left") @ _product(turn, "right")
    for start in (7, 21):  # angles and velocities, two joints a leg
        for leg in range(4):
            for joint in range(2):
                matrix[start + 2 * leg + joint, start + 2 * leg_of[leg] + joint] = 1.0
    return matrix


def _product(quaternion, side):
    """The matrix that multiplies a quaternion by this one, from the left or the right."""
    w, x, y, z = quaternion
    sign = 1.0 if side == "left" else -1.0
    return np.array(
        [
            [w, -x, -y, -z],
            [x, w, -sign * z, sign * y],
            [y, sign * z, w, -sign * x],
            [z, -sign * y, sign * x, w],
        ]
    )


QUARTER_TURNS = np.stack([_quarter_turn(number) for number in range(4)]).astype(np.float32)
FRONT_ARC = (-np.pi / 4, np.pi / 4)


def turned_to_front(observations):
    """Observations `[..., 31]` as who sees the goal of the episode in the front quarter would tell them.

    Returns:
        The observations `[..., 31]`, and a function that turns actions `[..., 8]` back.
    """
    goal = observations[..., :2] + observations[..., 29:]
    quarter = tf.math.floormod(tf.round(tf.math.atan2(goal[..., 1], goal[..., 0]) / (np.pi / 2)), 4.0)
    chosen = tf.one_hot(tf.cast(quarter, tf.int32), 4)
    turned = tf.einsum("kij,...j,...k->...i", QUARTER_TURNS, observations, chosen)
    legs = np.swapaxes(QUARTER_TURNS[:, 7:15, 7:15], 1, 2)
    return turned, lambda actions: tf.einsum("kij,...j,...k->...i", legs, actions, chosen)


LAYOUT = Layout(
    state_and_action,
    {"mean_and_std": 16, "state": 31, "action": 8},
    [*[1.0] * 8, *[POLICY_STD] * 8, *STATE_SCALE, *[1.0] * 8],
)
EXPERIMENT = Experiment(
    name="ant_model_free",
    env="ml3_tf/AntGoal-v0",
    simulator=simulator,
    horizon=HORIZON,
    build_policy=build_policy,
    draw_tasks=draw_tasks,
    tests={"": {}, "shifted_": {"radius": 3.0}},
    titles={"": "unseen tasks", "shifted_": "goals 3 m away"},
    layouts={"observation": LAYOUT},
    losses={"learned": {}, "learned_alone": {"guide_weight": 0.0}},
    labels={"learned_alone": "loss learned by eq. 8 alone"},
    states_of=lambda observations: observations[..., :29],
    guide_tasks={"arc": FRONT_ARC},
    turned=turned_to_front,
)
