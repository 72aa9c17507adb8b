"""Any Keras optimizer as a pure, differentiable function of the parameters of many tasks."""

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.task_map import is_vectorisable, map_over_tasks

# On TensorFlow, Keras replaces these methods of its backend-neutral optimizer by versions for `tf.distribute` that need
# variables. The neutral ones also work on tensors, inside a `keras.StatelessScope`.
_NEUTRAL = next(base for base in keras.optimizers.Optimizer.__mro__ if base.__name__ == "BaseOptimizer")
_NEUTRAL_METHODS = (
    "add_variable_from_reference",
    "assign",
    "assign_add",
    "assign_sub",
    "stateless_apply",
    "_apply_weight_decay",
    "_backend_update_step",
    "_var_key",
)
_Stateless = type(
    "_Stateless", (keras.optimizers.Optimizer,), {name: getattr(_NEUTRAL, name) for name in _NEUTRAL_METHODS}
)


class InnerOptimizer:
    """One step of a Keras optimizer for `N` tasks at once, as tensors in and tensors out.

    The step is Keras's own code, so its trajectory is Keras's own trajectory: momentum, weight decay, clipping and
    learning rate schedules included. It is mapped over tasks: norms (`clipnorm`, Lamb, Muon) are those of one task.
    Steps that sum over a parameter or transpose it (`global_clipnorm`, Adafactor, Lamb, Muon) are taken task by task,
    because XLA would compile their vectorised second derivative anew at every step.

    Args:
        optimizer: Any `keras.optimizers.Optimizer` but those below, or its Keras name. It is copied, not changed.
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

    def __init__(self, optimizer, variables):
        optimizer = keras.optimizers.get(optimizer)
        _refuse_unsupported(optimizer)
        neutral = type(f"Stateless{type(optimizer).__name__}", (type(optimizer), _Stateless), {})
        self.optimizer = neutral.from_config(optimizer.get_config())
        self.optimizer.build(variables)
        _refuse_copied_parameters(optimizer, self.optimizer, variables)
        self._vectorised = None

    def initial_slots(self, num_tasks):
        """Slots (iteration, rate, moments, ...) of a fresh optimizer for each task: a list of `[N, ...]`."""
        return [
            tf.repeat(tf.convert_to_tensor(slot)[tf.newaxis], num_tasks, axis=0) for slot in self.optimizer.variables
        ]

    def step(self, theta, slots, gradients):
        """Moves the parameters of each task by one step.

        Args:
            theta: List of `[N, ...]`, the parameters.
            slots: List of `[N, ...]`, the optimizer's own state.
            gradients: List of `[N, ...]`, one for each parameter.

        Returns:
            The new `theta` and `slots`.
        """

        def step_of_one_task(inputs):
            theta, slots, gradients = inputs
            theta, slots = self.optimizer.stateless_apply(list(slots), list(gradients), list(theta))
            return tuple(theta), tuple(slots)

        inputs = tf.nest.map_structure(_finite_slope_at_zero, (tuple(theta), tuple(slots), tuple(gradients)))
        if self._vectorised is None:
            self._vectorised = is_vectorisable(step_of_one_task, inputs)
        theta, slots = map_over_tasks(step_of_one_task, inputs, self._vectorised)
        return list(theta), list(slots)


@tf.custom_gradient
def _finite_slope_at_zero(value):
    """Identity whose gradient is 0 where it would be 0/0.

    Adam divides by `sqrt(v)`, and the slope of the root at v = 0 is infinite; times a zero gradient that is NaN, though
    a parameter that does not move (a dead unit) should simply not contribute. Only NaN at exactly zero is replaced.
    """

    def gradient(upstream):
        undefined = tf.math.is_nan(upstream) & (value == 0)
        return tf.where(undefined, tf.zeros_like(upstream), upstream)

    return tf.identity(value), gradient


def _refuse_unsupported(optimizer):
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


def _refuse_copied_parameters(optimizer, built, variables):
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
