"""The figure of a diagnosis: where a meta-gradient is small, wrong or explodes, and where learners drift."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from ml3_tf.diagnosis import Diagnosis
from ml3_tf.inspection.style import TEXT_SIZE, style_axes

GOOD, BAD, UNKNOWN = "C0", "C3", "0.6"  # blue, red, gray
RIGHT = 1e-4  # the largest relative error of a derivative that agrees
SMALLEST = 1e-16  # an error of zero, on a logarithmic axis
LARGEST = 1e60  # what explodes further ends here: the ends of an axis must be numbers, too
MAX_ROWS = 16  # that one can read
LONGEST_NAME = 28


def plot_diagnosis(diagnosis: Diagnosis) -> Figure:
    """Draws a diagnosis in four panels.

    (a) The norm of the meta-gradient of each variable. (b) How far the derivatives of each layer, and the meta-gradient
    of each variable, are from finite differences; right of the line they are wrong. (c) The norm of the meta-gradient
    by the number of steps; the dashed line grows in proportion. (d) The task loss of learners, up to ten lives. Blue is
    right, red is wrong, and gray is not known.

    Args:
        diagnosis: A `ml3_tf.Diagnosis`, from `MetaTrainer.diagnose`.

    Returns:
        `matplotlib.figure.Figure` of 14 x 9 inches, bound to no display.

    Raises:
        ValueError: A diagnosis without variables.

    Example:

    >>> from ml3_tf.diagnosis import VariableCheck
    >>> kernel = VariableCheck("dense/kernel", (2, 4), 0.1, 1e-9, "agrees")
    >>> diagnosis = Diagnosis(variables=(kernel,), by_steps={1: 0.05, 2: 0.1}, drift={0: 2.0, 1: 1.0, 3: 0.5})
    >>> len(plot_diagnosis(diagnosis).axes)
    4
    """
    if not diagnosis.variables:
        raise ValueError("The diagnosis has no variables: expected one that `MetaTrainer.diagnose` returned.")
    figure = Figure(figsize=(14, 9), layout="constrained")
    (norms, errors), (steps, drift) = figure.subplots(2, 2)
    _draw_norms(diagnosis, norms)
    _draw_errors(diagnosis, errors)
    _draw_steps(diagnosis, steps)
    _draw_drift(diagnosis, drift)
    style_axes([norms, errors, steps, drift])
    for ax in (norms, errors):
        ax.tick_params(axis="y", labelsize=TEXT_SIZE - 3)
        ax.grid(False, axis="y")
    count = len(diagnosis.findings)
    summary = "nothing is wrong" if not count else "; ".join(f.problem.rstrip(".") for f in diagnosis.findings[:2])
    summary += f"; and {count - 2} more" if count > 2 else ""
    figure.suptitle(f"Diagnosis: {summary}", fontsize=TEXT_SIZE + 2, fontweight="bold", wrap=True)
    return figure


def _draw_norms(diagnosis: Diagnosis, ax: Axes) -> None:
    rows = diagnosis.variables[:MAX_ROWS]
    colors = [_color(row.verdict) for row in rows]
    _draw_bars(ax, [row.name for row in rows], [row.norm for row in rows], colors)
    logarithms = [math.log10(row.norm) for row in rows if 0 < row.norm <= LARGEST] or [0.0]
    ax.set_xlim(10.0 ** math.floor(min(logarithms) - 0.5), 10.0 ** math.ceil(max(logarithms) + 0.1))  # decades
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(title="(a) the meta-gradient of each variable", xlabel="norm")


def _draw_errors(diagnosis: Diagnosis, ax: Axes) -> None:
    layers = [(f"{layer.name} ({layer.kind.split(':')[0]})", layer) for layer in diagnosis.layers]
    rows = [
        *((f"{name}, 1st", layer.first_error, layer.verdict) for name, layer in layers),
        *((f"{name}, 2nd", layer.second_error, layer.verdict) for name, layer in layers),
    ]
    rows = sorted(rows, key=lambda row: -1.0 if math.isnan(row[1]) else row[1], reverse=True)[: MAX_ROWS // 2]
    rows += [(row.name, row.error, row.verdict) for row in diagnosis.variables[: MAX_ROWS // 2]]
    is_wrong = lambda error, verdict: error > RIGHT and _color(verdict) == BAD
    colors = [BAD if is_wrong(error, verdict) else UNKNOWN if math.isnan(error) else GOOD for _, error, verdict in rows]
    _draw_bars(ax, [name for name, *_ in rows], [max(error, SMALLEST) for _, error, _ in rows], colors)
    ax.axvline(RIGHT, color="0.3", linestyle="--", linewidth=1)
    ax.set(title="(b) distance from finite differences", xlabel="relative error", xlim=(SMALLEST, 10))


def _draw_bars(ax: Axes, names: Sequence[str], values: Sequence[float], colors: Sequence[str]) -> None:
    """Draws a bar for each name, the first on top; a value that is not known or not positive has none."""
    places = np.arange(len(names))[::-1]
    drawn = [value if 0 < value <= LARGEST else math.nan for value in values]
    ax.set_xscale("log")
    ax.barh(places, drawn, color=colors, height=0.7)
    for place, value in zip(places, values):
        if not 0 < value <= LARGEST:
            ax.annotate(
                "0" if value == 0 else "not known" if math.isnan(value) else f"above {LARGEST:.0e}",
                (0, place),
                xycoords=("axes fraction", "data"),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                color="0.3",
            )
    shorten = lambda name: name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :]
    ax.set_yticks(places, [shorten(name) for name in names])


def _draw_steps(diagnosis: Diagnosis, ax: Axes) -> None:
    counts, norms = _finite(diagnosis.by_steps)
    color = BAD if any("explodes" in finding.problem for finding in diagnosis.findings) else GOOD
    ax.set(xscale="log", yscale="log")
    ax.plot(counts, norms, "o-", color=color, label="measured")
    if counts:
        ax.plot(counts, [norms[0] * count / counts[0] for count in counts], "--", color="0.5", label="in proportion")
        ax.legend(frameon=False, fontsize=TEXT_SIZE - 1)
    ax.set_xticks(counts, [f"{count:,}" for count in counts], minor=False)
    ax.set_xticks([], minor=True)
    ax.set(title="(c) the meta-gradient by the unroll", xlabel="inner steps", ylabel="norm")


def _draw_drift(diagnosis: Diagnosis, ax: Axes) -> None:
    ages, losses = _finite(diagnosis.drift)
    color = BAD if any("drift" in finding.problem for finding in diagnosis.findings) else GOOD
    ax.set_xscale("symlog", linthresh=max(1, diagnosis.inner_steps // 2))
    if losses and max(losses) > 100 * min(losses) > 0:
        ax.set_yscale("log")
    ax.plot(ages, losses, "o-", color=color)
    ax.axvline(diagnosis.inner_steps, color="0.3", linestyle=":", linewidth=1.5)
    ax.set_xticks(ages, [f"{age:,}" for age in ages], minor=False)
    ax.set_xticks([], minor=True)
    end = Line2D([], [], color="0.3", linestyle=":", label="end of a life")
    ax.legend(handles=[end], frameon=False, fontsize=TEXT_SIZE - 1)
    ax.set(title="(d) learners beyond their life", xlabel="steps of a learner", ylabel="task loss on the query")


def _finite(values: Mapping[int, float]) -> tuple[list[int], list[float]]:
    kept = {count: min(value, LARGEST) for count, value in values.items() if math.isfinite(value)}
    return list(kept), list(kept.values())


def _color(verdict: str) -> str:
    if any(word in verdict for word in ("differs", "cut", "wrong", "missing")):
        return BAD
    return GOOD if verdict in ("agrees", "zero", "no effect") else UNKNOWN
