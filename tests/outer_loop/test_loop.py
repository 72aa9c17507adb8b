"""Tests of `ml3_tf.outer_loop`: a meta-gradient that is missing, not finite or huge."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf import MetaLoss, MetaTrainer, sine_tasks

layers, optimizers = keras.layers, keras.optimizers


def build_learner():
    return keras.Sequential([keras.Input((1,)), layers.Dense(8, activation="tanh"), layers.Dense(1)])


def make_trainer(meta_loss=None, **arguments):
    keras.utils.set_random_seed(0)
    trainer = MetaTrainer(build_learner, meta_loss or MetaLoss.mlp((10,)), seed=0)
    defaults = {"optimizer": optimizers.Adam(0.01), "loss": "mse", "inner_optimizer": optimizers.SGD(0.1)}
    trainer.compile(**{**defaults, "jit_compile": False, **arguments})
    return trainer


def make_tasks(num_batches, **arguments):
    return sine_tasks(**{"num_tasks": 2, "num_support": 10, "num_query": 10, "seed": 1, **arguments}).take(num_batches)


def phi_of(trainer):
    return np.concatenate([variable.numpy().ravel() for variable in trainer.meta_loss.trainable_variables])


@keras.saving.register_keras_serializable("ml3_tf_tests")
class Detached(layers.Layer):
    def call(self, inputs):
        return keras.ops.stop_gradient(inputs)


def test_a_missing_meta_gradient_is_an_error():
    """The loss moves the learner, but no weight of the loss has a say in how."""
    inputs = keras.Input((2,))
    constant = Detached()(layers.Dense(1)(inputs))
    network = keras.Model(inputs, layers.Add()([constant, inputs[:, :1]]))
    with pytest.raises(ValueError, match="There is no meta-gradient.*gradient for y_pred depends on its weights"):
        make_trainer(MetaLoss(network)).fit(make_tasks(1), verbose=0)


def test_an_output_bias_is_only_warned_about():
    network = keras.Sequential([keras.Input((2,)), layers.Dense(5, activation="tanh"), layers.Dense(1, name="out")])
    with pytest.warns(UserWarning, match="The meta-gradient of .*out/bias is missing.*use_bias=False"):
        make_trainer(MetaLoss(network)).fit(make_tasks(1), verbose=0)


@pytest.mark.parametrize("steps_per_execution", [1, 2])
def test_a_non_finite_meta_gradient_is_an_error_and_never_applied(steps_per_execution):
    trainer = make_trainer(steps_per_execution=steps_per_execution)
    before = phi_of(trainer)
    data = next(iter(make_tasks(1)))
    x, y = data["query"]
    poisoned = {**data, "query": (x, y * np.nan)}
    with pytest.raises(FloatingPointError, match=r"kernel.* is not finite .* last finite weights.* lower the inner"):
        trainer.fit(tf.data.Dataset.from_tensors(poisoned).repeat(2), verbose=0)
    np.testing.assert_array_equal(phi_of(trainer), before)
    trainer.fit(make_tasks(2), verbose=0)  # it goes on from there
    assert np.isfinite(phi_of(trainer)).all()


def test_a_gradient_too_large_to_clip_is_not_applied():
    """Its squared norm overflows float32, and clipping divides by it."""
    trainer = make_trainer(optimizer=optimizers.SGD(1.0, global_clipnorm=1.0))
    data = next(iter(make_tasks(1)))
    x, y = data["query"]
    with pytest.raises(FloatingPointError):
        trainer.fit(tf.data.Dataset.from_tensors({**data, "query": (x, y * 1e22)}), verbose=0)
    assert np.isfinite(phi_of(trainer)).all()
