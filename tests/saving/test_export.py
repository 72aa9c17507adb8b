"""Tests of `ml3_tf.saving.export`: an exported loss equals the live one, in a new process too; a failure leaves nothing."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from ml3_tf import MetaLoss, MetaTrainer, list_meta_losses, load_meta_loss, saving, sine_tasks
from ml3_tf.saving import _bundle, _manifest, errors
from ml3_tf import __version__

ROOT = Path(__file__).resolve().parents[2]
# Feature names are in no alphabetical order, so that sorting would show.
KINDS = {
    "three_features": {"features": {"y_pred": 2, "state": 3, "goal": 1}},
    "per_output": {"mode": "per_output"},
    "scaled": {"input_scale": [2.0, 0.5]},
    "scalar_rate": {"learning_rate": 0.1},
    "network_rate": {"learning_rate": "network"},
    "float64": {"dtype": "float64"},
    "per_set": {"mode": "per_set", "score_units": (4,), "learning_rate": 0.1},
}
X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)
WEIGHT = np.linspace(0, 2, 40)


def build_regressor(width, hidden_units, dtype=None):
    def dense(units, seed, activation=None):
        initializer = keras.initializers.GlorotUniform(seed)
        return keras.layers.Dense(units, activation, kernel_initializer=initializer, dtype=dtype)

    return keras.Sequential([keras.Input((width,)), dense(hidden_units, 1, "tanh"), dense(1, 2)])


def train(loss, sample_weight=None, dtype=None, callbacks=None, **kwargs):
    """Returns the weights of a regressor after an epoch of ten batches of `fit`."""
    model = build_regressor(3, 4, dtype)
    model.compile(keras.optimizers.Adam(0.01), loss, **kwargs)
    model.fit(X, Y, sample_weight=sample_weight, batch_size=4, shuffle=False, verbose=0, callbacks=callbacks)
    return model.get_weights()


def batch(loss, size):
    """Returns random `y_true` and `y_pred` that fit the features of `loss`."""
    pred_width, *true_widths = [3, 3] if loss.mode == "per_output" else loss.features.values()
    values = np.random.default_rng(1).normal(size=(size, sum(true_widths) + pred_width)).astype(loss.dtype)
    return tf.constant(values[:, pred_width:]), tf.constant(values[:, :pred_width])


def value_and_gradient(loss, y_true, y_pred):
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        values = loss.call(y_true, y_pred)
    return values.numpy(), tape.gradient(values, y_pred).numpy()


def assert_equal(received, expected):
    for a, b in zip(received, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def exported(make_loss, tmp_path_factory):
    """Every kind of loss, with the folder it was exported to."""
    losses = {kind: make_loss(reduction="sum", name=kind, **kwargs) for kind, kwargs in KINDS.items()}
    folder = tmp_path_factory.mktemp("savedmodels")
    for kind, loss in losses.items():
        loss.export(folder / kind)
    return {kind: (loss, folder / kind) for kind, loss in losses.items()}


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Files and versions


def test_export_writes_a_saved_model_with_the_bundle_beside_it(make_loss, tmp_path):
    version = make_loss().export(str(tmp_path / "new" / "sine"))
    assert version == tmp_path / "new" / "sine" / "1"
    files = {path for path in files_below(version) if (version / path).is_file()}
    assert files == set(_manifest.MAX_SIZES)
    assert os.listdir(version.parent) == ["1"]
    assert version.stat().st_mode & 0o777 == 0o755  # readable for the user that a server runs as


def test_each_export_is_the_next_version(make_loss, tmp_path):
    loss = make_loss()
    first = loss.export(tmp_path)
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    assert loss.export(tmp_path) == tmp_path / "2"
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before
    os.rename(tmp_path / "2", tmp_path / "9")
    (tmp_path / "notes").mkdir()
    assert loss.export(tmp_path) == tmp_path / "10"


def test_load_takes_the_latest_version_or_the_one_that_is_asked_for(make_loss, tmp_path):
    loss = make_loss()
    data = batch(loss, 3)
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
    data = batch(loss, 7)
    assert_equal(value_and_gradient(loaded, *data), value_and_gradient(loss, *data))
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
def test_loaded_loss_trains_as_the_live_one(exported, kwargs):
    loss, folder = exported["scalar_rate"]
    weights = train(load_meta_loss(folder), **kwargs)
    assert_equal(weights, train(loss, **kwargs))
    assert all(np.all(np.isfinite(values)) for values in weights)


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


def test_loaded_loss_is_meta_trained_on_as_the_live_one(make_loss, tmp_path):
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


# Plain TensorFlow, and a fresh process


def test_saved_model_has_two_signatures_with_named_inputs_and_a_free_batch(exported):
    outputs = {"serving_default": {"loss"}, "value_and_grad": {"loss", "grad"}}
    for kind, (loss, folder) in exported.items():
        widths = {"three_features": (4, 2), "per_output": (None, None)}.get(kind, (1, 1))
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
        y_true, y_pred = batch(loss, size)
        value, gradient = value_and_gradient(loss, y_true, y_pred)
        result = saved.signatures["value_and_grad"](y_true=y_true, y_pred=y_pred)
        served = saved.signatures["serving_default"](y_true=y_true, y_pred=y_pred)
        assert served["loss"].shape == (size,)
        for received, expected in [(served["loss"], value), (result["loss"], value), (result["grad"], gradient)]:
            np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)


FRESH_PROCESS = """
import sys
import numpy as np
import tensorflow as tf

