"""The figures and the animation of `mountain_car.py`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from ml3_tf import MetaLoss
from ml3_tf.envs import mountain_car
from ml3_tf.inspection import LINE_STYLES, TEXT_SIZE, style_axes
from parts.experiment import Result
from parts.tuned_optimizers import OPTIMIZER_NAMES

STYLES = {  # color and line
    "shaped": ("C0", LINE_STYLES[0]),
    "unshaped": ("C1", LINE_STYLES[1]),
    "paper_setting": ("C2", LINE_STYLES[2]),
    "ilqr": ("0.35", LINE_STYLES[3]),
}
TASK_STYLE = ("C3", (0, (5, 1, 1, 1, 1, 1)))  # of the task loss, with any optimizer
FINAL_ERRORS = {  # m and m/s
    "(a) the rollout ended in the valley": (-1.05, -1.04),
    "(b) at the goal, 0.2 m/s too slow": (0.0, -0.2),
    "(c) at the goal, 0.2 m/s too fast": (0.0, 0.2),
}
LABELS = {"shaped": "shaped", "unshaped": "unshaped", "paper_setting": "setting of the paper", "ilqr": "iLQR"}
LABELS |= {f"task_{name}": f"task loss, {label}" for name, label in OPTIMIZER_NAMES.items()}


def draw_figure(results: Sequence[Result], planned: ArrayLike, methods: Sequence[str], *, reported_step: int) -> Figure:
    """Draws trajectories of the first seed over the hill, and distance against updates with quartiles over policies.

    Args:
        results: The results of the seeds; of each, `"paths"` and `"distances"`.
        planned: States of iLQR from the paper's start, `[T + 1, 2]`.
        methods: The methods to draw: learned losses, and a baseline.
        reported_step: Number of updates after which the metrics are measured.
    """
    figure = Figure(figsize=(14, 4.6), dpi=150, layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=[1.25, 1, 1])
    paths = {name: results[0]["paths"][name] for name in methods}
    _draw_phase_portrait(axes[0], {**paths, "ilqr": planned})
    axes[0].set_title(f"(a) a policy of the first seed after {reported_step} updates")
    for ax, prefix, title in ((axes[1], "", "(b) the paper's start"), (axes[2], "random_start_", "(c) random starts")):
        for name in methods:
            distances = np.concatenate([np.array(result["distances"][prefix + name]) for result in results], axis=1)
            _draw_quartiles(ax, distances, name)
        ax.axvline(reported_step, color="0.5", linewidth=1, linestyle=":")
        ax.set(title=title, xlabel="policy updates", ylabel="final distance to the goal", ylim=(0, None))
    style_axes(axes)
    axes[0].grid(False)
    handles = {line.get_label(): line for line in axes[0].lines if not line.get_label().startswith("_")}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=7, fontsize=TEXT_SIZE, frameon=False)
    return figure


def _draw_phase_portrait(ax: Axes, paths: Mapping[str, ArrayLike]) -> None:
    """Draws position and velocity; the shade is the height of the hill below."""
    positions = np.linspace(mountain_car.MIN_POSITION, mountain_car.MAX_POSITION, 200)
    heights = np.sin(3 * positions)[np.newaxis]
    extent = (mountain_car.MIN_POSITION, mountain_car.MAX_POSITION, -1.6, 1.7)
    ax.imshow(heights, extent=extent, aspect="auto", cmap="Greys", alpha=0.35, origin="lower")
    for name, path in paths.items():
        path = np.array(path)
        color, line = _style(name)
        ax.plot(*path.T, color=color, label=LABELS[name], linestyle=line, linewidth=2)
        ax.plot(*path[-1], "o", color=color, markersize=6)
    for place, marker, label in (
        (mountain_car.START, "s", "start"),
        (mountain_car.INTERMEDIATE_GOAL, "^", "shaping"),
        (mountain_car.GOAL, "*", "goal"),
    ):
        ax.plot(*place, marker, color="black", markersize=11, markerfacecolor="white", label=label, zorder=5)
    ax.set(xlabel="position (m), darker: higher", ylabel="velocity (m/s)", ylim=extent[2:])
    ax.set_xlim(mountain_car.MIN_POSITION - 0.02, mountain_car.MAX_POSITION + 0.06)


def _draw_quartiles(ax: Axes, distances: np.ndarray, name: str) -> None:
    """Draws median and quartiles over seeds and policies."""
    lower, median, upper = np.percentile(distances, [25, 50, 75], axis=1)
    steps = np.arange(len(median))
    color, line = _style(name)
    ax.plot(steps, median, color=color, linestyle=line, linewidth=2)
    ax.fill_between(steps, lower, upper, color=color, alpha=0.2, linewidth=0)


def _style(name: str) -> tuple[str, Any]:
    """Color and line of a method."""
    return STYLES.get(name, TASK_STYLE)


def write_animation(path: ArrayLike, file: Path) -> None:
    """Writes the states of a rollout as a GIF, drawn by the environment."""
    env = gymnasium.make("ml3_tf/MountainCarGoal-v0", render_mode="rgb_array").unwrapped
    env.reset()
    frames = []
    for state in path:
        env.state = np.array(state)
        frames.append(Image.fromarray(env.render()).quantize(32))
    durations = [round(1000 * mountain_car.TIME_STEP)] * (len(frames) - 1) + [1000]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)


def draw_loss(loss: MetaLoss) -> Figure:
    """Draws the force that the loss prefers in each state, after rollouts that ended in different ways.

    Args:
        loss: A `MetaLoss` of force, state and final error.
    """
    figure = Figure(figsize=(14, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    forces = np.linspace(-mountain_car.MAX_FORCE, mountain_car.MAX_FORCE, 51)
    positions = np.linspace(mountain_car.MIN_POSITION, mountain_car.MAX_POSITION, 86)
    velocities = np.linspace(-1.5, 1.5, 61)
    states = np.stack(np.meshgrid(positions, velocities), -1)
    for ax, (title, error) in zip(axes, FINAL_ERRORS.items()):
        preferred = forces[_values(loss, states, forces, error).argmin(-1)]
        extent = (mountain_car.MIN_POSITION, mountain_car.MAX_POSITION, -1.5, 1.5)
        image = ax.imshow(preferred, extent=extent, origin="lower", aspect="auto", cmap="RdBu_r")
        ax.plot(*mountain_car.GOAL, "*", color="black", markersize=13, markerfacecolor="white", clip_on=False)
        ax.plot(*mountain_car.START, "s", color="black", markersize=9, markerfacecolor="white")
        ax.set(title=title, xlabel="position (m)", xticks=(-1, -0.5, 0, 0.5))
    axes[0].set(ylabel="velocity (m/s)")
    style_axes(axes)
    figure.colorbar(image, ax=axes, pad=0.01).set_label("preferred force (N)", size=TEXT_SIZE)
    for ax in axes:
        ax.grid(False)
    return figure


def _values(loss: MetaLoss, states: np.ndarray, forces: np.ndarray, error: tuple[float, float]) -> np.ndarray:
    """The loss of each force in each state, `[..., forces]`."""
    shape = (*states.shape[:-1], len(forces))
    seen = [np.broadcast_to(values, (*shape, 2)) for values in (states[..., np.newaxis, :], np.array(error))]
    y_pred = np.broadcast_to(forces[:, np.newaxis], (*shape, 1))
    values = loss.call(np.concatenate(seen, -1).reshape(-1, 4), y_pred.reshape(-1, 1))
    return np.asarray(values).reshape(shape)
