"""The loop over time of a rollout in a model, and its gradient.

Shape letters: `...` the leading axes of the states (tasks, episodes), T time, S state, A action.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

Steps: TypeAlias = Callable[[tf.Tensor], list[tf.Tensor]]
"""Function `states -> [last states, states after each step, actions]`, the latter two with time as their first axis."""
Shapes: TypeAlias = tuple[tf.TensorShape, tf.TensorShape]
"""Those of states and of actions at one time."""


def loop_over_time(
    steps: Steps, states: tf.Tensor, num_loops: int, shapes: Shapes, *, weights: Sequence[tf.Tensor] = ()
) -> list[tf.Tensor]:
    """Applies `steps` `num_loops` times, and returns all states and all actions, `[T, ...]`.

    Args:
        steps: See `Steps`.
        states: The states to start from.
        num_loops: Number of times.
        shapes: See `Shapes`.
        weights: Tensors that `steps` depends on. With them the gradient is a sweep back over time: it flows to the
            states, to these tensors and to variables, and to nothing else that `steps` holds.

    Example:

    >>> grow = lambda x: [2 * x, 2 * x[tf.newaxis], x[tf.newaxis]]
    >>> [values.numpy().tolist() for values in loop_over_time(grow, tf.constant([1.0]), 3, (tf.TensorShape([1]),) * 2)]
    [[[2.0], [4.0], [8.0]], [[1.0], [2.0], [4.0]]]
    """
    if not weights:
        return _loop(steps, states, num_loops, shapes)

    @tf.custom_gradient
    def run(states: tf.Tensor, *_: tf.Tensor) -> Any:
        visited, actions = _loop(steps, states, num_loops, shapes)
        in_loops = lambda values: tf.reshape(values, [num_loops, -1, *values.shape[1:]])
        before = tf.concat([states[tf.newaxis], in_loops(visited)[:-1, -1]], 0)

        def gradient(*upstream: tf.Tensor, variables: Sequence[tf.Variable] | None = None) -> Any:
            sources = [*weights, *(variables or [])]
            adjoint, sums = _sweep_back(steps, before, list(map(in_loops, upstream)), sources)
            found = [adjoint, *sums[: len(weights)]]
            return found if variables is None else (found, sums[len(weights) :])

        return [visited, actions], gradient

    return list(run(states, *weights))


def _loop(steps: Steps, states: tf.Tensor, num_loops: int, shapes: Shapes) -> list[tf.Tensor]:
    def body(i: Any, states: Any, visited: Any, actions: Any) -> tuple[Any, ...]:
        states, *new = steps(states)
        return i + 1, states, visited.write(i, new[0]), actions.write(i, new[1])

    arrays = [tf.TensorArray(states.dtype, num_loops, element_shape=[None, *shape]) for shape in shapes]
    _, _, *arrays = tf.while_loop(lambda i, *_: i < num_loops, body, (0, states, *arrays), maximum_iterations=num_loops)
    # [loops, steps of a loop, ...] -> [T, ...]
    return [tf.reshape(array.stack(), [-1, *shape]) for array, shape in zip(arrays, shapes)]


def _sweep_back(
    steps: Steps, before: tf.Tensor, upstream: list[tf.Tensor], sources: Sequence[Any]
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Takes each pass of the loop once more under a tape, the last one first, and pulls the adjoint through it.

    Args:
        steps: See `Steps`.
        before: The states before each pass, `[loops, ...]`.
        upstream: The gradients of the states and actions of each pass, `[loops, steps, ...]`.
        sources: What to differentiate for, beside the first states.

    Returns:
        The gradient for the first states, and for each of the sources.
    """
    num_loops = before.shape[0]

    def body(i: tf.Tensor, adjoint: tf.Tensor, sums: list[tf.Tensor]) -> Any:
        start = before[i]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([start, *sources])
            results = steps(start)
        adjoints = [adjoint, *(values[i] for values in upstream)]
        adjoint, *gradients = tape.gradient(
            results, [start, *sources], output_gradients=adjoints, unconnected_gradients="zero"
        )
        return i - 1, adjoint, [total + gradient for total, gradient in zip(sums, gradients, strict=True)]

    first = num_loops - 1, tf.zeros_like(before[0]), [tf.zeros(source.shape, source.dtype) for source in sources]
    _, adjoint, sums = tf.while_loop(lambda i, *_: i >= 0, body, first, maximum_iterations=num_loops)
    return adjoint, sums
