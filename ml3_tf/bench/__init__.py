"""The benchmark of losses, `python -m ml3_tf.bench FOLDER_OR_NAME`, with its data and its statistics.

The modules `statistics`, `tables`, `image_data` and `data_packages` are public, too.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml3_tf.bench.benchmark import BenchmarkSettings, run_benchmark
    from ml3_tf.bench.command import main
    from ml3_tf.bench.task import Problems, Task

__all__ = ["BenchmarkSettings", "Problems", "Task", "main", "run_benchmark"]

_MODULES = {
    "BenchmarkSettings": "benchmark",
    "Problems": "task",
    "Task": "task",
    "main": "command",
    "run_benchmark": "benchmark",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
