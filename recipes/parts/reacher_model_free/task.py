"""The arm of `reacher_model_free.py`: its simulation, tasks and policies, and the inputs of the learned losses.

A state is that of `ml3_tf/ReacherGoal-v0`, and the gains of the motors, which no observation tells.
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
POLICY_STD = 0.5
OBSERVATION_SCALE = [1.0] * 4 + [0.2] * 5 + [2.0] * 2  # of cosines and sines, places (m), velocities (m/s)
# Directions of goals, seen from the shoulder (rad): three quarters for meta-training, the last one below the arm.
TRAINED_ARC = (-np.pi / 4, 5 * np.pi / 4)
SHIFTED_ARC = (-3 * np.pi / 4, -np.pi / 4)

Motors = Literal["usual", "varied", "reversed"]


def fingertip(states: tf.Tensor) -> tf.Tensor:
    """Returns the place of the fingertip (m), `[..., 4] -> [..., 2]`, in TensorFlow."""
    angles = tf.stack([states[..., 0], states[..., 0] + states[..., 1]], -1)
    x, y = (tf.reduce_sum(function(angles) * reacher.LENGTHS, -1) for function in (tf.cos, tf.sin))
    return tf.stack([x, y], -1)


def observe(states: tf.Tensor, goal: tf.Tensor) -> tf.Tensor:
    """Returns the 11 columns of `ReacherFingertipGoalEnv`, in TensorFlow."""
    joints, angles = states[..., :2], tf.stack([states[..., 0], states[..., 0] + states[..., 1]], -1)
    speeds = reacher.LENGTHS * tf.stack([states[..., 2], states[..., 2] + states[..., 3]], -1)
    to_goal = goal - fingertip(states)
    velocity = [tf.reduce_sum(-tf.sin(angles) * speeds, -1), tf.reduce_sum(tf.cos(angles) * speeds, -1)]
    distance = tf.norm(to_goal, axis=-1, keepdims=True)
    return tf.concat([tf.cos(joints), tf.sin(joints), to_goal, distance, goal, tf.stack(velocity, -1)], -1)


def step(states: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    """Returns the arm one step later, `[..., 6]`: the torque of a motor is its gain times the action."""
    gains = states[..., 4:]
    torques = gains * tf.clip_by_value(actions, -reacher.MAX_TORQUE, reacher.MAX_TORQUE)
    return tf.concat([reacher.reacher_step(states[..., :4], torques), gains], -1)


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
) -> Tasks:
    """Draws tasks: the arm rests at random angles; all episodes of a task agree.

    The distance of goals to the shoulder is distributed as the environment's, their direction is uniform in `arc`.

    Args:
        generator: The generator.
        number: N, the number of tasks.
        episodes: E, the number of episodes of each.
        arc: Range of the direction of goals, seen from the shoulder (rad).
        motors: Gains of the motors. `"usual"`: 1; `"varied"`: between 0.5 and 1, either way round; `"reversed"`: -1
            for one motor or both.
    """
    angles = generator.uniform(-np.pi, np.pi, (number, 2))
    elbow = generator.uniform(-np.pi, np.pi, number)
    distance = np.linalg.norm(reacher.fingertip(np.stack([np.zeros(number), elbow], -1)), axis=-1, keepdims=True)
    direction = generator.uniform(*arc, number)
    goal = distance * np.stack([np.cos(direction), np.sin(direction)], -1)
    gains = np.ones((number, 2))
    if motors == "varied":
        gains = generator.choice([-1.0, 1.0], (number, 2)) * generator.uniform(0.5, 1.0, (number, 2))
    elif motors == "reversed":
        gains = generator.choice([[-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]], number)
    tasks = {"state": np.concatenate([angles, np.zeros((number, 2)), gains], -1), "goal": goal}
    return {name: np.repeat(values[:, np.newaxis], episodes, 1).astype(np.float32) for name, values in tasks.items()}


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
    """Returns actions `[N, B, 2]` with which motors of the gains in `states` `[N, 6]` give the torques `actions`."""
    return actions / states[:, tf.newaxis, 4:]


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
    "outer_steps": 60,
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
    "learned_rewards": Variant({"layout": "rewards", "motors": "varied"}, {"outer_steps": 60}),
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
    },
    guide_tasks=lambda generator, number: draw_tasks(generator, number, arc=(0.0, 0.0)),
    titles={"": "unseen tasks", "shifted_": "unseen directions of goals", "reversed_": "reversed motors"},
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
