"""What the loss of `ant_model_free.py` has learned, drawn."""

import numpy as np
import tensorflow as tf
from ant_model_free_task import LAYOUT, POLICY_STD
from matplotlib.figure import Figure
from model_free_reaching_figure import pushes

from ml3_tf.envs.ant import GOAL_RADIUS, LOWER_LEG, RADIUS, STANCE
from ml3_tf.inspection.style import LINE_STYLES, TEXT_SIZE, style_axes

LEGS = "front left", "back left", "back right", "front right"


def draw_loss(loss):
    """Which way the loss pushes the torques of an ant that stands, by the direction of the goal.

    Args:
        loss: A `MetaLoss` of the features of `LAYOUT`.

    Returns:
        `matplotlib.figure.Figure`.
    """
    angles = np.linspace(-np.pi, np.pi, 73)
    observations = np.zeros((len(angles), 31), np.float32)
    observations[:, 2] = LOWER_LEG * np.sin(1.0) + RADIUS  # its feet on the floor
    observations[:, 3] = 1.0
    observations[:, 7:15] = STANCE
    observations[:, 29:] = GOAL_RADIUS * np.stack([np.cos(angles), np.sin(angles)], -1)
    values = pushes(loss, LAYOUT, tf.constant(observations), POLICY_STD)
    figure = Figure(figsize=(12, 4.4), dpi=130, layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, joint, title in zip(axes, (0, 1), ("(a) hips", "(b) ankles")):
        for leg, (name, style) in enumerate(zip(LEGS, LINE_STYLES)):
            ax.plot(np.degrees(angles), values[:, 2 * leg + joint], linestyle=style, linewidth=2, label=name)
        ax.set(title=title, xlabel="direction of the goal (degrees, 0: ahead, 90: left)", ylabel="push on the mean")
        ax.set_xticks(range(-180, 181, 90))
    style_axes(axes)
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, fontsize=TEXT_SIZE, frameon=False)
    return figure
