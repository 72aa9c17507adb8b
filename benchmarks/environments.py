"""Steps per second of many environments at once: the batched form against gymnasium's vectors of the same task.

    python benchmarks/environments.py

For each task and each number of environments it prints steps (of one environment) per second of the clock for the form
on `mujoco.rollout`, for `SyncVectorEnv` and, up to a number of processes, for `AsyncVectorEnv`, and how many times
`SyncVectorEnv`'s the first is. All take random actions; their calls are timed in turn, and the tenth percentile of the
times counts, as other programs only slow a call down. The last columns count the mean processor time of this process
instead, in microseconds per step: a busy machine changes it little, and threads do not lower it. For reference:
`Ant-v5` of gymnasium, which observes more and is simulated with RK4, and the same in EnvPool, where it is installed
(`pip install envpool==1.1.1`; 1.2.5 was found without files that it reads).

No episode ends while it is timed. What one step costs whatever the number of environments is told by the first row.
"""

import itertools
import os
import time

import gymnasium
import numpy as np
import tyro

import ml3_tf.envs  # noqa: F401 - registers the environments

TASKS = "ml3_tf/ReacherFingertipGoal-v0", "ml3_tf/AntGoal-v0"
REFERENCE = "Ant-v5"
MODES = {"batched": "vector_entry_point", "sync": "sync", "async": "async"}


def make_gymnasium(name, num_envs, mode):
    return gymnasium.make_vec(name, num_envs=num_envs, vectorization_mode=mode, max_episode_steps=10**9)


def make_envpool(name, num_envs):
    import envpool

    return envpool.make_gymnasium(name, num_envs=num_envs, num_threads=min(num_envs, len(os.sched_getaffinity(0))))


def measure(forms, num_envs, calls):
    """Times vectors of environments in turn, call by call.

    Args:
        forms: Dict of functions that make a vector of `num_envs` environments.
        num_envs: Number of environments.
        calls: Number of calls of each.

    Returns:
        For each form: steps per second of the clock, in the fastest tenth of the calls, and microseconds of the
        processor per step, in all.
    """
    vectors = {form: make() for form, make in forms.items()}
    generator = np.random.default_rng(0)
    clock, processor = ({form: [] for form in forms} for _ in range(2))
    for vector in vectors.values():
        vector.reset()
    for _, (form, vector) in itertools.product(range(calls), vectors.items()):
        actions = generator.uniform(-1, 1, (num_envs, *action_shape(vector)))
        start = time.perf_counter(), time.process_time()
        vector.step(actions)
        clock[form].append(time.perf_counter() - start[0])
        processor[form].append(time.process_time() - start[1])
    for vector in vectors.values():
        vector.close()
    return {f: (num_envs / np.percentile(clock[f], 10), 1e6 * np.mean(processor[f]) / num_envs) for f in forms}


def action_shape(vector):
    """Of one environment; EnvPool's `action_space` is that."""
    return getattr(vector, "single_action_space", vector.action_space).shape


def row(label, num_envs, best):
    """One line of the table."""
    rates = [f"{best[form][0]:10,.0f}" if form in best else f"{'-':>10}" for form in MODES]
    ratio = f"{best['batched'][0] / best['sync'][0]:6.1f} x" if "batched" in best else f"{'-':>8}"
    costs = [f"{best[form][1]:8.1f}" if form in best else f"{'-':>8}" for form in ("batched", "sync")]
    return f"{label:30} {num_envs:4}  {'  '.join(rates)}  {ratio}  {'  '.join(costs)}"


def main(num_envs: tuple[int, ...] = (1, 16, 64, 256), max_processes: int = 16, calls: int = 100):
    """Prints a table of steps per second.

    Args:
        num_envs: Numbers of environments.
        max_processes: Largest number of environments for `AsyncVectorEnv`, which starts a process for each.
        calls: Number of timed calls of each vector.
    """
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    print(f"{'':35}  {'  '.join(f'{form:>10}' for form in MODES)}  {'':8}  processor us a step")
    for name, number in itertools.product(TASKS, num_envs):
        modes = {form: mode for form, mode in MODES.items() if mode != "async" or number <= max_processes}
        forms = {f: lambda m=mode, n=name, k=number: make_gymnasium(n, k, m) for f, mode in modes.items()}
        print(row(name, number, measure(forms, number, calls)), flush=True)
    for number in num_envs:
        best = measure({"sync": lambda k=number: make_gymnasium(REFERENCE, k, "sync")}, number, calls)
        print(row(REFERENCE, number, best), flush=True)
    for number in num_envs:
        try:
            best = measure({"batched": lambda k=number: make_envpool(REFERENCE, k)}, number, calls)
        except ImportError as error:
            print(f"{'EnvPool ' + REFERENCE:30}  not installed ({error.name})")
            break
        print(f"{'EnvPool ' + REFERENCE:30} {number:4}  {best['batched'][0]:10,.0f}", flush=True)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
