"""The ant of `ant_model_free.py`: its simulation, tasks and policies, and its symmetry."""

import functools
from collections.abc import Callable

import gymnasium
import keras
import numpy as np
import tensorflow as tf

from ml3_tf.envs import ant
from ml3_tf.rl import GaussianPolicy, get_loss_inputs
from parts.model_free.experiment import Experiment, Tasks
from parts.model_free.settings import Variant

HORIZON = 100
POLICY_STD = 0.2
LOSS_INPUTS = get_loss_inputs("ant_model_free")
# Of the columns of an observation: position (m), orientation, joints (rad), velocity (m/s), spin and velocities of the
# joints (rad/s), way to the goal (m).
OBSERVATION_SCALE = [1.0, 1.0, 0.2, 1.0, 0.3, 0.3, 0.3, *[0.3] * 8, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, *[5.0] * 8, 1.0, 1.0]


@functools.cache
def simulator(num_episodes: int) -> gymnasium.vector.VectorEnv:
    """Returns the ants of so many episodes, in one batch."""
    return gymnasium.make_vec("ml3_tf/AntGoal-v0", num_envs=num_episodes, vectorization_mode="vector_entry_point")


def draw_tasks(
    generator: np.random.Generator,
    number: int,
    *,
    episodes: int = 1,
    arc: tuple[float, float] = (-np.pi, np.pi),
    radius: float = ant.GOAL_RADIUS,
) -> Tasks:
    """Draws tasks: stances, and goals on a circle; all episodes of a task agree.

    Args:
        generator: The generator.
        number: N, the number of tasks.
        episodes: E, the number of episodes of each.
        arc: Range of the direction of the goals, seen from the ant (rad). It faces along x.
        radius: Radius of the circle (m).
    """
    env = ant.AntGoalEnv()
    env.np_random = generator
    state = np.stack([env.draw_state() for _ in range(number)])
    direction = generator.uniform(*arc, number)
    goal = radius * np.stack([np.cos(direction), np.sin(direction)], -1)
    return {name: np.repeat(values[:, None], episodes, 1) for name, values in (("state", state), ("goal", goal))}


def build_policy(units: int, depth: int) -> keras.Model:
    """Builds a policy, from observations `[B, 31]` to mean and standard deviation of the torques, `[B, 16]`."""
    return GaussianPolicy(
        31, 8, hidden_units=(units,) * depth, std=POLICY_STD, std_mode="fixed", observation_scale=OBSERVATION_SCALE
    )


def _quarter_turn(number: int) -> np.ndarray:
    """Returns the linear map of observations, `[31, 31]`, to a frame that is turned by so many quarter turns.

    The four legs are alike: a leg acts for a goal on one side as the next leg acts for a goal a quarter turn further.
    Positions, velocities and ways turn; legs change their places, with the axes of the torso that they define.
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


def _product(quaternion: np.ndarray, side: str) -> np.ndarray:
    """Returns the matrix that multiplies a quaternion by this one, from the left or the right."""
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


def turned_to_front(observations: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Turns observations `[..., 31]` by quarter turns until the goal of the episode lies in the front quarter.

    Returns:
        The observations `[..., 31]`, and a function that turns actions `[..., 8]` back.
    """
    goal = observations[..., :2] + observations[..., 29:]
    quarter = tf.math.floormod(tf.round(tf.math.atan2(goal[..., 1], goal[..., 0]) / (np.pi / 2)), 4.0)
    chosen = tf.one_hot(tf.cast(quarter, tf.int32), 4)
    turned = tf.einsum("kij,...j,...k->...i", QUARTER_TURNS, observations, chosen)
    legs = np.swapaxes(QUARTER_TURNS[:, 7:15, 7:15], 1, 2)
    return turned, lambda actions: tf.einsum("kij,...j,...k->...i", legs, actions, chosen)


VARIANTS = {"learned": Variant(), "learned_alone": Variant({"guide_weight": 0.0})}
EXPERIMENT = Experiment(
    name="ant_model_free",
    env="ml3_tf/AntGoal-v0",
    simulator=simulator,
    horizon=HORIZON,
    build_policy=build_policy,
    train_tasks=lambda generator, number, episodes, settings: draw_tasks(generator, number, episodes=episodes),
    test_tasks={
        "": draw_tasks,
        "shifted_": lambda generator, number: draw_tasks(generator, number, radius=3.0),
    },
    guide_tasks=lambda generator, number: draw_tasks(generator, number, arc=FRONT_ARC),
    titles={"": "unseen tasks", "shifted_": "goals 3 m away"},
    layouts={"observation": LOSS_INPUTS},
    labels={"learned_alone": "loss learned by eq. 8 alone"},
    to_states=lambda observations: observations[..., :29],
    to_guide_frame=turned_to_front,
)
