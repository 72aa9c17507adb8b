"""Trajectory optimization with a known model: control-limited iLQR, many tasks at once, derivatives by TensorFlow."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ml3_tf.baselines._optimal_control import Plan, Problem, Trajectory

STEP_SIZES = [0.5**n for n in range(11)]
ACCEPTED_SHARE = 1e-4  # a step must bring this share of the decrease that the quadratic model expects
# The schedule of section II-F of Tassa 2012: the longer it goes one way, the faster.
REGULARISATION_FACTOR = 2.0
MIN_REGULARISATION = 1e-6
MAX_REGULARISATION = 1e10
NEGLIGIBLE_REGULARISATION = 1e-5  # below it, a small expected decrease means a minimum and not a short step


class ILQRResult(NamedTuple):
    """Where `ilqr` ended.

    Attributes:
        states: `[N, T + 1, S]`, the first is the initial state.
        controls: `[N, T, A]`.
        gains: `[N, T, A, S]`, feedback: `controls + gains (x - states)` is the best reply to a state nearby.
        costs: `[N]`.
        iterations: `[N]`, backward passes.
        model_calls: `[N]`, time steps of the dynamics that were evaluated, in all rollouts.
        derivative_calls: `[N]`, time steps of the dynamics that were linearized.
        converged: `[N]`, whether a full step decreased the cost, or could be expected to, by less than the tolerance.
            A task also ends where no step brings a decrease: at a kink of its cost or dynamics, for one.
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
    dynamics,
    running_cost,
    final_cost,
    initial_states,
    controls,
    lower=None,
    upper=None,
    max_iterations=100,
    tolerance=1e-9,
):
    """Minimizes `sum_t l(x_t, u_t) + l_f(x_T)` over the controls, `x_{t+1} = f(x_t, u_t)`, `lower <= u <= upper`.

    Each iteration linearizes the dynamics and expands the costs to second order about the current trajectory, solves
    that problem backwards in time, a box-constrained quadratic program a step, and searches along the solution with
    rollouts of the true dynamics. Tasks are independent of one another; each has its own regularization and step size.

    Functions see all tasks and time steps at once, and must treat them apart: a value for each task is `[N, 1, ...]`
    there, a value for each time `[T, ...]`. Compute in float64: the arguments' dtype is kept.

    Args:
        dynamics: Function `(states [N, T, S], controls [N, T, A]) -> [N, T, S]`, differentiable; also called for T = 1.
        running_cost: Function `(states [N, T, S], controls [N, T, A]) -> [N, T]`, twice differentiable.
        final_cost: Function `(states [N, S]) -> [N]`, twice differentiable.
        initial_states: `[N, S]`.
        controls: `[N, T, A]`, where the search starts.
        lower: Lower limit of the controls: a number, `[A]`, or `None`.
        upper: Upper limit, the same.
        max_iterations: Largest number of iterations.
        tolerance: A decrease below `tolerance * (1 + |cost|)` ends the search of a task. In float32 at least 1e-5.

    Returns:
        `ILQRResult`.

    Raises:
        ValueError: Shapes that do not fit, a horizon of 0, limits that cross, or states, costs or derivatives that are
            not finite on a trajectory that was accepted.

    Source: Tassa, Erez and Todorov, Synthesis and stabilization of complex behaviors through online trajectory
    optimization, IROS 2012; Tassa, Mansard and Todorov, Control-limited differential dynamic programming, ICRA 2014.

    Example: a mass is pushed from rest at 1 m to rest at 0.

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
    """
    initial_states, controls = _check_shapes(initial_states, controls)
    limits = _check_limits(lower, upper, controls)
    problem = Problem(dynamics, running_cost, final_cost, initial_states, *limits)
    _check_functions(problem, controls)
    search = _Search(problem, controls)
    for _ in range(max_iterations):
        if not np.any(search.active):
            break
        search.iterate(tolerance)
    return search.result()


