"""Tests of `ml3_tf.datasets`: shapes, ranges, the curves themselves, seeds, and the words of each error."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf
from ml3_tf import sine_tasks
from ml3_tf.datasets import tasks_from_arrays, with_minibatches


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


# Tasks from arrays

X = np.arange(60, dtype="float64").reshape(30, 2)  # a row tells its number: its first column is twice it
LABELS = np.arange(30) % 5


def draw(*args, **kwargs):
    return next(tasks_from_arrays(*args, seed=0, **kwargs).as_numpy_iterator())


def rows_of(x):
    return (x[..., 0] / 2).astype(int)


def test_a_task_is_a_random_subset_and_its_query_points_are_others():
    y = np.sin(X[:, 0])
    batch = draw(X, y, 50, num_support=10, num_query=5)
    (x, targets), (query_x, _) = batch["support"], batch["query"]
    assert (x.shape, targets.shape, query_x.shape) == ((50, 10, 2), (50, 10), (50, 5, 2))
    assert x.dtype == targets.dtype == np.float32
    np.testing.assert_array_equal(targets, y.astype("float32")[rows_of(x)])
    for rows in np.concatenate([rows_of(x), rows_of(query_x)], axis=1):
        assert len(set(rows)) == 15
    counts = np.bincount(rows_of(x).ravel(), minlength=30)
    assert counts.min() > 6 and counts.max() < 30  # expected: 50 * 10 / 30 = 17


def test_classes_are_kept_apart_and_numbered_anew():
    batch = draw(X, LABELS, 200, num_support=7, num_query=5, num_classes=2)
    x, y = (np.concatenate(parts, axis=1) for parts in zip(batch["support"], batch["query"]))
    assert y.shape == (200, 12, 2) and np.all(y.sum(axis=-1) == 1)
    pairs = set()
    for rows, targets in zip(rows_of(x), y):
        labels, numbers = LABELS[rows], targets.argmax(axis=-1)
        found = set(zip(labels, numbers))
        assert len(found) == 2
        pairs.add(tuple(sorted(found, key=lambda item: item[1])))
    assert len(pairs) == 20  # ordered pairs of five classes


def test_tables_of_different_sizes_are_filled_up_with_weights_of_zero():
    small, large = (X[:6], LABELS[:6].astype("float32")), (X[6:], LABELS[6:].astype("float32"))
    batch = draw([small[0], large[0]], [small[1], large[1]], 100, num_support=8, num_query=4)
    sizes = set()
    for x, y, weights, query_x, _, query_weights in zip(*batch["support"], *batch["query"]):
        rows = rows_of(np.concatenate([x[weights == 1], query_x[query_weights == 1]]))
        assert len(set(rows)) == len(rows)
        assert np.all(rows < 6) or np.all(rows >= 6)
        np.testing.assert_array_equal(y, LABELS[rows_of(x)])
        sizes.add((int(weights.sum()), int(query_weights.sum()), bool(np.all(rows < 6))))
    assert sizes == {(4, 2, True), (8, 4, False)}


def test_a_table_smaller_than_a_task_is_filled_up_too():
    batch = draw(X[:3], LABELS[:3], 20, num_support=8, num_query=4)
    assert np.all(batch["support"][2].sum(axis=1) == 2) and np.all(batch["query"][2].sum(axis=1) == 1)


def test_the_support_alone_is_corrupted():
    corrupt = lambda y, seed: tf.where(tf.random.stateless_uniform(y.shape[:2], seed)[..., None] < 0.5, 1 - y, y)
    options = {"num_support": 5, "num_query": 5, "num_classes": 2}
    clean, noisy = (draw(X, LABELS, 100, corrupt=function, **options) for function in (None, corrupt))
    np.testing.assert_array_equal(clean["query"][1], noisy["query"][1])
    np.testing.assert_array_equal(clean["support"][0], noisy["support"][0])
    assert np.mean(clean["support"][1] != noisy["support"][1]) == pytest.approx(0.5, abs=0.1)


def test_a_seed_determines_the_tasks():
    take = lambda seed: list(tasks_from_arrays(X, LABELS, 2, seed=seed).take(2).as_numpy_iterator())
    first, again, other = take(1), take(1), take(2)
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a["support"][0], b["support"][0])
    assert not np.array_equal(first[0]["support"][0], first[1]["support"][0])
    assert not np.array_equal(first[0]["support"][0], other[0]["support"][0])
    assert not np.array_equal(take(None)[0]["support"][0], take(None)[0]["support"][0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, LABELS[:5], {}), "need as many rows as each other.*\\(30, 2\\).*\\(5,\\)"),
        (([X, X[:, :1]], [LABELS, LABELS], {}), "rows of one shape in all tables"),
        ((X[:1], LABELS[:1], {}), "at least two examples.*a table with 1"),
        ((X[:5], LABELS[:5], {"num_classes": 1}), "at least two examples.*a table or classes with 1"),
        ((X, LABELS, {"num_classes": 6}), "There are 5 classes. Received: num_classes=6"),
        ((X, LABELS * 1.0, {"num_classes": 2}), "integers from 0. Received: float64 of the shape \\(30,\\)"),
        ((X, LABELS, {"num_support": 0}), "num_support"),
    ],
)
def test_arrays_that_make_no_tasks_are_refused(arguments, message):
    x, y, options = arguments
    with pytest.raises(ValueError, match=message):
        tasks_from_arrays(x, y, **options)


# Mini-batches


def test_each_epoch_takes_the_support_in_another_order():
    tasks = sine_tasks(2, num_support=10, seed=0)
    rows = next(with_minibatches(tasks, 3, num_epochs=4, seed=0).as_numpy_iterator())["minibatches"]
    assert rows.shape == (2, 12, 3)
    epochs = rows.reshape(2, 4, 9)
    assert all(len(set(epoch)) == 9 for task in epochs for epoch in task)
    assert len({tuple(epoch) for task in epochs for epoch in task}) == 8
    assert set(epochs.ravel()) == set(range(10))


def test_a_mini_batch_is_not_larger_than_the_support():
    with pytest.raises(ValueError, match="batch_size=101 for 100 points"):
        with_minibatches(sine_tasks(2), 101)
    with pytest.raises(ValueError, match="batch_size"):
        with_minibatches(sine_tasks(2), 0)


def test_a_learner_trains_on_mini_batches_as_fit_does():
    keras.utils.set_random_seed(0)
    build = lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    model = build()
    batch = next(iter(with_minibatches(sine_tasks(1, num_support=12, seed=0), 4, num_epochs=2, seed=0)))
    optimizer = lambda: keras.optimizers.Adam(0.05)
    losses = ml3_tf.meta_test(build, "mse", optimizer(), batch, num_steps=8, parameters=model, jit_compile=False)
    model.compile(optimizer(), loss="mse")
    x, y = (values[0].numpy() for values in batch["support"])
    query_x, query_y = (values[0] for values in batch["query"])
    expected = [model.evaluate(query_x, query_y, verbose=0)]
    for step in range(8):  # six mini-batches, then again the first
        rows = batch["minibatches"][0, step % 6]
        model.train_on_batch(x[rows], y[rows])
        expected.append(model.evaluate(query_x, query_y, verbose=0))
    np.testing.assert_allclose(losses[:, 0], expected, rtol=1e-4)


@pytest.mark.parametrize("lives", [None, 8])
def test_meta_training_takes_mini_batches_by_the_age_of_a_learner(lives):
    seen = []

    class Trainer(ml3_tf.MetaTrainer):
        def support(self, parameters, batch):
            seen.append(tuple(batch["support"][0].shape)[1:])
            return batch["support"]

    tasks = with_minibatches(sine_tasks(2, num_support=12, seed=0), 4, num_epochs=2, seed=0)
    build = lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    norms = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        trainer = Trainer(build, ml3_tf.MetaLoss.mlp((4,)), inner_steps=8, lives=lives, seed=0)
        trainer.compile(inner_optimizer=keras.optimizers.SGD(0.1), jit_compile=jit_compile)
        norms.append(trainer.fit(tasks, steps_per_epoch=3, verbose=0).history["meta_gradient_norm"][0])
    assert set(seen) == {(4, 1)} and norms[0] == pytest.approx(norms[1], rel=1e-3)
