"""Tests of `ml3_tf.inner_loop._shares`: work on many tasks, in as many calls as serve it best."""

import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.inner_loop import _shares


@pytest.mark.parametrize(
    ("vectorized", "jit_compile", "num_calls"),
    [(True, True, 3), (True, False, 1), (False, True, 6), (False, False, 6)],
    ids=["XLA: one share a core", "no XLA: one share", "not vectorized, XLA: one task a call", "not vectorized"],
)
def test_shares_of_the_tasks_are_calls_of_their_own(vectorized, jit_compile, num_calls, monkeypatch):
    """The graph of a share is traced once, and the results are joined in the order of the tasks."""
    monkeypatch.setattr(_shares.os, "cpu_count", lambda: 4)  # the largest share count that divides 6 tasks is 3
    monkeypatch.setattr(_shares.tf.config, "list_logical_devices", lambda kind: [])
    sizes = []

    def double(x):
        sizes.append(x["x"].shape[0])
        return 2 * x["x"], tf.reduce_sum(x["x"])[tf.newaxis]

    x = tf.range(6.0)[:, tf.newaxis]
    compiled = _shares.compile_in_shares(double, vectorized=vectorized, jit_compile=jit_compile)
    doubled, sums = compiled({"x": x})
    np.testing.assert_array_equal(doubled, 2 * x)
    np.testing.assert_array_equal(sums, np.reshape(x, [num_calls, -1]).sum(axis=1))
    assert sizes == [6 // num_calls]


def test_a_gpu_gets_all_tasks(monkeypatch):
    monkeypatch.setattr(_shares.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(_shares.tf.config, "list_logical_devices", lambda kind: ["a GPU"] if kind == "GPU" else [])
    count = _shares.compile_in_shares(lambda x: tf.fill([1], x.shape[0]), vectorized=True, jit_compile=True)
    np.testing.assert_array_equal(count(tf.zeros((6, 1))), [6])


def test_arrays_without_a_row_for_each_task_are_refused():
    compiled = _shares.compile_in_shares(lambda x, y: x, vectorized=True, jit_compile=False)
    with pytest.raises(ValueError, match=r"one row for each of its 2 tasks. Received arrays of shape \(3, 1\)"):
        compiled(tf.zeros((2, 1)), {"y": tf.zeros((3, 1))})
