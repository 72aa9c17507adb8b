"""Tests of `ml3_tf.baselines._ilqr`: closed forms, other solvers, and plans for the environments."""

import math

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from ml3_tf.baselines import ilqr
from ml3_tf.envs import mountain_car
from ml3_tf.envs.reacher import ReacherGoalEnv, reacher_step

HORIZON = 20


def quadratic(x, matrix):
    return 0.5 * tf.reduce_sum(x * tf.linalg.matvec(tf.constant(matrix), x), -1)


@pytest.fixture(scope="module")
def linear_quadratic():
    """Matrices `A, B, Q, R, P` of dynamics `A x + B u` and costs `x'Qx/2 + u'Ru/2`, at last `x'Px/2`, and starts."""
    generator = np.random.default_rng(0)
    a, b = np.eye(3) + 0.1 * generator.normal(size=(3, 3)), generator.normal(size=(3, 2))
    return (a, b, np.diag([1.0, 0.5, 0.2]), np.diag([0.3, 0.1]), 5 * np.eye(3)), generator.normal(size=(4, 3))


def solve(matrices, initial_states, **kwargs):
    a, b, q, r, p = matrices
    return ilqr(
        lambda states, controls: tf.linalg.matvec(a, states) + tf.linalg.matvec(b, controls),
        running_cost=lambda states, controls: quadratic(states, q) + quadratic(controls, r),
        final_cost=lambda states: quadratic(states, p),
        initial_states=initial_states,
        **{"controls": np.zeros((len(initial_states), HORIZON, b.shape[1])), **kwargs},
    )


def riccati(matrices, initial_states):
    """The optimal controls and costs in closed form."""
    a, b, q, r, p = matrices
    gains = []
    for _ in range(HORIZON):
        gains.insert(0, -np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a))
        p = q + a.T @ p @ (a + b @ gains[0])
    costs = 0.5 * np.einsum("ni,ij,nj->n", initial_states, p, initial_states)
    controls, states = [], initial_states
    for gain in gains:
        controls.append(states @ gain.T)
        states = states @ a.T + controls[-1] @ b.T
    return np.stack(controls, 1), np.array(gains), costs


def test_linear_quadratic_problem_equals_the_closed_form(linear_quadratic):
    result = solve(*linear_quadratic, tolerance=1e-12)
    controls, gains, costs = riccati(*linear_quadratic)
    np.testing.assert_allclose(result.controls, controls, atol=1e-8)
    np.testing.assert_allclose(result.gains, np.broadcast_to(gains, result.gains.shape), atol=1e-8)
    np.testing.assert_allclose(result.costs, costs, atol=1e-8)
    assert np.all(result.converged) and np.all(result.iterations <= 8)


def test_limited_linear_quadratic_problem_equals_scipy(linear_quadratic):
    (a, b, q, r, p), initial_states = linear_quadratic
    result = solve((a, b, q, r, p), initial_states, lower=[-0.3, -0.2], upper=0.25, tolerance=1e-12)

    def cost_and_gradient(controls, initial_state):
        controls, states = controls.reshape(HORIZON, 2), [initial_state]
        for control in controls:
            states.append(a @ states[-1] + b @ control)
        cost = 0.5 * (states[-1] @ p @ states[-1] + sum(x @ q @ x + u @ r @ u for x, u in zip(states, controls)))
        adjoint, gradient = p @ states[-1], np.zeros_like(controls)
        for t in reversed(range(HORIZON)):
            gradient[t] = r @ controls[t] + b.T @ adjoint
            adjoint = q @ states[t] + a.T @ adjoint
        return cost, gradient.ravel()

    for n, initial_state in enumerate(initial_states):
        expected = scipy.optimize.minimize(
            cost_and_gradient,
            np.zeros(2 * HORIZON),
            initial_state,
            "L-BFGS-B",
            jac=True,
            bounds=[(-0.3, 0.25), (-0.2, 0.25)] * HORIZON,
            options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 10000, "maxfun": 100000},
        )
        assert result.costs[n] == pytest.approx(expected.fun, rel=1e-9)
        np.testing.assert_allclose(result.controls[n].ravel(), expected.x, atol=1e-5)
    assert np.all((result.controls >= [-0.3, -0.2]) & (result.controls <= 0.25))
    assert np.any(result.controls == 0.25) and np.any(result.controls[..., 1] == -0.2)
    assert np.all(result.converged)


