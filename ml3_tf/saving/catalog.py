"""The learned losses that ship with ml3_tf, and the versions of any exported loss."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
# An installed wheel carries `savedmodels/` inside the package, a checkout beside it.
SHIPPED = next(
    (path for path in (_PACKAGE / "savedmodels", _PACKAGE.parent / "savedmodels") if path.is_dir()),
    _PACKAGE / "savedmodels",
)


def list_meta_losses():
    """Prints the losses that ship with ml3_tf, one line each: name, versions, purpose.

    The purpose is the first paragraph of the model card, `README.md`, that lies beside the versions.

    Returns:
        The names, sorted, as `load_meta_loss` takes them.

    Example:

    >>> import ml3_tf
    >>> names = ml3_tf.list_meta_losses()  # doctest: +ELLIPSIS
    ant_model_free ... version 1 ...
    """
    names = shipped_names()
    for name in names:
        versions = ", ".join(map(str, sorted(find_versions(SHIPPED / name))))
        print(f"{name:<{max(map(len, names))}}  version {versions}  {_purpose(SHIPPED / name / 'README.md')}".rstrip())
    return names


def shipped_names():
    if not SHIPPED.is_dir():
        return []
    return sorted(path.name for path in SHIPPED.iterdir() if path.is_dir() and not path.name.startswith("."))


def _purpose(card):
    """The first paragraph of a model card that is no heading, on one line."""
    if not card.is_file():
        return ""
    paragraphs = card.read_text(encoding="utf-8").split("\n\n")
    texts = [" ".join(line for line in text.splitlines() if not line.startswith("#")).strip() for text in paragraphs]
    return next((text for text in texts if text), "")


def find_versions(directory):
    return [int(path.name) for path in directory.iterdir() if path.name.isdecimal() and path.is_dir()]
