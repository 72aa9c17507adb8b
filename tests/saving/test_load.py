"""Tests of `ml3_tf.saving.load`: a loaded loss equals the live one, in a new process too; refusals say why."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from saving_helpers import KINDS, assert_equal, build_regressor, draw_examples, train

from ml3_tf import MetaLoss, MetaTrainer, __version__, load_meta_loss, sine_tasks
from ml3_tf.saving import ArtifactError, ArtifactVersionError, UnsafeArtifactError, _manifest, catalog

ROOT = Path(__file__).resolve().parents[2]
WEIGHT = np.linspace(0, 2, 40)


def test_load_takes_the_latest_version_or_the_given_one(make_loss, tmp_path):
    loss = make_loss()
    data = draw_examples(loss, 3)
    values = []
    for _ in range(2):
        loss.network.layers[-1].kernel.assign_add([[1.0]] * 5)
        loss.export(tmp_path / "loss")
        values.append(loss.call(*data).numpy())
    assert not np.array_equal(*values)
    for loaded, expected in [
        (load_meta_loss(tmp_path / "loss"), values[1]),
        (load_meta_loss(tmp_path / "loss", version=1), values[0]),
        (load_meta_loss(str(tmp_path / "loss"), version=2), values[1]),
        (load_meta_loss(tmp_path / "loss" / "1"), values[0]),
    ]:
        np.testing.assert_array_equal(loaded.call(*data), expected)


# The loaded loss equals the live one


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_loss_has_the_same_values_gradients_and_configuration(exported, kind):
    loss, folder = exported[kind]
    loaded = load_meta_loss(folder)
    assert loaded is not loss
    data = draw_examples(loss, 7)
    assert_equal(loaded.value_and_gradient(*data), loss.value_and_gradient(*data))
    assert list(loaded.features.items()) == list(loss.features.items())
    for name in ("name", "reduction", "dtype", "mode", "input_scale", "learning_rate"):
        assert getattr(loaded, name) == getattr(loss, name)
    assert [v.shape for v in loaded.trainable_variables] == [v.shape for v in loss.trainable_variables]


@pytest.mark.parametrize(
    "kwargs",
    [
        {"jit_compile": True},
        {"jit_compile": False},
        {"jit_compile": False, "sample_weight": WEIGHT},
        {"jit_compile": False, "dtype": "mixed_float16"},
        {"jit_compile": False, "steps_per_execution": 2},
        {"run_eagerly": True},
    ],
    ids=lambda kwargs: ",".join(kwargs),
)
def test_loaded_loss_trains_like_the_live_one(exported, kwargs):
    loss, folder = exported["scalar_rate"]
    weights = train(load_meta_loss(folder), **kwargs)
    assert_equal(weights, train(loss, **kwargs))
    assert all(np.all(np.isfinite(values)) for values in weights)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype, error", [("float64", 1e-5), ("float16", 0.02), ("bfloat16", 0.2)])
def test_a_loss_is_loaded_in_another_dtype(exported, kind, dtype, error):
    loss, folder = exported[kind]
    loaded, data = load_meta_loss(folder, dtype=dtype), [np.asarray(values) for values in draw_examples(loss, 7)]
    assert {loaded.dtype} | {variable.dtype for variable in loaded.trainable_variables} == {dtype}
    received, expected = loaded.value_and_gradient(*data), loss.value_and_gradient(*data)
    for value, other in zip(received, expected):
        assert value.dtype == dtype
        np.testing.assert_allclose(np.asarray(value, "float64"), other, rtol=error, atol=error)


def test_a_loss_in_another_dtype_is_exported_as_such(exported, tmp_path):
    load_meta_loss(exported["scaled"][1], dtype="float64").export(tmp_path)
    assert load_meta_loss(tmp_path).dtype == "float64"


def test_a_dtype_that_is_unknown_or_too_narrow_is_refused(make_loss, tmp_path):
    loss = make_loss()
    loss.network.layers[-1].kernel.assign([[1e6]] * 5)
    loss.export(tmp_path)
    with pytest.raises(ValueError, match=r"`dtype` must be one of \('float16', .* Received: dtype='int32'"):
        load_meta_loss(tmp_path, dtype="int32")
    with pytest.raises(ValueError, match="The weight '.*kernel' of '.*' is too large for dtype='float16'"):
        load_meta_loss(tmp_path, dtype="float16")
    assert load_meta_loss(tmp_path, dtype="bfloat16").dtype == "bfloat16"


def test_loaded_loss_heeds_sample_weights_and_predicts_in_float16(exported):
    loaded = load_meta_loss(exported["scalar_rate"][1])
    plain = train(loaded, run_eagerly=True)
    for kwargs in ({"sample_weight": WEIGHT}, {"dtype": "mixed_float16"}):
        assert not np.array_equal(train(loaded, run_eagerly=True, **kwargs)[0], plain[0])


def test_compiled_training_with_a_loaded_loss_is_traced_once(exported, monkeypatch):
    calls = []
    monkeypatch.setattr(
        MetaLoss, "call", lambda self, *args, call=MetaLoss.call: calls.append(self) or call(self, *args)
    )
    counts = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: counts.append(len(calls)))
    train(load_meta_loss(exported["network_rate"][1]), jit_compile=True, callbacks=[count])
    assert len(counts) == 10
    assert counts[0] > 0
    assert set(counts) == {counts[0]}


def test_loaded_loss_is_meta_trained_further_like_the_live_one(make_loss, tmp_path):
    loss = make_loss(learning_rate=0.1)
    loaded = load_meta_loss(loss.export(tmp_path))
    before = [np.array(variable) for variable in loss.trainable_variables]
    for meta_loss in (loss, loaded):
        trainer = MetaTrainer(
            lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)]),
            meta_loss,
            seed=0,
        )
        trainer.compile(keras.optimizers.Adam(0.01), "mse", keras.optimizers.SGD(0.01), jit_compile=False)
        trainer.fit(sine_tasks(num_tasks=2, num_support=5, seed=0), steps_per_epoch=1, verbose=0)
    assert_equal(loaded.trainable_variables, loss.trainable_variables)
    for variable, value in zip(loaded.trainable_variables, before, strict=True):
        assert not np.array_equal(variable, value)


FRESH_PROCESS = """
import sys
import numpy as np
import tensorflow as tf

