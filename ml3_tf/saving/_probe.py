"""The self-test of an artifact: a few inputs with values and gradients, which a rebuilt loss must reproduce.

It is to find another function, not another rounding. How much rounding changes a value is unbounded: where a loss adds
numbers that nearly cancel, half precision may keep no digit of the sum. So the self-test is recorded in float64.
"""

import numpy as np
from keras import ops

from ml3_tf.feature_layout import PER_OUTPUT
from ml3_tf.saving.errors import CorruptArtifactError
from ml3_tf.saving import _numpy_reference, _safetensors

NUM_EXAMPLES = 4
NUM_OUTPUTS = 3  # of a per-output loss, which takes any number
# Largest difference, as a part of the largest expected magnitude, by the dtype of the record. TensorFlow keeps some
# constants of activations in float32; the first artifacts of this format were recorded in float32 altogether.
TOLERANCES = {np.dtype("float64"): 1e-5, np.dtype("float32"): 1e-2}
ROUNDING = np.finfo(np.float64).eps  # of numbers of order one, which a loss may subtract from each other


def record(meta_loss, in_float64, description):
    """Returns the self-test of a loss as bytes.

    Args:
        meta_loss: The loss, which must be finite at the inputs in its own dtype.
        in_float64: The same loss in float64, which computes what is recorded.
        description: The description of the loss, see `ml3_tf.saving._bundle`.

    Raises:
        ValueError: The loss or its gradient is not finite at the inputs.
    """
    inputs = _draw(description, seed=0)
    for loss in (meta_loss, in_float64):
        results = dict(zip(("loss", "grad"), value_and_gradient(loss, **inputs), strict=True))
        for name, array in results.items():
            if not np.all(np.isfinite(array)):
                raise ValueError(
                    f"A loss is exported with a self-test, and its '{name}' is not finite: {array.tolist()}."
                )
    return _safetensors.to_bytes({**inputs, **results})


def check(description, weights, data, source):
    """Raises `CorruptArtifactError` unless a described loss has the values and gradients recorded in `data`.

    It is computed in NumPy, see `ml3_tf.saving._numpy_reference`: the first operations of a TensorFlow or JAX process take longer
    than all the rest of loading. The gradient of the sum of all losses is compared along one random direction.
    """
    true_width, pred_width = _widths(description)
    shapes = {
        "y_true": (NUM_EXAMPLES, true_width),
        "y_pred": (NUM_EXAMPLES, pred_width),
        "loss": (NUM_EXAMPLES,),
        "grad": (NUM_EXAMPLES, pred_width),
    }
    recorded = _safetensors.from_bytes(data, shapes, source)
    direction = _draw(description, seed=1)["y_pred"]
    loss, slopes = _numpy_reference.value_and_derivative(
        description, weights, recorded["y_true"], recorded["y_pred"], direction
    )
    terms = recorded["grad"].astype(np.float64) * direction
    magnitude = np.max(np.abs(recorded["loss"]))
    # Where a loss saturates, TensorFlow has the slope 0 and the reference something below a rounding of the loss.
    slope_magnitude = max(np.max(np.abs(terms)), 1e-4 * magnitude)
    tolerance = TOLERANCES[recorded["loss"].dtype]
    _compare("loss", recorded["loss"], loss, tolerance * magnitude, source)
    _compare("grad", np.sum(terms), np.sum(slopes), tolerance * slope_magnitude, source)


def _compare(name, expected, received, tolerance, source):
    tolerance = max(tolerance, ROUNDING)
    if not np.max(np.abs(received - expected)) <= tolerance:  # NaN is a failure too
        raise CorruptArtifactError(
            f"'{source}': the rebuilt loss does not reproduce '{name}' of the self-test. Expected "
            f"{expected.tolist()} up to {tolerance:.3g}. Received: {received.tolist()}"
        )


def value_and_gradient(meta_loss, y_true, y_pred):
    """Returns the loss of each example and its derivative with respect to `y_pred`, as NumPy arrays."""
    import tensorflow as tf

    y_pred = tf.convert_to_tensor(y_pred, dtype=meta_loss.dtype)
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        loss = meta_loss.call(tf.convert_to_tensor(y_true, dtype=meta_loss.dtype), y_pred)
    gradient = tape.gradient(loss, y_pred, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return ops.convert_to_numpy(loss), ops.convert_to_numpy(gradient)


def _widths(description):
    if description["mode"] == PER_OUTPUT:
        return NUM_OUTPUTS, NUM_OUTPUTS
    pred_width, *true_widths = [feature["width"] for feature in description["features"]]
    return sum(true_widths), pred_width


def _draw(description, seed):
    """Random inputs of the spread that the loss divides by."""
    true_width, pred_width = _widths(description)
    inputs = np.random.default_rng(seed).normal(size=(NUM_EXAMPLES, pred_width + true_width))
    if description["mode"] != PER_OUTPUT and description["input_scale"] is not None:
        inputs = inputs * description["input_scale"]
    return {"y_pred": inputs[:, :pred_width], "y_true": inputs[:, pred_width:]}
