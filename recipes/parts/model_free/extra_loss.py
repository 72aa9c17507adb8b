"""The part of the task loss that is added to eq. 8 by the recipes that reach goals by experience alone."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ml3_tf import MetaLoss
from ml3_tf.rl import ModelFreeTrainer
from parts.model_free.settings import ModelFreeSettings


def make_extra_loss(
    trainer: ModelFreeTrainer,
    settings: ModelFreeSettings,
    guide: Callable[[tf.Tensor], tf.Tensor] | None,
    for_robots: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> Callable[[Any, Any], tf.Tensor]:
    """Returns the part of the task loss that is added to eq. 8 (eq. 9).

    It weighs means beyond the limits of the actions and, with a guide, the gap to its means: after a step, and ahead.
    The effect of a step on the means tells little about the loss: early steps count most, and Adam hides how
    long they were. So the slopes that the loss gives to means are compared, too, with those of half the squared gap.
    A guide's means run far beyond the limits of the actions, where all act alike: they are clipped.
    """
    size, limit = trainer.action_size, settings.guide_limit

    def extra_loss(parameters: Any, batch: Any) -> tf.Tensor:
        losses = settings.excess_weight * trainer.action_excess(parameters, batch)
        if guide is None:
            return losses

        def compute_gaps(outputs: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
            wanted = for_robots(guide(x)[..., :size], batch["tasks"]["state"][:, 0])
            return outputs[..., :size] - tf.stop_gradient(tf.clip_by_value(wanted, -limit, limit))

        x, _, sample_weight = batch["query"]
        gaps = compute_gaps(trainer.inner_loop.predict(parameters, x), x)
        x, y, support_weight = (tf.concat(parts, 1) for parts in zip(*batch["support"]))
        outputs = tf.stop_gradient(trainer.inner_loop.predict(parameters, x))
        slope_gaps = slopes(trainer.meta_loss, y, outputs)[..., :size] - compute_gaps(outputs, x)
        lacking = _mean_square(gaps, sample_weight) + _mean_square(slope_gaps, support_weight)
        return losses + settings.guide_weight * lacking

    return extra_loss


def slopes(meta_loss: MetaLoss, y_true: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Returns `dM/d output` of each example, `[..., 2A]`; the loss pushes an output against its slope."""
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        flat = (tf.reshape(values, [-1, values.shape[-1]]) for values in (y_true, outputs))
        total = tf.reduce_sum(meta_loss.call(*flat))
    return tape.gradient(total, outputs)


def _mean_square(gaps: tf.Tensor, sample_weight: tf.Tensor) -> tf.Tensor:
    """Of `[N, B, A]`, for each task: the mean over actions, weighted over examples."""
    squares = tf.reduce_mean(tf.square(gaps), -1)
    return tf.reduce_sum(sample_weight * squares, 1) / tf.reduce_sum(sample_weight, 1)
