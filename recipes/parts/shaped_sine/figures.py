"""The figures of `shaped_sine.py`: loss landscapes over the frequency, recovery curves, and an animation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

import ml3_tf
from ml3_tf.inspection import TEXT_SIZE, plot_learning_curve, style_axes
from parts.experiment import Result

GRID = np.linspace(-7, 7, 281)  # omega
SHOWN_FREQUENCIES = (-2.0, 4.0)
NUM_POINTS = 64
# name -> label, color, line style; the same in all panels
STYLES = {
    "shaped": ("shaped, per set", "C0", "-"),
    "per_point": ("shaped, per point", "C4", "--"),
    "shaped_without_x": ("shaped, without x", "C5", (0, (1, 1))),
    "noise_trained": ("shaped, learned on noise", "C9", (0, (3, 1, 1, 1))),
    "unshaped": ("unshaped, per set", "C3", "-."),
    "mse": ("MSE, same rate", "C1", ":"),
    "mse_tuned": ("MSE, best rate", "C2", (0, (5, 2))),
}
LANDSCAPES = ("shaped", "unshaped", "mse")
FRAME_MILLISECONDS = 250


class KeptLandscapes(keras.callbacks.Callback):
    """Keeps the landscape of a loss in meta-training: before the first epoch and after each.

    Args:
        loss: The loss that is learned.
    """

    def __init__(self, loss: ml3_tf.MetaLoss) -> None:
        super().__init__()
        self._loss = loss
        self.values: list[list[list[float]]] = [landscape(loss)]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.values.append(landscape(self._loss))


def landscape(loss: Any, shown: Sequence[float] = SHOWN_FREQUENCIES) -> list[list[float]]:
    """Returns the values of a loss over `GRID` for each true frequency, on one set of points: `[nu, omega]`.

    Args:
        loss: A learned loss, or "mse".
        shown: The true frequencies.
    """
    x = np.random.default_rng(0).uniform(-5, 5, (NUM_POINTS, 1)).astype("float32")
    y_pred = np.sin(GRID[:, np.newaxis, np.newaxis] * x).astype("float32")
    curves = []
    for nu in shown:
        y = np.sin(nu * x)
        if isinstance(loss, ml3_tf.MetaLoss):
            y_true = np.concatenate([y, x] if "x" in loss.features else [y], axis=-1)
            values = loss.call(np.broadcast_to(y_true, (len(GRID), *y_true.shape)), y_pred)
        else:
            values = np.mean((y_pred - y) ** 2, axis=-1)
        curves.append(np.mean(values, axis=-1).round(5).tolist())
    return curves


def draw_figure(results: Sequence[Result], inner_steps: int) -> Figure:
    """Draws the landscapes of the first seed for two sines, and the share of frequencies recovered against steps.

    Args:
        results: One result of `run_seed` for each seed.
        inner_steps: Number of steps in meta-training, marked in the curves.
    """
    figure = Figure(figsize=(14, 4.6), dpi=150, layout="constrained")
    *landscapes, curves = figure.subplots(1, 3, width_ratios=[1, 1, 1.25])
    for index, (ax, nu) in enumerate(zip(landscapes, SHOWN_FREQUENCIES)):
        for name in LANDSCAPES:
            label, color, style = STYLES[name]
            values = standardized(results[0]["landscapes"][name][-1][index])
            ax.plot(GRID, values, color=color, linestyle=style, linewidth=2, label=label)
        _mark(ax, nu)
        ax.set(xlabel="omega", ylabel="loss, 0 to 1", title=f"(a{index + 1}) loss landscape, nu = {nu:g}")
    for name, (label, color, style) in STYLES.items():
        plot_learning_curve([result["meta_test"][name] for result in results], curves, label=label, color=color)
        curves.lines[-1].set_linestyle(style)
    curves.axvline(inner_steps, color="0.5", linewidth=1, linestyle=":")
    curves.text(inner_steps + 0.5, 0.53, "meta-trained\nfor 10 steps", fontsize=TEXT_SIZE - 2, color="0.35")
    curves.set(
        xlabel="gradient steps", ylabel="share recovered within .1", title="(b) unseen frequencies", ylim=(0, 1.03)
    )
    style_axes(figure.axes)
    handles = {line.get_label(): line for line in curves.lines if not line.get_label().startswith("_")}
    mark = landscapes[0].lines[-1]
    figure.legend(
        [*handles.values(), mark],
        [*handles, "true frequency"],
        loc="outside lower center",
        ncols=4,
        fontsize=TEXT_SIZE - 1,
        frameon=False,
    )
    return figure


def draw_landscapes(loss: Any, shown: Sequence[float]) -> Figure:
    """Draws a learned loss over omega beside MSE, one panel for each true frequency, for the model card."""
    figure = Figure(figsize=(14, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True)
    for ax, nu, *curves in zip(axes, shown, landscape(loss, shown), landscape("mse", shown)):
        for label, color, style, values in zip(("learned", "MSE"), ("C0", "C1"), ("-", ":"), curves):
            ax.plot(GRID, standardized(values), color=color, linestyle=style, linewidth=2, label=label)
        _mark(ax, nu)
        ax.set(xlabel="omega", title=f"nu = {nu:g}")
    axes[0].set_ylabel("loss, 0 to 1")
    style_axes(axes)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=TEXT_SIZE, frameon=False)
    return figure


def write_animation(landscapes: Sequence[Any], path: Path) -> None:
    """Writes a GIF of the landscapes `[frames, nu, omega]` while the loss is learned; the last frame stays longer."""
    frames = [_frame(curves, index / (len(landscapes) - 1)) for index, curves in enumerate(landscapes)]
    durations = [FRAME_MILLISECONDS] * (len(frames) - 1) + [10 * FRAME_MILLISECONDS]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)


def standardized(values: Any) -> np.ndarray:
    """Returns values from 0 to 1: the scale of a loss acts as a learning rate, and its offset has no gradient."""
    values = np.asarray(values, dtype=float)
    return (values - values.min()) / (np.ptp(values) or 1.0)


def _mark(ax: Axes, nu: float) -> None:
    ax.axvline(nu, color="0.15", linewidth=1.5, label="true frequency")
    ax.set_xticks([-6, -3, 0, 3, 6])


def _frame(curves: Sequence[Any], share: float) -> Image.Image:
    figure = Figure(figsize=(7, 2.8), dpi=80, layout="constrained")
    for ax, nu, values in zip(figure.subplots(1, len(curves)), SHOWN_FREQUENCIES, curves):
        ax.plot(GRID, standardized(values), color=STYLES["shaped"][1], linewidth=2)
        _mark(ax, nu)
        ax.set(xlabel="omega", ylim=(-0.05, 1.05), title=f"nu = {nu:g}")
    style_axes(figure.axes)
    figure.axes[0].set_ylabel("shaped loss, 0 to 1", fontsize=TEXT_SIZE)
    figure.suptitle(f"{share:.0%} of meta-training", fontsize=TEXT_SIZE)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    return image.quantize(32, method=Image.Quantize.MEDIANCUT)
