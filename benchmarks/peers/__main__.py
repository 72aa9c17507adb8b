"""Measures one method, and prints a line of JSON.

python -m peers jax_peers '{"workload": "dense", "num_steps": 3, "checkpoint": true}'
"""

import importlib
import json
import resource
import statistics
import sys
from importlib.metadata import version
from typing import Any

from peers.clock import Clock

PACKAGES = ("ml3_tf", "tensorflow", "keras", "jax", "torch", "higher", "torchopt", "numpy")
BYTES = 1 if sys.platform == "darwin" else 2**10  # the unit of `ru_maxrss`


def peak_mib() -> float:
    """Returns the peak of this process's memory so far; the framework itself is in it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES / 2**20


def measure(module: str, options: dict[str, Any]) -> dict[str, Any]:
    """Measures a method.

    Args:
        module: Name of a module of this package.
        options: The arguments of its `prepare`.

    Returns:
        Seconds of the first call; median seconds of the calls after it, and their number; memory before the first call
        and at the peak (MiB); the mean task loss; versions of the packages.
    """
    run = importlib.import_module(f"peers.{module}").prepare(**options)
    start_mib, clock = peak_mib(), Clock()
    task_loss = run(clock)
    first, *rest = clock.seconds
    return {
        "first_call_s": first,
        "call_s": statistics.median(rest),
        "num_calls": len(rest),
        "start_mib": start_mib,
        "peak_mib": peak_mib(),
        "task_loss": task_loss,
        "versions": {name: version(name) for name in PACKAGES if name in sys.modules},
    }


def main(module: str, options: str) -> None:
    try:
        result = measure(module, json.loads(options))
    except ModuleNotFoundError as error:
        result = {"error": f"not installed ({error.name})"}
    except Exception as error:  # a peer that fails is a row of the table
        message = str(error).strip().split("\n")[0]
        result = {"error": f"does not run: {type(error).__name__}: {message}"}
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
