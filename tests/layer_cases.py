"""A learner for each layer of Keras, and its meta-gradient beside that of finite differences, in float64."""

import re

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from ml3_tf import MetaLoss
from ml3_tf.inner_loop import InnerLoop
from ml3_tf.learner import Learner

STEP = 1e-6
IMAGE, SEQUENCE, VECTOR, WORDS = (6, 6, 4), (5, 4), (4,), (5,)
NUM_WORDS = 7
SMOOTH = {"activation": "tanh"}
LAYERS = {
    "BatchNormalization": (VECTOR, lambda: layers.BatchNormalization(momentum=0.5)),
    "BatchNormalization of images": (IMAGE, layers.BatchNormalization),
    "GroupNormalization": (IMAGE, lambda: layers.GroupNormalization(2)),
    "LayerNormalization": (VECTOR, layers.LayerNormalization),
    "LayerNormalization of images": (IMAGE, lambda: layers.LayerNormalization(axis=[1, 2])),
    "RMSNormalization": (VECTOR, layers.RMSNormalization),
    "UnitNormalization": (VECTOR, layers.UnitNormalization),
    "Dense": (VECTOR, lambda: layers.Dense(3, **SMOOTH)),
    "EinsumDense": (SEQUENCE, lambda: layers.EinsumDense("abc,cd->abd", output_shape=(5, 3), **SMOOTH)),
    "PReLU": (VECTOR, layers.PReLU),
    "Embedding": (WORDS, lambda: layers.Embedding(NUM_WORDS, 3)),
    "Embedding with a mask": (WORDS, lambda: pooled(layers.Embedding(NUM_WORDS, 3, mask_zero=True))),
    "MultiHeadAttention": (SEQUENCE, lambda: with_itself(layers.MultiHeadAttention(2, 2))),
    "GroupQueryAttention": (SEQUENCE, lambda: with_itself(layers.GroupQueryAttention(2, 2, 1))),
    "Attention": (SEQUENCE, lambda: side_by_side(layers.Attention(use_scale=True))),
    "AdditiveAttention": (SEQUENCE, lambda: side_by_side(layers.AdditiveAttention())),
    "Add": (VECTOR, lambda: side_by_side(layers.Add())),
    "Multiply": (VECTOR, lambda: side_by_side(layers.Multiply())),
    "Maximum": (VECTOR, lambda: beside_its_negative(layers.Maximum())),
    "Average": (VECTOR, lambda: side_by_side(layers.Average())),
    "Concatenate": (VECTOR, lambda: side_by_side(layers.Concatenate())),
    "Dot": (SEQUENCE, lambda: side_by_side(layers.Dot(axes=2))),
    "Dropout": (VECTOR, lambda: layers.Dropout(0.3, seed=0)),
    "SpatialDropout1D": (SEQUENCE, lambda: layers.SpatialDropout1D(0.3, seed=0)),
    "AlphaDropout": (VECTOR, lambda: layers.AlphaDropout(0.3, seed=0)),
    "GaussianNoise": (VECTOR, lambda: layers.GaussianNoise(0.3, seed=0)),
    "GaussianDropout": (VECTOR, lambda: layers.GaussianDropout(0.3, seed=0)),
    "Conv3D": ((4, 4, 4, 2), lambda: layers.Conv3D(2, 2, **SMOOTH)),
    "DepthwiseConv1D": (SEQUENCE, lambda: layers.DepthwiseConv1D(2, **SMOOTH)),
    "Conv1DTranspose": (SEQUENCE, lambda: layers.Conv1DTranspose(2, 2, **SMOOTH)),
    "MaxPooling1D": (SEQUENCE, lambda: layers.MaxPooling1D(2)),
    "GlobalMaxPooling1D": (SEQUENCE, layers.GlobalMaxPooling1D),
    "Reshape": (SEQUENCE, lambda: layers.Reshape((2, 10))),
    "LSTM of sequences": (SEQUENCE, lambda: layers.LSTM(3, return_sequences=True)),
    "GRU that is unrolled": (SEQUENCE, lambda: layers.GRU(3, unroll=True)),
    "RNN of two cells": (SEQUENCE, lambda: layers.RNN([layers.GRUCell(2), layers.LSTMCell(2)])),
    "ConvLSTM1D": ((3, 4, 2), lambda: layers.ConvLSTM1D(2, 2)),
    "Conv1D": (SEQUENCE, lambda: layers.Conv1D(3, 2, **SMOOTH)),
    "Conv2D": (IMAGE, lambda: layers.Conv2D(3, 3, **SMOOTH)),
    "DepthwiseConv2D": (IMAGE, lambda: layers.DepthwiseConv2D(3, **SMOOTH)),
    "SeparableConv2D": (IMAGE, lambda: layers.SeparableConv2D(3, 3, **SMOOTH)),
    "Conv2DTranspose": (IMAGE, lambda: layers.Conv2DTranspose(2, 2, strides=2, **SMOOTH)),
    "AveragePooling2D": (IMAGE, lambda: layers.AveragePooling2D(2)),
    "MaxPooling2D": (IMAGE, lambda: layers.MaxPooling2D(2)),
    "GlobalAveragePooling2D": (IMAGE, layers.GlobalAveragePooling2D),
    "UpSampling2D": (IMAGE, lambda: layers.UpSampling2D(2)),
    "ZeroPadding2D": (IMAGE, lambda: layers.ZeroPadding2D(1)),
    "Cropping2D": (IMAGE, lambda: layers.Cropping2D(1)),
    "LSTM": (SEQUENCE, lambda: layers.LSTM(3)),
    "GRU": (SEQUENCE, lambda: layers.GRU(3)),
    "SimpleRNN": (SEQUENCE, lambda: layers.SimpleRNN(3)),
    "Bidirectional": (SEQUENCE, lambda: layers.Bidirectional(layers.GRU(2))),
    "TimeDistributed": (SEQUENCE, lambda: layers.TimeDistributed(layers.Dense(2, **SMOOTH))),
    "Permute": (SEQUENCE, lambda: layers.Permute((2, 1))),
    "RepeatVector": (VECTOR, lambda: layers.RepeatVector(3)),
    "Softmax": (VECTOR, layers.Softmax),
    "regularizers": (VECTOR, lambda: layers.Dense(3, kernel_regularizer="l2", activity_regularizer="l2", **SMOOTH)),
}


