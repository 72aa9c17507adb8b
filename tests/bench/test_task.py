"""Tests of tasks: scores, the order of examples, and padding."""

import numpy as np
import pytest

from ml3_tf.bench.task import Problems, Task, draw_order, measure, stack_problems
from ml3_tf.bench.tasks import TASKS


def test_the_score_of_numbers_is_that_of_scikit_learn():
    from sklearn.metrics import r2_score

    y = np.random.default_rng(0).normal(size=(50, 3))
    predicted = y + np.random.default_rng(1).normal(scale=0.5, size=y.shape)
    assert measure("regression", y, predicted) == pytest.approx(r2_score(y, predicted))
    assert measure("regression", y, 5 + y) == 0


def test_the_score_of_classes_is_the_accuracy_and_nan_counts_as_nothing():
    y, predicted = np.eye(4), np.eye(4)[[0, 1, 2, 0]]
    assert measure("classification", y, predicted) == 0.75
    assert measure("classification", y, np.where(predicted == 1, np.nan, predicted)) == 0
    assert measure("regression", y, np.full_like(y, np.inf)) == 0


def test_each_epoch_shows_each_row_once_and_no_padding():
    part = lambda rows: (np.ones((rows, 2)), np.ones((rows, 1)))
    problems = stack_problems([part(6), part(9)], [part(2), part(3)])
    assert problems.support[0].shape == (2, 9, 2) and problems.num_query.tolist() == [2, 3]
    assert problems.support[0][0, 6:].tolist() == [[0, 0]] * 3
    order = draw_order(problems, 3, 6, np.random.default_rng(0))
    assert order.shape == (2, 6, 3)
    assert sorted(order[0, :2].ravel()) == sorted(order[0, 2:4].ravel()) == list(range(6))
    assert sorted(order[1, :3].ravel()) == list(range(9))
    assert draw_order(problems, None, 4, np.random.default_rng(0)).shape == (2, 4, 6)
    with pytest.raises(ValueError, match="`batch_size` must not be larger than the support. Received: 7 for 6 rows"):
        draw_order(problems, 7, 1, np.random.default_rng(0))


def test_a_number_of_steps_that_is_not_scored_ten_times_is_refused():
    with pytest.raises(ValueError, match="`num_steps` must be a positive multiple of 10.*Received: num_steps=15"):
        Task(("sines",), "regression", lambda: None, lambda seed: None, num_steps=15)


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"fashion"}))
def test_a_task_draws_what_its_models_take_and_the_same_for_the_same_seed(name):
    task = TASKS[name]
    first, again, other = (task.draw(seed) for seed in (0, 0, 1))
    model = task.build()
    for problems in (first, other):
        assert isinstance(problems, Problems)
        assert len(problems.num_support) % len(task.names) == 0
        for (x, y), count in ((problems.support, problems.num_support), (problems.query, problems.num_query)):
            assert x.shape[:2] == y.shape[:2] == (len(count), count.max())
            assert x.shape[2:] == model.input_shape[1:] and y.shape[2:] == model.output_shape[1:]
            assert x.dtype == y.dtype == "float32"
            assert np.isfinite(x).all() and np.isfinite(y).all()
    np.testing.assert_array_equal(first.support[0], again.support[0])
    assert not np.array_equal(first.support[1], other.support[1]) or not np.array_equal(
        first.support[0], other.support[0]
    )
    assert "output" in [layer.name for layer in model.layers]  # which Muon leaves alone
    assert task.smoke().num_steps == 10
