"""The files of an artifact: their names and size limits, and the manifest with the size and SHA-256 of each."""

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ml3_tf import __version__
from ml3_tf.saving import _strict_json
from ml3_tf.saving.errors import ArtifactVersionError, CorruptArtifactError, UnsafeArtifactError

FORMAT_VERSION = 2
MANIFEST = "assets.extra/manifest.json"
DESCRIPTION = "assets.extra/meta_loss.json"
WEIGHTS = "assets.extra/meta_loss.safetensors"
SELF_TEST = "assets.extra/self_test.safetensors"
# The files that an artifact may have, each with its size limit in bytes. Ten million float64 parameters fit.
MAX_SIZES = {
    "saved_model.pb": 64 * 2**20,
    "fingerprint.pb": 4 * 2**10,
    "variables/variables.index": 2**20,
    "variables/variables.data-00000-of-00001": 96 * 2**20,
    "assets.extra/tf_serving_warmup_requests": 64 * 2**20,
    MANIFEST: 64 * 2**10,
    DESCRIPTION: 64 * 2**10,
    WEIGHTS: 96 * 2**20,
    SELF_TEST: 16 * 2**20,
}
OPTIONAL = {"fingerprint.pb", "assets.extra/tf_serving_warmup_requests"}
_FOLDERS = {"variables", "assets", "assets.extra"}
BeginCheck: TypeAlias = Callable[[str], object]
"""Function that is told the name of each check before it runs: the last one named is the one that failed."""
_DIGEST = _strict_json.Field(
    "64 hexadecimal digits in lower case",
    lambda value: type(value) is str and len(value) == 64 and set(value) <= set("0123456789abcdef"),
)


