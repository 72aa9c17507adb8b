"""Scores of `adapt.py`: on the test rows of a table, and scaled so that tables can be compared."""

from typing import NamedTuple

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils.class_weight import compute_sample_weight

from ml3_tf.bench.tables import Parts

LEAST_PROBABILITY = 1e-7  # Keras's: cross-entropy is finite


class Score(NamedTuple):
    """What a model does on the test rows of a table."""

    value: float
    """R^2, accuracy, or for imbalance balanced accuracy; of a model that diverged, that of a constant."""
    normalized: float
    """The value, scaled so that 0 is a constant prediction, and all that is worse, and 1 is perfect."""
    loss: float
    """MSE by the variance of the rows that train, or cross-entropy (nats)."""


def measure(setting: str, parts: Parts, predicted: np.ndarray) -> Score:
    """Scores predictions, or probabilities of classes, `[n, C]`, for the test rows."""
    y, constant = parts.test.y, constant_value(setting, parts)
    if not np.isfinite(predicted).all():
        return Score(constant, 0.0, float("inf"))
    labels = y.argmax(axis=1), predicted.argmax(axis=1)
    if y.shape[1] == 1:
        loss = np.mean((y - predicted) ** 2)
        value = 1 - loss / y.var()
    else:
        loss = -np.mean(np.log(np.maximum(np.sum(y * predicted, axis=1), LEAST_PROBABILITY)))
        value = balanced_accuracy_score(*labels) if setting == "imbalance" else np.mean(labels[0] == labels[1])
    return Score(float(value), float(max(0.0, (value - constant) / (1 - constant))), float(loss))


def constant_value(setting: str, parts: Parts) -> float:
    """Returns the value of the best constant prediction: the mean, or the most frequent class."""
    shares = parts.test.y.mean(axis=0)
    if len(shares) == 1:
        return 0.0
    return 1 / len(shares) if setting == "imbalance" else float(shares.max())


def balanced_weights(y: np.ndarray) -> np.ndarray:
    """Returns a weight for each row `[n]`, with which all classes weigh the same."""
    return compute_sample_weight("balanced", y.argmax(axis=1)).astype("float32")


def boost(setting: str, parts: Parts, seed: int) -> Score:
    """Scores scikit-learn's gradient boosting, untuned, on the rows that all arms train on."""
    rows = parts.train.join(parts.meta)
    if rows.y.shape[1] == 1:
        model = HistGradientBoostingRegressor(random_state=seed).fit(rows.x, rows.y[:, 0])
        return measure(setting, parts, model.predict(parts.test.x)[:, np.newaxis])
    weights = "balanced" if setting == "imbalance" else None
    model = HistGradientBoostingClassifier(random_state=seed, class_weight=weights).fit(rows.x, rows.y.argmax(axis=1))
    return measure(setting, parts, model.predict_proba(parts.test.x))
