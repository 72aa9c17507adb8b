"""The records of a diagnosis, and how it is printed."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

NOT_CHECKED = "not checked"
WIDTH = 100


class VariableCheck(NamedTuple):
    """The meta-gradient of a variable of the meta-loss.

    Attributes:
        name: The path of the variable.
        shape: Its shape.
        norm: The norm of its meta-gradient through all steps of the unroll.
        error: How far the meta-gradient and finite differences are apart, as a share; the worst direction. NaN: not
            known.
        verdict: "agrees", "differs"; "cut": there is no gradient, though the task loss depends on the variable;
            "no effect": it does not; "zero"; "unsettled": finite differences depend on their step; "not checked".
    """

    name: str
    shape: tuple[int, ...]
    norm: float
    error: float
    verdict: str


class LayerCheck(NamedTuple):
    """The derivatives of a layer of the learner or of the meta-loss, by itself.

    Attributes:
        name: The name of the layer.
        kind: "learner" or "meta-loss", and the class of the layer.
        first_error: How far the gradient and finite differences of the outputs are apart, as a share.
        second_error: How far the Hessian times a direction and finite differences of the gradient are apart.
        share_off: Share of units that are zero for all examples.
        verdict: "agrees", "zero", "unsettled", or what is wrong.
    """

    name: str
    kind: str
    first_error: float
    second_error: float
    share_off: float
    verdict: str


class QueryCheck(NamedTuple):
    """How learners do that are trained on the support by the task loss itself: means over tasks.

    Attributes:
        support: The task loss on the support, before and after.
        query: The task loss on the query, before and after.
        share_misplaced: Share of tasks whose learner does twice as well on the query of another task.
    """

    support: tuple[float, float]
    query: tuple[float, float]
    share_misplaced: float


class Finding(NamedTuple):
    """Something that is wrong.

    Attributes:
        problem: What is wrong.
        evidence: How it was seen.
        remedy: What to do.
    """

    problem: str
    evidence: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `MetaTrainer.diagnose` has found out about a meta-gradient; `print` shows it as tables, with advice.

    `ml3_tf.inspection.plot_diagnosis` draws it.

    Args:
        variables: A `VariableCheck` for each variable of the meta-loss.
        layers: A `LayerCheck` for each layer of the learner and of the meta-loss.
        by_steps: Norm of the meta-gradient by the number of inner steps that it flows through, up to the unroll.
        drift: Mean task loss on the query by the number of steps that learners have taken, up to ten lives.
        inner_steps: Number of steps in a life of a learner.
        num_checked_steps: Number of inner steps that finite differences went through.
        motion: How far learners move within the unroll, as a share of the size of their weights; the mean over tasks.
        sensitivity: The change of the task loss, as a share of it, that moving the meta-loss by its size would make.
        query: A `QueryCheck`; `None` where examples are made by hooks of the trainer.
        constant_targets: Whether all targets of each task are the same: of the "support", of the "query".
        dtype: The dtype of the computations: "float64", unless something did not run in it.
        findings: A `Finding` for everything that is wrong.
        notes: What else you should know.

    Example:

    >>> finding = Finding("The learners hardly move.", "They moved by 1e-10 of their size.", "Raise the inner rate.")
    >>> diagnosis = Diagnosis(findings=(finding,))
    >>> diagnosis.is_healthy
    False
    >>> print(diagnosis.findings[0].remedy)
    Raise the inner rate.
    """

    variables: tuple[VariableCheck, ...] = ()
    layers: tuple[LayerCheck, ...] = ()
    by_steps: Mapping[int, float] = dataclasses.field(default_factory=dict)
    drift: Mapping[int, float] = dataclasses.field(default_factory=dict)
    inner_steps: int = 1
    num_checked_steps: int = 1
    motion: float = math.nan
    sensitivity: float = math.nan
    query: QueryCheck | None = None
    constant_targets: tuple[str, ...] = ()
    dtype: str = "float64"
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_healthy(self) -> bool:
        """Whether there is no finding."""
        return not self.findings

    @property
    def growth(self) -> float:
        """How the meta-gradient grows beyond the number of steps: its norm per step, over that through the first few.

        1 is as it should be: each step adds its part. The first step alone is no measure for Adam, which then has
        nothing but the sign of a gradient.
        """
        counts = list(self.by_steps)
        first = [self.by_steps[count] / count for count in counts if count <= max(2.0, math.sqrt(counts[-1]))]
        return self.by_steps[counts[-1]] / counts[-1] / max(first) if counts and max(first) > 0 else math.nan

    def __str__(self) -> str:
        variables = [(v.name, _shape(v.shape), _number(v.norm), _number(v.error), v.verdict) for v in self.variables]
        layers = [
            (la.name, la.kind, _number(la.first_error), _number(la.second_error), f"{la.share_off:.0%}", la.verdict)
            for la in self.layers
        ]
        steps = [(f"{steps:,}", _number(norm)) for steps, norm in self.by_steps.items()]
        drift = [(f"{steps:,}", _number(loss)) for steps, loss in self.drift.items()]
        findings = [
            f"{i}. {finding.problem}\n   Seen: {finding.evidence}\n   Do: {finding.remedy}"
            for i, finding in enumerate(self.findings, start=1)
        ]
        parts = [
            _table(("variable of the meta-loss", "shape", "gradient", "error", "finite differences"), variables),
            _table(("layer", "of", "error, 1st", "2nd derivative", "units off", "finite differences"), layers),
            _table(("inner steps", "norm of the meta-gradient"), steps),
            _table(("steps of a learner", "task loss on the query"), drift),
            f"Learners move by {_number(self.motion)} of their size. Computed in {self.dtype}.",
            "\n".join(["Findings:", *findings] if findings else ["Findings: none."]),
            "\n".join(["Notes:", *(f"- {note}" for note in self.notes)] if self.notes else []),
        ]
        return "\n\n".join(part for part in parts if part)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    line = lambda row: "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
    return "\n".join(map(line, (header, ["-" * width for width in widths], *rows)))


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"
