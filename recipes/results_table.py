"""Write the README's results table from the committed results.

python recipes/results_table.py
"""

import json
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
MARKERS = "<!-- results -->\n", "<!-- /results -->"
METHODS = ("learned", "same_rate", "tuned")
# Folder below results/, what the row shows, and the metric of each method.
ROWS = [
    (
        folder,
        f"{label}, error after {steps} steps",
        [f"test_mse_{method}{suffix}" for method in methods],
    )
    for folder, label in (
        ("sine_regression", "sine regression"),
        ("sine_regression_paper", "the same, setting of the paper"),
    )
    for steps, suffix, methods in (
        ("100", "", METHODS),
        ("1,000", "_1000", ("learned", "same_rate", "tuned_for")),
    )
]


def results_table():
    """Returns the table in Markdown: mean and standard deviation over seeds."""
    lines = [
        "| experiment | learned loss | task loss, same rate | task loss, best rate | learned / same | learned / best |",
        "|---|---|---|---|---|---|",
    ]
    for folder, label, names in ROWS:
        metrics = json.loads((ROOT / "results" / folder / "summary.json").read_text())["metrics"]
        values = [metrics[name] for name in names]
        means = [np.mean(value) for value in values]
        cells = [f"{mean:.3g} ± {np.std(value):.2g}" for mean, value in zip(means, values)]
        ratios = [f"{means[0] / mean:.2f}" for mean in means[1:]]
        lines.append(f"| [{label}](results/{folder}) | {' | '.join(cells + ratios)} |")
    return "\n".join(lines) + "\n"


def with_results(readme):
    """Returns the text of the README with the table in its place."""
    before, rest = readme.split(MARKERS[0])
    return before + MARKERS[0] + results_table() + MARKERS[1] + rest.split(MARKERS[1])[1]


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_results(path.read_text()))