VOLUME = (4, 4, 4, 2)
# The others, by `make test-long` alone.
FURTHER_LAYERS = {
    "Subtract": (VECTOR, lambda: side_by_side(layers.Subtract())),
    "Minimum": (VECTOR, lambda: beside_its_negative(layers.Minimum())),
    "ELU": (VECTOR, layers.ELU),
    "LeakyReLU": (VECTOR, layers.LeakyReLU),
    "ReLU": (VECTOR, layers.ReLU),
    "Identity": (VECTOR, layers.Identity),
    "Lambda": (VECTOR, lambda: layers.Lambda(lambda values: values**2)),
    "Rescaling": (VECTOR, lambda: layers.Rescaling(2.0, 0.1)),
    "Normalization": (VECTOR, lambda: layers.Normalization(mean=0.2, variance=2.0)),
    "ActivityRegularization": (VECTOR, lambda: layers.ActivityRegularization(l2=0.1)),
    "Masking": (SEQUENCE, lambda: lambda values: layers.GRU(3)(layers.Masking(0.0)(values))),
    "ReversibleEmbedding": (WORDS, lambda: layers.ReversibleEmbedding(NUM_WORDS, 3)),
    "SeparableConv1D": (SEQUENCE, lambda: layers.SeparableConv1D(3, 2, **SMOOTH)),
    "Conv3DTranspose": (VOLUME, lambda: layers.Conv3DTranspose(2, 2, **SMOOTH)),
    "ConvLSTM2D": ((3, 4, 4, 2), lambda: layers.ConvLSTM2D(2, 2)),
    "ConvLSTM3D": ((2, 3, 3, 3, 2), lambda: layers.ConvLSTM3D(1, 2)),
    "AveragePooling1D": (SEQUENCE, lambda: layers.AveragePooling1D(2)),
    "AdaptiveAveragePooling1D": (SEQUENCE, lambda: layers.AdaptiveAveragePooling1D(2)),
    "AdaptiveAveragePooling2D": (IMAGE, lambda: layers.AdaptiveAveragePooling2D(2)),
    "AdaptiveMaxPooling1D": (SEQUENCE, lambda: layers.AdaptiveMaxPooling1D(2)),
    "AdaptiveMaxPooling2D": (IMAGE, lambda: layers.AdaptiveMaxPooling2D(2)),
    "GlobalAveragePooling3D": (VOLUME, layers.GlobalAveragePooling3D),
    "GlobalMaxPooling2D": (IMAGE, layers.GlobalMaxPooling2D),
    "GlobalMaxPooling3D": (VOLUME, layers.GlobalMaxPooling3D),
    "Cropping1D": (SEQUENCE, lambda: layers.Cropping1D(1)),
    "Cropping3D": (VOLUME, lambda: layers.Cropping3D(1)),
    "ZeroPadding1D": (SEQUENCE, lambda: layers.ZeroPadding1D(1)),
    "ZeroPadding3D": (VOLUME, lambda: layers.ZeroPadding3D(1)),
    "UpSampling1D": (SEQUENCE, lambda: layers.UpSampling1D(2)),
    "UpSampling3D": (VOLUME, lambda: layers.UpSampling3D(2)),
    "SpatialDropout2D": (IMAGE, lambda: layers.SpatialDropout2D(0.3, seed=0)),
    "SpatialDropout3D": (VOLUME, lambda: layers.SpatialDropout3D(0.3, seed=0)),
}
ALL_LAYERS = {**LAYERS, **FURTHER_LAYERS}
# What takes long to trace and to compile.
RECURRENT = [name for name in LAYERS if re.search("LSTM|GRU|RNN|Bidirectional", name)]


