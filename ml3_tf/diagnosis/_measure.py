"""Measurements on a twin of a trainer: its meta-gradient, and the learners that it trains.

Shape letters: N tasks, B examples of a task.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.diagnosis._differences import compare, worst
from ml3_tf.diagnosis._records import NOT_CHECKED, QueryCheck, VariableCheck
from ml3_tf.diagnosis._twin import Twin, run_once
from ml3_tf.inner_loop import InnerLoop, LearnerState
from ml3_tf.meta_loss import LossPerHead, MetaLoss
from ml3_tf.meta_trainer import MetaTrainer

COUNTS = 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000
MAX_DRIFT_STEPS = 3000
FIT_STEPS, FIT_RATE = 200, 0.01  # of Adam on the task loss, which fits most supports
Gradients = list[tf.Tensor | None]


def meta_gradients(twin: Twin) -> dict[int, Gradients]:
    """Returns the meta-gradient of each variable of the meta-loss by the number of steps that it flows through."""
    unroll = twin.trainer.unroll
    return {count: _meta_gradient(twin, count) for count in [*(n for n in COUNTS if n < unroll), unroll]}


def _meta_gradient(twin: Twin, num_steps: int) -> Gradients:
    is_there: list[bool] = []

    def differentiate(learners: LearnerState, batch: Any) -> Any:
        gradients = twin.trainer.meta_gradient(learners, batch, num_steps=num_steps)[0]
        gradients = gradients[: len(twin.trainer.meta_loss.trainable_variables)]
        is_there[:] = [gradient is not None for gradient in gradients]
        return [tf.zeros([1]), *(gradient[tf.newaxis] for gradient in gradients if gradient is not None)]

    shares = iter(twin.compile(differentiate)(twin.learners, twin.batch)[1:])
    return [tf.reduce_mean(next(shares), axis=0) if known else None for known in is_there]


def norm(gradients: Sequence[tf.Tensor | None]) -> float:
    """Returns the norm of gradients, of which some are missing."""
    present = [gradient for gradient in gradients if gradient is not None]
    return float(tf.linalg.global_norm(present)) if present else 0.0


def check_variables(
    twin: Twin,
    gradients: Gradients,
    checked: Gradients | None,
    names: Sequence[str],
    *,
    num_steps: int,
    num_directions: int,
) -> tuple[VariableCheck, ...]:
    """Compares the meta-gradient of each variable with finite differences.

    Args:
        twin: The twin.
        gradients: The meta-gradient through the unroll.
        checked: The meta-gradient through `num_steps`, which is compared; `None`: nothing is.
        names: The names of the variables.
        num_steps: Number of inner steps that the finite differences go through.
        num_directions: Number of random directions for each variable.
    """
    variables = twin.trainer.meta_loss.trainable_variables
    run = twin.compile(lambda learners, batch: twin.scores(twin.run(learners, batch, num_steps), batch))
    total = lambda: tf.reduce_mean(run(twin.learners, twin.batch))
    draw = np.random.default_rng(0)
    rows = []
    for i, (name, variable) in enumerate(zip(names, variables, strict=True)):
        row = VariableCheck(name, tuple(variable.shape), norm([gradients[i]]), math.nan, NOT_CHECKED)
        if checked is not None:
            ways = [_direction(draw, checked[i], variable) for _ in range(num_directions)]
            comparison = worst([_compare_along(way, variable, checked[i], total) for way in ways])
            row = row._replace(error=comparison.error, verdict=_verdict(comparison.verdict, checked[i] is None))
        rows.append(row)
    return tuple(rows)


def _direction(draw: np.random.Generator, gradient: tf.Tensor | None, variable: keras.Variable) -> np.ndarray:
    """Draws a direction of length one that leads uphill: along the slope, a derivative would be small."""
    way = draw.normal(size=variable.shape)
    way = way / np.linalg.norm(way)
    if gradient is not None and 0 < (length := norm([gradient])) < math.inf:
        uphill = np.asarray(gradient) / length
        way = way * (1.0 if np.sum(way * uphill) >= 0 else -1.0) + uphill
    return way / np.linalg.norm(way)


def _compare_along(
    way: np.ndarray, variable: keras.Variable, gradient: tf.Tensor | None, total: Callable[[], tf.Tensor]
) -> Any:
    value = np.asarray(variable).copy()

    def at(step: float) -> float:
        variable.assign(value + step * way)
        result = float(total())
        variable.assign(value)
        return result

    claimed = 0.0 if gradient is None else float(np.sum(np.asarray(gradient) * way))
    return compare(claimed, lambda step: (at(step) - at(-step)) / (2 * step), abs(at(0.0)))


def _verdict(verdict: str, is_missing: bool) -> str:
    if is_missing and verdict in ("differs", "zero"):
        return "cut" if verdict == "differs" else "no effect"
    return verdict


def known_cuts(twin: Twin) -> list[str]:
    """Returns, in words, where the meta-gradient is cut on purpose between one step and the next."""
    learners, meta_loss, cuts = twin.learners, twin.trainer.meta_loss, []
    losses = meta_loss.learned if isinstance(meta_loss, LossPerHead) else [meta_loss]
    if any(isinstance(loss, MetaLoss) and loss.learning_rate == "network" for loss in losses):
        cuts.append('learning_rate="network" stops the gradient of the rate for predictions')
    theta = learners.parameters.trainable
    moved = learners.parameters._replace(trainable=[values + 0.1 for values in theta])

    def differentiate() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(theta)
            examples = twin.support(learners, twin.batch)(learners.parameters, 0)
        given = [value for value in tf.nest.flatten(examples) if tf.is_tensor(value) and value.dtype.is_floating]
        return tape.gradient(given, theta), examples, twin.support(learners, twin.batch)(moved, 0)

    gradients, examples, others = run_once(differentiate)
    pairs = zip(tf.nest.flatten(examples), tf.nest.flatten(others), strict=True)
    if all(gradient is None for gradient in gradients) and any(
        np.any(np.asarray(a) != np.asarray(b)) for a, b in pairs
    ):
        cuts.append("the examples depend on the learner, as rollouts do, and no gradient flows through them")
    return cuts


def drift(twin: Twin, life: int) -> tuple[dict[int, float], LearnerState]:
    """Trains learners for up to ten lives: their mean task loss by steps, and the learners after the unroll."""
    unroll = twin.trainer.unroll
    ages = {0, unroll, life, *(factor * life for factor in (3, 10) if factor * life <= MAX_DRIFT_STEPS)}
    take = twin.compile(lambda learners, batch, count: twin.run(learners, batch, count[0]))
    score = twin.compile(twin.task_losses)
    age, learners, losses, after_unroll = 0, twin.learners, {}, twin.learners
    for target in sorted(ages):
        learners = take(learners, twin.batch, tf.fill(learners.age.shape, target - age))
        age = target
        if age != unroll or age == life:
            losses[age] = float(np.mean(score(learners, twin.batch)))
        if age == unroll:
            after_unroll = learners
    return losses, after_unroll


def motion(before: LearnerState, after: LearnerState) -> float:
    """Returns how far learners have moved, as a share of the size of their weights; the mean over tasks."""
    flat = lambda learners: np.concatenate(
        [np.reshape(part, (part.shape[0], -1)) for part in learners.parameters.trainable], axis=1
    )
    old, new = flat(before), flat(after)
    return float(np.mean(np.linalg.norm(new - old, axis=1) / (1 + np.linalg.norm(old, axis=1))))


def has_data(trainer: MetaTrainer) -> tuple[bool, bool]:
    """Returns whether support and query are examples with targets, as no hook of a subclass makes something else."""
    of = type(trainer)
    return of.support is MetaTrainer.support, of.compute_task_loss is MetaTrainer.compute_task_loss


def constant_targets(twin: Twin) -> tuple[str, ...]:
    """Returns the parts of the batch, "support" or "query", in which each task has one target alone."""
    found = []
    for part, is_data in zip(("support", "query"), has_data(twin.trainer)):
        y = keras.utils.unpack_x_y_sample_weight(twin.batch[part])[1] if is_data else None
        heads = [np.asarray(head) for head in tf.nest.flatten(y) if tf.is_tensor(head)]
        heads = [head for head in heads if head.size and head.shape[1] > 1]
        if heads and all((head == head[:, :1]).all() for head in heads):
            found.append(part)
    return tuple(found)


def check_query(twin: Twin) -> QueryCheck | None:
    """Trains learners on the support by the task loss itself, and compares their loss on both parts.

    Returns `None` where support or query are made by hooks, or the task loss does not take the targets of the support.
    """
    if has_data(twin.trainer) != (True, True):
        return None
    support, query = ([keras.utils.unpack_x_y_sample_weight(twin.batch[part])[1]] for part in ("support", "query"))
    shapes = lambda part: [head.shape[2:] for head in tf.nest.flatten(part) if tf.is_tensor(head)]
    if not shapes(support) or shapes(support) != shapes(query):
        return None
    loop = InnerLoop(twin.trainer.learner, twin.trainer.task_loss, keras.optimizers.Adam(FIT_RATE))
    num_tasks = twin.learners.age.shape[0]
    start = loop.start(num_tasks, twin.learners.parameters)
    fit = twin.compile(lambda learners, batch: loop.run(learners, twin.support(learners, batch), FIT_STEPS))
    score = twin.compile(lambda learners, examples: loop.evaluate(loop.loss, learners.parameters, examples))
    after, query = fit(start, twin.batch), twin.batch["query"]
    roll = lambda shift: tf.nest.map_structure(lambda rows: tf.roll(rows, -shift, axis=0), query)
    of_support = [float(np.mean(score(learners, twin.batch["support"]))) for learners in (start, after)]
    own, *others = [np.asarray(score(after, roll(shift))) for shift in range(num_tasks)]
    misplaced = float(np.mean(np.min(others, axis=0) < own / 2)) if others else 0.0
    before = float(np.mean(score(start, query)))
    return QueryCheck((of_support[0], of_support[1]), (before, float(own.mean())), misplaced)
