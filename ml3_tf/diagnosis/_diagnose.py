"""The diagnosis of a trainer's meta-gradient on a batch of tasks."""

import dataclasses
import math
import re
from typing import Any

import numpy as np
import tensorflow as tf

from ml3_tf.arguments import Batch, check_counts
from ml3_tf.diagnosis import _measure as measure
from ml3_tf.diagnosis._findings import EXPLODES, find
from ml3_tf.diagnosis._layers import check_layers
from ml3_tf.diagnosis._records import NOT_CHECKED, Diagnosis
from ml3_tf.diagnosis._twin import FLOAT64, Twin, in_float64, make_twin, same_random_state, without_warnings_of_tracing
from ml3_tf.inner_loop import count_tasks
from ml3_tf.meta_trainer import MetaTrainer

MAX_CHECKED_STEPS = 10  # a wrong derivative shows in few; through many, rounding grows


def diagnose(trainer: Any, batch: Batch, *, num_tasks: int = 8, num_directions: int = 2, seed: int = 0) -> Diagnosis:
    """Returns the `Diagnosis` of a trainer; see `MetaTrainer.diagnose`."""
    check_counts(num_tasks=num_tasks, num_directions=num_directions)
    if not isinstance(trainer, MetaTrainer):
        raise NotImplementedError(
            f"`diagnose` compares the meta-gradient with finite differences, and that of {type(trainer).__name__} is "
            "estimated from rollouts, which differ from one call to the next. Expected a `MetaTrainer`, such as "
            "`ml3_tf.rl.ModelBasedTrainer`: diagnose the policy and the loss with a model of the dynamics."
        )
    if not trainer.compiled:
        raise ValueError("`diagnose` needs a compiled trainer: call `trainer.compile(...)` first.")
    if trainer.estimator is not None:
        raise ValueError(
            f"`diagnose` looks at the meta-gradient, which {trainer.estimator} does without. Expected a trainer "
            "without an `estimator`: build one with the same learner, loss and tasks."
        )
    batch = tf.nest.map_structure(tf.convert_to_tensor, dict(batch))
    count = min(num_tasks, count_tasks(batch))
    batch = tf.nest.map_structure(lambda rows: rows[:count], batch)
    with same_random_state(), without_warnings_of_tracing():
        error = None
        with in_float64():
            try:
                twin = make_twin(trainer, batch, seed=seed, dtype=FLOAT64)
                gradients = measure.meta_gradients(twin)
            except Exception as raised:  # whatever layers, hooks and losses raise that do not know float64
                error = raised
            else:
                return _diagnose(trainer, twin, gradients, num_directions=num_directions)
        note = (
            "This trainer does not run in float64, so nothing was compared with finite differences, and layers were "
            "not checked. Write constants of hooks and layers in the dtype of their inputs. The error: "
            f"{type(error).__name__}: {_first_line(error)}"
        )
        twin = make_twin(trainer, batch, seed=seed, dtype=None)
        return _diagnose(trainer, twin, measure.meta_gradients(twin), num_directions=num_directions, notes=(note,))


def _first_line(error: Exception | None) -> str:
    """Returns the line of an error that names a dtype, or else the first; Keras wraps it in others, in color."""
    lines = [re.sub(r"\x1b\[\d*m", "", line).strip() for line in str(error).splitlines()]
    return next((line for line in lines if "float" in line), lines[0] if lines else "")[:200]


def _diagnose(
    trainer: MetaTrainer,
    twin: Twin,
    gradients: dict[int, measure.Gradients],
    *,
    num_directions: int,
    notes: tuple[str, ...] = (),
) -> Diagnosis:
    is_precise = not notes
    cuts = measure.known_cuts(twin)
    num_steps = 1 if cuts else _choose_steps({count: measure.norm(values) for count, values in gradients.items()})
    checks = is_precise and not trainer.inner_loop.optimizer.stops_scale
    unrolled = gradients[trainer.unroll]
    variables = measure.check_variables(
        twin,
        unrolled,
        gradients[num_steps] if checks else None,
        [variable.path for variable in trainer.meta_loss.trainable_variables],
        num_steps=num_steps,
        num_directions=num_directions,
    )
    life = trainer.inner_steps if trainer.lives is None else int(np.max(trainer.lives))
    losses, after = measure.drift(twin, life)
    start = abs(losses[0]) or 1.0
    size = 1 + measure.norm([variable.value for variable in twin.trainer.meta_loss.trainable_variables])
    measured = Diagnosis(
        variables=variables,
        layers=check_layers(twin, trainer.learner.model) if is_precise else (),
        by_steps={count: measure.norm(values) for count, values in gradients.items()},
        drift=losses,
        inner_steps=life,
        num_checked_steps=num_steps,
        motion=measure.motion(twin.learners, after),
        sensitivity=measure.norm(unrolled) * size / start,
        query=measure.check_query(twin),
        constant_targets=measure.constant_targets(twin),
        dtype=twin.dtype,
        notes=(*notes, *_notes(trainer, variables, cuts, num_steps=num_steps, checks=checks or not is_precise)),
    )
    layers = [layer.name for layer in measured.layers if layer.verdict.startswith(NOT_CHECKED)]
    if layers:
        measured = dataclasses.replace(measured, notes=(*measured.notes, f"Not checked by themselves: {layers}."))
    return dataclasses.replace(measured, findings=find(measured))


def _choose_steps(norms: dict[int, float]) -> int:
    """Returns the number of steps to compare finite differences through: few, and none that explode."""
    counts = list(norms)
    shown = [counts[0]]
    for count in counts[1:]:
        if count > MAX_CHECKED_STEPS or not norms[count] / count < EXPLODES * norms[counts[0]] / counts[0]:
            break
        shown.append(count)
    return shown[-1]


def _notes(trainer: MetaTrainer, variables: Any, cuts: list[str], *, num_steps: int, checks: bool) -> list[str]:
    notes = []
    if not checks:
        notes.append(
            "`StopScaleGradient` leaves out a part of the meta-gradient on purpose, so finite differences, which see "
            "it, were not compared."
        )
    if cuts:
        notes.append(
            f"Between steps the meta-gradient is cut on purpose: {'; '.join(cuts)}. Finite differences can be "
            "compared through one step alone."
        )
    elif num_steps < trainer.unroll:
        notes.append(f"Finite differences were compared through {num_steps} of {trainer.unroll:,} steps.")
    if any(row.verdict == "unsettled" for row in variables):
        notes.append(
            "Some finite differences depend on their step: the learner has kinks (ReLU, max-pooling) or the chain of "
            "steps is chaotic. Try a smooth activation to settle it."
        )
    missing = [row.name for row in variables if row.verdict == "no effect"]
    if missing:
        notes.append(f"No step depends on {', '.join(missing)}, as on a constant that is added to a loss.")
    if any(not math.isfinite(row.norm) for row in variables):
        notes.append("Where the meta-gradient is not finite, finite differences say nothing.")
    return notes
