"""The figures of the recipes that reach goals by experience alone (ML3, figure 4)."""

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from ml3_tf import LossInputs, MetaLoss
from ml3_tf.inspection import LINE_STYLES, TEXT_SIZE, style_axes
from ml3_tf.rl import Trajectory
from parts.experiment import Result
from parts.model_free.experiment import Experiment

METHODS = {  # method -> color, line style, label
    "learned": ("C0", LINE_STYLES[0], "learned loss"),
    "ppo": ("C1", LINE_STYLES[1], "PPO, tuned"),
    "paper_ppo": ("C2", LINE_STYLES[2], "PPO, 20 episodes an update"),
}
OTHER_LOSSES = (("C3", LINE_STYLES[1]), ("C9", LINE_STYLES[2]), ("C6", LINE_STYLES[0]))  # in their order
GOAL_CONDITIONED = "goal-conditioned policy"
MAX_COLUMNS = 5  # of panels; more are shared among rows


def draw_figure(results: Sequence[Result], experiment: Experiment) -> Figure:
    """Draws return against environment steps, median and range over seeds, for the methods and for policy depths.

    Args:
        results: The results of the seeds; of each, `"curves"`, `"goal_conditioned"` and `"layers"`.
        experiment: `Experiment`.
    """
    titles = [experiment.titles[prefix] for prefix in experiment.test_tasks]
    with_depths = len(results[0]["layers"]) > 1
    num_panels = len(titles) + with_depths
    num_rows = -(-num_panels // MAX_COLUMNS)
    num_columns = -(-num_panels // num_rows)
    figure = Figure(figsize=(4.8 * num_columns, 4.4 * num_rows + 0.8), dpi=130, layout="constrained")
    axes = list(figure.subplots(num_rows, num_columns, sharey=True, squeeze=False).flat)
    for ax in axes[num_panels:]:
        ax.remove()
    axes = axes[:num_panels]
    for ax, prefix in zip(axes, experiment.test_tasks):
        _draw_methods(ax, results, prefix, experiment)
    if with_depths:
        titles.append("learned loss, other architectures")
        _draw_depths(axes[-1], results)
    for ax, letter, title in zip(axes, string.ascii_lowercase, titles):
        ax.set(title=f"({letter}) {title}", xlabel="environment steps of a policy", ylabel="return (m)")
    style_axes(axes)
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, fontsize=TEXT_SIZE, frameon=False)
    return figure


def _draw_methods(ax: Axes, results: Sequence[Result], prefix: str, experiment: Experiment) -> None:
    others = [name for name in results[0]["meta_train"] if name != "learned"]
    styles = METHODS | {
        name: (*style, experiment.labels[name]) for name, style in zip(others, OTHER_LOSSES, strict=False)
    }
    longest = 0
    for name, (color, style, label) in styles.items():
        curves = [result["curves"][prefix + name] for result in results]
        _draw_curves(ax, curves, color=color, linestyle=style, label=label)
        longest = max(longest, curves[0]["samples"][-1])
    level = np.median([result["goal_conditioned"][prefix] for result in results])
    ax.axhline(level, color="0.5", linestyle=LINE_STYLES[3], linewidth=1.5, label=GOAL_CONDITIONED)
    ax.set_xscale("symlog", linthresh=100)
    ax.set_xlim(0, 1.1 * longest)


def _draw_curves(ax: Axes, curves: Sequence[Mapping[str, Any]], *, color: str, linestyle: str, label: str) -> None:
    returns = np.array([curve["returns"] for curve in curves])
    samples = curves[0]["samples"]
    ax.plot(samples, np.median(returns, 0), linewidth=2, color=color, linestyle=linestyle, label=label)
    ax.fill_between(samples, returns.min(0), returns.max(0), color=color, alpha=0.2, linewidth=0)


def _draw_depths(ax: Axes, results: Sequence[Result]) -> None:
    for order, (depth, style) in enumerate(zip(results[0]["layers"], LINE_STYLES)):
        curves = [result["layers"][depth] for result in results]
        label = f"{depth} hidden layer{'s' if int(depth) > 1 else ''}"
        _draw_curves(ax, curves, color=f"C{order + 4}", linestyle=style, label=label)
    ax.legend(fontsize=TEXT_SIZE - 1, frameon=False, loc="lower right")


def write_animation(env: gymnasium.Env, path: Mapping[str, Any], file: Path) -> None:
    """Writes a GIF of a robot before (left) and after (right) its policy has learned, at half speed.

    Args:
        env: The environment, made with `render_mode="rgb_array"`.
        path: `"states"`, before and after, each `[T + 1, S]`, and the `"goal"` `[G]`.
        file: Path of the file.
    """
    env, goal = env.unwrapped, np.asarray(path["goal"])
    frames = []
    for pair in zip(*np.asarray(path["states"])):
        pictures = [env.draw_frame(state, goal) for state in pair]
        frame = Image.fromarray(np.concatenate(pictures, 1))
        for index, caption in enumerate(("before", "after")):
            position = index * pictures[0].shape[1] + 10, 8
            ImageDraw.Draw(frame).text(position, caption, "black", font_size=18)
        frames.append(frame.quantize(32))
    durations = [round(2000 / env.metadata["render_fps"])] * (len(frames) - 1) + [1000]  # a rest at the end
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)


def pushes(
    loss: MetaLoss, loss_inputs: LossInputs, observations: tf.Tensor, std: float, *, num_actions: int = 64
) -> np.ndarray:
    """Returns how a loss pushes the means of a policy, `-d/d mean E_a[M]`, where they are 0.

    Args:
        loss: A `MetaLoss` of the features of `loss_inputs`.
        loss_inputs: `LossInputs` of the observation and the action.
        observations: `[P, O]`.
        std: Standard deviation of the actions.
        num_actions: Number of actions that the mean is taken over; as many opposite ones are added.

    Returns:
        `[P, A]`.
    """
    size = loss_inputs.features["mean_and_std"] // 2
    actions = np.random.default_rng(0).normal(0.0, std, (num_actions, size))
    actions = np.concatenate([actions, -actions]).astype("float32")  # their mean is 0
    number = observations.shape[0]
    # One time step for each action, and a last state that nothing sees.
    visited = tf.repeat(observations[:, tf.newaxis], len(actions) + 1, 1)
    taken, zeros = tf.tile(actions[tf.newaxis], [number, 1, 1]), tf.zeros((number, len(actions)))
    seen = loss_inputs(Trajectory(visited, taken, zeros, tf.zeros((number, 0)), zeros))
    seen = tf.reshape(seen, [-1, seen.shape[-1]])
    mean_and_std = np.tile([0.0] * size + [std] * size, (len(seen), 1))
    pushed = -loss.value_and_gradient(seen, mean_and_std)[1][:, :size]
    return pushed.reshape(number, len(actions), size).mean(1)
