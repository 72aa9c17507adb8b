"""Soak test of a served loss: several clients send many requests, some of them malformed, and a new version appears.

    python -m benchmarks.serving --num-requests 20000

Server and clients share this process and its cores. The times are those of the loopback interface and of the stand-in
server in `benchmarks/in_process_server.py`, not of TF Serving. The test checks three things, and exits with 1 if one
fails. Every valid request is answered by the loss of one of the two versions, and never by the old one after the new.
Every malformed request is refused with the documented code. Memory stops growing.
"""

import gc
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
import keras
import numpy as np
import tensorflow as tf
import tyro
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

import ml3_tf
from benchmarks.in_process_server import InProcessServer
from ml3_tf.serving import RemoteMetaLoss

BATCH_SIZES = (1, 7, 64, 1000)
WIDTH = 10
TOLERANCE = 1e-6  # relative to 1 + the magnitude of the expected number
MAX_GROWTH = 16  # MiB, over the last four tenths, when both versions have been loaded
CODE = grpc.StatusCode
# Malformed requests: signature, inputs, dtype, and the expected code of the answer.
MALFORMED = (
    ("no_such_signature", ("y_true", "y_pred"), "float32", CODE.FAILED_PRECONDITION),
    ("value_and_grad", ("y_true",), "float32", CODE.INVALID_ARGUMENT),
    ("value_and_grad", ("y_true", "y_pred"), "float64", CODE.INVALID_ARGUMENT),
    ("value_and_grad", ("y_true", "y_pred", "extra"), "float32", CODE.INVALID_ARGUMENT),
)


class Soak:
    """The state that the clients share: data, expected answers and counts."""

    def __init__(self, address: str, losses: Sequence[ml3_tf.MetaLoss], seed: int) -> None:
        self.address = address
        generator = np.random.default_rng(seed)
        self.data = {size: generator.normal(size=(2, size, WIDTH)).astype("float32") for size in BATCH_SIZES}
        self.expected = {size: [loss.value_and_gradient(*self.data[size]) for loss in losses] for size in BATCH_SIZES}
        self.remote = RemoteMetaLoss(address, "soak")
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(address))
        self.lock = threading.Lock()
        self.milliseconds: dict[int, list[float]] = {size: [] for size in BATCH_SIZES}
        self.answers, self.num_done, self.num_refused = [0, 0], 0, 0
        self.failures: list[str] = []

    def run_client(self, num_requests: int, malformed: float, seed: int) -> None:
        """Sends `num_requests` requests of random sizes, one after the other."""
        generator, newest = np.random.default_rng(seed), 0
        for _ in range(num_requests):
            try:
                if generator.random() < malformed:
                    self._send_malformed(MALFORMED[generator.integers(len(MALFORMED))])
                else:
                    newest = self._send_valid(BATCH_SIZES[generator.integers(len(BATCH_SIZES))], newest)
            except Exception as error:  # any failure is counted and shown
                self.failures.append(f"{type(error).__name__}: {error}")
            with self.lock:
                self.num_done += 1

    def _send_valid(self, size: int, newest: int) -> int:
        """Sends a valid request; returns the index of the version that answered, at least `newest`."""
        start = time.perf_counter()
        received = self.remote._request(*self.data[size])
        self.milliseconds[size].append(1000 * (time.perf_counter() - start))
        for index in range(newest, 2):
            if all(is_close(a, b) for a, b in zip(received, self.expected[size][index], strict=True)):
                with self.lock:
                    self.answers[index] += 1
                return index
        raise ValueError(f"The answer to a batch of {size} is not that of version {newest + 1} or later.")

    def _send_malformed(self, malformed: tuple[str, tuple[str, ...], str, grpc.StatusCode]) -> None:
        signature, names, dtype, code = malformed
        request = predict_pb2.PredictRequest(model_spec={"name": "soak", "signature_name": signature})
        for name in names:
            request.inputs[name].CopyFrom(tf.make_tensor_proto(self.data[7][0], dtype))
        try:
            self.stub.Predict(request, timeout=10)
        except grpc.RpcError as error:
            if error.code() != code:
                raise
            with self.lock:
                self.num_refused += 1
        else:
            raise ValueError(f"A malformed request was answered: {signature}, {names}, {dtype}.")


