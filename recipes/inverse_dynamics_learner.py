"""A learner of inverse dynamics with the structure of rigid bodies, and tasks for it.

The learner maps x = (q, qd, qdd) to torque through an inertia matrix and a bias force (eq. 10 of ML3)::

    tau = M(q) qdd + F(q, qd),      M(q) = L(q) L(q)^T + epsilon I,      L lower triangular with a positive diagonal

after Lutter et al., "Deep Lagrangian Networks" (2019), whose F follows from M; here it is a network of its own. Joints
are hinges, so both networks see sin(q) and cos(q).

Learners and losses work in standard units, by the `Scales` of a robot's motions; N tasks, B points, J joints.
"""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from robot_dynamics import Motion

HIDDEN_UNITS = 32
EPSILON = 1e-3  # keeps M positive definite, in units of `Scales.inertia`
OUTPUT_STDDEV = 0.1  # fresh learners start near a diagonal inertia matrix and no bias force
SCALE_SEED = 2**31  # motions of their own
NUM_SCALE_MOTIONS = 200


class Scales(NamedTuple):
    """Standard units of a robot, each a list `[J]`, from motions of their own; a loss or learner never sees others.

    Attributes:
        velocity: Standard deviation, rad/s.
        acceleration: Standard deviation, rad/s^2.
        torque: Standard deviation, N m.
        torque_mean: Mean, N m; the bias force of a learner is relative to it.
        inertia: Mean diagonal element of the inertia matrix, kg m^2.
    """

    velocity: list
    acceleration: list
    torque: list
    torque_mean: list
    inertia: list

    @classmethod
    def of(cls, robot, times):
        """Measures the scales on motions of the robot at these times."""
        rng = np.random.default_rng(SCALE_SEED)
        motions = [robot.draw_motion(rng, times) for _ in range(NUM_SCALE_MOTIONS)]
        motion = Motion(*(np.concatenate(values) for values in zip(*motions)))
        dynamics = robot.dynamics(motion)
        scales = (
            motion.velocity.std(axis=0),
            motion.acceleration.std(axis=0),
            dynamics.torque.std(axis=0),
            dynamics.torque.mean(axis=0),
            np.diagonal(dynamics.inertia.mean(axis=0)),
        )
        return cls(*([float(f"{value:.6g}") for value in scale] for scale in scales))


def build_learner(scales):
    """Returns a Keras model `[B, 3 J] -> [B, J]`: angle (rad), velocity and acceleration to torque, in standard units.

    All arrays in it have rank two, and parts of x are taken by products with constant matrices: with slices,
    concatenations or reshapes in the learner, XLA compiles meta-training anew at every step, or not at all.
    """
    num_joints = len(scales.torque)
    x = keras.Input((3 * num_joints,))
    angle, velocity, acceleration = np.split(np.eye(3 * num_joints, dtype="float32"), 3, axis=1)
    phase = np.repeat([0.0, np.pi / 2], num_joints).astype("float32")
    pose = ops.sin(ops.matmul(x, np.tile(angle, 2)) + phase)  # sin(q), cos(q)
    inertial = _inertial_torque(pose, ops.matmul(x, acceleration), scales)
    hidden = layers.Dense(HIDDEN_UNITS)(pose) + layers.Dense(HIDDEN_UNITS, use_bias=False)(ops.matmul(x, velocity))
    hidden = layers.Dense(HIDDEN_UNITS, "tanh")(ops.tanh(hidden))
    bias = layers.Dense(num_joints)(hidden)
    return keras.Model(x, layers.Reshape((num_joints, 1))(inertial + bias))


