"""A loop over time whose gradient, of any order, is a loop over time."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from ml3_tf.arguments import check_counts

Tensors: TypeAlias = list[tf.Tensor]
Step: TypeAlias = Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]
"""Function `(carry, inputs at one time) -> (new carry, outputs at that time)`."""

NAME = "scan_over_time"  # of the loop in a graph, which tells it from others


def scan(
    step: Step,
    carry: Tensors,
    inputs: Tensors,
    *,
    outputs: Sequence[tf.TensorSpec],
    length: int,
    sources: Sequence[tf.Tensor] | None = None,
) -> tuple[Tensors, Tensors]:
    """Takes `length` steps, one after the other.

    With `sources` the gradient is a sweep back over time, itself a scan, so that it can be differentiated again: no
    gradient flows through TensorFlow's loop, whose second derivative XLA compiles anew at every call.

    Args:
        step: See `Step`. All tensors are floats.
        carry: What a step changes.
        inputs: Tensors with time as their first axis.
        outputs: The outputs of one step.
        length: Number of steps, at least 1.
        sources: Tensors that `step` depends on, beside its arguments. The gradient flows to carry, inputs, these
            tensors and variables, and to nothing else that `step` holds. `None`: it is that of TensorFlow's loop.

    Returns:
        The carry after the last step; the outputs, with time as their first axis.

    Raises:
        ValueError: A length below 1.

    Example:

    >>> add = lambda carry, inputs: ([carry[0] + inputs[0]], [2 * carry[0]])
    >>> numbers, scalar = tf.constant([1.0, 2.0, 3.0]), tf.TensorSpec(())
    >>> [total], [doubled] = scan(add, [tf.constant(0.0)], [numbers], outputs=[scalar], length=3)
    >>> float(total), doubled.numpy().tolist()
    (6.0, [0.0, 2.0, 6.0])
    """
    check_counts(length=length)
    num_carry, num_inputs, num_outputs = len(carry), len(inputs), len(outputs)
    if sources is None:
        return _loop(step, carry, inputs, outputs, length)

    def step_and_keep(carry: Tensors, inputs: Tensors) -> tuple[Tensors, Tensors]:
        new_carry, made = step(carry, inputs)
        return new_carry, [*made, *carry]

    @tf.custom_gradient
    def run(*arguments: tf.Tensor) -> Any:
        carry, inputs, _ = _split(arguments, num_carry, num_inputs)
        last, made = _loop(step_and_keep, carry, inputs, [*outputs, *_specs(carry)], length)

        def gradient(*upstream: tf.Tensor, variables: Sequence[tf.Variable] | None = None) -> Any:
            known = [*sources, *(variables or [])]
            zeros = [tf.zeros(source.shape, source.dtype) for source in known]
            # What `run` has returned, not what it made: the gradient of this gradient is then a scan, too.
            visited = returned[num_carry + num_outputs :]
            backwards = [tf.reverse(values, [0]) for values in (*visited, *inputs, *upstream[num_carry:])]
            at_one_time = [tf.TensorSpec(values.shape[1:], values.dtype) for values in inputs]
            start = [*upstream[:num_carry], *zeros]
            back = _pull_back(step_and_keep, known, num_carry, num_inputs)
            pulled, of_inputs = scan(back, start, backwards, outputs=at_one_time, length=length, sources=sources)
            found = [*pulled[:num_carry], *(tf.reverse(values, [0]) for values in of_inputs)]
            of_sources, of_variables = pulled[num_carry:][: len(sources)], pulled[num_carry + len(sources) :]
            return [*found, *of_sources] if variables is None else ([*found, *of_sources], of_variables)

        return [*last, *made], gradient

    returned = run(*carry, *inputs, *sources)
    return _split(returned, num_carry, num_outputs)[:2]


def _pull_back(step: Step, known: Sequence[Any], num_carry: int, num_inputs: int) -> Step:
    """Returns the step of a sweep back, which takes a step once more under a tape, and pulls an adjoint through it.

    Its carry is the adjoint of the carry, and the sums of the gradients for `known`. Its inputs are the carry and the
    inputs of the step, and the gradients for its outputs. Its outputs are the gradients for the inputs.
    """

    def back(pulled: Tensors, at_one_time: Tensors) -> tuple[Tensors, Tensors]:
        adjoint, sums = pulled[:num_carry], pulled[num_carry:]
        carry, inputs, of_outputs = _split(at_one_time, num_carry, num_inputs)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([carry, inputs, known])
            results = step(carry, inputs)
        adjoint, of_inputs, of_known = tape.gradient(
            list(results),
            [carry, inputs, known],
            output_gradients=[adjoint, of_outputs],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        sums = [total + tf.convert_to_tensor(part) for total, part in zip(sums, of_known, strict=True)]
        return [*adjoint, *sums], of_inputs

    return back


def _split(tensors: Sequence[tf.Tensor], num_first: int, num_second: int) -> tuple[Tensors, Tensors, Tensors]:
    end = num_first + num_second
    return list(tensors[:num_first]), list(tensors[num_first:end]), list(tensors[end:])


def _specs(tensors: Tensors) -> list[tf.TensorSpec]:
    return [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors]


def _loop(
    step: Step, carry: Tensors, inputs: Tensors, outputs: Sequence[tf.TensorSpec], length: int
) -> tuple[Tensors, Tensors]:
    arrays = [tf.TensorArray(kind.dtype, length, element_shape=kind.shape) for kind in outputs]

    def body(i: tf.Tensor, carry: Tensors, arrays: list[tf.TensorArray]) -> Any:
        new_carry, made = step(carry, [values[i] for values in inputs])
        return i + 1, new_carry, [array.write(i, value) for array, value in zip(arrays, made, strict=True)]

    start = tf.constant(0), carry, arrays
    _, last, arrays = tf.while_loop(lambda i, *_: i < length, body, start, maximum_iterations=length, name=NAME)
    made = [array.stack() for array in arrays]
    for values, kind in zip(made, outputs):
        values.set_shape([length, *kind.shape])
    return last, made
