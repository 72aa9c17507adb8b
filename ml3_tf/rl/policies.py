"""Policies: Keras models from observations to actions, or to a Gaussian over actions.

Shape letters: B examples, O observation, A action.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, Self, TypeAlias, get_args

import keras
import numpy as np
from keras import ops

from ml3_tf.arguments import InitializerLike, check_counts
from ml3_tf.rl._probability import import_distributions

StdMode: TypeAlias = Literal["learned", "fixed", "per_observation"]
PerColumn: TypeAlias = float | Sequence[float]

SERIALIZABLE = keras.saving.register_keras_serializable("ml3_tf")


@SERIALIZABLE
class Squash(keras.layers.Layer):
    """Bounds its input smoothly: `limit * z / sqrt(1 + z^2)`.

    Its slope falls with the cube of the input. A clip has no slope beyond its limit, and the slope of tanh falls
    exponentially: at z = 10 it is 8e-9, where this one is 1e-3. So a policy that saturates can still be trained back.

    Args:
        limit: Positive number, or one for each column, in the unit of the output.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    >>> Squash(0.25)(ops.array([[0.0, 1e6]])).numpy().tolist()
    [[0.0, 0.25]]
    """

    def __init__(self, limit: PerColumn, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.limit: PerColumn = limit
        self.built = True

    def call(self, inputs: Any) -> Any:
        square: Any = ops.square(inputs)
        return ops.convert_to_tensor(self.limit, dtype=inputs.dtype) * inputs * ops.rsqrt(1 + square)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "limit": self.limit}


@SERIALIZABLE
class StandardDeviation(keras.layers.Layer):
    """Puts a positive standard deviation beside a mean: `[B, A] -> [B, 2A]`, learned as its logarithm.

    Args:
        initial: Positive number, the standard deviation before any training, in the unit of an action.
        **kwargs: Arguments of `keras.layers.Layer`; `trainable=False` keeps the standard deviation as it is.

    Example:

    >>> StandardDeviation(0.5)(ops.array([[1.0, 2.0]])).numpy().tolist()
    [[1.0, 2.0, 0.5, 0.5]]
    """

    def __init__(self, initial: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial: float = initial

    def build(self, input_shape: Sequence[int | None]) -> None:
        constant = keras.initializers.Constant(math.log(self.initial))
        self.log_std: keras.Variable = self.add_weight(shape=(input_shape[-1],), initializer=constant, name="log_std")

    def call(self, mean: Any, change: Any = None) -> Any:
        """Returns `[mean, exp(log_std + change)]`.

        Args:
            mean: `[B, A]`.
            change: Optional, `[B, A]`, the part of `log_std` that depends on the observation.
        """
        # Side by side by products with the halves of an identity: a concatenation cannot be vectorized over tasks.
        left, right = (ops.convert_to_tensor(h, dtype=mean.dtype) for h in np.split(np.eye(2 * mean.shape[-1]), 2))
        log_std = ops.expand_dims(self.log_std, 0) if change is None else self.log_std + change
        left_half: Any = ops.matmul(mean, left)
        return left_half + ops.matmul(ops.exp(log_std), right)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial": self.initial}


class _Policy(keras.Model):
    """What both policies share: they are saved as the arguments that they were built with."""

    arguments: dict[str, Any]

    def get_config(self) -> dict[str, Any]:
        config = {**self.arguments, "name": self.name}
        if isinstance(config["output_initializer"], keras.initializers.Initializer):
            config["output_initializer"] = keras.saving.serialize_keras_object(config["output_initializer"])
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        initializer = config.get("output_initializer")
        if isinstance(initializer, dict):
            initializer = keras.saving.deserialize_keras_object(initializer, custom_objects)
        return cls(**{**config, "output_initializer": initializer})


@SERIALIZABLE
class MLPPolicy(_Policy):
    """A deterministic policy: a fully connected network whose output is the action, `[B, O] -> [B, A]`.

    It serves model-based learning and learning from demonstrations. Actions are bounded by squashing (see `Squash`).
    The last layer starts small by default: a fresh policy acts near the middle, where the squashing is steep.

    Args:
        observation_size: O, width of an observation.
        action_size: A, width of an action.
        hidden_units: Widths of the hidden layers.
        activation: Activation of the hidden layers.
        action_limit: Bound of the actions, one positive number or one for each; `None`: not bounded.
        observation_scale: Optional sequence of O positive divisors, e.g. the spread of a velocity.
        use_bias: Whether the layers have biases.
        output_initializer: Initializer of the last layer; `None`: uniform, with a hundredth of Glorot's variance.
        name: Optional name.

    Raises:
        ValueError: A size, scale or limit that is not positive.

    Example:

    >>> policy = MLPPolicy(observation_size=4, action_size=2, action_limit=1.0)
    >>> tuple(policy(ops.zeros((3, 4))).shape)
    (3, 2)
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        *,
        hidden_units: Sequence[int] = (64, 64),
        activation: str = "tanh",
        action_limit: PerColumn | None = None,
        observation_scale: Sequence[float] | None = None,
        use_bias: bool = True,
        output_initializer: InitializerLike | None = None,
        name: str | None = None,
    ) -> None:
        arguments = {
            "observation_size": observation_size,
            "action_size": action_size,
            "hidden_units": hidden_units,
            "activation": activation,
            "action_limit": action_limit,
            "observation_scale": observation_scale,
            "use_bias": use_bias,
            "output_initializer": output_initializer,
        }
        inputs, _, actions = _network(**arguments)
        super().__init__(inputs, actions, name=name)
        self.arguments: dict[str, Any] = arguments


