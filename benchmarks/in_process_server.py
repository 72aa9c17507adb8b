"""A gRPC server in this process that follows the documentation of TF Serving, for tests without the real binary.

It loads versions like the server (`saved_model.loader.load`, then `Session.run` on the tensor names of the signature),
replays their warm-up requests, serves only the newest version, and polls for a newer one. The codes and words of its
errors come from the server's `predict_util.cc`. It has no batching, REST or monitoring.
"""

import collections
import concurrent.futures
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

MESSAGE_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class Refusal(Exception):
    """A status other than OK, with its code and words."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details


class Servable:
    """One loaded version.

    Args:
        folder: Folder of the version.
    """

    def __init__(self, folder: Path) -> None:
        self.version = int(folder.name)
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            meta_graph = tf.compat.v1.saved_model.loader.load(self.session, ["serve"], str(folder))
        self.signatures = dict(meta_graph.signature_def)
        self.num_warmed_up = 0
        warmup = folder / "assets.extra" / "tf_serving_warmup_requests"
        for record in tf.data.TFRecordDataset(str(warmup)) if warmup.is_file() else []:
            self.run(prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request)
            self.num_warmed_up += 1

    def run(self, request: Any) -> Any:
        """Returns the `PredictResponse` to a `PredictRequest`; raises `Refusal`."""
        name = request.model_spec.signature_name or "serving_default"
        if name not in self.signatures:
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        signature = self.signatures[name]
        _check_inputs(signature, request)
        feed = {info.name: tf.make_ndarray(request.inputs[key]) for key, info in signature.inputs.items()}
        try:
            outputs = self.session.run({key: info.name for key, info in signature.outputs.items()}, feed)
        except (
            tf.errors.InvalidArgumentError,
            ValueError,
        ) as error:  # ValueError comes from the session's own shape check
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error).splitlines()[0]) from error
        response = predict_pb2.PredictResponse(model_spec={"name": request.model_spec.name, "signature_name": name})
        response.model_spec.version.value = self.version
        for key, value in outputs.items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(np.asarray(value)))
        return response


def _check_inputs(signature: Any, request: Any) -> None:
    sent, expected = set(request.inputs), set(signature.inputs)
    if len(sent) != len(expected):
        listed = [",".join(sorted(names)) for names in (sent, expected, sent - expected, expected - sent)]
        raise Refusal(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"input size does not match signature: {len(sent)}!={len(expected)} len({{{listed[0]}}}) != "
            f"len({{{listed[1]}}}). Sent extra: {{{listed[2]}}}. Missing but required: {{{listed[3]}}}.",
        )
    for i, (key, info) in enumerate(sorted(signature.inputs.items())):
        if key not in sent:
            words = f"Signature input {key} not found in request and no default value provided."
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, words)
        if request.inputs[key].dtype != info.dtype:
            names = [tf.dtypes.as_dtype(dtype).name for dtype in (info.dtype, request.inputs[key].dtype)]
            raise Refusal(
                grpc.StatusCode.INVALID_ARGUMENT, f"Expects arg[{i}] to be {names[0]} but {names[1]} is provided"
            )


class InProcessServer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Serves the newest version of each model; a context manager.

    Args:
        models: Mapping from model name to the folder that holds its versions.
        num_threads: Number of requests that are answered at the same time.
        poll_seconds: Seconds between two searches for a newer version.
        credentials: Optional `grpc.ServerCredentials` of an encrypted port.

    Attributes:
        address: `"127.0.0.1:<port>"`.
        faults: Status codes that the next requests get instead of an answer.
        delay: Seconds before each answer.
        sizes: Batch sizes of the last thousand predict requests.
        metadata: What came beside the last request, tokens for example.
    """

    def __init__(
        self,
        models: Mapping[str, str | Path],
        *,
        num_threads: int = 8,
        poll_seconds: float = 0.2,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.models, self.poll_seconds = {name: Path(folder) for name, folder in models.items()}, poll_seconds
        self.faults: list[grpc.StatusCode] = []
        self.delay, self.sizes = 0.0, collections.deque(maxlen=1000)
        self.servables = {name: Servable(_find_newest(folder)) for name, folder in self.models.items()}
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(num_threads), options=MESSAGE_OPTIONS)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self, self._server)
        if credentials is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.address = f"127.0.0.1:{port}"
        self.metadata: dict[str, str | bytes] = {}
        self._stopped = threading.Event()

    def __enter__(self) -> "InProcessServer":
        self._server.start()
        self._poller = threading.Thread(target=self._poll_versions, daemon=True)
        self._poller.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        self._poller.join()
        self._server.stop(grace=None).wait()

    def Predict(self, request: Any, context: Any) -> Any:
        """Answers the RPC of the same name."""

        def answer() -> Any:
            servable = self._find_servable(request.model_spec)
            if "y_pred" in request.inputs:
                self.sizes.append(request.inputs["y_pred"].tensor_shape.dim[0].size)
            return servable.run(request)

        return self._answer(context, answer)

    def GetModelMetadata(self, request: Any, context: Any) -> Any:
        """Answers the RPC of the same name."""

        def answer() -> Any:
            servable = self._find_servable(request.model_spec)
            response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec={"name": request.model_spec.name})
            response.model_spec.version.value = servable.version
            served = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signatures)
            response.metadata["signature_def"].Pack(served)
            return response

        return self._answer(context, answer)

    def _answer(self, context: Any, answer: Callable[[], Any]) -> Any:
        self.metadata = dict(context.invocation_metadata())
        fault = self.faults.pop(0) if self.faults else None  # before the delay, so that a late request keeps its own
        time.sleep(self.delay)
        if fault is not None:
            context.abort(fault, "an injected fault")
        try:
            return answer()
        except Refusal as refusal:
            context.abort(refusal.code, refusal.details)

    def _find_servable(self, spec: Any) -> Servable:
        servable = self.servables.get(spec.name)
        wanted = f"Specific({spec.name}, {spec.version.value})" if spec.HasField("version") else f"Latest({spec.name})"
        if servable is None or (spec.HasField("version") and spec.version.value != servable.version):
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}")
        return servable

    def _poll_versions(self) -> None:
        while not self._stopped.wait(self.poll_seconds):
            for name, folder in self.models.items():
                newest = _find_newest(folder)
                if int(newest.name) > self.servables[name].version:
                    self.servables[name] = Servable(newest)


def _find_newest(folder: Path) -> Path:
    return max((path for path in folder.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
