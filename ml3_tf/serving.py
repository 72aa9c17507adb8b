"""A loss whose value and gradient a TF Serving server computes.

`import ml3_tf` does not import it, since it needs the gRPC client of the server: `pip install "ml3_tf[serving]"`.
"""

import random
import threading
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.arguments import Reduction, TensorLike
from ml3_tf.extras import needed_for

with needed_for("`ml3_tf.serving`", "the gRPC client of TF Serving", extra="serving"):
    import grpc
    from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

__all__ = ["RemoteMetaLoss"]

SIGNATURE = "value_and_grad"
INPUTS, OUTPUTS = {"y_true", "y_pred"}, {"loss", "grad"}
# The codes of a server that is starting, busy or behind a broken connection. It may answer the next attempt; every
# other code is final.
RETRIED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
REMEDIES = {
    grpc.StatusCode.NOT_FOUND: (
        "Check `model` and `version` against the list of the server (REST: GET /v1/models/NAME). A loss stays with the "
        "version that answered it first: build a new loss to go on with a newer version"
    ),
    grpc.StatusCode.FAILED_PRECONDITION: "Serve a version that `MetaLoss.export` wrote",
    grpc.StatusCode.UNAUTHENTICATED: "Pass the `credentials` that the server asks for",
    grpc.StatusCode.PERMISSION_DENIED: "Pass `credentials` that may use the model",
    grpc.StatusCode.INVALID_ARGUMENT: "Check the widths and dtypes of y_true and y_pred, and `max_batch_size`",
}
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0  # seconds between attempts
CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),  # this module counts the attempts and reports their number
    # Without these, a channel that failed once keeps refusing for a second or more, even if the server is back.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


