"""The figure of the loss that `reacher_model_based.py` learns."""

import numpy as np
from matplotlib.figure import Figure

from ml3_tf import MetaLoss
from ml3_tf.envs import reacher
from ml3_tf.inspection import LINE_STYLES, TEXT_SIZE, style_axes

JOINTS = ("shoulder", "elbow")
TORQUES = np.linspace(-reacher.MAX_TORQUE, reacher.MAX_TORQUE, 41)


def draw_loss(loss: MetaLoss) -> Figure:
    """Draws the torque that the loss prefers, by the angle left to the goal and the velocity, for each joint.

    The other joint stands in its goal, without a torque.

    Args:
        loss: A `MetaLoss` of torques, angles to the goal and velocities.
    """
    figure = Figure(figsize=(14, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots(1, 3)
    angles, velocities = np.linspace(-np.pi, np.pi, 61), np.linspace(-10.0, 10.0, 61)
    for joint, (ax, letter) in enumerate(zip(axes, "ab")):
        preferred = TORQUES[_values(loss, joint, *np.meshgrid(angles, velocities)).argmin(-1)]
        extent = (angles[0], angles[-1], velocities[0], velocities[-1])
        image = ax.imshow(preferred, extent=extent, origin="lower", aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1)
        ax.set(title=f"({letter}) torque preferred, {JOINTS[joint]}", xlabel="angle left to the goal (rad)")
        ax.set_ylabel("velocity (rad/s)")
    figure.colorbar(image, ax=axes[:2], label="torque (N m)")
    for angle, style in zip((-2, 0, 2), LINE_STYLES):
        values = _values(loss, 0, np.array(float(angle)), np.array(0.0))
        axes[2].plot(TORQUES, values - values.min(), label=f"{angle} rad left", linestyle=style, linewidth=2)
    axes[2].set(title="(c) loss, shoulder at rest", xlabel="torque (N m)", ylabel="loss, from its least value")
    axes[2].legend(fontsize=TEXT_SIZE - 1, frameon=False)
    style_axes(axes)
    for ax in axes[:2]:
        ax.grid(False)
    return figure


def _values(loss: MetaLoss, joint: int, angles: np.ndarray, velocities: np.ndarray) -> np.ndarray:
    """The loss of each torque of one joint, `[..., torques]`."""
    inputs = np.zeros((*angles.shape, len(TORQUES), 3, 2))
    columns = (TORQUES, angles[..., np.newaxis], velocities[..., np.newaxis])
    for feature, values in enumerate(columns):
        inputs[..., feature, joint] = values
    inputs = inputs.reshape(-1, 6)
    return np.asarray(loss.call(inputs[:, 2:], inputs[:, :2])).reshape(*angles.shape, len(TORQUES))
