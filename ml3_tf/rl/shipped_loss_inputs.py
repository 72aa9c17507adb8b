"""The `LossInputs` of the shipped losses of policies, by the name of the loss.

Shape letters: T time; `...` any leading axes.
"""

import tensorflow as tf

from ml3_tf.arguments import LossInputs
from ml3_tf.rl.loss_inputs import observation_and_action, observation_and_goal, with_response, with_reward_changes
from ml3_tf.rl.rollouts import Trajectory

# The arm of `ml3_tf/ReacherFingertipGoal-v0`: lengths of the links, m, mass of each, kg; inertia of the motors, kg m^2,
# damping of the joints, N m s/rad; time step, s; largest torque, N m.
UPPER_ARM, LOWER_ARM = 0.1, 0.11
LINK_MASS, MOTOR_INERTIA, JOINT_DAMPING = 1.0, 0.004, 0.04
TIME_STEP, MAX_TORQUE = 0.01, 1.0
LEAST_GAIN = 0.1  # of a motor; a smaller response may be noise
REACHER_STD = 0.5  # of the policies that learn with the losses of the reacher, N m
ANT_STD = 0.2  # the same of the ant, as a share of the largest torque
# Spreads of what policies observe, by which the losses divide.
ANT_SCALE = (1.0, 1.0, 0.2, 1.0, 0.3, 0.3, 0.3, *[0.3] * 8, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, *[5.0] * 8, 1.0, 1.0)


def observation_and_final_error(trajectory: Trajectory) -> tf.Tensor:
    """Returns the observation, and the last observation of the episode minus the goal: `[..., T, O + G]`."""
    observations = trajectory.observations[..., :-1, :]
    final_error = trajectory.observations[..., -1:, :] - trajectory.goal[..., tf.newaxis, :]
    return tf.concat([observations, tf.broadcast_to(final_error, observations.shape)], -1)


def angles_to_goal_and_velocity(trajectory: Trajectory) -> tf.Tensor:
    """Returns the goal's angles minus those of the arm (rad) and the velocities (rad/s): `[..., T, 4]`.

    The angles are not wrapped, and neither is the distance: they tell which way round the goal lies.
    """
    states = trajectory.observations[..., :-1, :]
    return tf.concat([trajectory.goal[..., tf.newaxis, :] - states[..., :2], states[..., 2:]], -1)


def joints_one_by_one(trajectory: Trajectory) -> tf.Tensor:
    """Returns way to the goal, velocity, final error and number (-1, 1) of each joint of an arm: `[..., T, 8]`.

    Each has a column for the shoulder, then one for the elbow, as a per-output loss takes them: one network scores
    either joint, and the number tells it which.
    """
    states, goal = trajectory.observations[..., :-1, :], trajectory.goal[..., tf.newaxis, :]
    shape = tf.shape(states[..., :2])
    final_error = tf.broadcast_to(goal - trajectory.observations[..., -1:, :2], shape)
    joints = tf.broadcast_to(tf.constant([-1.0, 1.0], states.dtype), shape)
    return tf.concat([goal - states[..., :2], states[..., 2:], final_error, joints], -1)


def fingertip_in_arm_frame(trajectory: Trajectory) -> tf.Tensor:
    """Returns the observation of the fingertip reacher in the frame of the upper arm, and the action.

    Cosine and sine of the elbow; way to the goal (m) and its length (m); moments of the way (m^2) about shoulder and
    elbow; velocity of the fingertip (m/s) and its moments (m^2/s); torques. A moment is `J^T v`: the torques that a
    force along the vector takes.

    Returns:
        `[..., T, 13]`.
    """
    columns = tf.unstack(trajectory.observations[..., :-1, :], axis=-1)
    cos_shoulder, cos_elbow, sin_shoulder, sin_elbow, *to_goal, distance, _, _, x_speed, y_speed = columns
    turned = lambda x, y: (cos_shoulder * x + sin_shoulder * y, cos_shoulder * y - sin_shoulder * x)
    way, velocity = turned(*to_goal), turned(x_speed, y_speed)
    lower = LOWER_ARM * cos_elbow, LOWER_ARM * sin_elbow
    moments = lambda x, y: (
        (UPPER_ARM + lower[0]) * y - lower[1] * x,
        lower[0] * y - lower[1] * x,
    )
    parts = [cos_elbow, sin_elbow, *way, distance, *moments(*way), *velocity, *moments(*velocity)]
    return tf.concat([tf.stack(parts, -1), trajectory.actions], -1)


