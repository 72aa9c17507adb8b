"""What a step of meta-training minimizes: which loss, at which steps of the learners, and on which scale."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import tensorflow as tf

from ml3_tf.arguments import LossesLike, check_counts

SMALLEST = 1e-12  # keeps the logarithm of an error of zero finite


@dataclasses.dataclass(frozen=True)
class TaskLoss:
    """The task loss `L_T` of `MetaTrainer.compile`, where it is more than the loss of the trained learner.

    Args:
        loss: The loss itself: a Keras loss, its name or a function, as `compile` takes it. With `EvolutionStrategies`
            it needs no derivative: the share of errors will do.
        at: When it is taken. "end": after the last of the steps that the outer gradient flows through. "mean": after
            each of them, and the mean counts. Numbers of steps, such as `(100, 300, 1000)`: whenever a learner has
            taken so many since it was fresh; each counts as one part of so many.
        logarithm: Whether the logarithm of the loss of each task counts. Where errors span decades, it weighs all tasks
            and steps alike; without it the hardest tasks decide.

    Raises:
        ValueError: `at` is neither.

    Example:

    >>> import keras, ml3_tf
    >>> build = lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
    >>> trainer = ml3_tf.MetaTrainer(build, ml3_tf.MetaLoss.mlp(), inner_steps=20)
    >>> trainer.compile(loss=ml3_tf.TaskLoss("mse", at=(5, 10, 20), logarithm=True))
    >>> history = trainer.fit(ml3_tf.sine_tasks(), steps_per_epoch=1, verbose=0)
    """

    loss: LossesLike
    at: Literal["end", "mean"] | Sequence[int] = "end"
    logarithm: bool = False

    def __post_init__(self) -> None:
        if self.at in ("end", "mean"):
            return
        if isinstance(self.at, str) or not isinstance(self.at, Sequence) or not self.at:
            raise ValueError(
                f"`at` must be 'end', 'mean' or numbers of steps such as (100, 300, 1000). Received: at={self.at!r}"
            )
        for number in self.at:
            check_counts(at=number)

    def check_reachable(self, num_steps: int) -> None:
        """Raises `ValueError` if no learner takes so many steps as `at` names."""
        if self.at not in ("end", "mean") and max(self.at) > num_steps:
            raise ValueError(
                f"The task loss is taken after {max(self.at)} steps, but a learner lives for {num_steps}. Expected "
                f"numbers up to that in `at`. Received: at={self.at}"
            )

    @property
    def at_every_step(self) -> bool:
        """Whether the loss is taken after every step, not after the last alone."""
        return self.at != "end"

    def take(self, losses: Callable[[], tf.Tensor], age: tf.Tensor, *, num_steps: int, dtype: tf.DType) -> tf.Tensor:
        """Returns what the losses of N tasks count after a step, `[N]`.

        Args:
            losses: Function without arguments that returns the loss of each task, `[N]`.
            age: `[N]`, the number of steps that each learner has taken.
            num_steps: Number of steps of which this is one.
            dtype: The dtype of the result.
        """
        if isinstance(self.at, str):
            return tf.cast(losses(), dtype) / (num_steps if self.at == "mean" else 1)
        is_named = tf.reduce_any(age[:, tf.newaxis] == tf.constant(list(self.at), age.dtype), axis=1)
        zeros = tf.zeros(age.shape, dtype)
        taken = tf.cond(tf.reduce_any(is_named), lambda: tf.cast(losses(), dtype), lambda: zeros)
        return tf.where(is_named, taken / len(self.at), zeros)

    def scale(self, losses: tf.Tensor) -> tf.Tensor:
        """Returns the losses of the tasks on the scale that counts."""
        return tf.math.log(losses + SMALLEST) if self.logarithm else losses


def as_task_loss(loss: Any) -> TaskLoss:
    """Returns a loss as a `TaskLoss`."""
    return loss if isinstance(loss, TaskLoss) else TaskLoss(loss)
