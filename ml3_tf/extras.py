"""Optional packages: an import that fails names the command that installs what is missing."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def needed_for(user: str, packages: str, *, extra: str) -> Iterator[None]:
    """Imports in this block belong to an extra of ml3_tf: their `ImportError` says how to install it.

    Args:
        user: Subject of the sentence: the name or the feature that needs the packages.
        packages: The packages, in words.
        extra: The extra that brings them.

    Raises:
        ImportError: An import of the block failed.

    Example:

    >>> with needed_for("This picture", "matplotlib", extra="plot"):
    ...     import matplotlib
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{user} needs {packages}, which could not be imported ({error}). Install what is missing: "
            f"pip install 'ml3_tf[{extra}]'",
            name=error.name,
        ) from error
