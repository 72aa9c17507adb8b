"""Tests of `ml3_tf.inner_optimizer`: Keras's own trajectory, for any optimizer, differentiated through."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.inner_loop import InnerLoop
from ml3_tf.inner_optimizer import InnerOptimizer, StopScaleGradient
from ml3_tf.learner import Learner

optimizers = keras.optimizers
schedules = keras.optimizers.schedules
OPTIMIZERS = {
    "sgd": optimizers.SGD(0.1),
    "momentum": optimizers.SGD(0.1, momentum=0.9),
    "nesterov": optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "clipnorm": optimizers.SGD(0.1, clipnorm=0.05),
    "global_clipnorm": optimizers.SGD(0.1, global_clipnorm=0.05),
    "clipvalue": optimizers.SGD(0.1, clipvalue=0.01),
    "weight_decay": optimizers.SGD(0.1, weight_decay=0.1),
    "schedule": optimizers.SGD(schedules.ExponentialDecay(0.1, 2, 0.5)),
    "cosine": optimizers.Adam(schedules.CosineDecay(0.1, 5)),
    "adam": optimizers.Adam(0.01),
    "amsgrad": optimizers.Adam(0.01, amsgrad=True),
    "adamw": optimizers.AdamW(0.01),
    "nadam": optimizers.Nadam(0.01),
    "rmsprop": optimizers.RMSprop(0.01),
    "rmsprop_centered": optimizers.RMSprop(0.01, momentum=0.9, centered=True),
    "adagrad": optimizers.Adagrad(0.01),
    "adamax": optimizers.Adamax(0.01),
    "adadelta": optimizers.Adadelta(0.01),
    "ftrl": optimizers.Ftrl(0.01),
    "adafactor": optimizers.Adafactor(0.01),
    "lamb": optimizers.Lamb(0.01),
    "lion": optimizers.Lion(0.01),
    "muon": optimizers.Muon(0.01),
}


class ScaledSquare(keras.losses.Loss):
    """`phi (y - y_pred)^2`: a learned loss with one weight."""

    phi = 1.0

    def call(self, y_true, y_pred):
        return self.phi * tf.reduce_mean(tf.square(y_true - y_pred), axis=-1)


def build_learner(dtype="float32"):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((2,), dtype=dtype),
            layers.Dense(4, activation="tanh", dtype=dtype),
            layers.Dense(1, dtype=dtype),
        ]
    )


def make_tasks(dtype="float32", num_tasks=2):
    rng = np.random.default_rng(0)
    return rng.normal(size=(num_tasks, 6, 2)).astype(dtype), rng.normal(size=(num_tasks, 6, 1)).astype(dtype)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trajectory_is_that_of_keras(name):
    x, y = make_tasks()
    learner = Learner(build_learner, seed=0)
    loop = InnerLoop(learner, "mse", OPTIMIZERS[name])
    start = loop.start(num_tasks=2)
    end = tf.function(lambda start: loop.run(start, lambda *_: (x, y), 4))(start)

    for task in range(2):
        model = build_learner()
        for variable, values in zip(model.trainable_variables, start.parameters.trainable):
            variable.assign(values[task])
        optimizer = type(OPTIMIZERS[name]).from_config(OPTIMIZERS[name].get_config())
        model.compile(optimizer=optimizer, loss="mse", run_eagerly=True)  # four steps are no work for a graph
        for _ in range(4):
            model.train_on_batch(x[task], y[task])
        for variable, values in zip(model.trainable_variables, end.parameters.trainable):
            np.testing.assert_allclose(values[task], variable.numpy(), rtol=2e-5, atol=2e-6)
        moved = [np.abs(a[task] - b[task]).max() for a, b in zip(start.parameters.trainable, end.parameters.trainable)]
        assert min(moved) > 1e-5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_that_sum_over_a_parameter_are_taken_task_by_task(name):
    """XLA compiles the second derivative of their vectorized form anew at every step, or not at all."""
    inner = InnerOptimizer(OPTIMIZERS[name], build_learner().trainable_variables)
    assert inner.vectorized is (name not in ("global_clipnorm", "adafactor", "lamb", "muon"))


def test_a_global_norm_compiles_in_a_loop():
    """d(task loss)/d(phi) through a loop of steps, with XLA and without."""
    x, y = make_tasks()
    learner = Learner(build_learner, seed=0)
    loss_with_weight = ScaledSquare()
    loop = InnerLoop(learner, loss_with_weight, OPTIMIZERS["global_clipnorm"])
    start = loop.start(num_tasks=2)

    # A phi at which the gradients are shorter than the limit: clipped ones have the same length at any phi.
    loss_with_weight.phi = phi = tf.Variable(0.01)

    def derivative():
        score = lambda learners: tf.reduce_mean(tf.square(loop.predict(learners.parameters, x) - y))
        return loop.differentiate(start, lambda *_: (x, y), score, num_steps=5, variables=[phi]).gradients[0]

    plain, compiled = (tf.function(derivative, jit_compile=jit)() for jit in (False, True))
    assert abs(plain) > 1e-3
    np.testing.assert_allclose(compiled, plain, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in ("lion", "muon")])
def test_derivative_is_that_of_finite_differences(name):
    """d(task loss)/d(phi) through three steps; Lion's is zero, and Muon does not take float64."""
    x, y = make_tasks("float64")
    learner = Learner(lambda: build_learner("float64"), seed=0)
    loss_with_weight = ScaledSquare(dtype="float64")
    loop = InnerLoop(learner, loss_with_weight, OPTIMIZERS[name])
    start = loop.start(num_tasks=2)

    loss_with_weight.phi = phi = tf.Variable(0.7, dtype="float64")

    @tf.function
    def differentiate():
        score = lambda learners: tf.reduce_mean(tf.square(loop.predict(learners.parameters, x) - y))
        return loop.differentiate(start, lambda *_: (x, y), score, num_steps=3, variables=[phi])[:3:2]

    def task_loss(value):
        phi.assign(value)
        return differentiate()

    h = 1e-6
    difference = (task_loss(0.7 + h)[0] - task_loss(0.7 - h)[0]) / (2 * h)
    # Scale-free optimizers barely depend on phi; then rounding (1e-16 / h) is what is left of the difference.
    np.testing.assert_allclose(task_loss(0.7)[1][0], difference, rtol=1e-6, atol=1e-9)


