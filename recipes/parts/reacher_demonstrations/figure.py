"""The figures of `reacher_demonstrations.py`."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ml3_tf import MetaLoss
from ml3_tf.envs import reacher
from ml3_tf.inspection import LINE_STYLES, TEXT_SIZE, style_axes
from parts.experiment import Result
from parts.reacher_demonstrations.settings import BaselineSettings
from parts.reacher_demonstrations.task import REST

COLORS = {"learned": "C0", "cloning": "C1", "goal_cloning": "C2", "taught": "C4"}
LABELS = {
    "learned": "learned loss",
    "cloning": "cloning",
    "goal_cloning": "goal-conditioned cloning",
    "taught": "taught by that clone",
}


def draw_figure(results: Sequence[Result], settings: BaselineSettings, *, num_updates: int) -> Figure:
    """Draws the targets of the first seed, and reaching distance against updates, median and quartiles of all seeds.

    Args:
        results: The results of the seeds; of each, `"targets"`, `"paths"` and `"distances"`.
        settings: The settings.
        num_updates: Number of updates of `learned` and `taught`.
    """
    figure = Figure(figsize=(14, 5.4), dpi=150, layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=[1.0, 1.1, 1.1])
    axes[2].sharey(axes[1])
    _draw_workspace(axes[0], results[0])
    axes[0].set_title(f"(a) first seed, after {settings.reported_step} updates")
    num_unseen = settings.num_targets
    parts = {"(b) unseen targets": slice(num_unseen), "(c) training targets": slice(num_unseen, None)}
    for ax, (title, part) in zip(axes[1:], parts.items()):
        for name in COLORS:
            distances = np.concatenate([np.array(result["distances"][name])[:, part] for result in results], 1)
            _draw_quartiles(ax, distances, name, num_updates)
        ax.axvline(settings.reported_step, color="0.5", linewidth=1, linestyle=":")
        ax.set(title=title, xlabel="policy updates", ylabel="reaching distance (rad)", yscale="log")
    style_axes(axes)
    axes[0].grid(False)
    lines = [line for ax in axes[:2] for line in ax.lines if not line.get_label().startswith("_")]
    figure.legend(handles=lines, loc="outside lower center", ncols=5, fontsize=TEXT_SIZE, frameon=False)
    return figure


def _draw_workspace(ax: Axes, result: Result) -> None:
    """Draws targets as places of the fingertip, the ways that trained policies take to them, and the arm at rest."""
    angles = np.linspace(0.0, 2.0 * np.pi, 200)
    ax.plot(sum(reacher.LENGTHS) * np.cos(angles), sum(reacher.LENGTHS) * np.sin(angles), color="0.75", linewidth=1)
    trained, unseen = (reacher.fingertip(np.array(result["targets"][kind])) for kind in ("trained", "unseen"))
    for number, path in enumerate(np.array(result["paths"])[: len(unseen)]):
        tip = reacher.fingertip(path)
        label = "path taken" if number == 0 else None
        ax.plot(*tip.T, color="C1", linewidth=0.9, alpha=0.6, label=label)
        ax.plot(*tip[-1], "x", color="0.25", markersize=5, label="its end" if number == 0 else None)
    shoulder = np.cumsum(REST)
    joints = np.array([[0.0, 0.0], [np.cos(shoulder[0]), np.sin(shoulder[0])], [0.0, 0.0]])
    joints[1] *= reacher.LENGTHS[0]
    joints[2] = reacher.fingertip(REST)
    ax.plot(*joints.T, "-o", color="0.45", linewidth=5, markersize=7, solid_capstyle="round", label="arm at rest")
    ax.plot(*unseen.T, "o", color="C1", markersize=6, label="unseen target")
    ax.plot(*trained.T, "o", color="C0", markersize=10, label="training target")
    ax.set(xlabel="x (m)", ylabel="y (m)", aspect="equal")


def _draw_quartiles(ax: Axes, distances: np.ndarray, name: str, num_updates: int) -> None:
    """Draws median and quartiles over seeds and targets; a method that does not learn at test is a level line."""
    lower, median, upper = np.percentile(distances, [25, 50, 75], axis=1)
    updates = np.arange(len(median))
    if len(median) == 1:
        updates, (lower, median, upper) = np.array([0, num_updates]), (np.repeat(q, 2) for q in (lower, median, upper))
    style = LINE_STYLES[list(COLORS).index(name) % len(LINE_STYLES)]
    ax.plot(updates, median, color=COLORS[name], linestyle=style, linewidth=2, label=LABELS[name])
    ax.fill_between(updates, lower, upper, color=COLORS[name], alpha=0.15, linewidth=0)


# Way to the goal (rad), velocity (rad/s) and final error (rad) of the shoulder.
SITUATIONS = {"at the start": (0.8, 0.0, 0.8), "too fast": (0.2, 5.0, 0.0), "at the goal": (0.0, 0.0, 0.0)}


def draw_loss(loss: MetaLoss) -> Figure:
    """Draws where the loss pushes the torque of the shoulder, by way to the goal, velocity and final error.

    The elbow rests at its goal.

    Args:
        loss: A `MetaLoss` of the features of the recipe.
    """
    figure = Figure(figsize=(14, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots(1, 3)
    ways, speeds, ends = np.linspace(-1.2, 1.2, 61), np.linspace(-6.0, 6.0, 61), np.linspace(-1.2, 1.2, 61)
    by_speed = pushes(loss, *np.meshgrid(ways, speeds), 0.0)
    by_end = pushes(loss, np.meshgrid(ways, ends)[0], 0.0, np.meshgrid(ways, ends)[1])
    maps = [
        (speeds, "velocity (rad/s)", by_speed, "no error at the end"),
        (ends, "final error (rad)", by_end, "at rest"),
    ]
    limit = max(np.abs(values).max() for values in (by_speed, by_end))
    for ax, (values, label, pushed, title), letter in zip(axes, maps, "ab"):
        extent = (ways[0], ways[-1], values[0], values[-1])
        options = {"extent": extent, "origin": "lower", "aspect": "auto", "cmap": "RdBu_r"}
        image = ax.imshow(pushed, vmin=-limit, vmax=limit, **options)
        ax.contour(ways, values, pushed, [0.0], colors="black", linewidths=1)
        ax.set(title=f"({letter}) push, {title}", xlabel="way to the goal (rad)", ylabel=label)
    bar = figure.colorbar(image, ax=axes[:2])
    bar.set_label("push on the torque (1/(N m))", size=TEXT_SIZE)
    _draw_values(axes[2], loss)
    style_axes(axes)
    for ax in axes[:2]:
        ax.grid(False)
    return figure


def _draw_values(ax: Axes, loss: MetaLoss) -> None:
    """Draws the loss against the torque of the shoulder, in a few situations."""
    torques = np.linspace(-1.0, 1.0, 41)
    for (name, situation), style in zip(SITUATIONS.items(), LINE_STYLES):
        values = np.asarray(loss.call(*_examples(*situation, torques)))
        ax.plot(torques, values - values.min(), label=name, linestyle=style, linewidth=2)
    ax.set(title="(c) loss against torque", xlabel="torque (N m)", ylabel="loss, from its least value")
    ax.legend(fontsize=TEXT_SIZE - 1, frameon=False)


def _examples(
    way: ArrayLike, velocity: ArrayLike, final_error: ArrayLike, torque: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """`y_true` and `y_pred` for values of the shoulder; the elbow rests at its goal, without a torque."""
    way, velocity, final_error, torque = np.broadcast_arrays(way, velocity, final_error, torque)
    zero = np.zeros_like(way)
    y_true = np.stack([way, zero, velocity, zero, final_error, zero, zero - 1.0, zero + 1.0], -1)
    return y_true.astype(np.float32), np.stack([torque, zero], -1).astype(np.float32)


def pushes(loss: MetaLoss, way: ArrayLike, velocity: ArrayLike, final_error: ArrayLike) -> np.ndarray:
    """Returns `-dM/du` for the torque `u` of the shoulder, where it is zero."""
    return -loss.value_and_gradient(*_examples(way, velocity, final_error, 0.0))[1][..., 0]