def motor_torques(trajectory: Trajectory) -> tf.Tensor:
    """Returns the torques (N m) that took the fingertip reacher from each observation to the next: `[..., T, 2]`.

    This is the inverse of `ml3_tf.envs.reacher_step`, for an arm that rests at first. It sees the angles alone: the
    velocities are their differences, which do not blow up where the arm is straight.
    """
    cos, sin = trajectory.observations[..., :2], trajectory.observations[..., 2:4]
    turned = tf.atan2(
        sin[..., 1:, :] * cos[..., :-1, :] - cos[..., 1:, :] * sin[..., :-1, :],
        cos[..., 1:, :] * cos[..., :-1, :] + sin[..., 1:, :] * sin[..., :-1, :],
    )
    after = turned / TIME_STEP
    before = tf.concat([tf.zeros_like(after[..., :1, :]), after[..., :-1, :]], -2)
    shoulder_acceleration, elbow_acceleration = tf.unstack((after - before) / TIME_STEP, axis=-1)
    shoulder_speed, elbow_speed = tf.unstack(before, axis=-1)
    coupling = LINK_MASS * UPPER_ARM * LOWER_ARM / 2.0
    bend = coupling * sin[..., :-1, 1]
    own = MOTOR_INERTIA + TIME_STEP * JOINT_DAMPING
    m_22 = LINK_MASS * LOWER_ARM**2 / 3.0 + own
    m_12 = LINK_MASS * LOWER_ARM**2 / 3.0 + coupling * cos[..., :-1, 1]
    m_11 = m_12 + LINK_MASS * UPPER_ARM**2 * 4.0 / 3.0 + coupling * cos[..., :-1, 1] + own
    shoulder = m_11 * shoulder_acceleration + m_12 * elbow_acceleration
    elbow = m_12 * shoulder_acceleration + m_22 * elbow_acceleration
    shoulder -= bend * elbow_speed * (2.0 * shoulder_speed + elbow_speed)
    return tf.stack([shoulder, elbow + bend * shoulder_speed**2], -1) + JOINT_DAMPING * before


_FINGERTIP_FEATURES = {
    "mean_and_std": 4,
    "elbow": 2,
    "way": 2,
    "distance": 1,
    "way_moments": 2,
    "velocity": 2,
    "velocity_moments": 2,
    "action": 2,
}
_FINGERTIP_SCALE = (1.0, 1.0, REACHER_STD, REACHER_STD, 1.0, 1.0, 0.2, 0.2, 0.2, 0.02, 0.02, 2.0, 2.0, 0.2, 0.2, 1, 1)
_FINGERTIP = LossInputs(fingertip_in_arm_frame, _FINGERTIP_FEATURES, _FINGERTIP_SCALE, "reacher_model_free")
_WITH_RESPONSE = with_response(
    with_reward_changes(_FINGERTIP, scale=(0.002, 0.0005)), motor_torques, scale=(1.0, 1.0), limit=MAX_TORQUE, window=8
)


def moments_as_actions(trajectory: Trajectory) -> tf.Tensor:
    """Returns what the reward-aware loss of the fingertip reacher sees: `[..., T, 21]`.

    The columns of `fingertip_in_arm_frame`, the changes of the reward, the response of the motors, and the moments of
    way and velocity divided by it. A moment is a torque; divided by the gain of the motor, it is the action for this
    torque. Where a motor hardly answers, within noise, the quotient goes to 0.
    """
    columns = _WITH_RESPONSE(trajectory)
    way_moments, velocity_moments, response = columns[..., 5:7], columns[..., 9:11], columns[..., -2:]
    per_gain = response / (tf.square(response) + LEAST_GAIN**2)
    return tf.concat([columns, way_moments * per_gain, velocity_moments * per_gain], -1)


_SHIPPED = [
    LossInputs(
        observation_and_final_error,
        {"force": 1, "state": 2, "final_error": 2},
        (0.25, 0.3, 0.3, 0.5, 0.5),
        "mountain_car",
    ),
    LossInputs(observation_and_goal, {"acceleration": 2, "state": 4, "goal": 2}, None, "pointmass"),
    LossInputs(
        angles_to_goal_and_velocity,
        {"torque": 2, "angles_to_goal": 2, "velocity": 2},
        (1.0, 1.0, 2.0, 2.0, 10.0, 10.0),
        "reacher_model_based",
    ),
    LossInputs(
        joints_one_by_one,
        {"torque": 1, "to_goal": 1, "velocity": 1, "final_error": 1, "joint": 1},
        (1.0, 1.0, 5.0, 1.0, 1.0),
        "reacher_demonstrations",
    ),
    _FINGERTIP,
    LossInputs(
        moments_as_actions,
        {**_WITH_RESPONSE.features, "way_actions": 2, "velocity_actions": 2},
        (*_WITH_RESPONSE.scale, 0.02, 0.02, 0.2, 0.2),
        "reacher_model_free_rewards",
    ),
    LossInputs(
        observation_and_action,
        {"mean_and_std": 16, "state": 31, "action": 8},
        (*[1.0] * 8, *[ANT_STD] * 8, *ANT_SCALE, *[1.0] * 8),
        "ant_model_free",
    ),
]


def get_loss_inputs(name: str) -> LossInputs:
    """Returns the `LossInputs` of a shipped loss of policies.

    Args:
        name: Name of the loss, as `load_meta_loss` takes it.

    Raises:
        ValueError: No shipped loss of policies has this name.

    Example:

    >>> dict(get_loss_inputs("pointmass").features)
    {'acceleration': 2, 'state': 4, 'goal': 2}
    """
    found = {str(inputs.name): inputs for inputs in _SHIPPED}
    if name not in found:
        raise ValueError(f"`name` must be the name of a shipped loss of policies, {sorted(found)}. Received: {name!r}")
    return found[name]
