"""Performance profiles: the share of runs whose score is above a threshold, for each threshold.

Source: Dolan and More, 2002, in the form of Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
Precipice", NeurIPS 2021.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ml3_tf.bench.results import Result
from ml3_tf.extras import needed_for

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THRESHOLDS = np.linspace(0.0, 1.0, 201)


def profile(scores: Sequence[float]) -> np.ndarray:
    """Returns the share of scores above each of `THRESHOLDS`.

    >>> profile([0.25, 0.75])[[0, 100, 200]].tolist()
    [1.0, 0.5, 0.0]
    """
    return np.mean(np.asarray(scores)[:, np.newaxis] > THRESHOLDS, axis=0)


def draw_profiles(groups: Mapping[str, Sequence[Result]]) -> "Figure":
    """Draws a panel for each group of results: the profiles of its losses after the first horizon."""
    with needed_for("The figure of the benchmark", "matplotlib", extra="plot"):
        from matplotlib import colormaps
        from matplotlib.figure import Figure

    columns = min(2, len(groups))
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(7 * columns, 5 * rows), dpi=120, layout="constrained")
    for number, (title, results) in enumerate(groups.items()):
        ax = figure.add_subplot(rows, columns, number + 1)
        losses = list(dict.fromkeys(result.loss for result in results))
        for loss, color in zip(losses, itertools.cycle(colormaps["tab20"].colors)):
            scores = [result.score["1"] for result in results if result.loss == loss]
            ax.plot(THRESHOLDS, profile(scores), label=loss, color=color, linewidth=1.5)
        ax.set(title=title, xlabel="score", ylabel="share of runs with a higher score", xlim=(0, 1), ylim=(0, 1))
        ax.legend(fontsize=7, frameon=False)
    return figure
