"""Every private name of Keras that ml3_tf relies on, so that a new Keras is checked in one place.

Keras offers no public way to any of this; `tests/test_keras_internals.py` fails with the version of Keras where a name
has changed its meaning.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

NEUTRAL_METHODS = (
    "add_variable_from_reference",
    "assign",
    "assign_add",
    "assign_sub",
    "stateless_apply",
    "_apply_weight_decay",
    "_backend_update_step",
    "_var_key",
)


def _find_neutral_optimizer() -> type:
    """The backend-neutral base class of Keras's optimizers."""
    bases = [base for base in keras.optimizers.Optimizer.__mro__ if base.__name__ == "BaseOptimizer"]
    missing = [name for name in NEUTRAL_METHODS if not bases or not hasattr(bases[0], name)]
    if missing:
        raise ImportError(
            f"This ml3_tf does not know the optimizers of Keras {keras.__version__}: {', '.join(missing)} of the base "
            "class of `keras.optimizers.Optimizer` is missing. Install a release of Keras that ml3_tf names in its "
            "requirements: pip install 'keras>=3.15.1,<3.16'"
        )
    return bases[0]


# On TensorFlow, Keras replaces these methods of its backend-neutral optimizer by versions for `tf.distribute` that need
# variables. The neutral ones also work on tensors, inside a `keras.StatelessScope`.
StatelessOptimizer: type[keras.optimizers.Optimizer] = type(
    "StatelessOptimizer",
    (keras.optimizers.Optimizer,),
    {name: getattr(_find_neutral_optimizer(), name) for name in NEUTRAL_METHODS},
)


# What the step of an optimizer is divided by, or its square: moments of the gradient's square or size.
SCALES = (
    "_velocities",
    "_velocity_hats",
    "_accumulators",
    "_accumulated_grads",
    "_u",
    "_r",
    "_c",
    "_v",
    "adam_velocities",
)


def stop_scale_gradient(optimizer: keras.optimizers.Optimizer) -> None:
    """Makes a `StatelessOptimizer` assign its scales as constants to every gradient.

    Raises:
        ValueError: The optimizer has none.
    """
    scales = {id(slot) for name in SCALES for slot in getattr(optimizer, name, [])}
    if not scales:
        raise ValueError(
            f"{type(optimizer).__name__.removeprefix('Stateless')} has no scale to stop the gradient of. Expected an "
            "optimizer that divides by one, such as Adam or RMSprop; pass SGD without `StopScaleGradient`."
        )
    assign, stop = optimizer.assign, keras.ops.stop_gradient
    optimizer.assign = lambda v, value: assign(v, stop(value) if id(v) in scales else value)
    assign_add, assign_sub = optimizer.assign_add, optimizer.assign_sub
    optimizer.assign_add = lambda v, x: optimizer.assign(v, v + x) if id(v) in scales else assign_add(v, x)
    optimizer.assign_sub = lambda v, x: optimizer.assign(v, v - x) if id(v) in scales else assign_sub(v, x)


@contextlib.contextmanager
def values_of_other_shapes(variables: Sequence[keras.Variable], values: Sequence[Any]) -> Iterator[None]:
    """Lets variables take values of other shapes than their own in a `keras.StatelessScope`."""
    shapes = [variable._shape for variable in variables]
    try:
        for variable, value in zip(variables, values, strict=True):
            variable._shape = tuple(value.shape)
        yield
    finally:
        for variable, shape in zip(variables, shapes, strict=True):
            variable._shape = shape


_differentiated = threading.local()


