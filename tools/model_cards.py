"""Write the generated parts of the model cards: tables of features and of results, and the figures.

    python tools/model_cards.py                                 tables, and figures that are missing
    PYTHONPATH=recipes python tools/model_cards.py --figures    tables, and all figures

The features come from the shipped loss, the results from `results/*/summary.json`, see `model_card_tables.py`. An
existing `meta_loss.png` stays unless you ask for it: the same loss gives the same picture, but its bytes depend on the
machine. The figures of policies' losses are drawn by functions of their recipes, which must be on the path.
"""

import functools
import importlib
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from model_card_tables import TABLES, Table

import ml3_tf
from ml3_tf.inspection import plot_meta_loss

ROOT = Path(__file__).parents[1]
CARDS = ROOT / "savedmodels"
NEVER = -1  # number of samples of a policy that does not get there


def _by_recipe(module: str, function: str = "draw_loss", *arguments: Any) -> Callable[[ml3_tf.MetaLoss], Figure]:
    """Returns a function that draws a loss, from `recipes/parts`; it is imported when it is called."""
    return lambda loss: getattr(importlib.import_module(f"parts.{module}"), function)(loss, *arguments)


SHOWN_FREQUENCIES = (-4.5, -1, 2, 6)
ROBOT = {"task": "regression", "y_range": (-3, 3)}
TITLE = "{}: what the loss has learned"
FIGURES: dict[str, Callable[[ml3_tf.MetaLoss], Figure]] = {
    "ant_model_free": _by_recipe("ant_model_free.figure"),
    "digits": functools.partial(plot_meta_loss, task="classification"),
    "inverse_dynamics_reacher": functools.partial(plot_meta_loss, **ROBOT),
    "inverse_dynamics_sawyer": functools.partial(
        plot_meta_loss, title=TITLE.format("inverse_dynamics_sawyer"), **ROBOT
    ),
    "label_free": _by_recipe("label_free.figure"),
    "mountain_car": _by_recipe("mountain_car.figure"),
    "noisy_labels": _by_recipe("noisy_labels.figure"),
    "pointmass": _by_recipe("pointmass.figure"),
    "reacher_demonstrations": _by_recipe("reacher_demonstrations.figure"),
    "reacher_model_based": _by_recipe("reacher_model_based.figure"),
    "reacher_model_free": _by_recipe("reacher_model_free.figure"),
    "reacher_model_free_rewards": _by_recipe("reacher_model_free.figure", "draw_reward_aware_loss"),
    "shaped_sine": _by_recipe("shaped_sine.figures", "draw_landscapes", SHOWN_FREQUENCIES),
    "sine": functools.partial(plot_meta_loss, title=TITLE.format("sine")),
}


def features_table(name: str) -> str:
    """Returns what a loss reads, in Markdown: width and divisor of each feature, the mode and the learned rate."""
    loss = ml3_tf.load_meta_loss(name)
    widths = list(loss.features.values())
    divisors = [1.0] * sum(widths) if loss.input_scale is None else [float(value) for value in loss.input_scale]
    rows = []
    for (feature, width), end in zip(loss.features.items(), itertools.accumulate(widths)):
        rows.append([f"`{feature}`", str(width), _divisors(divisors[end - width : end])])
    rate = "none" if loss.learned_rate is None else f"{float(loss.learned_rate(np.ones((), np.float32))):.3g}"
    mode = f"Mode: `{loss.mode}`. Learned learning rate: {rate}.\n"
    return f"{_markdown(['feature', 'width', 'divisor'], rows)}\n{mode}"


def _divisors(values: Sequence[float]) -> str:
    """Returns one number for equal divisors, and the count of each run of equal ones otherwise."""
    runs = [(value, len(list(run))) for value, run in itertools.groupby(values)]
    if len(runs) == 1:
        return f"{values[0]:g}"
    return ", ".join(f"{value:g}" if count == 1 else f"{value:g} ({count} times)" for value, count in runs)


def results_table(name: str) -> str:
    """Returns the results of a loss over seeds, in Markdown."""
    table = TABLES[name]
    metrics = json.loads((ROOT / "results" / table.folder / "summary.json").read_text(encoding="utf-8"))["metrics"]
    columns, rows = list(table.columns), []
    for label, row in table.rows.items():
        metric, spec = row.split()
        names = [metric.format(part) for part in table.columns.values()]
        values = [metrics.get(table.replaced.get(name, name)) for name in names]
        cells = [_cell(numbers, spec, table) for numbers in values]
        if table.spread != "deviation":
            cells.append(_number(values[0][0], spec) if values[0][0] != NEVER or "," not in spec else "never")
        rows.append([label, *cells])
    return _markdown(["", *columns] + ([] if table.spread == "deviation" else ["this loss"]), rows)


def _cell(values: Sequence[float] | None, spec: str, table: Table) -> str:
    if values is None:
        return "-"
    numbers = np.asarray(values)
    if table.spread == "deviation":
        parts = numbers.mean(), numbers.std(), numbers[0]
        mean, deviation, first = map(_number, parts, (spec.split("/")[0], spec.split("/")[-1], spec.split("/")[0]))
        return f"{mean} ± {deviation} ({first})"
    there = numbers[numbers != NEVER] if "," in spec else numbers
    if not len(there):
        return "never"
    shares = (0, 50, 100) if table.spread == "range" else (25, 50, 75)
    least, median, most = (_number(value, spec) for value in np.percentile(there, shares))
    missing = f" on {len(there)} of {len(numbers)}" if len(there) < len(numbers) else ""
    return f"{median} ({least}, {most}){missing}"


def _number(value: float, spec: str) -> str:
    return format(value, spec).rstrip("%")


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines).replace("|  |", "| |")


def update_card(name: str, text: str) -> str:
    """Returns the text of a card with its generated tables between their markers."""
    text = _between(text, "features", features_table(name))
    return _between(text, "results", results_table(name)) if name in TABLES else text


def _between(text: str, marker: str, content: str) -> str:
    before, rest = text.split(f"<!-- {marker} -->\n")
    _, after = rest.split(f"<!-- /{marker} -->\n")
    return f"{before}<!-- {marker} -->\n\n{content}\n<!-- /{marker} -->\n{after}"


def main(*, all_figures: bool = False) -> None:
    """Writes the tables of all cards, and the figures that are missing.

    Args:
        all_figures: Whether to draw the existing figures, too.
    """
    for name in ml3_tf.list_meta_losses().names:
        card, figure = CARDS / name / "README.md", CARDS / name / "meta_loss.png"
        card.write_text(update_card(name, card.read_text(encoding="utf-8")), encoding="utf-8")
        if all_figures or not figure.exists():
            FIGURES[name](ml3_tf.load_meta_loss(name)).savefig(figure)


if __name__ == "__main__":
    main(all_figures="--figures" in sys.argv[1:])
