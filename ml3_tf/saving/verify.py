"""Verify an exported loss, and say of each check whether it passed."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Literal

from ml3_tf.saving import _bundle, _manifest
from ml3_tf.saving.errors import ArtifactError
from ml3_tf.saving.load import find_folder, refusal_without_manifest


@dataclasses.dataclass(frozen=True)
class Check:
    """One check of an export.

    Args:
        name: What was checked.
        passed: Whether it passed.
        reason: Why it failed, with the file; an empty text if it passed.
    """

    name: str
    passed: bool
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Verification:
    """The checks of an export, in their order; they end with the first that failed.

    Args:
        folder: The folder of the version.
        sha256: The SHA-256 of its manifest, which `load_meta_loss(expected_sha256=...)` takes; `None`: it could not be
            read.
        checks: A `Check` for each step of loading.
    """

    folder: str
    sha256: str | None
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all checks passed, i.e. whether `load_meta_loss` takes the export."""
        return all(check.passed for check in self.checks)


def verify_export(
    name_or_folder: str | Path,
    *,
    version: int | Literal["latest"] = "latest",
    expected_sha256: str | None = None,
) -> Verification:
    """Returns what `load_meta_loss` checks of an export, and whether each check passed.

    It is the same code that loads a loss, so both agree on what they refuse. The first failed check ends it: later ones
    rely on the earlier ones.

    Args:
        name_or_folder: As in `load_meta_loss`: the name of a shipped loss, the folder of an exported loss, or that of
            one version.
        version: `"latest"`, or the number of a version.
        expected_sha256: Optional SHA-256 of the file `assets.extra/manifest.json`, in hexadecimal digits.

    Returns:
        A `Verification`.

    Raises:
        FileNotFoundError: There is no such loss or version.
        ValueError: `expected_sha256` is not a SHA-256.

    Example:

    >>> verification = verify_export("sine")
    >>> verification.passed, verification.checks[-1].name
    (True, 'self-test: the loss has the recorded values and gradients')
    """
    folder = find_folder(name_or_folder, version)
    begun: list[str] = []
    sha256, reason = None, ""
    try:
        begun.append(f"manifest: {_manifest.MANIFEST}")
        if not os.path.lexists(folder / _manifest.MANIFEST):
            raise refusal_without_manifest(folder)
        with _manifest.open_folder(folder) as descriptor:
            sha256 = hashlib.sha256(_manifest.read_file(descriptor, _manifest.MANIFEST, folder)).hexdigest()
        begun.clear()  # `read` begins with the manifest, too, and pins the one that was just read
        _bundle.read(folder, sha256 if expected_sha256 is None else expected_sha256, begin_check=begun.append)
    except (ArtifactError, OSError) as error:
        reason = str(error)
    checks = [Check(name, True) for name in begun]
    if reason:
        checks[-1] = Check(begun[-1], False, reason)
    return Verification(str(folder), sha256, tuple(checks))
