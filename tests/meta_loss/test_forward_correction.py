"""Tests of the base that counts in each set how labels are wrong."""

import numpy as np
import pytest

import ml3_tf

BASE = {"name": "forward_corrected_cross_entropy", "q": 0.7, "prior_count": 2.0, "balance": 0.0}
CLASSES = {"p": 3, "t": 3}
Y_PRED = np.random.default_rng(0).dirichlet([1.0] * 3, 5).astype("float32")
LABELS = np.array([0, 1, 2, 1, 0])
Y_TRUE = np.eye(3, dtype="float32")[LABELS]


def forward_corrected(labels, y_pred, q, prior_count, weights):
    """As in the docstring, one example and one class after the other."""
    noise = prior_count * np.eye(y_pred.shape[1])
    for label, p, weight in zip(labels, y_pred, weights, strict=True):
        for true_class in range(y_pred.shape[1]):
            noise[true_class, label] += weight * p[true_class]
    noise /= noise.sum(axis=1, keepdims=True)
    seen = np.array([sum(p * noise[:, label]) for label, p in zip(labels, y_pred, strict=True)])
    return (1 - seen**q) / q


@pytest.mark.parametrize("mode", ["per_sample", "per_output", "per_set"])
def test_forward_correction_counts_how_labels_are_wrong_in_the_set(mode):
    features = None if mode == "per_output" else CLASSES
    loss = ml3_tf.MetaLoss.around(BASE, mode=mode, features=features)
    assert loss.pools_examples
    expected = forward_corrected(LABELS, Y_PRED, 0.7, 2.0, np.ones(5))
    np.testing.assert_allclose(loss.call(LABELS, Y_PRED), expected, rtol=1e-6)

    weights = np.array([1.0, 0.0, 2.0, 0.5, 1.0], "float32")
    expected = forward_corrected(LABELS, Y_PRED, 0.7, 2.0, weights)
    np.testing.assert_allclose(loss.call(LABELS, Y_PRED, weights), expected, rtol=1e-6)
    np.testing.assert_allclose(loss(LABELS, Y_PRED, weights), np.mean(weights * expected), rtol=1e-6)

    sets = loss.call(np.stack([LABELS, LABELS[::-1]]), np.stack([Y_PRED, Y_PRED]))
    np.testing.assert_allclose(sets[1], forward_corrected(LABELS[::-1], Y_PRED, 0.7, 2.0, np.ones(5)), rtol=1e-6)


def test_forward_correction_finds_flipped_pairs_where_cross_entropy_learns_them():
    """Of each class, two labels in five are those of the next: a model that names the classes has the lower loss."""
    classes = np.repeat(np.arange(5), 20)
    labels = np.where(np.arange(100) % 5 < 2, (classes + 1) % 5, classes)
    right = 0.98 * np.eye(5)[classes] + 0.004
    as_labeled = 0.98 * (0.6 * np.eye(5)[classes] + 0.4 * np.eye(5)[(classes + 1) % 5]) + 0.004
    of = lambda base, p: float(np.mean(ml3_tf.MetaLoss.around(base, features={"p": 5, "t": 5}).call(labels, p)))
    corrected = {"name": "forward_corrected_cross_entropy", "q": 0.0078125, "prior_count": 1.0, "balance": 0.0}
    assert of("sparse_categorical_crossentropy", right) > 2 * of("sparse_categorical_crossentropy", as_labeled)
    assert of(corrected, right) < of(corrected, as_labeled)


def test_no_gradient_flows_through_the_counts():
    _, slope = ml3_tf.MetaLoss.around(BASE, features=CLASSES).value_and_gradient(Y_TRUE, Y_PRED)
    counts = Y_PRED.T @ Y_TRUE + 2 * np.eye(3)
    noise = counts / counts.sum(axis=1, keepdims=True)
    seen = np.sum((Y_PRED @ noise) * Y_TRUE, axis=1, keepdims=True)
    np.testing.assert_allclose(slope, -(seen**-0.3) * noise[:, LABELS].T, rtol=1e-5)


@pytest.mark.parametrize("weights", [None, np.array([1.0, 0.0, 2.0, 0.5, 1.0], "float32")])
def test_the_balance_is_the_divergence_of_the_mean_prediction_from_the_mean_label(weights):
    loss, balanced = (ml3_tf.MetaLoss.around({**BASE, "balance": value}, features=CLASSES) for value in (0.0, 0.5))
    labels, predicted = (np.average(values, axis=0, weights=weights) for values in (Y_TRUE, Y_PRED))
    divergence = np.sum(labels[labels > 0] * np.log(labels[labels > 0] / predicted[labels > 0]))
    difference = balanced.call(Y_TRUE, Y_PRED, weights) - loss.call(Y_TRUE, Y_PRED, weights)
    np.testing.assert_allclose(difference, np.full(5, 0.5 * divergence), rtol=1e-4)


def test_the_balance_parts_classes_that_have_become_one():
    """Where the second class is never predicted, counted labels pull hardly anything to it; the balance does."""
    labels = np.arange(20) % 2
    merged = np.tile(np.array([[0.98, 0.01, 0.01]], "float32"), (20, 1))
    pulls = []
    for balance in (0.0, 1.0):
        loss = ml3_tf.MetaLoss.around({**BASE, "balance": balance}, features=CLASSES)
        pulls.append(-np.mean(loss.value_and_gradient(np.eye(3)[labels], merged)[1][labels == 1, 1]))
    assert pulls[1] > 10 * pulls[0] > 0