@SERIALIZABLE
class GaussianPolicy(_Policy):
    """A stochastic policy: a fully connected network from observations to a Gaussian over actions.

    Its output is mean and standard deviation side by side, `[B, O] -> [B, 2A]`: a learned loss that sees both works
    better than one that sees probabilities (ML3, appendix A).

    Actions are bounded by squashing the mean (see `Squash`). The noise around it is not bounded; environments clip it.
    The last layer starts small by default, so that a fresh policy acts near the middle, where the squashing is steep.

    Args:
        observation_size: O, width of an observation.
        action_size: A, width of an action.
        hidden_units: Widths of the hidden layers.
        activation: Activation of the hidden layers.
        action_limit: Bound of the mean, one positive number or one for each; `None`: not bounded.
        observation_scale: Optional sequence of O positive divisors, e.g. the spread of a velocity.
        output_initializer: Initializer of the layer of the mean; `None`: uniform, with a hundredth of Glorot's
            variance.
        std: Standard deviation before any training, in the unit of an action.
        std_mode: `"learned"`: training moves the standard deviation, one number for each action. `"fixed"`: it stays
            at `std`. `"per_observation"`: it is an output of the network, and depends on the observation.
        name: Optional name.

    Raises:
        ValueError: A size, scale, limit or standard deviation that is not positive; an unknown `std_mode`.

    Example:

    >>> policy = GaussianPolicy(observation_size=4, action_size=2, action_limit=1.0, std=0.5)
    >>> observations = ops.zeros((3, 4))
    >>> tuple(policy(observations).shape), tuple(policy.mean(observations).shape)
    ((3, 4), (3, 2))
    >>> policy(observations).numpy()[0].tolist()
    [0.0, 0.0, 0.5, 0.5]
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        *,
        hidden_units: Sequence[int] = (64, 64),
        activation: str = "tanh",
        action_limit: PerColumn | None = None,
        observation_scale: Sequence[float] | None = None,
        output_initializer: InitializerLike | None = None,
        std: float = 0.5,
        std_mode: StdMode = "learned",
        name: str | None = None,
    ) -> None:
        arguments = {
            "observation_size": observation_size,
            "action_size": action_size,
            "hidden_units": hidden_units,
            "activation": activation,
            "action_limit": action_limit,
            "observation_scale": observation_scale,
            "output_initializer": output_initializer,
        }
        _check_std(std, std_mode)
        inputs, hidden, mean = _network(**arguments)
        change = None
        if std_mode == "per_observation":
            change = keras.layers.Dense(action_size, kernel_initializer="zeros", name="log_std")(hidden)
        outputs = StandardDeviation(std, trainable=std_mode != "fixed", name="std")(mean, change)
        super().__init__(inputs, outputs, name=name)
        self.arguments: dict[str, Any] = {**arguments, "std": std, "std_mode": std_mode}

    def mean(self, observations: Any) -> Any:
        """Returns the mean actions `[B, A]` of observations `[B, O]`: the policy without noise."""
        return self(observations)[..., : self.arguments["action_size"]]

    def distribution(self, observations: Any) -> Any:
        """Returns the distribution of the actions, a `tfp.distributions.MultivariateNormalDiag` over `[B, A]`.

        Args:
            observations: `[B, O]`.

        Raises:
            ImportError: TensorFlow Probability, of the extra `[rl]`, is not installed.
        """
        mean_and_std: Any = ops.split(self(observations), 2, axis=-1)
        return import_distributions().MultivariateNormalDiag(*mean_and_std)


def _network(
    observation_size: int,
    action_size: int,
    hidden_units: Sequence[int],
    activation: str,
    action_limit: PerColumn | None,
    observation_scale: Sequence[float] | None,
    output_initializer: InitializerLike | None,
    use_bias: bool = True,
) -> tuple[Any, Any, Any]:
    """Builds the network of a policy: its symbolic input `[B, O]`, last hidden layer, and action `[B, A]`."""
    check_counts(observation_size=observation_size, action_size=action_size)
    _check_positive("action_limit", action_limit, action_size)
    _check_positive("observation_scale", observation_scale, observation_size)
    # The initializer is built before the layers: each takes the next of the seeds that Keras draws.
    if output_initializer is None:
        output_initializer = keras.initializers.VarianceScaling(0.01, "fan_avg", "uniform")
    dense = functools.partial(keras.layers.Dense, use_bias=use_bias)
    inputs = hidden = keras.Input((observation_size,))
    if observation_scale is not None:
        hidden = keras.layers.Rescaling([1 / scale for scale in observation_scale])(hidden)
    for units in hidden_units:
        hidden = dense(units, activation=activation)(hidden)
    actions = dense(action_size, kernel_initializer=output_initializer, name="mean")(hidden)
    if action_limit is not None:
        actions = Squash(action_limit, name="squash")(actions)
    return inputs, hidden, actions


def _check_positive(name: str, value: PerColumn | None, size: int) -> None:
    """Raises `ValueError` unless `value` is `None`, or holds positive numbers for `size` columns."""
    if value is None:
        return
    values: Any = value if isinstance(value, (list, tuple)) else [value] * size
    if len(values) != size or not all(0 < v < math.inf for v in values):
        raise ValueError(f"`{name}` needs {size} positive finite number(s). Received: {name}={value!r}")


def _check_std(std: float, std_mode: str) -> None:
    if std is None or not 0 < std < math.inf:
        raise ValueError(
            f"`std` must be a positive finite number. Received: std={std!r}. A policy without noise is an `MLPPolicy`."
        )
    if std_mode not in get_args(StdMode):
        raise ValueError(f"`std_mode` must be one of {get_args(StdMode)}. Received: std_mode={std_mode!r}")
