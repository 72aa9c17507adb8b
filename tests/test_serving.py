"""Tests of `ml3_tf.serving`: the remote loss equals the local one, and its errors say what to do.

The server is `benchmarks.in_process_server`, which answers by the documented rules of TF Serving, called by the real
client over loopback. With the real one the same tests run too; see `serving/README.md`.
"""

import doctest
import os
import random
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from benchmarks.in_process_server import InProcessServer
from ml3_tf import serving
from ml3_tf.serving import RemoteMetaLoss

FEATURES = {"y_pred": 2, "state": 3}
X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
Y = np.concatenate([X[:, :1] + X[:, 1:2], X[:, 1:]], axis=1)
WEIGHT = np.linspace(0, 2, 40)
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def exported(make_loss, tmp_path_factory):
    """A loss and the folder of its export."""
    loss = make_loss(features=FEATURES)
    folder = tmp_path_factory.mktemp("models") / "sine"
    loss.export(folder)
    return loss, folder


@pytest.fixture(scope="module")
def models(exported, make_loss, tmp_path_factory):
    """Folders of the served models: the loss, its float64 and per-output siblings, and something else."""
    folder = tmp_path_factory.mktemp("more")
    make_loss(features=FEATURES, dtype="float64").export(folder / "double")
    make_loss(mode="per_output").export(folder / "outputs")
    module = tf.Module()
    module.double = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec((None,), name="x")])
    tf.saved_model.save(module, str(folder / "other" / "1"), signatures=module.double)
    return {"sine": exported[1], **{name: folder / name for name in ("double", "outputs", "other")}}


@pytest.fixture(scope="module")
def running(models):
    with InProcessServer(models) as server:
        yield server


@pytest.fixture
def server(running):
    """The running server, without faults."""
    yield running
    running.faults.clear()
    running.delay = 0.0


@pytest.fixture(scope="module", params=["in_process", "real"])
def address(request, models):
    """The address of a server that serves the model `sine`: the one in this process, and a real one if there is one."""
    if request.param == "in_process":
        yield request.getfixturevalue("running").address
        return
    url, binary = os.environ.get("TFS_URL"), shutil.which("tensorflow_model_server")
    if not url and not binary:
        pytest.skip("No real server: set TFS_URL and TFS_MODELS, or put tensorflow_model_server on PATH")
    if url:
        shared = Path(os.environ.get("TFS_MODELS", "/models")) / "sine"
        version = max((int(path.name) for path in shared.glob("[0-9]*")), default=0) + 1
        shutil.copytree(models["sine"] / "1", shared / ".unfinished")
        os.rename(shared / ".unfinished", shared / str(version))  # a server never sees half of it
        await_model(url, version)
        yield url
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [binary, f"--port={port}", "--model_name=sine", f"--model_base_path={models['sine']}"]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            await_model(f"127.0.0.1:{port}", 1)
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()


def await_model(address, version, seconds=60):
    end = time.monotonic() + seconds
    while True:
        try:
            return RemoteMetaLoss(address, "sine", version=version)._client.signature()
        except (ConnectionError, ValueError):
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


@pytest.fixture(scope="module")
def plain(exported):
    """What `train` gives with the local loss."""
    return train(exported[0])


def train(loss, **kwargs):
    """Returns the weights of a model after an epoch of ten batches of `fit`."""
    sample_weight, dtype = kwargs.pop("sample_weight", None), kwargs.pop("dtype", None)
    initializers = [keras.initializers.GlorotUniform(seed) for seed in (1, 2)]
    layers = [
        keras.layers.Dense(4, "tanh", kernel_initializer=initializers[0], dtype=dtype),
        keras.layers.Dense(2, kernel_initializer=initializers[1], dtype=dtype),
    ]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(keras.optimizers.Adam(0.01), loss, **{"jit_compile": False, **kwargs})
    model.fit(X, Y, sample_weight=sample_weight, batch_size=4, shuffle=False, verbose=0)
    return model.get_weights()


def value_and_gradient(loss, y_true, y_pred):
    y_pred = tf.constant(y_pred)
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        values = loss.call(y_true, y_pred)
    return values.numpy(), tape.gradient(values, y_pred).numpy()


def assert_close(received, expected, tolerance=1e-6):
    for a, b in zip(received, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# The remote loss is the local one


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"sample_weight": WEIGHT}, {"steps_per_execution": 5}, {"run_eagerly": True}, {"dtype": "mixed_float16"}],
    ids=lambda kwargs: ",".join(kwargs),
)
def test_remote_loss_trains_as_the_local_one(exported, plain, address, kwargs):
    other = bool({"sample_weight", "dtype"} & set(kwargs))
    local = train(exported[0], **kwargs) if other else plain
    assert_close(train(RemoteMetaLoss(address, "sine"), **kwargs), local)
    assert other != np.array_equal(local[0], plain[0])


