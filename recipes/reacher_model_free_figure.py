"""What the losses of `reacher_model_free.py` have learned, drawn."""

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from model_free_reaching import slopes
from model_free_reaching_figure import pushes
from reacher_model_free_task import LAYOUTS, POLICY_STD, in_the_arms_frame, observe

from ml3_tf.envs.reacher import LENGTHS, fingertip
from ml3_tf.inspection.style import LINE_STYLES, TEXT_SIZE, style_axes
from ml3_tf.rl.rollouts import Trajectory

ELBOW = np.pi / 2  # rad, of the arm in the figure; its upper arm lies along x


def draw_loss(loss):
    """Which way the loss pushes the mean torques of an arm, by where the goal lies and by how fast the arm turns.

    Args:
        loss: A `MetaLoss` of the features of the layout "arm".

    Returns:
        `matplotlib.figure.Figure`.
    """
    figure = Figure(figsize=(14, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots(1, 3)
    places = np.linspace(-0.21, 0.21, 41)
    goals = np.stack(np.meshgrid(places, places), -1)
    outside = np.linalg.norm(goals, axis=-1) > sum(LENGTHS)
    at_rest = _pushes(loss, goals, np.zeros((*goals.shape[:-1], 2)))
    limit = np.abs(at_rest[~outside]).max()
    for ax, joint, title in zip(axes, (0, 1), ("(a) push on the shoulder, at rest", "(b) push on the elbow, at rest")):
        values = np.where(outside, np.nan, at_rest[..., joint])
        extent = (places[0], places[-1], places[0], places[-1])
        image = ax.imshow(values, extent=extent, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit)
        bend, tip = (LENGTHS[0], 0.0), fingertip([0.0, ELBOW])
        ax.plot(*zip((0, 0), bend, tip), "o-", color="0.2", linewidth=4)
        ax.set(title=title, xlabel="x of the goal (m)", ylabel="y of the goal (m)")
    figure.colorbar(image, ax=axes[:2]).set_label("push on the mean (1/(N m))", size=TEXT_SIZE)
    speeds = np.linspace(-10.0, 10.0, 41)
    angles = {"goal 0.5 rad ahead": 0.5, "fingertip in the goal": 0.0, "goal 0.5 rad behind": -0.5}
    for (name, angle), style in zip(angles.items(), LINE_STYLES):
        goal = np.tile(fingertip([angle, ELBOW]), (len(speeds), 1))
        moving = _pushes(loss, goal, np.stack([speeds, np.zeros_like(speeds)], -1))
        axes[2].plot(speeds, moving[..., 0], label=name, linestyle=style, linewidth=2)
    axes[2].set(title="(c) push on the shoulder", xlabel="speed of the shoulder (rad/s)", ylabel="push (1/(N m))")
    low, high = axes[2].get_ylim()
    axes[2].set_ylim(low - 0.4 * (high - low), high)  # room for the names
    axes[2].legend(fontsize=TEXT_SIZE - 1, frameon=False, loc="lower left")
    style_axes(axes)
    for ax in axes[:2]:
        ax.grid(False)
    return figure


def draw_reward_aware_loss(loss):
    """Which way the loss pushes the mean torque of a joint, by how the reward changed with a torque on that joint.

    The arm rests, as in `draw_loss`, with the goal straight ahead of its fingertip for one joint or the other.

    Args:
        loss: A `MetaLoss` of the features of the layout "rewards".

    Returns:
        `matplotlib.figure.Figure`.
    """
    figure = Figure(figsize=(10, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    changes = np.linspace(-0.001, 0.001, 41)
    for ax, joint, name in zip(axes, (0, 1), ("(a) shoulder", "(b) elbow")):
        turned = np.array([0.0, ELBOW])
        turned[joint] += 0.5
        observation = observe(tf.constant([0.0, ELBOW, 0.0, 0.0]), tf.constant(fingertip(turned), tf.float32))
        for torque, style in zip((0.8, -0.8), LINE_STYLES):
            action = np.zeros(2, np.float32)
            action[joint] = torque
            visited = tf.repeat(observation[tf.newaxis], 2, 0)
            seen = in_the_arms_frame(Trajectory(visited, tf.constant([action]), None, None, None))
            seen = np.concatenate([np.tile(seen, (41, 1)), np.zeros((41, 1)), changes[:, np.newaxis]], 1)
            mean_and_std = tf.constant(np.tile([0.0, 0.0, POLICY_STD, POLICY_STD], (41, 1)), tf.float32)
            pushed = -slopes(loss, tf.constant(seen, tf.float32), mean_and_std)[:, joint]
            ax.plot(1000 * changes, pushed, label=f"after a torque of {torque:+.1f} N m", linestyle=style, linewidth=2)
        ax.set(title=name, xlabel="second change of the reward (mm)", ylabel="push on the mean (1/(N m))")
    axes[0].legend(fontsize=TEXT_SIZE - 1, frameon=False)
    style_axes(axes)
    return figure


def _pushes(loss, goals, velocities):
    """`pushes` on both torques, `[..., 2]`, for goals and joint velocities `[..., 2]`."""
    shape = goals.shape[:-1]
    states = np.concatenate([np.broadcast_to([0.0, ELBOW], (*shape, 2)), velocities], -1)
    flat = (tf.constant(values.reshape(-1, values.shape[-1]), tf.float32) for values in (states, goals))
    return pushes(loss, LAYOUTS["arm"], observe(*flat), POLICY_STD).reshape(*shape, 2)
