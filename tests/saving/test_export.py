"""Tests of `ml3_tf.saving.export`: an export is complete or absent, and its signatures equal the live loss."""

import errno
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from saving_helpers import KINDS, draw_examples, list_files

from ml3_tf import MetaLoss, load_meta_loss
from ml3_tf.saving import UnsafeArtifactError, _bundle, _manifest

# Files and versions


def test_export_writes_a_saved_model_with_the_bundle_beside_it(make_loss, tmp_path):
    folder = make_loss().export(str(tmp_path / "new" / "sine"))
    assert folder == tmp_path / "new" / "sine" / "1"
    files = {path for path in list_files(folder) if (folder / path).is_file()}
    assert files == set(_manifest.MAX_SIZES)
    assert os.listdir(folder.parent) == ["1"]
    assert folder.stat().st_mode & 0o777 == 0o755  # the user of a server can read it


def test_each_export_is_the_next_version(make_loss, tmp_path):
    loss = make_loss()
    first = loss.export(tmp_path)
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    assert loss.export(tmp_path) == tmp_path / "2"
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before
    os.rename(tmp_path / "2", tmp_path / "9")
    (tmp_path / "notes").mkdir()
    assert loss.export(tmp_path) == tmp_path / "10"


# Plain TensorFlow


def test_saved_model_has_two_signatures_with_named_inputs_and_any_batch_size(exported):
    outputs = {"serving_default": {"loss"}, "value_and_grad": {"loss", "grad"}}
    for kind, (loss, folder) in exported.items():
        any_width = {"per_output": (None, None), "per_output_of_three": (None, None)}
        widths = {"three_features": (4, 2), **any_width}.get(kind, (1, 1))
        shapes = {name: [None, width] for name, width in zip(("y_true", "y_pred"), widths)}
        signatures = tf.saved_model.load(folder / "1").signatures
        assert set(signatures) == set(outputs)
        for name, function in signatures.items():
            inputs = function.structured_input_signature[1]
            assert {key: spec.shape.as_list() for key, spec in inputs.items()} == shapes
            assert {spec.dtype.name for spec in inputs.values()} == {loss.dtype}
            assert set(function.structured_outputs) == outputs[name]


@pytest.mark.parametrize("kind", KINDS)
def test_signatures_give_the_value_and_gradient_of_the_live_loss_for_any_batch(exported, kind):
    loss, folder = exported[kind]
    saved = tf.saved_model.load(folder / "1")
    for size in (1, 7, 1000):
        y_true, y_pred = draw_examples(loss, size)
        value, gradient = loss.value_and_gradient(y_true, y_pred)
        result = saved.signatures["value_and_grad"](y_true=y_true, y_pred=y_pred)
        served = saved.signatures["serving_default"](y_true=y_true, y_pred=y_pred)
        assert served["loss"].shape == (size,)
        for received, expected in [(served["loss"], value), (result["loss"], value), (result["grad"], gradient)]:
            np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)


# Errors of export


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["log_rate", "kernel"])
def test_non_finite_weights_are_not_exported(make_loss, tmp_path, name, value):
    loss = make_loss(learning_rate=0.1)
    variable = next(variable for variable in loss.trainable_variables if variable.name == name)
    variable.assign(tf.fill(variable.shape, value))
    with pytest.raises(ValueError, match=f"non-finite weights cannot be exported: .* in '.*{name}'"):
        loss.export(tmp_path / "loss")
    assert list_files(tmp_path) == []


@pytest.mark.parametrize("function", ["export._write_saved_model", "_bundle.write", "_manifest.write", "_bundle.read"])
@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt("stopped")])
def test_failed_export_leaves_the_old_versions_and_nothing_else(make_loss, tmp_path, monkeypatch, function, error):
    loss = make_loss()
    loss.export(tmp_path)
    before = list_files(tmp_path)

    def fail(*args):
        (args[-1] / "half").write_text("of it")
        raise error

    monkeypatch.setattr(f"ml3_tf.saving.{function}", fail)
    with pytest.raises(type(error), match=str(error)):
        loss.export(tmp_path)
    assert list_files(tmp_path) == before
    monkeypatch.undo()
    assert loss.export(tmp_path).name == "2"


@pytest.mark.parametrize(
    "function, error",
    [
        ("ml3_tf.saving._bundle.write", OSError(errno.ENOSPC, "No space left on device")),
        ("tensorflow.saved_model.save", tf.errors.OutOfRangeError(None, None, "No space left on device")),
    ],
    ids=["Python", "TensorFlow"],
)
def test_a_full_disk_is_an_error_of_the_folder(make_loss, tmp_path, monkeypatch, function, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(function, fail)
    with pytest.raises(OSError, match=f"No space left on device|{tmp_path}") as caught:
        make_loss().export(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert list_files(tmp_path) == []


def test_version_appears_only_when_it_is_complete(make_loss, tmp_path, monkeypatch):
    def look(meta_loss, folder, write=_bundle.write):
        write(meta_loss, folder)
        with pytest.raises(FileNotFoundError, match=r"is not the folder of an exported loss.*without versions"):
            load_meta_loss(tmp_path)
        seen.append(folder)

    seen = []
    monkeypatch.setattr(_bundle, "write", look)
    make_loss().export(tmp_path)
    assert len(seen) == 1
    assert isinstance(load_meta_loss(tmp_path), MetaLoss)


def test_export_to_a_file_is_refused_by_name(make_loss, tmp_path):
    target = tmp_path / "loss.keras"
    target.write_text("something else")
    with pytest.raises(OSError, match=str(target)):
        make_loss().export(target)
    assert target.read_text() == "something else"


def test_network_with_code_is_not_exported(make_loss, tmp_path):
    doubled = keras.Sequential(
        [keras.Input((2,)), keras.layers.Lambda(lambda x: 2 * x, name="code"), make_loss().network]
    )
    with pytest.raises(UnsafeArtifactError, match="layer 'code' is a Lambda .* one chain of Dense, Activation"):
        MetaLoss(doubled).export(tmp_path / "loss")
    assert list_files(tmp_path) == []
