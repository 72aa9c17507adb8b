"""A loss whose value and gradient come from a TF Serving server.

Not imported by `import ml3_tf`: it needs the gRPC client of the server, `pip install "ml3_tf[serving]"`.
"""

import random
import threading
import time

import keras
import numpy as np
import tensorflow as tf

try:
    import grpc
    from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc
except ImportError as error:
    raise ImportError(
        "`ml3_tf.serving` needs the gRPC client of TF Serving. Install it with: pip install 'ml3_tf[serving]'"
    ) from error

SIGNATURE = "value_and_grad"
INPUTS, OUTPUTS = {"y_true", "y_pred"}, {"loss", "grad"}
# A server that is starting, busy or behind a broken connection may answer the next time; every other code is final.
RETRIED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
REMEDIES = {
    grpc.StatusCode.NOT_FOUND: "Check `model` and `version` against what the server serves (REST: GET /v1/models/NAME)",
    grpc.StatusCode.FAILED_PRECONDITION: "Serve a version that `MetaLoss.export` wrote",
    grpc.StatusCode.INVALID_ARGUMENT: "Check the widths and dtypes of y_true and y_pred, and `max_batch_size`",
}
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0  # seconds between attempts
CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),  # attempts are counted, and named, here
    # Without these a channel that failed once refuses at once, for a second and more, whatever the server does.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


