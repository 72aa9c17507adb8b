"""The outer loop: the meta-gradient moves phi, the variables of the learned loss. Eq. 5 and 6 of ML3.

Shape letters: N tasks, B examples of a task.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import keras
import tensorflow as tf

from ml3_tf.arguments import Batch, ModelLike, OptimizerLike
from ml3_tf.inner_loop import InnerLoop
from ml3_tf.learner import Learner, Parameters
from ml3_tf.meta_gradient import complete_gradients
from ml3_tf.meta_loss import MetaLoss

ExtraLoss: TypeAlias = Callable[[Parameters, Batch], tf.Tensor]


class OuterLoop(keras.Model):
    """The base class of all trainers: phi, its optimizer and metrics, and the guard against non-finite gradients.

    A trainer defines `train_step` and `test_step`; it draws learners from `learner`, trains them by `inner_loop`, and
    moves phi by `apply_meta_gradient`.

    Args:
        learner: As in `MetaTrainer`, as are all others.
        meta_loss: The `MetaLoss` to be learned.
        inner_steps: Number of steps that a learner lives for.
        unroll: Number of steps that the outer gradient flows through; divides `inner_steps`. `None`: all.
        recompute: The learners are kept every so many of these steps, and those between are computed once more: memory
            for time. "auto": all are kept, unless they are large.
        seed: Optional integer that determines the learners' fresh parameters.
        name: Optional name.

    Raises:
        ValueError: A learner without weights, or step counts that do not fit.
    """

    def __init__(
        self,
        learner: ModelLike,
        meta_loss: MetaLoss,
        *,
        inner_steps: int,
        unroll: int | None,
        recompute: int | Literal["auto"] = "auto",
        seed: int | None,
        name: str | None,
    ) -> None:
        super().__init__(name=name)
        unroll = inner_steps if unroll is None else unroll
        if inner_steps < 1 or unroll < 1 or inner_steps % unroll:
            raise ValueError(
                "Expected `inner_steps` >= 1 and an `unroll` that divides it. "
                f"Received: inner_steps={inner_steps}, unroll={unroll}"
            )
        self.learner: Learner = Learner(learner, seed=seed)
        self._evaluated_learner = Learner(learner, seed=seed)  # draws from a stream of its own: training is unmoved
        self.meta_loss: MetaLoss = meta_loss
        self.inner_steps: int = inner_steps
        self.unroll: int = unroll
        self.recompute: int | Literal["auto"] = recompute
        # Phi is what this model trains. The learner's template is not a layer of it, so that its weights stay out.
        self._phi_layers = meta_loss.layers
        self._guard = FiniteGuard(meta_loss.trainable_variables)
        self.built = True

    def compile(
        self,
        optimizer: OptimizerLike = "adam",
        loss: Any = "mse",
        inner_optimizer: OptimizerLike = "sgd",
        *,
        extra_loss: ExtraLoss | None = None,
        beta: float = 1.0,
        gamma: float = 1.0,
        jit_compile: bool = True,
        steps_per_execution: int = 1,
        run_eagerly: bool = False,
    ) -> None:
        """Configures meta-training; see `MetaTrainer.compile`."""
        super().compile(
            optimizer=optimizer, jit_compile=False, steps_per_execution=steps_per_execution, run_eagerly=run_eagerly
        )
        if isinstance(keras.optimizers.get(inner_optimizer), keras.optimizers.Lion):
            raise ValueError(
                "Lion cannot be the `inner_optimizer` of meta-training: it steps by the sign of the gradient, whose "
                "derivative is zero, so nothing can be learned through it. Use SGD, Adam or another smooth optimizer."
            )
        if not (0 <= beta < math.inf and 0 <= gamma < math.inf and beta + (gamma if extra_loss else 0) > 0):
            raise ValueError(
                "The task loss is `beta * loss + gamma * extra_loss`: expected finite weights that are not negative, "
                f"and one of them positive. Received: beta={beta}, gamma={gamma}, extra_loss={extra_loss}"
            )
        self.inner_loop: InnerLoop = InnerLoop(self.learner, self.meta_loss, inner_optimizer)
        self.task_loss: Any = loss
        self.extra_loss: ExtraLoss | None = extra_loss
        self.beta: float = beta
        self.gamma: float = gamma
        self.optimizer.build(self.meta_loss.trainable_variables)
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._norm_mean = keras.metrics.Mean(name="meta_gradient_norm")
        as_it_is = lambda function: function
        compile_in_shards = functools.partial(self.inner_loop.compile, jit_compile=jit_compile)
        compiled = lambda function: tf.function(function, autograph=False, jit_compile=jit_compile)
        self._compiled = as_it_is if run_eagerly else compiled
        self._in_shards = as_it_is if run_eagerly else compile_in_shards

    def fit(
        self,
        tasks: tf.data.Dataset,
        *,
        epochs: int = 1,
        steps_per_epoch: int | None = None,
        initial_epoch: int = 0,
        validation_data: tf.data.Dataset | None = None,
        validation_steps: int | None = None,
        validation_freq: int = 1,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        verbose: int | str = "auto",
    ) -> keras.callbacks.History:
        """Meta-trains the loss. All other arguments are those of `keras.Model.fit`.

        Args:
            tasks: `tf.data.Dataset` of batches, for `MetaTrainer` `{"support": (x, y), "query": (x, y), ...}`, each
                array `[N, B, ...]`.
            epochs: Number of passes over the dataset, or of `steps_per_epoch` steps.
            steps_per_epoch: Number of steps in an epoch; needed if `tasks` has no end.
            initial_epoch: The epoch to start from.
            validation_data: `tf.data.Dataset` of batches to evaluate after each epoch.
            validation_steps: Number of steps of an evaluation; needed if `validation_data` has no end.
            validation_freq: Number of epochs between two evaluations.
            callbacks: Keras callbacks.
            verbose: "auto" and 1 show a progress bar, 2 a line for each epoch, 0 nothing.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: `tasks` is not a dataset of batches; the task loss does not depend on phi.
            FloatingPointError: A meta-gradient is not finite. The loss keeps its last finite weights.
        """
        if not isinstance(tasks, tf.data.Dataset):
            raise ValueError(f"`fit` takes a `tf.data.Dataset` of tasks. Received: {type(tasks).__name__}")
        return super().fit(
            tasks,
            shuffle=False,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            initial_epoch=initial_epoch,
            validation_data=validation_data,
            validation_steps=validation_steps,
            validation_freq=validation_freq,
            callbacks=callbacks,
            verbose=verbose,
        )

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self._loss_mean, self._norm_mean] if self.compiled else []

    def shape_loss(self, losses: tf.Tensor, parameters: Parameters, batch: Batch) -> tf.Tensor:
        """Returns `beta L_T + gamma L_extra` (eq. 9), the mean over tasks; `losses` are `[N]`."""
        losses = self.beta * losses
        if self.extra_loss is not None:
            extra = tf.convert_to_tensor(self.extra_loss(parameters, batch))
            if extra.shape != losses.shape:
                raise ValueError(
                    f"`extra_loss` must return one value for each task, shape {tuple(losses.shape)}. Received: shape "
                    f"{tuple(extra.shape)}"
                )
            losses += self.gamma * tf.cast(extra, losses.dtype)
        return tf.reduce_mean(losses)

    def _compile_meta_gradient(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles `(...) -> (gradients, loss, ...)` in shards: gradients and loss are means over the tasks."""

        def add_axis(*inputs: Any) -> Any:
            gradients, loss, *others = function(*inputs)
            gradients = complete_gradients(gradients, self.meta_loss)
            return [gradient[tf.newaxis] for gradient in gradients], loss[tf.newaxis], *others

        in_shards = self._in_shards(add_axis)

        def call(*inputs: Any) -> Any:
            gradients, loss, *others = in_shards(*inputs)
            return [tf.reduce_mean(gradient, axis=0) for gradient in gradients], tf.reduce_mean(loss), *others

        return call

    def apply_meta_gradient(self, gradients: list[tf.Tensor], loss: tf.Tensor) -> None:
        """Moves phi by a meta-gradient, unless it is not finite, and records the task loss."""
        self._guard.apply(self.optimizer, gradients)
        self._loss_mean.update_state(loss)
        self._norm_mean.update_state(tf.linalg.global_norm(gradients))

    def get_test_result(self) -> dict[str, Any]:
        """Returns the metrics of an evaluation, which has no meta-gradient."""
        return {metric.name: metric.result() for metric in self.metrics if metric is not self._norm_mean}

    def make_train_function(self, force: bool = False) -> None:
        if self.train_function is not None and not force:
            return
        super().make_train_function(force)
        run = self.train_function

        def train_function(iterator: Any) -> Any:
            logs = run(iterator)
            self._guard.raise_if_non_finite(self.optimizer)
            return logs

        self.train_function = train_function