folder, results = sys.argv[1:]
saved = tf.saved_model.load(folder + "/1")
values = saved.signatures["serving_default"](y_true=tf.ones((2, 1)), y_pred=tf.zeros((2, 1)))["loss"]
assert "ml3_tf" not in sys.modules

import ml3_tf, test_saving
loaded = ml3_tf.load_meta_loss(folder)
plain, compiled = test_saving.train(loaded, jit_compile=False), test_saving.train(loaded, jit_compile=True)
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
    # XLA writes its modules down: ten batches, one compilation of the train step.
    compiled = {path.name.split(".")[0] for path in modules.iterdir() if "one_step_on_data" in path.name}
    assert len(compiled) == 1


def test_load_without_argument_gives_the_shipped_sine_loss():
    loss = load_meta_loss()
    assert isinstance(loss, MetaLoss)
    data = batch(loss, 5)
    assert_equal(value_and_gradient(loss, *data), value_and_gradient(load_meta_loss("sine"), *data))


def test_shipped_sine_loss_fits_a_sine():
    x = np.linspace(-2, 2, 100, dtype="float32")[:, None]
    y = -np.sin(x)
    model = build_regressor(1, 40)
    model.compile(keras.optimizers.Adam(0.01), load_meta_loss(), jit_compile=False)
    before = np.mean((model(x) - y) ** 2)
    model.fit(np.tile(x, (200, 1)), np.tile(y, (200, 1)), batch_size=100, shuffle=False, verbose=0)
    assert np.mean((model(x) - y) ** 2) < 0.5 * before


# Errors of export


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["log_rate", "kernel"])
def test_non_finite_weights_are_not_exported(make_loss, tmp_path, name, value):
    loss = make_loss(learning_rate=0.1)
    variable = next(variable for variable in loss.trainable_variables if variable.name == name)
    variable.assign(tf.fill(variable.shape, value))
    with pytest.raises(ValueError, match=f"non-finite weights is not exported. .* in '.*{name}'"):
        loss.export(tmp_path / "loss")
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("function", ["saving._write_saved_model", "bundle.write", "manifest.write", "bundle.read"])
@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt("stopped")])
def test_failed_export_leaves_the_old_versions_and_nothing_else(make_loss, tmp_path, monkeypatch, function, error):
    loss = make_loss()
    loss.export(tmp_path)
    before = files_below(tmp_path)

    def fail(*args):
        (args[-1] / "half").write_text("of it")
        raise error

    monkeypatch.setattr(f"ml3_tf.{function}", fail)
    with pytest.raises(type(error), match=str(error)):
        loss.export(tmp_path)
    assert files_below(tmp_path) == before
    monkeypatch.undo()
    assert loss.export(tmp_path).name == "2"


def test_version_appears_only_when_it_is_complete(make_loss, tmp_path, monkeypatch):
    def look(meta_loss, path, write=_bundle.write):
        write(meta_loss, path)
        with pytest.raises(FileNotFoundError, match=r"has no version 'latest'. Versions found: \[\]"):
            load_meta_loss(tmp_path)
        seen.append(path)

    seen = []
    monkeypatch.setattr(bundle, "write", look)
    make_loss().export(tmp_path)
    assert len(seen) == 1
    assert isinstance(load_meta_loss(tmp_path), MetaLoss)


def test_export_to_a_file_is_refused_naming_it(make_loss, tmp_path):
    target = tmp_path / "loss.keras"
    target.write_text("something else")
    with pytest.raises(OSError, match=str(target)):
        make_loss().export(target)
    assert target.read_text() == "something else"


# Errors of load