@keras.saving.register_keras_serializable("ml3_tf")
class RemoteMetaLoss(keras.losses.Loss):
    """A Keras loss that a TF Serving server computes from an exported `MetaLoss`.

    Each batch is one request to the signature `value_and_grad` of the exported loss (see `MetaLoss.export`). The server
    returns the loss of each example and its gradient with respect to `y_pred`, from which backpropagation continues.
    The first batch sends the first request. The version that answers it answers all others: a loss does not change
    while a model is trained. To follow a newer version, build another loss.

    Limits:

    - It gives first derivatives with respect to `y_pred` only. No gradient flows to `y_true`, and the loss cannot be
      meta-trained.
    - A request cannot run inside XLA. Pass `jit_compile=False` to `compile` where Keras would turn XLA on. Otherwise
      the compiler names the operation `RemoteMetaLoss_needs_jit_compile_False`.
    - Without `credentials` the connection is not encrypted. They are secrets, so no configuration holds them: a copy
      or a loaded model connects with those of gRPC's default, `grpc.ssl_channel_credentials()`.
    - Inside `fit` TensorFlow wraps the errors below in `tf.errors.UnknownError` or `InvalidArgumentError`, with the
      same words.

    Args:
        address: `"host:port"` of the server's gRPC port (8500 by default).
        model: Name of the served model.
        version: Number of a version, or `None` for the newest at the first request.
        timeout: Deadline of one attempt, in seconds.
        num_retries: Number of further attempts after a server that is unavailable, late or exhausted. The pause between
            attempts doubles from 0.1 s to 5 s, with jitter.
        max_batch_size: Larger batches are sent in parts. It must not exceed `max_batch_size` of a server that batches.
            For a per-set loss, to which each part is a set, it must not be smaller than the batches.
        credentials: Optional `grpc.ChannelCredentials` of an encrypted connection: `grpc.ssl_channel_credentials(...)`,
            or `grpc.composite_channel_credentials(...)`, which add a token to each request.
        reduction: As in every Keras loss.
        name: Optional name.
        dtype: As in every Keras loss. Requests have the dtype of the signature.

    Raises:
        ValueError: An argument is out of range. At call time: the server does not have the model, version or signature,
            the batch is empty, or the inputs do not have the widths of the served loss.
        ConnectionError: At call time: no attempt was answered.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer="sgd", loss=RemoteMetaLoss("localhost:8500", "sine"), jit_compile=False)
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        version: int | None = None,
        timeout: float = 5.0,
        num_retries: int = 3,
        max_batch_size: int = 1024,
        credentials: grpc.ChannelCredentials | None = None,
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = "remote_meta_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(name, reduction, dtype)  # pyright: ignore[reportArgumentType] - Keras takes None, too
        if not timeout > 0 or num_retries < 0 or max_batch_size < 1:
            raise ValueError(
                "Expected `timeout` > 0, `num_retries` >= 0 and `max_batch_size` >= 1. "
                f"Received: timeout={timeout}, num_retries={num_retries}, max_batch_size={max_batch_size}"
            )
        self.address: str = address
        self.model: str = model
        self.version: int | None = version
        self.timeout: float = timeout
        self.num_retries: int = num_retries
        self.max_batch_size: int = max_batch_size
        self._is_secure = credentials is not None
        self._client = _Client(address, model, version, timeout, num_retries, credentials)

    def call(self, y_true: TensorLike, y_pred: TensorLike) -> tf.Tensor:
        """Returns the loss of each example `[...]`, for `y_true` and `y_pred` `[..., width]`; see `MetaLoss.call`."""
        y_true, y_pred = _with_width(y_true, self.dtype), _with_width(y_pred, self.dtype)
        signature = self._client.get_signature()
        self._check_widths(signature, y_true, y_pred)
        rows = [tf.cast(_as_rows(y), signature.inputs["y_pred"].dtype) for y in (y_true, y_pred)]
        return tf.cast(tf.reshape(self._score(*rows), tf.shape(y_pred)[:-1]), y_pred.dtype)

    def _score(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> Any:
        """The server's loss of each row, with the server's gradient."""

        @tf.custom_gradient
        def score(y_true: Any, y_pred: Any) -> Any:
            name = "RemoteMetaLoss_needs_jit_compile_False"  # XLA prints this name in its error
            loss, grad = tf.numpy_function(self._request, [y_true, y_pred], [y_pred.dtype] * 2, name=name)
            loss.set_shape(y_pred.shape[:1])
            grad.set_shape(y_pred.shape)

            def backward(upstream: Any, variables: Any = None) -> Any:
                inputs = (None, upstream[:, None] * grad)
                return inputs if variables is None else (inputs, [None] * len(variables))

            return loss, backward

        return score(y_true, y_pred)

    def _request(self, y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The server's `loss` `[batch]` and `grad` `[batch, width]`, requested in parts."""
        if len(y_true) != len(y_pred):
            raise ValueError(
                f"y_true and y_pred must describe the same examples. Received: {y_true.shape} and {y_pred.shape}."
            )
        if not len(y_pred):
            raise ValueError(
                "The batch is empty: a loss needs at least one example. Received: "
                f"y_true {y_true.shape}, y_pred {y_pred.shape}."
            )
        loss, grad = np.empty(len(y_pred), y_pred.dtype), np.empty_like(y_pred)
        for start in range(0, len(y_pred), self.max_batch_size):
            part = slice(start, start + self.max_batch_size)
            loss[part], grad[part] = self._client.predict(y_true[part], y_pred[part])
        return loss, grad

    def _check_widths(self, signature: Any, y_true: tf.Tensor, y_pred: tf.Tensor) -> None:
        for name, value in (("y_true", y_true), ("y_pred", y_pred)):
            shape = signature.inputs[name].tensor_shape
            width = shape.dim[-1].size if shape.dim else -1
            if width != -1 and value.shape[-1] != width:
                raise ValueError(
                    f"The last axis of {name} must have width {width} for model '{self.model}' at '{self.address}'. "
                    f"Received: {name} {tuple(value.shape)}."
                )

    def get_config(self) -> dict[str, Any]:
        names = ("address", "model", "version", "timeout", "num_retries", "max_batch_size", "dtype")
        config = {**super().get_config(), **{name: getattr(self, name) for name in names}}
        return {**config, "secure": True} if self._is_secure else config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "RemoteMetaLoss":
        config = dict(config)
        if config.pop("secure", False):  # never a connection that is less safe than the first
            config["credentials"] = grpc.ssl_channel_credentials()
        return cls(**config)


