"""How a model of `adapt.py` is trained on one table, the same way in every arm.

Compiling takes five times as long as training here. So one `Trainer` trains on table after table: it pads the features
with zeros, which change nothing, and starts each time from fresh weights and fresh optimizers, as a new model would.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import ml3_tf
from ml3_tf.bench.tables import META_SHARE, MOST_ROWS, TEST_SHARE, Parts, Rows
from parts.adapt.scoring import Score, balanced_weights, measure

NUM_FEATURES = 64  # at most; the others are zero
NUM_UNITS = 64
BATCH_SIZE = 64
CHECKED_STEPS = 100  # the test rows are scored after so many
EVERY = 10  # steps from one move of the loss to the next
OUTER_BATCH_SIZE = 128
META_ROWS = round(META_SHARE * MOST_ROWS)  # `AdaptLoss` sees rows repeated up to these numbers
TRAIN_ROWS = round((1 - TEST_SHARE) * MOST_ROWS) - META_ROWS

OPTIMIZERS: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "muon": lambda: keras.optimizers.Muon(exclude_layers=["output"]),  # Adam there, and for biases
}


class Choice(NamedTuple):
    """What is tuned for an arm."""

    rate: float
    """Rate of the optimizer."""
    parameter: float
    """Rate of the Adam that moves the loss, or the parameter of a robust loss; 0 where there is none."""
    num_steps: int
    """Number of gradient steps."""


class Trainer:
    """Trains models with one number of outputs, in one arm, on one table after the other.

    Args:
        setting: Name of the setting.
        arm: `"base"`, `"adapt"` or `"robust"`.
        optimizer: A key of `OPTIMIZERS`.
        num_outputs: Number of classes; 1 for regression.
        parameter: Parameter of a robust loss.
        seed: Determines the first learned loss, and the draws of `AdaptLoss`.
    """

    def __init__(self, setting: str, arm: str, optimizer: str, num_outputs: int, parameter: float, seed: int) -> None:
        keras.utils.set_random_seed(seed)
        self.setting, self.arm = setting, arm
        loss = build_loss(setting, arm, num_outputs, parameter)
        self.model = keras.Sequential(
            [
                keras.Input((NUM_FEATURES,)),
                keras.layers.Dense(NUM_UNITS, "relu"),
                keras.layers.Dense(num_outputs, None if num_outputs == 1 else "softmax", name="output"),
            ]
        )
        self.model.compile(OPTIMIZERS[optimizer](), loss=loss, steps_per_execution=EVERY)
        self.model.optimizer.build(self.model.trainable_variables)
        self.adapt = self._build_adapt(num_outputs, seed) if arm == "adapt" else None
        variables = list(self.model.optimizer.variables)
        if self.adapt is not None:
            self.adapt.optimizer.build(loss.trainable_variables)
            variables += [*loss.trainable_variables, *self.adapt.optimizer.variables]
        self._first = [(variable, np.array(variable)) for variable in variables]

    def _build_adapt(self, num_outputs: int, seed: int) -> ml3_tf.AdaptLoss:
        """Returns the callback, with arrays that `fit` fills with the rows of a table."""
        train, meta = (
            (np.zeros((number, NUM_FEATURES), "float32"), np.zeros((number, num_outputs), "float32"))
            for number in (TRAIN_ROWS, META_ROWS)
        )
        weights = (np.zeros(META_ROWS, "float32"),) if self.setting == "imbalance" else ()
        return ml3_tf.AdaptLoss(
            train,
            (*meta, *weights),
            loss=base_loss(num_outputs),
            optimizer=keras.optimizers.Adam(),
            every=EVERY,
            batch_size=OUTER_BATCH_SIZE,
            seed=seed,
        )

    def fit(self, parts: Parts, choice: Choice, seed: int) -> list[Score]:
        """Trains a new model on the rows that train and on the meta rows; returns its score after each 100 steps."""
        rows, test, scores = parts.train.join(parts.meta), pad(parts.test.x), []
        for variable, value in self._first:
            variable.assign(value)
        self.model.set_weights(fresh_weights(rows, seed))
        self.model.optimizer.learning_rate = choice.rate
        check = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: scores.append(
                measure(self.setting, parts, self.model(test, training=False).numpy())
            )
        )
        callbacks = [check]
        if self.adapt is not None:
            self._show(parts)
            self.adapt.optimizer.learning_rate = choice.parameter
            callbacks.append(self.adapt)
        weighted = self.arm == "robust" and self.setting == "imbalance"
        self.model.fit(
            draw_batches(rows, balanced_weights(rows.y) if weighted else None, choice.num_steps, seed),
            epochs=choice.num_steps // CHECKED_STEPS,
            steps_per_epoch=CHECKED_STEPS,
            callbacks=callbacks,
            shuffle=False,  # it is
            verbose=0,
        )
        return scores

    def _show(self, parts: Parts) -> None:
        """Fills the arrays of `AdaptLoss` with the rows of a table, repeated as often as there is room."""
        weights = (balanced_weights(parts.meta.y),) if self.setting == "imbalance" else ()
        values = (pad(parts.train.x), parts.train.y, pad(parts.meta.x), parts.meta.y, *weights)
        for array, filled in zip((*self.adapt.train, *self.adapt.meta), values, strict=True):
            array[:] = filled[np.arange(len(array)) % len(filled)]
        self.adapt.snapshots.clear()


def base_loss(num_outputs: int) -> str:
    return "mse" if num_outputs == 1 else "categorical_crossentropy"


def build_loss(setting: str, arm: str, num_outputs: int, parameter: float) -> Any:
    """Returns what the model is compiled with; class weights are weights of the rows."""
    base = base_loss(num_outputs)
    if arm == "adapt" and setting == "imbalance":  # classes differ: the loss sees all of them at once
        return ml3_tf.MetaLoss.around(base, features={"y_pred": num_outputs, "y_true": num_outputs})
    if arm == "adapt":
        return ml3_tf.MetaLoss.around(base, mode="per_output")
    if arm == "robust" and setting == "outliers":
        return keras.losses.Huber(delta=parameter)
    if arm == "robust" and setting == "label_noise":
        generalized = keras.losses.CategoricalGeneralizedCrossEntropy(q=parameter)
        return ml3_tf.MetaLoss.around(generalized, mode="per_output")  # it stays so; Keras's takes class indices alone
    return base


def fresh_weights(rows: Rows, seed: int) -> list[np.ndarray]:
    """Returns Keras's own first weights for the true number of features, padded."""
    num_features, num_outputs = rows.x.shape[1], rows.y.shape[1]
    hidden, output = (
        np.array(keras.initializers.GlorotUniform(seed=2 * seed + layer)(shape))
        for layer, shape in enumerate([(num_features, NUM_UNITS), (NUM_UNITS, num_outputs)])
    )
    hidden = np.pad(hidden, ((0, NUM_FEATURES - num_features), (0, 0)))
    return [hidden, np.zeros(NUM_UNITS), output, np.zeros(num_outputs)]


def pad(x: np.ndarray) -> np.ndarray:
    """Adds features that are zero."""
    return np.pad(x, ((0, 0), (0, NUM_FEATURES - x.shape[1])))


def draw_batches(rows: Rows, weights: np.ndarray | None, num_steps: int, seed: int) -> tf.data.Dataset:
    """Returns the batches of a fit: all rows in a new order, again and again."""
    generator, size = np.random.default_rng([seed, 1]), len(rows.x)
    passes = -(-num_steps * BATCH_SIZE // size)
    order = np.concatenate([generator.permutation(size) for _ in range(passes)])[: num_steps * BATCH_SIZE]
    arrays = (pad(rows.x), rows.y) if weights is None else (pad(rows.x), rows.y, weights)
    return tf.data.Dataset.from_tensor_slices(
        tuple(values[order].reshape(num_steps, BATCH_SIZE, *values.shape[1:]) for values in arrays)
    )
