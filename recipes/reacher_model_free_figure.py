"""The figures of `reacher_model_free.py` (ML3, figure 4, a and c)."""

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ml3_tf.envs.reacher import TIME_STEP, ReacherFingertipGoalEnv
from ml3_tf.figure_style import LINE_STYLES, TEXT_SIZE, style_axes

COLORS = {"learned": "C0", "ppo": "C1", "paper_ppo": "C2"}
LABELS = {"learned": "learned loss", "ppo": "PPO, tuned", "paper_ppo": "PPO, 20 episodes an update"}
TITLES = {"": "(a) unseen tasks", "shifted_": "(b) unseen directions of goals"}


def draw_figure(results):
    """Return against environment steps, median and range over seeds, for the methods and for depths of the policy.

    Args:
        results: What the seeds gave: `"curves"`, `"goal_conditioned"` and `"layers"`.

    Returns:
        `matplotlib.figure.Figure`.
    """
    num_panels = len(TITLES) + (len(results[0]["layers"]) > 1)
    figure = Figure(figsize=(14, 5.0), dpi=150, layout="constrained")
    axes = figure.subplots(1, num_panels, sharey=True, squeeze=False)[0]
    for ax, (prefix, title) in zip(axes, TITLES.items()):
        for (name, color), style in zip(COLORS.items(), LINE_STYLES):
            curves = [result["curves"][prefix + name] for result in results]
            _draw_curves(ax, curves, color=color, linestyle=style, label=LABELS[name])
        level = np.median([result["goal_conditioned"][prefix] for result in results])
        ax.axhline(level, color="0.5", linestyle=LINE_STYLES[3], linewidth=1.5, label="goal-conditioned policy")
        ax.set_xscale("symlog", linthresh=100)
        ax.set_xlim(
            0, 1.1 * max(result["curves"][prefix + name]["samples"][-1] for result in results for name in COLORS)
        )
        ax.set(title=title, xlabel="environment steps of a policy", ylabel="return (m)")
    if num_panels > len(TITLES):
        _draw_depths(axes[-1], results)
    style_axes(axes)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=TEXT_SIZE, frameon=False
    )
    return figure


def _draw_curves(ax, curves, **style):
    returns = np.array([curve["returns"] for curve in curves])
    samples = curves[0]["samples"]
    ax.plot(samples, np.median(returns, 0), linewidth=2, **style)
    ax.fill_between(samples, returns.min(0), returns.max(0), color=style["color"], alpha=0.2, linewidth=0)


def _draw_depths(ax, results):
    for order, (depth, style) in enumerate(zip(results[0]["layers"], LINE_STYLES)):
        curves = [result["layers"][depth] for result in results]
        _draw_curves(
            ax,
            curves,
            color=f"C{order + 4}",
            linestyle=style,
            label=f"{depth} hidden layer{'s' if int(depth) > 1 else ''}",
        )
    ax.set(title="(c) learned loss, other architectures", xlabel="environment steps of a policy", ylabel="return (m)")
    ax.legend(fontsize=TEXT_SIZE - 1, frameon=False, loc="lower right")


def write_animation(paths, goal, file):
    """Writes a GIF of an arm before (left) and after (right) its policy has learned.

    Args:
        paths: Angles of the joints before and after, each `[T + 1, 2]`, rad.
        goal: `[2]`, m.
        file: Path of the file.
    """
    env = ReacherFingertipGoalEnv(render_mode="rgb_array")
    frames = []
    for joints in zip(*np.asarray(paths)):
        pictures = [env.draw_frame(np.concatenate([angles, np.zeros(2)]), np.asarray(goal)) for angles in joints]
        frames.append(Image.fromarray(np.concatenate(pictures, 1)).quantize(32))
    durations = [round(2000 * TIME_STEP)] * (len(frames) - 1) + [1000]  # half speed, a rest at the end
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)
