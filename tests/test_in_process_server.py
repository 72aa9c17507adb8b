"""Tests of `benchmarks.in_process_server`: the rules of TF Serving on which the other tests of serving rely.

Most of them also run with a real server; see `serving/README.md`.
"""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from serving_helpers import assert_close, call
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

Code = grpc.StatusCode


def predict(address, signature, *names, dtype="float32"):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(address))
    request = predict_pb2.PredictRequest(model_spec={"name": "sine", "signature_name": signature})
    for name in names:
        request.inputs[name].CopyFrom(tf.make_tensor_proto(np.ones((4, 3 if name == "y_true" else 2)), dtype))
    return stub.Predict(request, timeout=10)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["x", "y_true", "y_pred"], Code.FAILED_PRECONDITION, 'Serving signature key "x" not found.'),
        (["", "y_true"], Code.INVALID_ARGUMENT, "Missing but required: {y_pred}"),
        (["", "y_true", "y_pred", "z"], Code.INVALID_ARGUMENT, "Sent extra: {z}"),
    ],
)
def test_server_answers_wrong_requests_with_the_documented_codes(address, arguments, code, words):
    with pytest.raises(grpc.RpcError) as caught:
        predict(address, *arguments)
    assert caught.value.code() == code
    assert words in caught.value.details()


def test_server_refuses_another_dtype(server):
    with pytest.raises(grpc.RpcError, match="to be float32 but float64 is provided"):
        predict(server.address, "", "y_true", "y_pred", dtype="float64")


def test_default_signature_returns_only_the_loss(served_loss, address):
    answer = predict(address, "", "y_true", "y_pred")
    assert (answer.model_spec.signature_name, answer.model_spec.name) == ("serving_default", "sine")
    assert_close([tf.make_ndarray(answer.outputs["loss"])], [call(served_loss)])
    assert set(answer.outputs) == {"loss"}
