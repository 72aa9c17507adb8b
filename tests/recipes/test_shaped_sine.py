"""The recipe of the shaped sine at toy size: what it writes, its tasks, and that a seed gives the same numbers."""

import csv
import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import shaped_sine
import tensorflow as tf
from PIL import Image

import ml3_tf
from parts.settings import run_command
from parts.shaped_sine import figures
from parts.shaped_sine.meta_testing import frequencies
from parts.shaped_sine.report import recovered

ROOT = Path(__file__).parents[2]

METHODS = [
    "shaped",
    "unshaped",
    "per_point",
    "shaped_without_x",
    "noise_trained",
    "mse",
    "mse_tuned",
    "mse_adam",
    "mse_adamw",
    "mse_muon",
]
NAMES = [
    *(f"recovered_{method}{suffix}" for method in METHODS for suffix in ("", "_30", "_100", "_beyond", "_noise")),
    *(f"{kind}_{method}" for method in METHODS for kind in ("frequency_error", "test_mse", "best_recovered")),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shaped_sine")
    return folder, shaped_sine.main(first_seed=1, smoke=True, output_dir=folder)


def test_it_writes_what_a_recipe_writes(run):
    folder, metrics = run
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["recipe"] == "shaped_sine"
    assert summary["command"] == "python recipes/shaped_sine.py --first-seed 1 --smoke"
    assert summary["metrics"] == metrics
    assert summary["config"]["optimizer_rates"] == [0.003] * 4
    assert summary["costs"]["core_minutes"]["meta_train"][0] > 0
    assert set(metrics) == set(NAMES)
    assert all(len(values) == 1 for values in metrics.values())
    assert all(0 <= value <= 1 for name in NAMES if "recovered" in name for value in metrics[name])
    rows = list(csv.DictReader((folder / "history.csv").open()))
    tested = [row for row in rows if row["seed"] == "1" and row["phase"] == "meta_test"]
    assert len(tested) == len(METHODS) * (shaped_sine.Settings().test_steps + 1)
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_curve_and_the_metric_agree(run):
    folder, metrics = run
    rows = csv.DictReader((folder / "history.csv").open())
    shares = {(row["seed"], row["method"]): float(row["value"]) for row in rows if row["step"] == "10"}
    for method in METHODS:
        assert [shares["1", method]] == metrics[f"recovered_{method}"]


def test_every_metric_and_method_is_explained(run):
    for name in run[1]:
        kind = next(
            kind for kind in ("recovered_", "best_recovered_", "frequency_error_", "test_mse_") if name.startswith(kind)
        )
        suffix = next((suffix for suffix in ("_30", "_100", "_beyond", "_noise") if name.endswith(suffix)), "")
        method = name.removeprefix(kind).removesuffix(suffix)
        assert f"    {kind}METHOD{suffix}: " in shaped_sine.__doc__
        assert (
            f"\n{method}: " in shaped_sine.__doc__
            or f"{method}," in shaped_sine.__doc__
            or f", {method}: " in shaped_sine.__doc__
        )


def test_the_animation_has_a_frame_for_each_epoch(run):
    folder, _ = run
    with Image.open(folder / "landscape.gif") as animation:
        assert animation.n_frames == 3
    assert (folder / "landscape.gif").stat().st_size < 100_000


def test_the_exported_loss_is_the_shaped_one_of_the_first_seed(run):
    losses = [ml3_tf.load_meta_loss(run[0] / name) for name in ("meta_loss", "seeds/meta_loss_1")]
    assert [loss.mode for loss in losses] == ["per_set"] * 2
    assert losses[0].name == "shaped_sine"
    curves = [figures.landscape(loss) for loss in losses]
    assert curves[0] == curves[1] != figures.landscape(ml3_tf.load_meta_loss("shaped_sine"))


def test_the_same_seed_gives_the_same_numbers(run, monkeypatch, tmp_path):
    """Of one method: the others are learned in the same way. That a run resumes is tested with the other recipes."""
    folder, metrics = run
    config = json.loads((folder / "summary.json").read_text())["config"]
    tuned = {"optimizer_rates": tuple(config["optimizer_rates"]), "best_optimizer": config["best_optimizer"]}
    monkeypatch.setattr(shaped_sine, "METHODS", {"shaped": shaped_sine.METHODS["shaped"]})
    settings = shaped_sine.Settings(**tuned).smoke()
    again = shaped_sine.run_seed(1, settings, tmp_path, verbose=0)["metrics"]
    assert "recovered_shaped" in again and again == {name: metrics[name][0] for name in again}


def test_other_settings_do_not_mix(run):
    with pytest.raises(ValueError, match="made with other settings .*outer_steps.* Choose another --output-dir"):
        shaped_sine.main(seeds=1, output_dir=run[0])


# Tasks and scores


@pytest.mark.parametrize(
    ("kwargs", "low", "high"), [({}, 0, 5), ({"frequency": (5.0, 7.0)}, 5, 7)], ids=["trained", "beyond"]
)
def test_tasks_are_sines_of_both_signs_on_points_of_their_own(kwargs, low, high):
    tasks = next(iter(shaped_sine.frequency_tasks(200, seed=1, **kwargs)))
    nu = tasks["frequency"].numpy()
    x, y_true = tasks["support"]
    assert x.shape == (200, 64, 1)
    np.testing.assert_allclose(y_true[..., 0], np.sin(nu[:, None] * x[..., 0]), atol=1e-5)
    np.testing.assert_array_equal(y_true[..., 1], x[..., 0])
    np.testing.assert_allclose(tasks["query"][1], np.sin(nu[:, None, None] * tasks["query"][0]), atol=1e-5)
    assert low <= np.abs(nu).min() < low + 0.2 and high - 0.2 < np.abs(nu).max() <= high
    assert 0.4 < np.mean(nu > 0) < 0.6
    assert not np.intersect1d(x[0], tasks["query"][0][0]).size


def test_noise_lies_on_what_is_seen_and_not_on_what_is_scored():
    clean, noisy = (
        next(iter(shaped_sine.frequency_tasks(50, seed=1, with_x=False, noise=noise))) for noise in (0.0, 0.1)
    )
    difference = noisy["support"][1] - clean["support"][1]
    assert difference.shape == (50, 64, 1)
    assert 0.09 < np.std(difference) < 0.11
    np.testing.assert_array_equal(noisy["query"][1], clean["query"][1])


def test_streams_of_tasks_differ_by_purpose_and_seed():
    seeds = [shaped_sine.task_seed(purpose, seed) for purpose in ("train", "tune", "test") for seed in range(20)]
    assert len(set(seeds)) == 60


def test_the_extra_loss_is_the_squared_error_of_the_frequency():
    """Eq. 9 with a known omega of 0.1: a learner that has not moved has (0.1 - nu)^2."""
    tasks = next(iter(shaped_sine.frequency_tasks(5, seed=1)))
    learner = ml3_tf.Learner(shaped_sine.build_learner)
    expected = (0.1 - tasks["frequency"].numpy()) ** 2
    np.testing.assert_allclose(shaped_sine.frequency_loss(learner.draw(5), tasks), expected, rtol=1e-5)


def test_mse_recovers_a_frequency_near_the_start_and_fit_takes_the_same_steps():
    x = np.random.default_rng(0).uniform(-5, 5, (1, 64, 1)).astype("float32")
    y = np.sin(0.2 * x)
    points = tf.constant(x), tf.constant(y)
    tasks = {"support": points, "query": points, "frequency": tf.constant([0.2])}
    omega = frequencies("mse", keras.optimizers.SGD(0.05), tasks, 10)
    assert recovered(omega, tasks).tolist() == [1.0] * 11
    model = shaped_sine.build_learner()
    model.compile(keras.optimizers.SGD(0.05), "mse")
    model.fit(x[0], y[0], batch_size=64, epochs=10, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], omega[-1, 0], rtol=1e-5)
    np.testing.assert_allclose(omega[-1, 0], 0.2, atol=1e-3)


