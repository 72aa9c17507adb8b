"""A function of one task, applied to many."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# Operations that cannot be batched when each task has weights of its own (convolutions), or whose batched form XLA
# cannot compile (loops, and look-ups in a table).
_NOT_VECTORISED = (
    "Conv",
    "DepthwiseConv",
    "While",
    "StatelessWhile",
    "Gather",
    "ResourceGather",
    "BatchMatMul",
    "Einsum",
)
# Those whose batched second derivative asks for shapes at run time: XLA then compiles at every step, or refuses.
_NOT_VECTORISED_FLOATS = (
    "StridedSlice",
    "Slice",
    "Split",
    "SplitV",
    "ConcatV2",
    "Transpose",
    "Sum",
    "Mean",
    "Prod",
    "Max",
    "Min",
)


def map_over_tasks(function: Callable[[Any], Any], inputs: Any, *, vectorized: bool = True) -> Any:
    """Applies a pure function of one task to `N` tasks.

    Args:
        function: Function of a structure of tensors `[...]`, returning a structure of tensors `[...]`.
        inputs: The same structure of tensors `[N, ...]`; N is static.
        vectorized: Whether to run each operation for all tasks at once. Otherwise the tasks are laid out in the graph
            one after the other, which any operation, its derivatives and XLA can cope with.

    Returns:
        The results, `[N, ...]`, with static shapes.

    Example:

    >>> numbers = tf.constant([1.0, 2.0]), tf.constant([3.0, 4.0])
    >>> map_over_tasks(lambda pair: pair[0] * pair[1], numbers).numpy().tolist()
    [3.0, 8.0]
    """
    num_tasks = tf.nest.flatten(inputs)[0].shape[0]
    if vectorized and num_tasks > 1:  # for one task the vectorized form has no static shapes, which XLA needs
        results = tf.vectorized_map(function, inputs, warn=False)
        return tf.nest.map_structure(lambda t: tf.ensure_shape(t, [num_tasks, *t.shape[1:]]), results)
    tasks = [function(tf.nest.map_structure(lambda t, n=n: t[n], inputs)) for n in range(num_tasks)]
    return tf.nest.map_structure(lambda *values: tf.stack(values), *tasks)


def is_vectorizable(function: Callable[[Any], Any], inputs: Any) -> bool:
    """Whether `map_over_tasks` may vectorize a function: XLA then compiles it and its second derivative once.

    Args:
        function: As in `map_over_tasks`.
        inputs: As in `map_over_tasks`; only their shapes and dtypes matter.

    Example:

    >>> is_vectorizable(tf.square, tf.zeros((3, 2))), is_vectorizable(tf.reduce_sum, tf.zeros((3, 2)))
    (True, False)
    """
    specs = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape[1:], t.dtype), inputs)
    graph = tf.function(function, autograph=False).get_concrete_function(specs).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return not any(map(_stands_in_the_way, nodes))


def _stands_in_the_way(node: Any) -> bool:
    """Whether a node of a graph keeps it from being vectorized."""
    is_float = tf.dtypes.as_dtype(node.attr["T"].type or tf.bool.as_datatype_enum).is_floating
    return node.op.startswith(_NOT_VECTORISED) or (
        node.op in _NOT_VECTORISED_FLOATS and is_float and not node.attr["keep_dims"].b
    )
