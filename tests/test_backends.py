"""Tests that a loss loads and trains with Keras on JAX and PyTorch, without TensorFlow.

`ML3_TF_JAX_PYTHON` and `ML3_TF_TORCH_PYTHON` name interpreters with Keras, NumPy, safetensors and that backend. Without
them, the tests try the running interpreter, with TensorFlow blocked.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ml3_tf import LossInputs, MetaLoss

ROOT = Path(__file__).resolve().parents[1]
SCALED = LossInputs(None, {"y_pred": 1, "y_true": 1}, scale=[2.0, 0.5])
KINDS = {
    "plain": {},
    "per_output": {"mode": "per_output", "learning_rate": 0.1},
    "network_rate": {"learning_rate": "network", "features": SCALED, "activation": "gelu"},
    "per_set": {"mode": "per_set", "score_units": (4,), "learning_rate": 0.1},
}


def run(python, backend, *arguments):
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    return subprocess.run([python, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module", params=["jax", "torch"])
def backend(request):
    """A backend and an interpreter that has it; skips the test if there is none."""
    variable = f"ML3_TF_{request.param.upper()}_PYTHON"
    python = os.environ.get(variable, sys.executable)
    process = run(python, request.param, "-c", f"import {request.param}, keras, safetensors")
    if process.returncode != 0:
        reason = process.stderr.strip().splitlines()[-1]
        if variable in os.environ:
            pytest.fail(f"{variable}={python} cannot run Keras on {request.param}: {reason}")
        pytest.skip(f"{request.param} is not installed ({reason}); {variable} can name an interpreter that has it")
    return request.param, python


@pytest.mark.parametrize("kind", KINDS)
def test_loss_loads_and_trains_without_tensorflow(backend, kind, tmp_path):
    loss = MetaLoss.mlp(**KINDS[kind])
    folder = loss.export(tmp_path / "loss")
    y_true, y_pred = np.random.default_rng(2).normal(size=(2, 16, 1)).astype("float32")
    values, gradient = loss.value_and_gradient(y_true, y_pred)
    np.savez(tmp_path / "expected.npz", y_true=y_true, y_pred=y_pred, loss=values, grad=gradient)
    name, python = backend
    process = run(python, name, ROOT / "tests" / "backend_probe.py", folder, tmp_path / "expected.npz")
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == f"{name} trained"
