"""wip"""
import functools

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from robot_dynamics import Motion, Robot

import ml3_tf
from ml3_tf.inner_loop import InnerLoop
from ml3_tf.learner import Learner

SAMPLES = 8
DURATION = 4.0
DIAGONAL = 1e-3


def build_learner(num_joints, into, out):
    """x = (q, qd, qdd) scaled -> torque / std."""
    n = num_joints
    x = keras.Input((3 * n,))
    angle, velocity, acceleration = ops.split(ops.stop_gradient(x), 3, axis=1)
    pose = ops.concatenate([ops.sin(angle), ops.cos(angle)], axis=1)
    hidden = layers.Dense(32, "tanh")(pose)
    hidden = layers.Dense(32, "tanh")(hidden)
    near0 = keras.initializers.RandomNormal(stddev=0.05)
    diagonal = layers.Dense(n, "softplus", kernel_initializer=near0)(hidden)
    below = layers.Dense(n * (n - 1) // 2, kernel_initializer=keras.initializers.RandomNormal(stddev=0.05))(hidden)
    factor = ops.matmul(diagonal, placement(*np.diag_indices(n), n)) + ops.matmul(below, placement(*np.tril_indices(n, -1), n))
    rows, columns = np.kron(np.eye(n), np.ones((1, n))).astype("float32"), np.kron(np.ones((1, n)), np.eye(n)).astype("float32")
    weighted = acceleration * into
    small = keras.initializers.RandomNormal(stddev=0.05)
    half = ops.matmul(factor * ops.matmul(weighted, rows), columns.T)
    inertial = ops.matmul(factor * ops.matmul(half, columns), rows.T) + DIAGONAL * weighted
    hidden = layers.Dense(32, "tanh")(ops.concatenate([pose, velocity], axis=1))
    hidden = layers.Dense(32, "tanh")(hidden)
    return keras.Model(x, inertial * out + layers.Dense(n, kernel_initializer=small)(hidden))


def placement(rows, columns, n):
    m = np.zeros((len(rows), n * n), "float32")
    m[np.arange(len(rows)), rows * n + columns] = 1
    return m


def draw_scales(robot):
    rng = np.random.default_rng(12345)
    motions = [robot.draw_motion(rng, np.linspace(0, DURATION, 20)) for _ in range(100)]
    velocity, acceleration = (np.concatenate([m[i] for m in motions]).std(0) for i in (1, 2))
    dyn = [robot.dynamics(m) for m in motions]
    torque = np.concatenate([d.torque for d in dyn])
    mean, torque = torque.mean(0), torque.std(0)
    d = np.sqrt(np.diag(np.concatenate([d.inertia for d in dyn]).mean(0)))
    return {"velocity": velocity, "acceleration": acceleration, "torque": torque, "mean": mean, "d": d, "into": (d * acceleration).astype("float32"), "out": (d / torque).astype("float32")}


def draw_points(robot, scales, rng, num_motions, samples):
    x, y, M = [], [], []
    for _ in range(num_motions):
        motion = robot.draw_motion(rng, np.linspace(0, DURATION, samples))
        dynamics = robot.dynamics(motion)
        x.append(np.concatenate([motion.angle, motion.velocity / scales["velocity"], motion.acceleration / scales["acceleration"]], 1))
        y.append((dynamics.torque - scales["mean"]) / scales["torque"])
        d = scales["d"]
        M.append(dynamics.inertia / d[:, None] / d)
    return [np.concatenate(v).astype("float32") for v in (x, y, M)]


def draw_tasks(robot, scales, seed, num_tasks, num_motions=8, samples=SAMPLES, query_motions=8):
    rng = np.random.default_rng(seed)
    s = [draw_points(robot, scales, rng, num_motions, samples) for _ in range(num_tasks)]
    q = [draw_points(robot, scales, rng, query_motions, samples) for _ in range(num_tasks)]
    sx, sy, _ = map(np.stack, zip(*s))
    qx, qy, qM = map(np.stack, zip(*q))
    return {"support": (sx, sy), "query": (qx, qy), "inertia": qM}


def predicted_inertia(apply, x, sc):
    """[N,B,J,J] from torque differences"""
    n = x.shape[-1] // 3
    state = x[..., : 2 * n]
    def torque_at(acc):
        return apply(tf.concat([state, tf.broadcast_to(acc, [*x.shape[:-1], n])], -1))
    rest = torque_at(tf.zeros(n))
    cols = [(torque_at(unit) - rest) for unit in np.eye(n, dtype="float32")]
    M = tf.stack(cols, -1)  # M[...,i,j] = d tau_i/ d acc_j = Mhat_ij power_j/power_i
    return M / sc["out"][:, None] / sc["into"]


def curves(build, loss, optimizer, tasks, steps, seed, sc, jit=True):
    learner = Learner(build, seed)
    loop = InnerLoop(learner, loss, optimizer)
    tasks = tf.nest.map_structure(tf.convert_to_tensor, tasks)
    def score(state):
        apply = lambda x: loop.predict(state.parameters, x)
        x, y = tasks["query"]
        M = predicted_inertia(apply, x, sc)
        err = tf.reduce_mean((apply(x) - y) ** 2, 1)  # N,J
        rel = tf.norm(M - tasks["inertia"], axis=[-2, -1]) / tf.norm(tasks["inertia"], axis=[-2, -1])
        return tf.concat([err, tf.reduce_mean(rel, 1)[:, None]], 1)
    def run(start):
        def body(i, state, out):
            state = loop.step(state, lambda _: tasks["support"])
            return i + 1, state, tf.tensor_scatter_nd_update(out, [[i]], [score(state)])
        first = score(start)
        out = tf.concat([first[None], tf.zeros([steps, *first.shape])], 0)
        return tf.while_loop(lambda i, *_: i <= steps, body, (1, start, out), maximum_iterations=steps)[2]
    start = loop.start(tasks["inertia"].shape[0])
    return tf.function(run, jit_compile=jit)(start).numpy()
