"""The parts of trajectory optimization, compiled: rollouts, derivatives, and the quadratic model solved backwards."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ml3_tf.baselines._box_qp import box_qp, solve_free


class Trajectory(NamedTuple):
    """States and controls of N tasks, and what they cost."""

    states: np.ndarray  # [N, T + 1, S]
    controls: np.ndarray  # [N, T, A]
    costs: np.ndarray  # [N]


class Plan(NamedTuple):
    """What the backward pass found: `u = controls + step_size * feedforward + gains (x - states)`."""

    feedforward: np.ndarray  # [N, T, A]
    gains: np.ndarray  # [N, T, A, S]
    slope: np.ndarray  # [N], first-order change of the cost for a step of size 1
    curvature: np.ndarray  # [N], second-order change
    solved: np.ndarray  # [N], whether every quadratic program had a minimum

    def expected_decrease(self, step_size):
        return -step_size * self.slope - 0.5 * step_size**2 * self.curvature


class Problem:
    """Dynamics and costs of N tasks, with what an optimizer asks of them; arguments are those of `ilqr`, checked."""

    def __init__(self, dynamics, running_cost, final_cost, initial_states, lower, upper):
        self.dynamics, self.running_cost, self.final_cost = dynamics, running_cost, final_cost
        self.initial_states, self.lower, self.upper = initial_states, lower, upper
        self._rollout = _compiled(self._rollout)
        self.derivatives = _compiled(self.derivatives)
        self.backward = _compiled(self.backward)

    def rollout(self, reference, plan, step_size):
        step_size = tf.constant(step_size, self.initial_states.dtype)
        tensors = self._rollout(*reference[:2], plan.feedforward, plan.gains, step_size)
        return Trajectory(*(tensor.numpy() for tensor in tensors))

    def _rollout(self, states, controls, feedforward, gains, step_size):
        def step(carry, reference):
            state, _ = carry
            reference_state, control, change, gain = reference
            control += step_size * change + tf.linalg.matvec(gain, state - reference_state)
            control = tf.clip_by_value(control, self.lower, self.upper)
            return self.dynamics(state[:, None], control[:, None])[:, 0], control

        references = [_time_first(t) for t in (states[:, :-1], controls, feedforward, gains)]
        rest, controls = tf.scan(step, tuple(references), (self.initial_states, tf.zeros_like(controls[:, 0])))
        states = tf.concat([self.initial_states[:, None], _time_first(rest)], 1)
        controls = _time_first(controls)
        costs = tf.reduce_sum(self.running_cost(states[:, :-1], controls), 1) + self.final_cost(states[:, -1])
        return states, controls, costs

    def derivatives(self, states, controls):
        """Derivatives with respect to `z = (x, u)`: `l_z, l_zz, f_z`, each `[N, T, ...]`, then `l_f,x, l_f,xx`."""
        num_states = states.shape[-1]
        z = tf.concat([states[:, :-1], controls], -1)
        last = tf.convert_to_tensor(states[:, -1])
        l_z, l_zz = _gradient_and_hessian(lambda z: self.running_cost(z[..., :num_states], z[..., num_states:]), z)
        f_z = _jacobian(self.dynamics(z[..., :num_states], z[..., num_states:]), z)
        return l_z, l_zz, f_z, *_gradient_and_hessian(self.final_cost, last)

    def backward(self, controls, regularization, l_z, l_zz, f_z, v_x, v_xx):
        """Solves the quadratic model from the last step to the first; Tassa 2012, eq. 5, 10 and 11."""
        num_controls = controls.shape[-1]

        def step(carry, at_step):
            control, l_z, l_zz, f_z = at_step
            q_z = l_z + tf.linalg.matvec(f_z, carry[0], transpose_a=True)
            q_zz = l_zz + tf.matmul(f_z, tf.matmul(carry[1], f_z), transpose_a=True)
            regularized = q_zz + regularization[:, None, None] * tf.matmul(f_z, f_z, transpose_a=True)
            change, gain, solved = self._best_reply(control, q_z, regularized)
            # With x free and u = change + gain x, z is affine in x; the value keeps the quadratic's own curvature.
            identity = tf.eye(gain.shape[-1], batch_shape=gain.shape[:1], dtype=gain.dtype)
            z_x = tf.concat([identity, gain], 1)
            z_0 = tf.concat([tf.zeros_like(carry[0]), change], 1)
            v_x = tf.linalg.matvec(z_x, q_z + tf.linalg.matvec(q_zz, z_0), transpose_a=True)
            v_xx = _symmetric(tf.matmul(z_x, tf.matmul(q_zz, z_x), transpose_a=True))
            slope = tf.reduce_sum(q_z * z_0, -1)
            curvature = tf.reduce_sum(z_0 * tf.linalg.matvec(q_zz, z_0), -1)
            return v_x, v_xx, change, gain, slope, curvature, solved

        zeros = tf.zeros_like(v_x[:, 0])
        no_gain = tf.zeros([*v_x.shape[:1], num_controls, v_x.shape[-1]], controls.dtype)
        start = (v_x, v_xx, tf.zeros_like(controls[:, 0]), no_gain, zeros, zeros, zeros > 0.0)
        steps = tuple(_time_first(t) for t in (controls, l_z, l_zz, f_z))
        _, _, changes, gains, slope, curvature, solved = tf.scan(step, steps, start, reverse=True)
        sums = tf.reduce_sum(slope, 0), tf.reduce_sum(curvature, 0)
        return _time_first(changes), _time_first(gains), *sums, tf.reduce_all(solved, 0)

    def _best_reply(self, control, q_z, q_zz):
        """The change of the control within its limits, its gain, and whether the quadratic has a minimum."""
        num_states = q_z.shape[-1] - control.shape[-1]
        q_u, q_ux, q_uu = q_z[:, num_states:], q_zz[:, num_states:, :num_states], q_zz[:, num_states:, num_states:]
        identity = tf.eye(control.shape[-1], dtype=q_uu.dtype)
        finite = tf.reduce_all(tf.math.is_finite(q_zz), [1, 2]) & tf.reduce_all(tf.math.is_finite(q_z), 1)
        q_uu = tf.where(finite[:, None, None], q_uu, identity)  # the eigenvalues of NaN would end all tasks
        solved = finite & (tf.linalg.eigvalsh(q_uu)[:, 0] > 0.0)
        q_uu = tf.where(solved[:, None, None], q_uu, identity)
        change, free = box_qp(q_uu, q_u, self.lower - control, self.upper - control)
        return change, -solve_free(q_uu, q_ux, free), solved


def _compiled(method):
    """A graph for the shapes of the first call.

    Not `tf.function` as it is: from the fifth problem on it warns of retracing, which new functions cannot do without.
    """
    graph = None

    def call(*arguments):
        nonlocal graph
        arguments = [tf.convert_to_tensor(argument) for argument in arguments]
        graph = graph or tf.function(method, autograph=False).get_concrete_function(*arguments)
        return graph(*arguments)

    return call


def _gradient_and_hessian(function, z):
    gradient = _gradient(function(z), z)
    return gradient, _symmetric(_jacobian(gradient, z))


def _jacobian(values, z):
    """`d values / d z`, `[..., M]` by `[..., Z]` -> `[..., M, Z]`."""
    return tf.stack([_gradient(value, z) for value in tf.unstack(values, axis=-1)], -2)


def _gradient(values, z):
    """Tasks and time steps do not mix: the gradient of the sum, which TensorFlow takes, holds that of each."""
    return tf.gradients(values, z, unconnected_gradients="zero")[0]


def _symmetric(matrices):
    return 0.5 * (matrices + tf.linalg.matrix_transpose(matrices))


def _time_first(tensor):
    """Exchanges the axes of tasks and time."""
    return tf.transpose(tensor, [1, 0, *range(2, len(tensor.shape))])
