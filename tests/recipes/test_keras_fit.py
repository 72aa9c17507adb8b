"""The recipe for plain Keras at toy size."""

import csv
import inspect
import json

import keras_fit
import numpy as np
import pytest

from parts.keras_fit.report import METHODS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras_fit")
    return folder, keras_fit.main(first_seed=1, smoke=True, output_dir=folder)


def test_it_writes_what_a_recipe_writes(run):
    folder, metrics = run
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["recipe"] == "keras_fit"
    assert summary["command"] == "python recipes/keras_fit.py --first-seed 1 --smoke"
    assert summary["metrics"] == metrics
    assert {"digits_accuracy_learned", "diabetes_rmse_muon", "diabetes_epochs_same_rate"} <= set(metrics)
    assert all(len(values) == 1 and np.isfinite(values).all() for values in metrics.values())
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert {row["run"] for row in rows} >= {"digits_learned", "diabetes_sgd"}
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    # Six runs of each task, and four optimizers that were tuned on one seed for each.
    assert len(list((folder / "logs").glob("*.csv"))) == 2 * 6 + 2 * 4
    assert summary["config"]["digits_best_optimizer"] in METHODS
    assert len(summary["config"]["diabetes_rates"]) == 4


def test_every_metric_is_explained(run):
    for name in run[1]:
        for method in sorted(METHODS, key=len, reverse=True):  # "adamw" before "adam"
            name = name.replace(f"_{method}", "_METHOD")
        assert f"{name}:" in keras_fit.__doc__


def test_an_interrupted_run_resumes_with_the_same_numbers(run, monkeypatch):
    folder, metrics = run
    (folder / "seeds" / "seed_1.json").unlink()
    ran = []
    run_seed = keras_fit.run_seed
    monkeypatch.setattr(keras_fit, "run_seed", lambda seed, *rest: ran.append(seed) or run_seed(seed, *rest))
    assert keras_fit.main(first_seed=1, smoke=True, output_dir=folder) == metrics
    assert ran == [1]


def test_other_settings_do_not_mix(run):
    with pytest.raises(ValueError, match="made with other settings .*digits.* Choose another --output-dir"):
        keras_fit.main(output_dir=run[0])


@pytest.mark.parametrize("task", keras_fit.TASKS.values(), ids=keras_fit.TASKS)
def test_nothing_in_the_training_code_is_ours(task):
    """The recipe to copy from: a learned loss needs no code but the line that loads it."""
    assert "ml3_tf" not in inspect.getsource(task.train)


def test_the_parts_of_the_data_are_apart():
    data = keras_fit.load_diabetes(seed=0)
    x_train, y_train = data["train"]
    assert [len(data[part][0]) for part in ("train", "validation", "test")] == [264, 89, 89]
    assert len(np.unique(np.concatenate([data[part][0] for part in ("train", "validation", "test")]), axis=0)) == 442
    assert np.allclose(x_train.mean(axis=0), 0, atol=1e-5) and np.allclose(y_train.std(), 1)
    assert not np.array_equal(x_train, keras_fit.load_diabetes(seed=1)["train"][0])


def test_a_run_that_diverged_counts_as_the_worst():
    assert keras_fit.best_error("diabetes", {"val_mse": [np.nan, np.nan]}) == np.inf
    assert keras_fit.best_error("diabetes", {"val_mse": [2.0, 0.5, np.nan]}) == 0.5
    assert keras_fit.best_error("digits", {"val_accuracy": [0.1, 0.875, 0.8]}) == 0.125