def test_gradients_of_each_example_follow_what_weighs_them(exported, address):
    results = []
    for loss in (RemoteMetaLoss(address, "sine", reduction="sum"), exported[0]):
        y_pred = tf.constant(X[:, :2])
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            total = tf.reduce_sum(loss.call(Y, y_pred) ** 2 * WEIGHT)
        results.append(tape.gradient(total, y_pred))
    assert_close(results[:1], results[1:], 1e-5)


def test_large_batches_are_sent_in_parts(exported, server):
    server.sizes.clear()
    remote = RemoteMetaLoss(server.address, "sine", max_batch_size=16)
    assert_close(value_and_gradient(remote, Y, X[:, :2]), value_and_gradient(exported[0], Y, X[:, :2]))
    assert list(server.sizes) == [16, 16, 8]


def test_inputs_are_cast_to_the_dtype_of_the_signature_and_back(make_loss, server):
    local = make_loss(features=FEATURES, dtype="float64")
    remote = RemoteMetaLoss(server.address, "double")
    value, gradient = value_and_gradient(remote, Y, X[:, :2])
    assert (value.dtype, gradient.dtype) == ("float32", "float32")
    assert_close([value, gradient], value_and_gradient(local, Y, X[:, :2].astype("float64")))


def test_per_output_losses_and_further_axes_keep_their_shapes(make_loss, server):
    y = np.random.default_rng(1).normal(size=(2, 5, 4, 3)).astype("float32")
    remote = RemoteMetaLoss(server.address, "outputs")
    value, gradient = value_and_gradient(remote, y[0], y[1])
    assert (value.shape, gradient.shape) == ((5, 4), (5, 4, 3))
    assert_close([value, gradient], value_and_gradient(make_loss(mode="per_output"), y[0], y[1]))
    assert remote.call(y[0, 0, 0], y[1, 0, 0]).shape == (3,)


def test_new_version_is_picked_up_by_those_who_ask_for_the_newest(make_loss, tmp_path):
    loss = make_loss()
    loss.export(tmp_path)
    data = np.ones((3, 1), "float32"), np.zeros((3, 1), "float32")
    with InProcessServer({"sine": tmp_path}, poll=0.05) as server:
        newest, first = RemoteMetaLoss(server.address, "sine"), RemoteMetaLoss(server.address, "sine", version=1)
        assert_close([first.call(*data)], [newest.call(*data)])
        loss.network.layers[-1].kernel.assign_add([[1.0]] * 5)
        loss.export(tmp_path)
        while server.servables["sine"].version == 1:
            server._stopped.wait(0.05)
        assert_close([newest.call(*data)], [loss.call(*data)])
        with pytest.raises(ValueError, match=r"\(version 1\)\. It answered NOT_FOUND: .*Specific\(sine, 1\)"):
            first.call(*data)


def test_configuration_round_trip_asks_nothing_of_a_server():
    loss = RemoteMetaLoss("nowhere:1", "digits", 3, timeout=2.0, retries=0, max_batch_size=8, reduction="sum", name="r")
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(copy, RemoteMetaLoss)
    assert copy.get_config() == loss.get_config()
    assert copy.get_config()["version"] == 3


def test_compiled_model_is_saved_and_loaded_without_asking_the_server(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", RemoteMetaLoss("nowhere:1", "sine", retries=7), jit_compile=False)
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").loss.retries == 7


# Errors


def call(loss, true_width=3, pred_width=2):
    return loss.call(np.ones((4, true_width), "float32"), np.ones((4, pred_width), "float32"))


def test_server_that_is_away_is_named_with_attempts_and_last_status():
    words = r"server at '127.0.0.1:1' for model 'sine' after 2 attempt\(s\) .* Last status: UNAVAILABLE: .* Start the"
    with pytest.raises(ConnectionError, match=words):
        call(RemoteMetaLoss("127.0.0.1:1", "sine", retries=1))
    with pytest.raises(ConnectionError, match=words):
        train(RemoteMetaLoss("127.0.0.1:1", "sine", retries=1))


def test_slow_server_is_given_up_at_the_deadline(server):
    loss = RemoteMetaLoss(server.address, "sine", timeout=0.2, retries=1)
    call(loss)
    server.delay = 0.5
    with pytest.raises(ConnectionError, match=r"after 2 attempt\(s\) of at most 0.2 s. Last status: DEADLINE_EXCEEDED"):
        call(loss)


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED])
def test_server_that_recovers_within_the_attempts_is_not_noticed(exported, server, code):
    loss = RemoteMetaLoss(server.address, "sine", retries=2)
    server.faults += [code] * 2
    assert_close([call(loss)], [call(exported[0])])
    assert server.faults == []


