"""Tests of `ml3_tf.datasets`: shapes, ranges, the curves themselves, seeds, and the words of each error."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from ml3_tf import sine_tasks


def batches(count=1, **kwargs):
    """Returns the first batches of `sine_tasks` as NumPy arrays."""
    return list(itertools.islice(sine_tasks(**kwargs).as_numpy_iterator(), count))


def amplitude_and_phase(x, y):
    """Fits `y = a sin(x - p) = a cos(p) sin(x) - a sin(p) cos(x)`; returns `a`, `p` and the largest residual."""
    columns = np.hstack([np.sin(x.astype("float64")), np.cos(x.astype("float64"))])
    (sine, cosine), *_ = np.linalg.lstsq(columns, y.astype("float64")[:, 0])
    residual = np.max(np.abs(columns @ [sine, cosine] - y[:, 0]))
    return math.hypot(sine, cosine), math.atan2(-cosine, sine), residual


def flat(batch):
    return np.concatenate([values.ravel() for values in tf.nest.flatten(batch)])


@pytest.mark.parametrize(("num_query", "query_points"), [(None, 7), (4, 4)])
def test_batches_hold_support_and_query_of_each_task(num_query, query_points):
    tasks = sine_tasks(num_tasks=3, num_support=7, num_query=num_query, seed=0)
    expected = {"support": [(3, 7, 1)] * 2, "query": [(3, query_points, 1)] * 2}
    (batch,) = tasks.take(1)
    for part, shapes in expected.items():
        assert [values.shape for values in batch[part]] == shapes
        assert [values.dtype for values in batch[part]] == [tf.float32] * 2
        assert [spec.shape for spec in tasks.element_spec[part]] == shapes  # static, as `MetaTrainer` needs them


def test_query_points_are_the_support_points_by_default():
    (batch,) = batches(num_tasks=2, seed=0)
    for support, query in zip(batch["support"], batch["query"], strict=True):
        np.testing.assert_array_equal(support, query)


def test_query_points_are_others_of_the_same_curve_when_asked_for():
    (batch,) = batches(num_tasks=4, num_support=20, num_query=30, seed=0)
    assert not np.intersect1d(batch["support"][0], batch["query"][0]).size
    for n in range(4):
        support, query = (amplitude_and_phase(x[n], y[n]) for x, y in (batch["support"], batch["query"]))
        np.testing.assert_allclose(query[:2], support[:2], atol=1e-5)


def test_curves_are_sines_whose_amplitude_and_phase_fill_the_ranges():
    (batch,) = batches(num_tasks=300, amplitude=(0.5, 2.0), phase=(-1.0, 3.0), seed=0)
    amplitudes, phases, residuals = np.transpose([amplitude_and_phase(x, y) for x, y in zip(*batch["support"])])
    assert np.max(residuals) < 1e-5
    for values, low, high in [(amplitudes, 0.5, 2.0), (phases, -1.0, 3.0)]:
        assert low - 1e-5 <= np.min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < np.max(values) <= high + 1e-5
    assert abs(np.corrcoef(amplitudes, phases)[0, 1]) < 0.2


def test_default_ranges_are_those_of_the_paper():
    (batch,) = batches(num_tasks=300, seed=0)
    amplitudes, phases, residuals = np.transpose([amplitude_and_phase(x, y) for x, y in zip(*batch["support"])])
    assert np.max(residuals) < 1e-5
    assert 0.2 - 1e-5 <= np.min(amplitudes) < 0.4 and 4.8 < np.max(amplitudes) <= 5.0 + 1e-5
    assert np.min(phases) < -3.0 and np.max(phases) > 3.0
    assert batch["support"][0].shape == (300, 100, 1)


def test_inputs_fill_their_range():
    (batch,) = batches(num_tasks=10, x_range=(-2.0, 1.0), seed=0)
    x = batch["support"][0]
    assert -2.0 <= np.min(x) < -1.9 and 0.9 < np.max(x) < 1.0


def test_a_number_is_a_constant():
    (batch,) = batches(num_tasks=2, amplitude=3, phase=math.pi, seed=0)
    x, y = batch["support"]
    np.testing.assert_allclose(y, -3 * np.sin(x), atol=1e-5)
    assert np.ptp(x) > 1


def test_tasks_and_batches_differ_from_one_another():
    first, second = batches(2, num_tasks=2, seed=0)
    for batch in (first, second):
        x, y = batch["support"]
        assert not np.array_equal(x[0], x[1])
        assert not np.allclose(amplitude_and_phase(x[0], y[0])[:2], amplitude_and_phase(x[1], y[1])[:2], atol=1e-3)
    assert not np.intersect1d(first["support"][0], second["support"][0]).size


def test_same_seed_gives_the_same_batches_at_each_reading():
    tasks = sine_tasks(num_tasks=2, num_query=5, seed=3)
    first, again = ([flat(batch) for batch in tasks.take(3).as_numpy_iterator()] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, [flat(batch) for batch in batches(3, num_tasks=2, num_query=5, seed=3)])


def test_global_seed_does_not_change_the_result_of_a_seed():
    (expected,) = batches(seed=3)
    tf.random.set_seed(1)
    try:
        (received,) = batches(seed=3)
    finally:
        tf.random.set_seed(None)
    np.testing.assert_array_equal(flat(received), flat(expected))


def test_different_seeds_give_different_batches():
    (first,), (second,) = batches(seed=0), batches(seed=1)
    assert not np.intersect1d(first["support"][0], second["support"][0]).size


def test_batches_of_neighboring_seeds_are_not_shifted_copies():
    first, second = (np.array([flat(batch) for batch in batches(4, seed=seed)]) for seed in (0, 1))
    assert not np.intersect1d(first, second).size


def test_no_seed_gives_new_batches_at_each_reading():
    tasks = sine_tasks()
    first, again = (flat(next(tasks.as_numpy_iterator())) for _ in range(2))
    assert not np.array_equal(first, again)


@pytest.mark.parametrize("name", ["num_tasks", "num_support", "num_query"])
@pytest.mark.parametrize("size", [0, -2])
def test_too_few_tasks_or_points_are_refused(name, size):
    with pytest.raises(ValueError, match=f"`{name}` must be an integer of at least 1. Received: {name}={size}"):
        sine_tasks(**{name: size})


@pytest.mark.parametrize("name", ["amplitude", "phase", "x_range"])
@pytest.mark.parametrize("value", [(2.0, 1.0), (0.0, math.nan)])
def test_range_that_ends_before_its_start_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must be a number or a range \(low, high\). Received: {name}=\("):
        sine_tasks(**{name: value})
