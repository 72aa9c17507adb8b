"""The self-test of an artifact: a few inputs with values and gradients, which a rebuilt loss must reproduce.

It must detect another function, not another rounding. The effect of rounding is unbounded: where a loss adds numbers
that nearly cancel, half precision may keep no digit of the sum. So the self-test is recorded in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ml3_tf.feature_layout import PER_OUTPUT
from ml3_tf.saving import _numpy_reference, _safetensors
from ml3_tf.saving.errors import CorruptArtifactError

if TYPE_CHECKING:
    from ml3_tf.meta_loss import MetaLoss

NUM_EXAMPLES = 4
NUM_OUTPUTS = 3  # for a per-output loss, which accepts any number
# Largest difference relative to the largest expected magnitude, by the dtype of the record. TensorFlow keeps some
# constants of activations in float32. The first artifacts of this format were recorded in float32 throughout.
TOLERANCES = {np.dtype("float64"): 1e-5, np.dtype("float32"): 1e-2}
ROUNDING = np.finfo(np.float64).eps  # the error of a difference of two numbers of order one


def record(meta_loss: MetaLoss, in_float64: MetaLoss, description: dict[str, Any]) -> bytes:
    """Returns the self-test of a loss as bytes.

    Args:
        meta_loss: The loss, which must be finite at the inputs in its own dtype.
        in_float64: The same loss in float64, whose values are recorded.
        description: The description of the loss, see `ml3_tf.saving._bundle`.

    Raises:
        ValueError: The loss or its gradient is not finite at the inputs.
    """
    inputs = _draw(description, seed=0)
    _evaluate(meta_loss, inputs)
    return _safetensors.to_bytes({**inputs, **_evaluate(in_float64, inputs)})


def check(description: dict[str, Any], weights: Mapping[str, np.ndarray], data: bytes, source: str) -> None:
    """Raises `CorruptArtifactError` unless a described loss has the values and gradients recorded in `data`.

    `ml3_tf.saving._numpy_reference` computes them, since the first operations of a TensorFlow or JAX process take
    longer than all the rest of loading. The gradient of the sum of all losses is compared along one random direction.
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
    # Where a loss saturates, TensorFlow gives the slope 0, and the reference a number below the rounding of the loss.
    slope_magnitude = max(np.max(np.abs(terms)), 1e-4 * magnitude)
    tolerance = TOLERANCES[recorded["loss"].dtype]
    _compare("loss", recorded["loss"], loss, tolerance * magnitude, source)
    _compare("grad", np.sum(terms), np.sum(slopes), tolerance * slope_magnitude, source)


def _evaluate(loss: MetaLoss, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The value and gradient of a loss, which must be finite."""
    value, gradient = loss.value_and_gradient(**inputs)
    results = {"loss": value, "grad": gradient}
    for name, array in results.items():
        if not np.all(np.isfinite(array)):
            raise ValueError(
                f"The loss cannot be exported: its '{name}' must be finite at the inputs of the self-test. "
                f"Received: {array.tolist()}"
            )
    return results


def _compare(name: str, expected: Any, received: Any, tolerance: float, source: str) -> None:
    tolerance = max(tolerance, ROUNDING)
    if not np.max(np.abs(received - expected)) <= tolerance:  # NaN is a failure too
        raise CorruptArtifactError(
            f"'{source}': the rebuilt loss does not reproduce '{name}' of the self-test. Expected "
            f"{expected.tolist()} up to {tolerance:.3g}. Received: {received.tolist()}"
        )


def _widths(description: dict[str, Any]) -> tuple[int, int]:
    if description["mode"] == PER_OUTPUT:
        return max(len(description["features"]) - 1, 1) * NUM_OUTPUTS, NUM_OUTPUTS
    pred_width, *true_widths = [feature["width"] for feature in description["features"]]
    return sum(true_widths) or 1, pred_width  # a label-free loss reads none


def _draw(description: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Random inputs with the scale of the loss as their standard deviation."""
    true_width, pred_width = _widths(description)
    inputs = np.random.default_rng(seed).normal(size=(NUM_EXAMPLES, pred_width + true_width))
    if description["mode"] != PER_OUTPUT and description["input_scale"] is not None:
        scale = np.array(description["input_scale"])
        inputs[:, : len(scale)] *= scale
    return {"y_pred": inputs[:, :pred_width], "y_true": inputs[:, pred_width:]}
