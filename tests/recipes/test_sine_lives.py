"""The recipe of long lives at toy size: what it writes, that it resumes, and that a seed fixes the numbers."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import sine_lives

import ml3_tf
from parts.sine_lives.report import smooth
from parts.tuned_optimizers import OPTIMIZERS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sine_lives")
    return folder, sine_lives.main(first_seed=1, smoke=True, output_dir=folder)


def test_it_writes_what_a_recipe_writes(run):
    folder, metrics = run
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["command"] == "python recipes/sine_lives.py --first-seed 1 --smoke"
    assert summary["metrics"] == metrics
    assert all(len(values) == 1 and np.isfinite(values).all() for values in metrics.values())
    assert len(summary["config"]["tuned_rates"]) == 3
    assert summary["config"]["best_optimizer"] in OPTIMIZERS
    assert metrics["best_test_mse_muon_18"][0] <= metrics["test_mse_muon_18"][0]
    assert summary["costs"]["core_minutes"]["meta_train"][0] > 0
    rows = list(csv.DictReader((folder / "history.csv").open()))
    learned = [float(row["value"]) for row in rows if (row["phase"], row["method"]) == ("meta_test", "learned")]
    assert len(learned) == 19 and learned[-1] == metrics["test_mse_learned_18"][0]
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert ml3_tf.load_meta_loss(folder / "meta_loss").name == "sine_lives_sgd"


def test_all_methods_start_from_the_same_regressors(run):
    errors = {name: run[1][f"test_mse_{name}_18"][0] for name in ("learned", "tuned")}
    assert len(set(errors.values())) == 2
    rows = csv.DictReader((run[0] / "history.csv").open())
    first = [float(row["value"]) for row in rows if row["phase"] == "meta_test" and row["step"] == "0"]
    np.testing.assert_allclose(first, first[0], rtol=1e-6)


def test_every_metric_is_explained(run):
    assert "\n    learned_rate: " in sine_lives.__doc__
    assert "\n    best_test_mse_METHOD_STEPS: " in sine_lives.__doc__
    for name in run[1].keys() - {"learned_rate"}:
        method, steps = name.removeprefix("best_").removeprefix("test_mse_").rsplit("_", 1)
        assert re.search(r"^(sgd, adam, adamw, muon|learned|tuned|best): ", sine_lives.__doc__, flags=re.M)
        assert method in ("learned", "tuned", "best", *OPTIMIZERS) and steps in ("2", "6", "18")
    for steps in sine_lives.Settings().reported_steps:
        assert str(steps) in sine_lives.__doc__


def test_an_interrupted_run_resumes_with_the_same_numbers(run, monkeypatch):
    folder, metrics = run
    (folder / "seeds" / "seed_1.json").unlink()
    ran = []
    run_seed = sine_lives.run_seed
    monkeypatch.setattr(sine_lives, "run_seed", lambda seed, *rest: ran.append(seed) or run_seed(seed, *rest))
    assert sine_lives.main(first_seed=1, smoke=True, output_dir=folder) == metrics
    assert ran == [1]


def test_adam_is_a_preset():
    settings = sine_lives.Settings.presets()["adam"]
    assert isinstance(settings.build_optimizer(0.1), sine_lives.keras.optimizers.Adam)


def metrics_of(optimizer):
    summary = json.loads((ROOT / "results" / f"sine_lives_{optimizer}" / "summary.json").read_text())
    return {name: np.array(values) for name, values in summary["metrics"].items()}


def test_the_results_with_sgd_hold_what_is_promised():
    """Below the best rate of MSE for as many steps on most seeds after 3,000 steps, and level before; Muon is ahead."""
    metrics = metrics_of("sgd")
    better = lambda steps: np.sum(metrics[f"test_mse_learned_{steps}"] <= metrics[f"test_mse_best_{steps}"])
    assert better(300) >= 5 and better(1000) >= 5 and better(3000) >= 8
    assert metrics["test_mse_learned_3000"].mean() <= 0.75 * metrics["test_mse_best_3000"].mean()
    assert (metrics["test_mse_muon_1000"] < metrics["test_mse_learned_1000"]).all()


def test_the_results_with_adam_hold_what_is_promised():
    """No sure gain: not worse on average after 1,000 steps, and ahead on some seeds only; behind after ten lives."""
    metrics = metrics_of("adam")
    assert metrics["test_mse_learned_1000"].mean() <= metrics["test_mse_best_1000"].mean()
    assert np.sum(metrics["test_mse_learned_1000"] <= metrics["test_mse_best_1000"]) >= 5
    assert metrics["test_mse_learned_10000"].mean() > metrics["test_mse_adam_10000"].mean()


def test_curves_are_smoothed_where_a_logarithmic_axis_shows_them_alike():
    curve = np.concatenate([[5.0], np.full(999, 0.1), np.full(2001, 0.01)])
    smoothed = smooth(curve)
    assert len(smoothed) < 61 and not np.any(smoothed == 5.0)
    np.testing.assert_allclose(smoothed[[0, -1]], [0.1, 0.01])