def pendulum(states, controls):
    angle, speed = tf.unstack(states, axis=-1)
    speed = speed + 0.05 * (9.8 * tf.sin(angle) + controls[..., 0] - 0.1 * speed)
    return tf.stack([angle + 0.05 * speed, speed], -1)


def swing_up(initial_states, horizon=60, limit=4.0, **kwargs):
    """A pendulum (upright at angle 0) whose torque cannot lift it at once."""
    return ilqr(
        pendulum,
        running_cost=lambda states, controls: (
            0.01 * tf.reduce_sum(controls**2, -1) + 0.05 * (1 - tf.cos(states[..., 0]))
        ),
        final_cost=lambda states: 20 * (1 - tf.cos(states[..., 0])) + tf.reduce_sum(states[..., 1:] ** 2, -1),
        initial_states=np.array(initial_states),
        controls=np.zeros((len(initial_states), horizon, 1)),
        lower=-limit,
        upper=limit,
        **kwargs,
    )


def test_tasks_do_not_mix():
    starts = [[2.0, 1.0], [0.3, -0.5]]
    together = swing_up(starts, horizon=30)
    alone = [swing_up([start], horizon=30) for start in starts]
    for name in ("states", "controls", "costs"):
        one_by_one = np.concatenate([getattr(result, name) for result in alone])
        np.testing.assert_allclose(getattr(together, name), one_by_one, atol=1e-6, err_msg=name)
    # Rounding can decide which step is the last, and it depends on the number of tasks.
    assert np.all(np.abs(together.iterations - [result.iterations[0] for result in alone]) <= 1)


def test_solution_is_a_fixed_point_and_its_calls_are_counted():
    first = swing_up([[2.0, 0.0]])
    assert first.converged[0] and first.iterations[0] > 3
    # Each iteration but the last takes one backward pass and at least one rollout.
    assert 60 * first.iterations[0] <= first.model_calls[0] <= 60 * 11 * first.iterations[0]
    assert first.derivative_calls[0] <= 60 * first.iterations[0]
    np.testing.assert_array_equal(first.states[:, 0], [[2.0, 0.0]])
    stopped = swing_up([[2.0, 0.0]], max_iterations=2)
    assert stopped.iterations[0] == 2 and not stopped.converged[0] and stopped.costs[0] > first.costs[0]


@pytest.mark.parametrize("limit", [None, 0.2])
def test_search_that_starts_at_the_minimum_stays_there(linear_quadratic, limit):
    matrices, initial_states = linear_quadratic
    first = solve(matrices, initial_states, lower=limit and -limit, upper=limit, tolerance=1e-12)
    again = solve(matrices, initial_states, controls=first.controls, lower=limit and -limit, upper=limit)
    assert np.all(again.converged) and np.all(again.iterations <= 2)
    np.testing.assert_allclose(again.controls, first.controls, atol=1e-6)


def test_task_whose_values_overflow_ends_and_leaves_the_others_alone():
    """The first task's state grows a hundredfold a step, and controls at their limit cannot hold it."""
    growth = np.array([[[100.0]], [[0.5]]])
    result = ilqr(
        lambda states, controls: growth * states + controls,
        running_cost=lambda states, controls: (states[..., 0] - 1.0) ** 2,
        final_cost=lambda states: (states[..., 0] - 1.0) ** 2,
        initial_states=np.zeros((2, 1)),
        controls=np.zeros((2, 100, 1)),
        lower=-0.1,
        upper=0.1,
    )
    assert result.converged.tolist() == [False, True]
    assert np.all(result.costs < 101.0) and np.all(np.isfinite(result.gains))
    np.testing.assert_allclose(result.controls[1], 0.1)


def test_plan_for_the_reacher_arrives_in_mujoco():
    goal = np.array([1.0, -2.0])
    result = ilqr(
        reacher_step,
        running_cost=lambda states, controls: 1e-3 * tf.reduce_sum(controls**2, -1),
        final_cost=lambda states: 10 * tf.reduce_sum((states - tf.constant([*goal, 0.0, 0.0], tf.float64)) ** 2, -1),
        initial_states=np.array([[0.0, 0.5, 0.0, 0.0]]),
        controls=np.zeros((1, 65, 2)),
        lower=-1.0,
        upper=1.0,
    )
    env = ReacherGoalEnv()
    env.reset(options={"state": result.states[0, 0], "goal": goal})
    for controls in result.controls[0]:
        info = env.step(controls)[-1]
    assert result.converged[0] and info["distance"] < 0.01
    np.testing.assert_allclose(env.state, result.states[0, -1], atol=1e-8)


