"""The meta-gradient: a sweep back over the steps of an inner loop. Eq. 5 and 6 of ML3.

The steps are taken forward without a tape, and the carry that each started from is kept. Then the sweep walks back: it
takes each step once more, alone under a tape, and pulls the adjoint through it, the gradient of the loss for the carry
that the step returned. So no gradient flows through a loop, whatever XLA makes of that, and memory holds the
derivatives of one step at a time. This is reverse-mode differentiation with every carry as a checkpoint (Griewank and
Walther, Evaluating Derivatives, 2008, chapter 12).
"""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import keras
import tensorflow as tf

from ml3_tf.arguments import check_counts
from ml3_tf.meta_loss import LossPerHead, MetaLoss

Carry: TypeAlias = Any
"""A structure of tensors: what a step changes."""
Leaves: TypeAlias = list[tf.Tensor]

# With `recompute="auto"` all carries are kept up to this many bytes, and every s-th beyond.
MAX_KEPT_BYTES = 256 * 2**20


class Sweep(NamedTuple):
    """What a sweep returns.

    Attributes:
        loss: The loss, a scalar.
        carry: The carry after the last step.
        gradients: The gradient of the loss for each variable; `None` where nothing depends on it.
        carry_gradients: The gradient for each float tensor of the first carry, in the order of `tf.nest.flatten`.
    """

    loss: tf.Tensor
    carry: Carry
    gradients: list[tf.Tensor | None]
    carry_gradients: Leaves


def sweep(
    step: Callable[[Carry, tf.Tensor], Carry],
    end: Callable[[Carry], tuple[tf.Tensor, Carry]],
    carry: Carry,
    *,
    num_steps: int,
    variables: Sequence[tf.Variable],
    recompute: int | Literal["auto"] = "auto",
) -> Sweep:
    """Takes steps from a carry, and differentiates the loss at their end for variables.

    Args:
        step: Function `(carry, i) -> carry` of the step i, a pure function of the carry and of the variables.
        end: Function `carry -> (loss, carry)`, the loss and the last carry: whatever follows the steps, under one tape.
        carry: Structure of tensors with static shapes.
        num_steps: Number of steps before the end; it may be 0.
        variables: The variables to differentiate for.
        recompute: Every so many steps the carry is kept, and those between are computed once more: the memory is that
            of `num_steps / recompute + recompute` carries. "auto": 1, or the root of `num_steps` for large carries.

    Returns:
        A `Sweep`.

    Example:

    >>> rate = tf.Variable(0.1)
    >>> step = lambda x, i: x - rate * 2 * x  # a gradient step on x^2
    >>> swept = sweep(step, lambda x: (x**2, x), tf.constant(3.0), num_steps=10, variables=[rate])
    >>> float(swept.gradients[0])  # d/drate 9 (1 - 2 rate)^20 = -360 (1 - 2 rate)^19
    -5.188...
    """
    tape = _Tape(carry, variables)
    one_step = _Part(
        lambda leaves, i: tf.nest.flatten(step(tape.pack(leaves), i)),
        lambda leaves, i, adjoint, sums: tape.pull(lambda carry: step(carry, i), leaves, adjoint, sums),
    )
    leaves = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(carry)]
    num_bytes = sum(leaf.dtype.size * leaf.shape.num_elements() for leaf in leaves)
    length = _segment_length(num_bytes, num_steps, recompute)
    num_segments, rest = divmod(num_steps, length)
    parts = [(one_step, rest), (_segment(one_step, length, rest) if length > 1 else one_step, num_segments)]
    kept = []
    for part, count in parts:
        leaves, carries = _forward(part, leaves, count)
        kept.append(carries)
    with tape.record(leaves) as recorded:
        loss, last = end(tape.pack(leaves))
    adjoint, sums = tape.gradients(recorded, loss, leaves)
    for (part, count), carries in zip(reversed(parts), reversed(kept), strict=True):
        adjoint, sums = _backward(part, carries, count, adjoint, sums)
    return Sweep(loss, last, tape.connected(sums), adjoint)


class _Part(NamedTuple):
    """One step, or a segment of steps.

    Attributes:
        take: Function `(leaves, i) -> leaves`.
        pull: Function `(leaves, i, adjoint, sums) -> (adjoint, sums)`: the adjoint of the float leaves before part i,
            and the gradients of the variables with those of part i added.
    """

    take: Callable[[Leaves, Any], Leaves]
    pull: Callable[[Leaves, Any, Leaves, Leaves], tuple[Leaves, Leaves]]


def _segment(step: _Part, length: int, first: int) -> _Part:
    """Returns a part of `length` steps, of which the part 0 begins with the step `first`."""
    of_segment = lambda j: _Part(
        lambda leaves, i: step.take(leaves, first + j * length + i),
        lambda leaves, i, *pulled: step.pull(leaves, first + j * length + i, *pulled),
    )

    def pull(leaves: Leaves, j: Any, adjoint: Leaves, sums: Leaves) -> tuple[Leaves, Leaves]:
        _, carries = _forward(of_segment(j), leaves, length)
        return _backward(of_segment(j), carries, length, adjoint, sums)

    return _Part(lambda leaves, j: _forward(of_segment(j), leaves, length, keep=False)[0], pull)


