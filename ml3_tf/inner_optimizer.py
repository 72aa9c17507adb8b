"""Any Keras optimizer as a pure, differentiable function of the parameters of many tasks."""

import dataclasses
import functools
from collections.abc import Hashable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.arguments import InnerOptimizerLike, OptimizerLike
from ml3_tf.keras_internals import StatelessOptimizer, stop_scale_gradient, values_of_other_shapes
from ml3_tf.learner import find_hindrances, is_elementwise, map_over_tasks


@dataclasses.dataclass(frozen=True)
class StopScaleGradient:
    """An inner optimizer whose scale is a constant to the meta-gradient.

    Adam divides by `sqrt(v)`, the root of the gradient's second moment. Where v is small, its slope is huge, and the
    meta-gradient through it noise. With this option the steps stay the same, but no meta-gradient flows through v.

    Args:
        optimizer: A Keras optimizer that divides by such a scale (Adam, AdamW, RMSprop, Adagrad, ...), or its name.

    Raises:
        ValueError: When it is used: an optimizer without a scale, such as SGD.

    Example:

    >>> import keras, ml3_tf
    >>> build = lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
    >>> trainer = ml3_tf.MetaTrainer(build, ml3_tf.MetaLoss.mlp(), inner_steps=20)
    >>> trainer.compile(inner_optimizer=ml3_tf.StopScaleGradient(keras.optimizers.Adam(0.01)))

    Source: the optimizer released with Oh et al., "Discovering state-of-the-art reinforcement learning algorithms"
    (Nature, 2025).
    """

    optimizer: OptimizerLike


