"""A loss function that is a Keras network."""

import functools
import math

import keras
from keras import ops

PER_SAMPLE = "per_sample"
PER_OUTPUT = "per_output"
MODES = (PER_SAMPLE, PER_OUTPUT)
FROM_NETWORK = "network"


@keras.saving.register_keras_serializable("ml3_tf")
class LearnedRate(keras.layers.Layer):
    """A positive scalar that multiplies its input, learned as its logarithm.

    Args:
        initial: Positive float, the factor before any training.

    Raises:
        ValueError: `initial` is not positive and finite.

    Example:

    >>> LearnedRate(0.5)(ops.array([4.0, 2.0])).numpy().tolist()
    [2.0, 1.0]
    """

    def __init__(self, initial=1.0, **kwargs):
        super().__init__(**kwargs)
        if not 0 < initial < math.inf:
            raise ValueError(
                f"A learned rate is positive: expected a finite `initial` > 0. Received: initial={initial}"
            )
        self.initial = float(initial)
        self.log_rate = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(math.log(self.initial)), name="log_rate"
        )
        self.built = True

    def call(self, inputs):
        return ops.exp(self.log_rate) * inputs

    def get_config(self):
        return {**super().get_config(), "initial": self.initial}


@keras.saving.register_keras_serializable("ml3_tf")
class MetaLoss(keras.losses.Loss):
    """A learned loss: a Keras network scores what a model predicted.

    Eq. 3 of ML3: `L_learned = M_phi(y, f_theta(x))`. It is used like any other Keras loss, `model.compile(loss=...)`,
    with reductions, sample weights, masks and dtypes as Keras defines them, and gives one value per example.

    **Feature layout.** The network reads the features of one example side by side, in the order of `features`: first
    the prediction, then the slices of the last axis of `y_true`, which holds *everything else* the loss may look at (a
    target, or a state and a goal). The layout is saved with the loss.

    **Modes.** `"per_sample"` scores the whole vector of an example. `"per_output"` scores each pair of components
    `(y_pred[i], y_true[i])` with the same network and takes the mean, so that a loss learned on two outputs trains a
    model with ten.

    **Learned learning rate.** A learned loss may scale itself, and thereby the step of whoever minimises it. With
    `learning_rate=0.1` the loss is multiplied by a positive scalar that starts at .1 and is learned with the network.
    With `learning_rate="network"` the network has a second output whose softplus is the rate of each example; no
    gradient flows from the rate to `y_pred`, so it scales a step and never bends it.

    Args:
        network: Built Keras model, `[batch, width of all features] -> [batch, 1]` (`[batch, 2]` with
            `learning_rate="network"`). It should be smooth in its inputs (see `MetaLoss.mlp`).
        mode: `"per_sample"` or `"per_output"`.
        features: Mapping from feature name to width. The first is the prediction, the others are the slices of
            `y_true`, in order. `"per_output"` takes two features of width 1.
        input_scale: Optional sequence with one positive divisor per network input, e.g. the spread of a velocity.
        learning_rate: `None`, a positive float, or `"network"`; see above.
        reduction: As in every Keras loss.
        name: Optional name.
        dtype: As in every Keras loss: the dtype in which `y_true` and `y_pred` arrive at the network.

    Raises:
        ValueError: A mode, layout or scale that does not fit the network; at call time, shapes that do not fit the
            layout, and an empty batch.

    Example:

    >>> loss = MetaLoss.mlp()
    >>> tuple(loss.call([[0.1], [0.2], [0.3]], [[0.5], [0.5], [0.5]]).shape)
    (3,)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer="sgd", loss=loss)

    Source: Bechtle et al., "Meta-Learning via Learned Loss", section 3.1.
    """

    def __init__(
        self,
        network,
        mode=PER_SAMPLE,
        features=None,
        input_scale=None,
        learning_rate=None,
        reduction="sum_over_batch_size",
        name="meta_loss",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.network = network
        self.mode = mode
        self.features = {"y_pred": 1, "y_true": 1} if features is None else dict(features)
        self.input_scale = None if input_scale is None else [float(scale) for scale in input_scale]
        self.learning_rate = learning_rate
        self._check_layout()
        scalar_rate = learning_rate is not None and learning_rate != FROM_NETWORK
        self.learned_rate = LearnedRate(learning_rate, dtype=self.dtype) if scalar_rate else None

    @classmethod
    def mlp(
        cls,
        hidden_units=(40, 40),
        activation="silu",
        output_activation=None,
        output_initializer="glorot_uniform",
        features=None,
        dtype=None,
        **kwargs,
    ):
        """Returns a `MetaLoss` around a fully connected network; the defaults are the paper's two layers of 40.

        A learner is moved by the *gradient* of the loss, and the loss is trained by the gradient of that gradient. A
        piecewise linear activation (ReLU) makes the first a step function of the prediction and its derivative zero
        almost everywhere, which leaves flat regions where nothing is learned; hence the smooth default. The last layer
        has no bias: a constant added to a loss moves no learner.

        Args:
            hidden_units: Widths of the hidden layers.
            activation: Activation of the hidden layers.
            output_activation: Activation of the output, e.g. `"softplus"` for a loss that is never negative.
            output_initializer: Initializer of the last layer. Small values start from a loss that moves nobody: where
                many inner steps are differentiated through, a random loss makes learners diverge before anything is
                learned.
            features: Feature layout, see `MetaLoss`.
            dtype: Dtype of the loss and of the network.
            **kwargs: Further arguments of `MetaLoss`.

        Returns:
            A `MetaLoss`.

        Example:

        >>> MetaLoss.mlp(features={"y_pred": 2, "state": 4, "goal": 2}).network.input_shape
        (None, 8)
        """
        layout = {"y_pred": 1, "y_true": 1} if features is None else features
        outputs = 2 if kwargs.get("learning_rate") == FROM_NETWORK else 1
        dtype = dtype or keras.config.floatx()
        dense = functools.partial(keras.layers.Dense, dtype=dtype)
        hidden = [dense(units, activation=activation) for units in hidden_units]
        output = dense(outputs, output_activation, use_bias=False, kernel_initializer=output_initializer)
        network = keras.Sequential([keras.Input((sum(layout.values()),), dtype=dtype), *hidden, output])
        return cls(network, features=features, dtype=dtype, **kwargs)

    @property
    def trainable_variables(self):
        """The variables phi that meta-training moves: those of the network, then the scalar rate if there is one."""
        rate = self.learned_rate.trainable_variables if self.learned_rate else []
        return [*self.network.trainable_variables, *rate]

    def call(self, y_true, y_pred):
        """Returns one value per example.

        Args:
            y_true: `[..., width]`, everything but the prediction, in the order of `features`.
            y_pred: `[..., width]`, the prediction.

        Returns:
            `[...]`, the loss of each example.
        """
        y_true, y_pred = self._check_shapes(_with_width(y_true, self.dtype), _with_width(y_pred, self.dtype))
        if self.mode == PER_OUTPUT:
            return ops.mean(self._score(ops.stack([y_pred, y_true], axis=-1)), axis=-1)
        return self._score(ops.concatenate([y_pred, y_true], axis=-1))

    def _score(self, inputs):
        """M_phi of each feature vector: `[..., F] -> [...]`, times the learned rate."""
        if self.input_scale is not None:
            inputs = inputs / ops.convert_to_tensor(self.input_scale, dtype=inputs.dtype)
        rows = ops.reshape(inputs, (-1, inputs.shape[-1]))
        values = self.network(rows)[:, 0]
        if self.learning_rate == FROM_NETWORK:
            values = values * ops.softplus(self.network(ops.stop_gradient(rows))[:, 1])
        elif self.learned_rate is not None:
            values = self.learned_rate(values)
        return values if len(inputs.shape) == 2 else ops.reshape(values, ops.shape(inputs)[:-1])

    def export(self, directory):
        """Writes the loss as the next version of a SavedModel, `directory/1`, `directory/2`, ...

        See `ml3_tf.saving.export` for what is written, and `ml3_tf.load_meta_loss` for the way back.

        Args:
            directory: The folder of this loss; its last part is the name of the loss.

        Returns:
            The `pathlib.Path` of the version that was written.

        Raises:
            ValueError: A weight is not finite.
            OSError: The folder cannot be written; nothing is changed then.
        """
        from ml3_tf import saving

        return saving.export(self, directory)

    def get_config(self):
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            "mode": self.mode,
            "features": self.features,
            "input_scale": self.input_scale,
            "learning_rate": self.learning_rate,
            "dtype": self.dtype,
        }

    @classmethod
    def from_config(cls, config):
        network = keras.saving.deserialize_keras_object(config["network"])
        return cls(**{**config, "network": network})

    def _check_layout(self):
        if self.mode not in MODES:
            raise ValueError(f"Unknown `mode`. Expected one of {MODES}. Received: mode={self.mode!r}")
        widths = list(self.features.values())
        if len(widths) < 2 or any(not isinstance(width, int) or width < 1 for width in widths):
            raise ValueError(
                "`features` maps at least two names, the prediction and one slice of `y_true`, to positive integer "
                f"widths. Received: features={self.features}"
            )
        if self.mode == PER_OUTPUT and widths != [1, 1]:
            raise ValueError(
                "A per-output loss scores pairs (y_pred[i], y_true[i]): expected two `features` of width 1. "
                f"Received: features={self.features}. Use mode='per_sample' for wider features."
            )
        rate = self.learning_rate
        if not (rate is None or rate == FROM_NETWORK or (isinstance(rate, (int, float)) and 0 < rate < math.inf)):
            raise ValueError(f"Expected `learning_rate` None, a positive float or 'network'. Received: {rate!r}")
        if not getattr(self.network, "built", False):
            raise ValueError("`network` has no weights yet. Give it a `keras.Input`, or call it once.")
        if not hasattr(self.network, "input_shape"):
            raise ValueError(
                "`network` must be a Sequential or functional Keras model. "
                f"Received: {type(self.network).__name__}, whose widths and configuration Keras does not know."
            )
        outputs = 2 if rate == FROM_NETWORK else 1
        expected = (sum(widths), outputs)
        received = (self.network.input_shape[-1], self.network.output_shape[-1])
        if received != expected:
            raise ValueError(
                f"`network` must map {expected[0]} inputs (the widths of {self.features}) to {outputs} output(s) with "
                f"learning_rate={rate!r}. Received a network from {received[0]} to {received[1]}."
            )
        scale = self.input_scale
        if scale is not None and (len(scale) != sum(widths) or any(not 0 < value < math.inf for value in scale)):
            raise ValueError(
                f"`input_scale` needs one positive finite divisor for each of the {sum(widths)} network inputs. "
                f"Received: input_scale={scale}"
            )

    def _check_shapes(self, y_true, y_pred):
        """Raises where Keras would broadcast; returns the two tensors."""
        names = list(self.features)
        pred_width, true_width = self.features[names[0]], sum(self.features[name] for name in names[1:])
        shapes = f"y_true {tuple(y_true.shape)}, y_pred {tuple(y_pred.shape)}"
        if self.mode == PER_OUTPUT:
            if y_true.shape[-1] != y_pred.shape[-1]:
                raise ValueError(
                    "A per-output loss needs as many targets as predictions on the last axis (one-hot labels, not "
                    f"indices). Received: {shapes}."
                )
        elif y_pred.shape[-1] != pred_width or y_true.shape[-1] != true_width:
            raise ValueError(
                f"The last axes must have the widths of this loss's features {self.features}: {true_width} for y_true "
                f"({', '.join(names[1:])}, side by side) and {pred_width} for y_pred. Received: {shapes}."
            )
        pairs = list(zip(y_true.shape[:-1], y_pred.shape[:-1], strict=False))
        if len(y_true.shape) != len(y_pred.shape) or any(a is not None and b is not None and a != b for a, b in pairs):
            raise ValueError(f"y_true and y_pred must describe the same examples. Received: {shapes}.")
        if any(size == 0 for pair in pairs for size in pair):
            raise ValueError(f"The batch is empty: a loss needs at least one example. Received: {shapes}.")
        return y_true, y_pred


def _with_width(values, dtype):
    """`values` in `dtype` with a feature axis: `[batch]` becomes `[batch, 1]`, as Keras does for targets."""
    values = ops.convert_to_tensor(values, dtype=dtype)
    if len(values.shape) == 0:
        raise ValueError("A loss scores batches: expected shape [batch, width]. Received a scalar.")
    return ops.expand_dims(values, -1) if len(values.shape) == 1 else values
