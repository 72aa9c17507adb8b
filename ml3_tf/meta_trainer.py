"""Meta-training a loss is `fit`. Algorithm 1 of ML3.

Shape letters: N tasks, B examples of a task.
"""

from collections.abc import Sequence
from typing import Any, cast

import keras
import tensorflow as tf

from ml3_tf.arguments import Batch, LossLike, ModelLike, OptimizerLike
from ml3_tf.inner_loop import LearnerState, count_tasks, per_task_loss
from ml3_tf.learner import Parameters
from ml3_tf.meta_loss import MetaLoss
from ml3_tf.outer_loop import ExtraLoss, OuterLoop, complete_gradients


class MetaTrainer(OuterLoop):
    """Learns a loss: moves phi so that learners trained with `M_phi` do well on a task loss.

    Algorithm 1 of ML3, for `N` tasks at once. Each step of `fit` takes one batch of tasks from the dataset, draws fresh
    learner parameters for each task, and trains them for `inner_steps` steps with the learned loss. After every
    `unroll` of these, the task loss on the query points is differentiated through them and moves the learned loss::

        theta_new = h(theta, d/dtheta E[M_phi(y, f_theta(x))])      inner_optimizer, `unroll` times   (eq. 6)
        phi_new   = phi - eta d/dphi L_T(y, f_theta_new(x))         optimizer                          (eq. 5)

    `unroll=1` is the paper's "after each inner gradient step"; `unroll=inner_steps`, the default, is back-propagation
    through the whole chain. Clip the outer gradient with the optimizer's own `clipnorm` or `global_clipnorm`.

    **Shaping.** Knowledge that only meta-training has may shape the loss: with an `extra_loss`, the task loss is
    `beta L_T + gamma L_extra` (eq. 9). `L_extra` sees the trained learners' parameters and the whole batch, where a
    true frequency or inertia matrix has a name of its own. The learned loss needs none of it.

    **Other tasks.** To learn a loss for something other than regression or classification, override one or both of
    `support` and `compute_task_loss`: no other method knows what a task is. Write conditions and loops over tensors as
    `tf.where`, `tf.cond` and `tf.while_loop`: as in Keras, AutoGraph does not convert Python code, which would take
    longer than XLA's compilation.

    Args:
        learner: Function without arguments that builds the Keras model which the loss shall train, or such a model.
            It is rebuilt, so that each task gets parameters drawn by the learner's own initializers.
        meta_loss: The `MetaLoss` to be learned.
        inner_steps: Number of steps that a learner lives for.
        unroll: Number of steps that the outer gradient flows through; divides `inner_steps`. Default: all.
        seed: Optional integer that determines the learners' fresh parameters.
        name: Optional name.

    Raises:
        ValueError: A learner without weights, or step counts that do not fit.

    Example:

    >>> import keras, ml3_tf
    >>> trainer = ml3_tf.MetaTrainer(
    ...     learner=lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]),
    ...     meta_loss=ml3_tf.MetaLoss.mlp(),
    ... )
    >>> trainer.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse", inner_optimizer=keras.optimizers.SGD(1e-3))
    >>> history = trainer.fit(ml3_tf.sine_tasks(), steps_per_epoch=2, verbose=0)
    >>> sorted(history.history)
    ['loss', 'meta_gradient_norm']
    """

    def __init__(
        self,
        learner: ModelLike,
        meta_loss: MetaLoss,
        *,
        inner_steps: int = 1,
        unroll: int | None = None,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(learner, meta_loss, inner_steps=inner_steps, unroll=unroll, seed=seed, name=name)
        self._query_metrics: list[keras.metrics.Metric] = []

    def compile(
        self,
        optimizer: OptimizerLike = "adam",
        loss: LossLike = "mse",
        inner_optimizer: OptimizerLike = "sgd",
        *,
        metrics: Sequence[keras.metrics.Metric | str] | None = None,
        extra_loss: ExtraLoss | None = None,
        beta: float = 1.0,
        gamma: float = 1.0,
        jit_compile: bool = True,
        steps_per_execution: int = 1,
        run_eagerly: bool = False,
    ) -> None:
        """Configures meta-training.

        Args:
            optimizer: Outer optimizer, moves the meta-loss. Its `global_clipnorm` clips the outer gradient.
            loss: Task loss `L_T`, needed only while the loss is learned.
            inner_optimizer: Inner optimizer, moves the learners, differentiated through; see `InnerOptimizer`.
            metrics: Further metrics of the learners' predictions on the query points, after training.
            extra_loss: Optional function `(parameters, batch) -> [N]`, `L_extra` of each task: `parameters` are the
                `Parameters` of the trained learners.
            beta: Weight of `loss`. 0 leaves the extra loss alone.
            gamma: Weight of `extra_loss`.
            jit_compile: Whether to compile the meta-gradient with XLA. It takes some seconds and pays from a few
                hundred steps.
            steps_per_execution: Number of steps in one compiled call. 100 keeps Python out of the way.
            run_eagerly: Whether to run without graphs, for debugging.

        Raises:
            ValueError: An inner optimizer that cannot be differentiated; weights that leave no task loss.
        """
        super().compile(
            optimizer,
            keras.losses.get(loss),
            inner_optimizer,
            extra_loss=extra_loss,
            beta=beta,
            gamma=gamma,
            jit_compile=jit_compile,
            steps_per_execution=steps_per_execution,
            run_eagerly=run_eagerly,
        )
        self._query_metrics = [_get_metric(metric) for metric in metrics or []]
        self._meta_gradient = self._compiled(self.meta_gradient)
        self._adapt_and_score = self._compiled(self.adapt_and_score)
        self._score_query = self._compiled(self._predict_query)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*super().metrics, *self._query_metrics]

    def support(self, parameters: Parameters, batch: Batch) -> Any:
        """Returns the examples to train on: `(x, y)` or `(x, y, sample_weight)`, each `[N, B, ...]`."""
        return batch["support"]

    def compute_task_loss(self, parameters: Parameters, batch: Batch) -> tf.Tensor:
        """Returns the task loss of each task, `[N]`, of learners with these `Parameters`."""
        return per_task_loss(self.task_loss, *self._predict_query(parameters, batch))

    def adapt_and_score(self, learners: LearnerState, batch: Batch, num_steps: int) -> tuple[tf.Tensor, LearnerState]:
        """Trains learners for some steps with the learned loss: the task loss, a scalar, and the new `LearnerState`."""
        learners = self.inner_loop.run(learners, lambda parameters: self.support(parameters, batch), num_steps)
        losses = self.compute_task_loss(learners.parameters, batch)
        return self.shape_loss(losses, learners.parameters, batch), learners

    def meta_gradient(self, learners: LearnerState, batch: Batch) -> tuple[list[tf.Tensor], tf.Tensor, LearnerState]:
        """Differentiates the task loss through `unroll` inner steps, eq. 5 of ML3.

        Args:
            learners: `LearnerState` of N tasks.
            batch: The tasks.

        Returns:
            The gradient for each variable of the meta-loss, the task loss, and the new `LearnerState`.

        Raises:
            ValueError: The task loss does not depend on the meta-loss at all.
        """
        with tf.GradientTape() as tape:
            loss, learners = self.adapt_and_score(learners, batch, self.unroll)
        gradients = tape.gradient(loss, self.meta_loss.trainable_variables)
        return complete_gradients(gradients, self.meta_loss), loss, learners

    def outer_step(self, learners: LearnerState, batch: Batch) -> LearnerState:
        """Trains the learners for `unroll` steps and moves phi once: the new `LearnerState`."""
        gradients, loss, learners = self._meta_gradient(learners, batch)
        self.apply_meta_gradient(gradients, loss)
        self._update_query_metrics(learners, batch)
        return learners

    def train_step(self, batch: Batch) -> dict[str, Any]:
        # Initializers draw outside of XLA, where they are fast.
        learners = self.inner_loop.start(count_tasks(batch))
        num_outer_steps = self.inner_steps // self.unroll
        if num_outer_steps == 1:
            self.outer_step(learners, batch)
        else:
            body = lambda i, learners: (i + 1, self.outer_step(learners, batch))
            tf.while_loop(lambda i, _: i < num_outer_steps, body, (0, learners))
        return self.get_metrics_result()

    def test_step(self, batch: Batch) -> dict[str, Any]:
        num_tasks = count_tasks(batch)
        learners = self.inner_loop.start(num_tasks, self._evaluated_learner.draw(num_tasks))
        loss, learners = self._adapt_and_score(learners, batch, self.inner_steps)
        self._loss_mean.update_state(loss)
        self._update_query_metrics(learners, batch)
        return self.get_test_result()

    def _predict_query(self, parameters: Parameters, batch: Batch) -> tuple[Any, tf.Tensor, Any]:
        """`(y_true, y_pred, sample_weight or None)`, each `[N, B, ...]`."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch["query"])
        return y, self.inner_loop.predict(parameters, x), sample_weight

    def _update_query_metrics(self, learners: LearnerState, batch: Batch) -> None:
        if not self._query_metrics:
            return
        merge_tasks = lambda values: tf.reshape(values, [-1, *values.shape[2:]])  # [N, B, ...] -> [N * B, ...]
        query = [None if v is None else merge_tasks(v) for v in self._score_query(learners.parameters, batch)]
        for metric in self._query_metrics:
            metric.update_state(*query)


def _get_metric(metric: keras.metrics.Metric | str) -> keras.metrics.Metric:
    if metric in ("accuracy", "acc"):
        raise ValueError(
            f"Which accuracy? Received: metrics=[{metric!r}]. Expected 'binary_accuracy', 'categorical_accuracy' or "
            "'sparse_categorical_accuracy'."
        )
    return cast(keras.metrics.Metric, keras.metrics.get(metric))
