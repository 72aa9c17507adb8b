"""A canary of `ml3_tf.keras_internals`: fails, naming the version of Keras, where a private name has changed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf import keras_internals

VERSION = f"Keras {keras.__version__} has changed what ml3_tf/keras_internals.py relies on"


def test_the_version_is_one_that_was_tried():
    assert keras.__version__.startswith("3.15."), f"{VERSION}: run all tests with it, then move the upper bound"


def test_a_mask_travels_with_its_tensor():
    masked = keras.layers.Masking()(np.array([[[1.0], [0.0]]], "float32"))
    assert keras_internals.get_mask(tf.zeros(3)) is None
    np.testing.assert_array_equal(keras_internals.get_mask(masked), [[True, False]], err_msg=VERSION)


def test_a_variable_built_without_values_knows_its_initializer():
    with keras.StatelessScope():
        layer = keras.layers.Dense(2, kernel_initializer="he_normal")
        layer.build((None, 3))
        initializer = keras_internals.get_initializer(layer.kernel)
    assert isinstance(initializer, keras.initializers.HeNormal), VERSION


def test_a_tensor_knows_who_made_it():
    inputs = keras.Input((3,))
    layer = keras.layers.Dense(2)
    operation, tensors = keras_internals.get_producer(layer(inputs))
    assert operation is layer and tensors == [inputs], VERSION
    assert keras_internals.get_producer(inputs)[1] == [], VERSION


def test_a_stateless_optimizer_moves_tensors_and_no_variable():
    optimizer = type("StatelessSGD", (keras.optimizers.SGD, keras_internals.StatelessOptimizer), {})(0.5)
    variable = keras.Variable([2.0])
    optimizer.build([variable])
    slots = [tf.convert_to_tensor(slot) for slot in optimizer.variables]
    [moved], _ = optimizer.stateless_apply(slots, [tf.constant([1.0])], [tf.constant([4.0])])
    assert (moved.numpy().tolist(), variable.numpy().tolist()) == ([3.5], [2.0]), VERSION


def test_a_missing_method_is_an_import_error_that_names_keras(monkeypatch):
    monkeypatch.setattr(keras_internals, "NEUTRAL_METHODS", ("apply", "no_such_method"))
    with pytest.raises(
        ImportError, match=f"Keras {keras.__version__}: no_such_method .*pip install 'keras>=3.15.1,<3.16'"
    ):
        keras_internals._find_neutral_optimizer()


def test_a_loss_knows_its_function_and_arguments():
    loss = keras.losses.Huber(delta=0.5)
    assert keras_internals.get_loss_function(loss) == (keras.losses.huber, {"delta": 0.5}), VERSION
    assert keras_internals.get_loss_function(keras.losses.huber) == (keras.losses.huber, {}), VERSION


def test_a_loss_computes_in_another_dtype():
    loss = keras_internals.with_compute_dtype(keras.losses.MeanSquaredError(), "float64")
    value = loss(np.array([[1 / 3]]), np.array([[0.0]]))
    assert loss.dtype == "float64" and value.dtype == "float64", VERSION
    assert float(value) == (1 / 3) ** 2, VERSION


@pytest.mark.parametrize("is_there", [True, False])
def test_the_global_seeds_go_on_where_they_were(is_there):
    from keras.src.backend.common import global_state

    if is_there:
        keras.utils.set_random_seed(0)
        keras.random.normal(())
    else:
        global_state.set_global_attribute("global_seed_generator", None)
    before = global_state.get_global_attribute("global_seed_generator")
    state = None if before is None else np.asarray(before.state).copy()
    with keras_internals.same_global_seeds():
        keras.random.normal(())
        assert global_state.get_global_attribute("global_seed_generator") is not None, VERSION
    assert global_state.get_global_attribute("global_seed_generator") is before, VERSION
    if is_there:
        np.testing.assert_array_equal(before.state, state, err_msg=VERSION)
