"""Write the figures and the generated parts of the model cards in `savedmodels/`.

    make cards

A generated part stands between two comments, `<!-- NAME -->` and `<!-- /NAME -->`. The parts come from the exports and
from `results/*/summary.json`:

- `features`: a table of the loss's features, its network and its learned rate.
- `results`: a table of the results over the seeds.
- `closed form`: the loss as a formula, for losses of one prediction and one target.
- `origin`: the command of the run and the SHA-256 of the manifest.

The figure is `savedmodels/NAME/meta_loss.png`. A second run changes nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from card_contents import CARDS, Card, Row, Table

import ml3_tf
from ml3_tf.inspection import explain

ROOT = Path(__file__).parents[1]


def make_card(name: str, folder: Path) -> None:
    """Writes the figure and the generated parts of one card.

    Args:
        name: Name of a shipped loss.
        folder: Folder of the card, `savedmodels/NAME`.
    """
    path, loss = folder / "README.md", ml3_tf.load_meta_loss(name)
    CARDS[name].draw(loss).savefig(folder / "meta_loss.png")
    path.write_text(fill(path.read_text(), generate_parts(CARDS[name], loss, folder)))


def generate_parts(card: Card, loss: ml3_tf.MetaLoss, folder: Path) -> dict[str, str]:
    """Returns the generated parts of a card, name -> Markdown."""
    summary = json.loads((ROOT / "results" / card.table.results / "summary.json").read_text())
    newest = max((path for path in folder.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
    digest = hashlib.sha256((newest / "assets.extra" / "manifest.json").read_bytes()).hexdigest()
    manifest = f"{newest.name}/assets.extra/manifest.json"
    parts = {
        "features": _features(loss, card.units),
        "results": format_table(card.table, summary["metrics"]),
        "origin": f"Command: `{summary['command']}`\n\nSHA-256 of `{manifest}`: `{digest}`\n",
    }
    if card.explained is not None:
        parts["closed form"] = _closed_forms(loss, card.explained)
    return parts


def fill(text: str, parts: Mapping[str, str]) -> str:
    """Returns a text with its generated parts in their places.

    Raises:
        ValueError: The text does not hold each pair of comments exactly once.

    Example:

    >>> fill("<!-- a -->old<!-- /a -->", {"a": "new"})
    '<!-- a -->\\nnew\\n<!-- /a -->'
    """
    for name, part in parts.items():
        pattern = rf"<!-- {name} -->.*?<!-- /{name} -->"
        if len(re.findall(pattern, text, re.DOTALL)) != 1:
            raise ValueError(f"Expected the comments `<!-- {name} -->` and `<!-- /{name} -->` once in the card.")
        new = f"<!-- {name} -->\n{part.strip()}\n<!-- /{name} -->"
        text = re.sub(pattern, lambda _, new=new: new, text, flags=re.DOTALL)
    return text


def format_table(table: Table, metrics: Mapping[str, Sequence[float]]) -> str:
    """Returns a table of results in Markdown.

    Args:
        table: The `Table`.
        metrics: Name of a metric -> one value for each seed.
    """
    titles = ["", *table.columns, *(["this loss"] if table.first_seed else [])]
    lines = [_line(titles), "|" + "---|" * len(titles)]
    for title, row in table.rows.items():
        cells = [_cell(table, row, method, metrics) for method in table.columns.values()]
        if table.first_seed:
            values = _values(row, table.first_seed, metrics)
            cells.append("-" if values is None else _number(values[0], row))
        lines.append(_line([title, *cells]))
    return "\n".join(lines) + "\n"


def _cell(table: Table, row: Row, method: str, metrics: Mapping[str, Sequence[float]]) -> str:
    values = _values(row, method, metrics)
    if values is None:
        return "-"
    if table.spread == "deviation":
        form, deviation_form = row.form
        cell = f"{np.mean(values):{form}} ± {np.std(values):{deviation_form}}"
        return f"{cell} ({values[0]:{form}})" if method in table.in_brackets else cell
    reached = values[values != _never(row)]
    if not len(reached):
        return "never"
    low, high = (25, 75) if table.spread == "quartiles" else (0, 100)
    middle, low, high = (format(value, row.form) for value in np.percentile(reached, [50, low, high]))
    share = f" on {len(reached)} of {len(values)}" if len(reached) < len(values) else ""
    return f"{middle} ({low}, {high}){share}"


def _values(row: Row, method: str, metrics: Mapping[str, Sequence[float]]) -> np.ndarray | None:
    """The values of the seeds, or `None` where the method has no such metric."""
    values = metrics.get(row.metric.format(method))
    if values is None or (row.method is not None and row.method != method):
        return None
    return np.array(values) if _never(row) is not None else row.factor * np.array(values)


def _never(row: Row) -> float | None:
    """What stands in `summary.json` for a level that was never reached."""
    return -1 if "samples_to_level" in row.metric else None


def _number(value: float, row: Row) -> str:
    form = row.form if isinstance(row.form, str) else row.form[0]
    return "never" if value == _never(row) else format(value, form)


def _features(loss: ml3_tf.MetaLoss, units: Mapping[str, str]) -> str:
    lines = [_line(["feature", "width", "divided by", "meaning"]), "|---|---|---|---|"]
    start = 0
    for name, width in loss.features.items():
        scale = [1.0] * width if loss.input_scale is None else loss.input_scale[start : start + width]
        lines.append(_line([f"`{name}`", str(width), _divisors(scale), units[name]]))
        start += width
    return "\n".join([*lines, "", _describe(loss)]) + "\n"


def _divisors(scale: Sequence[float]) -> str:
    runs = [(divisor, len(list(run))) for divisor, run in itertools.groupby(scale)]
    if len(runs) == 1:
        return f"{scale[0]:g}"
    return ", ".join(f"{divisor:g}" if length == 1 else f"{length} × {divisor:g}" for divisor, length in runs)


def _closed_forms(loss: ml3_tf.MetaLoss, arguments: Mapping[str, Any]) -> str:
    """The best form of up to three terms, and the best one of a single term unless that is poor."""
    best, shortest = (explain(loss, max_terms=number, **arguments) for number in (3, 1))
    lines = [f"`{best}`"]
    if len(best.terms) > 1 and shortest.r_squared > 0.8:
        lines.append(f"With one term: `{shortest}`")
    return "\n\n".join(lines)


def _describe(loss: ml3_tf.MetaLoss) -> str:
    """The mode, the networks and the learned rate of a loss, in a line."""
    networks = [_layers("network", loss.network)]
    if loss.score_network is not None:
        networks.append(_layers("score network", loss.score_network))
    rate = "none" if loss.learned_rate is None else f"{float(np.exp(loss.learned_rate.log_rate)):.3g}"
    return f"Mode: `{loss.mode}`. {' '.join(networks)} Learned rate, a factor of its value: {rate}."


def _layers(title: str, network: Any) -> str:
    layers = [f"{layer.units} (`{layer.get_config()['activation']}`)" for layer in network.layers]
    return f"Layers of the {title}: {', '.join(layers)}."


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


if __name__ == "__main__":
    for card_name in sys.argv[1:] or CARDS:
        make_card(card_name, ROOT / "savedmodels" / card_name)
