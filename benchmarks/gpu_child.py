"""One measurement of `gpu.py`, in a process of its own: prints a line of JSON.

    python benchmarks/gpu_child.py gradient CPU:0 '{"workload": "dense", "num_steps": 1, "jit_compile": true}'

The process sees one device alone, so that everything is placed there, and a CPU shares its work among all cores.
"""

import json
import platform
import statistics
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import rollout
import tensorflow as tf
from peers import ours
from peers.__main__ import peak_mib
from peers.clock import Clock

import ml3_tf

MIB = 2**20
PACKAGES = ("tensorflow", "keras", "numpy")


def list_devices() -> list[str]:
    """Returns the names of the devices that TensorFlow sees, such as "CPU:0"."""
    return [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices()]


def use_device(device: str) -> None:
    """Hides all GPUs but `device`: of "CPU:0" all of them. It comes first in a process."""
    seen = [gpu for gpu in tf.config.list_physical_devices("GPU") if gpu.name.endswith(device)]
    if tf.config.get_visible_devices("GPU") != seen:
        tf.config.set_visible_devices(seen, "GPU")


def describe(device: str) -> dict[str, Any]:
    """Returns the device, as its maker names it, and the versions of all packages and libraries."""
    build = tf.sysconfig.get_build_info()
    libraries = {name: build[f"{name}_version"] for name in ("cuda", "cudnn") if f"{name}_version" in build}
    versions = {"python": platform.python_version(), "ml3_tf": ml3_tf.__version__}
    versions |= {name: version(name) for name in PACKAGES}
    described = {"name": _processor_name()}
    for gpu in tf.config.get_visible_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        capability = ".".join(map(str, details.get("compute_capability", ())))
        described = {"name": details.get("device_name", "GPU"), "compute_capability": capability}
    tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    return {"device": {"seen_as": device, **described, "tensor_float_32": tf32}, "versions": {**versions, **libraries}}


def step(workload: str, num_steps: int, *, jit_compile: bool, steps_per_call: int) -> dict[str, Any]:
    """Returns the seconds of outer steps, and the memory that they took and were estimated to take (MiB).

    Args:
        workload: Name of the workload.
        num_steps: Number of inner steps.
        jit_compile: Whether to compile with XLA.
        steps_per_call: Number of outer steps in one compiled call.
    """
    trainer = ours.make_trainer(workload, num_steps, jit_compile=jit_compile, steps_per_call=steps_per_call)
    run, clock = ours.run_of(trainer, workload), Clock()
    task_loss = run(clock)
    first, *rest = clock.seconds
    memory = {"process_peak_mib": peak_mib(), "device_peak_mib": None}
    if tf.config.list_logical_devices("GPU"):
        memory["device_peak_mib"] = tf.config.experimental.get_memory_info("GPU:0")["peak"] / MIB
    memory["estimate_mib"] = trainer.estimate_memory(ours.make_batch(workload)) / MIB
    return {"first_call_s": first, "call_s": statistics.median(rest), "task_loss": task_loss, **memory}


class GradientAsWeights(keras.optimizers.SGD):
    """An outer optimizer that puts the meta-gradient into the place of the weights of the loss."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self.assign(variable, gradient)


def gradient(workload: str, num_steps: int, *, jit_compile: bool) -> dict[str, Any]:
    """Returns the meta-gradient of the first outer step of `fit`, in float32 without TensorFloat-32.

    The seeds determine the loss, the learners and the tasks, on every device.
    """
    tf.config.experimental.enable_tensor_float_32_execution(False)
    keras.utils.set_random_seed(0)
    trainer = ours.make_trainer(workload, num_steps, jit_compile=jit_compile, optimizer=GradientAsWeights())
    trainer.fit(tf.data.Dataset.from_tensors(ours.make_batch(workload)), verbose=0)
    return {"gradient": [variable.numpy().ravel().tolist() for variable in trainer.meta_loss.trainable_variables]}


def roll_out(horizon: int, outer_steps: int) -> dict[str, Any]:
    """Returns the seconds of the first outer step through rollouts in a model, and of the others."""
    first, others, _ = rollout.measure(lambda: rollout.tensorflow_steps(horizon), outer_steps)
    return {"first_step_s": first, "other_steps_s": others}


MEASUREMENTS = {"describe": describe, "step": step, "gradient": gradient, "roll_out": roll_out}


def measure(name: str, device: str, options: dict[str, Any]) -> dict[str, Any]:
    """Measures on a device. What fails is `{"error": ...}`, as a row of a table.

    Args:
        name: One of `MEASUREMENTS`, or "list_devices".
        device: The device, "GPU:0" or "CPU:0".
        options: Arguments of the measurement.
    """
    if name == "list_devices":
        return {"devices": list_devices()}
    try:
        use_device(device)
        return MEASUREMENTS[name](**({"device": device} if name == "describe" else options))
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"}


def _processor_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))))
