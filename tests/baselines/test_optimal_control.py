"""Tests of `ml3_tf.baselines._optimal_control`: rollouts, derivatives and one backward pass."""

import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.baselines._optimal_control import Plan, Problem, SearchDirection

NUM_TASKS, HORIZON, NUM_STATES, NUM_CONTROLS = 3, 4, 2, 1


def dynamics(states, controls):
    x, v = tf.unstack(states, axis=-1)
    return tf.stack([x + 0.1 * v, v + 0.1 * (tf.sin(x) + controls[..., 0] * tf.cos(v))], -1)


def running_cost(states, controls):
    return tf.exp(states[..., 0]) * controls[..., 0] ** 2 + states[..., 1] ** 4


def final_cost(states):
    return tf.exp(states[..., 0] * states[..., 1])


@pytest.fixture
def problem():
    initial_states = np.random.default_rng(0).normal(size=(NUM_TASKS, NUM_STATES))
    return make_problem(running_cost, final_cost, initial_states)


def make_problem(running_cost, final_cost, initial_states, limit=0.5):
    lower, upper = np.array([-limit]), np.array([limit])
    return Problem(dynamics, running_cost, final_cost, initial_states=initial_states, lower=lower, upper=upper)


@pytest.fixture
def plan():
    generator = np.random.default_rng(1)
    states = generator.normal(size=(NUM_TASKS, HORIZON + 1, NUM_STATES))
    return Plan(states, generator.normal(size=(NUM_TASKS, HORIZON, NUM_CONTROLS)), np.zeros(NUM_TASKS))


def draw_direction(plan, seed=2):
    generator = np.random.default_rng(seed)
    shape = plan.controls.shape
    return SearchDirection(generator.normal(size=shape), generator.normal(size=(*shape, NUM_STATES)), None, None, None)


def test_rollout_equals_a_loop_over_time(problem, plan):
    direction = draw_direction(plan)
    result = problem.rollout(plan, direction, step_size=0.3)
    for n in range(NUM_TASKS):
        state, cost = problem.initial_states[n], 0.0
        for t in range(HORIZON):
            control = plan.controls[n, t] + 0.3 * direction.feedforward[n, t]
            control = np.clip(control + direction.gains[n, t] @ (state - plan.states[n, t]), -0.5, 0.5)
            np.testing.assert_allclose(result.controls[n, t], control, atol=1e-12)
            cost += running_cost(state, control)
            state = dynamics(state, control).numpy()
            np.testing.assert_allclose(result.states[n, t + 1], state, atol=1e-12)
        np.testing.assert_allclose(result.costs[n], cost + final_cost(state), atol=1e-12)


def test_many_problems_in_a_row_raise_no_warning_of_retracing(problem, plan, caplog):
    for _ in range(6):
        another = make_problem(running_cost, final_cost, problem.initial_states)
        another.rollout(plan, draw_direction(plan), step_size=1.0)
    assert "retracing" not in caplog.text


def test_derivatives_equal_finite_differences(problem, plan):
    l_z, l_zz, f_z, v_x, v_xx = (tensor.numpy() for tensor in problem.derivatives(plan))
    z = np.concatenate([plan.states[:, :-1], plan.controls], -1)
    last = plan.states[:, -1]

    def cost(z):
        return running_cost(*np.split(z, [NUM_STATES], -1)).numpy()

    for i in range(NUM_STATES + NUM_CONTROLS):
        h = 1e-6 * np.eye(NUM_STATES + NUM_CONTROLS)[i]
        states = [dynamics(*np.split(z + s * h, [NUM_STATES], -1)).numpy() for s in (1, -1)]
        np.testing.assert_allclose(f_z[..., i], (states[0] - states[1]) / 2e-6, atol=1e-7)
        np.testing.assert_allclose(l_z[..., i], (cost(z + h) - cost(z - h)) / 2e-6, atol=1e-6)
        gradients = [problem.derivatives(make_plan(z + s * h, last))[0].numpy() for s in (1, -1)]
        np.testing.assert_allclose(l_zz[..., i], (gradients[0] - gradients[1]) / 2e-6, atol=1e-6)
    for i in range(NUM_STATES):
        h = 1e-6 * np.eye(NUM_STATES)[i]
        difference = (final_cost(last + h) - final_cost(last - h)) / 2e-6
        np.testing.assert_allclose(v_x[:, i], difference, rtol=1e-6)
        gradients = [problem.derivatives(make_plan(z, last + s * h))[3].numpy() for s in (1, -1)]
        np.testing.assert_allclose(v_xx[..., i], (gradients[0] - gradients[1]) / 2e-6, rtol=1e-5, atol=1e-6)


def make_plan(z, last):
    states, controls = np.split(z, [NUM_STATES], -1)
    return Plan(np.concatenate([states, last[:, None]], 1), controls, np.zeros(NUM_TASKS))


def test_backward_pass_expects_the_decrease_that_a_short_step_brings(problem, plan):
    start = problem.simulate(plan.controls)
    direction = problem.backward(start.controls, np.ones(NUM_TASKS), problem.derivatives(start))
    assert np.all(direction.solved) and np.all(direction.slope < 0)
    after = problem.rollout(start, direction, step_size=1e-4)
    np.testing.assert_allclose(start.costs - after.costs, direction.expected_decrease(1e-4), rtol=1e-2)


def test_backward_pass_tells_which_tasks_have_no_minimum(plan):
    def concave(states, controls):
        return -tf.reduce_sum(controls**2, -1) * tf.constant([[1.0], [-1.0], [1.0]], tf.float64)

    problem = make_problem(concave, lambda x: 0.0 * x[:, 0], plan.states[:, 0], limit=1.0)
    direction = problem.backward(plan.controls, np.zeros(3), problem.derivatives(plan))
    assert direction.solved.tolist() == [False, True, False]
