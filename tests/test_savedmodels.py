"""Tests of the losses that ship with ml3_tf: each loads by its name, trains a model, and has a complete model card."""

import hashlib
from pathlib import Path

import keras
import numpy as np
import pytest

import ml3_tf

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.name for path in (ROOT / "savedmodels").iterdir() if path.is_dir())


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_a_model(name):
    """A model of the widths that the loss reads takes finite steps. The tests of its recipe check the results."""
    keras.utils.set_random_seed(0)
    loss = ml3_tf.load_meta_loss(name)
    num_outputs = 3 if loss.mode == "per_output" else 1
    pred_width, *true_widths = [num_outputs * width for width in loss.features.values()]
    layers = keras.layers
    activation = "softmax" if loss.mode == "per_output" else None
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "tanh"), layers.Dense(pred_width, activation)])
    model.compile(keras.optimizers.SGD(1e-3), loss=loss)
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(64, 4)), generator.normal(size=(64, sum(true_widths)))
    before = model.get_weights()
    assert np.all(np.isfinite(model.fit(x, y, epochs=3, verbose=0).history["loss"]))
    after = model.get_weights()
    assert all(np.all(np.isfinite(a)) and not np.array_equal(a, b) for a, b in zip(after, before, strict=True))


def test_the_default_trains_a_regressor():
    """With the rate and the data of the card: full batches of 100, SGD at 1e-3."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((1,)), layers.Dense(40, "relu"), layers.Dense(40, "relu"), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e-3), loss=ml3_tf.load_meta_loss(), metrics=["mse"])
    x = np.random.default_rng(0).uniform(-5, 5, (100, 1)).astype("float32")
    y = 2 * np.sin(x - 1)
    before = model.evaluate(x, y, batch_size=100, verbose=0, return_dict=True)["mse"]
    model.fit(np.tile(x, (300, 1)), np.tile(y, (300, 1)), batch_size=100, shuffle=False, verbose=0)  # 300 steps
    assert model.evaluate(x, y, batch_size=100, verbose=0, return_dict=True)["mse"] < 0.25 * before


@pytest.mark.parametrize("name", NAMES)
def test_its_card_is_complete(name):
    folder = ROOT / "savedmodels" / name
    card = (folder / "README.md").read_text()
    for title in ("Use", "Features", "Training", "Results", "Limits", "What it has learned", "Origin"):
        assert f"\n## {title}\n" in card
    newest = max((path for path in folder.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
    digest = hashlib.sha256((newest / "assets.extra" / "manifest.json").read_bytes()).hexdigest()
    assert digest in card
    assert ml3_tf.load_meta_loss(name, expected_sha256=digest).name == name
    assert (folder / "meta_loss.png").is_file()


def test_they_are_listed_with_their_purpose():
    losses = ml3_tf.list_meta_losses()
    assert losses.names == NAMES
    assert all(loss.versions and loss.purpose for loss in losses)
    lines = repr(losses).splitlines()
    assert all(line.startswith(f"{name} ") for name, line in zip(NAMES, lines, strict=True))
