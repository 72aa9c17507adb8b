"""Times, memory and accuracy of ml3_tf on a GPU: meta-steps, rollouts in a model, and meta-gradients beside a CPU's.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --device GPU:1 --workloads dense gru

It prints three tables, and writes them to `benchmarks/results/<name of the device>.json`:

| table | content |
|---|---|
| meta-step | seconds of the first call, milliseconds of an outer step, the peak of the device's memory, what \
`estimate_memory` had said, and the peak of the process (MiB); the workloads are those of `meta_step.py` |
| rollout | seconds of the first outer step through a rollout of `rollout.py`, and of those that follow |
| meta-gradient | the largest difference between device and CPU, as a share of the length of the gradient |

A difference above 1e-4 is an error, after all has been written. Meta-gradients are compared without TensorFloat-32,
which rounds to three digits; times are with it, as TensorFlow starts. Each measurement has a process of its own, which
sees one device. `--device CPU:0` measures the CPU: its meta-gradients are compared with its own.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from meta_step import Method, WorkloadName, list_methods
from meta_step import measure as measure_step
from peers.workloads import WORKLOADS

TOLERANCE = 1e-4
CHECKED_STEPS = 5  # inner steps that the compared meta-gradients flow through
HORIZONS, OUTER_STEPS = (35, 350), 300  # of the rollouts, as in rollout.py
RESULTS = Path(__file__).parent / "results"
STEP_COLUMNS = ("workload", "inner_steps", "method", "first_call_s", "step_ms")
MEMORY_COLUMNS = ("device_peak_mib", "estimate_mib", "process_peak_mib")
ROLLOUT_COLUMNS = ("horizon", "outer_steps", "first_step_s", "other_steps_s")
GRADIENT_COLUMNS = ("workload", "inner_steps", "jit_compile", "largest_relative_difference")

# Measures by name, device and options. No TensorFlow in this process: it would take all of the GPU's memory.
Child = Callable[[str, str, dict[str, Any]], dict[str, Any]]


def run_child(name: str, device: str, options: dict[str, Any]) -> dict[str, Any]:
    """Returns a measurement of `gpu_child.py`, or `{"error": ...}`."""
    command = [sys.executable, "gpu_child.py", name, device, json.dumps(options)]
    child = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    if child.returncode == 0:
        return json.loads(child.stdout.splitlines()[-1])
    reason = f"signal {-child.returncode}" if child.returncode < 0 else child.stderr.strip().split("\n")[-1]
    return {"error": reason}


def check_device(device: str, seen: Sequence[str]) -> None:
    """Ends the program, with what to do, unless TensorFlow sees the device."""
    if device not in seen:
        raise SystemExit(
            f"`--device` must be a device that TensorFlow sees: expected {device}. Received: {', '.join(seen)}. "
            "Where `nvidia-smi` lists a GPU, install TensorFlow's libraries for it: pip install '.[gpu]'. "
            "`make bench` measures a CPU."
        )


def measure_steps(child: Child, device: str, workload: str, num_steps: int) -> Iterator[dict[str, Any]]:
    """Yields a row for each way of compiling."""
    of_module = lambda python, module, options: child("step", device, options)
    for method in list_methods():
        if method.framework == "ml3_tf":
            yield as_step_row(measure_step(method, workload, num_steps, sys.executable, of_module), method)


def as_step_row(result: dict[str, Any], method: Method) -> dict[str, Any]:
    row = {"workload": result["workload"], "inner_steps": result["inner_steps"], "method": method.name}
    if "error" in result:
        return {**row, "error": result["error"]}
    times = {"first_call_s": result["first_call_s"], "step_ms": 1000 * result["step_s"]}
    return {**row, **times, **{name: result[name] for name in MEMORY_COLUMNS}}


def measure_rollout(child: Child, device: str, horizon: int, outer_steps: int) -> dict[str, Any]:
    options = {"horizon": horizon, "outer_steps": outer_steps}
    return {**options, **child("roll_out", device, options)}


def compare_gradients(child: Child, device: str, workload: str, num_steps: int, jit_compile: bool) -> dict[str, Any]:
    """Returns a row with the largest difference of a variable's meta-gradient, between the device and a CPU."""
    options = {"workload": workload, "num_steps": num_steps, "jit_compile": jit_compile}
    results = [child("gradient", place, options) for place in (device, "CPU:0")]
    row = {"workload": workload, "inner_steps": num_steps, "jit_compile": jit_compile}
    errors = [result["error"] for result in results if "error" in result]
    if errors:
        return {**row, "error": errors[0]}
    received, expected = ([np.array(part) for part in result["gradient"]] for result in results)
    return {**row, "largest_relative_difference": relative_difference(received, expected)}


