"""Tests of the losses from the literature, against their equations and each other."""

import keras
import numpy as np
import pytest

from ml3_tf.bench import literature as losses

Y = np.eye(3, dtype="float32")[[0, 2]]
P = np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]], "float32")


def test_generalized_cross_entropy_is_that_of_keras_which_takes_indices():
    expected = keras.losses.CategoricalGeneralizedCrossEntropy(q=0.7)(np.array([0, 2]), P)
    assert float(losses.GeneralizedCrossEntropy(0.7)(Y, P)) == pytest.approx(float(expected), rel=1e-5)
    nearly = losses.GeneralizedCrossEntropy(1e-3)(Y, P)  # q -> 0 is cross-entropy
    assert float(nearly) == pytest.approx(float(keras.losses.CategoricalCrossentropy()(Y, P)), rel=1e-2)


def test_symmetric_cross_entropy_is_the_sum_of_both_directions():
    forward = -np.log([0.7, 0.4])
    log_labels = np.where(Y == 1, 0, np.log(1e-4))
    reverse = -np.sum(P * log_labels, axis=1)
    found = losses.SymmetricCrossEntropy(alpha=0.1, beta=2.0).call(Y, P)
    np.testing.assert_allclose(found, 0.1 * forward + 2 * reverse, rtol=1e-5)


def test_baikal_is_its_equation_and_finite_at_zero():
    expected = -np.mean(np.log(P) - Y / P, axis=1)
    np.testing.assert_allclose(losses.Baikal().call(Y, P), expected, rtol=1e-5)
    assert np.isfinite(losses.Baikal()(np.eye(2), np.eye(2)[::-1]))


def test_the_taylor_polynomial_can_be_that_of_cross_entropy():
    p = np.array([[0.45, 0.55], [0.6, 0.4]], "float32")
    y = np.array([[0.5, 0.5], [0.5, 0.5]], "float32")
    # y log p around y = p = 1/2, to the third order
    loss = losses.TaylorPolynomial((0.5, 0.5, 1.0, -1.0, 4 / 3, 2.0, -2.0, 0.0))
    expected = -np.mean(y * np.log(p), axis=1) + np.mean(y * np.log(y), axis=1)
    np.testing.assert_allclose(loss.call(y, p) - loss.call(y, y), expected, atol=3e-4)  # the fourth order
    with pytest.raises(ValueError, match="`coefficients` must be eight numbers, c0 to c7. Received: \\(1.0, 2.0\\)"):
        losses.TaylorPolynomial((1.0, 2.0))


def test_the_evolved_polynomial_pulls_to_the_right_class_but_not_to_certainty():
    slope = lambda p: (loss(p + 1e-2) - loss(p - 1e-2)) / 2e-2
    loss = lambda p: float(losses.TaylorPolynomial().call(np.eye(2)[:1], np.array([[p, 1 - p]]))[0])
    assert slope(0.2) < 0 and slope(0.5) < 0 < slope(0.95)


def test_the_smooth_leaky_relu_is_a_leaky_relu_far_from_zero():
    x = np.array([-3.0, 3.0], "float32")
    np.testing.assert_allclose(losses.smooth_leaky_relu(x), [-0.03, 3.0], atol=1e-5)


@pytest.mark.parametrize("loss", [losses.GeneralizedCrossEntropy(), losses.SymmetricCrossEntropy(), losses.Baikal()])
def test_settings_are_part_of_the_configuration(loss):
    names = set(loss.get_config()) - {"name", "reduction", "dtype"}
    assert names and all(getattr(loss, name) == loss.get_config()[name] for name in names)
    again = type(loss)(**{name: loss.get_config()[name] for name in names})
    np.testing.assert_allclose(again.call(Y, P), loss.call(Y, P))
