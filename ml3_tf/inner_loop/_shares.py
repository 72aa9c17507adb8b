"""Work on many tasks in shares."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from ml3_tf.inner_loop._replicas import Replicas


def compile_in_shares(
    function: Callable[..., Any],
    *,
    vectorized: bool,
    jit_compile: bool,
    replicas: Replicas | None = None,
    variables: Sequence[keras.Variable] = (),
) -> Callable[..., Any]:
    """Compiles a function of structures `[n, ...]` of any number of tasks, and calls it for shares of `N` tasks.

    If it is not vectorized, a share is one task: the graph holds one, however many there are. Otherwise each core gets
    a share, because XLA alone keeps one core busy; a GPU gets them all. With replicas, each has its own shares.

    Args:
        function: Function of structures of tensors, returning a structure of tensors whose first axes are to be joined.
        vectorized: Whether all tasks are one operation in the function.
        jit_compile: Whether to compile with XLA.
        replicas: `Replicas` that share the tasks.
        variables: What the function reads. On other devices than theirs, XLA takes values alone.

    Returns:
        A function of the same structures `[N, ...]`.
    """
    # TensorFlow would lay a function out at each call of it.
    attributes = None if jit_compile else {"_noinline": True}
    compiled = functools.partial(
        tf.function, autograph=False, jit_compile=jit_compile, experimental_attributes=attributes
    )
    in_shares = functools.partial(_call_in_shares, vectorized=vectorized, jit_compile=jit_compile)
    if replicas is None:
        return functools.partial(in_shares, compiled(function))
    with_values = compiled(_substitute(function, variables))

    def on_replica(values: Sequence[tf.Tensor], *rows: Any) -> Any:
        def run(*share: Any) -> Any:
            if jit_compile:
                replicas.check_captured(with_values.get_concrete_function(values, *share).variables)
            return with_values(values, *share)

        return in_shares(run, *rows)

    return replicas.share(on_replica, variables)


def _substitute(function: Callable[..., Any], variables: Sequence[keras.Variable]) -> Callable[..., Any]:
    """Returns the function `(values, *inputs)`, which reads `values` in the place of the variables."""

    def with_values(values: Sequence[tf.Tensor], *inputs: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*inputs)

    return with_values


def _call_in_shares(compiled: Callable[..., Any], *inputs: Any, vectorized: bool, jit_compile: bool) -> Any:
    num_tasks = _count_rows(inputs)
    count = count_shares(num_tasks, vectorized=vectorized, jit_compile=jit_compile)
    size = num_tasks // count
    if count == 1:
        return compiled(*inputs)
    share = lambda first: tf.nest.map_structure(lambda values: values[first : first + size], inputs)
    results = [compiled(*share(first)) for first in range(0, num_tasks, size)]
    return tf.nest.map_structure(lambda *values: tf.concat(values, axis=0), *results)


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