def is_close(received: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.all(np.abs(received - expected) <= TOLERANCE * (1 + np.abs(expected))))


def measure_resident_mib() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def run(
    soak: Soak, num_requests: int, num_clients: int, malformed: float, seed: int, rename: tuple[Path, Path]
) -> tuple[float, list[float]]:
    """Runs the clients, and moves the new version into place after half of the requests; returns seconds and memory."""
    shares = [num_requests // num_clients + (i < num_requests % num_clients) for i in range(num_clients)]
    threads = [
        threading.Thread(target=soak.run_client, args=(share, malformed, seed + 1 + i))
        for i, share in enumerate(shares)
    ]
    memory, start = [measure_resident_mib()], time.perf_counter()
    for thread in threads:
        thread.start()
    for tenth in range(1, 11):
        while soak.num_done < num_requests * tenth // 10:
            time.sleep(0.05)
        memory.append(measure_resident_mib())
        if tenth == 5:
            os.rename(*rename)
    for thread in threads:
        thread.join()
    return time.perf_counter() - start, memory


def report(soak: Soak, num_requests: int, seconds: float, memory: Sequence[float]) -> bool:
    """Prints the figures; returns whether all checks hold."""
    print(f"{num_requests} requests in {seconds:.1f} s, {num_requests / seconds:.0f} a second")
    for size in (None, *BATCH_SIZES):
        times = sum(soak.milliseconds.values(), []) if size is None else soak.milliseconds[size]
        p50, p99 = np.percentile(times, [50, 99]) if times else (np.nan, np.nan)
        print(f"  batch {size or 'any':>4}: {len(times):6} valid, p50 {p50:6.2f} ms, p99 {p99:6.2f} ms")
    print("  resident memory (MiB) at each tenth: " + " ".join(f"{value:.0f}" for value in memory))
    for failure in soak.failures[:5]:
        print(f"  {failure}")
    growth = memory[-1] - memory[6]
    checks = {
        f"no error on {sum(soak.answers) + soak.num_refused} valid and malformed requests": not soak.failures,
        f"answers equal the local loss, version 1: {soak.answers[0]}, version 2: {soak.answers[1]}": all(soak.answers),
        f"{soak.num_refused} malformed requests refused with the documented code": soak.num_refused > 0,
        f"memory grew by {growth:.1f} MiB over the last four tenths": growth <= MAX_GROWTH,
    }
    for words, holds in checks.items():
        print(f"{'ok  ' if holds else 'FAIL'} {words}")
    return all(checks.values())


def main(num_requests: int = 20_000, num_clients: int = 4, malformed: float = 0.05, seed: int = 0) -> bool:
    """Prints the figures and checks of a soak test; returns whether all checks hold.

    Args:
        num_requests: Number of requests, over all clients.
        num_clients: Number of client threads.
        malformed: Share of the requests that are malformed.
        seed: Seed of losses, data and the order of requests.
    """
    keras.utils.set_random_seed(seed)  # this is a process of its own: the losses are drawn from the global generators
    losses = [ml3_tf.MetaLoss.mlp((40, 40), mode="per_output") for _ in range(2)]
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        losses[0].export(root / "soak")
        staged = losses[1].export(root / "staged")
        with InProcessServer({"soak": root / "soak"}) as server:
            soak = Soak(server.address, losses, seed)
            soak.remote._client.get_signature()
            rename = (staged, root / "soak" / "2")
            seconds, memory = run(soak, num_requests, num_clients, malformed, seed, rename)
    return report(soak, num_requests, seconds, memory)


if __name__ == "__main__":
    sys.exit(not tyro.cli(main, description=__doc__))
