"""The figures of the losses that `reacher_model_free.py` learns."""

import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ml3_tf import MetaLoss
from ml3_tf.envs import reacher
from ml3_tf.inspection import LINE_STYLES, TEXT_SIZE, style_axes
from ml3_tf.rl import Trajectory
from parts.model_free.figure import pushes
from parts.reacher_model_free.task import LAYOUTS, POLICY_STD, observe

ELBOW = np.pi / 2  # rad, of the arm in the figure; its upper arm lies along x


def draw_loss(loss: MetaLoss) -> Figure:
    """Draws how the loss pushes the mean torques of an arm, by the place of the goal and the speed of the arm.

    Args:
        loss: A `MetaLoss` of the features of the layout "arm".
    """
    figure = Figure(figsize=(14, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots(1, 3)
    places = np.linspace(-0.21, 0.21, 41)
    goals = np.stack(np.meshgrid(places, places), -1)
    outside = np.linalg.norm(goals, axis=-1) > sum(reacher.LENGTHS)
    at_rest = _pushes(loss, goals, np.zeros((*goals.shape[:-1], 2)))
    limit = np.abs(at_rest[~outside]).max()
    for ax, joint, title in zip(axes, (0, 1), ("(a) push on the shoulder, at rest", "(b) push on the elbow, at rest")):
        values = np.where(outside, np.nan, at_rest[..., joint])
        extent = (places[0], places[-1], places[0], places[-1])
        image = ax.imshow(values, extent=extent, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit)
        bend, tip = (reacher.LENGTHS[0], 0.0), reacher.fingertip([0.0, ELBOW])
        ax.plot(*zip((0, 0), bend, tip), "o-", color="0.2", linewidth=4)
        ax.set(title=title, xlabel="x of the goal (m)", ylabel="y of the goal (m)")
    figure.colorbar(image, ax=axes[:2]).set_label("push on the mean (1/(N m))", size=TEXT_SIZE)
    _draw_moving_arm(axes[2], loss)
    style_axes(axes)
    for ax in axes[:2]:
        ax.grid(False)
    return figure


def _draw_moving_arm(ax: Axes, loss: MetaLoss) -> None:
    """Draws the push on the shoulder, by its speed, for goals ahead of the fingertip and behind."""
    speeds = np.linspace(-10.0, 10.0, 41)
    angles = {"goal 0.5 rad ahead": 0.5, "fingertip in the goal": 0.0, "goal 0.5 rad behind": -0.5}
    for (name, angle), style in zip(angles.items(), LINE_STYLES):
        goal = np.tile(reacher.fingertip([angle, ELBOW]), (len(speeds), 1))
        moving = _pushes(loss, goal, np.stack([speeds, np.zeros_like(speeds)], -1))
        ax.plot(speeds, moving[..., 0], label=name, linestyle=style, linewidth=2)
    ax.set(title="(c) push on the shoulder", xlabel="speed of the shoulder (rad/s)", ylabel="push (1/(N m))")
    low, high = ax.get_ylim()
    ax.set_ylim(low - 0.4 * (high - low), high)  # room for the names
    ax.legend(fontsize=TEXT_SIZE - 1, frameon=False, loc="lower left")


def draw_reward_aware_loss(loss: MetaLoss) -> Figure:
    """Draws how the loss pushes the mean torque of a joint, by the change of the reward after a torque on that joint.

    The arm rests, as in `draw_loss`, with the goal straight ahead of its fingertip for one joint or the other.

    Args:
        loss: A `MetaLoss` of the features of the layout "rewards".
    """
    figure = Figure(figsize=(10, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    changes = np.linspace(-0.001, 0.001, 41)
    for ax, joint, name in zip(axes, (0, 1), ("(a) shoulder", "(b) elbow")):
        turned = np.array([0.0, ELBOW])
        turned[joint] += 0.5
        observation = observe(tf.constant([0.0, ELBOW, 0.0, 0.0]), tf.constant(reacher.fingertip(turned), tf.float32))
        for torque, style in zip((0.8, -0.8), LINE_STYLES):
            action = np.zeros(2, np.float32)
            action[joint] = torque
            visited = tf.repeat(observation[tf.newaxis], 2, 0)
            seen = LAYOUTS["arm"](Trajectory(visited, tf.constant([action]), None, None, None))
            seen = np.concatenate([np.tile(seen, (41, 1)), np.zeros((41, 1)), changes[:, np.newaxis]], 1)
            mean_and_std = np.tile([0.0, 0.0, POLICY_STD, POLICY_STD], (41, 1))
            pushed = -loss.value_and_gradient(seen, mean_and_std)[1][:, joint]
            ax.plot(1000 * changes, pushed, label=f"after a torque of {torque:+.1f} N m", linestyle=style, linewidth=2)
        ax.set(title=name, xlabel="second change of the reward (mm)", ylabel="push on the mean (1/(N m))")
    axes[0].legend(fontsize=TEXT_SIZE - 1, frameon=False)
    style_axes(axes)
    return figure


def _pushes(loss: MetaLoss, goals: np.ndarray, velocities: np.ndarray) -> np.ndarray:
    """`pushes` on both torques, `[..., 2]`, for goals and joint velocities `[..., 2]`."""
    shape = goals.shape[:-1]
    states = np.concatenate([np.broadcast_to([0.0, ELBOW], (*shape, 2)), velocities], -1)
    flat = (tf.constant(values.reshape(-1, values.shape[-1]), tf.float32) for values in (states, goals))
    return pushes(loss, LAYOUTS["arm"], observe(*flat), POLICY_STD).reshape(*shape, 2)
