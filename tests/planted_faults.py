"""Trainers with planted faults, and some that are in good health."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from ml3_tf import MetaLoss, MetaTrainer, sine_tasks

NUM_TASKS = 3


def batch():
    """Three sines, each with 20 points to learn from and 20 others to be scored on."""
    x, y = next(iter(sine_tasks(num_tasks=NUM_TASKS, seed=0)))["support"]
    return {"support": (x[:, ::5], y[:, ::5]), "query": (x[:, 2::5], y[:, 2::5])}


def build_learner(*hidden):
    """A function that builds a small network; each of `hidden` makes a layer in its middle."""

    def build():
        middle = [make() for make in hidden]
        return keras.Sequential([keras.Input((1,)), layers.Dense(6, "tanh"), *middle, layers.Dense(1)])

    return build


def make_trainer(learner=None, *, rate=0.02, inner_steps=2, meta_loss=None, inner_optimizer=None, **kwargs):
    keras.utils.set_random_seed(0)
    meta_loss = MetaLoss.mlp((5,)) if meta_loss is None else meta_loss
    trainer = MetaTrainer(learner or build_learner(), meta_loss, inner_steps=inner_steps, seed=0, **kwargs)
    optimizer = keras.optimizers.SGD(rate) if inner_optimizer is None else inner_optimizer
    trainer.compile(keras.optimizers.Adam(1e-3), "mse", optimizer)
    return trainer


class Gated(layers.Layer):
    """A gate that passes no gradient."""

    def call(self, inputs):
        return inputs * tf.stop_gradient(tf.sigmoid(inputs))


class Standardized(layers.Layer):
    """TensorFlow's moments, whose second derivative is wrong."""

    def call(self, inputs):
        mean, variance = tf.nn.moments(inputs, [-1], keepdims=True)
        return (inputs - mean) / tf.sqrt(variance + 1e-3)


class InFloat32(layers.Layer):
    def call(self, inputs):
        return inputs * tf.constant(2.0)


def dead_relu():
    return layers.Dense(6, "relu", bias_initializer=keras.initializers.Constant(-100.0))


def dead_meta_loss():
    loss = MetaLoss.mlp((5,), activation="relu")
    loss.network.layers[0].bias.assign(np.full(5, -100.0))
    return loss


def with_constant_targets(batch):
    return {name: (x, tf.ones_like(y)) for name, (x, y) in batch.items()}


def with_queries_of_others(batch):
    return {**batch, "query": tuple(tf.roll(values, 1, axis=0) for values in batch["query"])}


same = lambda batch: batch
# Name -> a function that makes the trainer, another that changes the batch, and words of the findings.
FAULTS = {
    "stop_gradient": (
        lambda: make_trainer(build_learner(Gated)),
        same,
        ["Layer 'gated' .*first derivative is wrong", "The meta-gradient is wrong for "],
    ),
    "stop_gradient of all": (
        lambda: make_trainer(build_learner(lambda: layers.Lambda(tf.stop_gradient, name="stop"))),
        same,
        ["Layer 'stop' .*first derivative is missing"],
    ),
    "tf.nn.moments": (
        lambda: make_trainer(build_learner(Standardized)),
        same,
        ["Layer 'standardized' .*second derivative is wrong"],
    ),
    "dead network": (lambda: make_trainer(build_learner(dead_relu)), same, ["The learner's layer .* is dead"]),
    "dead meta-loss": (
        lambda: make_trainer(meta_loss=dead_meta_loss()),
        same,
        ["The meta-loss's layer .* is dead", "There is no meta-gradient"],
    ),
    "inner rate of 1e-9": (lambda: make_trainer(rate=1e-9), same, ["The learners hardly move"]),
    "exploding unroll": (
        lambda: make_trainer(rate=1.0, inner_steps=6, meta_loss=MetaLoss.around("mse")),
        same,
        ["The meta-gradient explodes"],
    ),
    "constant targets": (make_trainer, with_constant_targets, ["targets of the support and the query are constant"]),
    "query of another task": (
        make_trainer,
        with_queries_of_others,
        ["The query does not belong to the task of the support"],
    ),
}
HEALTHY = {
    "a network": make_trainer,
    "ReLU": lambda: make_trainer(build_learner(lambda: layers.Dense(6, "relu"))),
    "batch normalization": lambda: make_trainer(build_learner(layers.BatchNormalization)),
    "a base and Adam": lambda: make_trainer(
        meta_loss=MetaLoss.around("mse", learning_rate=1.0), inner_optimizer=keras.optimizers.Adam(0.01), inner_steps=4
    ),
}
