"""Tests of `ml3_tf.learner._vectorize`: one function of a task, applied to many."""

import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.learner import find_hindrances, is_elementwise, map_over_tasks


def multiply(inputs):
    matrix, (vector,) = inputs
    return tf.linalg.matvec(matrix, vector), {"constant": tf.constant([1.0, 2.0])}


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "XLA"])
@pytest.mark.parametrize("vectorized", [True, False])
@pytest.mark.parametrize("num_tasks", [1, 3])
def test_each_task_gets_its_own_inputs(num_tasks, vectorized, jit_compile):
    matrices, vectors = np.random.default_rng(0).normal(size=(num_tasks, 2, 2)), np.ones((num_tasks, 2))
    multiply_all = lambda inputs: map_over_tasks(multiply, inputs, vectorized=vectorized)
    function = tf.function(multiply_all, jit_compile=jit_compile)
    products, constants = function((tf.constant(matrices), (tf.constant(vectors),)))
    np.testing.assert_allclose(products, matrices.sum(axis=2))
    np.testing.assert_allclose(constants["constant"], [[1.0, 2.0]] * num_tasks)


def test_shapes_stay_static():
    shapes = []

    @tf.function
    def record(x):
        shapes.extend(tuple(map_over_tasks(tf.square, x, vectorized=vectorized).shape) for vectorized in (True, False))

    record(tf.zeros((3, 2)))
    assert shapes == [(3, 2), (3, 2)]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: tf.tanh(x @ x), set()),
        (lambda x: tf.reduce_sum(x, 0, keepdims=True), set()),
        (tf.reduce_sum, {"Sum"}),
        (tf.transpose, {"Transpose"}),
        (lambda x: x[0], {"StridedSlice"}),
        (tf.function(lambda x: tf.concat([x, x], 0)), {"ConcatV2"}),
    ],
    ids=["matmul", "kept_axes", "sum", "transpose", "slice", "inner_function"],
)
def test_what_xla_cannot_compile_once_is_found(function, expected):
    assert find_hindrances(function, tf.TensorSpec((2, 2))) == expected


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, s: tf.sqrt(x) * s + 1.0, True),
        (lambda x, s: tf.where(x > s, x, 0.0), True),
        (lambda x, s: x * tf.constant([1.0, 2.0]), False),
        (lambda x, s: x / tf.norm(x), False),
        (lambda x, s: tf.transpose(x), False),
    ],
    ids=["arithmetic", "where", "a constant vector", "norm", "transpose"],
)
def test_elementwise_functions_are_told_from_others(function, expected):
    assert is_elementwise(function, tf.TensorSpec((2, 2)), tf.TensorSpec(())) is expected
