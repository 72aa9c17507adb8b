"""Tests of `tools/model_cards.py`: the generated parts of the committed cards are those of losses and results."""

import itertools
import json
import re
from pathlib import Path

import model_cards
import numpy as np
import pytest

import ml3_tf

ROOT = Path(__file__).parents[2]
NAMES = ml3_tf.list_meta_losses().names
CARDS = {name: (ROOT / "savedmodels" / name / "README.md").read_text(encoding="utf-8") for name in NAMES}
NUMBER = re.compile(r"-?[\d,]*\d(?:\.\d+)?")


def lines_between(card, marker):
    """Returns the rows of a table between its markers, as lists of cells without the two lines of the head."""
    content = card.split(f"<!-- {marker} -->\n")[1].split(f"<!-- /{marker} -->\n")[0]
    rows = [line for line in content.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def statistics(values):
    """Returns each number that a table may show of a metric."""
    values = np.array(values)
    shown = [values[0], values.mean(), values.std(), *np.percentile(values, [0, 25, 50, 75, 100])]
    if (values == -1).any() and (values > 0).any():
        shown += [*np.percentile(values[values > 0], [0, 25, 50, 75, 100]), np.sum(values > 0), len(values)]
    return shown


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_card_is_what_the_tool_makes(name):
    assert model_cards.update_card(name, CARDS[name]) == CARDS[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_card_has_its_sections_in_order(name):
    titles = re.findall(r"^## (.+)$", CARDS[name], re.MULTILINE)
    assert titles == ["Use", "Features", "Training", "Results", "Limits", "What it has learned", "Origin"]
    assert CARDS[name].startswith(f"# {name}\n\n")
    assert "](meta_loss.png)" in CARDS[name]


@pytest.mark.parametrize("name", NAMES)
def test_each_number_of_the_results_comes_from_the_summary(name):
    path = ROOT / "results" / model_cards.TABLES[name].folder / "summary.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
    known = np.array(list(itertools.chain.from_iterable(map(statistics, metrics.values()))))
    rows = lines_between(CARDS[name], "results")
    assert rows
    for label, *cells in rows:
        scale = 100 if "(%)" in label else 1
        for number in NUMBER.findall(" ".join(cells)):
            digits = len(number.partition(".")[2])
            # A number may have lost trailing zeros, so it is close to half a unit of its last digit.
            error = np.min(np.abs(scale * known - float(number.replace(",", ""))))
            assert error <= 0.501 * 10.0**-digits, (label, number)


def test_the_features_are_those_of_the_loss():
    assert lines_between(CARDS["mountain_car"], "features") == [
        ["`force`", "1", "0.25"],
        ["`state`", "2", "0.3"],
        ["`final_error`", "2", "0.5"],
    ]
    assert "Mode: `per_sample`. Learned learning rate: none." in CARDS["mountain_car"]


def test_a_cell_shows_median_and_quartiles_and_the_last_column_seed_0():
    metrics = json.loads((ROOT / "results" / "pointmass" / "summary.json").read_text(encoding="utf-8"))["metrics"]
    values = metrics["final_distance_learned"]
    least, median, most = np.percentile(values, [25, 50, 75])
    row = lines_between(CARDS["pointmass"], "results")[0]
    assert row[1] == f"{median:.3f} ({least:.3f}, {most:.3f})"
    assert row[-1] == f"{values[0]:.3f}"


def test_a_cell_shows_mean_and_deviation_and_seed_0():
    metrics = json.loads((ROOT / "results" / "digits" / "summary.json").read_text(encoding="utf-8"))["metrics"]
    values = 100 * np.array(metrics["accuracy_learned_20"])
    row = lines_between(CARDS["digits"], "results")[1]
    assert row[1] == f"{values.mean():.1f} ± {values.std():.1f} ({values[0]:.1f})"


def test_policies_that_do_not_get_there_are_left_out_of_the_median():
    table = model_cards.TABLES["ant_model_free"]
    assert model_cards._cell([100, -1, 300], ",.0f", table) == "200 (100, 300) on 2 of 3"
    assert model_cards._cell([-1, -1], ",.0f", table) == "never"
    assert model_cards._cell(None, ",.0f", table) == "-"


@pytest.mark.parametrize("name", NAMES)
def test_the_figure_of_a_card_is_what_the_tool_draws(name):
    """The sizes, in pixels. The bytes depend on the machine."""
    png = (ROOT / "savedmodels" / name / "meta_loss.png").read_bytes()
    committed = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    figure = model_cards.FIGURES[name](ml3_tf.load_meta_loss(name))
    assert tuple(np.round(figure.dpi * figure.get_size_inches())) == committed


def test_an_existing_figure_stays_and_a_missing_one_is_drawn(tmp_path, monkeypatch):
    """The text of a card and its figure, in a copy of the folder of one loss."""
    monkeypatch.setattr(model_cards, "CARDS", tmp_path)
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(CARDS[name], encoding="utf-8")
        if name != "digits":
            (tmp_path / name / "meta_loss.png").write_bytes(b"as it is")
    model_cards.main()
    assert (tmp_path / "digits" / "meta_loss.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "sine" / "meta_loss.png").read_bytes() == b"as it is"
    assert all((tmp_path / name / "README.md").read_text(encoding="utf-8") == CARDS[name] for name in NAMES)
