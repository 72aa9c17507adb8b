"""Losses that start as a loss of Keras, to the last bit."""

import keras
import numpy as np
import pytest

import ml3_tf
from ml3_tf.meta_loss._base import BASES, get_base

CLASSES = {"p": 3, "t": 3}
LOSSES = {
    "mse": "mse",
    "mae": keras.losses.MeanAbsoluteError(),
    "huber": keras.losses.Huber(delta=0.5),  # Keras's own configuration forgets delta
    "log_cosh": keras.losses.log_cosh,
    "binary": "binary_crossentropy",
    "binary logits": keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1),
    "categorical": "categorical_crossentropy",
    "categorical logits": keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2),
}
GENERATOR = np.random.default_rng(0)
Y_PRED = GENERATOR.dirichlet([1.0] * 3, 5).astype("float32")
Y_TRUE = np.eye(3, dtype="float32")[[0, 1, 2, 1, 0]]


def of_keras(base):
    loss = keras.losses.get(base)
    return (loss.call if isinstance(loss, keras.losses.Loss) else loss)(
        keras.ops.convert_to_tensor(Y_TRUE), keras.ops.convert_to_tensor(Y_PRED)
    )


def around(name, **arguments):
    return ml3_tf.MetaLoss.around(LOSSES[name], features=CLASSES, **arguments)


def bend(meta_loss):
    """Gives the last layer weights, so that the network counts."""
    last = (meta_loss.score_network or meta_loss.network).layers[-1].kernel
    last.assign(np.random.default_rng(1).normal(size=last.shape) / 3)
    return meta_loss


def assert_equal_losses(loss, other, y_true=Y_TRUE, y_pred=Y_PRED):
    for ours, theirs in zip(loss.value_and_gradient(y_true, y_pred), other.value_and_gradient(y_true, y_pred)):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_around_a_base_is_the_base_at_first(name):
    np.testing.assert_array_equal(around(name).call(Y_TRUE, Y_PRED), of_keras(LOSSES[name]))


@pytest.mark.parametrize("name", [name for name in LOSSES if "categorical" not in name])
def test_a_per_output_loss_is_the_base_at_first(name):
    loss = ml3_tf.MetaLoss.around(LOSSES[name], mode="per_output")
    np.testing.assert_allclose(loss.call(Y_TRUE, Y_PRED), of_keras(LOSSES[name]), rtol=1e-6)


def test_a_set_has_the_base_of_each_example_and_the_score_of_all():
    loss = around("mse", mode="per_set")
    np.testing.assert_array_equal(loss.call(Y_TRUE, Y_PRED), of_keras("mse"))
    added = bend(loss).call(Y_TRUE, Y_PRED) - of_keras("mse")
    np.testing.assert_allclose(added, np.full(5, added[0]), rtol=1e-5)
    assert abs(added[0]) > 1e-3


def test_the_base_sees_the_target_and_the_network_the_rest_too():
    loss = ml3_tf.MetaLoss.around("mse", features={"p": 3, "t": 3, "hint": 2})
    y_true = np.concatenate([Y_TRUE, np.ones((5, 2), "float32")], axis=1)
    np.testing.assert_array_equal(loss.call(y_true, Y_PRED), of_keras("mse"))
    other = np.concatenate([Y_TRUE, np.zeros((5, 2), "float32")], axis=1)
    assert not np.allclose(bend(loss).call(y_true, Y_PRED), loss.call(other, Y_PRED))


def test_the_rate_multiplies_base_and_network():
    loss = around("mse", learning_rate=0.5)
    np.testing.assert_allclose(loss.call(Y_TRUE, Y_PRED), of_keras("mse") / 2, rtol=1e-6)


@pytest.mark.parametrize("mode", ["per_sample", "per_set"])
@pytest.mark.parametrize("name", LOSSES)
def test_it_is_exported_and_copied_with_its_base(name, mode, tmp_path):
    loss = bend(around(name, mode=mode, learning_rate=0.5))
    loaded = ml3_tf.load_meta_loss(loss.export(tmp_path))
    assert_equal_losses(loaded, loss)
    assert loaded.base == loss.base
    copy = ml3_tf.MetaLoss.from_config(loss.get_config())
    assert copy.base == loss.base


def test_meta_training_moves_it_from_the_base():
    loss = ml3_tf.MetaLoss.around("mse")
    build = lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    trainer = ml3_tf.MetaTrainer(build, loss, inner_steps=2, seed=0)
    trainer.compile(keras.optimizers.Adam(1e-2), inner_optimizer=keras.optimizers.SGD(0.01), run_eagerly=True)
    trainer.fit(ml3_tf.sine_tasks(2, seed=0), steps_per_epoch=1, verbose=0)
    assert np.all(loss.network.layers[-1].kernel.numpy() != 0)


def test_a_base_is_a_loss_of_keras():
    assert {get_base(name).name for name in BASES} == {*BASES}
    assert get_base(get_base("huber").get_config()) == get_base("huber")
    for wrong in ("poisson", lambda y_true, y_pred: 0.0, keras.losses.BinaryCrossentropy(axis=1)):
        with pytest.raises(ValueError, match="`base` must be one of .'mean_squared_error'"):
            get_base(wrong)


def test_a_configuration_names_a_base_and_its_arguments():
    """A `.keras` file holds such configurations: it must not name other functions of Keras."""
    for wrong in ({"name": "deserialize"}, {}, {"name": "huber"}, {"name": "huber", "delta": 1.0, "axis": 0}):
        with pytest.raises(ValueError, match="A base is one of "):
            get_base(wrong)


def test_a_base_must_fit_the_features():
    with pytest.raises(ValueError, match="expected two first `features` of one width"):
        ml3_tf.MetaLoss.around("mse", features={"p": 3, "t": 2})
    with pytest.raises(ValueError, match="base='binary_crossentropy'"):
        ml3_tf.MetaLoss.around("categorical_crossentropy", mode="per_output")
    with pytest.raises(ValueError, match="needs a hidden layer"):
        ml3_tf.MetaLoss.around("mse", ())