def build_learner(shape, layer):
    """A layer between two dense ones, so that its gradients depend on weights before and behind it."""
    inputs = keras.Input(shape, dtype="int32" if shape == WORDS else None)
    hidden = inputs if shape == WORDS else layers.Dense(shape[-1], "tanh")(inputs)
    hidden = layers.Activation("tanh")(layer()(hidden))
    return keras.Model(inputs, layers.Dense(1)(layers.Flatten()(hidden)))


def with_itself(layer):
    return lambda values: layer(values, values)


def side_by_side(layer):
    """The layer of two tensors: `values`, and what a dense layer makes of them."""
    return lambda values: layer([values, layers.Dense(values.shape[-1], "tanh")(values)])


def beside_its_negative(layer):
    return lambda values: layer([values, -values])


def pooled(layer):
    """The mean over what the layer has not masked."""
    return lambda values: layers.GlobalAveragePooling1D()(layer(values))


class Case:
    """Two tasks of learners with a layer, whose meta-gradient is taken in several ways."""

    def __init__(self, shape, layer, *, num_steps):
        keras.utils.set_random_seed(0)
        self._generator = np.random.default_rng(0)
        draw = self._generator
        x = draw.integers(0, NUM_WORDS, (2, 6, *shape)) if shape == WORDS else draw.normal(size=(2, 6, *shape))
        y = draw.normal(size=(2, 6, 1))
        meta_loss = MetaLoss.mlp((5,), activation="tanh")
        loop = InnerLoop(Learner(lambda: build_learner(shape, layer), seed=0), meta_loss, keras.optimizers.SGD(0.3))
        start = loop.start(2)
        support = lambda parameters, *_: (x, y)
        score = lambda learners: tf.reduce_mean((loop.predict(learners.parameters, x) - y) ** 2, axis=[1, 2])
        self.variables = meta_loss.trainable_variables
        self._differentiate = lambda: (
            loop.differentiate(start, support, score, num_steps=num_steps, variables=self.variables).gradients
        )
        self._total = lambda: tf.reduce_mean(score(loop.run(start, support, num_steps)))
        self.has_loop = loop.learner.has_loop

    def gradients(self, mode):
        """The meta-gradient: "eager", in a "graph", or by "XLA"."""
        if mode == "eager":
            return self._differentiate()
        return tf.function(self._differentiate, autograph=False, jit_compile=mode == "XLA")()

    def relative_error(self, gradients, *, mode="graph"):
        """The error of the derivative along a direction of phi, as a share of it.

        The direction is random, and uphill: along the slope, a derivative would be small, and its share large.
        """
        total = tf.function(self._total, autograph=False, jit_compile=mode == "XLA")
        length = float(tf.linalg.global_norm(gradients))
        directions = [self._generator.normal(size=g.shape) + 5 * np.asarray(g) / length for g in gradients]
        totals = []
        for step in (STEP, -2 * STEP, STEP):  # there and back, past the start
            for variable, direction in zip(self.variables, directions):
                variable.assign_add(step * direction)
            totals.append(float(total()))
        derivative = sum(float(tf.reduce_sum(g * d)) for g, d in zip(gradients, directions))
        return abs(derivative - (totals[0] - totals[1]) / (2 * STEP)) / abs(derivative)
