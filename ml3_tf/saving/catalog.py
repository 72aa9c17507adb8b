"""The learned losses that ship with ml3_tf, and the versions of any exported loss."""

import dataclasses
import html
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
# An installed wheel carries `savedmodels/` inside the package, a checkout beside it.
SHIPPED = next(
    (path for path in (_PACKAGE / "savedmodels", _PACKAGE.parent / "savedmodels") if path.is_dir()),
    _PACKAGE / "savedmodels",
)


@dataclasses.dataclass(frozen=True)
class ShippedLoss:
    """One learned loss that ships with ml3_tf.

    Args:
        name: The name as `load_meta_loss` takes it.
        versions: The numbers of its versions, in ascending order.
        purpose: The first paragraph of its model card, or an empty text if it has no card.
    """

    name: str
    versions: tuple[int, ...]
    purpose: str


class ShippedLosses(tuple[ShippedLoss, ...]):
    """A tuple of `ShippedLoss`, displayed as a table with one line for each loss: name, versions, purpose."""

    @property
    def names(self) -> list[str]:
        """The names, as `load_meta_loss` takes them."""
        return [loss.name for loss in self]

    def __repr__(self) -> str:
        width = max(map(len, self.names), default=0)
        rows = [(loss.name, ", ".join(map(str, loss.versions)), loss.purpose) for loss in self]
        lines = [f"{name:<{width}}  version {versions}  {purpose}".rstrip() for name, versions, purpose in rows]
        return "\n".join(lines) if lines else "No learned losses are installed."

    def _repr_html_(self) -> str:
        """Returns the table as a notebook shows it."""
        rows = [("name", "versions", "purpose")]
        rows += [(loss.name, ", ".join(map(str, loss.versions)), loss.purpose) for loss in self]
        cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
        return "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"


def list_meta_losses() -> ShippedLosses:
    """Returns the losses that ship with ml3_tf: name, versions and purpose of each, sorted by name.

    The purpose is the first paragraph of the model card, `README.md`, which lies beside the versions.

    Returns:
        A tuple of `ShippedLoss`, which a notebook or a terminal displays as a table. Its property `names` lists the
        names as `load_meta_loss` takes them.

    Example:

    >>> import ml3_tf
    >>> losses = ml3_tf.list_meta_losses()
    >>> "sine" in losses.names
    True
    >>> losses  # doctest: +ELLIPSIS
    ant_model_free ... version 1 ...
    """
    names = list_shipped_names()
    return ShippedLosses(
        ShippedLoss(name, tuple(sorted(find_versions(SHIPPED / name))), _read_purpose(SHIPPED / name / "README.md"))
        for name in names
    )


def list_shipped_names() -> list[str]:
    """Returns the sorted names of the losses that ship with ml3_tf."""
    if not SHIPPED.is_dir():
        return []
    return sorted(path.name for path in SHIPPED.iterdir() if path.is_dir() and not path.name.startswith("."))


def find_versions(folder: Path) -> list[int]:
    """Returns the numbers of the versions in the folder of a loss, in no particular order."""
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()]


def _read_purpose(card: Path) -> str:
    """The first paragraph of a model card that is not a heading, on one line."""
    if not card.is_file():
        return ""
    paragraphs = card.read_text(encoding="utf-8").split("\n\n")
    texts = [" ".join(line for line in text.splitlines() if not line.startswith("#")).strip() for text in paragraphs]
    return next((text for text in texts if text), "")
