"""The parts of trajectory optimization, compiled: rollouts, derivatives, and the quadratic model solved backwards.

Shape letters: N tasks, T time, S state, A control, Z = S + A.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ml3_tf.baselines._box_qp import box_qp, solve_free


class Plan(NamedTuple):
    """Controls of N tasks, the states that they lead to, and their costs."""

    states: np.ndarray  # [N, T + 1, S]
    controls: np.ndarray  # [N, T, A]
    costs: np.ndarray  # [N]


class SearchDirection(NamedTuple):
    """The result of a backward pass: `u = controls + step_size * feedforward + gains (x - states)`."""

    feedforward: np.ndarray  # [N, T, A]
    gains: np.ndarray  # [N, T, A, S]
    slope: np.ndarray  # [N], first-order change of the cost for a step of size 1
    curvature: np.ndarray  # [N], second-order change
    solved: np.ndarray  # [N], whether every quadratic program had a minimum

    def expected_decrease(self, step_size: float) -> np.ndarray:
        """Returns the decrease of the quadratic model of the cost for a step, `[N]`."""
        return -step_size * self.slope - 0.5 * step_size**2 * self.curvature


class Problem:
    """Dynamics and costs of N tasks, with the computations that an optimizer needs.

    Args:
        dynamics: Function `(states [N, T, S], controls [N, T, A]) -> [N, T, S]`.
        running_cost: Function `(states [N, T, S], controls [N, T, A]) -> [N, T]`.
        final_cost: Function `(states [N, S]) -> [N]`.
        initial_states: `[N, S]`.
        lower: `[A]`, lower limits of the controls.
        upper: `[A]`, upper limits.
    """

    def __init__(
        self,
        dynamics: Callable[[Any, Any], Any],
        running_cost: Callable[[Any, Any], Any],
        final_cost: Callable[[Any], Any],
        *,
        initial_states: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
    ) -> None:
        self.dynamics, self.running_cost, self.final_cost = dynamics, running_cost, final_cost
        self.initial_states, self.lower, self.upper = initial_states, lower, upper
        self._compiled_rollout = _compiled(self._rollout)
        self._compiled_derivatives = _compiled(self._derivatives)
        self._compiled_backward = _compiled(self._backward)

    def simulate(self, controls: np.ndarray) -> Plan:
        """Rolls controls `[N, T, A]` out from the initial states."""
        states = np.repeat(self.initial_states[:, None], controls.shape[1] + 1, 1)
        no_gains = np.zeros((*controls.shape, states.shape[-1]), controls.dtype)
        return self._plan(states, controls, np.zeros_like(controls), no_gains, 0.0)

    def rollout(self, reference: Plan, direction: SearchDirection, *, step_size: float) -> Plan:
        """Rolls a plan out with a step along a direction, within the limits of the controls."""
        return self._plan(reference.states, reference.controls, direction.feedforward, direction.gains, step_size)

    def derivatives(self, plan: Plan) -> tuple[tf.Tensor, ...]:
        """Returns the derivatives with respect to `z = (x, u)`.

        Args:
            plan: `Plan`.

        Returns:
            `l_z, l_zz, f_z` `[N, T, ...]` of running cost and dynamics, then `l_f,x, l_f,xx` `[N, ...]` of the final
            cost.
        """
        return self._compiled_derivatives(plan.states, plan.controls)

    def backward(
        self, controls: np.ndarray, regularization: np.ndarray, derivatives: tuple[tf.Tensor, ...]
    ) -> SearchDirection:
        """Solves the quadratic model from the last step to the first; Tassa 2012, eq. 5, 10 and 11.

        Args:
            controls: `[N, T, A]`.
            regularization: `[N]`.
            derivatives: Results of `derivatives`.

        Returns:
            `SearchDirection`.
        """
        amount = tf.constant(regularization, self.initial_states.dtype)
        tensors = self._compiled_backward(controls, amount, *derivatives)
        return SearchDirection(*(tensor.numpy() for tensor in tensors))

    def _plan(
        self, states: np.ndarray, controls: np.ndarray, feedforward: np.ndarray, gains: np.ndarray, step_size: float
    ) -> Plan:
        step = tf.constant(step_size, self.initial_states.dtype)
        tensors = self._compiled_rollout(states, controls, feedforward, gains, step)
        return Plan(*(tensor.numpy() for tensor in tensors))

    def _rollout(
        self, states: tf.Tensor, controls: tf.Tensor, feedforward: tf.Tensor, gains: tf.Tensor, step_size: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        def step(carry: Any, reference: Any) -> Any:
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

    def _derivatives(self, states: tf.Tensor, controls: tf.Tensor) -> tuple[tf.Tensor, ...]:
        num_states = states.shape[-1]
        z = tf.concat([states[:, :-1], controls], -1)
        last = tf.convert_to_tensor(states[:, -1])
        l_z, l_zz = _gradient_and_hessian(lambda z: self.running_cost(z[..., :num_states], z[..., num_states:]), z)
        f_z = _jacobian(self.dynamics(z[..., :num_states], z[..., num_states:]), z)
        return l_z, l_zz, f_z, *_gradient_and_hessian(self.final_cost, last)

    def _backward(
        self,
        controls: tf.Tensor,
        regularization: tf.Tensor,
        l_z: tf.Tensor,
        l_zz: tf.Tensor,
        f_z: tf.Tensor,
        v_x: tf.Tensor,
        v_xx: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        num_controls = controls.shape[-1]

        def step(carry: Any, at_step: Any) -> Any:
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

    def _best_reply(
        self, control: tf.Tensor, q_z: tf.Tensor, q_zz: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the best change of the control within its limits, its gain, and whether there is a minimum."""
        num_states = q_z.shape[-1] - control.shape[-1]
        q_u, q_ux, q_uu = q_z[:, num_states:], q_zz[:, num_states:, :num_states], q_zz[:, num_states:, num_states:]
        identity = tf.eye(control.shape[-1], dtype=q_uu.dtype)
        finite = tf.reduce_all(tf.math.is_finite(q_zz), [1, 2]) & tf.reduce_all(tf.math.is_finite(q_z), 1)
        q_uu = tf.where(finite[:, None, None], q_uu, identity)  # the eigenvalues of NaN would end all tasks
        solved = finite & (tf.linalg.eigvalsh(q_uu)[:, 0] > 0.0)
        q_uu = tf.where(solved[:, None, None], q_uu, identity)
        change, free = box_qp(q_uu, q_u, lower=self.lower - control, upper=self.upper - control)
        return change, -solve_free(q_uu, q_ux, free), solved


