"""The figure of the loss that `ant_model_free.py` learns."""

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from ml3_tf import MetaLoss
from ml3_tf.envs import ant
from ml3_tf.inspection import LINE_STYLES, TEXT_SIZE, style_axes
from parts.ant_model_free.task import LOSS_INPUTS, POLICY_STD
from parts.model_free.figure import pushes

LEGS = "front left", "back left", "back right", "front right"


def draw_loss(loss: MetaLoss) -> Figure:
    """Draws how the loss pushes the torques of an ant that stands, by the direction of the goal.

    Args:
        loss: A `MetaLoss` of the features of `LOSS_INPUTS`.
    """
    angles = np.linspace(-np.pi, np.pi, 73)
    observations = np.zeros((len(angles), 31), np.float32)
    observations[:, 2] = ant.LOWER_LEG * np.sin(1.0) + ant.RADIUS  # its feet on the floor
    observations[:, 3] = 1.0
    observations[:, 7:15] = ant.STANCE
    observations[:, 29:] = ant.GOAL_RADIUS * np.stack([np.cos(angles), np.sin(angles)], -1)
    values = pushes(loss, LOSS_INPUTS, tf.constant(observations), POLICY_STD)
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
