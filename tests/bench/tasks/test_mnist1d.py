"""Tests of the curves after MNIST-1D."""

import numpy as np

from ml3_tf.bench.tasks import mnist1d


def test_templates_are_ten_different_shapes_of_one_size():
    assert mnist1d.TEMPLATES.shape == (10, 12)
    assert not mnist1d.TEMPLATES[:, [0, -1]].any()
    np.testing.assert_allclose(mnist1d.TEMPLATES.std(axis=1), 1 / 6)
    distances = np.abs(mnist1d.TEMPLATES[:, np.newaxis] - mnist1d.TEMPLATES).max(axis=-1)
    assert distances[~np.eye(10, dtype=bool)].min() > 0.1


def test_without_noise_slope_and_shift_a_curve_is_its_template(monkeypatch):
    for name in ("SCALE", "CORRELATED_NOISE", "WHITE_NOISE", "LARGEST_SLOPE"):
        monkeypatch.setattr(mnist1d, name, 0.0)
    monkeypatch.setattr(mnist1d, "LARGEST_SHIFT", 1)
    curve = mnist1d.draw_curve(6, np.random.default_rng(0))
    assert np.all(curve[1:6] < 0) and not curve[0] and not curve[15:].any()
    assert np.all(np.diff(curve[:3]) < 0)  # the left side of the valley


def test_classes_are_balanced_and_curves_standardized():
    problems = mnist1d.draw_curves(0)
    x, y = problems.support
    assert np.bincount(y[0].argmax(1)).tolist() == [400] * 10
    np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=1e-5)
