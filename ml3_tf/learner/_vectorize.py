"""One function of a task, applied to many tasks at once."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ml3_tf.learner._scan import NAME

# Operations that cannot be batched when each task has weights of its own (convolutions), or whose batched form XLA
# cannot compile (loops, and look-ups in a table).
_NOT_VECTORIZED = (
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
_NOT_VECTORIZED_FLOATS = (
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
# Operations whose result at a place depends on what stands there alone, with scalars broadcast.
_ELEMENTWISE = frozenset(
    "Abs Add AddV2 Cast Ceil Const DivNoNan Equal Exp Floor Greater GreaterEqual Identity Less LessEqual Log "
    "LogicalAnd LogicalNot LogicalOr Maximum Minimum Mul Neg NoOp NotEqual OnesLike Placeholder Pow RealDiv "
    "Reciprocal Rsqrt Select SelectV2 Sign Sqrt Square StopGradient Sub Xdivy ZerosLike".split()
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


def find_hindrances(function: Callable[..., Any], *specs: Any) -> set[str]:
    """Returns the operations that keep a function from being vectorized by `map_over_tasks`.

    Without them, XLA compiles the vectorized function and its second derivative once.

    Args:
        function: Function of structures of tensors.
        *specs: The same structures of `tf.TensorSpec`, of one task.

    Returns:
        Names of TensorFlow's operations, and "Scan" for a loop of `scan`.

    Example:

    >>> vector = tf.TensorSpec((2,))
    >>> find_hindrances(tf.square, vector), find_hindrances(tf.reduce_sum, vector)
    (set(), {'Sum'})
    """
    name = lambda node: "Scan" if NAME in node.name else node.op
    return {name(node) for node in _trace(function, specs) if _stands_in_the_way(node)}


def is_elementwise(function: Callable[..., Any], *specs: Any) -> bool:
    """Returns whether a function computes each element from the elements at the same place, and from scalars.

    Such a function takes the values of N tasks as rows `[N, size]`, and scalars as `[N, 1]`, without a change.

    Args:
        function: Function of structures of tensors.
        *specs: The same structures of `tf.TensorSpec`, of one task.

    Example:

    >>> vector = tf.TensorSpec((2,))
    >>> is_elementwise(tf.sqrt, vector), is_elementwise(tf.linalg.l2_normalize, vector)
    (True, False)
    """
    return all(
        node.op in _ELEMENTWISE and (node.op != "Const" or not node.attr["value"].tensor.tensor_shape.dim)
        for node in _trace(function, specs)
    )


def _trace(function: Callable[..., Any], specs: Any) -> list[Any]:
    """Returns the nodes of a function's graph, with those of all functions in it."""
    graph = tf.function(function, autograph=False).get_concrete_function(*specs).graph.as_graph_def()
    return [*graph.node, *(node for function in graph.library.function for node in function.node_def)]


def _stands_in_the_way(node: Any) -> bool:
    is_float = tf.dtypes.as_dtype(node.attr["T"].type or tf.bool.as_datatype_enum).is_floating
    return node.op.startswith(_NOT_VECTORIZED) or (
        node.op in _NOT_VECTORIZED_FLOATS and is_float and not node.attr["keep_dims"].b
    )