class _Client:
    """One connection to one model: sends requests with deadline and retries, and reads the signature once."""

    def __init__(
        self, address: str, model: str, version: int | None, timeout: float, num_retries: int, credentials: Any
    ) -> None:
        self.address, self.model, self.version = address, model, version
        self.timeout, self.num_retries, self._credentials = timeout, num_retries, credentials
        self._lock = threading.Lock()
        self._stub = self._signature = None
        self._random = random.Random()  # a generator of its own: the user's seeded one must not advance

    def get_signature(self) -> Any:
        """Returns the `SignatureDef` of `value_and_grad`, checked."""
        with self._lock:
            if self._signature is None:
                self._signature = self._read_signature()
            return self._signature

    def predict(self, y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns `loss` and `grad` of one request."""
        request = predict_pb2.PredictRequest(model_spec=self._model_spec())
        request.model_spec.signature_name = SIGNATURE
        for name, value in (("y_true", y_true), ("y_pred", y_pred)):
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        outputs = self._call("Predict", request).outputs
        loss, grad = (tf.make_ndarray(outputs[name]) for name in ("loss", "grad"))
        if loss.shape != y_pred.shape[:1] or grad.shape != y_pred.shape:
            raise ValueError(
                f"Model '{self.model}' at '{self.address}' must return loss and gradient of each example. Expected "
                f"shapes {y_pred.shape[:1]} and {y_pred.shape}. Received: {loss.shape} and {grad.shape}."
            )
        return loss, grad

    def _read_signature(self) -> Any:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._model_spec(), metadata_field=["signature_def"]
        )
        served, answer = get_model_metadata_pb2.SignatureDefMap(), self._call("GetModelMetadata", request)
        answer.metadata["signature_def"].Unpack(served)
        found = {name: (set(s.inputs), set(s.outputs)) for name, s in served.signature_def.items()}
        if found.get(SIGNATURE) != (INPUTS, OUTPUTS):
            raise ValueError(
                f"Model '{self.model}' at '{self.address}' is not a learned loss: expected the signature '{SIGNATURE}' "
                f"with inputs {sorted(INPUTS)} and outputs {sorted(OUTPUTS)}. Received: signatures "
                f"{ {name: [sorted(names) for names in both] for name, both in sorted(found.items())} }. "
                f"{REMEDIES[grpc.StatusCode.FAILED_PRECONDITION]}."
            )
        self.version = self.version or answer.model_spec.version.value or None  # the first answer tells the version
        return served.signature_def[SIGNATURE]

    def _model_spec(self) -> dict[str, Any]:
        version = None if self.version is None else {"value": self.version}
        return {"name": self.model, "version": version}

    def _call(self, method: str, request: Any) -> Any:
        """Sends one request, and repeats it with growing pauses while the server may recover."""
        if self._stub is None:
            if self._credentials is None:
                channel = grpc.insecure_channel(self.address, CHANNEL_OPTIONS)
            else:
                channel = grpc.secure_channel(self.address, self._credentials, CHANNEL_OPTIONS)
            self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for attempt in range(self.num_retries + 1):
            try:
                return getattr(self._stub, method)(request, timeout=self.timeout)
            except grpc.RpcError as error:
                if error.code() not in RETRIED or attempt == self.num_retries:
                    raise self._explain(error, attempt + 1) from error
            pause = min(LONGEST_DELAY, FIRST_DELAY * 2**attempt)
            time.sleep(pause * self._random.uniform(0.5, 1.0))

    def _explain(self, error: Any, num_attempts: int) -> Exception:
        """The exception that names the request, the answer and the remedy."""
        code, answer = error.code(), f"{error.code().name}: {error.details()}"
        if code in RETRIED:
            return ConnectionError(
                f"No answer from a TF Serving server at '{self.address}' for model '{self.model}' after {num_attempts} "
                f"attempt(s) of at most {self.timeout} s. Last status: {answer}. Start the server or check the address "
                "(use the gRPC port), or increase `timeout` or `num_retries`."
            )
        version = "newest version" if self.version is None else f"version {self.version}"
        kind = ValueError if code in REMEDIES else RuntimeError
        remedy = REMEDIES.get(code, "See the log of the server")
        return kind(
            f"The server at '{self.address}' refused the request for model '{self.model}' ({version}). "
            f"It answered {answer.rstrip('.')}. {remedy}."
        )


def _with_width(values: TensorLike, dtype: str) -> tf.Tensor:
    """`values` in `dtype` with a feature axis: `[batch]` becomes `[batch, 1]`."""
    tensor = tf.cast(tf.convert_to_tensor(values), dtype)
    if tensor.shape.rank in (None, 0):
        raise ValueError(f"A loss scores batches: expected shape [batch, width]. Received: shape {tensor.shape}.")
    return tensor[:, None] if tensor.shape.rank == 1 else tensor


def _as_rows(values: tf.Tensor) -> tf.Tensor:
    """`[..., width]` as `[rows, width]`."""
    return values if values.shape.rank == 2 else tf.reshape(values, (-1, tf.shape(values)[-1]))
