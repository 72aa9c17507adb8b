"""Tests of the statistics over seeds that recipes and tables report."""

import numpy as np
import pytest
from scipy import stats

from ml3_tf.bench.statistics import bootstrap_interval, interquartile_mean, probability_of_improvement


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end():
    scores = np.array([[9.0, 1.0, 1000.0, 4.0], [2.0, 3.0, -1000.0, 6.0]])
    assert interquartile_mean(scores) == pytest.approx((2 + 3 + 4 + 6) / 4)
    np.testing.assert_allclose(interquartile_mean(np.stack([scores, 2 * scores])), [3.75, 7.5])


def test_the_probability_of_improvement_is_that_of_mann_and_whitney():
    generator = np.random.default_rng(0)
    ours, theirs = generator.integers(0, 5, (7, 3)).astype(float), generator.integers(0, 5, (9, 3)).astype(float)
    expected = np.mean([stats.mannwhitneyu(ours[:, t], theirs[:, t]).statistic / 63 for t in range(3)])
    assert probability_of_improvement(ours, theirs) == pytest.approx(expected)
    assert probability_of_improvement(theirs, ours) == pytest.approx(1 - expected)


def test_the_interval_of_a_mean_is_that_of_scipy():
    scores = np.random.default_rng(1).normal(size=(40, 1))
    found = bootstrap_interval(lambda values: values.mean(axis=(-2, -1)), scores, num_samples=10_000)
    settings = {"n_resamples": 10_000, "method": "percentile", "random_state": 0}  # SciPy 1.13 has no `rng`
    expected = stats.bootstrap((scores[:, 0],), np.mean, **settings)
    assert found.value == pytest.approx(scores.mean())
    np.testing.assert_allclose(found[1:], expected.confidence_interval, atol=0.02)
    assert bootstrap_interval(interquartile_mean, scores) == bootstrap_interval(interquartile_mean, scores)


def test_seeds_are_drawn_within_each_table():
    """Tables that differ widely, with equal seeds: drawn within them, nothing varies."""
    scores = np.tile([0.0, 10.0, 1000.0], (5, 1))
    assert bootstrap_interval(lambda values: values.mean(axis=(-2, -1)), scores)[1:] == pytest.approx([1010 / 3] * 2)


def test_shapes_that_do_not_fit_are_told():
    with pytest.raises(ValueError, match=r"with the same tables. Received: the shapes \(2, 3\) and \(2, 4\)"):
        probability_of_improvement(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"shape \[seeds, tables\], not empty. Received: the shapes \[\(3,\)\]"):
        bootstrap_interval(interquartile_mean, np.zeros(3))
