"""Every mode of a loss in every form that it is used in: the same values and gradients as the live loss.

| form | made by |
|---|---|
| `.keras` | `model.compile(loss=loss)`, `model.save`, `keras.models.load_model` |
| SavedModel | `loss.export`, `tf.saved_model.load`, signature `value_and_grad` |
| loaded | `loss.export`, `ml3_tf.load_meta_loss` |
| function | `loss.call` inside `tf.function` |
| XLA | the same, compiled |
| mixed precision | `fit` of a `mixed_float16` model |

JAX and PyTorch: `test_backends.py`, with the same modes.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf import LossInputs, MetaLoss, load_meta_loss

MODES = {
    "per_sample": {"features": LossInputs(None, {"y_pred": 2, "y_true": 2}, [2.0, 1.0, 1.0, 0.5])},
    "per_output": {"mode": "per_output", "learning_rate": 0.1},
    "per_output_of_three": {"mode": "per_output", "features": {"y_pred": 1, "way": 1, "speed": 1}},
    "per_set": {"mode": "per_set", "score_units": (4,), "features": {"y_pred": 2, "y_true": 2}},
    "network_rate": {"features": {"y_pred": 2, "y_true": 2}, "learning_rate": "network"},
}
Y_TRUE, Y_PRED, SPEED = np.random.default_rng(0).normal(size=(3, 6, 2)).astype("float32")


@pytest.fixture(scope="module", params=MODES)
def loss(request):
    keras.utils.set_random_seed(0)
    return MetaLoss.mlp((5,), **MODES[request.param])


def targets(loss):
    """What the loss reads beside the prediction."""
    return Y_TRUE if len(loss.features) == 2 else np.concatenate([Y_TRUE, SPEED], axis=-1)


def live(loss):
    return loss.value_and_gradient(targets(loss), Y_PRED)


def in_a_graph(loss, jit_compile):
    @tf.function(jit_compile=jit_compile)
    def evaluate(y_true, y_pred):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = loss.call(y_true, y_pred)
        return value, tape.gradient(value, y_pred)

    return evaluate(tf.constant(targets(loss)), tf.constant(Y_PRED))


def saved_with_a_model(loss, folder):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", loss)
    model.save(folder / "model.keras")
    return live(keras.models.load_model(folder / "model.keras").loss)


def loaded(loss, folder):
    return live(load_meta_loss(loss.export(folder / "loss")))


def saved_model(loss, folder):
    reloaded = tf.saved_model.load(str(loss.export(folder / "loss")))
    outputs = reloaded.signatures["value_and_grad"](y_true=tf.constant(targets(loss)), y_pred=tf.constant(Y_PRED))
    return outputs["loss"], outputs["grad"]


FORMS = {
    ".keras": saved_with_a_model,
    "SavedModel": saved_model,
    "loaded": loaded,
    "function": lambda loss, folder: in_a_graph(loss, jit_compile=False),
    "XLA": lambda loss, folder: in_a_graph(loss, jit_compile=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_are_those_of_the_live_loss(loss, form, tmp_path):
    for received, expected in zip(FORMS[form](loss, tmp_path), live(loss), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


def test_a_mixed_precision_model_trains_as_one_in_float32(loss):
    """The loss is evaluated in float32; the model's own half precision is all that differs."""
    x = np.random.default_rng(1).normal(size=(6, 3)).astype("float32")
    moves = []
    for policy in ("float32", "mixed_float16"):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="ones", dtype=policy)])
        before = model.get_weights()[0]
        model.compile(keras.optimizers.SGD(0.5), loss)
        model.fit(x, targets(loss), batch_size=6, epochs=1, verbose=0)
        moves.append(model.get_weights()[0] - before)
    assert np.linalg.norm(moves[0]) > 0
    assert np.linalg.norm(moves[1] - moves[0]) < 0.05 * np.linalg.norm(moves[0])