class FiniteGuard:
    """Lets an optimizer step only by finite gradients, and remembers which were not.

    Args:
        variables: The variables that the optimizer moves.
        patience: So many steps in a row may be left out without an error.
    """

    def __init__(self, variables: list[keras.Variable], *, patience: int = 0) -> None:
        self.variables: list[keras.Variable] = variables
        self.patience: int = patience
        self._non_finite = tf.Variable(tf.zeros(len(variables), tf.bool), trainable=False)
        self._left_out = tf.Variable(0, trainable=False)  # steps in a row

    def apply(self, optimizer: keras.optimizers.Optimizer, gradients: list[tf.Tensor]) -> None:
        """Moves the variables, unless a gradient is not finite, or steps were left out for too long."""
        squares = tf.stack([tf.cast(tf.reduce_sum(tf.square(gradient)), tf.float32) for gradient in gradients])
        # Also gradients so large that the square of their global norm, which clipping divides by, overflows.
        non_finite = tf.logical_not(tf.math.is_finite(len(gradients) * squares))
        self._left_out.assign(tf.where(tf.reduce_any(non_finite), self._left_out + 1, 0))
        self._non_finite.assign(self._non_finite | (non_finite & (self._left_out > self.patience)))

        def move() -> bool:
            optimizer.apply(gradients, self.variables)
            return True

        tf.cond(tf.reduce_any(self._non_finite | non_finite), lambda: False, move)

    def raise_if_non_finite(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Raises `FloatingPointError` if a gradient was not finite, and forgets about it."""
        non_finite = self._non_finite.numpy()
        if not non_finite.any():
            return
        self._non_finite.assign(tf.zeros_like(self._non_finite))
        self._left_out.assign(0)
        names = [v.path for v, bad in zip(self.variables, non_finite, strict=True) if bad]
        raise FloatingPointError(
            f"The meta-gradient of {', '.join(names)} is not finite after {int(optimizer.iterations)} outer steps. The "
            "bad step was not taken: the meta-loss still holds its last finite weights. Usually the learners diverged: "
            "lower the inner learning rate or `unroll`, or clip the inner gradient (`clipnorm`); otherwise look for "
            "NaN in the tasks."
        )


class Kept:
    """A structure of tensors that outlives the graph which computed it.

    Attributes:
        variables: The structure of `tf.Variable`; `None` as long as nothing was kept.
    """

    def __init__(self) -> None:
        self.variables: Any = None

    def prepare(self, values: Any) -> None:
        """Makes variables of zeros, unless those that are there have the shapes of `values`."""
        shapes = lambda structure: tf.nest.map_structure(lambda value: value.shape, structure)
        if self.variables is None or shapes(self.variables) != shapes(values):
            with tf.init_scope():
                zeros = lambda value: tf.Variable(tf.zeros(value.shape, value.dtype), trainable=False)
                self.variables = tf.nest.map_structure(zeros, values)

    def assign(self, values: Any) -> None:
        """Keeps `values`."""
        self.prepare(values)
        tf.nest.map_structure(lambda kept, value: kept.assign(value), self.variables, values)
