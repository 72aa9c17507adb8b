"""Policies: Keras models from observations to actions, or to a distribution of actions.

Shape letters: B examples, O observation, A action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Self, TypeAlias, get_args

import keras
from keras import ops

from ml3_tf.arguments import InitializerLike, check_counts
from ml3_tf.rl._probability import import_distributions
from ml3_tf.rl.policy_networks import SERIALIZABLE, PerColumn, StandardDeviation, build_network

StdMode: TypeAlias = Literal["learned", "fixed", "per_observation"]


class _Policy(keras.Model):
    """What all policies share: they are saved as the arguments that they were built with."""

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
        inputs, _, actions = build_network(**arguments)
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
        inputs, hidden, mean = build_network(**arguments)
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


@SERIALIZABLE
class CategoricalPolicy(_Policy):
    """A stochastic policy over discrete actions: a fully connected network from observations to log-probabilities.

    Its output is the log-probability of each action, `[B, O] -> [B, A]`, nats. Unlike logits, they do not change with a
    constant that is added to all, so that a learned loss sees equal policies as equal. A trajectory holds the actions
    one-hot, `[..., T, A]`.

    A model of your own serves as well, if the activation of its last layer is `"log_softmax"`.

    Args:
        observation_size: O, width of an observation.
        num_actions: A, number of actions.
        hidden_units: Widths of the hidden layers.
        activation: Activation of the hidden layers.
        observation_scale: Optional sequence of O positive divisors, e.g. the spread of a velocity.
        output_initializer: Initializer of the last layer; `None`: uniform, with a hundredth of Glorot's variance, so
            that the actions of a fresh policy are about equally likely.
        name: Optional name.

    Raises:
        ValueError: A size or scale that is not positive, or fewer than two actions.

    Example:

    >>> policy = CategoricalPolicy(observation_size=4, num_actions=2)
    >>> observations = ops.zeros((1, 4))
    >>> ops.exp(policy(observations)).numpy().tolist(), policy.mode(observations).numpy().tolist()
    ([[0.5, 0.5]], [[1.0, 0.0]])
    """

    def __init__(
        self,
        observation_size: int,
        num_actions: int,
        *,
        hidden_units: Sequence[int] = (64, 64),
        activation: str = "tanh",
        observation_scale: Sequence[float] | None = None,
        output_initializer: InitializerLike | None = None,
        name: str | None = None,
    ) -> None:
        if num_actions == 1:
            raise ValueError("`num_actions` must be at least 2: there is nothing to choose. Received: num_actions=1")
        check_counts(num_actions=num_actions)
        arguments = {
            "observation_size": observation_size,
            "hidden_units": hidden_units,
            "activation": activation,
            "observation_scale": observation_scale,
            "output_initializer": output_initializer,
        }
        network = {**arguments, "action_size": num_actions, "action_limit": None}
        inputs, _, log_probabilities = build_network(**network, output_activation="log_softmax")
        super().__init__(inputs, log_probabilities, name=name)
        self.arguments: dict[str, Any] = {**arguments, "num_actions": num_actions}

    def mode(self, observations: Any) -> Any:
        """Returns the most likely action of each observation `[B, O]`, one-hot `[B, A]`: the policy without noise."""
        return ops.one_hot(ops.argmax(self(observations), axis=-1), self.arguments["num_actions"])

    def distribution(self, observations: Any) -> Any:
        """Returns the distribution of the actions, a `tfp.distributions.Categorical` over integers `[B]`.

        Args:
            observations: `[B, O]`.

        Raises:
            ImportError: TensorFlow Probability, of the extra `[rl]`, is not installed.
        """
        return import_distributions().Categorical(logits=self(observations))


def _check_std(std: float, std_mode: str) -> None:
    if std is None or not 0 < std < math.inf:
        raise ValueError(
            f"`std` must be a positive finite number. Received: std={std!r}. A policy without noise is an `MLPPolicy`."
        )
    if std_mode not in get_args(StdMode):
        raise ValueError(f"`std_mode` must be one of {get_args(StdMode)}. Received: std_mode={std_mode!r}")
