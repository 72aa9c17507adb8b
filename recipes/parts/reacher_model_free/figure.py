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
from parts.reacher_model_free.task import HORIZON, LAYOUTS, POLICY_STD, USUAL_ARM, observe, step

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
    """Draws how the loss pushes the mean torque of a joint, by the gain of its motor, which the arm's response tells.

    The arm rests, as in `draw_loss`, with the goal ahead of its fingertip or behind, by half a radian of the joint.

    Args:
        loss: A `MetaLoss` of the features of the layout "rewards".
    """
    figure = Figure(figsize=(10, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    gains = np.linspace(-1.5, 1.5, 31)
    for ax, joint, name in zip(axes, (0, 1), ("(a) shoulder", "(b) elbow")):
        for angle, place, style in zip((0.5, -0.5), ("ahead", "behind"), LINE_STYLES):
            turned = np.array([0.0, ELBOW])
            turned[joint] += angle
            pushed = _push_by_gain(loss, reacher.fingertip(turned), joint, gains)
            ax.plot(gains, pushed, label=f"goal 0.5 rad {place}", linestyle=style, linewidth=2)
        ax.set(title=name, xlabel="gain of its motor", ylabel="push on the mean (1/(N m))")
    axes[0].legend(fontsize=TEXT_SIZE - 1, frameon=False, loc="center left")
    style_axes(axes)
    return figure


def _push_by_gain(
    loss: MetaLoss, goal: np.ndarray, joint: int, gains: np.ndarray, num_episodes: int = 64
) -> np.ndarray:
    """The push on the mean of a joint, 0, of the resting arm, for each gain of its motor; the other motor has 1."""
    arms = np.tile([0.0, ELBOW, 0.0, 0.0, *USUAL_ARM], (len(gains), num_episodes, 1))
    arms[..., 4 + joint] = gains[:, np.newaxis]
    actions = np.random.default_rng(0).normal(0.0, POLICY_STD, (num_episodes // 2, HORIZON, 2))
    actions = np.broadcast_to([*actions, *-actions], (len(gains), num_episodes, HORIZON, 2))
    states, goals = [tf.constant(arms, tf.float32)], tf.constant(np.broadcast_to(goal, arms[..., :2].shape), tf.float32)
    for action in np.moveaxis(actions, 2, 0).astype("float32"):
        states.append(step(states[-1], action))
    visited = tf.stack([observe(state, goals) for state in states], 2)
    zeros = tf.zeros(actions.shape[:-1])
    seen = LAYOUTS["rewards"](Trajectory(visited, tf.constant(actions, tf.float32), zeros, goals, zeros + 1.0))
    at_rest = tf.reshape(seen[:, :, 0], [-1, seen.shape[-1]])
    mean_and_std = np.tile([0.0, 0.0, POLICY_STD, POLICY_STD], (len(at_rest), 1))
    pushed = -loss.value_and_gradient(at_rest, mean_and_std)[1][:, joint]
    return pushed.reshape(len(gains), num_episodes).mean(1)


def _pushes(loss: MetaLoss, goals: np.ndarray, velocities: np.ndarray) -> np.ndarray:
    """`pushes` on both torques, `[..., 2]`, for goals and joint velocities `[..., 2]`."""
    shape = goals.shape[:-1]
    angles, arm = (np.broadcast_to(values, (*shape, len(values))) for values in ([0.0, ELBOW], USUAL_ARM))
    states = np.concatenate([angles, velocities, arm], -1)
    flat = (tf.constant(values.reshape(-1, values.shape[-1]), tf.float32) for values in (states, goals))
    return pushes(loss, LAYOUTS["arm"], observe(*flat), POLICY_STD).reshape(*shape, 2)
