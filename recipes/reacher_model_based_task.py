"""What the recipe `reacher_model_based.py` is about: its policies, what the loss sees, its task loss and its goals."""

import keras
import numpy as np
import tensorflow as tf

import ml3_tf
from ml3_tf.baselines._ilqr import ilqr
from ml3_tf.envs.reacher import MAX_TORQUE, reacher_step
from ml3_tf.rl.policies import GaussianPolicy

HORIZON = 65
# Angles (rad) of both joints in which starts and goals are drawn. The untrained side is the trained one's mirror image:
# meta-training visits neither its shoulder angles nor its elbow angles, and the forces of the turning arm change sign.
SIDES = {"trained": (0.0, np.pi), "untrained": (-np.pi, 0.0)}
ANGLE_SCALE, SPEED_SCALE = 2.0, 10.0  # rad, rad/s
# A goal can be reached if iLQR with the true model gets so near, and so slow. The arm moves in a horizontal plane:
# at rest in a pose it stays there, so that such a goal can also be held.
REACHED_DISTANCE, REACHED_SPEED = 0.02, 0.2  # rad, rad/s
FEATURES = {"torque": 2, "angles_to_goal": 2, "velocity": 2}
INPUT_SCALE = [MAX_TORQUE] * 2 + [ANGLE_SCALE] * 2 + [SPEED_SCALE] * 2


def build_policy(config):
    """From states `[B, 4]` to torques `[B, 2]`; a fresh policy hardly pushes."""
    scale = [ANGLE_SCALE] * 2 + [SPEED_SCALE] * 2
    return GaussianPolicy(4, 2, config["policy_units"], action_limit=MAX_TORQUE, state_scale=scale)


def build_loss(config):
    """One that hardly moves anybody at first."""
    small = keras.initializers.VarianceScaling(0.05, "fan_avg", "uniform")
    return ml3_tf.MetaLoss.mlp(
        config["hidden_units"],
        "silu",
        output_initializer=small,
        features=FEATURES,
        input_scale=INPUT_SCALE,
        learning_rate=config["learning_rate"],
        name="reacher_model_based",
    )


def loss_inputs(trajectory, config=None):
    """What the learned loss sees beside each torque: the angles that are left to the goal, and the velocities.

    The angles are not wrapped, as the distance is not: they tell which way round the goal lies.
    """
    states = trajectory.observations[..., :-1, :]
    return tf.concat([trajectory.goal[..., tf.newaxis, :] - states[..., :2], states[..., 2:]], -1)


def task_loss(trajectory, config):
    """Mean and final distance (rad), final speed (rad/s), and how near the torques are to their limits: `[N, B]`.

    The last term keeps policies where the squashing of their torques has a slope.
    """
    distances = length(trajectory.observations[..., 1:, :2] - trajectory.goal[..., tf.newaxis, :])
    saturation = tf.reduce_mean((trajectory.actions / MAX_TORQUE) ** 4, [-2, -1])
    cost = config["path_weight"] * tf.reduce_mean(distances, -1) + config["end_weight"] * distances[..., -1]
    cost += config["speed_weight"] * length(trajectory.observations[..., -1, 2:])
    return cost + config["saturation_weight"] * saturation


def length(vectors):
    """Length of vectors `[..., W]`, with a slope at zero."""
    return tf.sqrt(tf.reduce_sum(tf.square(vectors), -1) + 1e-4)


def draw_tasks(side):
    """Function `(generator, number)` that draws starts at rest `[number, 4]` and goals `[number, 2]` on one side."""

    def draw(generator, number):
        angles, goals = generator.uniform(*SIDES[side], (2, number, 2))
        return np.concatenate([angles, np.zeros_like(angles)], -1), goals

    return draw


def reachable_tasks(side):
    """Function like that of `draw_tasks`, whose goals can all be reached, by iLQR with the true model."""

    def draw(generator, number):
        starts, goals = draw_tasks(side)(generator, 2 * number)
        chosen = np.flatnonzero(is_reachable(starts, goals))[:number]
        if len(chosen) < number:
            raise RuntimeError(f"Of {2 * number} goals {len(chosen)} can be reached in time; {number} are needed.")
        return starts[chosen], goals[chosen]

    return draw


def is_reachable(starts, goals, horizon=HORIZON):
    """Whether iLQR with the true model gets from each start `[N, 4]` to rest at its goal `[N, 2]` in time: `[N]`."""
    final = plan(starts, goals, horizon).states[:, -1]
    away, speed = np.linalg.norm(final[:, :2] - goals, axis=-1), np.linalg.norm(final[:, 2:], axis=-1)
    return (away < REACHED_DISTANCE) & (speed < REACHED_SPEED)


def plan(starts, goals, horizon=HORIZON):
    """iLQR with the true model, from zero torque, for all starts at once."""
    goals = tf.constant(goals, tf.float64)

    def final_cost(states):
        away, velocity = states[..., :2] - goals, states[..., 2:]
        return 100.0 * tf.reduce_sum(away**2, -1) + 0.1 * tf.reduce_sum(velocity**2, -1)

    return ilqr(
        reacher_step,
        running_cost=lambda states, torques: 1e-3 * tf.reduce_sum(torques**2, -1),
        final_cost=final_cost,
        initial_states=np.asarray(starts, np.float64),
        controls=np.zeros((len(starts), horizon, 2)),
        lower=-MAX_TORQUE,
        upper=MAX_TORQUE,
        max_iterations=60,
        tolerance=1e-6,
    )