@keras.saving.register_keras_serializable("ml3_tf")
class RemoteMetaLoss(keras.losses.Loss):
    """A `MetaLoss` that a TF Serving server holds, used like any other Keras loss.

    Each batch is one request to the signature `value_and_grad` of the exported loss (see `MetaLoss.export`), which
    answers the loss of each example and its gradient with respect to `y_pred`; the gradient is what backpropagation
    continues from. Nothing is asked of the server before the first batch.

    It gives first derivatives with respect to `y_pred` only: nothing flows to `y_true`, and a loss is not meta-trained
    through it. A request cannot run inside XLA: pass `jit_compile=False` to `compile` where Keras would turn XLA on
    (otherwise the compiler names the operation `RemoteMetaLoss_needs_jit_compile_False`). The connection is not
    encrypted. Inside `fit` TensorFlow wraps the errors below in `tf.errors.UnknownError` or `InvalidArgumentError`
    and keeps their words.

    Args:
        address: `"host:port"` of the server's gRPC port (8500 by default).
        model: Name of the served model.
        version: `None` for the newest that is served, or its number.
        timeout: Deadline of one attempt, in seconds.
        retries: Number of further attempts after a server that is away, late or exhausted; the pause between them
            doubles from .1 s to 5 s, with jitter.
        max_batch_size: Larger batches are sent in parts. It must not exceed `max_batch_size` of a server that batches.
            For a per-set loss, to which a part is a set of its own, it must not be smaller than the batches.
        reduction: As in every Keras loss.
        name: Optional name.
        dtype: As in every Keras loss; what is sent has the dtype of the signature.

    Raises:
        ValueError: An argument out of range; at call time, a model, version or signature that the server does not
            have, or inputs of other widths than the served loss takes.
        ConnectionError: At call time, no answer after all attempts.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer="sgd", loss=RemoteMetaLoss("localhost:8500", "sine"), jit_compile=False)
    """

    def __init__(
        self,
        address,
        model,
        version=None,
        timeout=5.0,
        retries=3,
        max_batch_size=1024,
        reduction="sum_over_batch_size",
        name="remote_meta_loss",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if not timeout > 0 or retries < 0 or max_batch_size < 1:
            raise ValueError(
                "Expected `timeout` > 0, `retries` >= 0 and `max_batch_size` >= 1. "
                f"Received: timeout={timeout}, retries={retries}, max_batch_size={max_batch_size}"
            )
        self.address, self.model, self.version = address, model, version
        self.timeout, self.retries, self.max_batch_size = timeout, retries, max_batch_size
        self._client = _Client(address, model, version, timeout, retries)

    def call(self, y_true, y_pred):
        """Returns the loss of each example `[...]`, for `y_true` and `y_pred` `[..., width]`; see `MetaLoss.call`."""
        y_true, y_pred = _with_width(y_true, self.dtype), _with_width(y_pred, self.dtype)
        signature = self._client.signature()
        self._check_widths(signature, y_true=y_true, y_pred=y_pred)
        rows = [tf.cast(_as_rows(y), signature.inputs["y_pred"].dtype) for y in (y_true, y_pred)]
        return tf.cast(tf.reshape(self._score(*rows), tf.shape(y_pred)[:-1]), y_pred.dtype)

    def _score(self, y_true, y_pred):
        """The server's loss of each row, with the server's gradient."""

        @tf.custom_gradient
        def score(y_true, y_pred):
            name = "RemoteMetaLoss_needs_jit_compile_False"  # what XLA prints when it refuses
            loss, grad = tf.numpy_function(self._request, [y_true, y_pred], [y_pred.dtype] * 2, name=name)
            loss.set_shape(y_pred.shape[:1])
            grad.set_shape(y_pred.shape)

            def backward(upstream, variables=None):
                inputs = (None, upstream[:, None] * grad)
                return inputs if variables is None else (inputs, [None] * len(variables))

            return loss, backward

        return score(y_true, y_pred)

    def _request(self, y_true, y_pred):
        """The server's `loss` `[batch]` and `grad` `[batch, width]`, asked for in parts."""
        if len(y_true) != len(y_pred):
            raise ValueError(
                f"y_true and y_pred must describe the same examples. Received: {y_true.shape} and {y_pred.shape}."
            )
        loss, grad = np.empty(len(y_pred), y_pred.dtype), np.empty_like(y_pred)
        for start in range(0, len(y_pred), self.max_batch_size):
            part = slice(start, start + self.max_batch_size)
            loss[part], grad[part] = self._client.value_and_grad(y_true[part], y_pred[part])
        return loss, grad

    def _check_widths(self, signature, **values):
        for name, value in values.items():
            shape = signature.inputs[name].tensor_shape
            width = shape.dim[-1].size if shape.dim else -1
            if width != -1 and value.shape[-1] != width:
                raise ValueError(
                    f"The last axis of {name} must have the width that model '{self.model}' at '{self.address}' takes: "
                    f"{width}. Received: {name} {tuple(value.shape)}."
                )

    def get_config(self):
        names = ("address", "model", "version", "timeout", "retries", "max_batch_size", "dtype")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class _Client:
    """One connection to one model: requests with deadline and retries, and the signature, read once."""

    def __init__(self, address, model, version, timeout, retries):
        self.address, self.model, self.version = address, model, version
        self.timeout, self.retries = timeout, retries
        self._lock = threading.Lock()
        self._stub = self._signature = None
        self._random = random.Random()  # its own, so that nobody's seeded stream moves

    def signature(self):
        """Returns the `SignatureDef` of `value_and_grad`, checked."""
        with self._lock:
            if self._signature is None:
                self._signature = self._read_signature()
            return self._signature

    def value_and_grad(self, y_true, y_pred):
        """Returns `loss` and `grad` of one request."""
        request = predict_pb2.PredictRequest(model_spec=self._model_spec())
        request.model_spec.signature_name = SIGNATURE
        for name, value in (("y_true", y_true), ("y_pred", y_pred)):
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        outputs = self._call("Predict", request).outputs
        loss, grad = (tf.make_ndarray(outputs[name]) for name in ("loss", "grad"))
        if loss.shape != y_pred.shape[:1] or grad.shape != y_pred.shape:
            raise ValueError(
                f"Model '{self.model}' at '{self.address}' gives no loss and gradient for each example. Expected "
                f"shapes {y_pred.shape[:1]} and {y_pred.shape}. Received: {loss.shape} and {grad.shape}."
            )
        return loss, grad

    def _read_signature(self):
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._model_spec(), metadata_field=["signature_def"]
        )
        served = get_model_metadata_pb2.SignatureDefMap()
        self._call("GetModelMetadata", request).metadata["signature_def"].Unpack(served)
        found = {name: (set(s.inputs), set(s.outputs)) for name, s in served.signature_def.items()}
        if found.get(SIGNATURE) != (INPUTS, OUTPUTS):
            raise ValueError(
                f"Model '{self.model}' at '{self.address}' is no learned loss: expected the signature '{SIGNATURE}' "
                f"with inputs {sorted(INPUTS)} and outputs {sorted(OUTPUTS)}. Received: signatures "
                f"{ {name: [sorted(names) for names in both] for name, both in sorted(found.items())} }. "
                f"{REMEDIES[grpc.StatusCode.FAILED_PRECONDITION]}."
            )
        return served.signature_def[SIGNATURE]

    def _model_spec(self):
        version = None if self.version is None else {"value": self.version}
        return {"name": self.model, "version": version}

    def _call(self, method, request):
        """One request, repeated with growing pauses while the server may recover."""
        if self._stub is None:
            channel = grpc.insecure_channel(self.address, CHANNEL_OPTIONS)
            self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for attempt in range(self.retries + 1):
            try:
                return getattr(self._stub, method)(request, timeout=self.timeout)
            except grpc.RpcError as error:
                if error.code() not in RETRIED or attempt == self.retries:
                    raise self._explained(error, attempt + 1) from error
            pause = min(LONGEST_DELAY, FIRST_DELAY * 2**attempt)
            time.sleep(pause * self._random.uniform(0.5, 1.0))

    def _explained(self, error, attempts):
        """The exception that says what was asked, what came back and what to do."""
        code, answer = error.code(), f"{error.code().name}: {error.details()}"
        if code in RETRIED:
            return ConnectionError(
                f"No answer from a TF Serving server at '{self.address}' for model '{self.model}' after {attempts} "
                f"attempt(s) of at most {self.timeout} s. Last status: {answer}. Start the server or check the address "
                "(the port is the one for gRPC), or raise `timeout` or `retries`."
            )
        version = "newest version" if self.version is None else f"version {self.version}"
        kind = ValueError if code in REMEDIES else RuntimeError
        remedy = REMEDIES.get(code, "See the log of the server")
        return kind(
            f"The server at '{self.address}' refused the request for model '{self.model}' ({version}). "
            f"It answered {answer.rstrip('.')}. {remedy}."
        )


def _with_width(values, dtype):
    """`values` in `dtype` with a feature axis: `[batch]` becomes `[batch, 1]`."""
    values = tf.cast(tf.convert_to_tensor(values), dtype)
    if values.shape.rank in (None, 0):
        raise ValueError(f"A loss scores batches: expected shape [batch, width]. Received: shape {values.shape}.")
    return values[:, None] if values.shape.rank == 1 else values


def _as_rows(values):
    """`[..., width]` as `[rows, width]`."""
    return values if values.shape.rank == 2 else tf.reshape(values, (-1, tf.shape(values)[-1]))
