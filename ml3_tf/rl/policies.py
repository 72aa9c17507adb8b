"""Policies: Keras models from states to actions."""

import math

import keras
import numpy as np
from keras import ops

from ml3_tf.arguments import check_counts

SERIALIZABLE = keras.saving.register_keras_serializable("ml3_tf")


@SERIALIZABLE
class Squash(keras.layers.Layer):
    """Bounds its input smoothly: `limit * z / sqrt(1 + z^2)`.

    Its slope falls with the cube of the input. A clip has no slope beyond its limit, and that of tanh falls
    exponentially: at z = 10 it is 8e-9 where this one is 1e-3. A policy that saturates can still be trained back.

    Args:
        limit: Positive float, or one for each component.

    Example:

    >>> Squash(0.25)(ops.array([[0.0, 1e6]])).numpy().tolist()
    [[0.0, 0.25]]
    """

    def __init__(self, limit, **kwargs):
        super().__init__(**kwargs)
        self.limit = limit
        self.built = True

    def call(self, inputs):
        limit = ops.convert_to_tensor(self.limit, dtype=inputs.dtype)
        return limit * inputs * ops.rsqrt(1 + ops.square(inputs))

    def get_config(self):
        return {**super().get_config(), "limit": self.limit}


@SERIALIZABLE
class StandardDeviation(keras.layers.Layer):
    """Puts a positive standard deviation beside a mean: `[B, A] -> [B, 2A]`, learned as its logarithm.

    Args:
        initial: Positive float, the standard deviation before any training.
        **kwargs: Arguments of `keras.layers.Layer`; `trainable=False` keeps the standard deviation as it is.

    Example:

    >>> StandardDeviation(0.5)(ops.array([[1.0, 2.0]])).numpy().tolist()
    [[1.0, 2.0, 0.5, 0.5]]
    """

    def __init__(self, initial, **kwargs):
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape):
        constant = keras.initializers.Constant(math.log(self.initial))
        self.log_std = self.add_weight(shape=(input_shape[-1],), initializer=constant, name="log_std")

    def call(self, mean, change=None):
        # Side by side by products with the halves of an identity: a concatenation cannot be vectorized over tasks.
        halves = np.split(np.eye(2 * mean.shape[-1]), 2)
        left, right = (ops.convert_to_tensor(half, dtype=mean.dtype) for half in halves)
        log_std = ops.expand_dims(self.log_std, 0) if change is None else self.log_std + change
        return ops.matmul(mean, left) + ops.matmul(ops.exp(log_std), right)

    def get_config(self):
        return {**super().get_config(), "initial": self.initial}


