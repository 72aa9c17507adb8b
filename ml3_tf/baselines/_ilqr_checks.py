"""Checks of the arguments of `ilqr`: shapes, limits, functions, and whether their values are finite."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ml3_tf.arguments import TensorLike
from ml3_tf.baselines._optimal_control import Plan, Problem


def check_shapes(initial_states: TensorLike, controls: TensorLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns initial states and controls as arrays of one float type, after a check of their shapes and values."""
    states = np.asarray(initial_states)
    if states.dtype not in (np.float32, np.float64):
        states = states.astype(np.float64)
    first_controls = np.asarray(controls, states.dtype)
    for name, array, axes in [("initial_states", states, "[N, S]"), ("controls", first_controls, "[N, T, A]")]:
        if array.ndim != axes.count(",") + 1 or not array.size:
            raise ValueError(
                f"`{name}` must have the shape {axes}, with no axis of length 0. Received: shape {array.shape}"
            )
        if not np.all(np.isfinite(array)):
            raise ValueError(f"`{name}` must be finite. Received: {name}={array}")
    if len(states) != len(first_controls):
        raise ValueError(
            "`initial_states` and `controls` must have the same number of tasks on their first axis. "
            f"Received: shapes {states.shape} and {first_controls.shape}"
        )
    return states, first_controls


def check_limits(
    lower: TensorLike | None, upper: TensorLike | None, controls: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the limits as arrays `[A]`, infinite where there are none, after a check of their order."""
    lower = np.asarray(-np.inf if lower is None else lower, controls.dtype)
    upper = np.asarray(np.inf if upper is None else upper, controls.dtype)
    for name, limit in {"lower": lower, "upper": upper}.items():
        if limit.shape not in [(), controls.shape[-1:]]:
            raise ValueError(
                f"`{name}` must be a number or have the shape {controls.shape[-1:]}. Received: shape {limit.shape}"
            )
    if not np.all(lower < upper):
        raise ValueError(f"`lower` must be below `upper`. Received: lower={lower}, upper={upper}")
    return np.broadcast_to(lower, controls.shape[-1:]), np.broadcast_to(upper, controls.shape[-1:])


def check_functions(problem: Problem, controls: np.ndarray) -> None:
    """Raises a `ValueError` unless dynamics and costs return the right shapes and the dtype of the controls."""
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
                f"`{name}` must return {controls.dtype} values of shape {shape}. "
                f"Received: {values.dtype.name} values of shape {tuple(values.shape)}"
            )


def check_first_plan(plan: Plan) -> None:
    """Raises a `ValueError` unless the states and the costs of the plan that a search starts from are finite."""
    for n, (states, cost) in enumerate(zip(plan.states, plan.costs)):
        if not np.all(np.isfinite(states)):
            step = np.argmin(np.all(np.isfinite(states), -1))
            raise ValueError(
                f"`controls` must lead to finite states. Received: {states[step]} in task {n} after {step} steps. "
                "Start from smaller controls, or bound the result of `dynamics`."
            )
        if not np.isfinite(cost):
            raise ValueError(
                f"The cost of the first plan must be finite. Received: {cost} in task {n}. Start from other controls, "
                "or check `running_cost` and `final_cost`."
            )


def check_derivatives(derivatives: tuple[tf.Tensor, ...]) -> None:
    """Raises a `ValueError` unless the results of `Problem.derivatives` are finite."""
    names = ["the gradient of `running_cost`", "the Hessian of `running_cost`", "the Jacobian of `dynamics`"]
    names += ["the gradient of `final_cost`", "the Hessian of `final_cost`"]
    for name, values in zip(names, derivatives):
        finite = np.isfinite(values)
        if not np.all(finite):
            raise ValueError(
                f"The derivatives must be finite. Received: {name} is not finite at "
                f"{np.argwhere(~finite)[0].tolist()} (task, time step, ...). A norm, for example, has no gradient at "
                "0: add a small number under its root."
            )
