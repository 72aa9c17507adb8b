"""Steps per second of many environments at once: the batched form against gymnasium's vectors of the same task.

    python benchmarks/environments.py

For each task and each number of environments it prints the steps (of one environment) per second of three forms: the
form on `mujoco.rollout`, `SyncVectorEnv` and, up to a number of processes, `AsyncVectorEnv`. The next column is the
ratio of the first to `SyncVectorEnv`. The last columns are the mean processor time of this process, in microseconds per
step: a busy machine changes it little, and threads do not lower it.

All forms take random actions. Their calls are timed in turn, and the tenth percentile of the times counts, because
other programs only slow a call down. No episode ends while it is timed. The first row of a task shows what a step costs
for any number of environments.

For reference it also prints `Ant-v5` of gymnasium, which observes more and is simulated with RK4. Where EnvPool is
installed (`pip install envpool==1.1.1`; files were missing from 1.2.5), it prints EnvPool's `Ant-v5` too.
"""

import functools
import itertools
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import tyro

import ml3_tf.envs  # noqa: F401 - registers the environments

TASKS = "ml3_tf/ReacherFingertipGoal-v0", "ml3_tf/AntGoal-v0"
REFERENCE = "Ant-v5"
MODES = {"batched": "vector_entry_point", "sync": "sync", "async": "async"}


def make_gymnasium(name: str, *, num_envs: int, mode: str) -> gymnasium.vector.VectorEnv:
    return gymnasium.make_vec(name, num_envs=num_envs, vectorization_mode=mode, max_episode_steps=10**9)


def make_envpool(name: str, *, num_envs: int) -> Any:
    import envpool

    return envpool.make_gymnasium(name, num_envs=num_envs, num_threads=min(num_envs, len(os.sched_getaffinity(0))))


def measure(forms: Mapping[str, Callable[[], Any]], *, num_envs: int, num_calls: int) -> dict[str, tuple[float, float]]:
    """Times vectors of environments in turn, call by call.

    Args:
        forms: Functions that make a vector of `num_envs` environments, by the name of the form.
        num_envs: Number of environments.
        num_calls: Number of calls of each vector.

    Returns:
        For each form: steps per second by the tenth percentile of the call times, and the mean processor time of a
        step, in microseconds.
    """
    vectors = {form: make() for form, make in forms.items()}
    generator = np.random.default_rng(0)
    clock, processor = ({form: [] for form in forms} for _ in range(2))
    for vector in vectors.values():
        vector.reset()
    for _, (form, vector) in itertools.product(range(num_calls), vectors.items()):
        actions = generator.uniform(-1, 1, (num_envs, *action_shape(vector)))
        start = time.perf_counter(), time.process_time()
        vector.step(actions)
        clock[form].append(time.perf_counter() - start[0])
        processor[form].append(time.process_time() - start[1])
    for vector in vectors.values():
        vector.close()
    rates = {form: num_envs / float(np.percentile(seconds, 10)) for form, seconds in clock.items()}
    costs = {form: 1e6 * float(np.mean(seconds)) / num_envs for form, seconds in processor.items()}
    return {form: (rates[form], costs[form]) for form in forms}


def action_shape(vector: Any) -> tuple[int, ...]:
    """Returns the shape of one environment's action, which EnvPool calls `action_space`."""
    return getattr(vector, "single_action_space", vector.action_space).shape


def format_row(label: str, num_envs: int, measured: Mapping[str, tuple[float, float]]) -> str:
    """Returns one line of the table."""
    rates = [f"{measured[form][0]:10,.0f}" if form in measured else f"{'-':>10}" for form in MODES]
    ratio = f"{measured['batched'][0] / measured['sync'][0]:6.1f} x" if "batched" in measured else f"{'-':>8}"
    costs = [f"{measured[form][1]:8.1f}" if form in measured else f"{'-':>8}" for form in ("batched", "sync")]
    return f"{label:30} {num_envs:4}  {'  '.join(rates)}  {ratio}  {'  '.join(costs)}"


def main(num_envs: tuple[int, ...] = (1, 16, 64, 256), max_processes: int = 16, num_calls: int = 100) -> None:
    """Prints a table of steps per second.

    Args:
        num_envs: Numbers of environments.
        max_processes: Largest number of environments for `AsyncVectorEnv`, which starts a process for each.
        num_calls: Number of timed calls of each vector.
    """
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    print(f"{'':35}  {'  '.join(f'{form:>10}' for form in MODES)}  {'':8}  processor us a step")
    for name, number in itertools.product(TASKS, num_envs):
        modes = {form: mode for form, mode in MODES.items() if mode != "async" or number <= max_processes}
        forms = {
            form: functools.partial(make_gymnasium, name, num_envs=number, mode=mode) for form, mode in modes.items()
        }
        print(format_row(name, number, measure(forms, num_envs=number, num_calls=num_calls)), flush=True)
    for number in num_envs:
        forms = {"sync": functools.partial(make_gymnasium, REFERENCE, num_envs=number, mode="sync")}
        print(format_row(REFERENCE, number, measure(forms, num_envs=number, num_calls=num_calls)), flush=True)
    for number in num_envs:
        forms = {"batched": functools.partial(make_envpool, REFERENCE, num_envs=number)}
        try:
            measured = measure(forms, num_envs=number, num_calls=num_calls)
        except ImportError as error:
            print(f"{'EnvPool ' + REFERENCE:30}  not installed ({error.name})")
            break
        print(f"{'EnvPool ' + REFERENCE:30} {number:4}  {measured['batched'][0]:10,.0f}", flush=True)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