def write(folder: str | Path) -> None:
    """Writes the manifest of all other files in the folder of a version."""
    folder = Path(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = {name: _entry((folder / name).read_bytes()) for name in names if name != MANIFEST}
    manifest = {"format_version": FORMAT_VERSION, "ml3_tf": __version__, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def tell_nobody(check: str) -> None:
    """The `BeginCheck` of those who only want the loss."""


def read(
    folder: str | Path, expected_sha256: str | None = None, begin_check: BeginCheck = tell_nobody
) -> dict[str, bytes]:
    """Returns the contents of the bundle's files, `{name: bytes}`, after checking every file against the manifest.

    Args:
        folder: The folder of one version.
        expected_sha256: Optional SHA-256 of the manifest, in hexadecimal digits.
        begin_check: Function that is told the name of each check before it runs.

    Raises:
        ArtifactError: The artifact is refused, see `ml3_tf.saving.errors`.
        OSError: A file cannot be read.
    """
    begin_check(f"manifest: {MANIFEST}")
    with open_folder(folder) as descriptor:
        data = read_file(descriptor, MANIFEST, folder)
        _check_pin(data, expected_sha256, folder)
        files = _parse(data, f"{folder}/{MANIFEST}")
        begin_check("files: none is missing, and the manifest lists each")
        _check_names(list_files(descriptor, folder), {*files, MANIFEST}, folder)
        return _read_listed(descriptor, files, folder, begin_check)


@contextlib.contextmanager
def open_folder(folder: str | Path) -> Iterator[int]:
    """Opens a folder, which must not be a link, and yields its descriptor.

    A descriptor always means the same folder, even if names change while it is read.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise _to_refusal(error, folder) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_file(descriptor: int, name: str, folder: str | Path) -> bytes:
    """Returns the bytes of a regular file, at most its limit in `MAX_SIZES`; links are not followed.

    Args:
        descriptor: Descriptor of the folder of the version.
        name: Name of the file in it, one of `MAX_SIZES`.
        folder: The path of that folder, for errors.
    """
    path, limit = f"{folder}/{name}", MAX_SIZES[name]
    *parents, last = name.split("/")
    with contextlib.ExitStack() as stack:
        try:
            for parent in parents:
                descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                stack.callback(os.close, descriptor)
            # Without O_NONBLOCK, opening a pipe would wait for a writer.
            opened = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
        except OSError as error:
            raise _to_refusal(error, path) from None
        if not stat.S_ISREG(os.fstat(opened).st_mode):  # before `fdopen`, which refuses a folder in words of its own
            os.close(opened)
            raise UnsafeArtifactError(f"'{path}' is not a regular file.")
        file = stack.enter_context(os.fdopen(opened, "rb"))
        data = file.read(limit + 1) if os.fstat(opened).st_size <= limit else None
    if data is None or len(data) > limit:
        raise UnsafeArtifactError(f"'{path}' is larger than its limit of {limit} bytes.")
    return data


def list_files(descriptor: int, folder: str | Path, prefix: str = "") -> list[str]:
    """Returns the names of all files below an open folder; refuses the first that an artifact cannot have."""
    names = []
    with os.scandir(descriptor) as entries:
        for entry in entries:
            name = prefix + entry.name
            if not prefix and name in _FOLDERS and entry.is_dir(follow_symlinks=False):
                with open_folder_at(descriptor, name, folder) as below:
                    names += list_files(below, folder, f"{name}/")
            elif name not in MAX_SIZES:
                raise UnsafeArtifactError(
                    f"{_strict_json.shorten(f'{folder}/{name}')}: a learned loss has no such file, folder or link."
                )
            else:
                names.append(name)
    return names


@contextlib.contextmanager
def open_folder_at(descriptor: int, name: str, folder: str | Path) -> Iterator[int]:
    """Opens the folder `name` below an open folder, like `open_folder`."""
    try:
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
    except OSError as error:
        raise _to_refusal(error, f"{folder}/{name}") from None
    try:
        yield below
    finally:
        os.close(below)


def _entry(data: bytes) -> dict[str, Any]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _to_refusal(error: OSError, path: str | Path) -> OSError | UnsafeArtifactError:
    """The exception to raise for `error`: a link is refused; any other error stays an `OSError`, with the full path."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
        return UnsafeArtifactError(f"'{path}' is a link, or not a folder. Only regular files and folders are read.")
    return OSError(error.errno, os.strerror(error.errno or 0), str(path))


def _check_pin(data: bytes, expected_sha256: str | None, folder: str | Path) -> None:
    if expected_sha256 is None:
        return
    if not _DIGEST.accepts(expected_sha256):
        raise ValueError(f"`expected_sha256` must be {_DIGEST.expected}. Received: {expected_sha256!r}")
    received = hashlib.sha256(data).hexdigest()
    if received != expected_sha256:
        raise UnsafeArtifactError(
            f"'{folder}/{MANIFEST}' is not the pinned manifest: expected SHA-256 {expected_sha256}. "
            f"Received: {received}"
        )


def _parse(data: bytes, source: str) -> dict[str, dict[str, Any]]:
    manifest = _strict_json.parse(data, source)
    found = manifest.get("format_version") if type(manifest) is dict else None
    if type(found) is int and found > FORMAT_VERSION:  # first: a newer format may have other keys
        raise ArtifactVersionError(
            f"'{source}' has format version {_strict_json.shorten(found, 20)}, but ml3_tf {__version__} reads "
            f"versions up to {FORMAT_VERSION}. Install a newer ml3_tf."
        )
    fields = {
        "format_version": _strict_json.integer(FORMAT_VERSION, FORMAT_VERSION),
        "ml3_tf": _strict_json.TEXT,
        "files": _strict_json.OBJECT,
    }
    _strict_json.check_fields(manifest, fields, source, "the manifest")
    _check_files(manifest["files"], source)
    return manifest["files"]


def _check_files(files: Mapping[str, Any], source: str) -> None:
    allowed = set(MAX_SIZES) - {MANIFEST}
    if not set(files) <= allowed:
        unknown = _strict_json.shorten(sorted(set(files) - allowed))
        raise UnsafeArtifactError(f"'{source}' lists {unknown}, which a learned loss does not have.")
    if not allowed - OPTIONAL <= set(files):
        raise CorruptArtifactError(f"'{source}' does not list {sorted(allowed - OPTIONAL - set(files))}.")
    for name, entry in files.items():
        fields = {"size": _strict_json.integer(0, MAX_SIZES[name]), "sha256": _DIGEST}
        _strict_json.check_fields(entry, fields, source, f"'{name}'")


def _check_names(found: Collection[str], listed: set[str], folder: str | Path) -> None:
    if unlisted := sorted(set(found) - listed):
        raise UnsafeArtifactError(f"'{folder}/{unlisted[0]}' is not listed in {MANIFEST}.")
    if missing := sorted(listed - set(found)):
        raise CorruptArtifactError(f"'{folder}/{missing[0]}' is listed in {MANIFEST}, but missing.")


def _read_listed(
    descriptor: int, files: Mapping[str, Any], folder: str | Path, begin_check: BeginCheck
) -> dict[str, bytes]:
    contents = {}
    for name, expected in files.items():
        begin_check(f"size and SHA-256: {name}")
        data = read_file(descriptor, name, folder)
        received = _entry(data)
        if received != expected:
            raise CorruptArtifactError(
                f"'{folder}/{name}' is not the exported file: expected {expected}. Received: {received}"
            )
        if name in (DESCRIPTION, WEIGHTS, SELF_TEST):
            contents[name] = data
    return contents
