"""Write the README's results table from the committed results.

python recipes/results_table.py
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).parents[1]
MARKERS = "<!-- results -->\n", "<!-- /results -->"


class Row(NamedTuple):
    """One line of the table.

    Args:
        folder: Folder below `results/`.
        label: What is measured.
        learned: Metric of the learned loss.
        same_rate: Metric of the task loss at the same rate.
        tuned: Metric of the task loss at its best rate.
        higher_is_better: Whether more of it is better.
    """

    folder: str
    label: str
    learned: str
    same_rate: str
    tuned: str
    higher_is_better: bool = False


ROWS = [
    Row(folder, f"{label}, error after {steps} steps ↓", *(f"test_mse_{method}{suffix}" for method in methods))
    for folder, label in (
        ("sine_regression", "sine regression"),
        ("sine_regression_paper", "the same, setting of the paper"),
    )
    for steps, suffix, methods in (
        ("100", "", ("learned", "same_rate", "tuned")),
        ("1,000", "_1000", ("learned", "same_rate", "tuned_for")),
    )
]
ROWS += [
    Row(
        "shaped_sine",
        "shaped sine, share of frequencies recovered in 10 steps ↑",
        *(f"recovered_{method}" for method in ("shaped", "mse", "mse_tuned")),
        higher_is_better=True,
    ),
]


def results_table():
    """Returns the table in Markdown: mean and standard deviation over seeds, and on how many of them it is better."""
    lines = [
        "| experiment | learned loss | task loss, same rate | task loss, best rate | better than same | than best |",
        "|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        metrics = json.loads((ROOT / "results" / row.folder / "summary.json").read_text())["metrics"]
        learned, *others = [np.array(metrics[name]) for name in (row.learned, row.same_rate, row.tuned)]
        cells = [f"{values.mean():.3g} ± {values.std():.2g}" for values in (learned, *others)]
        sign = 1 if row.higher_is_better else -1
        wins = [f"{np.sum(sign * (learned - values) > 0)} of {len(values)}" for values in others]
        lines.append(f"| [{row.label}](results/{row.folder}) | {' | '.join(cells + wins)} |")
    return "\n".join(lines) + "\n"


def with_results(readme):
    """Returns the text of the README with the table in its place."""
    before, rest = readme.split(MARKERS[0])
    return before + MARKERS[0] + results_table() + MARKERS[1] + rest.split(MARKERS[1])[1]


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_results(path.read_text()))