def relative_difference(received: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Returns the largest difference of an array, as a share of its length.

    An array much shorter than all together may be rounding alone: it is compared with a thousandth of their length.

    >>> relative_difference([np.array([3.0, 4.5]), np.zeros(2)], [np.array([3.0, 4.0]), np.zeros(2)])
    0.1
    """
    least = 1e-3 * np.linalg.norm(np.concatenate(expected))
    if least == 0:
        return float("inf")  # nothing was compared
    pairs = zip(received, expected, strict=True)
    return float(max(np.linalg.norm(a - b) / max(np.linalg.norm(b), least) for a, b in pairs))


def print_row(row: dict[str, Any], columns: Sequence[str]) -> None:
    cells = [f"{value:.4g}" if isinstance(value := row.get(name), float) else str(value) for name in columns]
    print(f"| {' | '.join(cells)} |{' ' + row['error'] if 'error' in row else ''}", flush=True)


def print_table(rows: Iterator[dict[str, Any]], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Prints rows as they come, in Markdown, and returns them."""
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    kept = []
    for row in rows:
        print_row(row, columns)
        kept.append(row)
    return kept


def slug(name: str) -> str:
    """Returns a name for a file.

    >>> slug("NVIDIA H100 80GB HBM3")
    'nvidia_h100_80gb_hbm3'
    """
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def main(
    device: str = "GPU:0",
    workloads: tuple[WorkloadName, ...] = tuple(WORKLOADS),
    steps: tuple[int, ...] = (),
    outer_steps: int = OUTER_STEPS,
    results: Path = RESULTS,
) -> None:
    """Prints the tables and writes the file. Its exit status is 1 without the device, or if a measurement failed.

    Args:
        device: The device, as TensorFlow names it.
        workloads: The workloads to measure.
        steps: The numbers of inner steps to time. Default: those of each workload.
        outer_steps: Outer steps through rollouts.
        results: The folder of the file.
    """
    check_device(device, run_child("list_devices", device, {})["devices"])
    measured = run_child("describe", device, {})
    if "error" in measured:
        raise SystemExit(measured["error"])
    print(f"{measured['device']['name']}; {', '.join(f'{name} {n}' for name, n in measured['versions'].items())}")
    sizes = ((workload, size) for workload in workloads for size in steps or WORKLOADS[workload].inner_steps)
    timed = (row for size in sizes for row in measure_steps(run_child, device, *size))
    measured["meta_step"] = print_table(timed, (*STEP_COLUMNS, *MEMORY_COLUMNS))
    rolled_out = (measure_rollout(run_child, device, horizon, outer_steps) for horizon in HORIZONS)
    measured["rollout"] = print_table(rolled_out, ROLLOUT_COLUMNS)
    pairs = ((workload, jit_compile) for workload in workloads for jit_compile in (True, False))
    compared = (compare_gradients(run_child, device, name, CHECKED_STEPS, jit) for name, jit in pairs)
    measured["meta_gradient"] = print_table(compared, GRADIENT_COLUMNS)
    path = results / f"{slug(measured['device']['name'])}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**measured, "tolerance": TOLERANCE}, indent=2) + "\n")
    print(f"\n{path}")
    if failures := list_failures(measured):
        raise SystemExit("\n".join(failures))


def list_failures(measured: dict[str, Any]) -> list[str]:
    """Returns a line for each measurement that failed, and for each meta-gradient that differs."""
    lines = []
    for table in ("meta_step", "rollout", "meta_gradient"):
        for row in measured[table]:
            what = ", ".join(f"{name} {value}" for name, value in list(row.items())[:3])
            if "error" in row:
                lines.append(f"{table} of {what}: {row['error']}")
            elif not row.get("largest_relative_difference", 0.0) <= TOLERANCE:  # NaN fails, too
                differs = f"{row['largest_relative_difference']:.2g}"
                lines.append(f"{table} of {what}: device and CPU must agree to {TOLERANCE}. Received: {differs}")
    return lines


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
