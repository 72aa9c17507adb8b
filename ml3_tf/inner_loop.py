"""The inner loop: learners of many tasks take optimizer steps on a loss, and gradients flow through all of it."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.counts import check_counts
from ml3_tf.inner_optimizer import InnerOptimizer
from ml3_tf.learner import Learner, Parameters

# Up to so many steps are laid out one after the other in the graph, which runs fastest; more become a `tf.while_loop`,
# whose compile time does not grow with their number.
MAX_UNROLLED_STEPS = 4


class TaskState(NamedTuple):
    """Where the learners of `N` tasks are on their way.

    Attributes:
        parameters: `Parameters` of the learners.
        slots: List of `[N, ...]`, the state of the inner optimizer.
    """

    parameters: Parameters
    slots: list


class InnerLoop:
    """Trains the learners of N tasks at once, as a pure function that can itself be differentiated.

    One step equals `model.compile(optimizer, loss)` and `model.train_on_batch` for each task, to rounding: the loss
    with its reduction and sample weights, the learner's regularisers and state, and the optimizer are those of Keras.

    Args:
        learner: A `Learner`.
        loss: A `MetaLoss`, any other `keras.losses.Loss`, or the name of one.
        optimizer: The inner optimizer, see `InnerOptimizer`.
    """

    def __init__(self, learner, loss, optimizer):
        self.learner = learner
        self.loss = keras.losses.get(loss)
        self.optimizer = InnerOptimizer(optimizer, learner.model.trainable_variables)

    def start(self, num_tasks, parameters=None):
        """Returns the `TaskState` of fresh learners, or of learners with the given `Parameters`."""
        parameters = self.learner.draw(num_tasks) if parameters is None else parameters
        return TaskState(parameters, self.optimizer.initial_slots(num_tasks))

    def step(self, tasks, support):
        """Takes one gradient step, eq. 2 of ML3: `theta_new = h(theta, d/dtheta L_learned)`.

        Args:
            tasks: `TaskState`.
            support: Function `Parameters -> (x, y)` or `(x, y, sample_weight)`, each `[N, B, ...]`: what the learners
                train on. It may depend on the parameters, as a rollout does; gradients flow through it.

        Returns:
            The new `TaskState`.

        Raises:
            ValueError: The loss does not depend on the learner's parameters.
        """
        theta, state = tasks.parameters
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(theta)
            parameters = Parameters(theta, state)
            examples = tf.nest.map_structure(tf.convert_to_tensor, support(parameters))
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(examples)
            y_pred, state, regularisers = self.learner.apply(parameters, x, training=True)
            losses = loss_of_each_task(self.loss, y, y_pred, sample_weight)
            # Parameters of different tasks do not mix: the gradient of the sum holds the gradient of each task.
            total = tf.reduce_sum(losses + tf.cast(regularisers, losses.dtype))
        scored = [y_pred, y] if y.dtype.is_floating else [y_pred]  # in a rollout y depends on theta too
        gradients, *gradients_of_scored = tape.gradient(total, [theta, *scored])
        if all(gradient is None for gradient in gradients_of_scored):
            raise ValueError(
                f"The loss '{_name(self.loss)}' gives the learner no gradient. Expected a loss that depends on y_pred; "
                "check its network for `stop_gradient` or an input that is not used."
            )
        gradients = [tf.zeros_like(t) if g is None else tf.convert_to_tensor(g) for g, t in zip(gradients, theta)]
        theta, slots = self.optimizer.step(theta, tasks.slots, gradients)
        return TaskState(Parameters(theta, state), slots)

    def run(self, tasks, support, steps):
        """Takes `steps` steps; see `step`."""
        return repeat(lambda tasks: self.step(tasks, support), tasks, steps)

    def predict(self, parameters, x):
        """Predictions `[N, B, ...]` of learners that are not training."""
        return self.learner.apply(parameters, x, training=False)[0]


def repeat(step, carry, steps):
    """`step` applied `steps` times to `carry`: laid out in the graph if few, else as a loop."""
    if steps <= MAX_UNROLLED_STEPS:
        for _ in range(steps):
            carry = step(carry)
        return carry
    return tf.while_loop(
        lambda i, _: i < steps, lambda i, carry: (i + 1, step(carry)), (0, carry), maximum_iterations=steps
    )[1]


def loss_of_each_task(loss, y_true, y_pred, sample_weight=None):
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
    values = getattr(loss, "call", loss)(tf.cast(y_true, dtype), tf.cast(y_pred, dtype), **weights)  # [N, B, ...]
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


def meta_test(learner, loss, optimizer, tasks, steps, task_loss="mse", parameters=None, seed=None, jit_compile=True):
    """Trains fresh learners on each task with `loss` alone, and reports the task loss after each step.

    Algorithm 2 of ML3. A baseline takes the same path: pass `"mse"` as `loss`.

    Args:
        learner: As in `MetaTrainer`: a function that builds a Keras model, or a model.
        loss: A `MetaLoss`, any other `keras.losses.Loss`, or the name of one.
        optimizer: Any Keras optimizer, see `InnerOptimizer`.
        tasks: `{"support": (x, y), "query": (x, y)}` of N tasks, each `[N, B, ...]`.
        steps: Number of gradient steps.
        task_loss: What is reported, on the query points of each task.
        parameters: Optional model of the learner's architecture: all tasks start from its weights.
        seed: Optional integer that determines the fresh parameters.
        jit_compile: Whether to compile with XLA.

    Returns:
        Array `[steps + 1, N]`, the task loss before the first step and after each.

    Raises:
        ValueError: `steps` is not positive, or `tasks` lacks a part.

    Example:

    >>> import keras, ml3_tf
    >>> tasks = next(iter(ml3_tf.sine_tasks(num_tasks=3, seed=1)))
    >>> learner = lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    >>> ml3_tf.meta_test(learner, "mse", keras.optimizers.SGD(0.01), tasks, steps=5).shape
    (6, 3)
    """
    check_counts(steps=steps)
    learner = Learner(learner, seed)
    loop = InnerLoop(learner, loss, optimizer)
    task_loss = keras.losses.get(task_loss)
    tasks = tf.nest.map_structure(tf.convert_to_tensor, dict(tasks))
    num_tasks = number_of_tasks(tasks)

    def train(start, tasks):
        def score(state):
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tasks["query"])
            return loss_of_each_task(task_loss, y, loop.predict(state.parameters, x), sample_weight)

        def body(i, state, scores):
            state = loop.step(state, lambda _: tasks["support"])
            return i + 1, state, tf.tensor_scatter_nd_update(scores, [[i]], [score(state)])

        first = score(start)
        scores = tf.concat([first[tf.newaxis], tf.zeros((steps, num_tasks), first.dtype)], axis=0)
        return tf.while_loop(lambda i, *_: i <= steps, body, (1, start, scores), maximum_iterations=steps)[2]

    start = loop.start(num_tasks, None if parameters is None else learner.copies(parameters, num_tasks))
    return np.asarray(tf.function(train, autograph=False, jit_compile=jit_compile)(start, tasks))


def number_of_tasks(tasks):
    """Returns N of `{"support": ..., "query": ...}`, after a check of its form."""
    if not isinstance(tasks, dict) or not {"support", "query"} <= set(tasks):
        received = sorted(tasks) if isinstance(tasks, dict) else type(tasks).__name__
        raise ValueError(
            "Tasks are dictionaries {'support': (x, y), 'query': (x, y), ...} of arrays [N, B, ...]; `fit` and "
            f"`evaluate` take a `tf.data.Dataset` of them. Received: {received}"
        )
    shapes = {tuple(tensor.shape) for tensor in tf.nest.flatten([tasks["support"], tasks["query"]])}
    sizes = {shape[0] if shape else None for shape in shapes}
    if len(sizes) != 1 or None in sizes or any(0 in shape for shape in shapes):
        raise ValueError(
            "All arrays of 'support' and 'query' need the same static, positive number of tasks as their first axis "
            "(batch a dataset with drop_remainder=True), and at least one example. "
            f"Received shapes: {sorted(shapes, key=str)}"
        )
    return sizes.pop()


def _name(loss):
    return getattr(loss, "name", None) or getattr(loss, "__name__", repr(loss))
