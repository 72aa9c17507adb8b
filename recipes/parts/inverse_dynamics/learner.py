"""A learner of inverse dynamics with the structure of rigid bodies, and tasks for it.

The learner maps x = (q, qd, qdd) to torque through an inertia matrix and a bias force (eq. 10 of ML3)::

    tau = M(q) qdd + F(q, qd),      M(q) = L(q) L(q)^T + epsilon I,      L lower triangular with a positive diagonal

after Lutter et al., "Deep Lagrangian Networks" (2019). There F follows from M; here it is a network of its own. Joints
are hinges, so both networks see sin(q) and cos(q).

Learners and losses work in standard units, by the `Scales` of a robot's motions. N tasks, B points, J joints.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

import ml3_tf
from parts.inverse_dynamics.robot_dynamics import Motion, Robot

HIDDEN_UNITS = 32
EPSILON = 1e-3  # keeps M positive definite, in units of `Scales.inertia`
OUTPUT_STDDEV = 0.1  # fresh learners start near a diagonal inertia matrix and no bias force
SCALE_SEED = 2**31  # motions of their own
NUM_SCALE_MOTIONS = 200


class Scales(NamedTuple):
    """Standard units of a robot, each a list `[J]`, measured on motions of their own.

    Attributes:
        velocity: Standard deviation, rad/s.
        acceleration: Standard deviation, rad/s^2.
        torque: Standard deviation, N m.
        torque_mean: Mean, N m; the bias force of a learner is relative to it.
        inertia: Mean diagonal element of the inertia matrix, kg m^2.
    """

    velocity: list[float]
    acceleration: list[float]
    torque: list[float]
    torque_mean: list[float]
    inertia: list[float]

    @classmethod
    def measure(cls, robot: Robot, times: np.ndarray) -> "Scales":
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


def build_learner(scales: Scales) -> keras.Model:
    """Returns a Keras model `[B, 3 J] -> [B, J]`: angle (rad), velocity, acceleration to torque, in standard units."""
    x = keras.Input((3 * len(scales.torque),))
    angle, velocity, acceleration = ops.split(x, 3, axis=1)
    pose = ops.concatenate([ops.sin(angle), ops.cos(angle)], axis=1)
    inertial = _inertial_torque(pose, acceleration, scales)
    hidden = layers.Dense(HIDDEN_UNITS)(pose) + layers.Dense(HIDDEN_UNITS, use_bias=False)(velocity)
    hidden = layers.Dense(HIDDEN_UNITS, "tanh")(ops.tanh(hidden))
    bias = layers.Dense(len(scales.torque))(hidden)
    return keras.Model(x, inertial + bias)


def _inertial_torque(pose: Any, acceleration: Any, scales: Scales) -> Any:
    """M(q) qdd = L L^T qdd + epsilon qdd, in standard units."""
    num_joints = len(scales.torque)
    hidden = layers.Dense(HIDDEN_UNITS, "tanh")(pose)
    hidden = layers.Dense(HIDDEN_UNITS, "tanh")(hidden)
    diagonal = _small_dense(num_joints, "softplus")(hidden)
    below = _small_dense(num_joints * (num_joints - 1) // 2)(hidden)
    factor = ops.matmul(diagonal, _places(*np.diag_indices(num_joints)))
    factor += ops.matmul(below, _places(*np.tril_indices(num_joints, -1), num_joints))
    factor = ops.reshape(factor, (-1, num_joints, num_joints))  # L
    into, out = _unit_factors(scales)
    weighted = acceleration * into
    product = ops.einsum("bij,bkj,bk->bi", factor, factor, weighted)
    return (product + EPSILON * weighted) * out


def _small_dense(units: int, activation: str | None = None) -> keras.layers.Layer:
    return layers.Dense(units, activation, kernel_initializer=keras.initializers.RandomNormal(stddev=OUTPUT_STDDEV))


def _places(rows: np.ndarray, columns: np.ndarray, size: int | None = None) -> np.ndarray:
    """Matrix that puts a vector of elements into a flat `[size * size]` matrix."""
    size = len(rows) if size is None else size
    places = np.zeros((len(rows), size * size), "float32")
    places[np.arange(len(rows)), rows * size + columns] = 1
    return places


def _unit_factors(scales: Scales) -> tuple[np.ndarray, np.ndarray]:
    """M = D M' D with D = sqrt(scales.inertia): D times the unit of acceleration, and D over the unit of torque."""
    root = np.sqrt(scales.inertia)
    return (root * scales.acceleration).astype("float32"), (root / scales.torque).astype("float32")


def implied_inertia(predict: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor, scales: Scales) -> tf.Tensor:
    """Returns the inertia matrix of a learner, from its torques: M e_j = f(q, qd, e_j) - f(q, qd, 0).

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


def standard_inertia(inertia: np.ndarray, scales: Scales) -> np.ndarray:
    """Returns M' of M = D M' D, D = sqrt(scales.inertia)."""
    root = np.sqrt(scales.inertia)
    return inertia / root[:, np.newaxis] / root


def draw_points(
    robot: Robot, scales: Scales, rng: np.random.Generator, times: np.ndarray, num_motions: int
) -> list[np.ndarray]:
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


def draw_tasks(
    robot: Robot,
    scales: Scales,
    rng: np.random.Generator,
    times: np.ndarray,
    num_tasks: int,
    support_motions: int,
    query_motions: int,
) -> dict[str, Any]:
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


def inertia_loss(
    learner: ml3_tf.Learner, scales: Scales, every: int
) -> Callable[[ml3_tf.Parameters, Mapping[str, Any]], tf.Tensor]:
    """Returns L_extra of eq. 9, ||M(q) - M_theta_new(q)||^2: a mean over every so many query points, for each joint."""

    def extra_loss(parameters: ml3_tf.Parameters, batch: Mapping[str, Any]) -> tf.Tensor:
        predict = lambda x: learner.predict(parameters, x)
        errors = implied_inertia(predict, batch["query"][0][:, ::every], scales) - batch["inertia"][:, ::every]
        return tf.reduce_mean(tf.reduce_sum(errors**2, axis=[2, 3]), axis=1) / len(scales.torque)

    return extra_loss


def error_metrics(
    learner: ml3_tf.Learner, scales: Scales, every: int
) -> dict[str, Callable[[ml3_tf.Parameters, Mapping[str, Any]], tf.Tensor]]:
    """Returns the errors on query points, for `meta_test(metrics=...)`.

    Args:
        learner: The learner.
        scales: `Scales`.
        every: The inertia matrix is measured on every so many query points.

    Returns:
        "squares": the squared torque error of each task and joint `[N, J]`, in standard units; "inertia_error": the
        error of the inertia matrix of each task as a share of its Frobenius norm, `[N]`. Both are means over query
        points.
    """
    root = np.sqrt(scales.inertia).astype("float32")

    def squares(parameters: ml3_tf.Parameters, tasks: Mapping[str, Any]) -> tf.Tensor:
        x, torque = tasks["query"]
        return tf.reduce_mean((learner.predict(parameters, x) - torque) ** 2, axis=1)

    def inertia_error(parameters: ml3_tf.Parameters, tasks: Mapping[str, Any]) -> tf.Tensor:
        x, inertia = tasks["query"][0][:, ::every], tasks["inertia"][:, ::every]
        errors = implied_inertia(lambda x: learner.predict(parameters, x), x, scales) - inertia
        norms = [tf.norm(values * root[:, np.newaxis] * root, axis=[2, 3]) for values in (errors, inertia)]
        return tf.reduce_mean(norms[0] / norms[1], axis=1)

    return {"squares": squares, "inertia_error": inertia_error}
