"""The arm of `reacher_model_free.py`: its simulation, tasks and policies, and the inputs of the learned losses.

A state has the 4 columns of `ml3_tf/ReacherGoal-v0`, and what makes up an arm: 2 gains of its motors, 2 lengths of its
links (m) and the size of the errors of its sensors (1 for those of `SENSOR_ERRORS`). No observation tells them.
"""

from collections.abc import Callable
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from ml3_tf import LossInputs
from ml3_tf.envs import reacher
from ml3_tf.rl import GaussianPolicy, Simulator, get_loss_inputs, observation_and_action
from parts.model_free.experiment import Experiment, Tasks
from parts.model_free.settings import Variant

HORIZON = 65
USUAL_ARM = [1.0, 1.0, *reacher.LENGTHS, 0.0]  # gains of its motors, lengths of its links (m), errors of its sensors
POLICY_STD = 0.5
OBSERVATION_SCALE = [1.0] * 4 + [0.2] * 5 + [2.0] * 2  # of cosines and sines, places (m), velocities (m/s)
# Directions of goals, seen from the shoulder (rad): three quarters for meta-training, the last one below the arm.
TRAINED_ARC = (-np.pi / 4, 5 * np.pi / 4)
SHIFTED_ARC = (-3 * np.pi / 4, -np.pi / 4)

SENSOR_ERRORS = [0.01, 0.01, 0.1, 0.1]  # the largest, of angles (rad) and velocities (rad/s) of noisy arms
LONGER = 1.3  # times as long is the longer link of a long arm

Motors = Literal["usual", "varied", "reversed", "weak", "strong"]


def fingertip(states: tf.Tensor) -> tf.Tensor:
    """Returns the place of the fingertip (m), `[..., 9] -> [..., 2]`, in TensorFlow."""
    angles = tf.stack([states[..., 0], states[..., 0] + states[..., 1]], -1)
    x, y = (tf.reduce_sum(function(angles) * states[..., 6:8], -1) for function in (tf.cos, tf.sin))
    return tf.stack([x, y], -1)


def with_sensor_errors(states: tf.Tensor) -> tf.Tensor:
    """Returns states `[..., 9]` as the sensors tell them.

    An error is uniform. It is a hash of the bits of angles and velocities: without a memory, and new in each step.
    """
    bits = tf.bitcast(states[..., :4], tf.int32)
    mixed = tf.reduce_sum(bits * tf.constant([747796405, 277803737, 1274126177, 461845907]), -1, keepdims=True)
    mixed += 668265263 * tf.range(1, 5)  # one for each error
    for factor in (-2048144789, -1028477387):  # of MurmurHash3
        mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, 15)) * factor
    errors = tf.cast(mixed, tf.float32) / 2.0**31 * SENSOR_ERRORS
    return tf.concat([states[..., :4] + states[..., 8:] * errors, states[..., 4:]], -1)


def observe(states: tf.Tensor, goal: tf.Tensor) -> tf.Tensor:
    """Returns the 11 columns of `ReacherFingertipGoalEnv`, in TensorFlow."""
    states = with_sensor_errors(states)
    joints, angles = states[..., :2], tf.stack([states[..., 0], states[..., 0] + states[..., 1]], -1)
    speeds = states[..., 6:8] * tf.stack([states[..., 2], states[..., 2] + states[..., 3]], -1)
    to_goal = goal - fingertip(states)
    velocity = [tf.reduce_sum(-tf.sin(angles) * speeds, -1), tf.reduce_sum(tf.cos(angles) * speeds, -1)]
    distance = tf.norm(to_goal, axis=-1, keepdims=True)
    return tf.concat([tf.cos(joints), tf.sin(joints), to_goal, distance, goal, tf.stack(velocity, -1)], -1)


