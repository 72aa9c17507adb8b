"""The findings of the commands as text for a terminal, and as JSON."""

import json
import textwrap
from collections.abc import Sequence
from typing import Any

from ml3_tf.commands.doctor import Diagnosis
from ml3_tf.commands.losses import ListedLoss, ShownLoss
from ml3_tf.meta_loss import summary_rows
from ml3_tf.saving import Verification

WIDTH = 100  # characters of a line


def to_json(data: Any) -> str:
    """Returns data as JSON.

    >>> print(to_json({"passed": True}))
    {
      "passed": true
    }
    """
    return json.dumps(data, indent=2)


def losses_text(losses: Sequence[ListedLoss]) -> str:
    """Returns a list of losses: for each its name and versions, its purpose and its features."""
    if not losses:
        return "No learned losses are installed."
    return "\n\n".join(map(_listed_text, losses))


def shown_text(shown: ShownLoss) -> str:
    """Returns what a loss has learned: its summary, its formula, and where its figure is."""
    rows = [*summary_rows(shown.summary), ("formula", shown.formula)]
    if shown.output is not None:
        rows.append(("figure", shown.output))
    return "\n".join([shown.summary["name"], *_aligned(rows)])


def verification_text(verification: Verification) -> str:
    """Returns the checks of an export, one on a line, then the result."""
    lines = []
    for check in verification.checks:
        lines.append(f"{'ok' if check.passed else 'FAILED':<8}{check.name}")
        lines += [textwrap.indent(check.reason, " " * 8)] if check.reason else []
    if verification.passed:
        lines.append(f"{verification.folder} is a whole export. SHA-256 of its manifest, to pin it:")
        lines.append(str(verification.sha256))
    else:
        lines.append(f"{verification.folder} is refused; later checks were left out.")
    return "\n".join(lines)


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """Returns the findings about an installation, one on a line, then the result."""
    width = max(len(finding.subject) for finding in diagnosis.findings)
    lines = []
    for finding in diagnosis.findings:
        remedy = f". Remedy: {finding.remedy}" if finding.remedy else ""
        status = "FAILED" if finding.status == "failed" else finding.status
        lines.append(f"{status:<8}{finding.subject:<{width}}  {finding.detail}{remedy}")
    lines.append(
        "All that is needed is there." if diagnosis.passed else "Something that is needed is wrong, see above."
    )
    return "\n".join(lines)


def _listed_text(loss: ListedLoss) -> str:
    features = ", ".join(f"{name} ({width})" for name, width in loss.features.items())
    versions = f"version {', '.join(map(str, loss.versions))}"
    paragraphs = [loss.purpose, f"{loss.mode}: {features}"]
    lines = [line for text in paragraphs for line in textwrap.wrap(text, WIDTH - 4)]
    return "\n".join([f"{loss.name}, {versions}", *(f"    {line}" for line in lines)])


def _aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(label) for label, _ in rows)
    return [f"    {label:<{width}}  {text}" for label, text in rows]