def _inertial_torque(pose, acceleration, scales):
    """M(q) qdd, in standard units."""
    num_joints = len(scales.torque)
    hidden = layers.Dense(HIDDEN_UNITS, "tanh")(pose)
    hidden = layers.Dense(HIDDEN_UNITS, "tanh")(hidden)
    diagonal = _small_dense(num_joints, "softplus")(hidden)
    below = _small_dense(num_joints * (num_joints - 1) // 2)(hidden)
    # L, row by row: [B, J * J]
    factor = ops.matmul(diagonal, _places(*np.diag_indices(num_joints)))
    factor += ops.matmul(below, _places(*np.tril_indices(num_joints, -1), num_joints))
    eye, ones = np.eye(num_joints, dtype="float32"), np.ones((1, num_joints), "float32")
    repeat_rows, repeat_columns = np.kron(eye, ones), np.kron(ones, eye)  # v_i or v_k in the place of L_ik
    into, out = _unit_factors(scales)
    weighted = acceleration * into
    half = ops.matmul(factor * ops.matmul(weighted, repeat_rows), repeat_columns.T)  # L^T v
    product = ops.matmul(factor * ops.matmul(half, repeat_columns), repeat_rows.T)  # L L^T v
    return (product + EPSILON * weighted) * out


def _small_dense(units, activation=None):
    return layers.Dense(units, activation, kernel_initializer=keras.initializers.RandomNormal(stddev=OUTPUT_STDDEV))


def _places(rows, columns, size=None):
    """Matrix that puts a vector of elements into a flat `[size * size]` matrix."""
    size = len(rows) if size is None else size
    places = np.zeros((len(rows), size * size), "float32")
    places[np.arange(len(rows)), rows * size + columns] = 1
    return places


def _unit_factors(scales):
    """M = D M' D with D = sqrt(scales.inertia): what D makes of an acceleration, and of a torque, in standard units."""
    root = np.sqrt(scales.inertia)
    return (root * scales.acceleration).astype("float32"), (root / scales.torque).astype("float32")


def torque_error(y_true, y_pred):
    """Squared error of the torque, `[..., J]`: y_pred[..., 0] against y_true[..., 0]."""
    return (y_pred[..., 0] - y_true[..., 0]) ** 2


def implied_inertia(predict, x, scales):
    """The inertia matrix of a learner, column by column from the first part of what it predicts at qdd = e_j.

    Args:
        predict: Function from x to torques.
        x: `[N, B, 3 J]`; its accelerations are not used.
        scales: `Scales`.

    Returns:
        `[N, B, J, J]` in units of sqrt(scales.inertia_i * scales.inertia_j), the M' of `standard_inertia`.
    """
    num_joints = len(scales.torque)
    state = tf.constant(np.repeat([1, 1, 0], num_joints), x.dtype)
    units = np.eye(3 * num_joints, dtype="float32")[2 * num_joints :]
    probes = tf.concat([x * state, *(x * state + unit for unit in units)], axis=1)  # one batch: few, large operations
    at_rest, *accelerated = tf.split(predict(probes)[..., 0], num_joints + 1, axis=1)
    columns = tf.stack([torque - at_rest for torque in accelerated], axis=-1)
    into, out = _unit_factors(scales)
    return columns / out[:, np.newaxis] / into


def standard_inertia(inertia, scales):
    """M' of M = D M' D, D = sqrt(scales.inertia)."""
    root = np.sqrt(scales.inertia)
    return inertia / root[:, np.newaxis] / root


def draw_points(robot, scales, rng, times, num_motions):
    """Returns x `[B, 3 J]`, torque `[B, J]` and inertia matrix `[B, J, J]` on some motions, in standard units."""
    motions = [robot.draw_motion(rng, times) for _ in range(num_motions)]
    motion = Motion(*(np.concatenate(values) for values in zip(*motions)))
    dynamics = robot.dynamics(motion)
    x = [motion.angle, motion.velocity / scales.velocity, motion.acceleration / scales.acceleration]
    y = np.stack([(dynamics.torque - scales.torque_mean) / scales.torque, x[-1]], axis=-1)
    return [
        values.astype("float32")
        for values in (np.concatenate(x, axis=1), y, standard_inertia(dynamics.inertia, scales))
    ]


def draw_tasks(robot, scales, rng, times, num_tasks, support_motions, query_motions):
    """Draws tasks: a learner trains on some motions ("support") and is scored on others ("query").

    Returns:
        `{"support": (x, torque), "query": (x, torque), "inertia": M'}`, arrays `[N, B, ...]`; "inertia" holds the true
        inertia matrices of the query points, known while the loss is learned and never needed later.
    """
    support = [draw_points(robot, scales, rng, times, support_motions) for _ in range(num_tasks)]
    query = [draw_points(robot, scales, rng, times, query_motions) for _ in range(num_tasks)]
    support_x, support_y, _ = map(np.stack, zip(*support))
    query_x, query_y, inertia = map(np.stack, zip(*query))
    return {"support": (support_x, support_y), "query": (query_x, query_y), "inertia": inertia}
