"""Where the jobs of a sweep run: processes of this machine, or a Ray cluster."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from parts.processes import Outcome, run_in_processes, run_job

ROOT = Path(__file__).resolve().parents[2]
Runner: TypeAlias = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Iterator[Outcome]]
"""Function `(function, jobs)` that yields the outcome of each job, as `run_in_processes`."""


@contextlib.contextmanager
def runner(cluster: str | None, num_processes: int | None) -> Iterator[Runner]:
    """Yields the function that runs jobs.

    Args:
        cluster: `"ray"`, or `None` for this machine.
        num_processes: Number of processes at a time. `None`: one for each core of the machine, or of the cluster.

    Raises:
        ImportError: Ray is not installed.
        ValueError: There is no such cluster.
    """
    if cluster is None:
        number = num_processes or len(os.sched_getaffinity(0))
        yield lambda function, jobs: run_in_processes(function, jobs, num_processes=number)
    elif cluster == "ray":
        with _connection() as ray:
            number = num_processes or int(ray.cluster_resources()["CPU"])
            yield lambda function, jobs: _run_on_ray(ray, function, jobs, number)
    else:
        raise ValueError(f"`cluster` expects 'ray' or None. Received: {cluster!r}")


@contextlib.contextmanager
def _connection() -> Iterator[Any]:
    """Yields Ray, connected to the cluster that runs, or to one that it starts on this machine for the time."""
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            f"`--cluster ray` needs Ray, which could not be imported ({error}). Install what is missing: "
            "pip install 'ml3_tf[ray]'"
        ) from error
    is_ours = not ray.is_initialized()
    if is_ours:
        ray.init(log_to_driver=False, logging_level="ERROR")
    try:
        yield ray
    finally:
        if is_ours:
            ray.shutdown()


def _run_on_ray(
    ray: Any, function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], num_processes: int
) -> Iterator[Outcome]:
    """Each job has a process of its own. If one is killed, or its machine is lost, Ray tries that job once more.

    Ray's own backend for joblib is not used: there, a process that is killed ends all jobs.
    """
    folders = os.pathsep.join(str(ROOT / name) for name in (".", "recipes", "tools"))
    task = ray.remote(
        max_calls=1,  # the memory of a job is freed with its process
        max_retries=1,
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": {"PYTHONPATH": folders}},
    )(run_job)
    waiting, running = list(enumerate(jobs)), {}
    while waiting or running:
        while waiting and len(running) < num_processes:
            index, job = waiting.pop(0)
            running[task.remote(function, index, job)] = index
        [done], _ = ray.wait([*running])
        index = running.pop(done)
        try:
            yield ray.get(done)
        except ray.exceptions.RayError as error:
            yield Outcome(index, None, f"{error}\nRay could not finish the job: {type(error).__name__}")
