"""From measurements to advice."""

import math
from collections.abc import Iterator

from ml3_tf.diagnosis._records import NOT_CHECKED, Diagnosis, Finding

HARDLY = 1e-6  # learners move less, and the meta-loss changes their task loss by less: shares of their sizes
EXPLODES = 100.0  # times the norm per step
WORSE = 2.0  # times the task loss at the end of a life
LEARNED = 0.9  # of the task loss at the start: learners that come below have learned something
FITTED = 0.5  # of the task loss on the support: learners that come below have fitted it
OFF = 0.9  # of the units
MOST = 0.5


def find(measured: Diagnosis) -> tuple[Finding, ...]:
    """Returns a `Finding` for everything that is wrong; those that explain others come first."""
    return tuple(
        finding
        for rule in (_layers, _dead, _gradient, _variables, _motion, _explosion, _targets, _query, _drift)
        for finding in rule(measured)
    )


def _layers(measured: Diagnosis) -> Iterator[Finding]:
    for layer in measured.layers:
        if layer.verdict.startswith(NOT_CHECKED) or not any(w in layer.verdict for w in ("missing", "wrong")):
            continue
        is_first = layer.verdict.startswith("first")
        error = layer.first_error if is_first else layer.second_error
        of = layer.kind.replace(": ", "'s ")
        known = "" if math.isnan(error) else f" They are apart by {error:.2%}."
        order = "gradient" if is_first else "gradient's own derivative"
        yield Finding(
            f"Layer '{layer.name}' (the {of}): its {layer.verdict}.",
            f"By itself, its {order} was compared with finite differences in float64.{known}",
            "Look in its code for `tf.stop_gradient`, a rounding or a custom gradient: the meta-gradient is cut there. "
            "Take it out, or train the learner without this layer."
            if is_first
            else "A meta-gradient through it is wrong. `tf.nn.moments` is such a case: use `keras.ops.moments` or "
            "`keras.layers`, which ml3_tf mends, or write the variance as the mean of (x - mean(x))^2. Write other "
            "custom gradients so that they can be differentiated again.",
        )


def _dead(measured: Diagnosis) -> Iterator[Finding]:
    for owner in ("learner", "meta-loss"):
        dead = [layer for layer in measured.layers if layer.kind.startswith(owner) and layer.share_off >= OFF]
        if dead:
            yield Finding(
                f"The {owner}'s layer '{dead[0].name}' is dead: nothing passes it.",
                f"{dead[0].share_off:.0%} of its units are zero for all examples, at a fresh start.",
                "Scale its inputs to about one, start its biases at zero, or take an activation without a flat side: "
                "tanh, silu or softplus.",
            )


def _gradient(measured: Diagnosis) -> Iterator[Finding]:
    norms = list(measured.by_steps.values())
    if norms and not math.isfinite(norms[-1]):
        yield Finding(
            "The meta-gradient is not finite.",
            f"Its norm through {list(measured.by_steps)[-1]:,} steps is {norms[-1]}.",
            "Learners diverge, or tasks hold NaN. Lower the inner learning rate or `unroll`, or clip the inner "
            "gradient (`clipnorm`); `meta_test` names tasks with NaN.",
        )
    elif norms and norms[-1] == 0:
        yield Finding(
            "There is no meta-gradient: nothing can be learned.",
            "Its norm is zero for all variables of the meta-loss.",
            "Look for a dead layer, for inputs of zero, for a task loss without a derivative (an accuracy), and for "
            "`stop_gradient` between the learner's weights and the task loss.",
        )


def _variables(measured: Diagnosis) -> Iterator[Finding]:
    for verdict, problem in (("cut", "is cut off"), ("differs", "is wrong")):
        rows = [row for row in measured.variables if row.verdict == verdict]
        if rows:
            yield Finding(
                f"The meta-gradient {problem} for {', '.join(row.name for row in rows)}.",
                f"Finite differences through {measured.num_checked_steps} steps in float64 differ by up to "
                f"{max(row.error for row in rows):.2%}.",
                "If a layer above is wrong, mend it. Otherwise look at hooks, task loss and inner optimizer: something "
                "stops a gradient there (`tf.stop_gradient`, a cast to integers, an argmax, a NumPy call).",
            )


def _motion(measured: Diagnosis) -> Iterator[Finding]:
    if 0 < measured.motion < HARDLY and measured.sensitivity < HARDLY:
        yield Finding(
            "The learners hardly move, so the meta-loss can change next to nothing.",
            f"They moved by {measured.motion:.1e} of their size within the unroll. Moving the meta-loss by its size "
            f"would change the task loss by {measured.sensitivity:.1e} of it.",
            "Raise the inner learning rate, usually to between 1e-3 and 1, or give the meta-loss a learned one "
            "(`learning_rate=`).",
        )


def _explosion(measured: Diagnosis) -> Iterator[Finding]:
    counts = list(measured.by_steps)
    if measured.growth > EXPLODES:
        yield Finding(
            "The meta-gradient explodes with the number of steps.",
            f"Its norm is {measured.by_steps[counts[0]]:.1e} through {counts[0]:,} step(s), and "
            f"{measured.by_steps[counts[-1]]:.1e} through {counts[-1]:,}.",
            "Lower the inner learning rate, or let the gradient flow through fewer steps (`unroll`). For long lives "
            "use `lives`, or estimate it by `EvolutionStrategies`. The outer optimizer's `global_clipnorm` bounds the "
            "harm.",
        )


def _targets(measured: Diagnosis) -> Iterator[Finding]:
    if measured.constant_targets:
        yield Finding(
            f"The targets of the {' and the '.join(measured.constant_targets)} are constant.",
            "In each task of this batch, all examples have the same target.",
            "A bias alone fits them, so a loss learns nothing else. Check how targets are read, and whether classes "
            "are sorted: draw the examples of a task at random.",
        )


def _query(measured: Diagnosis) -> Iterator[Finding]:
    if measured.query is None:
        return
    (support, fitted), (query, scored), misplaced = measured.query
    share = scored / query if query > 0 else 1.0
    is_fitted = support > 0 and fitted < FITTED * support
    is_misplaced = misplaced > MOST and share > 2 * fitted / max(support, 1e-300)
    if is_fitted and (share > LEARNED or is_misplaced):
        others = f" For {misplaced:.0%} of the tasks, the query of another task suits the learner far better."
        yield Finding(
            "The query does not belong to the task of the support.",
            f"Learners trained on the support by the task loss itself bring it from {support:.2g} to {fitted:.2g} "
            f"there, and from {query:.2g} to {scored:.2g} on the query.{others if is_misplaced else ''}",
            "Draw both parts of a task from the same source, and keep their order through shuffling and batching. If "
            "they do belong together, a support this small does not determine the task: give it more examples.",
        )


def _drift(measured: Diagnosis) -> Iterator[Finding]:
    losses, life = measured.drift, measured.inner_steps
    if life not in losses or not losses[life] < LEARNED * losses[0]:
        return
    late = max(losses)
    if late > life and not losses[late] <= WORSE * losses[life]:
        yield Finding(
            "Learners drift away after the end of their life.",
            f"Their task loss is {losses[life]:.2g} after {life:,} steps, and {losses[late]:.2g} after {late:,}.",
            "Train no longer than the loss was learned for, or learn it for longer lives: `lives=(100, 1000)`.",
        )
