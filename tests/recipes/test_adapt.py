"""The recipe of thirty tables at toy size, its tables, its scores, and the training that all arms share."""

import csv
import json
from pathlib import Path

import adapt
import keras
import numpy as np
import pytest

from ml3_tf.bench import tables
from ml3_tf.bench.tables import Parts, Rows
from parts.adapt import report, training
from parts.adapt.scoring import Score, balanced_weights, measure
from parts.adapt.training import Choice, Trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapt")
    return folder, adapt.main(first_seed=1, smoke=True, output_dir=folder)


def test_it_writes_what_a_recipe_writes(run):
    folder, metrics = run
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["recipe"] == "adapt"
    assert summary["command"] == "python recipes/adapt.py --first-seed 1 --smoke"
    assert summary["metrics"] == metrics
    assert {"clean_score_adapt_adam", "outliers_loss_robust_adam", "imbalance_score_boosting"} <= set(metrics)
    assert all(len(values) == 1 and np.isfinite(values).all() for values in metrics.values())
    assert summary["config"]["tuned"]["clean/regression/adam/adapt"] == [1e-3, 0.1, 100]
    statistics = summary["config"]["statistics"]
    assert set(statistics) == set(tables.SETTINGS)
    assert set(statistics["clean"]["adam"]["adapt"]["table_differences"]) == {"autoMPG6", "australian"}
    rows = list(csv.DictReader((folder / "history.csv").open()))
    last = [row for row in rows if (row["setting"], row["arm"], row["table"]) == ("outliers", "adapt", "autoMPG6")]
    assert float(last[-1]["normalized"]) == metrics["outliers_score_adapt_adam"][0]
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_every_metric_is_explained(run):
    for name in run[1]:
        setting = next(setting for setting in tables.SETTINGS if name.startswith(f"{setting}_"))
        kind, arm, *optimizer = name.removeprefix(f"{setting}_").split("_")
        assert f"SETTING_{kind}_{'boosting' if arm == 'boosting' else 'ARM_OPTIMIZER'}" in adapt.__doc__
        assert all(f"`{word}`" in adapt.__doc__ for word in (setting, arm, *optimizer) if arm != "boosting")


def test_other_settings_do_not_mix(run):
    with pytest.raises(ValueError, match="made with other settings .*num_tables.* Choose another --output-dir"):
        adapt.main(adapt.Settings(optimizers=("adam",)), output_dir=run[0])


