"""The recipe for fine-tuning at toy size, its tasks, and how it tunes and scores a method."""

import csv
import json
from pathlib import Path

import fine_tune
import keras
import numpy as np
import pytest
from fashion_files import write_fashion

import ml3_tf
from ml3_tf.bench import image_data
from parts.fine_tune import candidates, methods, model, tasks

ROOT = Path(__file__).parents[2]
OPTIMIZERS = ("sgd", "adam", "adamw", "muon")
METHODS = ("learned", "same_rate", *OPTIMIZERS, "smoothing")


@pytest.fixture(autouse=True, scope="module")
def small_fashion(tmp_path_factory):
    """Files in the form of Fashion-MNIST, which no package of Python carries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_data, "DEBIAN_FOLDER", write_fashion(tmp_path_factory.mktemp("fashion"), 6000))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fine_tune")
    return folder, fine_tune.main(first_seed=1, smoke=True, output_dir=folder)


def test_it_writes_what_a_recipe_writes(run):
    folder, metrics = run
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["recipe"] == "fine_tune"
    assert summary["command"] == "python recipes/fine_tune.py --first-seed 1 --smoke"
    assert summary["metrics"] == metrics
    assert {"accuracy_learned", "best_cross_entropy_muon_10", "other_weights_accuracy_adam"} <= set(metrics)
    assert summary["costs"]["core_minutes"]["meta_train"][0] > 0
    assert summary["config"]["best_optimizer"] in OPTIMIZERS
    assert all(len(values) == 1 and np.isfinite(values).all() for values in metrics.values())
    [choices] = summary["config"]["choices"]
    assert set(choices) == set(METHODS)
    assert set(choices["smoothing"]["accuracy"]) == {"rate", "decay", "smoothing", "steps"}
    assert choices["adam"]["accuracy"]["decay"] == 0 and choices["learned"]["accuracy"]["decay"] > 0
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_history_holds_the_curves_that_the_metrics_are_read_from(run):
    folder, metrics = run
    rows = list(csv.DictReader((folder / "history.csv").open()))
    for phase, prefix in (("meta_test", ""), ("other_weights", "other_weights_")):
        for name in METHODS:
            for quantity in methods.QUANTITIES:
                curve = [
                    float(row[quantity])
                    for row in rows
                    if (row["phase"], row["method"], row["best_for"]) == (phase, name, quantity)
                ]
                assert len(curve) == 11
                assert metrics[f"{prefix}{quantity}_{name}_10"] == [curve[10]]
                assert metrics[f"{prefix}{quantity}_{name}"][0] in curve
                best = max(curve) if quantity == "accuracy" else min(curve)
                assert metrics[f"{prefix}best_{quantity}_{name}_10"] == [best]


def test_the_learned_loss_scores_any_number_of_classes(run):
    loss = ml3_tf.load_meta_loss(run[0] / "meta_loss")
    assert loss.name == "fine_tune"
    for num_classes in (2, 5, 7):
        targets = np.eye(num_classes, dtype="float32")
        assert loss.call(targets, 3 * targets).shape == (num_classes,)


def test_every_metric_is_explained(run):
    for name in run[1]:
        words = name.removeprefix("other_weights_").replace("_10", "_STEPS")
        for method in sorted(METHODS, key=len, reverse=True):  # adamw before adam
            words = words.replace(f"_{method}", "_METHOD")
        assert words in fine_tune.__doc__
    for word in ("other_weights_...", "after 10, 30, 100, 300 or 1,000 steps (STEPS)", *METHODS):
        assert word in fine_tune.__doc__


def test_an_interrupted_run_resumes_with_the_same_numbers(run, monkeypatch):
    folder, metrics = run
    (folder / "seeds" / "seed_1.json").unlink()
    ran = []
    run_seed = fine_tune.run_seed
    monkeypatch.setattr(fine_tune, "run_seed", lambda seed, *rest: ran.append(seed) or run_seed(seed, *rest))
    assert fine_tune.main(first_seed=1, smoke=True, output_dir=folder) == metrics
    assert ran == [1]


def test_other_settings_do_not_mix(run):
    with pytest.raises(ValueError, match="made with other settings .*outer_rate.* Choose another --output-dir"):
        fine_tune.main(fine_tune.Settings(outer_rate=1.0), first_seed=1, smoke=True, output_dir=run[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test_classes": (7, 8, 9, 17, 16)}, r"must not share a class. Received: \[16\]"),
        ({"pretrain_classes": (0, 0, 1)}, r"`pretrain_classes` must be different classes .*=\(0, 0, 1\)"),
        ({"meta_train_classes": (4, 5, 6, 14, 20)}, r"from 0 to 19.* meta_train_classes=\(4, 5, 6, 14, 20\)"),
        ({"test_classes": (7, 8, 9)}, "`num_classes` must be from 2 to the number of classes in `test_classes`"),
        ({"num_classes": 1}, "`num_classes` must be from 2 .*num_classes=1"),
    ],
    ids=["a shared class", "a class twice", "not a class", "too few classes", "one class"],
)
def test_wrong_classes_are_refused(changes, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        fine_tune.main(fine_tune.Settings(**changes), output_dir=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_missing_images_are_named_before_anything_is_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file '.*train-images-idx3-ubyte.gz'"):
        fine_tune.main(fine_tune.Settings(data_path=tmp_path), output_dir=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_classes_are_in_the_order_of_their_names():
    images = tasks.load_classes()
    assert images.shape == (20, 500, 28, 28, 1) and len(tasks.NAMES) == 20
    assert images.min() == 0 and images.max() == 1
    ink = images[:10].mean(axis=(1, 2, 3, 4))
    assert ink.argmin() == tasks.NAMES.index("1")  # the thinnest digit
    bars = images[10:].mean(axis=(1, 2, 4))  # of class k from column 2 k on
    np.testing.assert_array_equal((bars > 0.5).argmax(axis=1), 2 * np.arange(10))
    assert tasks.NAMES[10:12] + tasks.NAMES[15:16] == ("T-shirt", "trouser", "sandal")


def test_no_image_is_in_both_parts_of_a_task():
    pools = [100 * number + np.arange(8, dtype="float32")[:, np.newaxis] for number in range(4)]
    drawn = tasks.draw_tasks(pools, 5, (3, 2, 6), seed=0)
    (x, y), (x_query, y_query) = drawn["support"], drawn["query"]
    assert x.shape == (5, 6, 1) and y.shape == (5, 6, 3) and x_query.shape == (5, 18, 1) and y_query.shape == (5, 18, 3)
    for number in range(5):
        assert len({*x[number].ravel(), *x_query[number].ravel()}) == 24
        owner = {label: set(x[number, y[number, :, label] == 1].ravel() // 100) for label in range(3)}
        assert all(len(pool) == 1 for pool in owner.values()) and len(set.union(*owner.values())) == 3
        for label in range(3):
            assert set(x_query[number, y_query[number, :, label] == 1].ravel() // 100) == owner[label]


def test_tasks_of_meta_training_are_determined_by_their_seed():
    pools = [np.full((8, 2), number, "float32") for number in range(3)]
    first, again, other = (next(iter(tasks.meta_train_tasks(pools, 4, (2, 1, 3), seed))) for seed in (0, 0, 1))
    assert first["query"][1].shape == (4, 6, 2)
    assert np.array_equal(first["support"][0], again["support"][0])
    assert not np.array_equal(first["support"][0], other["support"][0])


@pytest.fixture(scope="module")
def pretrained():
    images = np.random.default_rng(0).random((3, 4, 28, 28, 1), "float32")
    return model.pretrain(images, epochs=1, seed=0, verbose=0), images


def test_fine_tuning_starts_from_the_pretrained_layer_and_a_head_of_zeros(pretrained):
    start = model.start_of(pretrained[0], num_classes=2)
    hidden, head = start.layers
    assert np.array_equal(hidden.kernel, pretrained[0].get_layer(model.LAST_HIDDEN).kernel)
    assert head.kernel.shape == (64, 2) and not np.any(head.kernel)


def test_features_that_are_computed_once_are_frozen_layers(pretrained):
    """`fit` of the whole model, all but two layers frozen, is what the recipe does with the features."""
    classifier, images = pretrained
    features, start = model.features_of(*pretrained), model.start_of(classifier, num_classes=2)
    x, y = images[:2].reshape(8, 28, 28, 1), np.repeat(np.eye(2, dtype="float32"), 4, axis=0)
    part = features[:2].reshape(1, 8, -1), y[np.newaxis]
    curves = model.fine_tune("mse", keras.optimizers.Adam(0.01), start, {"support": part, "query": part}, 3)

    frozen = classifier.layers[:-2]
    whole = keras.Sequential([keras.Input((28, 28, 1)), *frozen, *model.trained_layers(2)])
    for layer in frozen:
        layer.trainable = False
    for layer, source in zip(whole.layers[-2:], start.layers):
        layer.set_weights(source.get_weights())
    whole.compile(keras.optimizers.Adam(0.01), loss="mse")
    for step in range(3):
        expected = model.CROSS_ENTROPY(y, whole(x))
        assert np.allclose(curves[1, step], expected, atol=1e-5)
        whole.train_on_batch(x, y)
    assert len(whole.trainable_variables) == 4


def test_a_loss_that_has_learned_nothing_adds_nothing():
    loss = ml3_tf.MetaLoss.around(model.CROSS_ENTROPY, mode="per_output")
    added = model.added_gradient(loss, num_classes=5)
    assert added.shape == (2, len(model.LOGITS)) and np.allclose(added, 0, atol=1e-6)


def test_what_a_network_adds_is_the_mean_over_classes():
    loss = ml3_tf.MetaLoss.around(model.CROSS_ENTROPY, (4,), activation="linear", mode="per_output")
    hidden, head = loss.network.layers
    hidden.set_weights([np.eye(2, 4), np.zeros(4)])
    head.set_weights([np.array([[10.0], [0.0], [0.0], [0.0]])])  # ten times the logit
    assert np.allclose(model.added_gradient(loss, num_classes=5), 10 / 5, atol=1e-5)


def test_the_best_candidate_and_step_for_each_quantity():
    accuracy = [[0.1, 0.8, 0.7], [0.1, np.nan, 0.9]]
    cross_entropy = [[1.6, 0.5, 0.9], [1.6, np.nan, 0.6]]
    best = methods.best_of(np.array([accuracy, cross_entropy]))
    assert best == {"accuracy": (1, 2), "cross_entropy": (0, 1)}


def test_the_metrics_of_a_method():
    candidate = methods.Candidate("mse", keras.optimizers.Adam, {"rate": 0.001})
    choices = {"accuracy": methods.Choice(candidate, 2), "cross_entropy": methods.Choice(candidate, 5)}
    curve = np.stack([np.arange(11) / 10, 20.0 - np.arange(11)])
    curve[:, 7:] = [[0.5], [16.0]]  # all are worse at last
    metrics = methods.compute_metrics("adam", choices, {q: curve for q in methods.QUANTITIES}, prefix="other_weights_")
    assert metrics == {
        "other_weights_accuracy_adam": 0.2,
        "other_weights_accuracy_adam_10": 0.5,
        "other_weights_best_accuracy_adam_10": 0.6,
        "other_weights_cross_entropy_adam": 15.0,
        "other_weights_cross_entropy_adam_10": 16.0,
        "other_weights_best_cross_entropy_adam_10": 14.0,
        "other_weights_cross_entropy_when_accurate_adam": 18.0,
    }
    assert methods.describe(choices)["accuracy"] == {"rate": 0.001, "steps": 2}


def test_weight_decay_moves_all_weights_of_every_optimizer():
    """Muon has a decay of its own for the variables that it leaves to AdamW, of which the head is one."""
    for name in OPTIMIZERS:
        tail, (without, decayed) = model.build_tail(2), (candidates.build_optimizer(name, 0.1, d) for d in (0.0, 3.0))
        for optimizer, factor in ((without, 1.0), (decayed, 1 - 0.1 * 3)):
            weights = [np.ones(w.shape, "float32") for w in tail.get_weights()]
            tail.set_weights(weights)
            optimizer.apply([np.zeros_like(w) for w in weights], tail.trainable_variables)
            for weight in tail.get_weights():
                np.testing.assert_allclose(weight, factor, atol=1e-6)


def test_muon_leaves_the_head_to_adamw():
    tail, optimizer = model.build_tail(2), candidates.build_optimizer("muon", 0.1)
    optimizer.build(tail.trainable_variables)
    velocities = [v is not None for v in optimizer.adam_velocities]
    assert velocities == [False, True, True, True]  # the kernel of the hidden layer is Muon's


def test_grids_hold_what_the_settings_say():
    settings = fine_tune.Settings()
    grids = candidates.all_candidates("mse", settings)
    assert set(grids) == set(METHODS)
    assert len(grids["muon"]) == len(settings.muon_rates) * len(settings.muon_decays)
    assert {candidate.values["decay"] for candidate in grids["sgd"]} == set(settings.sgd_decays)
    assert {candidate.values["smoothing"] for candidate in grids["smoothing"]} == set(settings.smoothings)
    optimizer = grids["learned"][0].build_optimizer()
    assert isinstance(optimizer, keras.optimizers.AdamW) and optimizer.weight_decay == settings.decay


def test_the_best_optimizer_has_the_least_cross_entropy_at_its_best_step(monkeypatch):
    curves = {"sgd": [1.6, 0.5, 0.4], "adam": [1.6, 0.3, np.nan], "adamw": [1.6, 0.6, 0.35], "muon": [1.6, 0.8, 0.7]}
    build = lambda name: methods.Candidate(name, None, {})
    monkeypatch.setattr(candidates, "optimizer_candidates", lambda _: {name: [build(name)] for name in curves})
    scored = lambda candidate, *_: np.array([[0.0] * 3, curves[candidate.loss]])
    monkeypatch.setattr(candidates, "mean_curves", scored)
    assert candidates.best_optimizer(None, {}, fine_tune.Settings()) == "adam"


def test_a_use_lasts_until_the_best_optimizer_at_the_horizon_is_reached(monkeypatch):
    per_step = {"learned": 0.5, "adamw": 0.25}
    monkeypatch.setattr(candidates, "mean_curves", lambda candidate, *_: candidate.loss)
    monkeypatch.setattr(candidates, "core_minutes_per_step", lambda train, steps, num_learners: per_step[train()])
    choices = {name: {"cross_entropy": methods.Choice(methods.Candidate(name, None, {}), 1)} for name in per_step}
    losses = {"learned": [1.6, 0.7, 0.6, 0.5], "adamw": [1.6, 0.9, 0.6, 0.4]}
    curves = {name: {"cross_entropy": np.array([[0.0] * 4, loss])} for name, loss in losses.items()}
    settings = fine_tune.Settings(inner_steps=2, best_optimizer="adamw")
    costs = candidates.count_costs(9.0, choices, curves, None, {"query": (np.zeros(3), None)}, settings)
    assert costs == {"core_minutes": {"meta_train": 9.0, "learned": 1.0, "baseline": 0.5}}


def test_a_candidate_that_is_best_for_both_is_scored_once(monkeypatch):
    scored = []
    monkeypatch.setattr(methods, "mean_curves", lambda candidate, *rest: scored.append(candidate) or np.zeros((2, 3)))
    first, second = (methods.Candidate(loss, keras.optimizers.Adam, {}) for loss in ("mse", "mae"))
    both = {"accuracy": methods.Choice(first, 1), "cross_entropy": methods.Choice(first, 2)}
    apart = {"accuracy": methods.Choice(first, 1), "cross_entropy": methods.Choice(second, 2)}
    assert set(methods.score(both, None, {}, 2)) == set(methods.QUANTITIES) and len(scored) == 1
    methods.score(apart, None, {}, 2)
    assert [candidate.loss for candidate in scored[1:]] == ["mse", "mae"]


def test_the_results_hold_what_is_promised():
    """A lower cross-entropy than all others, from other weights too; a higher accuracy than all but label smoothing."""
    summary = json.loads((ROOT / "results" / "fine_tune" / "summary.json").read_text())
    mean = {name: np.mean(values) for name, values in summary["metrics"].items()}
    for prefix in ("", "other_weights_"):
        for name in ("same_rate", "adam", "adamw", "smoothing"):
            assert mean[f"{prefix}cross_entropy_learned"] < mean[f"{prefix}cross_entropy_{name}"]
        for name in ("same_rate", "adam", "adamw"):
            assert mean[f"{prefix}accuracy_learned"] > mean[f"{prefix}accuracy_{name}"]
    assert mean["accuracy_learned"] < mean["accuracy_smoothing"]