def test_server_that_goes_away_during_fit_stops_it_with_the_same_words(server):
    loss = RemoteMetaLoss(server.address, "sine", retries=0)
    call(loss)
    server.faults += [Code.UNAVAILABLE]
    with pytest.raises(tf.errors.UnknownError, match="ConnectionError: No answer from a TF Serving server at"):
        train(loss)


def test_errors_that_do_not_pass_are_not_retried(server):
    loss = RemoteMetaLoss(server.address, "sine", retries=5)
    call(loss)
    server.faults += [Code.PERMISSION_DENIED, Code.UNAVAILABLE]
    with pytest.raises(RuntimeError, match="refused the request .* PERMISSION_DENIED: .* See the log of the server"):
        call(loss)
    assert server.faults == [Code.UNAVAILABLE]


def test_unknown_model_and_version_say_what_the_server_answered(address):
    with pytest.raises(ValueError, match=r"model 'cosine' \(newest version\). It answered NOT_FOUND: Servable not"):
        call(RemoteMetaLoss(address, "cosine"))
    with pytest.raises(ValueError, match=r"'sine' \(version 7777\). .*Specific\(sine, 7777\)\. Check `model` and"):
        call(RemoteMetaLoss(address, "sine", version=7777))


def test_model_that_is_no_learned_loss_is_refused_listing_its_signatures(server):
    words = "'other' at .* is no learned loss: expected the signature 'value_and_grad' .* Received: signatures .*'x'"
    with pytest.raises(ValueError, match=words):
        call(RemoteMetaLoss(server.address, "other"))


def test_wrong_widths_are_refused_naming_both_before_anything_is_sent(server):
    loss = RemoteMetaLoss(server.address, "sine")
    with pytest.raises(ValueError, match=r"The last axis of y_true .* takes: 3. Received: y_true \(4, 1\)"):
        call(loss, true_width=1)
    with pytest.raises(ValueError, match=r"The last axis of y_pred .* takes: 2. Received: y_pred \(4, 3\)"):
        call(loss, pred_width=3)
    with pytest.raises(ValueError, match="expected shape .*Received: shape \\(\\)"):
        loss.call(1.0, 1.0)


def test_different_numbers_of_examples_are_refused(server):
    with pytest.raises(ValueError, match="must describe the same examples. Received: \\(4, 3\\) and \\(5, 2\\)"):
        RemoteMetaLoss(server.address, "sine").call(np.ones((4, 3)), np.ones((5, 2)))


def test_version_of_other_widths_is_refused_in_the_words_of_the_server(server):
    loss = RemoteMetaLoss(server.address, "sine")
    call(loss)
    with pytest.raises(ValueError, match="It answered INVALID_ARGUMENT: .* Check the widths and dtypes of y_true and"):
        loss._client.value_and_grad(np.ones((4, 9), "float32"), np.ones((4, 9), "float32"))


def test_xla_names_the_remedy(server):
    with pytest.raises(tf.errors.InvalidArgumentError, match="RemoteMetaLoss_needs_jit_compile_False"):
        train(RemoteMetaLoss(server.address, "sine"), jit_compile=True)


@pytest.mark.parametrize("kwargs", [{"timeout": 0}, {"retries": -1}, {"max_batch_size": 0}])
def test_arguments_out_of_range_are_refused(kwargs):
    with pytest.raises(ValueError, match="Expected `timeout` > 0, `retries` >= 0 and `max_batch_size` >= 1. Received"):
        RemoteMetaLoss("nowhere:1", "sine", **kwargs)


def test_requests_and_pauses_leave_seeded_streams_alone(server):
    random.seed(0)
    np.random.seed(0)
    state = random.getstate(), np.random.get_state()[1].tolist()
    server.faults += [Code.UNAVAILABLE]
    call(RemoteMetaLoss(server.address, "sine"))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state


# The server itself: the rules that the tests above rely on


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
def test_server_answers_wrong_requests_by_the_documented_codes(address, arguments, code, words):
    with pytest.raises(grpc.RpcError) as caught:
        predict(address, *arguments)
    assert caught.value.code() == code
    assert words in caught.value.details()


def test_server_refuses_another_dtype(server):
    with pytest.raises(grpc.RpcError, match="to be float32 but float64 is provided"):
        predict(server.address, "", "y_true", "y_pred", dtype="float64")


def test_default_signature_answers_the_loss_alone(exported, address):
    answer = predict(address, "", "y_true", "y_pred")
    assert (answer.model_spec.signature_name, answer.model_spec.name) == ("serving_default", "sine")
    assert_close([tf.make_ndarray(answer.outputs["loss"])], [call(exported[0])])
    assert set(answer.outputs) == {"loss"}


# Import


def test_missing_client_is_named_with_the_extra_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ImportError, match=r"Install it with: pip install 'ml3_tf\[serving\]'"):
        runpy.run_path(str(Path(serving.__file__)))


def test_examples_of_docstrings_run():
    result = doctest.testmod(serving)
    assert result.attempted > 0
    assert result.failed == 0