@contextlib.contextmanager
def second_derivatives(rnn: Callable[..., Any]) -> Iterator[None]:
    """Lets Keras's layers have second derivatives that are right and fast, in this thread. Values stay the same.

    Normalization: `tf.nn.moments` stops the gradient of the mean inside of the variance. That term of the first
    derivative is zero, but not its derivative: for three numbers, d2 var / dx2 would be 2/3 in place of 4/9.

    Args:
        rnn: The loop over time of recurrent layers. It is called with Keras's own one and its arguments.
    """
    from keras.src import backend
    from keras.src.backend.tensorflow import nn

    _dispatch(nn, "_compute_moments", lambda _, *args: _exact_moments(*args))
    _dispatch(backend, "rnn", rnn)
    before = getattr(_differentiated, "is_on", False)
    _differentiated.is_on = True
    try:
        yield
    finally:
        _differentiated.is_on = before


def _dispatch(module: Any, name: str, ours: Callable[..., Any]) -> None:
    """Replaces a function of Keras, once, by one that calls ours in threads that ask for second derivatives."""
    theirs = getattr(module, name)
    if getattr(theirs, "__module__", None) == __name__:
        return

    def call(*args: Any, **kwargs: Any) -> Any:
        return ours(theirs, *args, **kwargs) if getattr(_differentiated, "is_on", False) else theirs(*args, **kwargs)

    setattr(module, name, call)


def _exact_moments(x: Any, axes: Any, keepdims: bool) -> tuple[Any, Any]:
    import tensorflow as tf

    mean: Any = tf.reduce_mean(x, axes, keepdims=True)
    variance: Any = tf.reduce_mean(tf.math.squared_difference(x, mean), axes, keepdims=True)
    return (mean, variance) if keepdims else (tf.squeeze(mean, axes), tf.squeeze(variance, axes))


def current_values() -> dict[int, Any]:
    """Returns the values that variables have in the `keras.StatelessScope` of now, by the identity of the variable."""
    from keras.src.backend.common.stateless_scope import get_stateless_scope

    scope = get_stateless_scope()
    return {} if scope is None else dict(scope.state_mapping)


def scope_with(values: Mapping[int, Any]) -> keras.StatelessScope:
    """Returns a scope in which variables have these `current_values`."""
    scope = keras.StatelessScope()
    scope.state_mapping = dict(values)
    return scope


def get_mask(tensor: Any) -> Any:
    """Returns the mask that Keras has attached to a tensor, or `None`."""
    return getattr(tensor, "_keras_mask", None)


def set_mask(tensor: Any, mask: Any) -> None:
    """Attaches a mask to a tensor, as Keras's layers do."""
    tensor._keras_mask = mask


def get_initializer(variable: keras.Variable) -> Any:
    """Returns the initializer that a variable was built with: an `Initializer` or a function of shape and dtype."""
    return variable._initializer


def get_producer(tensor: Any) -> tuple[Any, list[Any]]:
    """Returns the layer or operation that made a symbolic tensor, and the tensors that it was called on."""
    history = tensor._keras_history
    operation = history.operation
    if isinstance(operation, keras.layers.InputLayer):
        return operation, []
    return operation, list(operation._inbound_nodes[history.node_index].input_tensors)


def get_loss_function(loss: Any) -> tuple[Any, dict[str, Any]]:
    """Returns the function of a Keras loss and the arguments it passes on; `get_config` of some leaves them out."""
    return getattr(loss, "fn", loss), dict(getattr(loss, "_fn_kwargs", {}))


def with_compute_dtype(loss: Any, dtype: str) -> Any:
    """Returns a `keras.losses.Loss` after it was made to compute in another dtype. A `MetaLoss` has weights, too."""
    loss._dtype_policy = keras.dtype_policies.get(dtype)
    loss._dtype = dtype
    return loss


@contextlib.contextmanager
def same_global_seeds() -> Iterator[None]:
    """Gives the generator that Keras draws from, where no seed is given, back the state that it had."""
    from keras.src.backend.common import global_state
    from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR

    generator: Any = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
    state = None if generator is None else keras.ops.copy(generator.state.value)
    try:
        yield
    finally:
        global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, generator)
        if generator is not None:
            generator.state.assign(state)
