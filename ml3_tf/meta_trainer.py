"""Meta-training a loss is `fit`. Algorithm 1 of ML3.

Shape letters: N tasks, B examples of a task.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import keras
import tensorflow as tf

from ml3_tf.arguments import Batch, InnerOptimizerLike, LossesLike, ModelLike, OptimizerLike
from ml3_tf.inner_loop import MAX_TAPED_STEPS, LearnerState, at_step, count_tasks
from ml3_tf.learner import Parameters
from ml3_tf.meta_gradient import count_kept
from ml3_tf.meta_loss import LossPerHead, MetaLoss, get_loss
from ml3_tf.outer_loop import (
    EvolutionStrategies,
    ExtraLoss,
    MetricsLike,
    OuterLoop,
    Population,
    QueryMetrics,
    Start,
    TaskLoss,
    as_task_loss,
    estimate_memory,
)


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

    **Long lives.** Through many steps a gradient explodes, and through a part of a life it is short-sighted. With
    `lives`, learners go on from one step of `fit` to the next, so that a loss sees all ages. With
    `estimator=EvolutionStrategies()` it sees whole lives, without a derivative of steps or task loss.

    **Other tasks.** To learn a loss for something other than regression or classification, override one or both of
    `support` and `compute_task_loss`: no other method knows what a task is. Write conditions and loops over tensors as
    `tf.where`, `tf.cond` and `tf.while_loop`: AutoGraph, which takes longer than XLA, does not convert Python code.

    Args:
        learner: Function without arguments that builds the Keras model which the loss shall train, or such a model.
            It is rebuilt: each task gets parameters drawn by the learner's own initializers.
        meta_loss: The `MetaLoss` to be learned; for a learner of several outputs a `LossPerHead`.
        inner_steps: Number of steps that a step of `fit` trains learners for: without `lives`, their whole life.
        unroll: Number of steps that the outer gradient flows through; divides `inner_steps`. Default: all.
        lives: Learners live on from one step of `fit` to the next, until they have taken so many steps; of two numbers,
            each draws one between them, log-uniformly. Default: a life is `inner_steps`.
        start: The parameters that learners start from. "fresh", the default: drawn by their initializers, for each task
            anew. A model of the learner's architecture: its weights, as in fine-tuning. "learned": a start that is
            learned with the loss, as MAML does; afterwards `trainer.start` is the model that holds it.
        estimator: `EvolutionStrategies`, an estimate of the meta-gradient. Default: the meta-gradient itself.
        recompute: Learners are kept every so many steps, to save memory. "auto": all are, up to 256 MiB of them.
        seed: Optional integer that determines the learners' fresh parameters.
        name: Optional name.

    Raises:
        ValueError: A learner without weights, step counts that do not fit, or a learned start with an estimator.

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
        meta_loss: MetaLoss | LossPerHead,
        *,
        inner_steps: int = 1,
        unroll: int | None = None,
        lives: int | tuple[int, int] | None = None,
        start: Start = "fresh",
        estimator: EvolutionStrategies | None = None,
        recompute: int | Literal["auto"] = "auto",
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            learner,
            meta_loss,
            inner_steps=inner_steps,
            unroll=unroll,
            start=start,
            estimator=estimator,
            recompute=recompute,
            seed=seed,
            name=name,
        )
        self._query_metrics = QueryMetrics()
        self._population: Population | None = None
        self.lives: int | tuple[int, int] | None = lives
        self._longest_life = inner_steps
        if lives is not None:
            num_groups = 1 if estimator is None else 2  # the learners of a pair live and die together
            self._population = Population(lives, steps=inner_steps, num_groups=num_groups, seed=seed)
            self._longest_life = self._population.longest

    def compile(
        self,
        optimizer: OptimizerLike = "adam",
        loss: "LossesLike | TaskLoss" = "mse",
        inner_optimizer: InnerOptimizerLike = "sgd",
        *,
        metrics: MetricsLike | None = None,
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
            loss: Task loss `L_T`, needed only while the loss is learned; a `TaskLoss` says when and how it counts.
            inner_optimizer: Inner optimizer, moves the learners, differentiated through; see `InnerOptimizer` and
                `StopScaleGradient`.
            metrics: Further metrics of the learners' predictions on the query points, after training: a list; for
                learners with several outputs a mapping from their names to lists, as Keras takes it.
            extra_loss: Optional function `(parameters, batch) -> [N]`, `L_extra` of each task: `parameters` are the
                `Parameters` of the trained learners.
            beta: Weight of `loss`. 0 leaves the extra loss alone.
            gamma: Weight of `extra_loss`.
            jit_compile: Whether to compile the meta-gradient with XLA. It takes some seconds and pays from a few
                hundred steps.
            steps_per_execution: Number of steps in one compiled call. 100 keeps Python out of the way.
            run_eagerly: Whether to run without graphs, for debugging.

        Raises:
            ValueError: An inner optimizer that cannot be differentiated; weights that leave no task loss; a `TaskLoss`
                after more steps than a learner takes.
        """
        objective = as_task_loss(loss)
        objective.check_reachable(self._longest_life)
        super().compile(
            optimizer,
            dataclasses.replace(objective, loss=get_loss(objective.loss)),
            inner_optimizer,
            extra_loss=extra_loss,
            beta=beta,
            gamma=gamma,
            jit_compile=jit_compile,
            steps_per_execution=steps_per_execution,
            run_eagerly=run_eagerly,
        )
        self._query_metrics = QueryMetrics(metrics)
        self._meta_gradient = self._compile_meta_gradient(self.meta_gradient)
        self._take_steps = self._in_shards(functools.partial(self._score_steps, num_steps=self.unroll))
        self._live = self._in_shards(functools.partial(self._score_steps, num_steps=self._longest_life))
        self._predict = self._in_shards(self.inner_loop.predict_weighted)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*super().metrics, *self._query_metrics.metrics]

    @property
    def training_state(self) -> dict[str, Any]:
        return {**super().training_state, **(self._population.state if self._population is not None else {})}

    def support(self, parameters: Parameters, batch: Batch) -> Any:
        """Returns the examples to train on: `(x, y)` or `(x, y, sample_weight)`, each `[N, B, ...]`."""
        return batch["support"]

    def compute_task_loss(self, parameters: Parameters, batch: Batch) -> tf.Tensor:
        """Returns the task loss of each task, `[N]`, of learners with these `Parameters`."""
        return self.inner_loop.evaluate(self.task_loss, parameters, batch["query"])

    def meta_gradient(
        self, learners: LearnerState, batch: Batch, *, num_steps: int | None = None
    ) -> tuple[list[Any], tf.Tensor, LearnerState]:
        """Differentiates the task loss through `num_steps` inner steps, eq. 5 of ML3; `None`: through `unroll`.

        Returns:
            The gradient for each of the `trained_variables` (`None` where nothing depends on it), the task loss, and
            the new `LearnerState`.
        """
        num_steps = self.unroll if num_steps is None else num_steps
        swept = self.inner_loop.differentiate(
            learners,
            self._support_from(learners, batch),
            lambda learners: self._score(learners, batch, num_steps),
            num_steps=num_steps,
            variables=self.meta_loss.trainable_variables,
            at_every_step=self.objective.at_every_step,
            recompute=self.recompute,
        )
        return [*swept.gradients, *self._start_gradients(swept, learners)], swept.loss, swept.carry

    def outer_step(self, learners: LearnerState, batch: Batch) -> LearnerState:
        """Trains the learners for `unroll` steps and moves phi once: the new `LearnerState`."""
        before = learners.parameters.trainable
        if self.estimator is None:
            gradients, loss, learners = self._meta_gradient(learners, batch)
        else:
            losses, learners = self._take_steps(learners, batch)
            gradients, loss = self.estimator.estimate(learners.perturbation, losses)
        self.apply_meta_gradient(gradients, loss)
        self._motion_watch.record(before, learners.parameters.trainable)
        self._update_query_metrics(learners, batch)
        return learners

    def train_step(self, batch: Batch) -> dict[str, Any]:
        learners, batch = self._start_lives(batch)
        if type(self).support is MetaTrainer.support:  # otherwise they may not be data
            self.see_targets(batch["support"])
        if (num_outer_steps := self.inner_steps // self.unroll) == 1:
            learners = self.outer_step(learners, batch)
        else:
            body = lambda i, learners: (i + 1, self.outer_step(learners, batch))
            learners = tf.while_loop(lambda i, _: i < num_outer_steps, body, (0, learners))[1]
        if self._population is not None:
            self._population.keep(learners)
        return self.get_metrics_result()

    def estimate_memory(self, batch: Batch) -> int:
        """Returns about how many bytes a step of `fit` needs beside TensorFlow's own, and warns if fewer are left."""
        batch = tf.nest.map_structure(tf.convert_to_tensor, dict(batch))
        fresh = tf.function(self.draw_lives, autograph=False)  # it is traced alone: nothing is drawn
        lives = fresh.get_concrete_function(count_tasks(batch), batch).structured_outputs
        num_steps = self.unroll if self.unroll <= MAX_TAPED_STEPS else 1  # those under one tape

        def take(learners: LearnerState, batch: Batch) -> Any:
            if self.estimator is None:
                return self.meta_gradient(learners, batch, num_steps=num_steps)
            support = self._support_from(learners, batch)
            learners = self.inner_loop.step(learners, lambda parameters: support(parameters, 0))
            return self._score(learners, batch, num_steps), learners

        swept = self.unroll - num_steps if self.estimator is None else 0
        kept = functools.partial(count_kept, num_steps=swept, recompute=self.recompute)
        return estimate_memory(take, *lives, vectorized=self.inner_loop.vectorized, count_kept=kept)

    def test_step(self, batch: Batch) -> dict[str, Any]:
        learners = self.draw_learners(count_tasks(batch), for_evaluation=True)
        losses, learners = self._live(learners, batch)
        self._loss_mean.update_state(losses)
        self._update_query_metrics(learners, batch)
        return self.get_test_result()

    def _start_lives(self, batch: Batch) -> tuple[LearnerState, Batch]:
        """Returns the learners that a step of `fit` trains, and their tasks."""
        # Initializers draw outside of XLA, where they are fast.
        learners, batch = self.draw_lives(count_tasks(batch), batch)
        return (learners, batch) if self._population is None else self._population.renew(learners, batch)

    def _support_from(self, learners: LearnerState, batch: Batch) -> Callable[[Parameters, Any], Any]:
        return lambda parameters, i: self.support(parameters, at_step(batch, learners.age, i))

    def _score(self, learners: LearnerState, batch: Batch, num_steps: int) -> tf.Tensor:
        """Returns what the learners of each task count after one of `num_steps` steps, `[N]`: L_T shaped by eq. 9."""

        def losses() -> tf.Tensor:
            return self.shape_loss(self.compute_task_loss(learners.parameters, batch), learners.parameters, batch)

        dtype = learners.parameters.trainable[0].dtype
        return self.objective.take(losses, learners.age, num_steps=num_steps, dtype=dtype)

    def _score_steps(self, learners: LearnerState, batch: Batch, *, num_steps: int) -> tuple[tf.Tensor, LearnerState]:
        """Trains learners: their scores `[N]`, and the new `LearnerState`."""
        return self.inner_loop.run_and_score(
            learners,
            self._support_from(learners, batch),
            lambda learners: self._score(learners, batch, num_steps),
            num_steps=num_steps,
            at_every_step=self.objective.at_every_step,
        )

    def _update_query_metrics(self, learners: LearnerState, batch: Batch) -> None:
        if self._query_metrics.metrics:
            y = keras.utils.unpack_x_y_sample_weight(batch["query"])[1]
            self._query_metrics.update(y, *self._predict(learners.parameters, batch["query"]))
