"""Classifiers that train on images with wrong labels: every method takes this path, as a user of Keras would."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from ml3_tf.bench.image_data import NUM_CLASSES, SIDE, Images, one_hot
from parts.noisy_labels.noise import NOISES

SCORED_AT_ONCE = 1000
SCORED_EVERY = 4  # epochs


class Data(NamedTuple):
    """Images to train on, as they are; some more that were checked; and those for the test."""

    train: Images
    checked: Images
    test: Images


class Run(NamedTuple):
    """How one method trains.

    Attributes:
        loss: Builds the loss.
        rate: Rate of Adam.
        callbacks: Optional function `(x, y, checked) -> callbacks` of the training images, their labels, and the
            checked images.
        with_checked: Whether the checked images are among the training images.
        right_only: Whether images with wrong labels are left out, which nobody could do.
    """

    loss: Callable[[], Any]
    rate: float
    callbacks: Callable[..., Sequence[keras.callbacks.Callback]] | None = None
    with_checked: bool = False
    right_only: bool = False


class Scores(keras.callbacks.Callback):
    """The accuracy after every fourth epoch, on the test images and on the checked ones."""

    def __init__(self, data: Data, every: int):
        super().__init__()
        self.curves: dict[str, list[float]] = {"epoch": [], "test": [], "checked": []}
        self._parts = {"test": data.test, "checked": data.checked}
        self._every = every

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if (epoch + 1) % self._every == 0:
            self.curves["epoch"].append(epoch + 1)
            for name, images in self._parts.items():
                predicted = self.model.predict(images.x, batch_size=SCORED_AT_ONCE, verbose=0).argmax(axis=-1)
                self.curves[name].append(float(np.mean(predicted == images.y)))


def build_mlp(hidden_units: int = 64, side: int = SIDE) -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((side, side)),
            layers.Flatten(),
            layers.Dense(hidden_units, "relu"),
            layers.Dense(NUM_CLASSES, "softmax"),
        ],
        name="mlp",
    )


def build_lenet() -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE)),
            layers.Reshape((SIDE, SIDE, 1)),
            layers.Conv2D(6, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(120, "relu"),
            layers.Dense(84, "relu"),
            layers.Dense(NUM_CLASSES, "softmax"),
        ],
        name="lenet",
    )


NETWORKS: dict[str, Callable[[], keras.Model]] = {"mlp": build_mlp, "lenet": build_lenet}


def draw_labels(images: Images, noise: str, seed: int) -> np.ndarray:
    """Returns the labels `[n]` that the classifiers see; the same for all methods."""
    flip, rate = NOISES[noise]
    return flip(images, rate, np.random.default_rng([seed, list(NOISES).index(noise)]))


def train_classifiers(
    network: str, run: Run, data: Data, noises: Sequence[str], *, epochs: int, batch_size: int, seed: int
) -> dict[str, dict[str, list[float]]]:
    """Trains a fresh classifier for each kind of noise.

    Args:
        network: Name of one of `NETWORKS`.
        run: How it trains.
        data: The images.
        noises: Names of `NOISES`.
        epochs: Number of epochs.
        batch_size: Number of images of a step.
        seed: Determines the fresh weights, the noise, and the order of the images: the same for all methods.

    Returns:
        Noise -> "epoch", every fourth, and after it the accuracy on "test" and "checked" images.
    """
    keras.utils.set_random_seed(seed)
    model = NETWORKS[network]()
    fresh, curves = model.get_weights(), {}
    for noise in noises:
        x, y = examples(run, data, noise, seed)
        callbacks = () if run.callbacks is None else run.callbacks(x, y, data.checked)
        if callbacks or not curves:  # a callback changes the loss, so each classifier needs a new one
            jit_compile = network == "mlp"  # on a CPU, XLA's convolutions are slow
            model.compile(keras.optimizers.Adam(run.rate), loss=run.loss(), jit_compile=jit_compile)
        start_anew(model, fresh)
        keras.utils.set_random_seed(seed)
        scores = Scores(data, every=min(SCORED_EVERY, epochs))
        model.fit(x, y, batch_size=batch_size, epochs=epochs, callbacks=[*callbacks, scores], verbose=0)
        curves[noise] = scores.curves
    return curves


def examples(run: Run, data: Data, noise: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images that a classifier trains on, and their one-hot labels."""
    labels = draw_labels(data.train, noise, seed)
    x, y = data.train.x, labels
    if run.right_only:
        x, y = x[labels == data.train.y], y[labels == data.train.y]
    if run.with_checked:
        x, y = np.concatenate([x, data.checked.x]), np.concatenate([y, data.checked.y])
    return x, one_hot(y)


def start_anew(model: keras.Model, weights: Sequence[np.ndarray]) -> None:
    """Gives a compiled model its first weights, and its Adam moments of zero: what was compiled is kept."""
    model.set_weights(weights)
    for variable in model.optimizer.variables:
        if not variable.path.endswith("learning_rate"):
            variable.assign(np.zeros(variable.shape, variable.dtype))
