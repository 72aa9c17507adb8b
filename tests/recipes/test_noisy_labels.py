"""Tests of `recipes/noisy_labels.py` and its parts."""

import csv
import dataclasses
import json

import keras
import noisy_labels
import numpy as np
import pytest
import tensorflow as tf
from fashion_files import write_fashion

import ml3_tf
from ml3_tf.bench import image_data
from ml3_tf.bench.image_data import Images
from parts.noisy_labels import figure, losses, methods, noise, report, training

IMAGES = Images(np.random.default_rng(0).random((5000, 28, 28)).astype("float32"), np.arange(5000) % 10)


def test_a_smoke_run_writes_all_files(tmp_path):
    settings = noisy_labels.Settings(data_path=write_fashion(tmp_path))
    metrics = noisy_labels.main(settings, smoke=True, output_dir=tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["metrics"] == metrics and summary["recipe"] == "noisy_labels"
    for network, noises, compared in (
        ("mlp", ("clean", "pairs_40"), report.LABELS),
        ("lenet", ("pairs_40",), noisy_labels.LENET_METHODS),
    ):
        for name in (f"{network}_{kind}_{method}" for kind in noises for method in compared):
            [last], [best], [stopped] = (metrics[f"{prefix}accuracy_{name}"] for prefix in ("", "best_", "stopped_"))
            assert 0 <= min(last, stopped) <= max(last, stopped) <= best <= 1
    with (tmp_path / "run" / "history.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * 10 + 1 * 5
    assert (tmp_path / "run" / "figure.png").stat().st_size > 10_000
    loss = ml3_tf.load_meta_loss(tmp_path / "run" / "meta_loss")
    assert loss.name == "noisy_labels" and loss.base.name == "forward_corrected_cross_entropy"


@pytest.mark.parametrize(("flip", "rate"), [f for f in noise.NOISES.values() if f[1]])
def test_so_many_labels_are_wrong(flip, rate):
    labels = flip(IMAGES, rate, np.random.default_rng(1))
    is_wrong = labels != IMAGES.y
    assert is_wrong.mean() == pytest.approx(rate, abs=0.03)
    assert set(labels) == set(range(10))
    if flip is noise.flip_pairs:
        np.testing.assert_array_equal(labels[is_wrong], (IMAGES.y[is_wrong] + 1) % 10)
    if flip is noise.flip_symmetric:
        counts = np.bincount((labels - IMAGES.y)[is_wrong] % 10, minlength=10)
        assert counts[0] == 0 and counts[1:].min() > 0.7 * counts[1:].mean()


def test_wrong_labels_that_depend_on_the_image_are_the_same_for_like_images():
    """Each image stands in the data five hundred times: most wrong labels of its copies are one of two."""
    few = Images(np.repeat(IMAGES.x[:10], 500, axis=0), np.repeat(IMAGES.y[:10], 500))
    labels = noise.flip_by_instance(few, 0.4, np.random.default_rng(0))
    for digit in range(10):
        wrong = labels[(few.y == digit) & (labels != digit)]
        assert np.sort(np.bincount(wrong))[-2:].sum() > 0.9 * len(wrong)


def test_tasks_of_meta_training_have_noise_of_both_kinds_and_of_many_rates():
    classes = np.arange(2000) % 10
    y = tf.one_hot(np.tile(classes, (40, 1)), 10)
    labels = noise.corrupt_support(y, tf.constant([0, 1])).numpy().argmax(axis=-1)
    shift = (labels - classes) % 10
    is_pairs = (shift > 1).sum(axis=1) == 0
    rates = (shift > 0).mean(axis=1)
    assert 10 < is_pairs.sum() < 30
    assert rates[is_pairs].max() < 0.49 and rates[~is_pairs].max() < 0.64
    assert rates.max() > 0.5 and rates.min() < 0.1
    again = noise.corrupt_support(y, tf.constant([0, 1])).numpy().argmax(axis=-1)
    np.testing.assert_array_equal(labels, again)


def test_the_losses_of_others_have_their_values():
    y_true, y_pred = np.eye(3, dtype="float32")[[0, 2]], np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]], "float32")
    cross_entropy = -np.log([0.5, 0.3])
    value = losses.SymmetricCrossEntropy(0.1).call(y_true, y_pred)
    np.testing.assert_allclose(value, 0.1 * cross_entropy + 4 * np.array([0.5, 0.7]), rtol=1e-5)
    value = losses.Bootstrapping(0.8).call(y_true, y_pred)
    expected = 0.8 * cross_entropy - 0.2 * np.log([0.5, 0.6])  # the classifier says 0 and 1
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    value = losses.build_generalized(0.5).call(y_true, y_pred)
    np.testing.assert_allclose(value, (1 - np.sqrt([0.5, 0.3])) / 0.5, rtol=1e-5)