folder, results = sys.argv[1:]
saved = tf.saved_model.load(folder + "/1")
values = saved.signatures["serving_default"](y_true=tf.ones((2, 1)), y_pred=tf.zeros((2, 1)))["loss"]
assert "ml3_tf" not in sys.modules

import ml3_tf
from saving_helpers import train
loaded = ml3_tf.load_meta_loss(folder)
plain, compiled = train(loaded, jit_compile=False), train(loaded, jit_compile=True)
np.savez(results, values, *plain, *compiled)
"""


def test_fresh_process_trains_the_same_model_and_compiles_it_once(exported, tmp_path):
    loss, folder = exported["scalar_rate"]
    results, modules = tmp_path / "results.npz", tmp_path / "xla"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "XLA_FLAGS": f"--xla_dump_to={modules} --xla_dump_hlo_as_text",
    }
    command = [sys.executable, "-c", FRESH_PROCESS, str(folder), str(results)]
    process = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    with np.load(results) as arrays:
        value, *weights = [arrays[name] for name in arrays.files]
    np.testing.assert_allclose(value, loss.call(np.ones((2, 1)), np.zeros((2, 1))), rtol=1e-6)
    assert_equal(weights, train(loss, jit_compile=False) + train(loss, jit_compile=True))
    # XLA dumps its modules: ten batches, one compilation of the train step.
    compiled = {path.name.split(".")[0] for path in modules.iterdir() if "one_step_on_data" in path.name}
    assert len(compiled) == 1


def test_load_without_argument_gives_the_shipped_sine_loss():
    loss = load_meta_loss()
    assert isinstance(loss, MetaLoss)
    data = draw_examples(loss, 5)
    assert_equal(loss.value_and_gradient(*data), load_meta_loss("sine").value_and_gradient(*data))


def test_shipped_sine_loss_fits_a_sine():
    x = np.linspace(-2, 2, 100, dtype="float32")[:, None]
    y = -np.sin(x)
    model = build_regressor(1, 40)
    model.compile(keras.optimizers.Adam(0.01), load_meta_loss(), jit_compile=False)
    before = np.mean((model(x) - y) ** 2)
    model.fit(np.tile(x, (200, 1)), np.tile(y, (200, 1)), batch_size=100, shuffle=False, verbose=0)
    assert np.mean((model(x) - y) ** 2) < 0.5 * before


# Errors of load


def test_unknown_name_is_refused_listing_the_shipped_losses(tmp_path, monkeypatch):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(catalog, "SHIPPED", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no learned loss 'cosine'. .* a shipped loss: \['a', 'b'\]"):
        load_meta_loss("cosine")


def test_shipped_losses_are_found_by_name(exported, monkeypatch):
    loss, folder = exported["scaled"]
    monkeypatch.setattr(catalog, "SHIPPED", folder.parent)
    assert load_meta_loss("scaled").input_scale == loss.input_scale


def test_default_is_the_shipped_loss_in_any_working_directory(exported, tmp_path, monkeypatch):
    loss, folder = exported["scaled"]
    shutil.copytree(folder, tmp_path / "shipped" / "sine")
    monkeypatch.setattr(catalog, "SHIPPED", tmp_path / "shipped")
    (tmp_path / "sine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_meta_loss().input_scale == loss.input_scale


def test_unknown_folder_is_refused_naming_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no learned loss '{tmp_path / 'nowhere'}'"):
        load_meta_loss(tmp_path / "nowhere")


def test_missing_version_is_refused_listing_those_found(exported):
    with pytest.raises(FileNotFoundError, match=r"scaled' has no version 7. Versions found: \[1\]"):
        load_meta_loss(exported["scaled"][1], version=7)


def test_foreign_saved_model_is_refused(tmp_path):
    tf.saved_model.save(tf.Module(), tmp_path / "1")
    for path in (tmp_path, tmp_path / "1"):
        words = (
            "1' is not a learned loss of ml3_tf: expected the file assets.extra/manifest.json.*allow_saved_model=True"
        )
        with pytest.raises(UnsafeArtifactError, match=words):
            load_meta_loss(path)


def test_foreign_saved_model_has_nothing_to_pin(tmp_path):
    tf.saved_model.save(tf.Module(), tmp_path / "1")
    with pytest.raises(UnsafeArtifactError, match="no manifest that `expected_sha256` could pin"):
        load_meta_loss(tmp_path, allow_saved_model=True, expected_sha256="0" * 64)


def test_newer_format_is_refused_naming_both(artifact, edit_json):
    edit_json(artifact, _manifest.MANIFEST, lambda value: value.update(format_version=3, color="new"))
    words = (
        f"manifest.json' has format version 3, but ml3_tf {__version__} reads versions up to 2. Install a newer ml3_tf"
    )
    with pytest.raises(ArtifactVersionError, match=words):
        load_meta_loss(artifact.parent)


def test_pin_accepts_one_manifest_alone(artifact):
    pin = hashlib.sha256((artifact / _manifest.MANIFEST).read_bytes()).hexdigest()
    assert isinstance(load_meta_loss(artifact.parent, expected_sha256=pin), MetaLoss)
    with pytest.raises(UnsafeArtifactError, match=f"not the pinned manifest: expected SHA-256 {'0' * 64}"):
        load_meta_loss(artifact.parent, expected_sha256="0" * 64)
    with pytest.raises(ValueError, match="`expected_sha256` must be 64 hexadecimal digits"):
        load_meta_loss(artifact.parent, expected_sha256=pin.upper())


def test_weights_of_other_shapes_are_refused(artifact):
    path = artifact / _manifest.WEIGHTS
    weights = safetensors.numpy.load(path.read_bytes())
    some = next(iter(weights))
    for wrong, words in [
        ({**weights, some: weights[some][None]}, f"'{some}' does not fit the network. Expected shape"),
        ({**weights, "more": np.ones(2, "float32")}, "unknown keys .'more'. in the header"),
        ({name: weights[name] for name in weights if name != some}, f"lacks the keys .'{some}'"),
    ]:
        path.write_bytes(safetensors.numpy.save(wrong))
        _manifest.write(artifact)
        with pytest.raises(ArtifactError, match=words):
            load_meta_loss(artifact.parent)


def test_pickled_weights_are_refused_unread(artifact):
    np.savez(artifact / "weights.npz", **{"0": np.array([{}], dtype=object)})
    os.replace(artifact / "weights.npz", artifact / _manifest.WEIGHTS)
    _manifest.write(artifact)
    with pytest.raises(ArtifactError, match="meta_loss.safetensors"):
        load_meta_loss(artifact.parent)


def test_configuration_with_code_is_refused(artifact, edit_json):
    layer = {"type": "Lambda", "name": "lambda", "dtype": "float32", "trainable": True, "function": "print"}
    edit_json(artifact, _manifest.DESCRIPTION, lambda loss: loss["network"]["layers"].insert(0, layer))
    with pytest.raises(UnsafeArtifactError, match="expected 'type' of layer 0 to be one of .*Received: 'Lambda'"):
        load_meta_loss(artifact.parent)
