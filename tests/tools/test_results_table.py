"""Tests of `tools/results_table.py`: the tables are those of the committed results."""

import json
import re
from pathlib import Path

import numpy as np
import results_table

ROOT = Path(__file__).parents[2]


def test_the_committed_tables_are_those_of_the_results():
    for (page, name), make in results_table.TABLES.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        assert results_table.with_table(text, make(), name) == text


def test_costs_are_medians_over_seeds(tmp_path, monkeypatch):
    costs = {"meta_train": [1.0, 2.0, 3.0], "learned": [0.25, 0.25, None], "baseline": [0.5, 0.5, 0.75]}
    samples = {"meta_train": [2e6, 2e6, 2e6], "learned": [None, None, 100], "baseline": [5000, None, 5000]}
    monkeypatch.setattr(results_table, "ROOT", tmp_path)
    for name, summary in {"toy": {"costs": {"core_minutes": costs, "samples": samples}}, "other": {}}.items():
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "summary.json").write_text(json.dumps(summary))
    rows = [line.split(" | ")[1:] for line in results_table.costs_table().splitlines()[2:]]
    assert rows == [
        ["core-minutes", "2", "0.25 (2 of 3 seeds)", "0.5", "8 (2 of 3 seeds) |"],
        ["samples", "2,000,000", "never (1 of 3 seeds)", "5,000 (2 of 3 seeds)", "never (1 of 3 seeds) |"],
    ]


def test_each_comparison_has_a_verdict():
    sections = results_table.verdict_tables().split("### ")[1:]
    assert [section.splitlines()[0] for section in sections] == [
        "The learned loss is better",
        "No sure difference",
        "The learned loss is worse",
    ]
    lines = [re.findall(r"\d\.\d\d \[.*\]", section) for section in sections]
    assert sum(map(len, lines)) == sum(row.tuned is not None for row in results_table.ROWS)
    for verdict, intervals in zip((1, 0, -1), lines, strict=True):
        for interval in intervals:
            low, high = map(float, interval.split("[")[1].rstrip("]").split(", "))
            assert (low > 0.495) - (high < 0.505) == verdict or 0.49 < low < 0.51 or 0.49 < high < 0.51


def test_the_best_optimizer_is_that_of_the_tuning_tasks():
    rows = [row for row in results_table.ROWS if "against the best optimizer" in row.label]
    assert rows
    for row in rows:
        config = json.loads((ROOT / "results" / row.folder / "summary.json").read_text())["config"]
        task = row.learned.removeprefix("trained_side_").split("_")[0]  # a recipe names the best optimizer of each task
        names = {"ten": "best_optimizer_ten", "diabetes": "diabetes_best_optimizer", "final": "best_baseline"}
        name = names.get(task, "best_optimizer")
        assert re.sub(r"_\d+$", "", row.tuned).endswith(f"_{config[name]}")


def test_the_readme_shows_few_rows_and_losses_among_them():
    lines = results_table.readme_table().splitlines()[2:]
    wins = [line.split(" | ")[-1] for line in lines]
    assert len(lines) <= 11
    assert sum(win.startswith(("0 of", "1 of", "2 of", "3 of 10")) for win in wins) >= 3


def test_a_row_is_the_mean_over_seeds():
    [row] = [row for row in results_table.ROWS if row.label == "sine regression, error after 100 steps ↓"]
    metrics = json.loads((ROOT / "results" / row.folder / "summary.json").read_text())["metrics"]
    learned, tuned = np.array(metrics[row.learned]), np.array(metrics[row.tuned])
    cells = results_table._cells(row)
    middle = np.sort(learned)[2:8].mean()  # a quarter of ten values, rounded down, is left out at each end
    assert cells[0].startswith(f"{learned.mean():.3g} ± {learned.std():.2g}<br>{middle:.3g} [")
    better = np.mean(learned[:, None] < tuned)
    assert cells[4].startswith(f"{np.sum(learned < tuned)} of 10<br>{better:.2f} [")
    low, high = map(float, cells[4].split("[")[1].rstrip("]").split(", "))
    assert 0 <= low < better < high <= 1
