"""The inner loop: learners of many tasks take optimizer steps on a loss, and gradients flow through all of it.

Shape letters: N tasks, B examples of a task.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import keras
import tensorflow as tf

from ml3_tf.arguments import LossLike, OptimizerLike
from ml3_tf.inner_optimizer import InnerOptimizer
from ml3_tf.learner import Learner, Parameters
from ml3_tf.meta_gradient import Sweep, sweep

# So many last steps are recorded by one tape, which saves taking them twice; beyond, the graph would grow.
MAX_TAPED_STEPS = 4


class LearnerState(NamedTuple):
    """Where the learners of `N` tasks are on their way.

    Attributes:
        parameters: `Parameters` of the learners.
        slots: List of `[N, ...]`, the state of the inner optimizer.
    """

    parameters: Parameters
    slots: list[tf.Tensor]


class InnerLoop:
    """Trains the learners of N tasks at once, as a pure function that can itself be differentiated.

    One step equals `model.compile(optimizer, loss)` and `model.train_on_batch` for each task, to rounding: the loss
    with its reduction and sample weights, the learner's regularizers and non-trainable variables, and the optimizer are
    those of Keras.

    Args:
        learner: A `Learner`.
        loss: A `MetaLoss`, any other `keras.losses.Loss`, or the name of one.
        optimizer: The inner optimizer, see `InnerOptimizer`.
    """

    def __init__(self, learner: Learner, loss: LossLike, optimizer: OptimizerLike) -> None:
        self.learner: Learner = learner
        self.loss: Any = keras.losses.get(loss)
        self.optimizer: InnerOptimizer = InnerOptimizer(optimizer, learner.model.trainable_variables)

    def start(self, num_tasks: int, parameters: Parameters | None = None) -> LearnerState:
        """Returns the `LearnerState` of fresh learners, or of learners with the given `Parameters`."""
        parameters = self.learner.draw(num_tasks) if parameters is None else parameters
        return LearnerState(parameters, self.optimizer.initial_slots(num_tasks))

    def step(self, learners: LearnerState, support: Callable[[Parameters], Any]) -> LearnerState:
        """Takes one gradient step, eq. 2 of ML3: `theta_new = h(theta, d/dtheta L_learned)`.

        Args:
            learners: `LearnerState`.
            support: Function `Parameters -> (x, y)` or `(x, y, sample_weight)`, each `[N, B, ...]`: the examples that
                the learners train on. It may depend on the parameters, as a rollout does; gradients flow through it.

        Returns:
            The new `LearnerState`.

        Raises:
            ValueError: The loss does not depend on the learner's parameters.
        """
        theta, non_trainable = learners.parameters
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(theta)
            parameters = Parameters(theta, non_trainable)
            examples = tf.nest.map_structure(tf.convert_to_tensor, support(parameters))
            y: Any
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(examples)
            y_pred, non_trainable, regularizers = self.learner.apply(parameters, x, training=True)
            losses = per_task_loss(self.loss, y, y_pred, sample_weight)
            # Parameters of different tasks do not mix: the gradient of the sum holds the gradient of each task.
            total = tf.reduce_sum(losses + tf.cast(regularizers, losses.dtype))
        scored = [y_pred, y] if y.dtype.is_floating else [y_pred]  # in a rollout y depends on theta too
        gradients, *gradients_of_scored = tape.gradient(total, [theta, *scored])
        if all(gradient is None for gradient in gradients_of_scored):
            raise ValueError(
                f"The loss '{_name(self.loss)}' gives the learner no gradient. Expected a loss that depends on y_pred; "
                "check its network for `stop_gradient` or an input that is not used."
            )
        gradients = [tf.zeros_like(t) if g is None else tf.convert_to_tensor(g) for g, t in zip(gradients, theta)]
        theta, slots = self.optimizer.step(theta, learners.slots, gradients)
        return LearnerState(Parameters(theta, non_trainable), slots)

    def run(self, learners: LearnerState, support: Callable[[Parameters], Any], num_steps: int) -> LearnerState:
        """Takes `num_steps` steps; see `step`. Gradients through many are those of `differentiate`."""
        body = lambda i, learners: (i + 1, self.step(learners, support))
        return tf.while_loop(lambda i, _: i < num_steps, body, (0, learners), maximum_iterations=num_steps)[1]

    def differentiate(
        self,
        learners: LearnerState,
        support: Callable[[Parameters, Any], Any],
        score: Callable[[Parameters], tf.Tensor],
        *,
        num_steps: int,
        variables: Sequence[Any],
        recompute: int | Literal["auto"] = "auto",
    ) -> Sweep:
        """Takes `num_steps` steps, and differentiates the score at their end through all of them.

        Args:
            learners: `LearnerState`.
            support: As in `step`, but a function of the parameters and of the number of the step.
            score: Function of `Parameters` that returns a scalar.
            num_steps: Number of steps.
            variables: The variables to differentiate for.
            recompute: See `sweep`.

        Returns:
            A `Sweep`: the score as "loss", the new `LearnerState` as "carry".
        """
        step = lambda learners, i: self.step(learners, lambda parameters: support(parameters, i))
        num_swept = 0 if num_steps <= MAX_TAPED_STEPS else num_steps - 1

        def end(learners: LearnerState) -> tuple[tf.Tensor, LearnerState]:
            for i in range(num_swept, num_steps):
                learners = step(learners, i)
            return score(learners.parameters), learners

        return sweep(step, end, learners, num_steps=num_swept, variables=variables, recompute=recompute)

    @property
    def vectorized(self) -> bool:
        """Whether the steps of all tasks are one operation."""
        return self.learner.vectorized and self.optimizer.vectorized

    def compile(self, function: Callable[..., Any], *, jit_compile: bool) -> Callable[..., Any]:
        """Compiles a function of structures `[n, ...]` of any number of tasks, and calls it for shares of `N` tasks.

        If the steps are not vectorized, a share is one task: the graph holds one, however many there are. Otherwise
        each core gets a share, because XLA alone keeps one core busy; a GPU gets them all.

        Args:
            function: Function of structures of tensors, returning a structure of tensors whose first axes are to be
                joined.
            jit_compile: Whether to compile with XLA. It is left out for learners with a loop, as recurrent layers have:
                XLA would compile its second derivative anew at every step.

        Returns:
            A function of the same structures `[N, ...]`.
        """
        jit_compile = jit_compile and not self.learner.has_loop
        # TensorFlow would lay a function out at each call of it.
        attributes = None if jit_compile else {"_noinline": True}
        compiled = tf.function(function, autograph=False, jit_compile=jit_compile, experimental_attributes=attributes)
        num_cores = 1 if not jit_compile or tf.config.list_logical_devices("GPU") else os.cpu_count() or 1

        def call(*inputs: Any) -> Any:
            num_tasks = _count_rows(inputs)
            most = num_cores if self.vectorized else num_tasks
            count = max(n for n in range(1, most + 1) if num_tasks % n == 0)
            size = num_tasks // count
            if count == 1:
                return compiled(*inputs)
            share = lambda first: tf.nest.map_structure(lambda values: values[first : first + size], inputs)
            results = [compiled(*share(first)) for first in range(0, num_tasks, size)]
            return tf.nest.map_structure(lambda *values: tf.concat(values, axis=0), *results)

        return call

    def predict(self, parameters: Parameters, x: Any) -> tf.Tensor:
        """Returns predictions `[N, B, ...]` of learners that are not training."""
        return self.learner.predict(parameters, x)


def per_task_loss(
    loss: keras.losses.Loss | Callable[[Any, Any], Any], y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: Any = None
) -> tf.Tensor:
    """Reduces the values of a loss over the examples of each task, as Keras reduces a batch.

    Args:
        loss: A `keras.losses.Loss`, or a function `(y_true, y_pred) -> values`.
        y_true: `[N, B, ...]`.
        y_pred: `[N, B, ...]`.
        sample_weight: Optional, `[N, B]`.

    Returns:
        `[N]`.
    """
    dtype = getattr(loss, "dtype", y_pred.dtype)
    # The weights of a per-set loss weigh its sets, too.
    weights = {"sample_weight": sample_weight} if getattr(loss, "pools_examples", False) else {}
    values: Any = getattr(loss, "call", loss)(tf.cast(y_true, dtype), tf.cast(y_pred, dtype), **weights)  # [N, B, ...]
    over_examples = list(range(1, values.shape.rank))
    reduction = getattr(loss, "reduction", "sum_over_batch_size")
    if sample_weight is not None:
        sample_weight = tf.cast(sample_weight, values.dtype)
        sample_weight = tf.reshape(sample_weight, values.shape[:2] + [1] * (values.shape.rank - 2))
        values *= sample_weight
    if reduction == "sum":
        return tf.reduce_sum(values, over_examples)
    if reduction == "mean_with_sample_weight" and sample_weight is not None:
        weights = tf.reduce_sum(tf.broadcast_to(sample_weight, values.shape), over_examples)
        return tf.math.divide_no_nan(tf.reduce_sum(values, over_examples), weights)
    return tf.reduce_mean(values, over_examples)


def count_tasks(batch: Any) -> int:
    """Returns N of `{"support": ..., "query": ...}`, after a check of its form."""
    if not isinstance(batch, dict) or not {"support", "query"} <= set(batch):
        received = sorted(batch) if isinstance(batch, dict) else type(batch).__name__
        raise ValueError(
            "Tasks are dictionaries {'support': (x, y), 'query': (x, y), ...} of arrays [N, B, ...]; `fit` and "
            f"`evaluate` take a `tf.data.Dataset` of them. Received: {received}"
        )
    shapes = {tuple(tensor.shape) for tensor in tf.nest.flatten([batch["support"], batch["query"]])}
    sizes: set[Any] = {shape[0] if shape else None for shape in shapes}
    if len(sizes) != 1 or None in sizes or any(0 in shape for shape in shapes):
        raise ValueError(
            "All arrays of 'support' and 'query' need the same static, positive number of tasks as their first axis "
            "(batch a dataset with drop_remainder=True), and at least one example. "
            f"Received shapes: {sorted(shapes, key=str)}"
        )
    return sizes.pop()


def _count_rows(inputs: Any) -> int:
    """Returns N of structures of tensors `[N, ...]`: the parameters of the learners, then a batch."""
    first, *others = tf.nest.flatten(inputs)
    shapes = {tuple(values.shape) for values in others if values.shape.rank == 0 or values.shape[0] != first.shape[0]}
    if shapes:
        raise ValueError(
            f"Every array of a batch has one row for each of its {first.shape[0]} tasks. Received arrays of shape "
            f"{', '.join(map(str, sorted(shapes)))}. Repeat what all tasks share, or let a hook hold it."
        )
    return first.shape[0]


def _name(loss: Any) -> str:
    return getattr(loss, "name", None) or getattr(loss, "__name__", repr(loss))
