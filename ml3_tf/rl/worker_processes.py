"""The processes of an `AsyncVectorEnv`, one for each environment: which of them failed, by what, and their end.

gymnasium raises one error of a worker and does not say whose it is. It waits without end for an error that cannot be
pickled, and, when it is closed, for a worker that has died.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import time
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gymnasium

POLL = 0.2  # s between two looks at workers whose error has not come
GRACE = 5.0  # s that workers have to end by themselves


def has_workers(env: Any) -> bool:
    """Returns whether each environment of a vector lives in a process of its own."""
    return hasattr(_vector(env), "processes")


def watch_workers(env: gymnasium.vector.VectorEnv) -> None:
    """Lets `worker_failure` know the errors of the workers that fail from now on; other vectors stay as they are."""
    vector = _vector(env)
    if has_workers(env) and not isinstance(vector.error_queue, WorkerErrors):
        vector.error_queue = WorkerErrors(vector.error_queue, vector.processes)


def worker_failure(env: gymnasium.vector.VectorEnv, error: Exception) -> str | None:
    """Returns which environments failed in their processes, and how, as the end of a sentence.

    Args:
        env: `gymnasium.vector.VectorEnv`, see `watch_workers`.
        error: What a method of it raised.

    Returns:
        For example "raised ValueError in environment 3: a joint is beyond its limit". `None` if no worker has failed.

    Example:

    >>> import gymnasium
    >>> env = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    >>> worker_failure(env, ValueError("not of a worker")) is None
    True
    """
    vector = _vector(env)
    if not has_workers(env):
        return None
    raised: dict[int, str] = getattr(vector.error_queue, "errors", {})
    if raised:
        return "; ".join(f"raised {raised[index]}" for index in sorted(raised))
    if not isinstance(error, (EOFError, OSError)):  # what a pipe raises whose other end is gone
        return None
    ended = connection.wait([process.sentinel for process in vector.processes], timeout=GRACE)
    endings = []
    for index, process in enumerate(vector.processes):
        if process.sentinel in ended:
            process.join(GRACE)  # its exit code comes a moment later
            endings.append(f"the process of environment {index} ended by {_ending(process.exitcode)}")
    return f"failed: {'; '.join(endings)}" if endings else None


def close_failed(env: gymnasium.vector.VectorEnv) -> None:
    """Closes a vector that is at fault, whatever that raises, and ends its processes.

    Workers that still run have `GRACE` seconds to close their environments.
    """
    vector = _vector(env)
    if not has_workers(env):
        with contextlib.suppress(Exception):
            env.close()
        return
    pipes = [pipe for pipe in vector.parent_pipes if pipe is not None and not pipe.closed]
    for pipe in pipes:
        with contextlib.suppress(OSError):  # of those that have died
            pipe.send(("close", None))
    deadline = time.monotonic() + GRACE
    for process in vector.processes:
        process.join(max(deadline - time.monotonic(), 0))
    for pipe in pipes:
        pipe.close()  # else `close` waits for an answer to the last call
    with contextlib.suppress(Exception):
        env.close(terminate=True)


class WorkerErrors:
    """Stands in for the queue by which the workers of an `AsyncVectorEnv` send their errors.

    Args:
        sent: The queue.
        processes: The workers, in the order of the environments.

    Attributes:
        errors: What has come, in words, by the index of the environment.
    """

    def __init__(self, sent: Any, processes: list[Any]) -> None:
        self._sent = sent
        self._processes = processes
        self.errors: dict[int, str] = {}

    def get(self) -> tuple[int, Any, Any, str]:
        """Returns index, type, value and trace of the next error; in place of one that cannot be sent, a notice."""
        unreadable = "cannot be pickled; its worker has printed it"
        while True:
            # Looked at first: an error that was sent has come before its worker ended.
            ended = [n for n, process in enumerate(self._processes) if not process.is_alive() and n not in self.errors]
            try:
                index, kind, value, trace = self._sent.get(timeout=POLL)
            except queue.Empty:
                if ended:
                    notice = f"an error in environment {ended[0]} that {unreadable}"
                    self.errors[ended[0]] = notice
                    return ended[0], RuntimeError, notice, notice
            except Exception as error:  # the class of the error cannot be built from what was sent
                unreadable = f"cannot be unpickled ({type(error).__name__}: {error})"
            else:
                self.errors[index] = f"{kind.__name__} in environment {index}: {value}"
                return index, kind, value, trace


def _vector(env: Any) -> Any:
    """Returns the vector within wrappers, which do not pass on all of its attributes."""
    return getattr(env, "unwrapped", env)


def _ending(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    number = -exit_code
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"{name}, perhaps because memory ran out" if number == signal.SIGKILL else name
