"""Work on many tasks in shares."""

import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def compile_in_shares(function: Callable[..., Any], *, vectorized: bool, jit_compile: bool) -> Callable[..., Any]:
    """Compiles a function of structures `[n, ...]` of any number of tasks, and calls it for shares of `N` tasks.

    If it is not vectorized, a share is one task: the graph holds one, however many there are. Otherwise each core gets
    a share, because XLA alone keeps one core busy; a GPU gets them all.

    Args:
        function: Function of structures of tensors, returning a structure of tensors whose first axes are to be joined.
        vectorized: Whether all tasks are one operation in the function.
        jit_compile: Whether to compile with XLA.

    Returns:
        A function of the same structures `[N, ...]`.
    """
    # TensorFlow would lay a function out at each call of it.
    attributes = None if jit_compile else {"_noinline": True}
    compiled = tf.function(function, autograph=False, jit_compile=jit_compile, experimental_attributes=attributes)

    def call(*inputs: Any) -> Any:
        num_tasks = _count_rows(inputs)
        count = count_shares(num_tasks, vectorized=vectorized, jit_compile=jit_compile)
        size = num_tasks // count
        if count == 1:
            return compiled(*inputs)
        share = lambda first: tf.nest.map_structure(lambda values: values[first : first + size], inputs)
        results = [compiled(*share(first)) for first in range(0, num_tasks, size)]
        return tf.nest.map_structure(lambda *values: tf.concat(values, axis=0), *results)

    return call


def count_shares(num_tasks: int, *, vectorized: bool, jit_compile: bool) -> int:
    """Returns the number of shares that `compile_in_shares` makes of N tasks."""
    if not vectorized:
        return num_tasks
    num_cores = 1 if not jit_compile or tf.config.list_logical_devices("GPU") else os.cpu_count() or 1
    return max(n for n in range(1, num_cores + 1) if num_tasks % n == 0)


def _count_rows(inputs: Any) -> int:
    """Returns N of structures of tensors `[N, ...]`: the parameters of the learners, then a batch."""
    first, *others = tf.nest.flatten(inputs)
    shapes = {tuple(values.shape) for values in others if values.shape.rank == 0 or values.shape[0] != first.shape[0]}
    if shapes:
        raise ValueError(
            f"Every array of a batch has one row for each of its {first.shape[0]} tasks. Received arrays of shape "
            f"{', '.join(map(str, sorted(shapes)))}. Repeat what all tasks share, or let a hook hold it."
        )
    return first.shape[0]