def test_the_landscape_of_mse_is_lowest_at_the_true_frequency():
    for nu, curve in zip(figures.SHOWN_FREQUENCIES, figures.landscape("mse")):
        assert len(curve) == len(figures.GRID)
        np.testing.assert_allclose(figures.GRID[np.argmin(curve)], nu, atol=1e-9)


def test_a_flat_landscape_is_drawn():
    np.testing.assert_array_equal(figures.standardized([2.0, 2.0]), [0.0, 0.0])
    np.testing.assert_array_equal(figures.standardized([1.0, 3.0, 2.0]), [0.0, 1.0, 0.5])


# The command, and what is committed


def test_the_command_refuses_unknown_flags(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["shaped_sine.py", "--frequency", "3"])
    with pytest.raises(SystemExit) as error:
        run_command(shaped_sine.main, description=None)
    assert error.value.code != 0
    assert "--frequency" in "".join(capsys.readouterr())


def test_the_results_hold_what_is_promised():
    """95 % on at least nine of ten seeds; the best per-point loss is above the 60 % of the public reference."""
    metrics = json.loads((ROOT / "results" / "shaped_sine" / "summary.json").read_text())["metrics"]
    assert np.sum(np.array(metrics["recovered_shaped"]) >= 0.95) >= 9
    assert max(metrics["recovered_per_point"]) > 0.6
    assert set(metrics) == set(NAMES)


def test_the_shipped_loss_finds_frequencies_in_plain_keras():
    """As the model card says: SGD of rate 1.0, full batches of 64, targets (y, x), ten epochs."""
    loss = ml3_tf.load_meta_loss("shaped_sine")
    found = []
    for nu in (-4.5, -3.0, -1.2, 0.4, 2.0, 3.3, 4.7):
        x = np.random.default_rng(int(10 * abs(nu))).uniform(-5, 5, (64, 1)).astype("float32")
        model = shaped_sine.build_learner()
        model.compile(keras.optimizers.SGD(1.0), loss)
        model.fit(x, np.concatenate([np.sin(nu * x), x], axis=-1), batch_size=64, epochs=10, verbose=0)
        found.append(abs(float(model.get_weights()[0]) - nu) <= 0.1)
    assert np.mean(found) >= 6 / 7