class _Search:
    """The state of the tasks between iterations."""

    def __init__(self, problem, controls):
        self.problem = problem
        self.horizon = controls.shape[1]
        states = np.repeat(problem.initial_states[:, None], self.horizon + 1, 1)
        self.gains = np.zeros((*controls.shape, states.shape[-1]), controls.dtype)
        stay = Plan(np.zeros_like(controls), self.gains, *[None] * 3)
        self.best = problem.rollout(Trajectory(states, controls, None), stay, 0.0)
        _check_start(self.best)
        num_tasks = len(states)
        self.active, self.changed = np.ones((2, num_tasks), bool)
        self.converged, self.tried = np.zeros((2, num_tasks), bool)
        self.regularization, self.factor = np.ones((2, num_tasks))
        self.iterations, self.derivative_calls = np.zeros((2, num_tasks), int)
        self.model_calls = np.full(num_tasks, self.horizon)
        self.derivatives = None

    def iterate(self, tolerance):
        if np.any(self.changed):
            self.derivatives = self.problem.derivatives(*self.best[:2])
            _check_derivatives(self.derivatives)
            self.derivative_calls += self.horizon * self.changed
        self.iterations += self.active
        regularization = tf.constant(self.regularization, self.problem.initial_states.dtype)
        plan = self.problem.backward(self.best.controls, regularization, *self.derivatives)
        plan = Plan(*(tensor.numpy() for tensor in plan))
        enough = tolerance * (1.0 + np.abs(self.best.costs))
        nothing_to_gain = self.active & plan.solved & (plan.expected_decrease(1.0) <= enough)
        unregularised = self.regularization < NEGLIGIBLE_REGULARISATION
        self._end(nothing_to_gain & unregularised, plan)
        decrease = self._line_search(plan, self.active & plan.solved & ~nothing_to_gain)
        self._adapt_regularisation()
        self._end(self.changed & (decrease <= enough) & unregularised, plan)
        self._try_without_regularisation(nothing_to_gain)

    def _line_search(self, plan, tasks):
        """Moves each of the tasks to its first trajectory that is good enough; returns the decrease of the costs."""
        reference = self.best
        self.changed = np.zeros_like(self.active)
        for step_size in STEP_SIZES:
            searching = tasks & ~self.changed
            if not np.any(searching):
                break
            candidate = self.problem.rollout(reference, plan, step_size)
            self.model_calls += self.horizon * searching
            expected = plan.expected_decrease(step_size)
            with np.errstate(invalid="ignore"):  # a rollout that diverged has no finite cost, and is not accepted
                better = reference.costs - candidate.costs > ACCEPTED_SHARE * expected
            accepted = searching & better
            self.best = Trajectory(*(_choose(accepted, *pair) for pair in zip(candidate, self.best)))
            self.changed |= accepted
        self.gains = _choose(self.changed, plan.gains, self.gains)
        return reference.costs - self.best.costs

    def _adapt_regularisation(self):
        easier = np.minimum(1.0, self.factor) / REGULARISATION_FACTOR
        harder = np.maximum(1.0, self.factor) * REGULARISATION_FACTOR
        factor = np.where(self.changed, easier, harder)
        scaled = np.maximum(self.regularization, np.where(self.changed, 0.0, MIN_REGULARISATION)) * factor
        scaled = np.where(self.changed & (scaled < MIN_REGULARISATION), 0.0, scaled)
        self.factor = np.where(self.active, factor, self.factor)
        self.regularization = np.where(self.active, np.minimum(scaled, MAX_REGULARISATION), self.regularization)
        self.active &= self.regularization < MAX_REGULARISATION

    def _try_without_regularisation(self, nothing_to_gain):
        """A step that promises nothing may only be a short one: once for each trajectory, the next is not shortened."""
        self.tried &= ~self.changed
        untried = nothing_to_gain & self.active & ~self.changed & ~self.tried
        self.regularization = np.where(untried, 0.0, self.regularization)
        self.factor = np.where(untried, 1.0, self.factor)
        self.tried |= untried

    def _end(self, done, plan):
        self.gains = _choose(done, plan.gains, self.gains)
        self.converged |= done
        self.active &= ~done

    def result(self):
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


