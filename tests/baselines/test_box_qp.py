"""Tests of `ml3_tf.baselines._box_qp` against SciPy and against closed forms."""

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from ml3_tf.baselines import box_qp
from ml3_tf.baselines._box_qp import solve_free


def random_programs(num_tasks, num_variables, seed=0):
    generator = np.random.default_rng(seed)
    roots = generator.normal(size=(num_tasks, num_variables, num_variables))
    hessians = roots @ np.swapaxes(roots, 1, 2) + 0.1 * np.eye(num_variables)
    gradients = 3 * generator.normal(size=(num_tasks, num_variables))
    lower, upper = -generator.uniform(size=gradients.shape), generator.uniform(size=gradients.shape)
    return hessians, gradients, lower, upper


def solve(hessian, gradient, lower, upper):
    """The solution and the free variables, as arrays."""
    return [tensor.numpy() for tensor in box_qp(hessian, gradient, lower=lower, upper=upper)]


@pytest.mark.parametrize("num_variables", [1, 2, 7])
def test_solution_equals_that_of_scipy(num_variables):
    programs = random_programs(30, num_variables)
    solutions, free = solve(*programs)
    for x, hessian, gradient, lower, upper in zip(solutions, *programs):
        expected = scipy.optimize.minimize(
            lambda x, h, q: 0.5 * x @ h @ x + q @ x,
            np.zeros(num_variables),
            (hessian, gradient),
            "L-BFGS-B",
            lambda x, h, q: h @ x + q,
            bounds=list(zip(lower, upper)),
            options={"ftol": 1e-15, "gtol": 1e-12},
        )
        np.testing.assert_allclose(x, expected.x, atol=1e-6)
    assert 0.0 < np.mean(free) < 1.0


def test_solution_satisfies_the_karush_kuhn_tucker_conditions():
    hessians, gradients, lower, upper = random_programs(200, 5, seed=1)
    x, free = solve(hessians, gradients, lower, upper)
    slopes = np.einsum("nij,nj->ni", hessians, x) + gradients
    assert np.all((lower <= x) & (x <= upper))
    assert np.max(np.abs(slopes[free == 1])) < 1e-9
    assert np.all((x == lower)[(free == 0) & (slopes > 0)]) and np.all((x == upper)[(free == 0) & (slopes < 0)])


def test_without_limits_it_solves_the_linear_system():
    hessians, gradients, *_ = random_programs(5, 3)
    x, free = solve(hessians, gradients, -np.inf, np.inf)
    np.testing.assert_allclose(x, -np.linalg.solve(hessians, gradients[..., None])[..., 0], atol=1e-10)
    assert np.all(free == 1)


def test_float32_is_accurate_to_half_of_its_digits():
    programs = [array.astype(np.float32) for array in random_programs(50, 3)]
    x, _ = solve(*programs)
    expected, _ = solve(*(array.astype(np.float64) for array in programs))
    np.testing.assert_allclose(x, expected, atol=1e-4)


def test_graph_equals_eager():
    programs = [tf.constant(array) for array in random_programs(4, 2)]
    for eager, graph in zip(solve(*programs), tf.function(box_qp)(*programs[:2], lower=programs[2], upper=programs[3])):
        np.testing.assert_allclose(graph, eager, atol=1e-12)


def test_held_variables_stay_out_of_the_linear_system():
    hessian = tf.constant([[[4.0, 1.0], [1.0, 0.0]]])
    solution = solve_free(hessian, tf.constant([[[8.0], [5.0]]]), tf.constant([[1.0, 0.0]]))
    np.testing.assert_allclose(solution, [[[2.0], [0.0]]])
