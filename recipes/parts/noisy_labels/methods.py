"""The methods that `noisy_labels.py` compares, and the grids of those that are tuned."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

import ml3_tf
from ml3_tf.bench.image_data import Images, one_hot
from parts.noisy_labels.losses import Bootstrapping, SymmetricCrossEntropy, build_forward, build_generalized
from parts.noisy_labels.training import Run

if TYPE_CHECKING:
    from noisy_labels import Settings

CROSS_ENTROPY = "categorical_crossentropy"
TUNED = {
    "cross_entropy": (0.0,),  # it has none
    "label_smoothing": (0.1, 0.3, 0.5),
    "generalized": (0.5, 0.7, 0.9),  # q
    "symmetric": (0.01, 0.1, 1.0),  # alpha
    "bootstrapping": (0.5, 0.7, 0.9),  # beta
    "forward": (2**-7, 0.5, 0.8),  # q
    "adapted": (0.02, 0.1),  # rate of the Adam that moves the loss
}
"""The methods that are tuned, each with the grid of its own parameter."""
LENET_METHODS = ("learned", "cross_entropy", "generalized", "symmetric", "forward")


def hand_made(method: str, rate: float, parameter: float, settings: "Settings", seed: int) -> Run:
    """Returns how a method of `TUNED` trains with a rate and its own parameter."""
    losses: dict[str, Callable[[], Any]] = {
        "cross_entropy": lambda: CROSS_ENTROPY,
        "label_smoothing": lambda: keras.losses.CategoricalCrossentropy(label_smoothing=parameter),
        "generalized": lambda: build_generalized(parameter),
        "symmetric": lambda: SymmetricCrossEntropy(parameter),
        "bootstrapping": lambda: Bootstrapping(parameter),
        "forward": lambda: build_forward(parameter, settings.prior_count, settings.balance),
        "adapted": lambda: ml3_tf.MetaLoss.around(CROSS_ENTROPY, mode="per_output"),
    }

    def adapt(x: np.ndarray, y: np.ndarray, checked: Images) -> list[keras.callbacks.Callback]:
        clean, optimizer = (checked.x, one_hot(checked.y)), keras.optimizers.Adam(parameter)
        size = settings.batch_size
        return [
            ml3_tf.AdaptLoss(
                (x, y), clean, loss=CROSS_ENTROPY, optimizer=optimizer, every=5, batch_size=size, seed=seed
            )
        ]

    return Run(losses[method], rate, adapt if method == "adapted" else None)


def runs(meta_loss: ml3_tf.MetaLoss, settings: "Settings", seed: int) -> dict[str, Run]:
    """Returns how each method trains."""
    tuned = {
        method: hand_made(method, *values, settings, seed) for method, values in zip(TUNED, settings.tuned, strict=True)
    }
    cross_entropy = tuned["cross_entropy"]
    return {
        "learned": Run(lambda: meta_loss, settings.inner_rate),
        **tuned,
        "with_checked": cross_entropy._replace(with_checked=True),
        "right_only": cross_entropy._replace(right_only=True),
    }
