"""The figures of `shaped_sine.py`: loss landscapes over the frequency, recovery curves, and an animation."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ml3_tf.figure_style import TEXT_SIZE, style_axes
from ml3_tf.plotting import plot_learning_curve

# name -> label, colour, line style; the same in all panels
STYLES = {
    "shaped": ("shaped, per set", "C0", "-"),
    "per_point": ("shaped, per point", "C4", "--"),
    "shaped_without_x": ("shaped, without x", "C5", (0, (1, 1))),
    "shaped_on_noise": ("shaped, learned on noise", "C9", (0, (3, 1, 1, 1))),
    "unshaped": ("unshaped, per set", "C3", "-."),
    "mse": ("MSE, same rate", "C1", ":"),
    "mse_tuned": ("MSE, best rate", "C2", (0, (5, 2))),
}
LANDSCAPES = ("shaped", "unshaped", "mse")
FRAME_MILLISECONDS = 250


def draw_figure(results, grid, shown, inner_steps):
    """Landscapes of the first seed for two sines, and the share of frequencies recovered against steps.

    Args:
        results: One result of `run_seed` for each seed.
        grid: omega, `[G]`.
        shown: The true frequencies of the landscapes.
        inner_steps: Number of steps in meta-training, marked in the curves.

    Returns:
        `matplotlib.figure.Figure`.
    """
    figure = Figure(figsize=(14, 4.6), dpi=150, layout="constrained")
    *landscapes, curves = figure.subplots(1, len(shown) + 1, width_ratios=[1] * len(shown) + [1.25])
    for index, (ax, nu) in enumerate(zip(landscapes, shown)):
        for name in LANDSCAPES:
            label, color, style = STYLES[name]
            values = standardised(results[0]["landscapes"][name][-1][index])
            ax.plot(grid, values, color=color, linestyle=style, linewidth=2, label=label)
        _mark(ax, nu)
        ax.set(xlabel="omega", ylabel="loss, 0 to 1", title=f"(a{index + 1}) loss landscape, nu = {nu:g}")
    for name, (label, color, style) in STYLES.items():
        plot_learning_curve([result["meta_test"][name] for result in results], curves, label=label, color=color)
        curves.lines[-1].set_linestyle(style)
    curves.axvline(inner_steps, color="0.5", linewidth=1, linestyle=":")
    curves.text(inner_steps + 0.5, 0.53, "meta-trained\nfor 10 steps", fontsize=TEXT_SIZE - 2, color="0.35")
    curves.set(
        xlabel="gradient steps", ylabel="share recovered within .1", title="(b) unseen frequencies", ylim=(0, 1.03)
    )
    style_axes(figure.axes)
    handles = {line.get_label(): line for line in curves.lines if not line.get_label().startswith("_")}
    mark = landscapes[0].lines[-1]
    figure.legend(
        [*handles.values(), mark],
        [*handles, "true frequency"],
        loc="outside lower center",
        ncols=4,
        fontsize=TEXT_SIZE - 1,
        frameon=False,
    )
    return figure


def draw_landscapes(learned, baseline, grid, shown):
    """The figure of a model card: the shaped loss over omega beside MSE, one panel for each true frequency.

    Args:
        learned: Landscapes `[nu, G]` of the learned loss.
        baseline: Those of MSE.
        grid: omega, `[G]`.
        shown: The true frequencies.

    Returns:
        `matplotlib.figure.Figure`.
    """
    figure = Figure(figsize=(14, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True)
    for ax, nu, *curves in zip(axes, shown, learned, baseline):
        for label, color, style, values in zip(("learned", "MSE"), ("C0", "C1"), ("-", ":"), curves):
            ax.plot(grid, standardised(values), color=color, linestyle=style, linewidth=2, label=label)
        _mark(ax, nu)
        ax.set(xlabel="omega", title=f"nu = {nu:g}")
    axes[0].set_ylabel("loss, 0 to 1")
    style_axes(axes)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=TEXT_SIZE, frameon=False)
    return figure


def write_animation(landscapes, grid, shown, path):
    """Writes a GIF of the landscapes `[frames, nu, omega]` while the loss is learned; the last frame stays longer."""
    frames = [_frame(curves, grid, shown, index / (len(landscapes) - 1)) for index, curves in enumerate(landscapes)]
    durations = [FRAME_MILLISECONDS] * (len(frames) - 1) + [10 * FRAME_MILLISECONDS]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)


def standardised(values):
    """From 0 to 1: the scale of a loss is no more than a learning rate, and its offset moves no learner."""
    values = np.asarray(values, dtype=float)
    return (values - values.min()) / (np.ptp(values) or 1.0)


def _mark(ax, nu):
    ax.axvline(nu, color="0.15", linewidth=1.5, label="true frequency")
    ax.set_xticks([-6, -3, 0, 3, 6])


def _frame(curves, grid, shown, share):
    figure = Figure(figsize=(7, 2.8), dpi=80, layout="constrained")
    for ax, nu, values in zip(figure.subplots(1, len(shown)), shown, curves):
        ax.plot(grid, standardised(values), color=STYLES["shaped"][1], linewidth=2)
        _mark(ax, nu)
        ax.set(xlabel="omega", ylim=(-0.05, 1.05), title=f"nu = {nu:g}")
    style_axes(figure.axes)
    figure.axes[0].set_ylabel("shaped loss, 0 to 1", fontsize=TEXT_SIZE)
    figure.suptitle(f"{share:.0%} of meta-training", fontsize=TEXT_SIZE)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    return image.quantize(32, method=Image.Quantize.MEDIANCUT)
