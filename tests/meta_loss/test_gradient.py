"""Tests of `ml3_tf.meta_loss._gradient`: value and gradient as arrays."""

import sys

import numpy as np
import pytest


def test_value_and_gradient_are_those_of_finite_differences(make_loss):
    loss = make_loss(dtype="float64")
    y_true, y_pred = np.random.default_rng(2).normal(size=(2, 5, 1))
    value, gradient = loss.value_and_gradient(y_true, y_pred)
    np.testing.assert_allclose(value, loss.call(y_true, y_pred), rtol=1e-12)
    ahead, behind = (np.asarray(loss.call(y_true, y_pred + step)) for step in (1e-6, -1e-6))
    np.testing.assert_allclose(gradient[:, 0], (ahead - behind) / 2e-6, rtol=1e-6)


def test_a_gradient_needs_tensorflow(make_loss, monkeypatch):
    loss = make_loss()
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # importing it raises ImportError
    with pytest.raises(ImportError, match="tensorflow"):
        loss.value_and_gradient([[0.0]], [[0.0]])
