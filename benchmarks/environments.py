"""Steps per second of many environments at once: the batched form against gymnasium's vectors of the same task.

    python benchmarks/environments.py

For each task and each number of environments it prints steps (of one environment) per second of the clock for the form
on `mujoco.rollout`, for `SyncVectorEnv` and, up to a number of processes, for `AsyncVectorEnv`, and how many times
`SyncVectorEnv`'s the first is. All take the same random actions; they are timed in turn, several times, and the best
time of each counts, as other programs only slow a step down. The last columns count the processor time of this process
instead, in microseconds per step: they change little on a busy machine, and threads do not lower them. For
reference: `Ant-v5` of gymnasium, which observes more and is simulated with RK4, and the same in EnvPool, where it is
installed (`pip install envpool`).

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


def measure(forms, num_envs, num_steps, repeats):
    """Times vectors of environments in turn.

    Args:
        forms: Dict of functions that make a vector of `num_envs` environments.
        num_envs: Number of environments.
        num_steps: Steps of all environments of a vector together, each time.
        repeats: Number of times.

    Returns:
        For each form: the best steps per second of the clock, and the least microseconds of the processor per step.
    """
    vectors = {form: make() for form, make in forms.items()}
    generator = np.random.default_rng(0)
    best = {form: (0.0, np.inf) for form in vectors}
    for vector in vectors.values():
        vector.reset()
    for _, (form, vector) in itertools.product(range(repeats), vectors.items()):
        actions = generator.uniform(-1, 1, (max(5, num_steps // num_envs), num_envs, *action_shape(vector)))
        clock, processor = time.perf_counter(), time.process_time()
        for action in actions:
            vector.step(action)
        count = num_envs * len(actions)
        rate = count / (time.perf_counter() - clock)
        best[form] = max(best[form][0], rate), min(best[form][1], 1e6 * (time.process_time() - processor) / count)
    for vector in vectors.values():
        vector.close()
    return best


def action_shape(vector):
    """Of one environment; EnvPool's `action_space` is that."""
    return getattr(vector, "single_action_space", vector.action_space).shape


def row(label, num_envs, best):
    """One line of the table."""
    rates = [f"{best[form][0]:10,.0f}" if form in best else f"{'-':>10}" for form in MODES]
    ratio = f"{best['batched'][0] / best['sync'][0]:6.1f} x" if "batched" in best else f"{'-':>8}"
    costs = [f"{best[form][1]:8.1f}" if form in best else f"{'-':>8}" for form in ("batched", "sync")]
    return f"{label:30} {num_envs:4}  {'  '.join(rates)}  {ratio}  {'  '.join(costs)}"


def main(
    num_envs: tuple[int, ...] = (1, 16, 64, 256), max_processes: int = 16, num_steps: int = 2000, repeats: int = 5
):
    """Prints a table of steps per second.

    Args:
        num_envs: Numbers of environments.
        max_processes: Largest number of environments for `AsyncVectorEnv`, which starts a process for each.
        num_steps: Steps of all environments together that are timed each time.
        repeats: Number of times.
    """
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    print(f"{'':35}  {'  '.join(f'{form:>10}' for form in MODES)}  {'':8}  processor us a step")
    for name, number in itertools.product(TASKS, num_envs):
        modes = {form: mode for form, mode in MODES.items() if mode != "async" or number <= max_processes}
        forms = {f: lambda m=mode, n=name, k=number: make_gymnasium(n, k, m) for f, mode in modes.items()}
        print(row(name, number, measure(forms, number, num_steps, repeats)), flush=True)
    for number in num_envs:
        best = measure({"sync": lambda k=number: make_gymnasium(REFERENCE, k, "sync")}, number, num_steps // 4, repeats)
        print(row(REFERENCE, number, best), flush=True)
    for number in num_envs:
        try:
            best = measure({"batched": lambda k=number: make_envpool(REFERENCE, k)}, number, num_steps // 4, repeats)
        except ImportError as error:
            print(f"{'EnvPool ' + REFERENCE:30}  not installed ({error.name})")
            break
        print(f"{'EnvPool ' + REFERENCE:30} {number:4}  {best['batched'][0]:10,.0f}", flush=True)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
