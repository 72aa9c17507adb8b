"""Every loss that ships: it loads by its name, trains a model, and its model card says what it is."""

import hashlib
from pathlib import Path

import keras
import numpy as np
import pytest

import ml3_tf

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.name for path in (ROOT / "savedmodels").iterdir() if path.is_dir())


def train_with_sine(loss):
    layers = keras.layers
    model = keras.Sequential([keras.Input((1,)), layers.Dense(40, "relu"), layers.Dense(40, "relu"), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e-3), loss=loss)
    x = np.random.default_rng(0).uniform(-5, 5, (100, 1)).astype("float32")
    y = 2 * np.sin(x - 1)
    before = np.mean(np.square(model.predict(x, verbose=0) - y))
    model.fit(x, y, batch_size=100, epochs=300, verbose=0)
    assert np.mean(np.square(model.predict(x, verbose=0) - y)) < 0.25 * before


class Sine(keras.layers.Layer):
    """f(x) = sin(omega x)."""

    def build(self, input_shape):
        self.omega = self.add_weight(initializer=keras.initializers.Constant(0.1), name="omega")

    def call(self, inputs):
        return keras.ops.sin(self.omega * inputs)


def train_with_shaped_sine(loss):
    model = keras.Sequential([keras.Input((1,)), Sine()])
    model.compile(keras.optimizers.SGD(1.0), loss=loss)
    x = np.random.default_rng(0).uniform(-5, 5, (64, 1)).astype("float32")
    model.fit(x, np.concatenate([np.sin(3.3 * x), x], axis=-1), batch_size=64, epochs=10, verbose=0)
    assert abs(float(model.layers[0].omega.numpy()) - 3.3) <= 0.1


# Each loss trains a model of the kind, and with the rate, that its card names.
TRAININGS = {"shaped_sine": train_with_shaped_sine, "sine": train_with_sine}


def test_each_has_its_training():
    assert sorted(TRAININGS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_a_model(name):
    keras.utils.set_random_seed(0)
    TRAININGS[name](ml3_tf.load_meta_loss(name))


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
