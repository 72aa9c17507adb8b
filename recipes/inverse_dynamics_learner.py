"""A learner of inverse dynamics with the structure of rigid bodies, and tasks for it.

The learner maps x = (q, qd, qdd) to torque through an inertia matrix and a bias force (eq. 10 of ML3)::

    tau = M(q) qdd + F(q, qd),      M(q) = L(q) L(q)^T + epsilon I,      L lower triangular with a positive diagonal

after Lutter et al., "Deep Lagrangian Networks" (2019), whose F follows from M; here it is a network of its own. Joints
are hinges, so both networks see sin(q) and cos(q).

Learners and losses work in standard units, by the `Scales` of a robot's motions; N tasks, B points, J joints.
"""

import functools
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from robot_dynamics import Motion

from ml3_tf.inner_loop import InnerLoop
from ml3_tf.learner import Learner

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
    return keras.Model(x, inertial + bias)


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


def implied_inertia(predict, x, scales):
    """The inertia matrix of a learner, from its torques: M e_j = f(q, qd, e_j) - f(q, qd, 0).

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
    at_rest, *accelerated = tf.split(predict(probes), num_joints + 1, axis=1)
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
    torque = (dynamics.torque - scales.torque_mean) / scales.torque
    return [
        values.astype("float32")
        for values in (np.concatenate(x, axis=1), torque, standard_inertia(dynamics.inertia, scales))
    ]


def draw_tasks(robot, scales, rng, times, num_tasks, support_motions, query_motions):
    """Draws tasks: a learner trains on some motions ("support") and is scored on others ("query").

    Returns:
        `{"support": (x, torque), "query": (x, torque), "inertia": M'}`, arrays `[N, B, ...]`; "inertia" holds the true
        inertia matrices of the query points, known while the loss is learned and never needed later.
    """
    support = [draw_points(robot, scales, rng, times, support_motions) for _ in range(num_tasks)]
    query = [draw_points(robot, scales, rng, times, query_motions) for _ in range(num_tasks)]
    support_x, support_torque, _ = map(np.stack, zip(*support))
    query_x, query_torque, inertia = map(np.stack, zip(*query))
    return {"support": (support_x, support_torque), "query": (query_x, query_torque), "inertia": inertia}


def inertia_loss(learner, scales, every):
    """Returns L_extra of eq. 9, ||M(q) - M_theta_new(q)||^2: a mean over every so many query points, for each joint."""

    def extra_loss(parameters, data):
        predict = lambda x: learner.apply(parameters, x, training=False)[0]
        errors = implied_inertia(predict, data["query"][0][:, ::every], scales) - data["inertia"][:, ::every]
        return tf.reduce_mean(tf.reduce_sum(errors**2, axis=[2, 3]), axis=1) / len(scales.torque)

    return extra_loss


def training_with_errors(loss, optimizer, steps, scales, every):
    """Returns a function that trains given learners, and measures them before the first step and after each.

    Args:
        loss: What the learners minimize.
        optimizer: Keras optimizer.
        steps: Number of gradient steps.
        scales: `Scales`.
        every: The inertia matrix is measured on every so many query points.

    Returns:
        Function `(parameters, tasks) -> [steps + 1, J + 1]`: squared torque error of each joint in standard units, and
        the error of the inertia matrix as a share of its Frobenius norm; means over query points and tasks.
    """
    loop = InnerLoop(Learner(functools.partial(build_learner, scales)), loss, optimizer)
    root = np.sqrt(scales.inertia).astype("float32")

    def errors_of(parameters, tasks):
        predict = lambda x: loop.predict(parameters, x)
        x, torque = tasks["query"]
        squares = tf.reduce_mean((predict(x) - torque) ** 2, axis=[0, 1])
        inertia = tasks["inertia"][:, ::every]
        errors = implied_inertia(predict, x[:, ::every], scales) - inertia
        norms = [tf.norm(values * root[:, np.newaxis] * root, axis=[2, 3]) for values in (errors, inertia)]
        return tf.concat([squares, [tf.reduce_mean(norms[0] / norms[1])]], axis=0)

    def train(parameters, tasks):
        def body(i, state, errors):
            state = loop.step(state, lambda _: tasks["support"])
            return i + 1, state, tf.tensor_scatter_nd_update(errors, [[i]], [errors_of(state.parameters, tasks)])

        start, first = loop.start(tasks["inertia"].shape[0], parameters), errors_of(parameters, tasks)
        errors = tf.concat([first[tf.newaxis], tf.zeros((steps, first.shape[0]))], axis=0)
        return tf.while_loop(lambda i, *_: i <= steps, body, (1, start, errors), maximum_iterations=steps)[2]

    return train
