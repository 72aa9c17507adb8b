"""Time and memory of one outer step of meta-training: `MetaTrainer.fit` and its peers.

    python benchmarks/meta_step.py
    python benchmarks/meta_step.py --workloads dense --steps 3 30 --frameworks ml3_tf JAX --output runs/meta_step.json

`benchmarks/peers/workloads.py` has a table of the workloads. The outer gradient flows through all inner steps, Adam
moves the learned loss, and every outer step draws fresh learners. Peers (`pip install '.[bench]'`) are written as their
users would write them. They may live in another Python, see `--python-of-peers`. Each measurement has a process of its
own:

| column | meaning |
|---|---|
| first call (s) | tracing, compilation and one outer step; imports and the building of models come before |
| outer step (ms) | median over the calls that follow: about 3 seconds of them, and at least 3 |
| peak (MiB) | the largest memory of the process; imports alone take 250 to 650 MiB, `start_mib` in the JSON |

Where an outer step of `fit` takes less than 100 ms, one call takes ten (`steps_per_execution=10`).

Run it on an idle machine. PyTorch's threads wait for each other actively, so another program on their cores can slow
them down a hundredfold; `OMP_WAIT_POLICY=passive` prevents this.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tyro
from peers.workloads import WORKLOADS

# This process imports no framework: on Linux, the peak of a process begins with that of the process which started it.

Framework = Literal["ml3_tf", "JAX", "torch.func", "higher", "TorchOpt"]
Runner = Callable[[str, str, dict[str, Any]], dict[str, Any]]
WorkloadName = Literal["dense", "lenet", "attention", "gru", "lstm"]

STEPS_PER_CALL = 10
LONG_STEP = 0.1  # seconds, from which a call takes one step
MAX_UNROLLED_STEPS = 10  # beyond, a loop without `scan` takes long to compile
HEADER = ("workload", "inner steps", "method", "first call (s)", "outer step (ms)", "peak (MiB)")
WIDTHS = (9, 11, 31, 14, 15, 10)


class Method(NamedTuple):
    """A way to take the outer step.

    Attributes:
        framework: Its framework.
        name: Its name in the table.
        module: The module of `peers` that has it.
        options: Arguments of the module's `prepare`.
        workloads: The workloads that it is measured on.
        max_steps: The largest number of inner steps that it is measured with.
    """

    framework: Framework
    name: str
    module: str
    options: dict[str, Any]
    workloads: Sequence[str] = tuple(WORKLOADS)
    max_steps: int = sys.maxsize


def list_methods() -> Iterator[Method]:
    for jit_compile in (True, False):
        yield Method("ml3_tf", f"ml3_tf, {'XLA' if jit_compile else 'no XLA'}", "ours", {"jit_compile": jit_compile})
    short = "dense", "attention", "gru"
    yield Method("JAX", "JAX, loop, vmap", "jax_peers", {"unroll": True}, short, MAX_UNROLLED_STEPS)
    for vmap in (True, False):
        for checkpoint in (False, True):
            name = f"JAX, scan, {'vmap' if vmap else 'lax.map'}{', checkpoint' if checkpoint else ''}"
            workloads = tuple(WORKLOADS) if vmap else ("lenet",)
            yield Method("JAX", name, "jax_peers", {"checkpoint": checkpoint, "vmap": vmap}, workloads)
    yield Method("torch.func", "torch.func, vmap", "torch_peers", {}, ("dense", "lenet"))
    yield Method("higher", "higher, loop over tasks", "higher_peers", {}, ("dense",))
    yield Method("TorchOpt", "TorchOpt, loop over tasks", "torchopt_peers", {}, ("dense",))


def run_child(python: str, module: str, options: dict[str, Any]) -> dict[str, Any]:
    """Returns the measurement of `python -m peers`, or `{"error": ...}`."""
    command = [python, "-m", "peers", module, json.dumps(options)]
    child = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    if child.returncode == 0:
        return json.loads(child.stdout.splitlines()[-1])
    reason = f"signal {-child.returncode}" if child.returncode < 0 else child.stderr.strip().split("\n")[-1]
    return {"error": f"does not run: {reason}"}


def measure(
    method: Method, workload: str, num_steps: int, python_of_peers: str, run: Runner = run_child
) -> dict[str, Any]:
    """Measures a method.

    Args:
        method: The `Method`.
        workload: Name of the workload.
        num_steps: Number of inner steps.
        python_of_peers: The Python of all modules but `ours`.
        run: Function of a Python, a module and options that returns a measurement.

    Returns:
        The measurement, with the seconds `step_s` of an outer step in place of those of a call; or `{"error": ...}`.
    """
    options = {"workload": workload, "num_steps": num_steps, **method.options}
    if method.module != "ours":
        steps_per_call, result = 1, run(python_of_peers, method.module, options)
    else:
        for steps_per_call in (1, STEPS_PER_CALL):
            result = run(sys.executable, method.module, {**options, "steps_per_call": steps_per_call})
            if result.get("call_s", LONG_STEP) >= LONG_STEP:
                break
    if "error" not in result:
        result["step_s"] = result.pop("call_s") / steps_per_call
        # As for the peers, the first call counts with one of its steps.
        result["first_call_s"] -= (steps_per_call - 1) * result["step_s"]
    row = {"workload": workload, "inner_steps": num_steps, "framework": method.framework, "method": method.name}
    return {**row, "steps_per_call": steps_per_call, **result}


def as_row(cells: Sequence[str]) -> str:
    padded = [cell.rjust(width) if i > 2 else cell.ljust(width) for i, (cell, width) in enumerate(zip(cells, WIDTHS))]
    return f"| {' | '.join(padded)} |"


def as_cells(result: dict[str, Any]) -> list[str]:
    """Returns the cells of a row; a method that does not run has its reason beside its name."""
    cells = [result["workload"], str(result["inner_steps"]), result["method"]]
    if "error" in result:
        return [*cells[:2], f"{result['method']}: {result['error']}", "", "", ""]
    step_ms = 1000 * result["step_s"]
    digits = 0 if step_ms >= 100 else 1
    return [*cells, f"{result['first_call_s']:.2f}", f"{step_ms:.{digits}f}", f"{result['peak_mib']:.0f}"]


def main(
    workloads: tuple[WorkloadName, ...] = tuple(WORKLOADS),
    steps: tuple[int, ...] = (),
    frameworks: tuple[Framework, ...] = ("ml3_tf", "JAX", "torch.func", "higher", "TorchOpt"),
    python_of_peers: str = sys.executable,
    output: Path | None = None,
) -> None:
    """Prints a table in Markdown, row by row.

    Args:
        workloads: The workloads to measure.
        steps: The numbers of inner steps. Default: those of each workload.
        frameworks: The frameworks to measure.
        python_of_peers: A Python interpreter that has the peers.
        output: A file for the measurements in JSON, with the versions of all packages.
    """
    python = os.path.abspath(shutil.which(python_of_peers) or python_of_peers)
    rows, versions = [], {"python": platform.python_version()}
    print(as_row(HEADER))
    print(f"|{'|'.join('-' * (width + 1) + (':' if i > 2 else '-') for i, width in enumerate(WIDTHS))}|", flush=True)
    for workload in workloads:
        for num_steps in steps or WORKLOADS[workload].inner_steps:
            for method in list_methods():
                is_measured = workload in method.workloads and num_steps <= method.max_steps
                if is_measured and method.framework in frameworks:
                    rows.append(measure(method, workload, num_steps, python))
                    versions |= rows[-1].pop("versions", {})
                    print(as_row(as_cells(rows[-1])), flush=True)
    print(f"\n{os.cpu_count()} cores; {', '.join(f'{name} {number}' for name, number in versions.items())}")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        results = {"num_cores": os.cpu_count(), "versions": versions, "measurements": rows}
        output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
