"""The base class of all trainers.

Shape letters: N tasks, B examples of a task.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import keras
import tensorflow as tf

from ml3_tf.arguments import Batch, InnerOptimizerLike, ModelLike, OptimizerLike, check_counts
from ml3_tf.inner_loop import InnerLoop, LearnerState, expand_like
from ml3_tf.learner import Learner, Parameters
from ml3_tf.meta_gradient import Sweep, complete_gradients
from ml3_tf.meta_loss import LossPerHead, MetaLoss, TrainingFacts, get_loss
from ml3_tf.outer_loop._callback_state import describe
from ml3_tf.outer_loop._checks import refuse_scope, refuse_without_derivative
from ml3_tf.outer_loop._evolution import EvolutionStrategies
from ml3_tf.outer_loop._fitting import FittedOnTasks
from ml3_tf.outer_loop._guard import FiniteGuard, MotionWatch, NormWatch
from ml3_tf.outer_loop._population import stream
from ml3_tf.outer_loop._task_loss import TaskLoss, as_task_loss

Start: TypeAlias = keras.Model | Literal["fresh", "learned"]
ExtraLoss: TypeAlias = Callable[[Parameters, Batch], tf.Tensor]


class OuterLoop(FittedOnTasks):
    """The base class of all trainers: phi, its optimizer and metrics, and the guard against non-finite gradients.

    A trainer defines `train_step` and `test_step`; it draws learners from `learner`, trains them by `inner_loop`, and
    moves phi by `apply_meta_gradient`.

    Args:
        learner: As in `MetaTrainer`, as are all others.
        meta_loss: The `MetaLoss` to be learned.
        inner_steps: Number of steps that a learner lives for.
        unroll: Number of steps that the outer gradient flows through; divides `inner_steps`. `None`: all.
        start: The parameters that learners start from: "fresh", a model, or "learned".
        estimator: The estimator of the meta-gradient; `None`: the meta-gradient itself.
        recompute: The learners are kept every so many of these steps, and those between are computed once more: memory
            for time. "auto": all are kept, unless they are large.
        seed: Optional integer that determines the learners' fresh parameters.
        name: Optional name.

    Raises:
        ValueError: A learner without weights, or step counts that do not fit.
        RuntimeError: In the scope of a `tf.distribute.Strategy` of several replicas; see `distribute`.
    """

    def __init__(
        self,
        learner: ModelLike,
        meta_loss: MetaLoss | LossPerHead,
        *,
        inner_steps: int,
        unroll: int | None,
        start: Start = "fresh",
        estimator: EvolutionStrategies | None = None,
        recompute: int | Literal["auto"] = "auto",
        seed: int | None,
        name: str | None,
    ) -> None:
        refuse_scope()
        super().__init__(name=name)
        self._names_of_keras = frozenset({*vars(self), "stop_training"})
        unroll = inner_steps if unroll is None else unroll
        check_counts(inner_steps=inner_steps, unroll=unroll)
        if inner_steps % unroll:
            raise ValueError(
                f"Expected an `unroll` that divides `inner_steps`. Received: inner_steps={inner_steps}, unroll={unroll}"
            )
        if not isinstance(start, keras.Model) and start not in ("fresh", "learned"):
            raise ValueError(f"`start` must be 'fresh', 'learned' or a Keras model. Received: start={start!r}")
        if estimator is not None and start == "learned":
            raise ValueError(
                "A start can be learned by the meta-gradient alone. Received: start='learned', "
                f"estimator={estimator}. Leave out one of them."
            )
        self.learner: Learner = Learner(learner, seed=seed)
        self._evaluated_learner = Learner(learner, seed=seed)  # draws from a stream of its own: training is unmoved
        self.meta_loss: MetaLoss | LossPerHead = get_loss(meta_loss)
        if not self.meta_loss.trainable_variables:
            raise ValueError(f"`meta_loss` has nothing to learn: expected a `MetaLoss`. Received: {meta_loss!r}")
        self.seed: int | None = seed
        self.inner_steps: int = inner_steps
        self.unroll: int = unroll
        self.recompute: int | Literal["auto"] = recompute
        self.estimator: EvolutionStrategies | None = estimator
        # Phi is what this model trains. The learner's template is not a layer of it, so that its weights stay out.
        self._phi_layers = self.meta_loss.layers
        if start == "learned":
            self._learned_start = start = self.learner.build_model(self.learner.draw(1))
        self._get_start = lambda: start  # hidden from Keras, which would make a layer of a given model
        self._noise_seeds = stream(seed, 1)
        self._guard = FiniteGuard(self.trained_variables)
        self._norm_watch = NormWatch()
        self._lowest_target = tf.Variable(math.inf, trainable=False)
        self._highest_target = tf.Variable(-math.inf, trainable=False)
        self._motion_watch = MotionWatch()
        self.built = True

    @property
    def start(self) -> keras.Model | Literal["fresh"]:
        """Where learners start from: "fresh", or a model with the weights, which moves where it is learned."""
        return self._get_start()

    @property
    def trained_variables(self) -> list[keras.Variable]:
        """What the outer optimizer moves: phi, and the start of the learners if that is learned."""
        return [*self.meta_loss.trainable_variables, *self._start_variables]

    @property
    def _start_variables(self) -> list[keras.Variable]:
        return self._learned_start.trainable_variables if hasattr(self, "_learned_start") else []

    @property
    def read_variables(self) -> list[keras.Variable]:
        """All variables that learners and their steps read, which every device needs."""
        start = self.start.variables if isinstance(self.start, keras.Model) else []
        return [*(variable for layer in self.meta_loss.layers for variable in layer.weights), *start]

    def draw_learners(self, num_tasks: int, *, for_evaluation: bool = False) -> LearnerState:
        """Returns the `LearnerState` of N learners at their start."""
        learner = self._evaluated_learner if for_evaluation else self.learner
        if self.start == "fresh":
            return self.inner_loop.start(num_tasks, learner.draw(num_tasks))
        return self.inner_loop.start(num_tasks, learner.copies(self.start, num_tasks, fresh_seeds=True))

    def draw_lives(self, num_tasks: int, batch: Batch) -> tuple[LearnerState, Batch]:
        """Returns fresh learners for the tasks in a batch: pairs of them with an estimator."""
        if self.estimator is None:
            return self.draw_learners(num_tasks), batch
        count = num_tasks * self.estimator.num_pairs
        learners, batch = self.estimator.pair((self.draw_learners(count), self.estimator.repeat(batch)))
        changes = self.estimator.perturb(self.trained_variables, count, self._noise_seeds)
        return learners._replace(perturbation=changes), batch

    def compile(
        self,
        optimizer: OptimizerLike = "adam",
        loss: Any = "mse",
        inner_optimizer: InnerOptimizerLike = "sgd",
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
        if self.estimator is None:
            refuse_without_derivative(inner_optimizer)
        if not (0 <= beta < math.inf and 0 <= gamma < math.inf and beta + (gamma if extra_loss else 0) > 0):
            raise ValueError(
                "The task loss is `beta * loss + gamma * extra_loss`: expected finite weights that are not negative, "
                f"and one of them positive. Received: beta={beta}, gamma={gamma}, extra_loss={extra_loss}"
            )
        self.inner_loop: InnerLoop = InnerLoop(self.learner, self.meta_loss, inner_optimizer)
        self.objective: TaskLoss = as_task_loss(loss)
        self.task_loss: Any = self.objective.loss
        self.extra_loss: ExtraLoss | None = extra_loss
        self.beta: float = beta
        self.gamma: float = gamma
        self.optimizer.build(self.trained_variables)
        self._compiled_with = {
            "optimizer": describe(self.optimizer),
            "inner_optimizer": [describe(self.inner_loop.optimizer.optimizer), self.inner_loop.optimizer.stops_scale],
            "loss": describe(self.objective),
            "extra_loss": describe(extra_loss),
            "jit_compile": jit_compile,
        }
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._norm_mean = keras.metrics.Mean(name="meta_gradient_norm")
        as_it_is = lambda function: function
        shared = {"replicas": self._replicas, "variables": self.read_variables}
        in_shards = functools.partial(self.inner_loop.compile, jit_compile=jit_compile, **shared)
        compiled = lambda function: tf.function(function, autograph=False, jit_compile=jit_compile)
        self._compiled = as_it_is if run_eagerly else compiled
        self._in_shards = as_it_is if run_eagerly else in_shards

    @property
    def training_state(self) -> dict[str, Any]:
        values = lambda variables: [variable.value for variable in variables]
        seeds = self.learner.seeds, self._evaluated_learner.seeds, self._noise_seeds
        return {
            "meta_loss": values([variable for layer in self.meta_loss.layers for variable in layer.weights]),
            "start": values(self._start_variables),
            "optimizer": values(self.optimizer.variables),
            "seeds": [generator.state.value for generator in seeds],
            "guards": [*self._guard.state, *self._norm_watch.state, *self._motion_watch.state],
            "metrics": values(self.metrics_variables),
            "targets": [self._lowest_target, self._highest_target],
        }

    @property
    def training_config(self) -> dict[str, Any]:
        shapes = lambda variables: [tuple(variable.shape) for variable in variables]
        return {
            "trainer": type(self).__name__,
            "learner": shapes(self.learner.model.variables),
            "meta_loss": [self.meta_loss.mode, self.meta_loss.features, shapes(self.meta_loss.trainable_variables)],
            "start": "learned" if self._start_variables else describe(self.start),
            "estimator": repr(self.estimator),
            **self._compiled_with,
            "steps_per_execution": self.steps_per_execution,
            "run_eagerly": self.run_eagerly,
            **self._own_settings,
        }

    @property
    def facts(self) -> TrainingFacts:
        """What the loss is learned with."""
        rate = self.inner_loop.optimizer.optimizer.get_config().get("learning_rate")
        activation = getattr(self.learner.model.layers[-1], "activation", None)
        are_probabilities = activation in (keras.activations.softmax, keras.activations.sigmoid)
        low, high = float(self._lowest_target), float(self._highest_target)
        return TrainingFacts(
            self.inner_loop.optimizer.name,
            (rate, rate) if isinstance(rate, float) else None,
            "probabilities" if are_probabilities else "numbers",
            (low, high) if low <= high else None,
        )

    def see_targets(self, examples: Any) -> None:
        """Takes note of the range of targets, of examples `(x, y)` or `(x, y, sample_weight)`."""
        y = keras.utils.unpack_x_y_sample_weight(examples)[1]
        if not tf.is_tensor(y):  # a label-free loss has none, and several outputs have ranges of their own
            return
        y = tf.cast(y, tf.float32)
        self._lowest_target.assign(tf.minimum(self._lowest_target, tf.reduce_min(y)))
        self._highest_target.assign(tf.maximum(self._highest_target, tf.reduce_max(y)))

    @property
    def _own_settings(self) -> dict[str, Any]:
        """All public attributes that are numbers or text, also those of subclasses."""
        own = {name: value for name, value in vars(self).items() if name not in self._names_of_keras}
        plain = (bool, int, float, str, tuple)  # no named tuples, which hold functions
        return {name: value for name, value in own.items() if not name.startswith("_") and type(value) in plain}

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self._loss_mean, self._norm_mean] if self.compiled else []

    def shape_loss(self, losses: tf.Tensor, parameters: Parameters, batch: Batch) -> tf.Tensor:
        """Returns `beta L_T + gamma L_extra` of each task (eq. 9), `[N]`, as are the `losses` L_T."""
        losses = self.beta * self.objective.scale(losses)
        if self.extra_loss is not None:
            extra = tf.convert_to_tensor(self.extra_loss(parameters, batch))
            if extra.shape != losses.shape:
                raise ValueError(
                    f"`extra_loss` must return one value for each task, shape {tuple(losses.shape)}. Received: shape "
                    f"{tuple(extra.shape)}"
                )
            losses += self.gamma * tf.cast(extra, losses.dtype)
        return losses

    def _compile_meta_gradient(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles `(...) -> (gradients, loss, ...)` in shards: gradients and loss are means over the tasks."""

        def add_axis(*inputs: Any) -> Any:
            gradients, loss, *others = function(*inputs)
            num_phi = len(self.meta_loss.trainable_variables)
            gradients = [*complete_gradients(gradients[:num_phi], self.meta_loss), *gradients[num_phi:]]
            return [gradient[tf.newaxis] for gradient in gradients], loss[tf.newaxis], *others

        in_shards = self._in_shards(add_axis)

        def call(*inputs: Any) -> Any:
            gradients, loss, *others = in_shards(*inputs)
            return [tf.reduce_mean(gradient, axis=0) for gradient in gradients], tf.reduce_mean(loss), *others

        return call

    def _start_gradients(self, swept: Sweep, learners: LearnerState) -> list[tf.Tensor]:
        """Returns the gradient for each variable of a learned start, through the learners that are there."""
        at_start = learners.age == 0
        rows = swept.carry_gradients[: len(self._start_variables)]
        choose = lambda values: tf.where(expand_like(at_start, values), values, 0.0)
        return [tf.reduce_sum(choose(values), axis=0) for values in rows]

    def apply_meta_gradient(self, gradients: list[tf.Tensor], loss: tf.Tensor) -> None:
        """Moves `trained_variables` by a meta-gradient, unless it is not finite, and records the task loss."""
        self._guard.apply(self.optimizer, gradients)
        self._loss_mean.update_state(loss)
        norm = tf.linalg.global_norm(gradients)
        self._norm_mean.update_state(norm)
        self._norm_watch.record(norm)

    def get_test_result(self) -> dict[str, Any]:
        """Returns the metrics of an evaluation, which has no meta-gradient."""
        return {metric.name: metric.result() for metric in self.metrics if metric is not self._norm_mean}