def _compiled(method: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a graph for the shapes of the first call.

    Plain `tf.function` would warn of retracing from the fifth problem on, though each problem needs graphs of its own.
    """
    graph = None

    def call(*arguments: Any) -> Any:
        nonlocal graph
        tensors = [tf.convert_to_tensor(argument) for argument in arguments]
        if graph is None:
            graph = tf.function(method, autograph=False).get_concrete_function(*tensors)
        return graph(*tensors)

    return call


def _gradient_and_hessian(function: Callable[[tf.Tensor], tf.Tensor], z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    gradient = _gradient(function(z), z)
    return gradient, _symmetric(_jacobian(gradient, z))


def _jacobian(values: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """Returns `d values / d z`, `[..., M]` by `[..., Z]` -> `[..., M, Z]`."""
    return tf.stack([_gradient(value, z) for value in tf.unstack(values, axis=-1)], -2)


def _gradient(values: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    # Tasks and time steps do not mix: the gradient of the sum, which TensorFlow takes, holds that of each.
    return tf.gradients(values, z, unconnected_gradients="zero")[0]


def _symmetric(matrices: tf.Tensor) -> tf.Tensor:
    return 0.5 * (matrices + tf.linalg.matrix_transpose(matrices))


def _time_first(tensor: tf.Tensor) -> tf.Tensor:
    """Exchanges the axes of tasks and time."""
    return tf.transpose(tensor, [1, 0, *range(2, len(tensor.shape))])