def step(states: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    """Returns the arm one step later, `[..., 9]`: the torque of a motor is its gain times the action."""
    torques = states[..., 4:6] * tf.clip_by_value(actions, -reacher.MAX_TORQUE, reacher.MAX_TORQUE)
    unlimited = lambda torques, low, high: torques  # a strong motor goes beyond
    lengths = states[..., 6], states[..., 7]
    moved = reacher.reacher_step(states[..., :4], torques, action_clip=unlimited, lengths=lengths)
    return tf.concat([moved, states[..., 4:]], -1)


SIMULATOR = Simulator(
    step=step,
    reward=lambda states, actions, goal: -tf.norm(goal - fingertip(states), axis=-1),
    observation=observe,
)


def draw_tasks(
    generator: np.random.Generator,
    number: int,
    *,
    episodes: int = 1,
    arc: tuple[float, float] = TRAINED_ARC,
    motors: Motors = "usual",
    long: bool = False,
    noisy: bool = False,
) -> Tasks:
    """Draws tasks: the arm rests at random angles; all episodes of a task agree.

    The distance of goals to the shoulder is distributed as the environment's, their direction is uniform in `arc`.

    Args:
        generator: The generator.
        number: N, the number of tasks.
        episodes: E, the number of episodes of each.
        arc: Range of the direction of goals, seen from the shoulder (rad).
        motors: See `draw_gains`.
        long: Whether one of the links is longer.
        noisy: Whether the sensors have errors.
    """
    angles = generator.uniform(-np.pi, np.pi, (number, 2))
    elbow = generator.uniform(-np.pi, np.pi, number)
    distance = np.linalg.norm(reacher.fingertip(np.stack([np.zeros(number), elbow], -1)), axis=-1, keepdims=True)
    direction = generator.uniform(*arc, number)
    goal = distance * np.stack([np.cos(direction), np.sin(direction)], -1)
    gains = draw_gains(generator, number, motors)
    lengths = np.tile(reacher.LENGTHS, (number, 1))
    if long:
        lengths *= generator.choice([[LONGER, 1.0], [1.0, LONGER]], number)
    state = np.concatenate([angles, np.zeros((number, 2)), gains, lengths, np.full((number, 1), noisy)], -1)
    tasks = {"state": state, "goal": goal}
    return {name: np.repeat(values[:, np.newaxis], episodes, 1).astype(np.float32) for name, values in tasks.items()}


def draw_gains(generator: np.random.Generator, number: int, motors: Motors) -> np.ndarray:
    """Draws the gains of the motors of N arms, `[N, 2]`.

    Args:
        generator: The generator.
        number: N.
        motors: `"usual"`: 1; `"varied"`: between 0.5 and 1, either way round; `"reversed"`: -1 for one motor or both;
            `"weak"`: between 0.3 and 0.5; `"strong"`: 1.5.
    """
    if motors == "varied":
        return generator.choice([-1.0, 1.0], (number, 2)) * generator.uniform(0.5, 1.0, (number, 2))
    if motors == "reversed":
        return generator.choice([[-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]], number)
    if motors == "weak":
        return generator.uniform(0.3, 0.5, (number, 2))
    return np.full((number, 2), 1.5 if motors == "strong" else 1.0)


def build_policy(units: int, depth: int) -> keras.Model:
    """Builds a policy, from observations `[B, 11]` to mean and standard deviation of the torques, `[B, 4]`."""
    return GaussianPolicy(
        11, 2, hidden_units=(units,) * depth, std=POLICY_STD, std_mode="fixed", observation_scale=OBSERVATION_SCALE
    )


def turned_to_goal(observations: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Turns observations `[..., 11]` until the goal lies straight ahead, along x.

    The shoulder turns freely. So an arm, its goal and all directions may be turned about it, and torques do the same.

    Returns:
        The observations `[..., 11]`, and a function of the torques, which stay as they are.
    """
    columns = tf.unstack(observations, axis=-1)
    cos_shoulder, cos_elbow, sin_shoulder, sin_elbow, *way, distance, goal_x, goal_y, x_speed, y_speed = columns
    radius = tf.sqrt(goal_x**2 + goal_y**2 + 1e-12)
    cos, sin = goal_x / radius, goal_y / radius
    turned = lambda x, y: (cos * x + sin * y, cos * y - sin * x)
    cos_shoulder, sin_shoulder = turned(cos_shoulder, sin_shoulder)
    joints = cos_shoulder, cos_elbow, sin_shoulder, sin_elbow
    goal = radius, tf.zeros_like(radius)
    return tf.stack([*joints, *turned(*way), distance, *goal, *turned(x_speed, y_speed)], -1), lambda actions: actions


def for_motors(actions: tf.Tensor, states: tf.Tensor) -> tf.Tensor:
    """Returns actions `[N, B, 2]` with which motors of the gains in `states` `[N, 9]` give the torques `actions`."""
    return actions / states[:, tf.newaxis, 4:6]


def to_states(observations: np.ndarray) -> np.ndarray:
    """Returns states `[..., 4]` of the environment; the velocities are left out."""
    cos_shoulder, cos_elbow, sin_shoulder, sin_elbow = np.moveaxis(observations[..., :4], -1, 0)
    angles = np.stack([np.arctan2(sin_shoulder, cos_shoulder), np.arctan2(sin_elbow, cos_elbow)], -1)
    return np.concatenate([angles, np.zeros_like(angles)], -1)


LAYOUTS = {
    "arm": get_loss_inputs("reacher_model_free"),
    "paper": LossInputs(
        observation_and_action,
        {"mean_and_std": 4, "state": 11, "action": 2},
        [1.0, 1.0, POLICY_STD, POLICY_STD, *OBSERVATION_SCALE, 1.0, 1.0],
    ),
    "rewards": get_loss_inputs("reacher_model_free_rewards"),
}
# Without a guide: eq. 8 tells less, so a smaller loss takes more steps, each from more tasks.
ALONE = {
    "hidden_units": (64, 64),
    "activation": "elu",
    "output_scale": 1.0,
    "outer_steps": 480,
    "outer_epochs": 2,
    "outer_batch_size": 8,
    "outer_rate": 5e-3,
    "test_rate": 1e-2,
    "test_batch_size": 5,
}
VARIANTS = {
    "learned": Variant(),
    "learned_alone": Variant({"guide_weight": 0.0}, ALONE),
    "learned_paper": Variant({"guide_weight": 0.0, "layout": "paper"}, ALONE),
    "learned_rewards": Variant({"layout": "rewards", "motors": "varied"}, {"outer_steps": 60, "outer_epochs": 2}),
}
EXPERIMENT = Experiment(
    name="reacher_model_free",
    env="ml3_tf/ReacherFingertipGoal-v0",
    simulator=lambda num_episodes: SIMULATOR,
    horizon=HORIZON,
    build_policy=build_policy,
    train_tasks=lambda generator, number, episodes, settings: draw_tasks(
        generator, number, episodes=episodes, motors=settings.motors
    ),
    test_tasks={
        "": draw_tasks,
        "shifted_": lambda generator, number: draw_tasks(generator, number, arc=SHIFTED_ARC),
        "reversed_": lambda generator, number: draw_tasks(generator, number, motors="reversed"),
        "weak_": lambda generator, number: draw_tasks(generator, number, motors="weak"),
        "strong_": lambda generator, number: draw_tasks(generator, number, motors="strong"),
        "long_": lambda generator, number: draw_tasks(generator, number, long=True),
        "noisy_": lambda generator, number: draw_tasks(generator, number, noisy=True),
    },
    guide_tasks=lambda generator, number: draw_tasks(generator, number, arc=(0.0, 0.0)),
    titles={
        "": "unseen tasks",
        "shifted_": "unseen directions of goals",
        "reversed_": "reversed motors",
        "weak_": "weak motors",
        "strong_": "strong motors",
        "long_": "a longer link",
        "noisy_": "noisy sensors",
    },
    num_policies=dict.fromkeys(("weak_", "strong_", "long_", "noisy_"), 1),
    layouts=LAYOUTS,
    labels={
        "learned_alone": "loss learned by eq. 8 alone",
        "learned_paper": "loss with the paper's layout",
        "learned_rewards": "reward-aware loss",
    },
    to_states=to_states,
    to_guide_frame=turned_to_goal,
    for_robots=for_motors,
)