def test_an_interrupted_seed_goes_on(tmp_path, monkeypatch):
    settings, ran = adapt.Settings(optimizers=("adam",), num_tables=1), []

    def run_one(setting, optimizer, *_):
        ran.append((setting, optimizer))
        if ran == [("clean", "adam"), ("clean", "boosting"), ("label_noise", "adam")]:
            raise KeyboardInterrupt
        return {f"{setting}/{optimizer}/base/wdbc": [Score(0.9, 0.8, 0.1)]}

    monkeypatch.setattr(adapt, "run_optimizer", run_one)
    monkeypatch.setattr(adapt, "run_boosting", run_one)
    adapt.training_folder(3, tmp_path).mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        adapt.run_seed(3, settings, tmp_path, verbose=0)
    result = adapt.run_seed(3, settings, tmp_path, verbose=1)
    assert len(ran) == 3 + 6  # what was done is not done again
    assert result["curves"]["clean/adam/base/wdbc"] == [[0.9, 0.8, 0.1]]
    assert result["metrics"]["imbalance_score_base_adam"] == 0.8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizers": ("sgd",)}, r"Expected `optimizers` among \['adam', 'adamw', 'muon'\]. Received: \('sgd',\)"),
        ({"num_steps": 150}, "Expected `num_steps` as a multiple of 100. Received: 150"),
        ({"num_tables": 0}, "Expected `num_tables` of at least 1. Received: 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        adapt.main(adapt.Settings(**changes), output_dir=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_tuning_takes_the_best_rate_then_the_best_parameter(monkeypatch):
    class Fake:
        def __init__(self, *arguments, seed):
            pass

        def fit(self, parts, choice, seed):
            first = 1 - abs(np.log10(choice.rate) + 2) / 10 - abs(choice.parameter - 0.3)
            return [Score(first, first, 0), Score(first - 0.01, first - 0.01, 0)]  # the first is better

    monkeypatch.setattr(adapt, "Trainer", Fake)
    settings = adapt.Settings(num_steps=200, tuning_seeds=(100,))
    assert adapt.tune_arm("outliers", "regression", "adam", "adapt", settings) == (1e-2, 0.3, 100)


def one_table(y_test, num_train=4):
    rows = Rows(np.zeros((num_train, 2), "float32"), np.asarray(y_test, "float32")[:num_train])
    return Parts(rows, rows, Rows(np.zeros((len(y_test), 2), "float32"), np.asarray(y_test, "float32")))


def test_scores():
    regression = one_table([[-1.0], [1.0], [-1.0], [1.0]])
    assert measure("clean", regression, regression.test.y / 2) == (0.75, 0.75, 0.25)
    assert measure("clean", regression, -regression.test.y) == (-3.0, 0.0, 4.0)
    classes = one_table(np.eye(2)[[0, 0, 0, 1]])
    accuracy = measure("clean", classes, np.array([[0.5, 0.5], [0.5, 0.5], [0.1, 0.9], [0.1, 0.9]]))
    assert accuracy.value == 0.75 and accuracy.normalized == 0.0  # as always the first class
    assert accuracy.loss == pytest.approx(-np.log([0.5, 0.5, 0.1, 0.9]).mean())
    balanced = measure("imbalance", classes, np.eye(2)[[0, 0, 1, 1]])
    assert balanced.value == pytest.approx(5 / 6) and balanced.normalized == pytest.approx(2 / 3)
    diverged = measure("clean", classes, np.full((4, 2), np.nan))
    assert diverged == (0.75, 0.0, np.inf)
    assert balanced_weights(classes.test.y).tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_features_that_are_zero_change_nothing(optimizer):
    """The model of a `Trainer`, which is used again, is that of a plain model with the table's own features."""
    parts, choice = tables.draw_parts("real_estate_valuation", "clean", seed=0), Choice(3e-3, 0.0, 100)
    trainer = Trainer("clean", "base", optimizer, 1, 0.0, seed=0)
    first = trainer.fit(parts, choice, seed=0)
    trainer.fit(tables.draw_parts("airfoil", "clean", seed=0), choice, seed=1)
    assert trainer.fit(parts, choice, seed=0) == first

    layers = keras.layers
    model = keras.Sequential([keras.Input((6,)), layers.Dense(64, "relu"), layers.Dense(1, name="output")])
    rows = parts.train.join(parts.meta)
    hidden, *others = training.fresh_weights(rows, seed=0)
    model.set_weights([hidden[:6], *others])
    model.compile(training.OPTIMIZERS[optimizer](), loss="mse")
    model.optimizer.learning_rate = 3e-3
    batches = training.draw_batches(rows, None, 100, seed=0).map(lambda x, y: (x[:, :6], y))
    model.fit(batches, verbose=0)
    [plain] = [measure("clean", parts, model.predict(parts.test.x, verbose=0))]
    assert first[0].value == pytest.approx(plain.value, abs=1e-3)


def test_a_loss_that_does_not_move_is_the_base():
    parts, choice = tables.draw_parts("vehicle0", "imbalance", seed=0), Choice(3e-3, 0.0, 100)
    scores = {arm: Trainer("imbalance", arm, "adam", 2, 0.0, seed=0) for arm in ("base", "adapt")}
    base, still = (trainer.fit(parts, choice, seed=0) for trainer in scores.values())
    assert still[0].loss == pytest.approx(base[0].loss, rel=1e-4)
    moved = scores["adapt"].fit(parts, choice._replace(parameter=0.1), seed=0)
    assert moved[0].value > base[0].value  # balanced accuracy
    assert np.array_equal(scores["adapt"].adapt.meta[0][:3, :18], parts.meta.x[:3])


def test_the_arms_made_for_a_setting():
    huber = training.build_loss("outliers", "robust", 1, 0.5)
    assert float(huber([[0.0]], [[2.0]])) == pytest.approx(0.5 * (2 - 0.25))
    assert training.build_loss("label_noise", "robust", 2, 0.7).base.get_config()["q"] == pytest.approx(0.7)
    assert training.build_loss("imbalance", "robust", 2, 0.0) == "categorical_crossentropy"  # with weights of the rows


def test_statistics_of_tables():
    results = [
        {"curves": {f"clean/{optimizer}/{arm}/{table}": [[value + seed / 100, value, 0.0]]
                    for optimizer, arm, value in (("adam", "base", 0.5), ("adam", "adapt", 0.6), ("muon", "base", 0.5),
                                                  ("muon", "adapt", 0.4), ("boosting", "boosting", 0.7))
                    for table in ("first", "second")}}
        for seed in range(3)
    ]  # fmt: skip
    clean = report.compute_statistics(results, num_samples=10)["clean"]
    assert set(clean) == {"adam", "muon", "mean"} and "difference" not in clean["adam"]["base"]
    assert clean["adam"]["adapt"]["difference"] == pytest.approx((0.1, 0.1, 0.1))
    assert clean["muon"]["adapt"]["tables_worse"] == ["first", "second"]
    assert clean["mean"]["adapt"]["table_differences"] == pytest.approx({"first": 0.0, "second": 0.0}, abs=1e-9)
    assert clean["mean"]["boosting"]["improvement"].value == 1.0


def test_the_results_hold_what_is_promised():
    """With outliers and imbalance surely better than the base, with each optimizer; with wrong labels more often."""
    summary = json.loads((Path(__file__).parents[2] / "results" / "adapt" / "summary.json").read_text())
    statistics = summary["config"]["statistics"]
    assert summary["command"].startswith("python recipes/adapt.py --seeds 10")
    for setting in ("outliers", "imbalance"):
        for optimizer in (*adapt.OPTIMIZERS, report.MEAN):
            _, low, _ = statistics[setting][optimizer]["adapt"]["difference"]
            assert low > 0
    _, low, _ = statistics["label_noise"][report.MEAN]["adapt"]["improvement"]
    assert low > 0.5
