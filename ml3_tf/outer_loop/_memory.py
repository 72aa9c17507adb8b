"""How much memory a step of meta-training takes, before it is taken."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from ml3_tf.inner_loop import count_shares

MIB = 2**20
_ALIASES = ("Identity", "Reshape", "ExpandDims", "Squeeze", "StopGradient")


def estimate_memory(
    take: Callable[[Any, Any], Any], learners: Any, batch: Any, *, vectorized: bool, count_kept: Callable[[int], int]
) -> int:
    """Returns about how many bytes a step of meta-training needs, and warns if the machine has less.

    Args:
        take: Function `(learners, batch)` of any number of tasks: the steps that lie under one tape.
        learners: The `LearnerState` of N tasks, or tensors of a graph like it.
        batch: Their tasks.
        vectorized: Whether `take` runs for a share of the tasks at a time, or for one task.
        count_kept: Function of the bytes of a share's learners that returns how many of these are kept on the way.
    """
    num_tasks = learners.age.shape[0]
    num_shares = count_shares(num_tasks, vectorized=vectorized, jit_compile=True)  # without XLA one share is as large
    spec = lambda value: tf.TensorSpec((num_tasks // num_shares, *value.shape[1:]), value.dtype)
    share = tf.nest.map_structure(spec, (learners, batch))
    size = size_of(share[0])
    at_once = min(os.cpu_count() or 1, num_shares)
    needed = size_of((learners, batch)) + at_once * (live_bytes(take, *share) + count_kept(size) * size)
    warn_if_too_little(needed)
    return needed


def live_bytes(function: Callable[..., Any], *specs: Any) -> int:
    """Returns the most bytes that the results of a function's operations hold at once, each until its last use.

    What a loop keeps inside of itself is not counted: a graph does not tell.

    Args:
        function: Function of structures of tensors.
        *specs: The same structures of `tf.TensorSpec`.

    Example:

    >>> live_bytes(lambda x: tf.exp(tf.exp(x)), tf.TensorSpec((256,)))  # three times 1 KiB at most, x among them
    3072
    """
    graph = tf.function(function, autograph=False).get_concrete_function(*specs).graph
    roots: dict[Any, Any] = {}
    last_use: dict[Any, int] = {}
    operations = graph.get_operations()
    for place, operation in enumerate(operations):
        used = [roots.get(tensor.ref(), tensor.ref()) for tensor in operation.inputs]
        last_use |= dict.fromkeys(used, place)
        if operation.type in _ALIASES:
            roots |= {tensor.ref(): used[0] for tensor in operation.outputs}
    last_use |= {roots.get(tensor.ref(), tensor.ref()): len(operations) for tensor in graph.outputs}
    last_use |= {tensor.ref(): len(operations) for tensor in graph.inputs}  # the caller holds them
    ends: dict[int, int] = {}
    live = most = 0
    for place, operation in enumerate(operations):
        made = [tensor for tensor in operation.outputs if tensor.ref() not in roots]
        live += sum(map(_bytes, made))
        most = max(most, live)
        for tensor in made:
            end = last_use.get(tensor.ref(), place)
            ends[end] = ends.get(end, 0) + _bytes(tensor)
        live -= ends.get(place, 0)
    return most


def size_of(structure: Any) -> int:
    """Returns the bytes of a structure of tensors, or of specs."""
    return sum(map(_bytes, tf.nest.flatten(structure)))


def warn_if_too_little(needed: int) -> None:
    """Warns if the machine has less memory left than `needed` bytes. A GPU's memory is not looked at."""
    available = available_bytes()
    if available is not None and needed > available and not tf.config.list_logical_devices("GPU"):
        warnings.warn(
            f"A step of meta-training needs about {needed / MIB:,.0f} MiB, and this machine has "
            f"{available / MIB:,.0f} MiB left. Take fewer tasks or examples in a batch or a lower `unroll`, or keep "
            "fewer learners on the way (`recompute`).",
            stacklevel=3,
        )


def available_bytes() -> int | None:
    """Returns how much memory the machine, or the container, has left; `None` where it does not tell."""
    limits = []
    meminfo, group = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    if meminfo.is_file():
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        limits.append(1024 * int(fields["MemAvailable"].split()[0]))
    try:
        limits.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        pass
    return min(limits, default=None)


def _bytes(tensor: Any) -> int:
    count = tensor.shape.num_elements() if tensor.shape.rank is not None else None
    return (count or 0) * tensor.dtype.size
