"""Meta-test: fresh learners train with a loss, and are scored by the task loss. Algorithm 2 of ML3.

Shape letters: N tasks, B examples of a task.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, overload

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.arguments import Batch, LossesLike, ModelLike, OptimizerLike, check_counts
from ml3_tf.inner_loop import InnerLoop, LearnerState, are_finite, at_step, count_tasks
from ml3_tf.learner import Learner, Parameters
from ml3_tf.meta_loss import get_loss

Metric: TypeAlias = Callable[[Parameters, Batch], Any]


@overload
def meta_test(
    learner: ModelLike | Learner,
    loss: LossesLike,
    optimizer: OptimizerLike,
    tasks: Batch,
    *,
    num_steps: int,
    task_loss: LossesLike = "mse",
    metrics: None = None,
    parameters: keras.Model | Parameters | None = None,
    seed: int | None = None,
    jit_compile: bool = True,
) -> np.ndarray: ...


@overload
def meta_test(
    learner: ModelLike | Learner,
    loss: LossesLike,
    optimizer: OptimizerLike,
    tasks: Batch,
    *,
    num_steps: int,
    task_loss: LossesLike = "mse",
    metrics: Mapping[str, Metric],
    parameters: keras.Model | Parameters | None = None,
    seed: int | None = None,
    jit_compile: bool = True,
) -> dict[str, np.ndarray]: ...


def meta_test(
    learner: ModelLike | Learner,
    loss: LossesLike,
    optimizer: OptimizerLike,
    tasks: Batch,
    *,
    num_steps: int,
    task_loss: LossesLike = "mse",
    metrics: Mapping[str, Metric] | None = None,
    parameters: keras.Model | Parameters | None = None,
    seed: int | None = None,
    jit_compile: bool = True,
) -> np.ndarray | dict[str, np.ndarray]:
    """Trains fresh learners on each task with `loss` alone, and reports the task loss after each step.

    Algorithm 2 of ML3. A baseline takes the same path: pass `"mse"` as `loss`.

    Args:
        learner: A function that builds a Keras model, a model, or a `Learner`. A `Learner` keeps what was compiled
            for it: with one, further calls with other rates, or other values of the tasks, start at once.
        loss: A `MetaLoss`, any other `keras.losses.Loss`, or the name of one. For a model of several outputs it is a
            `LossPerHead`, as is `task_loss`.
        optimizer: Any Keras optimizer, see `InnerOptimizer`.
        tasks: `{"support": (x, y), "query": (x, y)}` of N tasks, each `[N, B, ...]`; or with mini-batches.
        num_steps: Number of gradient steps.
        task_loss: The loss to report, on the query points of each task.
        metrics: Optional further values to report: name -> function `(parameters, tasks)` of the learners'
            `Parameters`, which returns `[N, ...]`, values of each task.
        parameters: Optional start of all learners: `Parameters`, or a model of the learner's architecture, whose
            weights every task starts from.
        seed: Optional integer that determines the fresh parameters. `None`: those that a `Learner` draws next.
        jit_compile: Whether to compile with XLA.

    Returns:
        Array `[num_steps + 1, N]`, the task loss before the first step and after each. With `metrics` a dictionary:
        this array as "loss", and an array `[num_steps + 1, N, ...]` for each metric.

    Raises:
        ValueError: `num_steps` is not positive; `tasks` lacks a part, is a dataset, or holds NaN or infinity.

    Example:

    >>> import keras, ml3_tf
    >>> tasks = next(iter(ml3_tf.sine_tasks(num_tasks=3, seed=1)))
    >>> build = lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    >>> ml3_tf.meta_test(build, "mse", keras.optimizers.SGD(0.01), tasks, num_steps=5).shape
    (6, 3)
    >>> bias = lambda parameters, tasks: parameters.trainable[-1]
    >>> curves = ml3_tf.meta_test(build, "mse", "sgd", tasks, num_steps=5, metrics={"bias": bias})
    >>> curves["loss"].shape, curves["bias"].shape
    ((6, 3), (6, 3, 1))
    """
    check_counts(num_steps=num_steps)
    learner = learner if isinstance(learner, Learner) else Learner(learner)
    loss, task_loss = get_loss(loss), get_loss(task_loss)
    loop = InnerLoop(learner, loss, optimizer)
    if isinstance(tasks, Mapping):
        tasks = tf.nest.map_structure(tf.convert_to_tensor, dict(tasks))
    num_tasks = count_tasks(tasks)
    bad = np.flatnonzero(~are_finite([tasks["support"], tasks["query"]]).numpy())
    if bad.size:
        raise ValueError(f"Tasks must be finite numbers. Received: NaN or infinity in the task(s) {bad.tolist()}")
    if parameters is None:
        parameters = learner.draw(num_tasks, seed=seed)
    elif isinstance(parameters, keras.Model):
        parameters = learner.copies(parameters, num_tasks)
    # The learning rate is a value of the optimizer's slots: a grid of rates shares what the learner keeps.
    functions = loss, getattr(loss, "reduction", None), task_loss, *(metrics or {}).items()
    key = "meta_test", loop.optimizer.signature, functions, num_steps, jit_compile
    if key not in learner.compiled:
        train = _training_function(loop, task_loss, metrics or {}, num_steps)
        learner.compiled[key] = tf.function(loop.compile(train, jit_compile=jit_compile), autograph=False)
    curves = learner.compiled[key](loop.start(num_tasks, parameters), tasks)
    curves = {name: np.swapaxes(curve, 0, 1) for name, curve in curves.items()}
    return curves["loss"] if metrics is None else curves


def _training_function(
    loop: InnerLoop, task_loss: Any, metrics: Mapping[str, Metric], num_steps: int
) -> Callable[[LearnerState, Batch], dict[str, tf.Tensor]]:
    """Returns the function `(learners, tasks) -> curves`, each `[N, num_steps + 1, ...]`."""

    def score(parameters: Parameters, tasks: Any) -> dict[str, tf.Tensor]:
        scores = {"loss": loop.evaluate(task_loss, parameters, tasks["query"])}
        return scores | {name: metric(parameters, tasks) for name, metric in metrics.items()}

    def train(learners: LearnerState, tasks: Any) -> Any:
        def body(i: Any, learners: LearnerState, curves: Any) -> Any:
            examples = at_step(tasks, learners.age)["support"]
            learners = loop.step(learners, lambda _: examples)
            put = lambda curve, value: curve.write(i, value)
            return i + 1, learners, tf.nest.map_structure(put, curves, score(learners.parameters, tasks))

        new_curve = lambda value: tf.TensorArray(value.dtype, num_steps + 1, element_shape=value.shape).write(0, value)
        curves = tf.nest.map_structure(new_curve, score(learners.parameters, tasks))
        loop_variables = 1, learners, curves
        curves = tf.while_loop(lambda i, *_: i <= num_steps, body, loop_variables, maximum_iterations=num_steps)[2]
        tasks_first = lambda values: tf.transpose(values, [1, 0, *range(2, values.shape.rank)])
        return {name: tasks_first(curve.stack()) for name, curve in curves.items()}

    return train
