"""Tests of `ml3_tf.saving._warmup`: the records equal the real messages, and a server can replay them."""

import doctest

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from benchmarks.in_process_server import Servable
from ml3_tf.saving import _warmup


def real_record(name, signature, inputs):
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = name, signature
    for key, tensor in inputs.items():
        request.inputs[key].CopyFrom(tensor)
    return log.SerializeToString(deterministic=True)


@pytest.mark.parametrize("size", [1, 9, 100, 5000])  # lengths of one, two and three bytes
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_record_equals_the_real_message_byte_for_byte(size, dtype):
    values = np.random.default_rng(0).normal(size=(size, 3)).astype(dtype)
    inputs = {"y_true": tf.make_tensor_proto(values), "y_pred": tf.make_tensor_proto(values[:, :1])}
    for signature in _warmup.SIGNATURES:
        assert _warmup.encode_warmup_record("a" * 200, signature, inputs) == real_record("a" * 200, signature, inputs)


@pytest.mark.parametrize(
    ("kwargs", "widths"),
    [
        ({"features": {"y_pred": 2, "state": 3}}, (3, 2)),
        ({"mode": "per_output"}, (1, 1)),
        ({"mode": "per_output", "features": {"y_pred": 1, "way": 1, "speed": 1}}, (2, 1)),
        ({"features": {"y_pred": 2}}, (None, 2)),
    ],
)
def test_server_replays_the_written_requests(make_loss, tmp_path, kwargs, widths):
    loss = make_loss(**kwargs, dtype="float64")
    folder = loss.export(tmp_path)
    file = _warmup.write_warmup_requests(folder, "sine", true_width=widths[0], pred_width=widths[1], dtype=loss.dtype)
    assert file == folder / "assets.extra" / "tf_serving_warmup_requests"
    assert Servable(folder).num_warmed_up == 2 * len(_warmup.BATCH_SIZES)
    requests = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        for record in tf.data.TFRecordDataset(str(file))
    ]
    shapes = [tf.make_ndarray(request.inputs["y_true"]).shape for request in requests]
    assert shapes == [(size, widths[0] or 1) for size in _warmup.BATCH_SIZES] * 2
    assert [request.model_spec.signature_name for request in requests[::3]] == list(_warmup.SIGNATURES)


@pytest.mark.parametrize("sizes", [(), (0, 1), tuple(range(1, 502))])
def test_batch_sizes_that_a_server_cannot_replay_are_refused(tmp_path, sizes):
    with pytest.raises(ValueError, match="`batch_sizes` must hold 1 to 500 positive sizes. Received: "):
        _warmup.write_warmup_requests(tmp_path, "sine", true_width=1, pred_width=1, dtype="float32", batch_sizes=sizes)
    assert list(tmp_path.iterdir()) == []


def test_examples_of_docstrings_run():
    result = doctest.testmod(_warmup)
    assert result.attempted > 0
    assert result.failed == 0
