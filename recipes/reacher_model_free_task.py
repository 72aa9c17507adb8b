"""The arm of `reacher_model_free.py`: its simulation, tasks and policies, and what the learned losses see.

A state is that of `ReacherGoalEnv`, and the gains of the motors, which no observation tells.
"""

import numpy as np
import tensorflow as tf
from model_free_reaching import Experiment, Layout

from ml3_tf.envs.reacher import LENGTHS, MAX_TORQUE, fingertip, reacher_step
from ml3_tf.rl.loss_inputs import state_and_action, with_reward_changes
from ml3_tf.rl.policies import GaussianPolicy
from ml3_tf.rl.simulators import Simulator

HORIZON = 65
POLICY_STD = 0.5
STATE_SCALE = [1.0] * 4 + [0.2] * 5 + [2.0] * 2  # of cosines and sines, places (m), velocities (m/s)
# Directions of goals, seen from the shoulder (rad): three quarters for meta-training, the last one below the arm.
TRAINED_ARC = (-np.pi / 4, 5 * np.pi / 4)
SHIFTED_ARC = (-3 * np.pi / 4, -np.pi / 4)


def tip_of(states):
    """Place of the fingertip, `[..., 4] -> [..., 2]`, m."""
    angles = tf.stack([states[..., 0], states[..., 0] + states[..., 1]], -1)
    return tf.stack([tf.reduce_sum(tf.cos(angles) * LENGTHS, -1), tf.reduce_sum(tf.sin(angles) * LENGTHS, -1)], -1)


def observe(states, goal):
    """The 11 columns of `ReacherFingertipGoalEnv`, in TensorFlow."""
    joints, angles = states[..., :2], tf.stack([states[..., 0], states[..., 0] + states[..., 1]], -1)
    speeds = LENGTHS * tf.stack([states[..., 2], states[..., 2] + states[..., 3]], -1)
    to_goal = goal - tip_of(states)
    velocity = [tf.reduce_sum(-tf.sin(angles) * speeds, -1), tf.reduce_sum(tf.cos(angles) * speeds, -1)]
    distance = tf.norm(to_goal, axis=-1, keepdims=True)
    return tf.concat([tf.cos(joints), tf.sin(joints), to_goal, distance, goal, tf.stack(velocity, -1)], -1)


def step(states, actions):
    """The arm one step later, `[..., 6]`: the torque of a motor is its gain times the action."""
    gains = states[..., 4:]
    torques = gains * tf.clip_by_value(actions, -MAX_TORQUE, MAX_TORQUE)
    return tf.concat([reacher_step(states[..., :4], torques), gains], -1)


SIMULATOR = Simulator(
    step=step,
    reward=lambda states, actions, goal: -tf.norm(goal - tip_of(states), axis=-1),
    observation=observe,
)


def draw_tasks(generator, number, episodes=1, arc=TRAINED_ARC, motors="usual"):
    """Tasks `{"state": [N, E, 6], "goal": [N, E, 2]}`: the arm rests at random angles; all episodes of a task agree.

    The distance of goals to the shoulder is distributed as the environment's, their direction uniform in `arc`. The
    gains of `motors` are 1 if `"usual"`; between .5 and 1, either way round, if `"varied"`; -1 for one motor or both if
    `"reversed"`.
    """
    angles = generator.uniform(-np.pi, np.pi, (number, 2))
    elbow = generator.uniform(-np.pi, np.pi, number)
    distance = np.linalg.norm(fingertip(np.stack([np.zeros(number), elbow], -1)), axis=-1, keepdims=True)
    direction = generator.uniform(*arc, number)
    goal = distance * np.stack([np.cos(direction), np.sin(direction)], -1)
    gains = np.ones((number, 2))
    if motors == "varied":
        gains = generator.choice([-1.0, 1.0], (number, 2)) * generator.uniform(0.5, 1.0, (number, 2))
    elif motors == "reversed":
        gains = generator.choice([[-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]], number)
    tasks = {"state": np.concatenate([angles, np.zeros((number, 2)), gains], -1), "goal": goal}
    return {name: np.repeat(values[:, np.newaxis], episodes, 1).astype(np.float32) for name, values in tasks.items()}


def build_policy(config, depth=2):
    """From observations `[B, 11]` to mean and standard deviation of the torques, `[B, 4]`."""
    units = (config["policy_units"],) * depth
    return GaussianPolicy(11, 2, units, std=POLICY_STD, learn_std=False, state_scale=STATE_SCALE)


