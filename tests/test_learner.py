"""Tests of `ml3_tf.learner`: fresh parameters from the layers' own initializers, and their state."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.learner import Learner, find_hindrances, map_over_tasks

layers = keras.layers
initializers = keras.initializers


def dense(**arguments):
    return lambda: keras.Sequential([keras.Input((30,)), layers.Dense(20, **arguments)])


@pytest.mark.parametrize(
    "initializer",
    [
        "glorot_uniform",
        "he_normal",
        "lecun_uniform",
        initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        initializers.RandomNormal(stddev=0.3),
        initializers.RandomUniform(-0.1, 0.3),
        initializers.TruncatedNormal(stddev=0.2),
        "orthogonal",
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_draws_have_the_distribution_of_the_initializer(initializer):
    values = np.asarray(Learner(dense(kernel_initializer=initializer), seed=0).draw(16).trainable[0])
    expected = np.stack([initializers.get(_reseeded(initializer, seed))((30, 20)) for seed in range(16)])
    assert values.shape == (16, 30, 20)
    np.testing.assert_allclose(values.mean(), expected.mean(), atol=0.01)
    np.testing.assert_allclose(values.std(), expected.std(), rtol=0.03)
    np.testing.assert_allclose(values.max(), expected.max(), rtol=0.15)


def _reseeded(initializer, seed):
    initializer = initializers.get(initializer)
    return type(initializer).from_config({**initializer.get_config(), "seed": seed})


def test_a_convolution_keeps_its_scale():
    build = lambda: keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(32, 5), layers.Flatten(), layers.Dense(1)])
    kernels = np.asarray(Learner(build, seed=0).draw(8).trainable[0])
    np.testing.assert_allclose(
        kernels.std(), np.sqrt(2 / (25 * 3 + 25 * 32)), rtol=0.02
    )  # Glorot: 2 / (fan_in + fan_out)


def test_constants_are_constant():
    build = dense(kernel_initializer=initializers.Constant(0.5), bias_initializer="ones")
    kernel, bias = Learner(build).draw(2).trainable
    np.testing.assert_array_equal(kernel, np.full((2, 30, 20), 0.5))
    np.testing.assert_array_equal(bias, np.ones((2, 20)))


def test_lstm_keeps_its_forget_bias():
    build = lambda: keras.Sequential([keras.Input((4, 2)), layers.LSTM(3)])
    bias = Learner(build).draw(2).trainable[2]
    np.testing.assert_array_equal(bias, [[0] * 3 + [1] * 3 + [0] * 6] * 2)


@pytest.mark.parametrize("in_graph", [False, True])
def test_every_draw_and_every_task_is_fresh(in_graph):
    learner = Learner(dense(), seed=0)
    draw = tf.function(lambda: learner.draw(2)) if in_graph else lambda: learner.draw(2)
    kernels = np.concatenate([draw().trainable[0] for _ in range(3)])
    assert len({kernel.tobytes() for kernel in kernels}) == 6


def test_the_seed_determines_the_draws():
    first, same, other = (Learner(dense(), seed=seed).draw(2).trainable[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)


def test_a_draw_with_a_seed_leaves_the_learners_own_draws_alone():
    learner, alike = Learner(dense(), seed=1), Learner(dense(), seed=1)
    seeded = learner.draw(3, seed=7)
    np.testing.assert_array_equal(seeded.trainable[0], Learner(dense(), seed=7).draw(3).trainable[0])
    np.testing.assert_array_equal(learner.draw(3).trainable[0], alike.draw(3).trainable[0])


def test_drawing_leaves_the_global_generators_alone():
    learner = Learner(dense(), seed=0)
    keras.utils.set_random_seed(1)
    expected = np.random.uniform()
    keras.utils.set_random_seed(1)
    learner.draw(2)
    assert np.random.uniform() == expected


def test_a_model_is_cloned_and_left_alone():
    model = dense()()
    before = model.get_weights()
    learner = Learner(model)
    learner.apply(learner.draw(2), tf.ones((2, 4, 30)), training=True)
    assert learner.model is not model
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_copies_are_the_values_of_the_model():
    model = dense()()
    kernels = Learner(model).copies(model, 3).trainable[0]
    np.testing.assert_array_equal(kernels, np.stack([model.get_weights()[0]] * 3))


def test_state_moves_in_training_only():
    learner = Learner(lambda: keras.Sequential([keras.Input((3,)), layers.BatchNormalization(momentum=0.5)]))
    parameters, x = learner.draw(2), tf.random.stateless_normal((2, 50, 3), [0, 1], mean=4.0)
    _, trained, _ = learner.apply(parameters, x, training=True)
    _, kept, _ = learner.apply(parameters, x, training=False)
    np.testing.assert_allclose(trained[0], np.mean(x, axis=1) / 2, rtol=1e-5)
    np.testing.assert_array_equal(kept[0], np.zeros((2, 3)))


def test_each_task_and_each_step_has_its_own_dropout_mask():
    learner = Learner(lambda: keras.Sequential([keras.Input((64,)), layers.Dropout(0.5), layers.Dense(1)]), seed=0)
    mask = lambda parameters: learner.apply(parameters, tf.ones((2, 1, 64)), training=True)
    parameters = learner.draw(2)._replace(trainable=[tf.eye(64, 1, batch_shape=[2]) + 1.0, tf.zeros((2, 1))])
    first, state, _ = mask(parameters)
    second, _, _ = mask(parameters._replace(non_trainable=state))
    assert not np.allclose(first[0], first[1])
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, mask(parameters)[0])


def test_regularisers_are_returned_for_each_task():
    learner = Learner(dense(kernel_regularizer=keras.regularizers.L2(0.1)), seed=0)
    parameters = learner.draw(2)
    _, _, losses = learner.apply(parameters, tf.ones((2, 1, 30)), training=True)
    np.testing.assert_allclose(losses, 0.1 * np.sum(np.square(parameters.trainable[0]), axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "is_vectorized"),
    [
        (layers.Flatten(), True),
        (layers.GRU(2), False),
        (layers.Conv1D(2, 2), False),
        (layers.LayerNormalization(), True),
        (layers.GlobalAveragePooling1D(), False),
        (layers.Cropping1D(1), False),
    ],
    ids=["dense", "gru", "conv", "norm", "mean", "slice"],
)
def test_what_cannot_be_vectorized_is_found(layer, is_vectorized):
    learner = Learner(keras.Sequential([keras.Input((4, 2)), layer, layers.Dense(1)]))
    assert learner.vectorized is is_vectorized


def test_a_learner_that_is_no_model_is_refused():
    with pytest.raises(ValueError, match="`learner` must return a Keras model. Received: Dense"):
        Learner(lambda: layers.Dense(1))


def test_a_learner_without_weights_is_refused():
    with pytest.raises(ValueError, match=r"has no trainable weights. Give it a `keras.Input`"):
        Learner(lambda: keras.Sequential([layers.Dense(1)]))


def test_a_compiled_model_is_a_learner_and_stays_compiled():
    model = dense()()
    model.compile(keras.optimizers.Adam(0.1), loss="mse")
    learner = Learner(model, seed=0)
    assert learner.draw(2).trainable[0].shape == (2, 30, 20)
    assert not learner.model.compiled
    assert model.compiled and model.loss == "mse"
    model.fit(np.ones((2, 30)), np.ones((2, 20)), verbose=0)


# Mapping over tasks


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