def _forward(part: _Part, leaves: Leaves, count: int, *, keep: bool = True) -> tuple[Leaves, list[tf.TensorArray]]:
    """Takes `count` parts: the leaves after them, and what was kept, the leaves before each part."""
    if not count:
        return leaves, []
    carries = [tf.TensorArray(leaf.dtype, count, element_shape=leaf.shape) for leaf in leaves] if keep else []

    def body(i: tf.Tensor, leaves: Leaves, carries: list[tf.TensorArray]) -> Any:
        carries = [carry.write(i, leaf) for carry, leaf in zip(carries, leaves)]
        return i + 1, part.take(leaves, i), carries

    loop_variables = tf.constant(0), leaves, carries
    return tf.while_loop(lambda i, *_: i < count, body, loop_variables, maximum_iterations=count)[1:]


def _backward(
    part: _Part, carries: list[tf.TensorArray], count: int, adjoint: Leaves, sums: Leaves
) -> tuple[Leaves, Leaves]:
    """Pulls the adjoint back through `count` parts, the last one first."""
    if not count:
        return adjoint, sums

    def body(i: tf.Tensor, adjoint: Leaves, sums: Leaves) -> Any:
        return i - 1, *part.pull([carry.read(i) for carry in carries], i, adjoint, sums)

    loop_variables = tf.constant(count - 1), adjoint, sums
    return tf.while_loop(lambda i, *_: i >= 0, body, loop_variables, maximum_iterations=count)[1:]


class _Tape:
    """Derivatives of functions of a carry and of variables."""

    def __init__(self, carry: Carry, variables: Sequence[tf.Variable]) -> None:
        self.structure: Carry = carry
        self.variables: list[tf.Variable] = [v.value if isinstance(v, keras.Variable) else v for v in variables]
        self._is_connected = [False] * len(self.variables)

    def pack(self, leaves: Leaves) -> Carry:
        return tf.nest.pack_sequence_as(self.structure, leaves)

    @contextlib.contextmanager
    def record(self, leaves: Leaves) -> Iterator[tf.GradientTape]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([_floats(leaves), self.variables])
            yield tape

    def gradients(
        self, tape: tf.GradientTape, targets: Any, leaves: Leaves, adjoint: Leaves | None = None
    ) -> tuple[Leaves, Leaves]:
        """Returns the gradients of the targets, weighted by their adjoint, for the float leaves and the variables."""
        sources = _floats(leaves)
        of_leaves, of_variables = tape.gradient(targets, [sources, self.variables], output_gradients=adjoint)
        self._is_connected = [
            known or gradient is not None for known, gradient in zip(self._is_connected, of_variables, strict=True)
        ]
        return _or_zeros(of_leaves, sources), _or_zeros(of_variables, self.variables)

    def pull(
        self, step: Callable[[Carry], Carry], leaves: Leaves, adjoint: Leaves, sums: Leaves
    ) -> tuple[Leaves, Leaves]:
        """Pulls the adjoint of what `step` returns to the leaves, and adds the variables' gradients to their sums."""
        with self.record(leaves) as tape:
            targets = _floats(tf.nest.flatten(step(self.pack(leaves))))
        adjoint, gradients = self.gradients(tape, targets, leaves, adjoint)
        return adjoint, [total + gradient for total, gradient in zip(sums, gradients, strict=True)]

    def connected(self, sums: Leaves) -> list[tf.Tensor | None]:
        """Returns `None` in the place of gradients that nothing contributed to."""
        return [total if connected else None for total, connected in zip(sums, self._is_connected, strict=True)]


def _floats(leaves: Leaves) -> Leaves:
    return [leaf for leaf in leaves if leaf.dtype.is_floating]


def _or_zeros(gradients: list[Any], sources: Sequence[Any]) -> Leaves:
    return [
        tf.zeros(source.shape, source.dtype) if gradient is None else tf.convert_to_tensor(gradient)
        for gradient, source in zip(gradients, sources, strict=True)
    ]


def _segment_length(num_bytes: int, num_steps: int, recompute: int | Literal["auto"]) -> int:
    if recompute != "auto":
        check_counts(recompute=recompute)
        return int(recompute)
    return max(1, round(math.sqrt(num_steps))) if num_steps * num_bytes > MAX_KEPT_BYTES else 1


def count_kept(num_bytes: int, num_steps: int, recompute: int | Literal["auto"]) -> int:
    """Returns how many carries of so many bytes a sweep keeps at once."""
    length = _segment_length(num_bytes, num_steps, recompute)
    return num_steps if length == 1 else math.ceil(num_steps / length) + length


def complete_gradients(gradients: Sequence[tf.Tensor | None], meta_loss: MetaLoss | LossPerHead) -> list[tf.Tensor]:
    """Returns a meta-gradient with zeros for the variables that nothing depends on, and warns of them.

    Args:
        gradients: The gradient for each variable of the meta-loss, or `None`.
        meta_loss: The `MetaLoss`.

    Raises:
        ValueError: The task loss does not depend on the meta-loss at all.
    """
    phi = meta_loss.trainable_variables
    missing = [variable.path for variable, gradient in zip(phi, gradients, strict=True) if gradient is None]
    if len(missing) == len(phi):
        raise ValueError(
            f"There is no meta-gradient: the task loss does not depend on any variable of '{meta_loss.name}' "
            f"({', '.join(missing)}). Expected a meta-loss whose gradient for y_pred depends on its weights, and a "
            "task loss that depends on the learner's parameters and has a derivative. An accuracy has none: estimate "
            "the meta-gradient by `MetaTrainer(estimator=EvolutionStrategies())`."
        )
    if missing:
        warnings.warn(
            f"The meta-gradient of {', '.join(missing)} is missing: no learner's step depends on it. A bias of a "
            "linear output only shifts the loss; drop it with use_bias=False. Anything else is cut off from y_pred.",
            stacklevel=2,
        )
    return [tf.zeros(v.shape, v.dtype) if g is None else g for v, g in zip(phi, gradients, strict=True)]
