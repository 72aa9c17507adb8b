"""Helpers of the tests of `ml3_tf.serving`: a real server if there is one, and a small model to train."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from ml3_tf.serving import RemoteMetaLoss

X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
Y = np.concatenate([X[:, :1] + X[:, 1:2], X[:, 1:]], axis=1)


@contextlib.contextmanager
def run_real_server(folder):
    """Yields the address of a real server that serves the loss in `folder` as `sine`; skips the test without one."""
    url, binary = os.environ.get("TFS_URL"), shutil.which("tensorflow_model_server")
    if url:
        shared = Path(os.environ.get("TFS_MODELS", "/models")) / "sine"
        version = max((int(path.name) for path in shared.glob("[0-9]*")), default=0) + 1
        shutil.copytree(folder / "1", shared / ".unfinished")
        os.rename(shared / ".unfinished", shared / str(version))  # a server never sees half of it
        await_model(url, version)
        yield url
        return
    if not binary:
        pytest.skip("No real server: set TFS_URL and TFS_MODELS, or put tensorflow_model_server on PATH")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [binary, f"--port={port}", "--model_name=sine", f"--model_base_path={folder}"]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            await_model(f"127.0.0.1:{port}", 1)
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()


def await_model(address, version, num_attempts=120):
    """Returns once the server serves a version of `sine`."""
    for attempt in range(num_attempts):
        try:
            RemoteMetaLoss(address, "sine", version=version)._client.get_signature()
            return
        except (ConnectionError, ValueError):
            if attempt == num_attempts - 1:
                raise
            time.sleep(0.5)


def train(loss, *, sample_weight=None, dtype=None, **kwargs):
    """Returns the weights of a model after an epoch of ten batches of `fit`."""
    initializers = [keras.initializers.GlorotUniform(seed) for seed in (1, 2)]
    layers = [
        keras.layers.Dense(4, "tanh", kernel_initializer=initializers[0], dtype=dtype),
        keras.layers.Dense(2, kernel_initializer=initializers[1], dtype=dtype),
    ]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(keras.optimizers.Adam(0.01), loss, **{"jit_compile": False, **kwargs})
    model.fit(X, Y, sample_weight=sample_weight, batch_size=4, shuffle=False, verbose=0)
    return model.get_weights()


def call(loss, true_width=3, pred_width=2):
    """Returns the values of a loss for four examples of ones."""
    return loss.call(np.ones((4, true_width), "float32"), np.ones((4, pred_width), "float32"))


def assert_close(received, expected, tolerance=1e-6):
    for a, b in zip(received, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
