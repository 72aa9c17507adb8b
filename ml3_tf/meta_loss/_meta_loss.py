"""A loss function that is a Keras network."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
from keras import ops

from ml3_tf import feature_layout
from ml3_tf.feature_layout import FROM_NETWORK, PER_OUTPUT, PER_SAMPLE, PER_SET
from ml3_tf.meta_loss._base import Base, add_base, check_base, get_base
from ml3_tf.meta_loss._card import to_html
from ml3_tf.meta_loss._config import from_config, to_config
from ml3_tf.meta_loss._facts import TrainingFacts
from ml3_tf.meta_loss._gradient import value_and_gradient
from ml3_tf.meta_loss._learned_rate import LearnedRate
from ml3_tf.meta_loss._networks import build_networks

if TYPE_CHECKING:
    from ml3_tf.arguments import InitializerLike, LossInputs, LossLike, Mode, Reduction, TensorLike


@keras.saving.register_keras_serializable("ml3_tf")
class MetaLoss(keras.losses.Loss):
    """A learned loss: a Keras network that scores the predictions of a model.

    Eq. 3 of ML3 (Bechtle et al., section 3.1): `L_learned = M_phi(y, f_theta(x))`. Use it like any other Keras loss, in
    `model.compile(loss=...)`, with Keras's reductions, sample weights, masks and dtypes. Each example has one value.

    **Feature layout.** The network reads the features of an example side by side, in the order of `features`: the
    prediction first, then the slices of the last axis of `y_true`, which holds *everything else* that the loss may see
    (a target, or a state and a goal). With the prediction as its only feature a loss is label-free: it reads no
    `y_true`. Keras's `fit` asks for one; give it `np.zeros((len(x), 0))`.

    **Modes.** `"per_sample"` scores the whole vector of an example. `"per_output"` scores each pair of components
    `(y_pred[i], y_true[i])` with the same network and takes the mean, so a loss learned on two outputs trains ten.
    With more features, each slice of `y_true` has one column for each output, `[..., outputs of feature 1, ...]`.
    `"per_set"` scores all examples together, see below.

    **Sets.** A per-set loss is for tasks where one example says too little. `network` gives learned features of each
    example, their weighted mean over the set goes through `score_network`, and every example receives that one score;
    an example of weight zero leaves the set. The set is the second-to-last axis of `y_pred`: a batch in `fit`, the
    examples of each task in meta-training. Train on sets like those of meta-training, and let a server serve one
    request at a time: a batch of several would be one set.

    **Learned learning rate.** A learned loss may scale itself, and so the step of the learner. With
    `learning_rate=0.1` it is multiplied by a positive scalar that starts at 0.1 and is learned with the network. With
    `"network"` the network has a second output, whose softplus is the rate of each example. No gradient flows from the
    rate to `y_pred`, so it scales a step and never bends it; the meta-gradient leaves out how earlier steps moved the
    rates of later ones. With a `base`, `L_learned = rate (base + M_phi)`, see `around`.

    Args:
        network: Built Keras model, `[batch, width of all features] -> [batch, 1]` (`[batch, 2]` with
            `learning_rate="network"`), or `-> [batch, number of learned features]` in mode `"per_set"`. It should be
            smooth in its inputs (see `MetaLoss.mlp`).
        mode: `"per_sample"`, `"per_output"` or `"per_set"`.
        features: Mapping from feature name to width. The first is the prediction, the others are the slices of
            `y_true`, in order. `"per_output"` takes features of width 1.
        input_scale: Optional sequence with one positive divisor per network input, e.g. the spread of a velocity.
        learning_rate: `None`, a positive float, or `"network"`; see above.
        reduction: As in every Keras loss.
        name: Optional name.
        dtype: As in every Keras loss: the dtype in which `y_true` and `y_pred` arrive at the network.
        score_network: In mode `"per_set"` alone, the built Keras model that maps the pooled learned features to the
            score, `-> [batch, 1]` (`[batch, 2]` with `learning_rate="network"`).
        base: Optional Keras loss, or its name, that the network adds to: "mse", "mae", "huber", "log_cosh",
            "binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy" or
            "categorical_generalized_cross_entropy"; or "forward_corrected_cross_entropy", which counts in each set how
            labels are wrong (Patrini et al., 2017), also as `{"name": ..., "q": 0.8, "prior_count": 5.0, "balance":
            1.0}`. It scores the prediction against the second feature. The last three take class indices, too.

    Raises:
        ValueError: A mode, layout or scale that does not fit the network; at call time, shapes that do not fit the
            layout, and an empty batch.

    Example:

    >>> loss = MetaLoss.mlp()
    >>> tuple(loss.call([[0.1], [0.2], [0.3]], [[0.5], [0.5], [0.5]]).shape)
    (3,)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer="sgd", loss=loss)
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        mode: Mode = PER_SAMPLE,
        features: Mapping[str, int] | None = None,
        input_scale: Sequence[float] | None = None,
        learning_rate: float | Literal["network"] | None = None,
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = "meta_loss",
        dtype: str | None = None,
        score_network: keras.Model | None = None,
        base: LossLike | Mapping[str, Any] | Base | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)  # pyright: ignore[reportArgumentType] - Keras takes None, too
        self.network: keras.Model = network
        self.score_network: keras.Model | None = score_network
        self.mode: Mode = mode
        self.features: dict[str, int] = dict(feature_layout.widths_and_scale(features)[0])
        self.input_scale: list[float] | None = input_scale if input_scale is None else [*map(float, input_scale)]
        self.learning_rate: float | Literal["network"] | None = learning_rate
        feature_layout.check(self)
        self.base: Base | None = None if base is None else get_base(base, self.dtype)
        check_base(self)
        self.facts: TrainingFacts | None = None  # what it was learned with, see `check_use`
        self.learned_rate: LearnedRate | None = None
        if isinstance(learning_rate, (int, float)):
            self.learned_rate = LearnedRate(learning_rate, dtype=self.dtype)

    @classmethod
    def mlp(
        cls,
        hidden_units: Sequence[int] = (40, 40),
        *,
        activation: str = "silu",
        output_activation: str | None = None,
        output_initializer: InitializerLike = "glorot_uniform",
        score_units: Sequence[int] = (40,),
        mode: Mode = PER_SAMPLE,
        features: Mapping[str, int] | LossInputs | None = None,
        learning_rate: float | Literal["network"] | None = None,
        name: str | None = "meta_loss",
        dtype: str | None = None,
    ) -> MetaLoss:
        """Returns a `MetaLoss` around a fully connected network; the defaults are the paper's two layers of 40.

        The *gradient* of the loss moves a learner, so the loss is trained by a second derivative. That of a piecewise
        linear activation (ReLU) is zero almost everywhere; hence the smooth default. The last layer has no bias: a
        constant added to a loss moves no learner.

        Args:
            hidden_units: Widths of the hidden layers. In mode `"per_set"` the last of them is pooled.
            activation: Activation of the hidden layers.
            output_activation: Activation of the output, e.g. `"softplus"` for a loss that is never negative.
            output_initializer: Initializer of the last layer. For long unrolls start from small values, i.e. near-zero
                gradients: a random loss makes learners diverge at once.
            score_units: Widths of the hidden layers behind the pooling; mode `"per_set"` alone.
            mode: As in `MetaLoss`, as are the others; the network takes the same `dtype`.
            features: The widths of the features, as in `MetaLoss`; or `LossInputs`, whose features and scale are taken.

        Example:

        >>> MetaLoss.mlp(features={"y_pred": 2, "state": 4, "goal": 2}).network.input_shape
        (None, 8)
        """
        widths, scale = feature_layout.widths_and_scale(features)
        dtype = dtype or keras.config.floatx()
        network, score_network = build_networks(
            sum(widths.values()),
            hidden_units,
            score_units if mode == PER_SET else None,
            num_outputs=2 if learning_rate == FROM_NETWORK else 1,
            activation=activation,
            output_activation=output_activation,
            output_initializer=output_initializer,
            dtype=dtype,
        )
        layout: Any = {"mode": mode, "features": widths, "input_scale": scale, "learning_rate": learning_rate}
        return cls(network, score_network=score_network, name=name, dtype=dtype, **layout)

    @classmethod
    def around(
        cls,
        base: LossLike | Mapping[str, Any],
        hidden_units: Sequence[int] = (16,),
        *,
        activation: str = "silu",
        mode: Mode = PER_SAMPLE,
        features: Mapping[str, int] | LossInputs | None = None,
        learning_rate: float | None = None,
        name: str | None = "meta_loss",
        dtype: str | None = None,
    ) -> MetaLoss:
        """Returns a `MetaLoss` that starts as a loss of Keras: the base plus a network, whose last layer is zero.

        Meta-training starts where a practitioner would, and has to find what is better, not how to learn at all. The
        first layer reads the error, at several scales. A parameter of the base is learned as well: the `delta` of
        Huber, `label_smoothing`, the `q` of generalized cross-entropy.

        Args:
            base: As in `MetaLoss`; the others are those of `mlp`, with at least one hidden layer.

        Example:

        >>> loss = MetaLoss.around("mse")
        >>> loss.call([[1.0], [2.0]], [[0.0], [0.0]]).numpy().tolist()
        [1.0, 4.0]
        """
        layout: Any = {"mode": mode, "features": features, "learning_rate": learning_rate, "name": name, "dtype": dtype}
        return add_base(base, cls.mlp(hidden_units, activation=activation, output_initializer="zeros", **layout))

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The layers that hold the weights: network, score network of a per-set loss, scalar rate, base."""
        layers = self.network, self.score_network, self.learned_rate, self.base
        return [layer for layer in layers if layer is not None and layer.weights]

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The variables phi that meta-training moves: of networks, scalar rate and base."""
        return [variable for layer in self.layers for variable in layer.trainable_variables]

    @property
    def is_label_free(self) -> bool:
        """Whether the loss sees the prediction alone."""
        return len(self.features) == 1

    @property
    def pools_examples(self) -> bool:
        """Whether the value of an example depends on the others, and on the weights that they have."""
        return self.mode == PER_SET or (self.base is not None and self.base.pools_examples)

    def __call__(self, y_true: TensorLike, y_pred: TensorLike, sample_weight: TensorLike | None = None) -> Any:
        """Returns the reduced loss, as Keras computes it; the weights of a per-set loss reach its sets as well."""
        if not self.pools_examples:
            return super().__call__(y_true, y_pred, sample_weight)
        from ml3_tf.keras_internals import get_mask

        rows = feature_layout.with_width(y_pred, self.dtype)
        weights = feature_layout.example_weights(rows, sample_weight, get_mask(y_pred))
        call = functools.partial(self.call, sample_weight=weights)
        reduced = feature_layout.WithCall(call, self.reduction, self.name, self.dtype)
        return reduced(y_true, y_pred, sample_weight)

    def call(self, y_true: TensorLike, y_pred: TensorLike, sample_weight: TensorLike | None = None) -> Any:
        """Returns the loss of each example, `[...]`.

        Args:
            y_true: `[..., width]`, everything but the prediction, in the order of `features`.
            y_pred: `[..., width]`, the prediction.
            sample_weight: Optional `[...]`, how much each example counts in its set. Read in mode `"per_set"` alone:
                elsewhere weights multiply the values, which is left to Keras.
        """
        y_true, y_pred = feature_layout.prepare(self, y_true, y_pred)
        weights = feature_layout.example_weights(y_pred, sample_weight) if self.pools_examples else None
        if self.mode == PER_OUTPUT:
            slices: Any = () if self.is_label_free else ops.split(y_true, len(self.features) - 1, axis=-1)
            values = ops.mean(self._score(ops.stack([y_pred, *slices], axis=-1)), axis=-1)
        else:
            values = self._score(ops.concatenate([y_pred, y_true], axis=-1), weights)
            values = ops.broadcast_to(values, feature_layout.shape_of(y_pred)[:-1])
        if self.base is not None:
            values = self.base.call(y_true, y_pred, weights) + values
        return values if self.learned_rate is None else self.learned_rate(values)

    def value_and_gradient(self, y_true: TensorLike, y_pred: TensorLike) -> tuple[np.ndarray, np.ndarray]:
        """Returns the loss of each example and its derivative with respect to `y_pred`; needs TensorFlow.

        For a per-set loss the derivative is that of the sum over the set. Arguments are those of `call`.

        >>> [values.shape for values in MetaLoss.mlp().value_and_gradient([[0.1], [0.2]], [[0.5], [0.5]])]
        [(2,), (2, 1)]
        """
        return value_and_gradient(self, y_true, y_pred)

    def _score(self, inputs: Any, weights: Any = None) -> Any:
        scale = self.input_scale
        scaled = inputs if scale is None else inputs / ops.convert_to_tensor(scale, dtype=inputs.dtype)
        values = self._apply_networks(scaled, weights)[..., 0]
        if self.learning_rate != FROM_NETWORK:
            return values
        return values * ops.softplus(self._apply_networks(ops.stop_gradient(scaled), weights)[..., 1])

    def _apply_networks(self, inputs: Any, weights: Any) -> Any:
        """`[..., F] -> [..., outputs]`; of a set `[..., B, F] -> [..., 1, outputs]`."""
        outputs = feature_layout.apply_to_rows(self.network, inputs)
        if self.score_network is None:
            return outputs
        pooled = ops.expand_dims(feature_layout.pool(outputs, weights), -2)
        return feature_layout.apply_to_rows(self.score_network, pooled)

    def export(self, folder: str | Path) -> Path:
        """Writes the loss as the next version of a SavedModel, `folder/1`, `folder/2`, ..., and returns its folder.

        The last part of `folder` is the name of the loss. See `ml3_tf.saving.export_meta_loss` for files and errors,
        and `ml3_tf.load_meta_loss` for the way back.
        """
        from ml3_tf import saving

        return saving.export_meta_loss(self, folder)

    def _repr_html_(self) -> str:
        """Returns the loss as a notebook shows it."""
        return to_html(self)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **to_config(self)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MetaLoss:
        return from_config(cls, config)
