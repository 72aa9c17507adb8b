"""The figure of the loss that `pointmass.py` learns."""

import numpy as np
from matplotlib.figure import Figure

from ml3_tf import MetaLoss
from ml3_tf.envs import pointmass
from ml3_tf.inspection import LINE_STYLES, TEXT_SIZE, style_axes

GOAL = (-0.8, 0.4)  # m, on the side that meta-training never saw
VELOCITIES = {"at rest": (0.0, 0.0), "at 1 m/s to the left": (-1.0, 0.0)}
PLACES = {"goal 0.8 m to the left": 0.8, "at the goal": 0.0, "goal 0.8 m to the right": -0.8}  # m, from it


def draw_loss(loss: MetaLoss) -> Figure:
    """Draws the acceleration that the loss prefers in each place, for two velocities, and the loss of accelerations.

    Args:
        loss: A `MetaLoss` of acceleration, state and goal.
    """
    figure = Figure(figsize=(14, 4.8), dpi=150, layout="constrained")
    axes = figure.subplots(1, 3)
    places = np.stack(np.meshgrid(*[np.linspace(-pointmass.MAX_GOAL, pointmass.MAX_GOAL, 13)] * 2), -1)
    levels = np.linspace(-pointmass.MAX_ACCELERATION, pointmass.MAX_ACCELERATION, 21)
    choices = np.stack(np.meshgrid(levels, levels), -1).reshape(-1, 2)
    for ax, letter, (words, velocity) in zip(axes, "ab", VELOCITIES.items()):
        best = choices[_values(loss, places, velocity, choices).argmin(-1)]
        ax.axvspan(0.0, pointmass.MAX_GOAL, color="0.93", zorder=0)
        ax.quiver(
            *np.moveaxis(places, -1, 0), *np.moveaxis(best, -1, 0), color="C0", angles="xy", scale=16, width=0.006
        )
        ax.plot(*GOAL, "*", color="black", markersize=15, markerfacecolor="white")
        ax.set(title=f"({letter}) what it prefers {words}", xlabel="x (m)", ylabel="y (m)", aspect="equal")
    for (words, away), style in zip(PLACES.items(), LINE_STYLES):
        accelerations = np.stack([levels, np.zeros_like(levels)], -1)
        values = _values(loss, np.add(GOAL, (away, 0.0)), (0.0, 0.0), accelerations)
        axes[2].plot(levels, values - values.min(), label=words, linestyle=style, linewidth=2)
    axes[2].set(title="(c) loss against acceleration, at rest", xlabel="acceleration along x (m/s²)")
    axes[2].set_ylabel("loss, from its least value")
    axes[2].legend(fontsize=TEXT_SIZE - 1, frameon=False)
    style_axes(axes)
    return figure


def _values(loss: MetaLoss, places: np.ndarray, velocity: tuple[float, float], accelerations: np.ndarray) -> np.ndarray:
    """The loss of each acceleration in each place, `[..., accelerations]`."""
    shape = (*places.shape[:-1], len(accelerations))
    parts = [places[..., np.newaxis, :], velocity, GOAL]
    y_true = np.concatenate([np.broadcast_to(part, (*shape, 2)) for part in parts], -1)
    y_pred = np.broadcast_to(accelerations, (*shape, 2))
    return np.asarray(loss.call(y_true.reshape(-1, 6), y_pred.reshape(-1, 2))).reshape(shape)
