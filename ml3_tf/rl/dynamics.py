"""A learned model of the dynamics: an ensemble of networks, each of which predicts a Gaussian change of the state.

Shape letters: `...` any leading axes (tasks, episodes, time), B batch, S state, A action, M members, I inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from ml3_tf.arguments import TensorLike, check_counts
from ml3_tf.rl._probability import import_distributions

SERIALIZABLE = keras.saving.register_keras_serializable("ml3_tf")

# The smallest standard deviation, in units of the spread of the changes. Simulators have no noise: without a smallest
# value, the likelihood would have no bound.
MIN_STD = 1e-3


class DynamicsScore(NamedTuple):
    """How well a model predicts transitions that it has not seen.

    Attributes:
        log_likelihood: Mean over transitions of the log-density of the next state, nats; a density per unit of the
            state.
        step_error: `[S]`, root mean square error of one step, in the units of the state.
        disagreement: `[S]`, mean standard deviation of the members' predictions, in the units of the state.
    """

    log_likelihood: float
    step_error: np.ndarray
    disagreement: np.ndarray


@SERIALIZABLE
class EnsembleDense(keras.layers.Layer):
    """A `Dense` layer for each member: `[M, B, I] -> [M, B, units]`.

    Args:
        units: Width of the output.
        activation: Activation function; `None`: linear.
        seed: Integer, `SeedGenerator` or `None`, for the initial weights.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    >>> EnsembleDense(5)(ops.zeros((3, 4, 2))).shape
    TensorShape([3, 4, 5])
    """

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        *,
        seed: int | keras.random.SeedGenerator | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units: int = units
        self.activation: Any = keras.activations.get(activation)
        self.seed: int | keras.random.SeedGenerator | None = seed

    def build(self, input_shape: Sequence[Any]) -> None:
        num_members, _, width = input_shape
        # Glorot's: the leading axis multiplies the fans, and thereby divides the variance, by its length.
        glorot = keras.initializers.VarianceScaling(num_members, "fan_avg", "uniform", seed=self.seed)
        shape = (num_members, width, self.units)
        self.kernel: keras.Variable = self.add_weight(shape=shape, initializer=glorot, name="kernel")
        self.bias: keras.Variable = self.add_weight(
            shape=(num_members, 1, self.units), initializer="zeros", name="bias"
        )

    def call(self, inputs: Any) -> Any:
        return self.activation(ops.matmul(inputs, self.kernel) + self.bias)

    def get_config(self) -> dict[str, Any]:
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "units": self.units, "activation": activation}


@SERIALIZABLE
class DynamicsEnsemble(keras.Model):
    """Predicts the next state from state and action, and how uncertain that prediction is.

    Each member predicts mean and standard deviation of the change of the state; the noise may differ from state to
    state. It is trained on its own likelihood, from its own initial weights: members agree where there was data.

    `adapt` measures mean and spread of inputs and changes, which the model keeps with its weights. Then
    `model.fit((states, actions), next_states)` trains the members. When the data grow, call both again.

    Args:
        state_size: S, width of a state.
        action_size: A, width of an action.
        num_members: M. The defaults of networks and members are those of ML3's public reference.
        hidden_units: Widths of the hidden layers.
        activation: Activation of the hidden layers; use a smooth one if gradients flow through the model.
        angles: Columns of the state that are angles (rad): members see their cosine and sine instead.
        seed: Optional integer that determines the initial weights.
        name: Optional name.

    Raises:
        ValueError: Sizes that are not positive; `angles` that are not columns of the state; in `adapt` and when called,
            other widths; in `adapt`, values that are not finite.
        RuntimeError: `fit` or `train_on_batch` was called before `adapt`.
        ImportError: TensorFlow Probability, of the extra `[rl]`, is not installed. Training, `members`, `distribution`
            and `score` need it.

    Example:

    >>> generator = np.random.default_rng(0)
    >>> states, actions = generator.normal(size=(200, 2)), generator.normal(size=(200, 1))
    >>> next_states = states + 0.1 * actions
    >>> model = DynamicsEnsemble(state_size=2, action_size=1, seed=0)
    >>> model.adapt(states, actions, next_states)
    >>> model.compile(keras.optimizers.Adam(1e-2))
    >>> history = model.fit((states, actions), next_states, epochs=20, verbose=0)
    >>> bool(np.all(model.score(states, actions, next_states).step_error < 0.03))
    True
    """

    def __init__(
        self,
        state_size: int,
        action_size: int,
        *,
        num_members: int = 3,
        hidden_units: Sequence[int] = (100, 30),
        activation: str = "tanh",
        angles: Sequence[int] = (),
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        check_counts(state_size=state_size, action_size=action_size, num_members=num_members)
        if not all(column in range(state_size) for column in angles):
            raise ValueError(
                f"`angles` must hold columns of the state, between 0 and {state_size - 1}. Received: angles={angles}"
            )
        self.state_size: int = state_size
        self.action_size: int = action_size
        self.num_members: int = num_members
        self.arguments: dict[str, Any] = {"hidden_units": tuple(hidden_units), "activation": activation, "seed": seed}
        self.angles: tuple[int, ...] = tuple(angles)
        seeds = keras.random.SeedGenerator(seed)
        self.hidden: list[EnsembleDense] = [EnsembleDense(units, activation, seed=seeds) for units in hidden_units]
        self.head: EnsembleDense = EnsembleDense(2 * state_size, seed=seeds)
        num_inputs = state_size + len(self.angles) + action_size
        self.input_mean: keras.Variable = self._constant("input_mean", num_inputs, "zeros")
        self.input_std: keras.Variable = self._constant("input_std", num_inputs, "ones")
        self.change_mean: keras.Variable = self._constant("change_mean", state_size, "zeros")
        self.change_std: keras.Variable = self._constant("change_std", state_size, "ones")
        self.adapted: keras.Variable = self.add_weight(shape=(), initializer="zeros", trainable=False, name="adapted")
        self((ops.zeros((1, state_size)), ops.zeros((1, action_size))))

    def adapt(self, states: TensorLike, actions: TensorLike, next_states: TensorLike) -> None:
        """Measures mean and spread of the inputs and of the changes, which `fit` needs.

        Args:
            states: `[..., S]`.
            actions: `[..., A]`.
            next_states: `[..., S]`.

        Raises:
            ValueError: Other widths, or values that are not finite.
        """
        states, actions, next_states = (np.asarray(values) for values in (states, actions, next_states))
        for name, values in {"states": states, "actions": actions, "next_states": next_states}.items():
            self._check_width(name, values)
            if not np.all(np.isfinite(values)):
                number = np.sum(~np.isfinite(values))
                raise ValueError(f"`{name}` must be finite. Received: {number} value(s) that are not.")
        moments = {
            "input": ops.convert_to_numpy(self._inputs(states.astype("float32"), actions.astype("float32"))),
            "change": next_states - states,
        }
        for name, values in moments.items():
            values = values.reshape(-1, values.shape[-1])
            spread = np.std(values, 0)
            getattr(self, f"{name}_mean").assign(np.mean(values, 0))
            # A column that never changes is predicted by its mean, and has no spread to divide by.
            getattr(self, f"{name}_std").assign(np.where(spread > 1e-8, spread, 1.0))
        self.adapted.assign(1.0)

    def make_train_function(self, force: bool = False) -> Any:
        if not float(self.adapted.value):
            raise RuntimeError(
                "The model was trained before its data were measured. Call `adapt(states, actions, next_states)` first."
            )
        return super().make_train_function(force)

    def call(self, inputs: tuple[Any, Any]) -> Any:
        """Returns means and standard deviations of the change of each member.

        Args:
            inputs: `(states, actions)`, `[..., S]` and `[..., A]`.

        Returns:
            `[..., M, 2, S]`, in units of the spread of the changes.
        """
        states, actions = inputs
        self._check_width("states", states)
        self._check_width("actions", actions)
        values: Any = (self._inputs(states, actions) - self.input_mean) / self.input_std
        shape: Any = ops.shape(values)
        # One batch for each member, [M, B, I]. Stacked, not repeated or transposed: in a loop, XLA compiles no second
        # derivative of `repeat`, `take`, `transpose` and `einsum`.
        values = ops.stack([ops.reshape(values, (-1, values.shape[-1]))] * self.num_members)
        for layer in [*self.hidden, self.head]:
            values = layer(values)
        values = ops.stack(ops.unstack(values, self.num_members), axis=1)
        values = ops.reshape(values, (*shape[:-1], self.num_members, 2, self.state_size))
        std: Any = ops.softplus(values[..., 1, :])
        return ops.stack([values[..., 0, :], std + MIN_STD], axis=-2)

    def next_states(self, states: Any, actions: Any) -> Any:
        """Returns the next states `[..., S]`, the mean over the members' predictions: the dynamics of a rollout."""
        means = self((states, actions))[..., 0, :]
        return self._in_state_units(states, ops.mean(means, axis=-2))

    def members(self, states: Any, actions: Any) -> Any:
        """Returns each member's next states, a TFP `MultivariateNormalDiag` `[..., M]` over `[S]`."""
        return self._distribution(states, self((states, actions)))

    def distribution(self, states: Any, actions: Any) -> Any:
        """Returns the mixture of all members' next states, a TFP `MixtureSameFamily` `[...]` over `[S]`."""
        distributions = import_distributions()
        weights = distributions.Categorical(logits=tf.zeros([self.num_members]))
        return distributions.MixtureSameFamily(weights, self.members(states, actions))

    def disagreement(self, states: Any, actions: Any) -> Any:
        """Returns the standard deviation of the members' mean predictions, `[..., S]`, in the units of the state."""
        means = self((states, actions))[..., 0, :]
        return ops.std(means, axis=-2) * self.change_std

    def score(self, states: TensorLike, actions: TensorLike, next_states: TensorLike) -> DynamicsScore:
        """Returns the `DynamicsScore` of transitions that the model was not trained on."""
        states, actions, next_states = (
            tf.convert_to_tensor(values, tf.float32) for values in (states, actions, next_states)
        )
        distribution = self.distribution(states, actions)
        away = np.reshape(self.next_states(states, actions) - next_states, (-1, self.state_size))
        disagreement = np.reshape(self.disagreement(states, actions), (-1, self.state_size))
        return DynamicsScore(
            float(tf.reduce_mean(distribution.log_prob(next_states))),
            np.sqrt(np.mean(np.square(away), 0)),
            np.mean(disagreement, 0),
        )

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Returns the negative log-likelihood of the next states, nats, averaged over transitions and members."""
        log_likelihoods: Any = ops.mean(self._distribution(x[0], y_pred).log_prob(y[..., None, :]), axis=-1)
        losses = -log_likelihoods
        if sample_weight is not None:
            losses = losses * ops.cast(sample_weight, losses.dtype)
        return ops.mean(losses)

    def get_config(self) -> dict[str, Any]:
        sizes = {"state_size": self.state_size, "action_size": self.action_size, "num_members": self.num_members}
        return {**sizes, **self.arguments, "angles": self.angles, "name": self.name}

    def _distribution(self, states: Any, outputs: Any) -> Any:
        mean, std = outputs[..., 0, :], outputs[..., 1, :]
        mean = self._in_state_units(ops.expand_dims(states, -2), mean)
        return import_distributions().MultivariateNormalDiag(mean, std * self.change_std)

    def _in_state_units(self, states: Any, change: Any) -> Any:
        return states + self.change_mean + self.change_std * change

    def _inputs(self, states: Any, actions: Any) -> Any:
        """What a member sees, `[..., I]`: columns that are not angles, cosines, sines, action."""
        columns: Any = ops.unstack(states, axis=-1)
        others = [column for n, column in enumerate(columns) if n not in self.angles]
        angles = [function(columns[n]) for function in (ops.cos, ops.sin) for n in self.angles]
        return ops.concatenate([ops.stack([*others, *angles], axis=-1), actions], axis=-1)

    def _constant(self, name: str, width: int, initializer: str) -> keras.Variable:
        return self.add_weight(shape=(width,), initializer=initializer, trainable=False, name=name)

    def _check_width(self, name: str, values: Any) -> None:
        width = self.action_size if name == "actions" else self.state_size
        if values.shape[-1] != width:
            raise ValueError(f"`{name}` must have {width} columns. Received: shape {tuple(values.shape)}")
