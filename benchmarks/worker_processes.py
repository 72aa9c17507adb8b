"""Steps per second of slow environments, in this process and in processes of their own.

    python benchmarks/worker_processes.py
    python benchmarks/worker_processes.py --num-envs 2 --step-ms 2

An environment's step takes a number of milliseconds of processor time. For each such number and each number of
environments, `rollout_env` collects from gymnasium's `SyncVectorEnv` and from its `AsyncVectorEnv`, which has a process
for each environment, in turn. All of a step of a rollout is timed, the policy and the checks of `rollout_env` included;
the tenth percentile counts, because other programs only slow a step down. Both must give the same samples, bit for bit.
The table has their steps (of one environment) per second, the ratio, the seconds until all processes are there, and the
memory that a process adds (its proportional set size, on Linux).

Run it on an idle machine: a ratio near the number of cores needs all of them. The aim for steps of 2 ms is 1.8 times
with two processes on two cores. Each process imports the head of this file. TensorFlow is not in it.
"""

import functools
import os
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import tyro
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

HORIZON = 50
HEADER = ("step (ms)", "environments", "sync (1/s)", "processes (1/s)", "ratio", "start (s)", "MiB a process")


class SlowEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A point that an action moves, with noise; a step takes `step_ms` milliseconds of processor time."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float64)

    def __init__(self, step_ms: float) -> None:
        self.seconds = step_ms / 1000
        self.position = np.zeros(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = self.np_random.normal(size=2)
        return self.position, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        start = time.thread_time()
        self.position = self.position + 0.1 * action + 0.01 * self.np_random.normal(size=2)
        while time.thread_time() - start < self.seconds:
            pass
        return self.position, -float(np.linalg.norm(self.position)), False, False, {}


def measure(num_envs: int, step_ms: float, num_rollouts: int) -> tuple[float, float, float, float]:
    """Times rollouts in both kinds of vectors, in turn.

    Args:
        num_envs: Number of environments, and of processes.
        step_ms: Processor time of a step of one environment, in milliseconds.
        num_rollouts: Number of rollouts of each.

    Returns:
        Seconds of a step of the vector in one process, and in processes; seconds until these are there; memory of one
        of them (MiB, NaN where the system does not tell).

    Raises:
        RuntimeError: The samples differ.
    """
    from ml3_tf.rl import rollout_env

    makers = [functools.partial(SlowEnv, step_ms)] * num_envs
    start = time.perf_counter()
    workers = AsyncVectorEnv(makers, context="spawn")
    workers.reset()
    start_s, mib = time.perf_counter() - start, memory_mib(workers.processes[0].pid)
    vectors, seconds = (SyncVectorEnv(makers), workers), ([], [])
    for seed in range(num_rollouts):
        rewards = []
        for vector, times in zip(vectors, seconds, strict=True):
            policy = ClockedPolicy()
            rewards.append(rollout_env(policy, vector, horizon=HORIZON, seed=seed).rewards)
            times += np.diff(policy.times).tolist()
        if not np.array_equal(*rewards):
            raise RuntimeError(f"The rewards differ: expected {rewards[0]}. Received from processes: {rewards[1]}")
    for vector in vectors:
        vector.close()
    sync_s, workers_s = (float(np.percentile(times, 10)) for times in seconds)
    return sync_s, workers_s, start_s, mib


class ClockedPolicy:
    """Moves a point to the origin, and notes when it is asked, once in each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        self.times.append(time.perf_counter())
        return -positions


def memory_mib(pid: int | None) -> float:
    """Returns the memory of a process, of which what it shares with others counts in part."""
    path = Path(f"/proc/{pid}/smaps_rollup")
    if not path.is_file():
        return float("nan")
    [line] = [line for line in path.read_text().splitlines() if line.startswith("Pss:")]
    return int(line.split()[1]) / 2**10


def main(
    num_envs: tuple[int, ...] = (2, 16), step_ms: tuple[float, ...] = (0.0, 0.2, 2.0), num_rollouts: int = 10
) -> None:
    """Prints a table in Markdown.

    Args:
        num_envs: Numbers of environments.
        step_ms: Processor times of a step, in milliseconds.
        num_rollouts: Number of rollouts of each kind.
    """
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n\n| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for slow in step_ms:
        for number in num_envs:
            sync, workers, start_s, mib = measure(number, slow, num_rollouts)
            rates = f"{number / sync:,.0f} | {number / workers:,.0f} | {sync / workers:.2f}"
            print(f"| {slow:g} | {number} | {rates} | {start_s:.1f} | {mib:.0f} |", flush=True)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
