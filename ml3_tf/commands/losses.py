"""What the command says of losses: which are shipped, their cards, and what one has learned."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml3_tf.meta_loss import MetaLoss, summarize
from ml3_tf.saving import catalog, list_meta_losses, load_meta_loss


@dataclasses.dataclass(frozen=True)
class ListedLoss:
    """A shipped loss in a list.

    Args:
        name: Its name.
        versions: The numbers of its versions.
        purpose: What it is for, in a sentence.
        mode: How it reads examples, as in `MetaLoss`.
        features: The width of each feature, by name.
    """

    name: str
    versions: list[int]
    purpose: str
    mode: str
    features: dict[str, int]


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """The model card of a shipped loss.

    Args:
        name: The name of the loss.
        file: The path of the card.
        text: The card, in Markdown.
    """

    name: str
    file: str
    text: str


@dataclasses.dataclass(frozen=True)
class ShownLoss:
    """What a loss has learned.

    Args:
        summary: The loss in short, see `ml3_tf.meta_loss.summarize`.
        formula: The line of `ml3_tf.inspection.explain`.
        terms: The terms of the formula.
        coefficients: The coefficient of each term.
        r_squared: The share of the squared gradient that the terms account for.
        region: Where that holds.
        output: The file of the figure; `None`: none was drawn.
    """

    summary: dict[str, Any]
    formula: str
    terms: tuple[str, ...]
    coefficients: tuple[float, ...]
    r_squared: float
    region: str
    output: str | None = None


def list_losses() -> list[ListedLoss]:
    """Returns the shipped losses, sorted by name.

    Raises:
        ml3_tf.saving.ArtifactError: A shipped loss is damaged.

    Example:

    >>> [loss.features for loss in list_losses() if loss.name == "sine"]
    [{'y_pred': 1, 'y_true': 1}]
    """
    found = []
    for shipped in list_meta_losses():
        loss = load_meta_loss(shipped.name)
        found.append(ListedLoss(shipped.name, list(shipped.versions), shipped.purpose, loss.mode, dict(loss.features)))
    return found


def read_card(name: str) -> ModelCard:
    """Returns the model card of a shipped loss.

    Raises:
        FileNotFoundError: There is no such loss, or it has no card.

    Example:

    >>> read_card("sine").text.splitlines()[0]
    '# sine'
    """
    names = catalog.list_shipped_names()
    file = catalog.SHIPPED / name / "README.md"
    if name not in names or not file.is_file():
        raise FileNotFoundError(f"There is no model card for '{name}'. Expected the name of a shipped loss: {names}.")
    return ModelCard(name, str(file), file.read_text(encoding="utf-8"))


def parse_fixed(text: str | None) -> dict[str, list[float | None]] | None:
    """Returns the value of the flag `--fixed`.

    Raises:
        ValueError: It is not a JSON object of lists of numbers and nulls.

    Example:

    >>> parse_fixed('{"state": [0.5, null]}')
    {'state': [0.5, None]}
    """
    if text is None:
        return None
    try:
        fixed = json.loads(text)
    except json.JSONDecodeError as error:
        fixed = error
    is_number = lambda value: value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
    if not isinstance(fixed, dict) or not all(isinstance(v, list) and all(map(is_number, v)) for v in fixed.values()):
        raise ValueError(
            "`--fixed` must be a JSON object with a list of numbers for each feature, null for a free one, such as "
            f"""'{{"state": [0.1, 0.2], "goal": [null, 0.0]}}'. Received: {text}"""
        )
    return fixed


def show_loss(
    name_or_folder: str, *, output: Path | None = None, fixed: Mapping[str, Sequence[float | None]] | None = None
) -> ShownLoss:
    """Returns what a loss has learned, and draws it into a file on request.

    A loss of single outputs is taken for one of probabilities, as `plot_meta_loss` does.

    Args:
        name_or_folder: Name of a shipped loss, or folder of an exported one.
        output: Optional file for the figure, in a format of matplotlib.
        fixed: For a loss of more than one target and one prediction, the other features, as in `explain`.

    Raises:
        FileNotFoundError: There is no such loss, or no folder for the figure.
        ImportError: A figure needs matplotlib, of the extra `[plot]`.
        ValueError: The loss has no formula of one prediction and one target, the file has an unknown format, or the
            export is refused.

    Example:

    >>> show_loss("sine").formula.startswith("loss ≈ ")
    True
    """
    loss = load_meta_loss(name_or_folder)
    from ml3_tf import inspection
    from ml3_tf.inspection.task_kinds import CLASSES, CLASSIFICATION, RANGES, kind_of

    kind = kind_of(loss)
    targets = CLASSES if kind == CLASSIFICATION else None
    try:
        explanation = inspection.explain(loss, y_range=RANGES[kind], targets=targets, fixed=fixed)
    except ValueError as error:
        raise ValueError(_refusal(loss, error)) from error
    if output is not None:
        inspection.plot_meta_loss(loss, fixed=fixed).savefig(output)
    return ShownLoss(
        summarize(loss), str(explanation), **vars(explanation), output=None if output is None else str(output)
    )


def _refusal(loss: MetaLoss, error: ValueError) -> str:
    """The words about a loss of which a plane of one target and one prediction shows too little."""
    remedy = "" if loss.pools_examples else " Give their values to the flag --fixed, as JSON."
    if loss.name in catalog.list_shipped_names():
        remedy += f" Its model card has a figure: ml3-tf card {loss.name}"
    return f"'{loss.name}' cannot be shown. {error}{remedy}"