def test_norms_are_those_of_one_task():
    variable = keras.Variable([0.0, 0.0])
    inner = InnerOptimizer(optimizers.SGD(1.0, clipnorm=1.0), [variable])
    gradients = [tf.constant([[3.0, 4.0], [0.3, 0.4]])]
    theta, _ = inner.step([tf.zeros((2, 2))], inner.initial_slots(2), gradients)
    np.testing.assert_allclose(theta[0], [[-0.6, -0.8], [-0.3, -0.4]], rtol=1e-6)


def test_the_given_optimizer_is_not_touched():
    optimizer = optimizers.Adam(0.1)
    inner = InnerOptimizer(optimizer, [keras.Variable([1.0])])
    inner.step([tf.ones((1, 1))], inner.initial_slots(1), [tf.ones((1, 1))])
    assert not optimizer.built


@pytest.mark.parametrize("name", ["adam", "nadam", "lamb", "adagrad"])
def test_a_gradient_of_zero_has_a_finite_slope(name):
    """A dead unit must not turn the meta-gradient into NaN."""
    phi = tf.constant([0.5, 0.0])
    inner = InnerOptimizer(OPTIMIZERS[name], [keras.Variable([1.0, 2.0])])
    with tf.GradientTape() as tape:
        tape.watch(phi)
        theta, slots = [tf.constant([[1.0, 2.0]])], inner.initial_slots(1)
        for _ in range(2):
            theta, slots = inner.step(theta, slots, [phi[tf.newaxis] * theta[0]])
        loss = tf.reduce_sum(theta[0] ** 2)
    assert np.all(np.isfinite(tape.gradient(loss, phi)))


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (
            optimizers.ScheduleFreeAdamW(),
            "ScheduleFreeAdamW cannot be an inner optimizer: its slot .* copy of the param",
        ),
        (optimizers.SGD(use_ema=True), "SGD cannot be an inner optimizer: use_ema=True"),
        (optimizers.SGD(gradient_accumulation_steps=2), "gradient_accumulation_steps=2"),
        (optimizers.Adam(loss_scale_factor=8.0), "loss_scale_factor=8.0"),
        (optimizers.LossScaleOptimizer(optimizers.SGD()), "LossScaleOptimizer cannot .* pass the optimizer it wraps"),
        (optimizers.Optimizer(0.1), "no `update_step`"),
        ("no such optimizer", "no such optimizer"),
        (keras.losses.MeanSquaredError(), "Keras optimizer or its name|Could not interpret"),
    ],
)
def test_refuses_by_name(optimizer, words):
    with pytest.raises(ValueError, match=words):
        InnerOptimizer(optimizer, [keras.Variable([1.0, 2.0])])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_slot_counts_steps(name):
    """It is the age of a learner."""
    inner = InnerOptimizer(OPTIMIZERS[name], build_learner().trainable_variables)
    assert inner.optimizer.variables[0] is inner.optimizer.iterations


