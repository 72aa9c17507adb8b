"""The recipe of sine regression at toy size: what it writes, that it resumes, and that a seed fixes the numbers."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sine_regression

import ml3_tf
from parts.sine_regression.methods import compute_metrics
from parts.tuned_optimizers import OPTIMIZERS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shell_run(tmp_path_factory):
    """The folder of a run of the command, and what it printed."""
    folder = tmp_path_factory.mktemp("sine")
    command = [sys.executable, "recipes/sine_regression.py", "--seeds", "2", "--smoke", "--output-dir", str(folder)]
    return folder, subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def sine_run(shell_run):
    folder, _ = shell_run
    return folder, json.loads((folder / "summary.json").read_text())["metrics"]


def test_sine_regression_writes_what_a_recipe_writes(sine_run):
    folder, metrics = sine_run
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary) == {"recipe", "command", "seeds", "metrics", "costs", "config", "versions", "seconds"}
    assert summary["recipe"] == "sine_regression"
    assert summary["command"] == "python recipes/sine_regression.py --seeds 2 --smoke"
    assert summary["seeds"] == [0, 1]
    assert summary["metrics"] == metrics
    assert {"test_mse_learned", "test_mse_same_rate", "test_mse_tuned", "train_mse_learned"} <= set(metrics)
    assert all(len(values) == 2 for values in metrics.values())
    rows = list(csv.DictReader((folder / "history.csv").open()))
    learned = [float(row["mse"]) for row in rows if row["seed"] == "1" and row["phase"] == "meta_test"]
    assert len(learned) == 8 * 21
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_exported_loss_is_that_of_the_first_seed(sine_run):
    folder, _ = sine_run
    y_true, y_pred = np.random.default_rng(0).normal(size=(2, 5, 1))
    losses = [ml3_tf.load_meta_loss(folder / name) for name in ("meta_loss", "seeds/meta_loss_0", "seeds/meta_loss_1")]
    values = [float(loss(y_true, y_pred)) for loss in losses]
    assert values[0] == values[1] != values[2]


def test_every_metric_is_explained(sine_run):
    methods = "|".join(("learned", "same_rate", "tuned", *OPTIMIZERS))
    for name in sine_run[1]:
        name = name.replace("_20", "_1000")
        words = re.sub(f"test_mse_({methods})(?=$|_1)", "test_mse_METHOD", name)
        assert name in sine_regression.__doc__ or words in sine_regression.__doc__


def test_last_and_best_at_once_three_and_ten_times_the_horizon():
    curve = np.linspace(10.0, 0.0, 1001)
    curve[[50, 250]] = 1.0, 0.5
    metrics = compute_metrics({"adam": curve}, sine_regression.Settings())
    assert metrics["test_mse_adam"] == curve[100] and metrics["best_test_mse_adam"] == 1.0
    assert metrics["test_mse_adam_300"] == curve[300] and metrics["best_test_mse_adam_300"] == 0.5
    assert metrics["test_mse_adam_1000"] == metrics["best_test_mse_adam_1000"] == 0.0


def test_an_interrupted_run_resumes_with_the_same_numbers(sine_run, monkeypatch):
    folder, metrics = sine_run
    (folder / "seeds" / "seed_1.json").unlink()
    ran = []
    run_seed = sine_regression.run_seed
    monkeypatch.setattr(sine_regression, "run_seed", lambda seed, *rest: ran.append(seed) or run_seed(seed, *rest))
    assert sine_regression.main(seeds=2, smoke=True, output_dir=folder) == metrics
    assert ran == [1]


def test_other_settings_do_not_mix(sine_run):
    with pytest.raises(ValueError, match="made with other settings .*outer_steps.* Choose another --output-dir"):
        sine_regression.main(seeds=1, output_dir=sine_run[0])


def test_the_setting_of_the_paper_runs(tmp_path):
    settings = sine_regression.Settings.presets()["paper"]
    metrics = sine_regression.main(settings, smoke=True, output_dir=tmp_path)
    assert np.isfinite(metrics["test_mse_learned"]).all()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["command"] == "python recipes/sine_regression.py --setting paper --smoke"
    assert summary["config"]["setting"] == "paper" and summary["config"]["inner_steps"] == 1


def test_the_command_shows_progress_a_table_and_where_things_are(shell_run):
    _, output = shell_run
    for words in ("Epoch 1/", "meta_gradient_norm", "learned loss, after 10 steps", "figure.png", "load_meta_loss("):
        assert words in output


def test_the_sine_results_hold_what_is_promised():
    """On average half the error of MSE at the same rate, and less than it on each seed."""
    metrics = json.loads((ROOT / "results" / "sine_regression" / "summary.json").read_text())["metrics"]
    learned, same_rate = np.array(metrics["test_mse_learned"]), np.array(metrics["test_mse_same_rate"])
    assert learned.mean() <= 0.5 * same_rate.mean()
    assert (learned < same_rate).all()


def test_the_last_lines_say_what_it_has_learned_and_how_to_use_it(shell_run):
    folder, printed = shell_run
    assert "What it has learned, in short: loss ≈ " in printed
    assert f'load_meta_loss("{folder / "meta_loss" / "1"}")' in printed