def test_horizon_of_one_step():
    result = swing_up([[0.1, 0.0]], horizon=1)
    assert result.converged[0] and result.states.shape == (1, 2, 2)


def test_cost_may_depend_on_task_and_time():
    goals = np.array([[[1.0]], [[-2.0]]])
    weights = np.array([0.0, 0.0, 1.0, 0.0])
    result = ilqr(
        lambda states, controls: states + controls,
        running_cost=lambda states, controls: weights * (states - goals)[..., 0] ** 2 + 1e-6 * controls[..., 0] ** 2,
        final_cost=lambda states: 1e-6 * states[..., 0] ** 2,
        initial_states=np.zeros((2, 1)),
        controls=np.zeros((2, 4, 1)),
    )
    np.testing.assert_allclose(result.states[:, 2, 0], [1.0, -2.0], atol=1e-3)


def test_mountain_car_reaches_its_goal_from_zero_controls():
    result = ilqr(
        mountain_car.mountain_car_step,
        running_cost=lambda states, controls: 0.01 * tf.reduce_sum(controls**2, -1),
        final_cost=lambda states: tf.reduce_sum((states - np.array(mountain_car.GOAL)) ** 2, -1),
        initial_states=np.array([mountain_car.START]),
        controls=np.zeros((1, 35, 1)),
        lower=-mountain_car.MAX_FORCE,
        upper=mountain_car.MAX_FORCE,
    )
    assert np.linalg.norm(result.states[0, -1] - mountain_car.GOAL) < 0.1
    assert result.converged[0] and result.iterations[0] <= 25
    assert np.max(np.abs(result.controls)) <= mountain_car.MAX_FORCE


def make_pendulum_model(crocoddyl):
    """The problem of `swing_up` as a class of crocoddyl, with derivatives by hand."""

    class Pendulum(crocoddyl.ActionModelAbstract):
        def __init__(self, last):
            super().__init__(crocoddyl.StateVector(2), 0 if last else 1, 1)
            self.last = last
            if not last:
                self.u_lb, self.u_ub = np.array([-1.5]), np.array([1.5])

        def calc(self, data, x, u=None):
            if self.last or u is None:
                data.xnext = x
                data.cost = 20 * (1 - math.cos(x[0])) + x[1] ** 2
                return
            speed = x[1] + 0.05 * (9.8 * math.sin(x[0]) + u[0] - 0.1 * x[1])
            data.xnext = np.array([x[0] + 0.05 * speed, speed])
            data.cost = 0.01 * u[0] ** 2 + 0.05 * (1 - math.cos(x[0]))

        def calcDiff(self, data, x, u=None):
            if self.last or u is None:
                data.Lx = np.array([20 * math.sin(x[0]), 2 * x[1]])
                data.Lxx = np.diag([20 * math.cos(x[0]), 2.0])
                return
            row = np.array([0.05 * 9.8 * math.cos(x[0]), 1 - 0.005])
            data.Fx = np.stack([[1.0, 0.0] + 0.05 * row, row])
            data.Fu = np.array([[0.0025], [0.05]])
            data.Lx, data.Lu = np.array([0.05 * math.sin(x[0]), 0.0]), np.array([0.02 * u[0]])
            data.Lxx, data.Luu = np.diag([0.05 * math.cos(x[0]), 0.0]), np.array([[0.02]])

    return Pendulum


def test_solution_equals_that_of_crocoddyl():
    crocoddyl = pytest.importorskip("crocoddyl")
    Pendulum = make_pendulum_model(crocoddyl)
    start = np.array([0.3, 0.5])
    models = [Pendulum(last=False) for _ in range(60)], Pendulum(last=True)
    solver = crocoddyl.SolverBoxDDP(crocoddyl.ShootingProblem(start, *models))
    solver.th_stop = 1e-12
    controls = [np.zeros(1)] * 60
    assert solver.solve(solver.problem.rollout(controls), controls, 300, True)
    result = swing_up([start], limit=1.5, tolerance=1e-12)
    assert result.costs[0] == pytest.approx(solver.cost, rel=1e-7)
    np.testing.assert_allclose(result.controls[0], np.array(solver.us), atol=1e-4)
    assert np.max(np.abs(result.controls)) == 1.5
