"""A loss function that is a Keras network."""

import functools
import math

import keras
from keras import ops

from ml3_tf import layout
from ml3_tf.example_sets import WithCall, pool, weights_of_examples
from ml3_tf.layout import FROM_NETWORK, PER_OUTPUT, PER_SAMPLE, PER_SET


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
    model with ten. `"per_set"` scores all examples together, see below.

    **Sets.** Where a single example says too little about which way to go, a per-set loss looks at all: `network`
    gives learned features of each example, their mean over the set goes through `score_network`, and every example
    receives that one score. The set is the second-to-last axis of `y_pred`: a batch in `fit`, the examples of each
    task in meta-training (with `tf.distribute`, those of one replica). Sample weights and masks weigh the mean too, so
    that an example of weight zero leaves the set. What it has learned holds for sets like those it was learned on:
    train on full batches, or on batches about as large, and expect extrapolation, to examples that lie elsewhere or
    are fewer, to cost accuracy. A server must not put the requests of several clients into one batch, which would be
    one set.

    **Learned learning rate.** A learned loss may scale itself, and thereby the step of whoever minimises it. With
    `learning_rate=0.1` the loss is multiplied by a positive scalar that starts at .1 and is learned with the network.
    With `learning_rate="network"` the network has a second output whose softplus is the rate of each example; no
    gradient flows from the rate to `y_pred`, so it scales a step and never bends it. Where meta-training unrolls
    several steps, the meta-gradient leaves out how earlier steps moved the rates of later ones.

    Args:
        network: Built Keras model, `[batch, width of all features] -> [batch, 1]` (`[batch, 2]` with
            `learning_rate="network"`), or `-> [batch, number of learned features]` in mode `"per_set"`. It should be
            smooth in its inputs (see `MetaLoss.mlp`).
        mode: `"per_sample"`, `"per_output"` or `"per_set"`.
        features: Mapping from feature name to width. The first is the prediction, the others are the slices of
            `y_true`, in order. `"per_output"` takes two features of width 1.
        input_scale: Optional sequence with one positive divisor per network input, e.g. the spread of a velocity.
        learning_rate: `None`, a positive float, or `"network"`; see above.
        reduction: As in every Keras loss.
        name: Optional name.
        dtype: As in every Keras loss: the dtype in which `y_true` and `y_pred` arrive at the network.
        score_network: In mode `"per_set"` alone, the built Keras model that maps the pooled learned features to the
            score, `-> [batch, 1]` (`[batch, 2]` with `learning_rate="network"`).

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
        score_network=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.network = network
        self.score_network = score_network
        self.mode = mode
        self.features = {"y_pred": 1, "y_true": 1} if features is None else dict(features)
        self.input_scale = None if input_scale is None else [float(scale) for scale in input_scale]
        self.learning_rate = learning_rate
        layout.check(self)
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
        score_units=(40,),
        **kwargs,
    ):
        """Returns a `MetaLoss` around a fully connected network; the defaults are the paper's two layers of 40.

        A learner is moved by the *gradient* of the loss, and the loss is trained by the gradient of that gradient. A
        piecewise linear activation (ReLU) makes the first a step function of the prediction and its derivative zero
        almost everywhere, which leaves flat regions where nothing is learned; hence the smooth default. The last layer
        has no bias: a constant added to a loss moves no learner.

        In mode `"per_set"` the last hidden layer is what is pooled, and a second network of `score_units` follows.

        Args:
            hidden_units: Widths of the hidden layers.
            activation: Activation of the hidden layers.
            output_activation: Activation of the output, e.g. `"softplus"` for a loss that is never negative.
            output_initializer: Initializer of the last layer. Small values start from a loss that moves nobody: where
                many inner steps are differentiated through, a random loss makes learners diverge before anything is
                learned.
            features: Feature layout, see `MetaLoss`.
            dtype: Dtype of the loss and of the network.
            score_units: Widths of the hidden layers behind the pooling; mode `"per_set"` alone.
            **kwargs: Further arguments of `MetaLoss`.

        Returns:
            A `MetaLoss`.

        Example:

        >>> MetaLoss.mlp(features={"y_pred": 2, "state": 4, "goal": 2}).network.input_shape
        (None, 8)
        """
        widths = {"y_pred": 1, "y_true": 1} if features is None else features
        outputs = 2 if kwargs.get("learning_rate") == FROM_NETWORK else 1
        dtype = dtype or keras.config.floatx()
        dense = functools.partial(keras.layers.Dense, dtype=dtype)

        def chain(num_inputs, units, last):
            hidden = [dense(number, activation=activation) for number in units]
            return keras.Sequential([keras.Input((num_inputs,), dtype=dtype), *hidden, *last])

        output = dense(outputs, output_activation, use_bias=False, kernel_initializer=output_initializer)
        if kwargs.get("mode") != PER_SET:
            network = chain(sum(widths.values()), hidden_units, [output])
            return cls(network, features=features, dtype=dtype, **kwargs)
        if not hidden_units:
            raise ValueError(
                "A per-set loss pools the outputs of its last hidden layer: expected at least one width in "
                f"`hidden_units`. Received: hidden_units={hidden_units}"
            )
        network = chain(sum(widths.values()), hidden_units, [])
        score_network = chain(hidden_units[-1], score_units, [output])
        return cls(network, features=features, dtype=dtype, score_network=score_network, **kwargs)

    @property
    def layers(self):
        """What holds the weights: the network, the score network of a per-set loss, and the scalar rate if any."""
        return [layer for layer in (self.network, self.score_network, self.learned_rate) if layer is not None]

    @property
    def trainable_variables(self):
        """The variables phi that meta-training moves: those of the networks, then the scalar rate if there is one."""
        return [variable for layer in self.layers for variable in layer.trainable_variables]

    @property
    def pools_examples(self):
        """Whether the value of an example depends on the others, and on the weights that they have."""
        return self.mode == PER_SET

    def __call__(self, y_true, y_pred, sample_weight=None):
        """The reduced loss, as Keras computes it; a per-set loss weighs the examples of its sets in `call` as well."""
        if not self.pools_examples:
            return super().__call__(y_true, y_pred, sample_weight)
        mask = getattr(y_pred, "_keras_mask", None)  # where Keras keeps it
        rows = layout.with_width(y_pred, self.dtype)
        weights = weights_of_examples(rows, sample_weight, mask)
        call = functools.partial(self.call, sample_weight=weights)
        return WithCall(call, name=self.name, reduction=self.reduction, dtype=self.dtype)(y_true, y_pred, sample_weight)

    def call(self, y_true, y_pred, sample_weight=None):
        """Returns one value per example.

        Args:
            y_true: `[..., width]`, everything but the prediction, in the order of `features`.
            y_pred: `[..., width]`, the prediction.
            sample_weight: Optional `[...]`, how much each example counts in its set. Read in mode `"per_set"` alone:
                elsewhere weights multiply the values, which is left to Keras.

        Returns:
            `[...]`, the loss of each example.
        """
        y_true, y_pred = layout.with_width(y_true, self.dtype), layout.with_width(y_pred, self.dtype)
        layout.check_shapes(self, y_true, y_pred)
        if self.mode == PER_OUTPUT:
            return ops.mean(self._score(ops.stack([y_pred, y_true], axis=-1)), axis=-1)
        inputs = ops.concatenate([y_pred, y_true], axis=-1)
        if self.mode == PER_SAMPLE:
            return self._score(inputs)
        scores = self._score(inputs, weights_of_examples(y_pred, sample_weight))
        return ops.broadcast_to(ops.expand_dims(scores, -1), ops.shape(inputs)[:-1])

    def _score(self, inputs, weights=None):
        """M_phi of each feature vector, or of each set of them, times the learned rate: `[..., F] -> [...]`."""
        if self.input_scale is not None:
            inputs = inputs / ops.convert_to_tensor(self.input_scale, dtype=inputs.dtype)
        values = self._apply_networks(inputs, weights)[..., 0]
        if self.learning_rate == FROM_NETWORK:
            return values * ops.softplus(self._apply_networks(ops.stop_gradient(inputs), weights)[..., 1])
        return self.learned_rate(values) if self.learned_rate is not None else values

    def _apply_networks(self, inputs, weights):
        """`[..., F] -> [..., outputs]`; per set `[..., B, F] -> [..., outputs]`."""
        outputs = _apply_to_rows(self.network, inputs)
        if self.score_network is None:
            return outputs
        return _apply_to_rows(self.score_network, pool(outputs, weights))

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
            "score_network": self.score_network and keras.saving.serialize_keras_object(self.score_network),
        }

    @classmethod
    def from_config(cls, config):
        names = ("network", "score_network")
        networks = {name: keras.saving.deserialize_keras_object(config[name]) for name in names if config.get(name)}
        return cls(**{**config, **networks})


def _apply_to_rows(network, inputs):
    """A network of `[batch, width]`, applied to `[..., width]`."""
    rank = len(inputs.shape)
    rows = inputs if rank == 2 else ops.reshape(inputs, (-1, inputs.shape[-1]))
    outputs = network(rows)
    return outputs if rank == 2 else ops.reshape(outputs, (*ops.shape(inputs)[:-1], outputs.shape[-1]))
