"""Tests of the files of results."""

import json

import numpy as np

from ml3_tf.bench import results
from ml3_tf.bench.task import Task

TASK = Task(("toy",), "regression", lambda: None, lambda seed: None, num_steps=20, horizons=(1, 2))


def make(loss="mse", seed=0, scores=None, config=None):
    scores = np.linspace(0, 1, 21) if scores is None else scores
    return results.summarize(loss, "toy", TASK, seed, scores, config or {"rate": 0.1})


def test_a_result_holds_last_best_and_curve():
    scores = np.concatenate([np.linspace(0, 0.9, 16), np.full(5, 0.5)])
    result = make(scores=scores)
    assert result.score == {"1": 0.6, "2": 0.5}
    assert (result.best, result.best_step) == (0.9, 30)
    assert len(result.curve) == 21 and result.kind == "regression"


def test_a_kept_result_of_the_same_configuration_is_read(tmp_path):
    path = results.result_path(tmp_path, "mse", "toy", 0)
    assert results.read_result(path, {"rate": 0.1}) is None
    results.write_json(path, make()._asdict())
    assert results.read_result(path, {"rate": 0.1}) == make()
    assert results.read_result(path, {"rate": 0.2}) is None
    assert set(json.loads(path.read_text())) == set(results.Result._fields)  # and no time
    assert results.read_results(tmp_path) == [make()]
    assert [file.name for file in path.parent.iterdir()] == ["seed_0.json"]


def test_sources_are_read(tmp_path):
    results.write_json(tmp_path / "mse" / "loss.json", {"source": "Keras"})
    assert results.read_sources(tmp_path) == {"mse": "Keras"}


def test_scores_are_collected_for_shared_seeds_alone():
    found = [make("mse", 0), make("mse", 1), make("mae", 1)]
    collected = results.collect(found, ["mse", "mae"], ["toy"], "1")
    assert collected.shape == (2, 1, 1) and collected[0, 0, 0] == 0.5