@SERIALIZABLE
class GaussianPolicy(keras.Model):
    """A fully connected network from states to a Gaussian over actions, or to its mean alone.

    With `std=None` the policy is deterministic and its output is the action: what model-based learning needs. With a
    standard deviation its output is mean and standard deviation side by side, `[B, 2A]`: a learned loss that sees
    both works better than one that sees probabilities (ML3, appendix A).

    Actions are bounded by squashing the mean (see `Squash`); the noise around it is not bounded, environments clip it.
    The last layer starts small by default, so that a fresh policy acts near the middle, where the squashing is steep.

    Args:
        state_size: S, width of a state.
        action_size: A, width of an action.
        hidden_units: Widths of the hidden layers.
        activation: Activation of the hidden layers.
        action_limit: Bound of the actions, one positive number or one for each; `None`: not bounded.
        std: Initial standard deviation, or `None` for a deterministic policy.
        state_dependent_std: Whether the standard deviation is a function of the state; else it is learned as one
            number for each action.
        state_scale: Optional sequence of S positive divisors, e.g. the spread of a velocity.
        use_bias: Whether the layers have biases.
        output_initializer: Initializer of the last layer.
        learn_std: Whether training moves the standard deviation.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: A size, scale, limit or standard deviation that is not positive; one that depends on the state and
            is not to be learned.

    Example:

    >>> policy = GaussianPolicy(state_size=4, action_size=2, action_limit=1.0, std=0.5)
    >>> states = ops.zeros((3, 4))
    >>> tuple(policy(states).shape), tuple(policy.mean(states).shape)
    ((3, 4), (3, 2))
    >>> policy.distribution(states).stddev().numpy()[0].tolist()
    [0.5, 0.5]
    """

    def __init__(
        self,
        state_size,
        action_size,
        hidden_units=(64, 64),
        activation="tanh",
        action_limit=None,
        std=None,
        state_dependent_std=False,
        state_scale=None,
        use_bias=True,
        output_initializer=None,
        learn_std=True,
        **kwargs,
    ):
        arguments = {name: value for name, value in locals().items() if name not in ("self", "kwargs", "__class__")}
        _check(**arguments)
        if output_initializer is None:
            output_initializer = keras.initializers.VarianceScaling(0.01, "fan_avg", "uniform")
        dense = keras.layers.Dense
        inputs = hidden = keras.Input((state_size,))
        if state_scale is not None:
            hidden = keras.layers.Rescaling([1 / scale for scale in state_scale])(hidden)
        for units in hidden_units:
            hidden = dense(units, activation=activation, use_bias=use_bias)(hidden)
        outputs = dense(action_size, use_bias=use_bias, kernel_initializer=output_initializer, name="mean")(hidden)
        if action_limit is not None:
            outputs = Squash(action_limit, name="squash")(outputs)
        if std is not None:
            change = (
                dense(action_size, kernel_initializer="zeros", name="log_std")(hidden) if state_dependent_std else None
            )
            outputs = StandardDeviation(std, trainable=learn_std, name="std")(outputs, change)
        super().__init__(inputs, outputs, **kwargs)
        self.arguments = arguments

    def mean(self, states):
        """Returns the mean action `[B, A]` of states `[B, S]`: the policy used without noise."""
        return self(states)[..., : self.arguments["action_size"]]

    def distribution(self, states):
        """Returns the distribution of the actions, a `tfp.distributions.MultivariateNormalDiag` over `[B, A]`.

        Raises:
            ValueError: The policy is deterministic.
        """
        if self.arguments["std"] is None:
            raise ValueError(
                "This policy is deterministic and has no distribution. Give it a standard deviation: "
                "`GaussianPolicy(..., std=0.5)`."
            )
        from tensorflow_probability import distributions

        mean, std = ops.split(self(states), 2, axis=-1)
        return distributions.MultivariateNormalDiag(mean, std)

    def get_config(self):
        config = {**self.arguments, "name": self.name}
        if isinstance(config["output_initializer"], keras.initializers.Initializer):
            config["output_initializer"] = keras.saving.serialize_keras_object(config["output_initializer"])
        return config

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "output_initializer": _initializer(config.get("output_initializer"))})


def _initializer(config):
    return keras.saving.deserialize_keras_object(config) if isinstance(config, dict) else config


def _check(state_size, action_size, action_limit, std, state_scale, state_dependent_std, learn_std, **_):
    check_counts(state_size=state_size, action_size=action_size)
    for name, value, size in (("action_limit", action_limit, action_size), ("state_scale", state_scale, state_size)):
        values = value if isinstance(value, (list, tuple)) else [value] * size
        if value is not None and (len(values) != size or not all(0 < v < math.inf for v in values)):
            raise ValueError(f"`{name}` needs {size} positive finite number(s). Received: {name}={value!r}")
    if std is not None and not 0 < std < math.inf:
        raise ValueError(f"`std` must be a positive finite number, or None. Received: std={std!r}")
    if state_dependent_std and not learn_std:
        raise ValueError(
            "A standard deviation that depends on the state has to be learned. Received: state_dependent_std=True, "
            "learn_std=False"
        )