def test_unknown_name_is_refused_listing_the_shipped_losses(tmp_path, monkeypatch):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(saving, "_SHIPPED", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no learned loss 'cosine': .* one of the shipped losses \['a', 'b'\]"):
        load_meta_loss("cosine")


def test_shipped_losses_are_found_by_name(exported, monkeypatch):
    loss, folder = exported["scaled"]
    monkeypatch.setattr(saving, "_SHIPPED", folder.parent)
    assert load_meta_loss("scaled").input_scale == loss.input_scale


def test_default_is_the_shipped_loss_whatever_lies_in_the_working_directory(exported, tmp_path, monkeypatch):
    loss, folder = exported["scaled"]
    shutil.copytree(folder, tmp_path / "shipped" / "sine")
    monkeypatch.setattr(saving, "_SHIPPED", tmp_path / "shipped")
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
        with pytest.raises(
            errors.UnsafeArtifactError,
            match="1' holds no learned loss of ml3_tf: expected assets.extra/manifest.json.*allow_saved_model=True",
        ):
            load_meta_loss(path)


def test_foreign_saved_model_has_nothing_to_pin(tmp_path):
    tf.saved_model.save(tf.Module(), tmp_path / "1")
    with pytest.raises(errors.UnsafeArtifactError, match="no manifest that `expected_sha256` could pin"):
        load_meta_loss(tmp_path, allow_saved_model=True, expected_sha256="0" * 64)


def test_newer_format_is_refused_naming_both(artifact, edit_json):
    edit_json(artifact, _manifest.MANIFEST, lambda value: value.update(format_version=3, color="new"))
    words = f"manifest.json' has format version 3, and this ml3_tf {__version__} reads up to 2. Install a newer ml3_tf"
    with pytest.raises(errors.ArtifactVersionError, match=words):
        load_meta_loss(artifact.parent)


def test_pin_accepts_one_manifest_alone(artifact):
    pin = hashlib.sha256((artifact / _manifest.MANIFEST).read_bytes()).hexdigest()
    assert isinstance(load_meta_loss(artifact.parent, expected_sha256=pin), MetaLoss)
    with pytest.raises(errors.UnsafeArtifactError, match=f"not the one that was pinned: expected SHA-256 {'0' * 64}"):
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
        with pytest.raises(errors.ArtifactError, match=words):
            load_meta_loss(artifact.parent)


def test_pickled_weights_are_refused_unread(artifact):
    np.savez(artifact / "weights.npz", **{"0": np.array([{}], dtype=object)})
    os.replace(artifact / "weights.npz", artifact / _manifest.WEIGHTS)
    _manifest.write(artifact)
    with pytest.raises(errors.ArtifactError, match="meta_loss.safetensors"):
        load_meta_loss(artifact.parent)


def test_configuration_with_code_is_refused(artifact, edit_json):
    layer = {"type": "Lambda", "name": "lambda", "dtype": "float32", "trainable": True, "function": "print"}
    edit_json(artifact, _manifest.DESCRIPTION, lambda loss: loss["network"]["layers"].insert(0, layer))
    with pytest.raises(
        errors.UnsafeArtifactError, match="expected 'type' of layer 0 to be one of .*Received: 'Lambda'"
    ):
        load_meta_loss(artifact.parent)


def test_network_with_code_is_not_exported(make_loss, tmp_path):
    doubled = keras.Sequential(
        [keras.Input((2,)), keras.layers.Lambda(lambda x: 2 * x, name="code"), make_loss().network]
    )
    with pytest.raises(errors.UnsafeArtifactError, match="layer 'code' is a Lambda .* one chain of Dense, Activation"):
        MetaLoss(doubled).export(tmp_path / "loss")
    assert files_below(tmp_path) == []


# What ships


def test_shipped_losses_are_listed_one_on_a_line(pristine, tmp_path, monkeypatch, capsys):
    for name, text in [("sine", "# Sine\n\nFits a sine\nfast.\n\nMore."), ("a", None)]:
        shutil.copytree(pristine, tmp_path / name / "1")
        if text:
            (tmp_path / name / "README.md").write_text(text)
    shutil.copytree(pristine, tmp_path / "sine" / "10")
    monkeypatch.setattr(saving, "_SHIPPED", tmp_path)
    assert list_meta_losses() == ["a", "sine"]
    assert capsys.readouterr().out == "a     version 1\nsine  version 1, 10  Fits a sine fast.\n"


def test_nothing_shipped_is_an_empty_list(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(saving, "_SHIPPED", tmp_path / "nowhere")
    assert list_meta_losses() == []
    assert capsys.readouterr().out == ""


def test_loading_takes_milliseconds(make_loss, tmp_path):
    folder = make_loss((40, 40)).export(tmp_path)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        load_meta_loss(folder)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05