def test_a_classifier_trains_as_by_plain_compile_and_fit(tmp_path):
    data = training.Data(
        IMAGES.take(np.arange(300)), IMAGES.take(np.arange(300, 350)), IMAGES.take(np.arange(400, 500))
    )
    run = training.Run(lambda: "categorical_crossentropy", 1e-3)
    curves = training.train_classifiers("mlp", run, data, ["pairs_40", "clean"], epochs=2, batch_size=50, seed=3)

    keras.utils.set_random_seed(3)
    model = training.build_mlp()
    model.compile(keras.optimizers.Adam(1e-3), "categorical_crossentropy", jit_compile=True)
    keras.utils.set_random_seed(3)
    y = image_data.one_hot(training.draw_labels(data.train, "clean", 3))
    model.fit(data.train.x, y, batch_size=50, epochs=2, verbose=0)
    expected = np.mean(model.predict(data.test.x, verbose=0).argmax(axis=-1) == data.test.y)
    assert curves["clean"] == {"epoch": [2], "test": [expected], "checked": curves["clean"]["checked"]}


def test_examples_are_those_that_a_method_may_use():
    data = training.Data(
        IMAGES.take(np.arange(300)), IMAGES.take(np.arange(300, 350)), IMAGES.take(np.arange(400, 500))
    )
    run = training.Run(lambda: "categorical_crossentropy", 1e-3)
    labels = training.draw_labels(data.train, "symmetric_40", 0)
    x, y = training.examples(run._replace(right_only=True), data, "symmetric_40", 0)
    np.testing.assert_array_equal(y.argmax(axis=1), data.train.y[labels == data.train.y])
    x, y = training.examples(run._replace(with_checked=True), data, "symmetric_40", 0)
    np.testing.assert_array_equal(y.argmax(axis=1), [*labels, *data.checked.y])
    assert len(x) == 350


def test_the_best_fixed_loss_is_the_one_with_the_highest_mean():
    metrics = {f"accuracy_mlp_clean_{m}": [0.5, 0.6] for m in report.FIXED} | {
        "accuracy_mlp_clean_generalized": [0.7, 0.8],
        "accuracy_mlp_clean_forward": [0.9, 0.9],  # the base of the learned loss is not among them
        "accuracy_mlp_clean_learned": [0.71, 0.79],
    }
    assert report.best_fixed(metrics, "mlp", "clean") == ("generalized", 1)


def test_each_method_is_tuned_on_both_kinds_of_digits(monkeypatch, tmp_path, capsys):
    """Of a grid of two rates, that with the higher score; here the score is the rate, or its negative."""
    seen = []

    def train(run, network, data, noises, settings, seed):
        sign = -1 if run.callbacks else 1
        assert len(data.train.y) == 3500 and len(data.test.y) == 1000
        seen.append(data.train.x)
        return {noise: {"test": [0.0, sign * run.rate]} for noise in noises}

    monkeypatch.setattr(noisy_labels, "train", train)
    settings = noisy_labels.Settings(rates=(1e-3, 1e-2))
    assert noisy_labels.tune("tuning_generalized", settings, tmp_path, 0)["tuned"] == (1e-2, 0.5)
    assert not np.allclose(seen[0], seen[1]) and np.array_equal(seen[0], seen[2])
    assert "generalized: rate and parameter (0.01, 0.5), accuracy 0.010" in capsys.readouterr().out
    tuned = noisy_labels.tune_all(settings, tmp_path, jobs=1).tuned
    assert [rate for rate, _ in tuned] == [1e-2] * 6 + [1e-3] and tuned[2] == (1e-2, 0.5)
    monkeypatch.setattr(noisy_labels, "train", None)  # what was found is kept
    assert noisy_labels.tune_all(settings, tmp_path, jobs=1).tuned == tuned


def test_settings_that_are_given_are_not_tuned(tmp_path):
    settings = dataclasses.replace(noisy_labels.Settings(), tuned=((1e-3, 0.5),) * len(noisy_labels.TUNED))
    found = methods.runs(losses.build_forward(0.5, 1.0, 0.0), settings, 0)
    assert list(found) == list(report.LABELS)
    assert found["bootstrapping"].loss().beta == 0.5
    with pytest.raises(FileNotFoundError, match="--data-path"):
        noisy_labels.main(noisy_labels.Settings(data_path=tmp_path), smoke=True, output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_pull_to_a_label_is_what_the_card_says():
    """With cross-entropy, minus the derivative by the logit is `1 - p`, over the batch; counted pairs lessen it."""
    for probability in (0.1, 0.7):
        pull = figure.pull(keras.losses.CategoricalCrossentropy(), probability, "right labels")
        assert pull == pytest.approx((1 - probability) / 100, rel=1e-3)
    counting = losses.build_forward(0.8, 5.0, 0.0)
    right, pairs = (figure.pull(counting, 0.3, batch) for batch in ("right labels", "40 % the next class"))
    assert 0 < pairs < 0.7 * right
    assert len(figure.draw_loss(counting).axes[0].get_legend().get_texts()) == 5