class InnerOptimizer:
    """One step of a Keras optimizer for `N` tasks at once, as tensors in and tensors out.

    The step is Keras's own code, so its trajectory is Keras's own trajectory: momentum, weight decay, clipping and
    learning rate schedules included. It is mapped over tasks: norms (`clipnorm`, Lamb, Muon) are those of one task.
    Steps that sum over a parameter or transpose it (`global_clipnorm`, Adafactor, Lamb, Muon) are taken task by task,
    because XLA would compile their vectorized second derivative anew at every step.

    Args:
        optimizer: Any `keras.optimizers.Optimizer` but those below, or its Keras name, or one in `StopScaleGradient`.
            It is copied, not changed.
        variables: The learner's trainable variables; they give names, shapes and dtypes.

    Raises:
        ValueError: An optimizer whose step is not a function of parameters, slots and gradients alone.

    Example:

    >>> import tensorflow as tf
    >>> weights = keras.Variable([2.0])
    >>> inner = InnerOptimizer(keras.optimizers.SGD(0.5), [weights])
    >>> theta, slots = inner.step([tf.constant([[2.0], [4.0]])], inner.initial_slots(2), [tf.constant([[1.0], [2.0]])])
    >>> theta[0].numpy().tolist()
    [[1.5], [3.0]]
    """

    def __init__(self, optimizer: InnerOptimizerLike, variables: Sequence[keras.Variable]) -> None:
        stops_scale = isinstance(optimizer, StopScaleGradient)
        original: Any = keras.optimizers.get(optimizer.optimizer if stops_scale else optimizer)
        _refuse_unsupported(original)
        neutral: Any = type(f"Stateless{type(original).__name__}", (type(original), StatelessOptimizer), {})
        self.name: str = type(original).__name__
        config = original.get_config()
        # A rate that is a number lies in a slot; all else of the step is fixed when it is compiled.
        fixed = {k: v for k, v in config.items() if k != "name" and not (k == "learning_rate" and isinstance(v, float))}
        self.stops_scale: bool = stops_scale
        self.signature: Hashable = type(original), stops_scale, repr(fixed)
        """Equal for optimizers whose steps are the same function of parameters, slots and gradients."""
        self.optimizer: keras.optimizers.Optimizer = neutral.from_config(config)
        self.optimizer.build(variables)
        if stops_scale:
            stop_scale_gradient(self.optimizer)
        _refuse_copied_parameters(original, self.optimizer, variables)
        self._variables: list[keras.Variable] = list(variables)

    @functools.cached_property
    def vectorized(self) -> bool:
        """Whether the steps of all tasks are one operation: nothing in a step stands in the way."""
        return self._is_elementwise or not find_hindrances(self._step_one_task, *self._specs)

    @functools.cached_property
    def _is_elementwise(self) -> bool:
        return is_elementwise(self._step_one_task, *self._specs)

    @property
    def _specs(self) -> Any:
        specs = lambda variables: tuple(tf.TensorSpec(v.shape, v.dtype) for v in variables)
        theta = specs(self._variables)
        return theta, specs(self.optimizer.variables), theta

    def initial_slots(self, num_tasks: int) -> list[tf.Tensor]:
        """Returns the slots (iteration, rate, moments, ...) of fresh optimizers: a list of `[N, ...]`."""
        return [
            tf.repeat(tf.convert_to_tensor(slot)[tf.newaxis], num_tasks, axis=0) for slot in self.optimizer.variables
        ]

    def step(
        self, theta: list[tf.Tensor], slots: list[tf.Tensor], gradients: list[tf.Tensor]
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Moves the parameters of each task by one step.

        Args:
            theta: List of `[N, ...]`, the parameters.
            slots: List of `[N, ...]`, the optimizer's own state.
            gradients: List of `[N, ...]`, one for each parameter.

        Returns:
            The new `theta` and `slots`.
        """
        inputs = tuple(theta), tuple(slots), tuple(gradients)
        inputs = tf.nest.pack_sequence_as(inputs, _finite_slopes_at_zero(*tf.nest.flatten(inputs)))
        if self._is_elementwise:
            return self._step_rows(*inputs)
        theta, slots = map_over_tasks(lambda task: self._step_one_task(*task), inputs, vectorized=self.vectorized)
        return list(theta), list(slots)

    def _step_rows(self, *inputs: Any) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Takes an elementwise step with the values of each task as a row, and scalars as a column.

        It is what `map_over_tasks` gives, in a graph that is made several times faster.
        """
        as_rows = lambda value: tf.reshape(value, [value.shape[0], -1])
        rows = tf.nest.map_structure(as_rows, inputs)
        with values_of_other_shapes([*self._variables, *self.optimizer.variables], [*rows[0], *rows[1]]):
            moved = self._step_one_task(*rows)
        theta, slots = tf.nest.map_structure(lambda new, old: tf.reshape(new, old.shape), moved, inputs[:2])
        return list(theta), list(slots)

    def _step_one_task(self, theta: Any, slots: Any, gradients: Any) -> tuple[Any, Any]:
        theta, slots = self.optimizer.stateless_apply(list(slots), list(gradients), list(theta))
        return tuple(theta), tuple(slots)


@tf.custom_gradient
def _finite_slopes_at_zero(*values: tf.Tensor) -> Any:
    """Identity whose gradient is 0 where it would be 0/0.

    Adam divides by `sqrt(v)`, and the slope of the root at v = 0 is infinite; times a zero gradient that is NaN, though
    a parameter that does not move (a dead unit) should simply not contribute. Only NaN at exactly zero is replaced.
    """

    def gradient(*upstreams: tf.Tensor) -> list[tf.Tensor]:
        is_undefined = lambda upstream, value: tf.math.is_nan(upstream) & (value == 0)
        return [
            tf.where(is_undefined(upstream, value), tf.zeros_like(upstream), upstream)
            if value.dtype.is_floating
            else upstream
            for upstream, value in zip(upstreams, values, strict=True)
        ]

    return list(map(tf.identity, values)), gradient


def _refuse_unsupported(optimizer: Any) -> None:
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(f"`inner_optimizer` must be a Keras optimizer or its name. Received: {optimizer!r}")
    reason = None
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        reason = "it rescales the loss outside of the step; pass the optimizer it wraps"
    for option in ("gradient_accumulation_steps", "use_ema", "loss_scale_factor"):
        if getattr(optimizer, option, None):
            reason = reason or f"{option}={getattr(optimizer, option)} makes a step depend on more than its gradient"
    if type(optimizer).update_step is keras.optimizers.Optimizer.update_step:
        reason = reason or "it has no `update_step` of its own"
    if reason:
        raise ValueError(f"{type(optimizer).__name__} cannot be an inner optimizer: {reason}.")


def _refuse_copied_parameters(optimizer: Any, built: Any, variables: Sequence[keras.Variable]) -> None:
    """Refuses optimizers (schedule-free ones) that start from a copy of the parameters, which are drawn later."""
    parameters = [np.asarray(variable) for variable in variables if np.any(np.asarray(variable))]
    for slot in built.variables:
        value = np.asarray(slot)
        if value.ndim and any(np.array_equal(value, parameter) for parameter in parameters):
            raise ValueError(
                f"{type(optimizer).__name__} cannot be an inner optimizer: its slot '{slot.name}' starts as a copy of "
                "the parameters, but every task draws its own. Use SGD, Adam, AdamW or another optimizer whose slots "
                "start from constants."
            )
