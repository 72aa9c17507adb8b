"""Tests of `ml3_tf.inner_loop`: closed forms, finite differences, agreement with Keras, and between ways to run it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf import MetaLoss
from ml3_tf.inner_loop import InnerLoop, _loop, per_task_loss
from ml3_tf.learner import Learner, Parameters

layers, optimizers = keras.layers, keras.optimizers


class HalfSquare(keras.losses.Loss):
    """`phi (y_pred - y)^2 / 2`, a learned loss with one weight."""

    phi = 1.0

    def call(self, y_true, y_pred):
        return self.phi * tf.reduce_sum(tf.square(y_pred - y_true), axis=-1) / 2


def build_linear(width=1):
    return keras.Sequential([keras.Input((width,), dtype="float64"), layers.Dense(1, use_bias=False, dtype="float64")])


def build_mlp(dtype="float32"):
    return keras.Sequential(
        [
            keras.Input((1,), dtype=dtype),
            layers.Dense(5, activation="tanh", dtype=dtype),
            layers.Dense(1, dtype=dtype),
        ]
    )


# Closed forms


def test_maml_in_three_weights():
    """f = (x.w)^2 / 2 at w = (2, 3, 5), one step of rate .5 on x = (1, 2, 3), scored on x = (4, 5, 6)."""
    loop = InnerLoop(Learner(lambda: build_linear(3)), HalfSquare(dtype="float64"), optimizers.SGD(0.5))
    weights = tf.constant([[[2.0], [3.0], [5.0]]], "float64")
    support = tf.constant([[[1.0, 2.0, 3.0]]], "float64"), tf.zeros((1, 1, 1), "float64")
    query = tf.constant([[[4.0, 5.0, 6.0]]], "float64"), tf.zeros((1, 1, 1), "float64")
    with tf.GradientTape() as tape:
        tape.watch(weights)
        start = loop.start(1, Parameters([weights], []))
        end = loop.step(start, lambda _: support)
        loss = per_task_loss(loop.loss, query[1], loop.predict(end.parameters, query[0]))
    before = per_task_loss(loop.loss, support[1], loop.predict(start.parameters, support[0]))
    np.testing.assert_allclose(before, [264.5])
    np.testing.assert_allclose(end.parameters.trainable[0][0, :, 0], [-9.5, -20.0, -29.5])
    np.testing.assert_allclose(loss, [49612.5])
    np.testing.assert_allclose(tape.gradient(loss, weights)[0, :, 0], [3780.0, 8505.0, 13230.0])


def scalar_learned_loss(steps, jit_compile=None, untracked_steps=0):
    """L_T, dL_T/dphi and dL_T/dtheta of y_pred = theta x, after `steps` steps on phi (y_pred - y)^2 / 2.

    `theta` is that from which the gradient is tracked.
    """
    loss = HalfSquare(dtype="float64")
    loss.phi = tf.Variable(0.7, dtype="float64")
    loop = InnerLoop(Learner(build_linear), loss, optimizers.SGD(0.1))
    x, y = tf.constant([[[0.9]]], "float64"), tf.constant([[[-0.4]]], "float64")

    def differentiate():
        learners = loop.start(1, Parameters([tf.constant([[[1.3]]], "float64")], []))
        learners = loop.run(learners, lambda *_: (x, y), untracked_steps)
        score = lambda learners: tf.reduce_sum(tf.square(loop.predict(learners.parameters, x) - y)) / 2
        swept = loop.differentiate(learners, lambda *_: (x, y), score, num_steps=steps, variables=[loss.phi])
        return swept.loss, swept.gradients[0], swept.carry_gradients[0]

    function = differentiate if jit_compile is None else tf.function(differentiate, jit_compile=jit_compile)
    return [np.squeeze(value) for value in function()]


@pytest.mark.parametrize("jit_compile", [None, False, True], ids=["eager", "graph", "XLA"])
def test_scalar_learned_loss(jit_compile):
    """With r = 1 - alpha phi x^2: L_T = r^10 e^2 / 2, dphi = -alpha 5 x^2 r^9 e^2, dtheta = x r^10 e."""
    expected = [0.68749200740425, -0.59034085232423, 0.78820739702398]
    np.testing.assert_allclose(scalar_learned_loss(5, jit_compile), expected, rtol=1e-8)


@pytest.mark.parametrize("tracked", [1, 3])
def test_truncated_gradient_is_a_share_of_the_full_one(tracked):
    """Truncated to the last k of K steps, dL_T/dphi is k / K of the full value."""
    task_loss, gradient = scalar_learned_loss(tracked, untracked_steps=5 - tracked)[:2]
    np.testing.assert_allclose(task_loss, 0.68749200740425, rtol=1e-8)
    np.testing.assert_allclose(gradient, -0.59034085232423 * tracked / 5, rtol=1e-8)


# Finite differences


def meta_gradient_of_an_mlp(optimizer, steps, network=None, **kwargs):
    """A function phi -> (task loss, meta-gradient), and phi, for a small network in float64."""
    keras.utils.set_random_seed(3)
    if network is None:
        meta_loss = MetaLoss.mlp((6, 6), dtype="float64", **kwargs)
    else:
        meta_loss = MetaLoss(network, dtype="float64")
    loop = InnerLoop(Learner(lambda: build_mlp("float64"), seed=1), meta_loss, optimizer)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 2, 7, 1))
    start = loop.start(num_tasks=2)

    @tf.function
    def differentiate():
        score = lambda learners: tf.reduce_mean(tf.square(loop.predict(learners.parameters, x) - y))
        arguments = {"num_steps": steps, "variables": meta_loss.trainable_variables}
        swept = loop.differentiate(start, lambda *_: (x, y), score, **arguments)
        return swept.loss, swept.gradients

    return differentiate, meta_loss.trainable_variables


def relative_errors(differentiate, phi, h=1e-6):
    """Relative errors of the meta-gradient against central differences in five random directions."""
    rng = np.random.default_rng(1)
    gradient = differentiate()[1]
    origin = [variable.numpy() for variable in phi]
    errors = []
    for _ in range(5):
        direction = [rng.normal(size=variable.shape) for variable in phi]
        ends = []
        for sign in (1, -1):
            for variable, value, d in zip(phi, origin, direction):
                variable.assign(value + sign * h * d)
            ends.append(float(differentiate()[0]))
        for variable, value in zip(phi, origin):
            variable.assign(value)
        difference = (ends[0] - ends[1]) / (2 * h)
        slope = sum(float(tf.reduce_sum(g * d)) for g, d in zip(gradient, direction) if g is not None)
        errors.append(abs(slope - difference) / abs(difference))
    return errors


@pytest.mark.parametrize("steps", [1, 3, 10])
@pytest.mark.parametrize(
    "optimizer",
    [optimizers.SGD(0.5), optimizers.SGD(0.3, momentum=0.9), optimizers.Adam(0.1)],
    ids=["sgd", "momentum", "adam"],
)
def test_meta_gradient_is_that_of_finite_differences(optimizer, steps):
    assert max(relative_errors(*meta_gradient_of_an_mlp(optimizer, steps))) < 1e-6


@pytest.mark.parametrize(("learning_rate", "steps"), [(0.3, 5), ("network", 1)], ids=str)
def test_meta_gradient_of_a_per_set_loss_is_that_of_finite_differences(learning_rate, steps):
    """One step with a rate of the network: no gradient flows from the rate to y_pred, nor on to the steps before."""
    kwargs = {"mode": "per_set", "score_units": (4,), "learning_rate": learning_rate}
    assert max(relative_errors(*meta_gradient_of_an_mlp(optimizers.SGD(0.5), steps, **kwargs))) < 1e-6


@keras.saving.register_keras_serializable("ml3_tf_tests")
class StopGradient(layers.Layer):
    def call(self, inputs):
        return keras.ops.stop_gradient(inputs)


def test_a_planted_stop_gradient_makes_the_gradient_test_fail():
    """The hidden layer is cut off from the gradient, though not from the value: the check above must notice."""
    inputs = keras.Input((2,), dtype="float64")
    hidden = layers.Dense(6, activation="tanh", dtype="float64")(inputs)
    product = layers.Multiply(dtype="float64")([hidden, StopGradient(dtype="float64")(hidden)])
    network = keras.Model(inputs, layers.Dense(1, use_bias=False, dtype="float64")(product))
    differentiate, phi = meta_gradient_of_an_mlp(optimizers.SGD(0.5), 3, network)
    assert min(relative_errors(differentiate, phi)) > 1e-6


# Agreement


def with_batch_norm():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, kernel_regularizer="l2"),
            layers.BatchNormalization(momentum=0.5),
            layers.ReLU(),
            layers.Dense(1),
        ]
    )


def with_dropout():
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, activation="tanh"), layers.Dropout(0.5), layers.Dense(1)]
    )


def recurrent():
    return keras.Sequential([keras.Input((4, 2)), layers.GRU(3), layers.Dense(1)])


def convolutional():
    return keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Conv2D(2, 3), layers.MaxPooling2D(2), layers.Flatten(), layers.Dense(1)]
    )


LEARNERS = {"dense": with_batch_norm, "dropout": with_dropout, "gru": recurrent, "conv": convolutional}


@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "unweighted"])
@pytest.mark.parametrize("mode", ["per_sample", "per_set"])
@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.usefixtures("float64")
def test_a_run_equals_compile_and_train_on_batch(name, mode, weighted):
    """Weights, moving statistics and dropout masks, with and without sample weights, are those of Keras."""
    keras.utils.set_random_seed(0)
    model = LEARNERS[name]()
    meta_loss = MetaLoss.mlp((5,), mode=mode)
    rng = np.random.default_rng(0)
    x, y = (
        rng.normal(size=(1, 8, *model.input_shape[1:])),
        rng.normal(size=(1, 8, 1)),
    )
    weights = rng.uniform(size=(1, 8)) if weighted else None
    learner = Learner(model)
    loop = InnerLoop(learner, meta_loss, optimizers.Adam(0.01))
    start = loop.start(1, learner.copies(model, 1))
    end = tf.function(lambda start: loop.run(start, lambda *_: (x, y, weights) if weighted else (x, y), 3))(start)
    prediction = loop.predict(end.parameters, x)

    model.compile(optimizer=optimizers.Adam(0.01), loss=meta_loss, run_eagerly=True)  # no work for a graph
    for _ in range(3):
        model.train_on_batch(x[0], y[0], sample_weight=weights[0] if weighted else None)
    for variable, value in zip(model.trainable_variables, end.parameters.trainable):
        np.testing.assert_allclose(value[0], variable.numpy(), rtol=1e-6, atol=1e-9)
    for variable, value in zip(model.non_trainable_variables, end.parameters.non_trainable):
        np.testing.assert_allclose(value[0], variable.numpy(), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(prediction[0], model.predict(x[0], verbose=0), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "jit_compile"), [("dense", True), ("dropout", True), ("gru", False), ("conv", False), ("conv", True)]
)
def test_tasks_together_equal_tasks_one_by_one(name, jit_compile):
    """Neither the number of tasks nor the way to map over them changes what one task does, to second order."""
    learner = Learner(LEARNERS[name], seed=0)
    meta_loss = MetaLoss.mlp((5,))
    loop = InnerLoop(learner, meta_loss, optimizers.SGD(0.1))
    shape = learner.model.input_shape[1:]
    x, y = tf.random.stateless_normal((2, 5, *shape), [0, 1]), tf.random.stateless_normal((2, 5, 1), [0, 2])
    start = loop.start(num_tasks=2)

    def differentiate(start, x, y):
        score = lambda learners: tf.reduce_sum(
            per_task_loss(keras.losses.get("mse"), y, loop.predict(learners.parameters, x))
        )
        arguments = {"num_steps": 1, "variables": meta_loss.trainable_variables}
        swept = loop.differentiate(start, lambda *_: (x, y), score, **arguments)
        return swept.loss, swept.gradients[0]

    differentiate = tf.function(differentiate, jit_compile=jit_compile)
    losses, gradient = differentiate(start, x, y)
    alone = [
        differentiate(*tf.nest.map_structure(lambda values, n=n: values[n : n + 1], (start, x, y))) for n in range(2)
    ]
    np.testing.assert_allclose(losses, sum(loss for loss, _ in alone), rtol=1e-4)
    np.testing.assert_allclose(gradient, sum(gradient for _, gradient in alone), rtol=1e-3, atol=1e-6)
    assert not np.allclose(alone[0][0], alone[1][0])


def token_by_token():
    return keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            layers.Embedding(7, 3, mask_zero=True),
            layers.GRU(3, return_sequences=True),
            layers.Dense(1),
        ]
    )


@pytest.mark.parametrize("weights", [None, (6,), (6, 5)], ids=["unweighted", "per example", "per step"])
@pytest.mark.usefixtures("float64")
def test_a_masked_run_equals_compile_and_train_on_batch(weights):
    """Padding counts neither in the loss of a step nor in that of the query points."""
    keras.utils.set_random_seed(0)
    model, rng = token_by_token(), np.random.default_rng(0)
    x = rng.integers(1, 7, (6, 5)) * (np.arange(5) < rng.integers(1, 5, (6, 1)))
    y = rng.normal(size=(6, 5, 1))
    weights = None if weights is None else rng.uniform(size=weights)
    loop = InnerLoop(Learner(model), "mse", optimizers.SGD(0.5))
    part = tf.nest.map_structure(lambda values: values[np.newaxis], (x, y) if weights is None else (x, y, weights))
    end = tf.function(lambda start: loop.run(start, lambda *_: part, 3))(loop.start(1, loop.learner.copies(model, 1)))

    model.compile(optimizer=optimizers.SGD(0.5), loss="mse", run_eagerly=True)
    of_steps = None if weights is None else np.broadcast_to(weights.reshape(6, -1), (6, 5))
    for _ in range(3):
        model.train_on_batch(x, y, sample_weight=of_steps)
    for variable, value in zip(model.trainable_variables, end.parameters.trainable):
        np.testing.assert_allclose(value[0], variable.numpy(), rtol=1e-6, atol=1e-9)
    expected = keras.losses.MeanSquaredError(dtype="float64")(y, model(x), sample_weight=of_steps)
    np.testing.assert_allclose(loop.evaluate(keras.losses.MeanSquaredError(), end.parameters, part), [expected])
    assert len(loop.predict_weighted(end.parameters, part)[1]) == 1


@pytest.mark.parametrize("name", ["dense", "dropout"])
def test_vectorized_equals_loop(name):
    learner = Learner(LEARNERS[name], seed=0)
    parameters = learner.draw(num_tasks=3)
    x = tf.random.stateless_normal((3, 5, 4), [0, 1])
    vectorized = learner.apply(parameters, x, training=True)
    assert learner.vectorized
    learner.vectorized = False
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        vectorized,
        learner.apply(parameters, x, training=True),
    )


def test_eager_graph_and_xla_agree():
    loop = InnerLoop(Learner(build_mlp, seed=0), MetaLoss.mlp((5,)), optimizers.Adam(0.01))
    x, y = tf.random.stateless_normal((2, 4, 5, 1), [0, 1])
    start = loop.start(num_tasks=4)
    results = [
        function(start).parameters.trainable
        for run in [lambda start: loop.run(start, lambda *_: (x, y), 3)]
        for function in (run, tf.function(run), tf.function(run, jit_compile=True))
    ]
    for other in results[1:]:
        tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), results[0], other)


def test_few_steps_laid_out_equal_many_in_a_loop(monkeypatch):
    gradient = lambda: meta_gradient_of_an_mlp(optimizers.SGD(0.5, momentum=0.9), 4)[0]()
    laid_out = gradient()
    monkeypatch.setattr(_loop, "MAX_TAPED_STEPS", 0)
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), laid_out, gradient())


def with_recurrent_dropout():
    return keras.Sequential([keras.Input((4, 2)), layers.GRU(3, recurrent_dropout=0.5), layers.Dense(1)])


def test_learners_with_a_loop_of_tensorflow_are_compiled_without_xla():
    loop = InnerLoop(Learner(with_recurrent_dropout, seed=0), MetaLoss.mlp((5,)), "sgd")
    assert loop.learner.has_loop and not any(Learner(LEARNERS[name]).has_loop for name in ("conv", "gru"))
    in_xla = loop.compile(lambda x: tf.fill(x.shape, tf.strings.length("ab")), jit_compile=True)  # XLA has no strings
    np.testing.assert_array_equal(in_xla(tf.zeros((2,))), [2, 2])


# Errors


def test_a_loss_that_ignores_the_prediction_is_refused():
    inputs = keras.Input((2,))
    meta_loss = MetaLoss(keras.Model(inputs, layers.Dense(1)(StopGradient()(inputs))))
    loop = InnerLoop(Learner(build_mlp), meta_loss, "sgd")
    x = tf.ones((1, 3, 1))
    with pytest.raises(
        ValueError, match="'meta_loss' gives the learner no gradient. Expected a loss that depends on y_pred"
    ):
        loop.step(loop.start(1), lambda _: (x, x))
