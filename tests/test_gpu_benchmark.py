"""Tests of `benchmarks/gpu.py` on the CPU: all but the GPU itself."""

import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

ROOT = Path(__file__).parents[1]
TINY = ("--device", "CPU:0", "--workloads", "dense", "--steps", "1", "--outer-steps", "2")


@pytest.fixture(scope="module")
def modules():
    """`gpu` and `gpu_child`, which import their neighbors as programs do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("gpu"), importlib.import_module("gpu_child")


@pytest.fixture
def gpu(modules, monkeypatch):
    """`gpu` at toy size, with all measurements in this process."""
    gpu, gpu_child = modules
    methods = [method for method in gpu.list_methods() if method.name == "ml3_tf, no XLA"]
    monkeypatch.setattr(gpu, "list_methods", lambda: methods)
    monkeypatch.setattr(gpu, "run_child", gpu_child.measure)
    monkeypatch.setattr(gpu, "CHECKED_STEPS", 1)
    monkeypatch.setattr(gpu, "HORIZONS", (3,))
    monkeypatch.setattr("peers.clock.MIN_SECONDS", 0.0)
    yield gpu
    tf.config.experimental.enable_tensor_float_32_execution(True)


def test_a_machine_without_a_gpu_is_told(gpu, tmp_path):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("here is one")
    with pytest.raises(SystemExit, match=r"sees: expected GPU:0. Received: CPU:0. .*pip install '.\[gpu\]'") as caught:
        gpu.main(results=tmp_path)
    assert isinstance(caught.value.code, str)  # Python prints it, and the exit status is 1
    assert list(tmp_path.iterdir()) == []


def test_all_tables_are_printed_and_written(gpu, tmp_path, capsys):
    gpu.main(device="CPU:0", workloads=("dense",), steps=(1,), outer_steps=2, results=tmp_path / "new")
    [path] = (tmp_path / "new").iterdir()
    measured = json.loads(path.read_text())
    assert path.stem == gpu.slug(measured["device"]["name"])
    assert measured["device"]["seen_as"] == "CPU:0" and {"tensorflow", "ml3_tf"} <= set(measured["versions"])
    [step] = measured["meta_step"]
    assert (step["workload"], step["inner_steps"], step["method"]) == ("dense", 1, "ml3_tf, no XLA")
    assert min(step[name] for name in ("first_call_s", "step_ms", "estimate_mib", "process_peak_mib")) > 0
    [rollout] = measured["rollout"]
    assert rollout["horizon"] == 3 and min(rollout["first_step_s"], rollout["other_steps_s"]) > 0
    assert [row["jit_compile"] for row in measured["meta_gradient"]] == [True, False]
    assert all(row["largest_relative_difference"] == 0.0 for row in measured["meta_gradient"])
    printed = capsys.readouterr().out
    assert "| workload | inner_steps | method |" in printed and str(path) in printed


def test_meta_gradients_of_two_ways_agree_and_are_not_zero(gpu, modules):
    options = {"workload": "dense", "num_steps": 2}
    ways = [modules[1].measure("gradient", "CPU:0", {**options, "jit_compile": jit}) for jit in (True, False)]
    compiled, plain = ([np.array(part) for part in way["gradient"]] for way in ways)
    assert all(np.any(part) for part in plain)
    assert 0 < gpu.relative_difference(compiled, plain) < gpu.TOLERANCE


def test_meta_gradients_that_differ_are_an_error_once_all_is_written(gpu, monkeypatch, tmp_path):
    def measure(name, device, options, measured=gpu.run_child):
        calls.append(name)
        differing = {"gradient": [[1.0, 1.0 + 1e-3 * (len(calls) % 2)]]}
        failed = {"error": "not measured here"}
        return {"gradient": differing, "step": failed, "roll_out": failed}.get(name) or measured(name, device, options)

    calls = []
    monkeypatch.setattr(gpu, "run_child", measure)
    with pytest.raises(SystemExit, match="meta_gradient of workload dense, .*must agree to 0.0001. Received: 0.00071"):
        gpu.main(device="CPU:0", workloads=("dense",), steps=(1,), outer_steps=2, results=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_measurement_that_fails_is_a_row_and_an_error(gpu, modules):
    failed = modules[1].measure("step", "CPU:0", {"workload": "nothing", "num_steps": 1})
    assert "error" in failed
    row = gpu.compare_gradients(lambda *_: {"error": "out of memory"}, "GPU:0", "dense", 5, True)
    nan = {**row, "largest_relative_difference": float("nan")}
    del nan["error"]
    measured = {"meta_step": [], "rollout": [], "meta_gradient": [row, nan]}
    first, second = gpu.list_failures(measured)
    assert first == "meta_gradient of workload dense, inner_steps 5, jit_compile True: out of memory"
    assert second.endswith("Received: nan")


def test_a_meta_gradient_of_zero_is_compared_with_nothing(gpu):
    assert gpu.relative_difference([np.zeros(2)], [np.zeros(2)]) == float("inf")


def test_the_examples_run(modules):
    assert doctest.testmod(modules[0]).failed == 0


def test_results_are_not_ignored_by_git():
    command = ["git", "check-ignore", "--quiet", "benchmarks/results/a_gpu.json"]
    if (ROOT / ".git").exists():
        assert subprocess.run(command, cwd=ROOT).returncode == 1


@pytest.mark.long
def test_the_command_runs_in_processes_of_its_own(tmp_path):
    command = [sys.executable, "benchmarks/gpu.py", *TINY, "--results", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert len(list(tmp_path.iterdir())) == 1
