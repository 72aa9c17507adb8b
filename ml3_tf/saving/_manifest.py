"""The files of an artifact: which there may be, how large, and the manifest that names size and SHA-256 of each."""

import contextlib
import errno
import hashlib
import json
import os
import stat
from pathlib import Path

from ml3_tf.saving.errors import ArtifactVersionError, CorruptArtifactError, UnsafeArtifactError
from ml3_tf.saving import _strict_json
from ml3_tf import __version__

FORMAT_VERSION = 2
MANIFEST = "assets.extra/manifest.json"
DESCRIPTION = "assets.extra/meta_loss.json"
WEIGHTS = "assets.extra/meta_loss.safetensors"
SELF_TEST = "assets.extra/self_test.safetensors"
# Largest size in bytes of each file there may be. Ten million float64 parameters fit.
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
_DIGEST = _strict_json.Field(
    "64 hexadecimal digits in lower case",
    lambda value: type(value) is str and len(value) == 64 and set(value) <= set("0123456789abcdef"),
)


def write(version):
    """Writes the manifest of all else that lies in the folder `version`."""
    version = Path(version)
    names = sorted(path.relative_to(version).as_posix() for path in version.rglob("*") if path.is_file())
    files = {name: _entry((version / name).read_bytes()) for name in names if name != MANIFEST}
    manifest = {"format_version": FORMAT_VERSION, "ml3_tf": __version__, "files": files}
    (version / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def read(version, expected_sha256=None):
    """Returns the contents of the bundle's files, `{name: bytes}`, once every file is found as the manifest says.

    Args:
        version: The folder of one version.
        expected_sha256: Optional SHA-256 of the manifest, in hexadecimal digits.

    Raises:
        ArtifactError: See `ml3_tf.saving.errors`.
        OSError: A file cannot be read.
    """
    with open_folder(version) as folder:
        data = read_file(folder, MANIFEST, version)
        _check_pin(data, expected_sha256, version)
        files = _parse(data, f"{version}/{MANIFEST}")
        _check_names(list_files(folder, version), {*files, MANIFEST}, version)
        return _read_listed(folder, files, version)


@contextlib.contextmanager
def open_folder(path):
    """A descriptor of a folder that is no link: what is read through it stays the same folder when names change."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise _refusal(error, path) from None
    try:
        yield folder
    finally:
        os.close(folder)


def read_file(folder, name, version):
    """Returns the bytes of a regular file of at most its size in `MAX_SIZES`; links are not followed."""
    path, limit = f"{version}/{name}", MAX_SIZES[name]
    *parents, last = name.split("/")
    with contextlib.ExitStack() as stack:
        try:
            for parent in parents:
                folder = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                stack.callback(os.close, folder)
            # Without O_NONBLOCK, opening a pipe would wait for a writer.
            opened = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except OSError as error:
            raise _refusal(error, path) from None
        file = stack.enter_context(os.fdopen(opened, "rb"))
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise UnsafeArtifactError(f"'{path}' is no regular file.")
        data = file.read(limit + 1) if os.fstat(opened).st_size <= limit else None
    if data is None or len(data) > limit:
        raise UnsafeArtifactError(f"'{path}' is larger than the {limit} bytes that are read of it.")
    return data


def list_files(folder, version, prefix=""):
    """Returns the names of all files; the first that a version cannot have is refused."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if not prefix and name in _FOLDERS and entry.is_dir(follow_symlinks=False):
                with open_folder_at(folder, name, version) as below:
                    names += list_files(below, version, f"{name}/")
            elif name not in MAX_SIZES:
                raise UnsafeArtifactError(
                    f"{_strict_json.shorten(f'{version}/{name}')}: a learned loss has no such file, folder or link."
                )
            else:
                names.append(name)
    return names


@contextlib.contextmanager
def open_folder_at(folder, name, version):
    """`open_folder` of a folder below `folder`."""
    try:
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        raise _refusal(error, f"{version}/{name}") from None
    try:
        yield below
    finally:
        os.close(below)


def _entry(data):
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _refusal(error, path):
    """What to raise for `error`: a link is refused, anything else stays a file problem, with the whole path."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
        return UnsafeArtifactError(f"'{path}' is a link, or no folder. Only regular files and folders are read.")
    return OSError(error.errno, os.strerror(error.errno), str(path))


def _check_pin(data, expected_sha256, version):
    if expected_sha256 is None:
        return
    if not _DIGEST.accepts(expected_sha256):
        raise ValueError(f"`expected_sha256` must be {_DIGEST.expected}. Received: {expected_sha256!r}")
    received = hashlib.sha256(data).hexdigest()
    if received != expected_sha256:
        raise UnsafeArtifactError(
            f"'{version}/{MANIFEST}' is not the one that was pinned: expected SHA-256 {expected_sha256}. "
            f"Received: {received}"
        )


def _parse(data, source):
    manifest = _strict_json.parse(data, source)
    found = manifest.get("format_version") if type(manifest) is dict else None
    if type(found) is int and found > FORMAT_VERSION:  # first: a newer format may have other keys
        raise ArtifactVersionError(
            f"'{source}' has format version {_strict_json.shorten(found, 20)}, and this ml3_tf {__version__} reads up "
            f"to {FORMAT_VERSION}. Install a newer ml3_tf."
        )
    fields = {
        "format_version": _strict_json.integer(FORMAT_VERSION, FORMAT_VERSION),
        "ml3_tf": _strict_json.TEXT,
        "files": _strict_json.OBJECT,
    }
    _strict_json.check_fields(manifest, fields, source, "the manifest")
    _check_files(manifest["files"], source)
    return manifest["files"]


def _check_files(files, source):
    allowed = set(MAX_SIZES) - {MANIFEST}
    if not set(files) <= allowed:
        unknown = _strict_json.shorten(sorted(set(files) - allowed))
        raise UnsafeArtifactError(f"'{source}' lists {unknown}, which a learned loss does not have.")
    if not allowed - OPTIONAL <= set(files):
        raise CorruptArtifactError(f"'{source}' does not list {sorted(allowed - OPTIONAL - set(files))}.")
    for name, entry in files.items():
        fields = {"size": _strict_json.integer(0, MAX_SIZES[name]), "sha256": _DIGEST}
        _strict_json.check_fields(entry, fields, source, f"'{name}'")


def _check_names(found, listed, version):
    if unlisted := sorted(set(found) - listed):
        raise UnsafeArtifactError(f"'{version}/{unlisted[0]}' is not listed in {MANIFEST}.")
    if missing := sorted(listed - set(found)):
        raise CorruptArtifactError(f"'{version}/{missing[0]}' is listed in {MANIFEST}, but missing.")


def _read_listed(folder, files, version):
    contents = {}
    for name, expected in files.items():
        data = read_file(folder, name, version)
        received = _entry(data)
        if received != expected:
            raise CorruptArtifactError(
                f"'{version}/{name}' is not the file that was exported: expected {expected}. Received: {received}"
            )
        if name in (DESCRIPTION, WEIGHTS, SELF_TEST):
            contents[name] = data
    return contents
