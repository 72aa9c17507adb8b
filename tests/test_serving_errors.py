"""Tests of the errors of `ml3_tf.serving`: they say what failed and what to do.

The server is the stand-in of `test_serving.py`; some tests also run with a real one.
"""

import random

import grpc
import numpy as np
import pytest
import tensorflow as tf
from serving_helpers import assert_close, call, train

from ml3_tf.serving import RemoteMetaLoss

Code = grpc.StatusCode


def test_unavailable_server_is_named_with_attempts_and_last_status():
    words = r"server at '127.0.0.1:1' for model 'sine' after 2 attempt\(s\) .* Last status: UNAVAILABLE: .* Start the"
    with pytest.raises(ConnectionError, match=words):
        call(RemoteMetaLoss("127.0.0.1:1", "sine", num_retries=1))
    with pytest.raises(ConnectionError, match=words):
        train(RemoteMetaLoss("127.0.0.1:1", "sine", num_retries=1))


def test_slow_server_is_given_up_at_the_deadline(server):
    loss = RemoteMetaLoss(server.address, "sine", timeout=0.2, num_retries=1)
    call(loss)
    server.delay = 0.5
    with pytest.raises(ConnectionError, match=r"after 2 attempt\(s\) of at most 0.2 s. Last status: DEADLINE_EXCEEDED"):
        call(loss)


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED])
def test_server_that_recovers_within_the_attempts_causes_no_error(served_loss, server, code):
    loss = RemoteMetaLoss(server.address, "sine", num_retries=2)
    server.faults += [code] * 2
    assert_close([call(loss)], [call(served_loss)])
    assert server.faults == []


def test_server_that_fails_during_fit_stops_it_with_the_same_words(server):
    loss = RemoteMetaLoss(server.address, "sine", num_retries=0)
    call(loss)
    server.faults += [Code.UNAVAILABLE]
    with pytest.raises(tf.errors.UnknownError, match="ConnectionError: No answer from a TF Serving server at"):
        train(loss)


def test_permanent_errors_are_not_retried(server):
    loss = RemoteMetaLoss(server.address, "sine", num_retries=5)
    call(loss)
    server.faults += [Code.INTERNAL, Code.UNAVAILABLE]
    with pytest.raises(RuntimeError, match="refused the request .* INTERNAL: .* See the log of the server"):
        call(loss)
    assert server.faults == [Code.UNAVAILABLE]


def test_unknown_model_and_version_say_what_the_server_answered(address):
    with pytest.raises(ValueError, match=r"model 'cosine' \(newest version\). It answered NOT_FOUND: Servable not"):
        call(RemoteMetaLoss(address, "cosine"))
    with pytest.raises(ValueError, match=r"'sine' \(version 7777\). .*Specific\(sine, 7777\)\. Check `model` and"):
        call(RemoteMetaLoss(address, "sine", version=7777))


def test_model_that_is_not_a_learned_loss_is_refused_with_its_signatures(server):
    words = "'other' at .* is not a learned loss: expected the signature 'value_and_grad' .* Received: signatures .*'x'"
    with pytest.raises(ValueError, match=words):
        call(RemoteMetaLoss(server.address, "other"))


def test_wrong_widths_are_refused_before_a_request(server):
    loss = RemoteMetaLoss(server.address, "sine")
    with pytest.raises(
        ValueError, match=r"The last axis of y_true must have width 3 for model .* Received: y_true \(4, 1\)"
    ):
        call(loss, true_width=1)
    with pytest.raises(
        ValueError, match=r"The last axis of y_pred must have width 2 for model .* Received: y_pred \(4, 3\)"
    ):
        call(loss, pred_width=3)
    with pytest.raises(ValueError, match="expected shape .*Received: shape \\(\\)"):
        loss.call(1.0, 1.0)


def test_different_numbers_of_examples_are_refused(server):
    with pytest.raises(ValueError, match="must describe the same examples. Received: \\(4, 3\\) and \\(5, 2\\)"):
        RemoteMetaLoss(server.address, "sine").call(np.ones((4, 3)), np.ones((5, 2)))


def test_wrong_widths_of_a_new_version_raise_the_words_of_the_server(server):
    loss = RemoteMetaLoss(server.address, "sine")
    call(loss)
    with pytest.raises(ValueError, match="It answered INVALID_ARGUMENT: .* Check the widths and dtypes of y_true and"):
        loss._client.predict(np.ones((4, 9), "float32"), np.ones((4, 9), "float32"))


def test_an_empty_batch_is_refused_as_by_the_local_loss(server, served_loss):
    remote, empty = RemoteMetaLoss(server.address, "sine"), (tf.zeros((0, 3)), tf.zeros((0, 2)))
    for loss in (remote, served_loss):
        with pytest.raises(ValueError, match="The batch is empty: a loss needs at least one example"):
            loss.call(*empty)
    score = tf.function(remote.call, input_signature=[tf.TensorSpec((None, width)) for width in (3, 2)])
    with pytest.raises(tf.errors.InvalidArgumentError, match="The batch is empty: a loss needs at least one example"):
        score(*empty)


def test_xla_names_the_remedy(server):
    with pytest.raises(tf.errors.InvalidArgumentError, match="RemoteMetaLoss_needs_jit_compile_False"):
        train(RemoteMetaLoss(server.address, "sine"), jit_compile=True)


@pytest.mark.parametrize("kwargs", [{"timeout": 0}, {"num_retries": -1}, {"max_batch_size": 0}])
def test_arguments_out_of_range_are_refused(kwargs):
    words = "Expected `timeout` > 0, `num_retries` >= 0 and `max_batch_size` >= 1. Received"
    with pytest.raises(ValueError, match=words):
        RemoteMetaLoss("nowhere:1", "sine", **kwargs)


def test_requests_and_pauses_do_not_use_seeded_generators(server):
    random.seed(0)
    np.random.seed(0)
    state = random.getstate(), np.random.get_state()[1].tolist()
    server.faults += [Code.UNAVAILABLE]
    call(RemoteMetaLoss(server.address, "sine"))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state