# No gradient through the scale


def adam_by_hand(theta, gradients, stop):
    """Two steps of Adam in plain TensorFlow."""
    m = v = tf.zeros_like(theta)
    for step, gradient in enumerate(gradients, 1):
        m, v = m + 0.1 * (gradient - m), v + 0.001 * (gradient**2 - v)
        v = tf.stop_gradient(v) if stop else v
        theta -= 0.5 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step) * m / (tf.sqrt(v) + 1e-7)
    return theta


@pytest.mark.parametrize("stop", [False, True])
def test_the_scale_of_adam_may_be_a_constant_to_the_gradient(stop):
    """The step is the same, its derivative that with v held fixed."""
    weights = keras.Variable(np.zeros(3, "float32"))
    adam = optimizers.Adam(0.5)
    inner = InnerOptimizer(StopScaleGradient(adam) if stop else adam, [weights])
    values = tf.constant([[0.3, -2.0, 1e-3]])

    def take(step):
        with tf.GradientTape() as tape:
            tape.watch(values)
            end = step([values, tf.sin(values)])
        return end, tape.gradient(end, values)

    def inner_steps(gradients):
        theta, slots = [tf.zeros((1, 3))], inner.initial_slots(1)
        for gradient in gradients:
            theta, slots = inner.step(theta, slots, [gradient])
        return theta[0]

    expected = take(lambda gradients: adam_by_hand(tf.zeros((1, 3)), gradients, stop))
    for value, wanted in zip(take(inner_steps), expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-3)


@pytest.mark.parametrize("name", ["adam", "amsgrad", "adamw", "nadam", "rmsprop", "adagrad", "adamax", "adadelta"])
def test_every_scale_is_found(name):
    """With a constant gradient in the first step, what is left of its derivative flows through the numerator."""
    variables = build_learner().trainable_variables
    stopped = InnerOptimizer(StopScaleGradient(OPTIMIZERS[name]), variables)
    plain = InnerOptimizer(OPTIMIZERS[name], variables)
    assert stopped.signature != plain.signature
    gradients = [tf.random.stateless_normal((1, *v.shape), [0, 1]) for v in variables]
    theta = [tf.ones((1, *v.shape)) for v in variables]

    def slope(inner):
        with tf.GradientTape() as tape:
            tape.watch(gradients)
            end, slots = inner.step(theta, inner.initial_slots(1), gradients)
        return end, tape.gradient(end, gradients)

    (same, slopes), (end, others) = slope(stopped), slope(plain)
    tf.nest.map_structure(np.testing.assert_array_equal, same, end)
    assert not np.allclose(slopes[0], others[0], rtol=0.1)


def test_an_optimizer_without_a_scale_is_refused():
    with pytest.raises(ValueError, match="SGD has no scale to stop the gradient of. Expected an optimizer"):
        InnerOptimizer(StopScaleGradient("sgd"), build_learner().trainable_variables)
