"""Trajectory optimization with a known model: control-limited iLQR, many tasks at once, derivatives by TensorFlow.

Shape letters: N tasks, T time, S state, A control.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ml3_tf.arguments import TensorLike
from ml3_tf.baselines._ilqr_checks import (
    check_derivatives,
    check_first_plan,
    check_functions,
    check_limits,
    check_shapes,
)
from ml3_tf.baselines._optimal_control import Plan, Problem, SearchDirection

STEP_SIZES = [0.5**n for n in range(11)]
ACCEPTED_SHARE = 1e-4  # a step must bring this share of the decrease that the quadratic model expects
# The schedule of section II-F of Tassa 2012: the longer it moves in one direction, the faster it moves.
REGULARIZATION_FACTOR = 2.0
MIN_REGULARIZATION = 1e-6
MAX_REGULARIZATION = 1e10
NEGLIGIBLE_REGULARIZATION = 1e-5  # below it, a small expected decrease means a minimum and not a short step


class ILQRResult(NamedTuple):
    """The plans that `ilqr` found, and the effort that they took.

    Attributes:
        states: `[N, T + 1, S]`, the first is the initial state.
        controls: `[N, T, A]`.
        gains: `[N, T, A, S]`, feedback: `controls + gains (x - states)` is the best reply to a state nearby.
        costs: `[N]`.
        iterations: `[N]`, number of backward passes.
        model_calls: `[N]`, number of time steps of the dynamics that were evaluated, in all rollouts.
        derivative_calls: `[N]`, number of time steps of the dynamics that were linearized.
        converged: `[N]`, whether a full step decreased the cost, or could be expected to, by less than the tolerance.
            A task also ends where no step brings a decrease, for example at a kink of its cost or dynamics.
    """

    states: np.ndarray
    controls: np.ndarray
    gains: np.ndarray
    costs: np.ndarray
    iterations: np.ndarray
    model_calls: np.ndarray
    derivative_calls: np.ndarray
    converged: np.ndarray


def ilqr(
    dynamics: Callable[[Any, Any], Any],
    *,
    running_cost: Callable[[Any, Any], Any],
    final_cost: Callable[[Any], Any],
    initial_states: TensorLike,
    controls: TensorLike,
    lower: TensorLike | None = None,
    upper: TensorLike | None = None,
    max_iterations: int = 100,
    tolerance: float = 1e-9,
) -> ILQRResult:
    """Minimizes `sum_t l(x_t, u_t) + l_f(x_T)` over the controls, `x_{t+1} = f(x_t, u_t)`, `lower <= u <= upper`.

    Each iteration linearizes the dynamics and expands the costs to second order about the current plan. It solves that
    problem backwards in time, with a box-constrained quadratic program for each step, and searches along the solution
    with rollouts of the true dynamics. Tasks are independent of one another; each has its own regularization and step
    size.

    Functions see all tasks and time steps at once, and must not mix them: a constant of each task has the shape
    `[N, 1, ...]` there, a constant of each time `[T, ...]`. Use float64: `ilqr` keeps the dtype of its arguments.

    Args:
        dynamics: Function `(states [N, T, S], controls [N, T, A]) -> [N, T, S]`, differentiable; also called for T = 1.
        running_cost: Function `(states [N, T, S], controls [N, T, A]) -> [N, T]`, twice differentiable.
        final_cost: Function `(states [N, S]) -> [N]`, twice differentiable.
        initial_states: `[N, S]`.
        controls: `[N, T, A]`, the start of the search.
        lower: Lower limit of the controls: a number, `[A]`, or `None` for no limit.
        upper: Upper limit of the controls: a number, `[A]`, or `None` for no limit.
        max_iterations: Largest number of iterations.
        tolerance: A decrease below `tolerance * (1 + |cost|)` ends the search of a task. In float32 at least 1e-5.

    Returns:
        `ILQRResult`.

    Raises:
        ValueError: Shapes that do not fit, a horizon of 0, limits that cross, or states, costs or derivatives that are
            not finite on a plan that was accepted.

    Example:

    A force pushes a mass from rest at 1 m to rest at 0.

    >>> def dynamics(states, controls):
    ...     speeds = states[..., 1:] + 0.1 * controls
    ...     return tf.concat([states[..., :1] + 0.1 * speeds, speeds], -1)
    >>> result = ilqr(
    ...     dynamics,
    ...     running_cost=lambda states, controls: 1e-4 * tf.reduce_sum(controls**2, -1),
    ...     final_cost=lambda states: tf.reduce_sum(states**2, -1),
    ...     initial_states=np.array([[1.0, 0.0]]),
    ...     controls=np.zeros((1, 30, 1)),
    ...     lower=-1.0,
    ...     upper=1.0,
    ... )
    >>> bool(result.converged[0]), bool(np.linalg.norm(result.states[0, -1]) < 0.01)
    (True, True)

    References:
        Tassa, Erez and Todorov, Synthesis and stabilization of complex behaviors through online trajectory
        optimization, IROS 2012.
        Tassa, Mansard and Todorov, Control-limited differential dynamic programming, ICRA 2014.
    """
    states, first_controls = check_shapes(initial_states, controls)
    lowest, highest = check_limits(lower, upper, first_controls)
    problem = Problem(dynamics, running_cost, final_cost, initial_states=states, lower=lowest, upper=highest)
    check_functions(problem, first_controls)
    search = _Search(problem, first_controls)
    for _ in range(max_iterations):
        if not np.any(search.active):
            break
        search.iterate(tolerance)
    return search.result()


class _Search:
    """The search of `ilqr`: the best plan of each task so far, and where its search stands."""

    def __init__(self, problem: Problem, controls: np.ndarray) -> None:
        self.problem = problem
        num_tasks, self.horizon, _ = controls.shape
        self.gains = np.zeros((*controls.shape, problem.initial_states.shape[-1]), controls.dtype)
        self.best = problem.simulate(controls)
        check_first_plan(self.best)
        self.active, self.changed = np.ones((2, num_tasks), bool)
        self.converged, self.tried = np.zeros((2, num_tasks), bool)
        self.regularization, self.factor = np.ones((2, num_tasks))
        self.iterations, self.derivative_calls = np.zeros((2, num_tasks), int)
        self.model_calls = np.full(num_tasks, self.horizon)
        self.derivatives: tuple[tf.Tensor, ...] = ()

    def iterate(self, tolerance: float) -> None:
        """Takes one backward pass, and the best step along its solution, for each active task."""
        if np.any(self.changed):
            self.derivatives = self.problem.derivatives(self.best)
            check_derivatives(self.derivatives)
            self.derivative_calls += self.horizon * self.changed
        self.iterations += self.active
        direction = self.problem.backward(self.best.controls, self.regularization, self.derivatives)
        enough = tolerance * (1.0 + np.abs(self.best.costs))
        nothing_to_gain = self.active & direction.solved & (direction.expected_decrease(1.0) <= enough)
        unregularized = self.regularization < NEGLIGIBLE_REGULARIZATION
        self._end(nothing_to_gain & unregularized, direction)
        decrease = self._line_search(direction, self.active & direction.solved & ~nothing_to_gain)
        self._adapt_regularization()
        self._end(self.changed & (decrease <= enough) & unregularized, direction)
        self._try_without_regularization(nothing_to_gain)

    def _line_search(self, direction: SearchDirection, tasks: np.ndarray) -> np.ndarray:
        """Moves each of the tasks to its first plan that is good enough. Returns the decrease of the costs, `[N]`."""
        reference = self.best
        self.changed = np.zeros_like(self.active)
        for step_size in STEP_SIZES:
            searching = tasks & ~self.changed
            if not np.any(searching):
                break
            candidate = self.problem.rollout(reference, direction, step_size=step_size)
            self.model_calls += self.horizon * searching
            expected = direction.expected_decrease(step_size)
            with np.errstate(invalid="ignore"):  # a rollout that diverged has no finite cost, and is not accepted
                better = reference.costs - candidate.costs > ACCEPTED_SHARE * expected
            accepted = searching & better
            self.best = Plan(*(_choose(accepted, *pair) for pair in zip(candidate, self.best)))
            self.changed |= accepted
        self.gains = _choose(self.changed, direction.gains, self.gains)
        return reference.costs - self.best.costs

    def _adapt_regularization(self) -> None:
        easier = np.minimum(1.0, self.factor) / REGULARIZATION_FACTOR
        harder = np.maximum(1.0, self.factor) * REGULARIZATION_FACTOR
        factor = np.where(self.changed, easier, harder)
        scaled = np.maximum(self.regularization, np.where(self.changed, 0.0, MIN_REGULARIZATION)) * factor
        scaled = np.where(self.changed & (scaled < MIN_REGULARIZATION), 0.0, scaled)
        self.factor = np.where(self.active, factor, self.factor)
        self.regularization = np.where(self.active, np.minimum(scaled, MAX_REGULARIZATION), self.regularization)
        self.active &= self.regularization < MAX_REGULARIZATION

    def _try_without_regularization(self, nothing_to_gain: np.ndarray) -> None:
        """Removes the regularization of tasks without an expected decrease, once for each plan.

        Regularization shortens steps, so that it may have hidden a decrease.
        """
        self.tried &= ~self.changed
        untried = nothing_to_gain & self.active & ~self.changed & ~self.tried
        self.regularization = np.where(untried, 0.0, self.regularization)
        self.factor = np.where(untried, 1.0, self.factor)
        self.tried |= untried

    def _end(self, done: np.ndarray, direction: SearchDirection) -> None:
        self.gains = _choose(done, direction.gains, self.gains)
        self.converged |= done
        self.active &= ~done

    def result(self) -> ILQRResult:
        return ILQRResult(
            self.best.states,
            self.best.controls,
            self.gains,
            self.best.costs,
            self.iterations,
            self.model_calls,
            self.derivative_calls,
            self.converged,
        )


def _choose(condition: np.ndarray, new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Returns `new` for the tasks where `condition` holds, and `old` for the others, `[N, ...]`."""
    return np.where(condition.reshape(-1, *[1] * (new.ndim - 1)), new, old)
