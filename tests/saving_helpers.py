"""Helpers of the tests of `ml3_tf.saving`: kinds of losses, a small model to train, SavedModels of plain functions."""

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

# Feature names are not in alphabetical order, so that sorting would show.
KINDS = {
    "three_features": {"features": {"y_pred": 2, "state": 3, "goal": 1}},
    "per_output": {"mode": "per_output"},
    "per_output_of_three": {"mode": "per_output", "features": {"y_pred": 1, "way": 1, "speed": 1}},
    "scaled": {"input_scale": [2.0, 0.5]},
    "scalar_rate": {"learning_rate": 0.1},
    "network_rate": {"learning_rate": "network"},
    "float64": {"dtype": "float64"},
    "per_set": {"mode": "per_set", "score_units": (4,), "learning_rate": 0.1},
}
X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)
INPUTS = {name: tf.TensorSpec((None, 1), tf.float32, name=name) for name in ("y_true", "y_pred")}


def build_regressor(width, hidden_units, dtype=None):
    def dense(units, seed, activation=None):
        initializer = keras.initializers.GlorotUniform(seed)
        return keras.layers.Dense(units, activation, kernel_initializer=initializer, dtype=dtype)

    return keras.Sequential([keras.Input((width,)), dense(hidden_units, 1, "tanh"), dense(1, 2)])


def train(loss, *, sample_weight=None, dtype=None, callbacks=None, **kwargs):
    """Returns the weights of a regressor after an epoch of ten batches of `fit`."""
    model = build_regressor(3, 4, dtype)
    model.compile(keras.optimizers.Adam(0.01), loss, **kwargs)
    model.fit(X, Y, sample_weight=sample_weight, batch_size=4, shuffle=False, verbose=0, callbacks=callbacks)
    return model.get_weights()


def draw_examples(loss, size):
    """Returns random `y_true` and `y_pred` that fit the features of `loss`."""
    num_outputs = 3 if loss.mode == "per_output" else 1
    pred_width, *true_widths = [num_outputs * width for width in loss.features.values()]
    values = np.random.default_rng(1).normal(size=(size, sum(true_widths) + pred_width)).astype(loss.dtype)
    return tf.constant(values[:, pred_width:]), tf.constant(values[:, :pred_width])


def assert_equal(received, expected):
    """Compares arrays to the last bit."""
    for a, b in zip(received, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def list_files(folder):
    """Returns the relative paths of all files and folders below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def save(function, folder, **attributes):
    """Saves a module whose only endpoint is `function(y_true, y_pred)`; returns the folder."""
    module = tf.Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    module.score = tf.function(function, input_signature=list(INPUTS.values()))
    tf.saved_model.save(module, folder, signatures={"serving_default": module.score})
    return folder


def parse(folder):
    """Returns the `SavedModel` message in a folder."""
    return saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())


def squared_error(y_true, y_pred):
    return tf.reduce_mean((y_true - y_pred) ** 2, axis=-1)


def reads_a_file(y_true, y_pred):
    return squared_error(y_true, y_pred) + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)
