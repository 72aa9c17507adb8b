"""The data of `keras_fit.py`: images of digits, and the measurements of patients with diabetes."""

from typing import Any

import numpy as np

from parts.digits.images import load_images, one_hot


def load_digits(seed: int) -> dict[str, Any]:
    """Returns images `[n, 16, 16, 1]` and one-hot targets `[n, 10]`: 800 to train, 400 to validate, 597 to test.

    The seed divides training from validation. The test images are always the same.
    """
    train, test = load_images()
    order = np.random.default_rng(seed).permutation(len(train.y))
    x, y = train.x[order], one_hot(train.y[order], range(10))
    return {"train": (x[:800], y[:800]), "validation": (x[800:], y[800:]), "test": (test.x, one_hot(test.y, range(10)))}


def load_diabetes(seed: int) -> dict[str, Any]:
    """Returns ten measurements and a score of 442 patients, divided 6:2:2 and standardized by the training patients.

    Returns:
        "train", "validation" and "test", each `(x [n, 10], y [n, 1])`; and "deviation", the standard deviation of the
        score.
    """
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    parts = np.split(np.random.default_rng(seed).permutation(len(y)), [264, 353])
    mean, deviation = y[parts[0]].mean(), y[parts[0]].std()
    x = (x - x[parts[0]].mean(axis=0)) / x[parts[0]].std(axis=0)
    y = (y - mean) / deviation
    arrays = [(x[part].astype("float32"), y[part, np.newaxis].astype("float32")) for part in parts]
    return {**dict(zip(("train", "validation", "test"), arrays)), "deviation": deviation}
