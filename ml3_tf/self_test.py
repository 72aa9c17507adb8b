"""The self-test of an artefact: a few inputs with values and gradients, which a rebuilt loss must reproduce."""

import keras
import numpy as np
from keras import ops

from ml3_tf import tensors
from ml3_tf.errors import CorruptArtefactError
from ml3_tf.meta_loss import PER_OUTPUT

NUM_EXAMPLES = 4
NUM_OUTPUTS = 3  # of a per-output loss, which takes any number
# Largest difference, as a part of the largest expected magnitude, by the coarsest dtype of the computation. It is to
# find another function, not another rounding: a GPU multiplies float32 matrices with three digits.
TOLERANCES = {"float64": 1e-9, "float32": 1e-2, "float16": 1e-1, "bfloat16": 1e-1}


def record(meta_loss):
    """Returns the self-test of a loss as bytes.

    Raises:
        ValueError: The loss or its gradient is not finite at the inputs.
    """
    true_width, pred_width = _widths(meta_loss)
    scale = meta_loss.input_scale or [1.0] * (true_width + pred_width)
    inputs = np.random.default_rng(0).normal(size=(NUM_EXAMPLES, true_width + pred_width))
    if meta_loss.mode != PER_OUTPUT:
        inputs = inputs * scale
    arrays = {"y_pred": inputs[:, :pred_width], "y_true": inputs[:, pred_width:]}
    arrays["loss"], arrays["grad"] = value_and_gradient(meta_loss, arrays["y_true"], arrays["y_pred"])
    for name, array in arrays.items():
        if not np.all(np.isfinite(array)):
            raise ValueError(f"A loss is exported with a self-test, and its '{name}' is not finite: {array.tolist()}.")
    return tensors.to_bytes(arrays)


def check(meta_loss, data, source):
    """Raises `CorruptArtefactError` unless `meta_loss` has the values and gradients that are recorded in `data`."""
    true_width, pred_width = _widths(meta_loss)
    shapes = {
        "y_true": (NUM_EXAMPLES, true_width),
        "y_pred": (NUM_EXAMPLES, pred_width),
        "loss": (NUM_EXAMPLES,),
        "grad": (NUM_EXAMPLES, pred_width),
    }
    expected = tensors.from_bytes(data, shapes, source)
    results = value_and_gradient(meta_loss, expected["y_true"], expected["y_pred"])
    tolerance = _tolerance(meta_loss, results[0])
    for name, received in zip(("loss", "grad"), results, strict=True):
        if received is None:  # this backend has no gradients
            continue
        difference = np.max(np.abs(received - expected[name]))
        if not difference <= tolerance * np.max(np.abs(expected[name])):  # NaN is a failure too
            raise CorruptArtefactError(
                f"'{source}': the rebuilt loss does not reproduce '{name}' of the self-test. Expected "
                f"{expected[name].tolist()} up to {tolerance} of the largest. Received: {received.tolist()}"
            )


def value_and_gradient(meta_loss, y_true, y_pred):
    """Returns the loss of each example and its derivative with respect to `y_pred`, as NumPy arrays.

    It differentiates with the running Keras backend; the gradient is `None` where that has none.
    """
    y_true = ops.convert_to_tensor(y_true, dtype=meta_loss.dtype)
    y_pred = ops.convert_to_tensor(y_pred, dtype=meta_loss.dtype)
    compute = {"tensorflow": _with_tensorflow, "jax": _with_jax, "torch": _with_torch}.get(keras.backend.backend())
    if compute is None:
        return _to_numpy(meta_loss.call(y_true, y_pred)), None
    loss, gradient = compute(lambda values: meta_loss.call(y_true, values), y_pred)
    return _to_numpy(loss), _to_numpy(gradient)


def _with_tensorflow(function, inputs):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(inputs)
        values = function(inputs)
    return values, tape.gradient(values, inputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def _with_jax(function, inputs):
    import jax

    @jax.jit  # compiled at once: a compilation for each operation takes seconds
    def compute(inputs):
        values, pull_back = jax.vjp(function, inputs)
        return values, pull_back(jax.numpy.ones_like(values))[0]

    return compute(inputs)


def _with_torch(function, inputs):
    import torch

    with torch.enable_grad():
        inputs = inputs.detach().requires_grad_(True)
        values = function(inputs)
        (gradient,) = torch.autograd.grad(values.sum(), inputs, allow_unused=True)
    return values, torch.zeros_like(inputs) if gradient is None else gradient


def _to_numpy(values):
    array = ops.convert_to_numpy(values)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _widths(meta_loss):
    if meta_loss.mode == PER_OUTPUT:
        return NUM_OUTPUTS, NUM_OUTPUTS
    pred_width, *true_widths = meta_loss.features.values()
    return sum(true_widths), pred_width


def _tolerance(meta_loss, values):
    # `values.dtype` counts too: JAX computes in float32 unless float64 is enabled.
    layers = [layer.compute_dtype for layer in meta_loss.network.layers]
    return max(TOLERANCES[dtype] for dtype in [meta_loss.dtype, str(values.dtype), *layers])
