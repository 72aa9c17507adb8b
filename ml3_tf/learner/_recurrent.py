"""Keras's recurrent layers as scans over time, which XLA compiles once however often they are differentiated."""

from collections.abc import Callable
from typing import Any, cast

import keras
import tensorflow as tf

from ml3_tf.keras_internals import current_values, scope_with
from ml3_tf.learner._scan import Step, scan


def rnn_by_scan(
    keras_rnn: Callable[..., Any],
    step_function: Callable[[Any, Any], tuple[Any, Any]],
    inputs: Any,
    initial_states: Any,
    *,
    go_backwards: bool = False,
    mask: Any = None,
    return_all_outputs: bool = True,
    **others: Any,
) -> tuple[Any, Any, Any]:
    """Computes what the loop over time of Keras's recurrent layers computes.

    Layers that are unrolled, do not know their number of time steps, or hold more than variables, such as masks of
    dropout, are left to Keras.

    Args:
        keras_rnn: Keras's own loop, `keras.src.backend.rnn`, whose arguments the others are.

    Returns:
        The last output `[B, ...]`; all outputs `[B, T, ...]`, or the last one `[B, 1, ...]`; the last states.
    """
    states, values = keras.tree.flatten(initial_states), current_values()
    length = _num_steps(inputs, **others)

    def step(states: list[tf.Tensor], at_one_time: list[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        with scope_with(values):  # a gradient takes steps after the scope of now has ended
            output, states = step_function(at_one_time[0], tuple(keras.tree.pack_sequence_as(initial_states, states)))
        return keras.tree.flatten(states), [output]

    if length is not None and not tf.executing_eagerly():
        in_order = lambda values: tf.reverse(_swap_axes(values), [0]) if go_backwards else _swap_axes(values)
        output, captured = _trace(step, states, inputs[:, 0])
        if {id(tensor) for tensor in captured} <= set(map(id, values.values())):
            sequences, carry = [inputs], states
            if mask is not None:
                sequences.append(tf.cast(mask, inputs.dtype))
                batch_size = inputs.shape[0] or tf.shape(inputs)[0]
                carry = [tf.zeros([batch_size, *output.shape[1:]], output.dtype), *states]
            last, [outputs] = scan(
                step if mask is None else _masked(step, others.get("zero_output_for_mask", False)),
                carry,
                list(map(in_order, sequences)),
                outputs=[output],
                length=length,
                sources=[tensor for tensor in captured if tensor.dtype.is_floating],
            )
            outputs = outputs if return_all_outputs else outputs[-1:]
            return outputs[-1], _swap_axes(outputs), keras.tree.pack_sequence_as(initial_states, last[-len(states) :])
    arguments = {"go_backwards": go_backwards, "mask": mask, "return_all_outputs": return_all_outputs, **others}
    return keras_rnn(step_function, inputs, initial_states, **arguments)


def _num_steps(inputs: Any, **others: Any) -> int | None:
    """Returns the number of time steps of a plain loop over sequences, `[B, T, ...]`, if it is known."""
    is_plain = tf.is_tensor(inputs) and not any(others.get(name) for name in ("unroll", "time_major", "constants"))
    length = inputs.shape[1] if is_plain else None
    return length or None if others.get("input_length", length) == length else None


def _trace(step: Step, states: list[tf.Tensor], x: tf.Tensor) -> tuple[tf.TensorSpec, list[tf.Tensor]]:
    """Returns the output of a step, and the tensors that it holds beside its arguments."""
    spec = lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype)
    traced: Any = tf.function(step, autograph=False).get_concrete_function
    traced = traced([spec(state) for state in states], [spec(x)])
    held = [tensor for tensor in traced.captured_inputs if tensor.dtype != tf.resource]
    return spec(cast(Any, traced).structured_outputs[1][0]), held


def _masked(step: Step, zero_output: bool) -> Step:
    """Returns a step that keeps states and output, part of its carry, where the mask is zero; or an output of zero."""

    def masked(carry: list[tf.Tensor], at_one_time: list[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        new, [output] = step(carry[1:], at_one_time[:1])
        mask = tf.reshape(at_one_time[1], [-1]) > 0
        expand = lambda like: tf.reshape(mask, [-1, *[1] * (like.shape.rank - 1)])
        before = [tf.zeros_like(output) if zero_output else carry[0], *carry[1:]]
        kept = [tf.where(expand(old), value, old) for value, old in zip([output, *new], before, strict=True)]
        return kept, kept[:1]

    return masked


def _swap_axes(values: tf.Tensor) -> tf.Tensor:
    """Transposes `[B, T, ...]` to `[T, B, ...]`, and back."""
    return tf.transpose(values, [1, 0, *range(2, values.shape.rank)])
