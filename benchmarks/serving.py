"""Soak of a served loss: many requests from several clients, some of them malformed, and a new version on the way.

    python -m benchmarks.serving --requests 20000

Server and clients share this process and its cores, so the times are those of the loopback and of the stand-in server
of `benchmarks/in_process_server.py`, not of TF Serving's. It checks that every good request is answered by the loss of
one of the two versions (never the old one again after the new), that every malformed one is refused by the documented
code, and that memory stops growing; it exits with 1 if a check fails.
"""

import gc
import os
import sys
import tempfile
import threading
import time
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
TOLERANCE = 1e-6  # of 1 + the magnitude of the expected number
FLAT = 16  # MiB that memory may grow by over the last four tenths, when both versions have been loaded
CODE = grpc.StatusCode
# What is wrong with a request: signature, inputs, dtype, and the code that answers it.
MALFORMED = (
    ("no_such_signature", ("y_true", "y_pred"), "float32", CODE.FAILED_PRECONDITION),
    ("value_and_grad", ("y_true",), "float32", CODE.INVALID_ARGUMENT),
    ("value_and_grad", ("y_true", "y_pred"), "float64", CODE.INVALID_ARGUMENT),
    ("value_and_grad", ("y_true", "y_pred", "extra"), "float32", CODE.INVALID_ARGUMENT),
)


class Soak:
    """What the clients share: data, expected answers, and what they saw."""

    def __init__(self, address, losses, seed):
        self.address = address
        generator = np.random.default_rng(seed)
        self.data = {size: generator.normal(size=(2, size, WIDTH)).astype("float32") for size in BATCH_SIZES}
        self.expected = {size: [value_and_grad(loss, *self.data[size]) for loss in losses] for size in BATCH_SIZES}
        self.remote = RemoteMetaLoss(address, "soak")
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(address))
        self.lock, self.milliseconds = threading.Lock(), {size: [] for size in BATCH_SIZES}
        self.answers, self.failures, self.done, self.refused = [0, 0], [], 0, 0

    def client(self, num_requests, malformed, seed):
        """One client: `num_requests` requests of random sizes, one after the other."""
        generator, newest = np.random.default_rng(seed), 0
        for _ in range(num_requests):
            try:
                if generator.random() < malformed:
                    self._send_malformed(MALFORMED[generator.integers(len(MALFORMED))])
                else:
                    newest = self._send_good(BATCH_SIZES[generator.integers(len(BATCH_SIZES))], newest)
            except Exception as error:  # whatever it is, it is counted and shown
                self.failures.append(f"{type(error).__name__}: {error}")
            with self.lock:
                self.done += 1

    def _send_good(self, size, newest):
        """Returns the index of the version that answered: at least `newest`."""
        start = time.perf_counter()
        received = self.remote._request(*self.data[size])
        self.milliseconds[size].append(1000 * (time.perf_counter() - start))
        for index in range(newest, 2):
            if all(is_close(a, b) for a, b in zip(received, self.expected[size][index], strict=True)):
                with self.lock:
                    self.answers[index] += 1
                return index
        raise ValueError(f"A batch of {size} got an answer that is no version's from {newest + 1} on.")

    def _send_malformed(self, wrong):
        signature, names, dtype, code = wrong
        request = predict_pb2.PredictRequest(model_spec={"name": "soak", "signature_name": signature})
        for name in names:
            request.inputs[name].CopyFrom(tf.make_tensor_proto(self.data[7][0], dtype))
        try:
            self.stub.Predict(request, timeout=10)
        except grpc.RpcError as error:
            if error.code() != code:
                raise
            with self.lock:
                self.refused += 1
        else:
            raise ValueError(f"A malformed request was answered: {signature}, {names}, {dtype}.")


def value_and_grad(loss, y_true, y_pred):
    """The local loss of each example and its gradient with respect to `y_pred`."""
    y_pred = tf.constant(y_pred)
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        values = loss.call(y_true, y_pred)
    return values.numpy(), tape.gradient(values, y_pred).numpy()


def is_close(received, expected):
    return bool(np.all(np.abs(received - expected) <= TOLERANCE * (1 + np.abs(expected))))


def resident_mib():
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def run(soak, requests, clients, malformed, seed, new_version):
    """Runs the clients, puts the new version in its place at half of the requests; returns seconds and memory."""
    shares = [requests // clients + (i < requests % clients) for i in range(clients)]
    threads = [
        threading.Thread(target=soak.client, args=(share, malformed, seed + 1 + i)) for i, share in enumerate(shares)
    ]
    memory, start = [resident_mib()], time.perf_counter()
    for thread in threads:
        thread.start()
    for tenth in range(1, 11):
        while soak.done < requests * tenth // 10:
            time.sleep(0.05)
        memory.append(resident_mib())
        if tenth == 5:
            os.rename(*new_version)
    for thread in threads:
        thread.join()
    return time.perf_counter() - start, memory


def report(soak, requests, seconds, memory):
    """Prints the figures; returns whether all checks hold."""
    print(f"{requests} requests in {seconds:.1f} s, {requests / seconds:.0f} a second")
    for size in (None, *BATCH_SIZES):
        times = sum(soak.milliseconds.values(), []) if size is None else soak.milliseconds[size]
        p50, p99 = np.percentile(times, [50, 99]) if times else (np.nan, np.nan)
        print(f"  batch {size or 'any':>4}: {len(times):6} good, p50 {p50:6.2f} ms, p99 {p99:6.2f} ms")
    print("  resident memory (MiB) at each tenth: " + " ".join(f"{value:.0f}" for value in memory))
    for failure in soak.failures[:5]:
        print(f"  {failure}")
    checks = {
        f"no error on {sum(soak.answers) + soak.refused} good and malformed requests": not soak.failures,
        f"answers equal the local loss, version 1: {soak.answers[0]}, version 2: {soak.answers[1]}": all(soak.answers),
        f"{soak.refused} malformed requests refused by the documented code": soak.refused > 0,
        f"memory grew by {memory[-1] - memory[6]:.1f} MiB over the last four tenths": memory[-1] - memory[6] <= FLAT,
    }
    for words, holds in checks.items():
        print(f"{'ok  ' if holds else 'FAIL'} {words}")
    return all(checks.values())


def main(requests: int = 20_000, clients: int = 4, malformed: float = 0.05, seed: int = 0):
    """Prints the figures and checks of a soak.

    Args:
        requests: Number of requests, over all clients.
        clients: Number of client threads.
        malformed: Share of the requests that are malformed.
        seed: Seed of losses, data and the order of requests.
    """
    keras.utils.set_random_seed(seed)  # a script's own process: the losses are drawn from the global streams
    losses = [ml3_tf.MetaLoss.mlp((40, 40), mode="per_output") for _ in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        losses[0].export(folder / "soak")
        staged = losses[1].export(folder / "staged")
        with InProcessServer({"soak": folder / "soak"}) as server:
            soak = Soak(server.address, losses, seed)
            soak.remote._client.signature()
            new_version = (staged, folder / "soak" / "2")
            seconds, memory = run(soak, requests, clients, malformed, seed, new_version)
    return report(soak, requests, seconds, memory)


if __name__ == "__main__":
    sys.exit(not tyro.cli(main, description=__doc__))
