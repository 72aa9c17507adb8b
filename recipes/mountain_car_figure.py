"""The figures and the animation of `mountain_car.py`."""

import gymnasium
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import ml3_tf.envs  # noqa: F401 - registers the environment
from ml3_tf.envs.mountain_car import GOAL, INTERMEDIATE_GOAL, MAX_FORCE, MAX_POSITION, MIN_POSITION, START, TIME_STEP
from ml3_tf.figure_style import LINE_STYLES, TEXT_SIZE, style_axes

COLORS = {"shaped": "C0", "unshaped": "C1", "paper_setting": "C2", "ilqr": "0.35"}
LABELS = {"shaped": "shaped", "unshaped": "unshaped", "paper_setting": "setting of the paper", "ilqr": "iLQR"}


def draw_figure(results, planned, config):
    """Trajectories of the first seed over the hill, and distance against updates with quartiles over all policies.

    Args:
        results: What the seeds gave: `"paths"` and `"distances"`.
        planned: States of iLQR from the paper's start.
        config: Settings of the run.

    Returns:
        `matplotlib.figure.Figure`.
    """
    figure = Figure(figsize=(14, 4.6), dpi=150, layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=[1.25, 1, 1])
    reported = config["reported_step"]
    _draw_phase_portrait(axes[0], {**results[0]["paths"], "ilqr": planned})
    axes[0].set_title(f"(a) a policy of the first seed after {reported} updates")
    for ax, prefix, title in ((axes[1], "", "(b) the paper's start"), (axes[2], "random_start_", "(c) random starts")):
        for name in config["methods"]:
            distances = np.concatenate([np.array(result["distances"][prefix + name]) for result in results], axis=1)
            _draw_quartiles(ax, distances, name)
        ax.axvline(reported, color="0.5", linewidth=1, linestyle=":")
        ax.set(title=title, xlabel="policy updates", ylabel="final distance to the goal", ylim=(0, None))
    style_axes(axes)
    axes[0].grid(False)
    handles = {line.get_label(): line for line in axes[0].lines if not line.get_label().startswith("_")}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=7, fontsize=TEXT_SIZE, frameon=False)
    return figure


def _draw_phase_portrait(ax, paths):
    """Position and velocity; the shade is the height of the hill below."""
    positions = np.linspace(MIN_POSITION, MAX_POSITION, 200)
    heights = np.sin(3 * positions)[np.newaxis]
    extent = (MIN_POSITION, MAX_POSITION, -1.6, 1.7)
    ax.imshow(heights, extent=extent, aspect="auto", cmap="Greys", alpha=0.35, origin="lower")
    for name, path in paths.items():
        path = np.array(path)
        ax.plot(*path.T, color=COLORS[name], label=LABELS[name], linestyle=_style(name), linewidth=2)
        ax.plot(*path[-1], "o", color=COLORS[name], markersize=6)
    for place, marker, label in ((START, "s", "start"), (INTERMEDIATE_GOAL, "^", "shaping"), (GOAL, "*", "goal")):
        ax.plot(*place, marker, color="black", markersize=11, markerfacecolor="white", label=label, zorder=5)
    ax.set(xlabel="position (m), darker: higher", ylabel="velocity (m/s)", ylim=extent[2:])
    ax.set_xlim(MIN_POSITION - 0.02, MAX_POSITION + 0.06)


def _draw_quartiles(ax, distances, name):
    """Median and quartiles over seeds and policies."""
    lower, median, upper = np.percentile(distances, [25, 50, 75], axis=1)
    steps = np.arange(len(median))
    ax.plot(steps, median, color=COLORS[name], linestyle=_style(name), linewidth=2)
    ax.fill_between(steps, lower, upper, color=COLORS[name], alpha=0.2, linewidth=0)


def _style(name):
    return LINE_STYLES[list(COLORS).index(name) % len(LINE_STYLES)]


def write_animation(path, file):
    """Writes the states of a rollout as a GIF, drawn by the environment."""
    env = gymnasium.make("ml3_tf/MountainCarGoal-v0", render_mode="rgb_array").unwrapped
    env.reset()
    frames = []
    for state in path:
        env.state = np.array(state)
        frames.append(Image.fromarray(env.render()).quantize(32))
    durations = [round(1000 * TIME_STEP)] * (len(frames) - 1) + [1000]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)


def draw_loss(loss):
    """What the loss wants: the force that it likes best in each state, and its value against the force in three.

    Args:
        loss: A `MetaLoss` of force, state and final distance.

    Returns:
        `matplotlib.figure.Figure`.
    """
    figure = Figure(figsize=(14, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots(1, 3)
    forces = np.linspace(-MAX_FORCE, MAX_FORCE, 51)
    positions, velocities = np.linspace(MIN_POSITION, MAX_POSITION, 86), np.linspace(-1.5, 1.5, 61)
    for ax, distance, title in (
        (axes[0], 1.4, "(a) force preferred"),
        (axes[1], 0.05, "(b) force preferred"),
    ):
        states = np.stack(np.meshgrid(positions, velocities), -1)
        values = _values(loss, states, forces, distance)
        extent = (MIN_POSITION, MAX_POSITION, -1.5, 1.5)
        image = ax.imshow(forces[values.argmin(-1)], extent=extent, origin="lower", aspect="auto", cmap="RdBu_r")
        ax.plot(*GOAL, "*", color="black", markersize=13, markerfacecolor="white", clip_on=False)
        ax.plot(*START, "s", color="black", markersize=9, markerfacecolor="white")
        ax.set(title=f"{title}, {distance} from the goal", xlabel="position (m)", ylabel="velocity (m/s)")
    figure.colorbar(image, ax=axes[:2], label="force (N)")
    places = {"start": START, "on the way back": (-0.7, 0.5), "at the goal": GOAL}
    for (name, state), style in zip(places.items(), LINE_STYLES):
        values = _values(loss, np.array(state), forces, 0.05 if name == "at the goal" else 1.4)
        axes[2].plot(forces, values - values.min(), label=name, linestyle=style, linewidth=2)
    axes[2].set(title="(c) loss against force", xlabel="force (N)", ylabel="loss, from its least value")
    axes[2].legend(fontsize=TEXT_SIZE - 1, frameon=False)
    style_axes(axes)
    for ax in axes[:2]:
        ax.grid(False)
    return figure


def _values(loss, states, forces, distance):
    """The loss of each force in each state, `[..., forces]`."""
    shape = (*states.shape[:-1], len(forces), 1)
    rest = np.concatenate([np.broadcast_to(states[..., np.newaxis, :], (*shape[:-1], 2)), np.full(shape, distance)], -1)
    y_pred = np.broadcast_to(forces[:, np.newaxis], shape)
    return np.asarray(loss.call(rest.reshape(-1, 3), y_pred.reshape(-1, 1))).reshape(shape[:-1])