def _choose(condition, new, old):
    """`new` for the tasks where `condition` holds, `[N, ...]`."""
    return np.where(condition.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _check_shapes(initial_states, controls):
    initial_states = np.asarray(initial_states)
    if initial_states.dtype not in (np.float32, np.float64):
        initial_states = initial_states.astype(np.float64)
    controls = np.asarray(controls, initial_states.dtype)
    for name, array, axes in [("initial_states", initial_states, "[N, S]"), ("controls", controls, "[N, T, A]")]:
        if array.ndim != axes.count(",") + 1 or not array.size:
            raise ValueError(f"`{name}` must have the shape {axes}, no axis of length 0. Received: shape {array.shape}")
        if not np.all(np.isfinite(array)):
            raise ValueError(f"`{name}` must be finite. Received: {name}={array}")
    if len(initial_states) != len(controls):
        raise ValueError(
            "`initial_states` and `controls` must be of as many tasks. "
            f"Received: shapes {initial_states.shape} and {controls.shape}"
        )
    return initial_states, controls


def _check_limits(lower, upper, controls):
    lower = np.asarray(-np.inf if lower is None else lower, controls.dtype)
    upper = np.asarray(np.inf if upper is None else upper, controls.dtype)
    for name, limit in {"lower": lower, "upper": upper}.items():
        if limit.shape not in [(), controls.shape[-1:]]:
            raise ValueError(
                f"`{name}` must be a number or of the shape {controls.shape[-1:]}. Received: shape {limit.shape}"
            )
    if not np.all(lower < upper):
        raise ValueError(f"`lower` must lie below `upper`. Received: lower={lower}, upper={upper}")
    return [np.broadcast_to(limit, controls.shape[-1:]) for limit in (lower, upper)]


def _check_functions(problem, controls):
    num_tasks, horizon, _ = controls.shape
    state, states = problem.initial_states[:, None], np.repeat(problem.initial_states[:, None], horizon, 1)
    expected = {
        "dynamics": (problem.dynamics(tf.constant(state), tf.constant(controls[:, :1])), state.shape),
        "running_cost": (problem.running_cost(tf.constant(states), tf.constant(controls)), (num_tasks, horizon)),
        "final_cost": (problem.final_cost(tf.constant(states[:, 0])), (num_tasks,)),
    }
    for name, (values, shape) in expected.items():
        if tuple(values.shape) != shape or values.dtype != controls.dtype:
            raise ValueError(
                f"`{name}` must return {controls.dtype} of the shape {shape}. "
                f"Received: {values.dtype.name} of the shape {tuple(values.shape)}"
            )


def _check_start(trajectory):
    for n, (states, cost) in enumerate(zip(trajectory.states, trajectory.costs)):
        if not np.all(np.isfinite(states)):
            step = np.argmin(np.all(np.isfinite(states), -1))
            raise ValueError(
                f"`controls` must lead to finite states. Received: task {n} has {states[step]} after {step} steps. "
                "Start from smaller controls, or mend `dynamics`."
            )
        if not np.isfinite(cost):
            raise ValueError(f"The cost of the first trajectory must be finite. Received: {cost} in task {n}")


def _check_derivatives(derivatives):
    names = ["the gradient of `running_cost`", "the Hessian of `running_cost`", "the Jacobian of `dynamics`"]
    names += ["the gradient of `final_cost`", "the Hessian of `final_cost`"]
    for name, values in zip(names, derivatives):
        finite = np.isfinite(values)
        if not np.all(finite):
            raise ValueError(
                f"The derivatives must be finite. Received: {name} is not, at {np.argwhere(~finite)[0].tolist()} "
                "(task, time step, ...). A norm, for one, has no gradient at 0: add a small number under its root."
            )