def in_the_arms_frame(trajectory):
    """What the loss sees in place of the observation, and the action: the same, turned with the upper arm.

    Cosine and sine of the elbow; way to the goal, its length, velocity of the fingertip; and the moments of way and
    velocity about shoulder and elbow, `J^T v`: the torques that a force along them would take.

    Args:
        trajectory: `Trajectory` of observations.

    Returns:
        `[..., T, 13]`.
    """
    columns = tf.unstack(trajectory.observations[..., :-1, :], axis=-1)
    cos_shoulder, cos_elbow, sin_shoulder, sin_elbow, *to_goal, distance, _, _, x_speed, y_speed = columns
    turned = lambda x, y: (cos_shoulder * x + sin_shoulder * y, cos_shoulder * y - sin_shoulder * x)
    way, velocity = turned(*to_goal), turned(x_speed, y_speed)
    lower = LENGTHS[1] * cos_elbow, LENGTHS[1] * sin_elbow
    moments = lambda x, y: (
        (LENGTHS[0] + lower[0]) * y - lower[1] * x,
        lower[0] * y - lower[1] * x,
    )
    parts = [cos_elbow, sin_elbow, *way, distance, *moments(*way), *velocity, *moments(*velocity)]
    return tf.concat([tf.stack(parts, -1), trajectory.actions], -1)


def turned_to_goal(observations):
    """Observations `[..., 11]` as who sees the goal straight ahead, along x, would tell them.

    The shoulder turns freely, so that an arm, its goal and all directions may be turned about it without any change to
    what torques do.

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


def for_motors(actions, states):
    """Actions `[N, B, 2]` that give motors with the gains in `states` `[N, 6]` the torques of usual ones."""
    return actions / states[:, tf.newaxis, 4:]


def states_of(observations):
    """States `[..., 4]` of the environment, with the velocities left out."""
    cos_shoulder, cos_elbow, sin_shoulder, sin_elbow = np.moveaxis(observations[..., :4], -1, 0)
    angles = np.stack([np.arctan2(sin_shoulder, cos_shoulder), np.arctan2(sin_elbow, cos_elbow)], -1)
    return np.concatenate([angles, np.zeros_like(angles)], -1)


MEAN_SCALE, ACTION_SCALE = [1.0, 1.0, POLICY_STD, POLICY_STD], [1.0, 1.0]
ARM = Layout(
    in_the_arms_frame,
    {
        "mean_and_std": 4,
        "elbow": 2,
        "way": 2,
        "distance": 1,
        "way_moments": 2,
        "velocity": 2,
        "velocity_moments": 2,
        "action": 2,
    },
    [*MEAN_SCALE, 1.0, 1.0, 0.2, 0.2, 0.2, 0.02, 0.02, 2.0, 2.0, 0.2, 0.2, *ACTION_SCALE],
)
LAYOUTS = {
    "arm": ARM,
    "paper": Layout(
        state_and_action,
        {"mean_and_std": 4, "state": 11, "action": 2},
        [*MEAN_SCALE, *STATE_SCALE, *ACTION_SCALE],
    ),
    "rewards": Layout(
        with_reward_changes(in_the_arms_frame), {**ARM.features, "reward_changes": 2}, [*ARM.scale, 0.002, 0.0005]
    ),
}
# Without a guide: eq. 8 tells less, so a smaller loss takes more steps, each from more tasks.
ALONE = {
    "guide_weight": 0.0,
    "hidden_units": [64, 64],
    "activation": "elu",
    "output_scale": 1.0,
    "outer_steps": 60,
    "outer_epochs": 2,
    "outer_batch_size": 8,
    "outer_rate": 5e-3,
    "test_rate": 1e-2,
    "test_batch_size": 5,
}
EXPERIMENT = Experiment(
    name="reacher_model_free",
    env="ml3_tf/ReacherFingertipGoal-v0",
    simulator=lambda num_episodes: SIMULATOR,
    horizon=HORIZON,
    build_policy=build_policy,
    draw_tasks=draw_tasks,
    tests={"": {}, "shifted_": {"arc": SHIFTED_ARC}, "reversed_": {"motors": "reversed"}},
    titles={"": "unseen tasks", "shifted_": "unseen directions of goals", "reversed_": "reversed motors"},
    layouts=LAYOUTS,
    losses={
        "learned": {"layout": "arm", "train_tasks": {}},
        "learned_alone": {"layout": "arm", "train_tasks": {}, **ALONE},
        "learned_paper": {"layout": "paper", "train_tasks": {}, **ALONE},
        "learned_rewards": {"layout": "rewards", "train_tasks": {"motors": "varied"}, "outer_steps": 60},
    },
    labels={
        "learned_alone": "loss learned by eq. 8 alone",
        "learned_paper": "loss with the paper's layout",
        "learned_rewards": "reward-aware loss",
    },
    states_of=states_of,
    guide_tasks={"arc": (0.0, 0.0)},
    turned=turned_to_goal,
    informed=for_motors,
)
