"""Jobs in processes of their own, by joblib, and runs whose seeds several processes share."""

import contextlib
import contextvars
import ctypes
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

IDLE_SECONDS = 5  # after which a process without a job ends
PR_SET_PDEATHSIG = 1  # of Linux's <sys/prctl.h>

_ONLY_SEED: contextvars.ContextVar[int | None] = contextvars.ContextVar("only_seed", default=None)


class Outcome(NamedTuple):
    """What became of a job."""

    index: int
    """Its place among the jobs."""
    value: Any
    """What its function returned, or `None`."""
    error: str | None
    """The traceback of the error that ended it, or `None`."""


def run_in_processes(
    function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], *, num_processes: int
) -> Iterator[Outcome]:
    """Runs a function once for each job, in spawned processes, and yields each outcome as soon as it is there.

    An error of one job does not end the others. Ctrl-C ends all processes at once, and so does, on Linux, the end of
    this process, whatever ended it. A process takes one job after another; joblib replaces it if jobs have left more
    than 300 MB behind, for which it asks psutil.

    Args:
        function: The function, defined at the top of a module.
        jobs: The arguments of each job.
        num_processes: Number of processes at a time; of one, that is this process.

    Raises:
        RuntimeError: A process was killed, e.g. because memory ran out. All others are ended then.
    """
    parallel = joblib.Parallel(
        n_jobs=max(min(num_processes, len(jobs)), 1),
        return_as="generator_unordered",
        batch_size=1,
        idle_worker_timeout=IDLE_SECONDS,
        initializer=_end_with_parent,
        initargs=(os.getpid(),),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs")  # it was replaced
        try:
            yield from parallel(joblib.delayed(run_job)(function, index, job) for index, job in enumerate(jobs))
        except TerminatedWorkerError as error:
            raise RuntimeError(
                f"One of the {num_processes} processes was killed, perhaps because memory ran out. Run the same "
                "command again: it goes on from here. With fewer --jobs it needs less memory."
            ) from error


def run_job(function: Callable[..., Any], index: int, job: tuple[Any, ...]) -> Outcome:
    """Runs a function with the arguments of a job, and catches its error."""
    try:
        return Outcome(index, function(*job), None)
    except Exception:
        return Outcome(index, None, traceback.format_exc())


class OtherSeedsLeft(Exception):
    """Ends the `main` of a recipe within `only_seed`, once that seed is kept."""


@contextlib.contextmanager
def only_seed(seed: int) -> Iterator[None]:
    """Lets the `main` of a recipe run one of its seeds, and end before its summary: other processes run the others.

    Example::

        with only_seed(103):
            main(settings, seeds=10, first_seed=100, output_dir=folder)  # keeps seeds/seed_103.json
    """
    token = _ONLY_SEED.set(seed)
    try:
        yield
    except OtherSeedsLeft:
        pass
    finally:
        _ONLY_SEED.reset(token)


def seed_of_this_process() -> int | None:
    """Returns the seed of `only_seed`, or `None` outside of it."""
    return _ONLY_SEED.get()


def _end_with_parent(parent: int) -> None:
    """Lets Linux send SIGTERM to this process when its parent ends: a `fit` that resumes saves its run first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("The process that started this one has ended.")
