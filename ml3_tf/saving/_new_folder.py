"""A folder that appears whole or not at all, beside other processes that make folders in the same place."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

PREFIX = ".unfinished-"
TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


@contextlib.contextmanager
def unfinished_folder(parent: Path) -> Iterator[Path]:
    """Yields a new hidden folder in `parent`, and removes it after the block, unless `publish` has moved it.

    Its process holds a lock on it. A folder without one belongs to a process that was killed, and the next call removes
    it.
    """
    for path in parent.glob(f"{PREFIX}*"):
        _remove_abandoned(path)
    path, lock = _create(parent)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def publish(unfinished: Path, names: Iterable[str]) -> Path:
    """Moves a folder to the first of the names that no other process has taken, and returns its new path.

    All its files are on the disk before the move, and the move is when this function returns.
    """
    for path in [*unfinished.rglob("*"), unfinished]:
        _sync(path)
    for name in names:
        path = unfinished.with_name(name)
        try:
            os.rename(unfinished, path)
        except OSError as error:
            if error.errno not in TAKEN:
                raise
            continue
        _sync(path.parent)
        return path
    raise FileExistsError(f"All names are taken in '{unfinished.parent}'.")


def _create(parent: Path) -> tuple[Path, int]:
    """Returns a new folder, and the descriptor that holds its lock."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        with contextlib.suppress(FileNotFoundError):
            lock = _lock(path)
            if path.exists():
                return path, lock
            os.close(lock)
        # Before it was locked, another process took it for abandoned.


def _remove_abandoned(path: Path) -> None:
    with contextlib.suppress(OSError):  # its process lives, or another was faster
        lock = _lock(path, wait=False)
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _lock(path: Path, *, wait: bool = True) -> int:
    """Returns a descriptor that holds the lock of a folder.

    Raises:
        BlockingIOError: Another process holds it, and `wait` is False.
    """
    import fcntl  # not on Windows, where losses can be loaded but not exported

    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
