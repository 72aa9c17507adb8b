"""The tasks of a step, shared among the devices and hosts of a `tf.distribute.Strategy`.

All that a trainer is, its variables and seeds, lies on one device of each host, and every host has the same. What costs
time, the steps of the learners and the sweep back, runs on each replica for its rows of the batch, and the results are
joined. So a step is that of one device, but for the order of sums, and a run is saved and resumed like any other.

Shape letters: N tasks, R replicas.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

KINDS = (
    tf.distribute.MirroredStrategy,
    tf.distribute.OneDeviceStrategy,
    tf.distribute.MultiWorkerMirroredStrategy,
)


class Replicas:
    """The replicas of a strategy.

    Args:
        strategy: `MirroredStrategy`, `OneDeviceStrategy` or `MultiWorkerMirroredStrategy`.

    Attributes:
        count: R, the number of replicas on all hosts.
        num_hosts: Number of hosts.
        host: The number of this host, from 0.

    Raises:
        ValueError: Another strategy.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        if not isinstance(strategy, KINDS):
            raise ValueError(
                "`strategy` shares the tasks of a step among devices: expected one of tf.distribute's "
                f"{', '.join(kind.__name__ for kind in KINDS)}. Received: {type(strategy).__name__}"
            )
        self._strategy = strategy
        self._devices: Sequence[str] = strategy.extended.worker_devices
        self.count: int = strategy.num_replicas_in_sync
        self.num_hosts: int = self.count // len(self._devices)
        self._agreements: dict[tuple[int, ...], Callable[[], None]] = {}
        self.host: int = strategy.cluster_resolver.task_id if self.num_hosts > 1 else 0

    def share(self, function: Callable[..., Any], variables: Sequence[keras.Variable]) -> Callable[..., Any]:
        """Returns a function of structures `[N, ...]` that calls another one on each replica for its N / R rows.

        Args:
            function: Function `(values, *structures)`: the values of the variables on its device, then `[n, ...]`. It
                returns a structure of tensors, whose first axes are joined.
            variables: Variables that lie on the first device of this host.
        """

        def call(*inputs: Any) -> Any:
            inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
            size = self._count_rows(inputs)
            values = [tf.convert_to_tensor(variable) for variable in variables]
            results = []
            for number, device in enumerate(self._devices, self.host * len(self._devices)):
                rows = lambda values, first=number * size: values[first : first + size]
                with tf.device(device):
                    there = [tf.identity(value) for value in values]
                    results.append(function(there, *tf.nest.map_structure(rows, inputs)))
            return self._join(results)

        # Devices work at the same time in a graph. One within another would lose the keys of what hosts exchange.
        in_graph = tf.function(call, autograph=False)
        return lambda *inputs: (in_graph if tf.executing_eagerly() else call)(*inputs)

    def check_steps(self, steps_per_execution: int) -> None:
        """Raises `ValueError` for several steps in one call on several hosts, whose loop Keras cannot run."""
        if self.num_hosts > 1 and steps_per_execution != 1:
            raise ValueError(
                "Hosts meet after each step: expected steps_per_execution=1. Received: "
                f"steps_per_execution={steps_per_execution}"
            )

    def check_captured(self, variables: Sequence[tf.Variable]) -> None:
        """Raises `ValueError` for variables that a function compiled by XLA holds, which only their device can run."""
        if len(self._devices) > 1 and variables:
            raise ValueError(
                f"The steps read variables of {self._devices[0]} that XLA cannot read on {self._devices[1]}: "
                f"{', '.join(variable.name for variable in variables)}. Give a model as `dynamics` instead of a "
                "function that calls it, hold what is constant in tensors, or compile with jit_compile=False."
            )

    def agree(self, variables: Sequence[tf.Variable]) -> None:
        """Gives the variables of all hosts the values that they have on the first one."""
        if self.num_hosts == 1:
            return

        def assign() -> None:
            own = [tf.convert_to_tensor(variable)[tf.newaxis] for variable in variables]
            for variable, values in zip(variables, self._join([own] * len(self._devices)), strict=True):
                variable.assign(values[0])

        key = tuple(map(id, variables))
        if key not in self._agreements:  # a graph for each epoch would stay in memory
            self._agreements[key] = tf.function(assign, autograph=False)
        self._agreements[key]()

    def _count_rows(self, inputs: Any) -> int:
        num_tasks = tf.nest.flatten(inputs)[0].shape[0]
        if num_tasks % self.count:
            raise ValueError(
                f"Each of the {self.count} replicas takes as many tasks as the others: expected a batch of a multiple "
                f"of {self.count} tasks. Received: {num_tasks} tasks"
            )
        return num_tasks // self.count

    def _join(self, results: Sequence[Any]) -> Any:
        """Joins what the replicas of all hosts give: structures `[n, ...]` to `[R n, ...]`."""
        if self.num_hosts == 1:
            return tf.nest.map_structure(lambda *rows: tf.concat(rows, 0), *results)

        def on_replica() -> Any:
            context = tf.distribute.get_replica_context()
            own = results[tf.get_static_value(context.replica_id_in_sync_group) % len(results)]
            return gather_packed(own, lambda values: context.all_gather(values, axis=0), count=self.count)

        return self._strategy.experimental_local_results(self._strategy.run(on_replica))[0]


def gather_packed(results: Any, gather: Callable[[tf.Tensor], tf.Tensor], *, count: int) -> Any:
    """Gathers tensors of `count` replicas, with one message for each type: structures `[n, ...]` to `[R n, ...]`.

    Args:
        results: Structure of tensors `[n, ...]`; n may differ from tensor to tensor.
        gather: Function `[1, W] -> [R, W]`.
        count: R.
    """
    leaves = tf.nest.flatten(results)
    gathered: list[Any] = [None] * len(leaves)
    for dtype in sorted({leaf.dtype.name for leaf in leaves}):
        chosen = [i for i, leaf in enumerate(leaves) if leaf.dtype.name == dtype]
        flat = [tf.reshape(leaves[i], [1, -1]) for i in chosen]
        joined = _gather_any(tf.concat(flat, 1), gather)
        parts = tf.split(joined, [values.shape[1] for values in flat], 1)
        for i, part in zip(chosen, parts, strict=True):
            gathered[i] = tf.reshape(part, [count * leaves[i].shape[0], *leaves[i].shape[1:]])
    return tf.nest.pack_sequence_as(results, gathered)


def _gather_any(values: tf.Tensor, gather: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Gathers a tensor of any type of numbers: TensorFlow itself gathers floats and signed integers."""
    if values.dtype.is_floating or values.dtype in (tf.int32, tf.int64):
        return gather(values)
    if values.dtype.size == 4:  # unsigned, such as the seeds of a generator
        return tf.bitcast(gather(tf.bitcast(values, tf.int32)), values.dtype)
    return tf.cast(gather(tf.cast(values, tf.int64)), values.dtype)
