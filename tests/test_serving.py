"""Tests of `ml3_tf.serving`: the remote loss equals the local one.

The real client calls `benchmarks.in_process_server` over loopback, which follows the documentation of TF Serving. Tests
with the fixture `address` also run with a real server; see `serving/README.md`.
"""

import doctest
import json
import runpy
import sys
from pathlib import Path

import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf
from serving_helpers import X, Y, assert_close, train

from benchmarks.in_process_server import InProcessServer
from ml3_tf import serving
from ml3_tf.serving import RemoteMetaLoss

WEIGHT = np.linspace(0, 2, 40)


@pytest.fixture(scope="module")
def plain(served_loss):
    """The weights that `train` gives with the local loss."""
    return train(served_loss)


def remote_value_and_gradient(loss, y_true, y_pred):
    y_pred = tf.constant(y_pred)
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        values = loss.call(y_true, y_pred)
    return values.numpy(), tape.gradient(values, y_pred).numpy()


# The remote loss equals the local one


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"sample_weight": WEIGHT}, {"steps_per_execution": 5}, {"run_eagerly": True}, {"dtype": "mixed_float16"}],
    ids=lambda kwargs: ",".join(kwargs),
)
def test_remote_loss_trains_like_the_local_one(served_loss, plain, address, kwargs):
    other = bool({"sample_weight", "dtype"} & set(kwargs))
    local = train(served_loss, **kwargs) if other else plain
    assert_close(train(RemoteMetaLoss(address, "sine"), **kwargs), local)
    assert other != np.array_equal(local[0], plain[0])


def test_gradients_of_each_example_have_their_weights(served_loss, address):
    results = []
    for loss in (RemoteMetaLoss(address, "sine", reduction="sum"), served_loss):
        y_pred = tf.constant(X[:, :2])
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            total = tf.reduce_sum(loss.call(Y, y_pred) ** 2 * WEIGHT)
        results.append(tape.gradient(total, y_pred))
    assert_close(results[:1], results[1:], 1e-5)


def test_large_batches_are_sent_in_parts(served_loss, server):
    server.sizes.clear()
    remote = RemoteMetaLoss(server.address, "sine", max_batch_size=16)
    assert_close(remote_value_and_gradient(remote, Y, X[:, :2]), served_loss.value_and_gradient(Y, X[:, :2]))
    assert list(server.sizes) == [16, 16, 8]


def test_inputs_are_cast_to_the_dtype_of_the_signature_and_back(make_loss, served_loss, server):
    local = make_loss(features=served_loss.features, dtype="float64")
    remote = RemoteMetaLoss(server.address, "double")
    value, gradient = remote_value_and_gradient(remote, Y, X[:, :2])
    assert (value.dtype, gradient.dtype) == ("float32", "float32")
    assert_close([value, gradient], local.value_and_gradient(Y, X[:, :2]))


def test_per_output_losses_and_further_axes_keep_their_shapes(make_loss, server):
    y = np.random.default_rng(1).normal(size=(2, 5, 4, 3)).astype("float32")
    remote = RemoteMetaLoss(server.address, "outputs")
    value, gradient = remote_value_and_gradient(remote, y[0], y[1])
    assert (value.shape, gradient.shape) == ((5, 4), (5, 4, 3))
    assert_close([value, gradient], make_loss(mode="per_output").value_and_gradient(y[0], y[1]))
    assert remote.call(y[0, 0, 0], y[1, 0, 0]).shape == (3,)


def test_a_loss_stays_with_the_version_that_answered_first(make_loss, tmp_path):
    """A new version in the middle of `fit` would be another loss, without a word."""
    loss = make_loss()
    loss.export(tmp_path)
    data = np.ones((3, 1), "float32"), np.zeros((3, 1), "float32")
    with InProcessServer({"sine": tmp_path}, poll_seconds=0.05) as server:
        newest, first = RemoteMetaLoss(server.address, "sine"), RemoteMetaLoss(server.address, "sine", version=1)
        assert_close([first.call(*data)], [newest.call(*data)])
        loss.network.layers[-1].kernel.assign_add([[1.0]] * 5)
        loss.export(tmp_path)
        while server.servables["sine"].version == 1:
            server._stopped.wait(0.05)
        for pinned in (newest, first):
            with pytest.raises(
                ValueError, match=r"\(version 1\)\. It answered NOT_FOUND: .*Specific\(sine, 1\).* build a new loss"
            ):
                pinned.call(*data)
        assert newest.get_config()["version"] is None
        assert_close([RemoteMetaLoss(server.address, "sine").call(*data)], [loss.call(*data)])


def test_an_encrypted_connection_carries_a_token(served_models, served_loss):
    """With gRPC's credentials for one machine, which take the place of certificates."""
    local = grpc.LocalConnectionType.LOCAL_TCP
    credentials = grpc.composite_channel_credentials(
        grpc.local_channel_credentials(local), grpc.access_token_call_credentials("secret")
    )
    with InProcessServer({"sine": served_models["sine"]}, credentials=grpc.local_server_credentials(local)) as server:
        loss = RemoteMetaLoss(server.address, "sine", credentials=credentials)
        assert_close(remote_value_and_gradient(loss, Y, X[:, :2]), served_loss.value_and_gradient(Y, X[:, :2]))
        assert server.metadata["authorization"] == "Bearer secret"
        server.faults.append(grpc.StatusCode.UNAUTHENTICATED)
        with pytest.raises(ValueError, match="UNAUTHENTICATED.* Pass the `credentials` that the server asks for"):
            loss.call(Y, X[:, :2])


def test_a_copy_of_a_secure_loss_holds_no_secret_and_stays_secure():
    credentials = grpc.ssl_channel_credentials(b"the certificate")
    loss = RemoteMetaLoss("nowhere:1", "sine", credentials=credentials)
    config = keras.losses.serialize(loss)
    assert "certificate" not in json.dumps(config)
    copy = keras.losses.deserialize(config)
    assert isinstance(copy._client._credentials, grpc.ChannelCredentials)
    assert copy.get_config() == loss.get_config()
    assert "secure" not in RemoteMetaLoss("nowhere:1", "sine").get_config()


def test_configuration_round_trip_sends_no_request():
    settings = {"version": 3, "timeout": 2.0, "num_retries": 0, "max_batch_size": 8, "reduction": "sum", "name": "r"}
    loss = RemoteMetaLoss("nowhere:1", "digits", **settings)
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(copy, RemoteMetaLoss)
    assert copy.get_config() == loss.get_config()
    assert copy.get_config()["version"] == 3


def test_compiled_model_is_saved_and_loaded_without_a_request(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", RemoteMetaLoss("nowhere:1", "sine", num_retries=7), jit_compile=False)
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").loss.num_retries == 7


# Import


def test_missing_client_is_named_with_the_extra_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ImportError, match=r"Install what is missing: pip install 'ml3_tf\[serving\]'"):
        runpy.run_path(str(Path(serving.__file__)))


def test_examples_of_docstrings_run():
    result = doctest.testmod(serving)
    assert result.attempted > 0
    assert result.failed == 0
