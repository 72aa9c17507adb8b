"""The figure of a loss that was learned while a model trained with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from ml3_tf.inspection.closed_form import FixedFeatures, check_range, evaluate_on_plane
from ml3_tf.inspection.notebook_figure import NotebookFigure
from ml3_tf.inspection.style import style_axes
from ml3_tf.inspection.task_kinds import CLASSIFICATION, RANGES, kind_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml3_tf.outer_loop import AdaptLoss

GRID_SIZE = 201
NUM_CURVES = 6
SHADES = 0.25, 0.95  # of blue, from the first to the last


def plot_adaptation(
    callback: AdaptLoss,
    *,
    y_range: Sequence[float] | None = None,
    target: float | None = None,
    fixed: FixedFeatures | None = None,
) -> Figure:
    """Draws how `AdaptLoss` has moved a loss: the task loss on `meta` by epoch, and the gradient of the loss at a few.

    The darker a line, the later. A gradient that is flat where errors are large is one that outliers do not pull.

    Args:
        callback: An `AdaptLoss` after `fit`.
        y_range: Pair `(low, high)`, the range of predictions. Default `None`: `(-5, 5)`, or `(0.01, 0.99)` for a loss
            in mode `"per_output"`, as probabilities.
        target: The target that predictions are scored against. Default `None`: 0, or 1 in mode `"per_output"`.
        fixed: For a loss of more than one target and one prediction, the other features; see `evaluate_on_plane`.

    Returns:
        `matplotlib.figure.Figure` of 14 x 4.6 inches, bound to no display.

    Raises:
        ValueError: The callback has not moved a loss yet; arguments that `evaluate_on_plane` refuses.

    Example:

    >>> import keras, ml3_tf, numpy as np
    >>> x, y = np.ones((64, 1), "float32"), np.zeros((64, 1), "float32")
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", loss=ml3_tf.MetaLoss.around("mse"))
    >>> adapt = ml3_tf.AdaptLoss((x, y), (x, y), loss="mae", every=1)
    >>> history = model.fit(x, y, epochs=3, callbacks=[adapt], verbose=0)
    >>> len(plot_adaptation(adapt).axes)
    2
    """
    snapshots = callback.snapshots
    if not snapshots:
        raise ValueError("The callback has not moved a loss yet: call `fit(..., callbacks=[callback])` first.")
    kind = kind_of(snapshots[0]["loss"])
    is_class = kind == CLASSIFICATION
    low, high = check_range(RANGES[kind] if y_range is None else y_range)
    target = (1.0 if is_class else 0.0) if target is None else target
    y_pred = np.linspace(low, high, GRID_SIZE)
    figure = NotebookFigure(figsize=(14, 4.6), layout="constrained")
    scores, gradients = figure.subplots(1, 2)
    scores.plot([snapshot["meta_loss"] for snapshot in snapshots], "C0o-")
    name: Any = getattr(callback.task_loss, "name", None) or callback.task_loss.__name__
    scores.set(title="(a) the task loss on `meta`", xlabel="epochs", ylabel=name)
    chosen = np.unique(np.linspace(0, len(snapshots) - 1, min(NUM_CURVES, len(snapshots))).round().astype(int))
    for index, shade in zip(chosen, np.linspace(*SHADES, len(chosen))):
        _, slope = evaluate_on_plane(snapshots[index]["loss"], y_true=target, y_pred=y_pred, fixed=fixed)
        gradients.plot(y_pred, slope, color=colormaps["Blues"](shade), label=f"after {index} epochs")
    gradients.axhline(0, color="0.6", linewidth=0.8)
    gradients.set(
        title=f"(b) the gradient of the loss, target {target:g}",
        xlabel="predicted probability" if is_class else "prediction",
        ylabel="derivative for the prediction",
    )
    gradients.legend(frameon=False)
    style_axes([scores, gradients])
    return figure
