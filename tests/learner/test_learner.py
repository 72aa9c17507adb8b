"""Tests of `ml3_tf.learner`: fresh parameters and what keeps its values, state, and ways to apply them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.learner import Learner

layers = keras.layers


def dense(**arguments):
    return lambda: keras.Sequential([keras.Input((30,)), layers.Dense(20, **arguments)])


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


def test_a_model_is_left_alone():
    model = with_state()
    before = model.get_weights()
    learner = Learner(model)
    learner.apply(learner.draw(2), tf.ones((2, 4, 3)), training=True)
    tf.nest.map_structure(np.testing.assert_array_equal, model.get_weights(), before)


def with_state():
    """A pretrained model: frozen, adapted and trained weights, and seeds."""
    adapted = layers.Normalization()
    adapted.adapt(np.random.default_rng(0).normal(5.0, 2.0, (50, 3)))
    frozen, moving = layers.Dense(4, trainable=False), layers.BatchNormalization()
    stack = [keras.Input((3,)), adapted, frozen, moving, layers.Dropout(0.5, seed=1), layers.Dense(1)]
    model = keras.Sequential(stack)
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 3)), np.ones((8, 1)), epochs=2, verbose=0)
    return model


def test_only_what_training_moves_is_drawn():
    """Frozen and adapted weights keep the values of the model; moving statistics and seeds start fresh."""
    model = with_state()
    parameters = Learner(model, seed=0).draw(2)
    values = dict(zip([v.path for v in model.non_trainable_variables], parameters.non_trainable, strict=True))
    given = {v.path: v.numpy() for v in model.non_trainable_variables}
    drawn = {path for path in given if not np.array_equal(values[path], np.stack([given[path]] * 2))}
    assert {path.rsplit("/", 1)[-1] for path in drawn} == {"moving_mean", "moving_variance", "seed_generator_state"}
    [mean] = [value for path, value in values.items() if path.endswith("moving_mean")]
    np.testing.assert_array_equal(mean, np.zeros((2, 4)))
    [seeds] = [value for path, value in values.items() if path.endswith("seed_generator_state")]
    assert seeds[0][0] != seeds[1][0]
    x = np.random.default_rng(0).normal(5.0, 2.0, (2, 7, 3)).astype("float32")
    copied = Learner(model).copies(model, 2)
    np.testing.assert_allclose(
        Learner(model).predict(copied, x), [model.predict(rows, verbose=0) for rows in x], rtol=1e-5, atol=1e-6
    )


def test_a_frozen_layer_of_a_built_model_is_shared_by_all_tasks():
    learner = Learner(lambda: keras.Sequential([keras.Input((3,)), layers.Dense(4, trainable=False), layers.Dense(1)]))
    for _ in range(2):
        kernel = learner.draw(2).non_trainable[0]
        np.testing.assert_array_equal(kernel, np.stack([learner.model.get_weights()[0]] * 2))


def test_copies_are_the_values_of_the_model():
    model = dense()()
    kernels = Learner(model).copies(model, 3).trainable[0]
    np.testing.assert_array_equal(kernels, np.stack([model.get_weights()[0]] * 3))


def test_copies_may_have_fresh_seeds():
    model = with_state()
    learner = Learner(model, seed=0)
    seeds = [v.path.endswith("seed_generator_state") for v in model.non_trainable_variables].index(True)
    kept, fresh = (learner.copies(model, 2, fresh_seeds=fresh).non_trainable[seeds] for fresh in (False, True))
    np.testing.assert_array_equal(kept[0], kept[1])
    assert fresh[0][0] != fresh[1][0]


def test_copies_of_another_architecture_are_refused():
    with pytest.raises(ValueError, match=r"of their architecture alone.* shapes \[\(30, 20\), \(20,\)\]. Received"):
        Learner(dense()).copies(keras.Sequential([keras.Input((30,)), layers.Dense(3)]), 2)


def test_a_model_is_built_from_parameters():
    learner = Learner(dense(), seed=0)
    parameters = learner.draw(2)
    model = learner.build_model(parameters)
    assert model is not learner.model
    np.testing.assert_array_equal(model.get_weights()[0], parameters.trainable[0][0])


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
    assert not learner.build_model(learner.draw(1)).compiled
    assert model.compiled and model.loss == "mse"
    model.fit(np.ones((2, 30)), np.ones((2, 20)), verbose=0)


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="Set the environment variable KERAS_BACKEND=tensorflow .* backend 'jax'"):
        Learner(dense)


def test_a_forward_pass_that_overwrites_what_is_trained_is_refused():
    """A step would not be the one that Keras takes."""
    spectral = layers.SpectralNormalization(layers.Dense(3))
    learner = Learner(keras.Sequential([keras.Input((4,)), spectral, layers.Dense(1)]))
    with pytest.raises(ValueError, match="its forward pass overwrites .*kernel.*`SpectralNormalization` does so"):
        learner.apply(learner.draw(2), tf.zeros((2, 5, 4)), training=True)


def test_a_model_whose_call_does_not_take_training():
    class Plain(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x):
            return self.dense(x)

    def build():
        model = Plain()
        model(np.zeros((1, 3), "float32"))
        return model

    learner = Learner(build, seed=0)
    x = np.ones((2, 4, 3), "float32")
    assert tuple(learner.predict(learner.draw(2), x).shape) == (2, 4, 1)
