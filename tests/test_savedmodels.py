"""Every loss that ships: it loads by its name, trains a model, and its model card says what it is."""

import hashlib
from pathlib import Path

import keras
import numpy as np
import pytest

import ml3_tf

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.name for path in (ROOT / "savedmodels").iterdir() if path.is_dir())


def test_the_default_is_among_them():
    assert "sine" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_a_model(name):
    """Rate and data are those of the card: full batches of 100, SGD at 1e-3."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((1,)), layers.Dense(40, "relu"), layers.Dense(40, "relu"), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e-3), loss=ml3_tf.load_meta_loss(name), metrics=["mse"])
    x = np.random.default_rng(0).uniform(-5, 5, (100, 1)).astype("float32")
    y = 2 * np.sin(x - 1)
    before = model.evaluate(x, y, batch_size=100, verbose=0, return_dict=True)["mse"]
    model.fit(x, y, batch_size=100, epochs=300, verbose=0)
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


def test_they_are_listed(capsys):
    assert ml3_tf.list_meta_losses() == NAMES
    assert all(f"{name} " in line for name, line in zip(NAMES, capsys.readouterr().out.splitlines()))
