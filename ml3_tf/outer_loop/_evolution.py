"""Evolution strategies: an estimate of the meta-gradient that needs no derivative of the learners' training."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from ml3_tf.arguments import check_counts


@dataclasses.dataclass(frozen=True)
class EvolutionStrategies:
    """Estimates the meta-gradient by trying out perturbed losses: the `estimator` of `MetaTrainer`.

    Each task is learned by pairs of learners, which start alike. Their losses are `phi + stddev epsilon` and
    `phi - stddev epsilon`, with an epsilon of their own for their whole life, and the task losses L of all pairs give::

        g = mean over pairs of (L_plus - L_minus) epsilon / (2 stddev)

    This is the gradient of the task loss averaged over such perturbations, so it sees past ridges where a gradient
    explodes. It takes steps of first order alone, its memory does not grow with their number, and neither the inner
    optimizer nor the task loss needs a derivative. It is noisy: use it for long lives, where a gradient is cut short or
    explodes, with tens of pairs in a batch, and a decaying outer rate.

    A pair of which one learner diverged says nothing, and is left out.

    Args:
        stddev: Standard deviation of the perturbations of phi.
        num_pairs: Number of pairs for each task. More tasks in a batch do as well.

    Raises:
        ValueError: `stddev` or `num_pairs` is not positive.

    Example:

    >>> import keras, ml3_tf
    >>> build = lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
    >>> trainer = ml3_tf.MetaTrainer(
    ...     build, ml3_tf.MetaLoss.mlp(), inner_steps=20, estimator=ml3_tf.EvolutionStrategies(stddev=0.02)
    ... )
    >>> trainer.compile(keras.optimizers.Adam(1e-2), loss="mse", inner_optimizer=keras.optimizers.SGD(0.01))
    >>> history = trainer.fit(ml3_tf.sine_tasks(num_tasks=16), steps_per_epoch=1, verbose=0)

    Source: antithetic evolution strategies of Salimans et al., "Evolution Strategies as a Scalable Alternative to
    Reinforcement Learning" (2017); one perturbation for a whole life after Vicol et al., "Low-Variance Gradient
    Estimation in Unrolled Computation Graphs with ES-Single" (2023).
    """

    stddev: float = 0.02
    num_pairs: int = 1

    def __post_init__(self) -> None:
        check_counts(num_pairs=self.num_pairs)
        if not 0 < self.stddev < math.inf:
            raise ValueError(f"`stddev` must be a positive finite number. Received: stddev={self.stddev}")

    def pair(self, values: Any) -> Any:
        """Returns a structure of tensors `[M, ...]` twice, `[2 M, ...]`: first all "plus", then all "minus"."""
        return tf.nest.map_structure(lambda rows: tf.concat([rows, rows], axis=0), values)

    def repeat(self, values: Any) -> Any:
        """Returns a structure of tensors `[N, ...]` once for each pair of each task, `[N * num_pairs, ...]`."""
        return tf.nest.map_structure(lambda rows: tf.concat([rows] * self.num_pairs, axis=0), values)

    def perturb(self, variables: Sequence[keras.Variable], count: int, seeds: Any) -> list[tf.Tensor]:
        """Draws perturbations of `count` pairs, `[2 count, ...]` for each variable: all "plus", then all "minus"."""
        draw = lambda v: keras.random.normal((count, *v.shape), stddev=self.stddev, dtype=v.dtype, seed=seeds)
        return [tf.concat([rows, -rows], axis=0) for rows in map(draw, variables)]

    def estimate(self, perturbation: Sequence[tf.Tensor], losses: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Returns the gradient for each variable, and the mean loss.

        Args:
            perturbation: List of `[2 M, ...]`: those "plus", then those "minus".
            losses: `[2 M]`, the task losses.
        """
        plus, minus = tf.split(losses, 2)
        is_known = tf.math.is_finite(plus) & tf.math.is_finite(minus)
        # Where no pair is known, this is NaN, which the guard of the outer loop reports.
        weights = tf.cast(is_known, losses.dtype) / tf.cast(tf.math.count_nonzero(is_known), losses.dtype)
        mean = lambda values: tf.tensordot(weights, tf.where(is_known, values, 0.0), 1)
        slopes = weights * tf.where(is_known, (plus - minus) / 2, 0.0) / self.stddev**2
        gradients = [tf.tensordot(tf.cast(slopes, rows.dtype), tf.split(rows, 2)[0], 1) for rows in perturbation]
        return gradients, mean((plus + minus) / 2)
