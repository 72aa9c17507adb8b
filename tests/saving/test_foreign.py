"""Tests of `ml3_tf.saving._foreign`: a SavedModel of any origin runs as exported, after a check of its graph."""

import doctest
import random
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from saving_helpers import parse, reads_a_file, save, squared_error

from ml3_tf import MetaLoss, load_meta_loss
from ml3_tf.saving import ArtifactError, CorruptArtifactError, SavedModelLoss, UnsafeArtifactError, _foreign

NUM_MUTATIONS = 100
X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


def train(loss, **kwargs):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(0.1), loss, **kwargs)
    model.fit(X, 2 * Y, batch_size=4, shuffle=False, verbose=0)
    return model.get_weights()


def without_bundle(meta_loss, folder):
    """Exports a loss and removes its bundle; returns the folder of the version."""
    exported = meta_loss.export(folder)
    shutil.rmtree(exported / "assets.extra")
    return exported


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    return save(squared_error, tmp_path_factory.mktemp("foreign") / "1")


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"mode": "per_output"},
        {"learning_rate": "network", "dtype": "float64"},
        {"dtype": "bfloat16"},
        {"features": {"y_pred": 2, "a": 3, "b": 1}, "activation": "gelu"},
    ],
    ids=str,
)
def test_graph_of_a_meta_loss_has_its_values_and_gradients(make_loss, tmp_path, kwargs):
    loss = make_loss(**kwargs)
    loaded = load_meta_loss(without_bundle(loss, tmp_path), allow_saved_model=True)
    assert isinstance(loaded, SavedModelLoss)
    pred_width, *true_widths = loss.features.values()
    values = np.random.default_rng(1).normal(size=(5, pred_width + sum(true_widths)))
    y_pred, y_true = (tf.constant(part, loss.dtype) for part in np.split(values, [pred_width], axis=1))
    results = []
    for each in (loss, loaded):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            scores = each.call(y_true, y_pred) * tf.range(1, 6, dtype=y_pred.dtype)
        results.append((scores, tape.gradient(scores, y_pred)))
    tolerance = 1e-2 if loss.dtype == "bfloat16" else 1e-5
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(tf.cast(b, "float64"), tf.cast(a, "float64"), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kwargs", [{"jit_compile": True}, {"jit_compile": False}, {"run_eagerly": True}], ids=str)
def test_graph_of_a_meta_loss_trains_like_the_live_one(make_loss, tmp_path, kwargs):
    loss = make_loss()
    loaded = load_meta_loss(without_bundle(loss, tmp_path), allow_saved_model=True)
    for a, b in zip(train(loaded, **kwargs), train(loss, **kwargs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_bundle_is_preferred_to_the_graph(artifact):
    assert isinstance(load_meta_loss(artifact, allow_saved_model=True), MetaLoss)


def test_value_alone_is_differentiated(foreign):
    loss = load_meta_loss(foreign.parent, allow_saved_model=True)
    assert abs(float(loss([[1.0], [2.0]], [[0.0], [0.0]])) - 2.5) < 1e-6
    for a, b in zip(train(loss), train("mse"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        *("elu", "gelu", "mish", "leaky_relu", "softplus", "softmax", "log_sigmoid", "hard_silu"),
        *(keras.layers.LayerNormalization(), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)),
    ],
    ids=lambda layer: getattr(layer, "name", layer),
)
def test_plain_keras_exports_are_accepted(layer, tmp_path):
    inputs = {name: keras.Input((1,), name=name) for name in ("y_true", "y_pred")}
    hidden = keras.layers.Dense(4)(keras.layers.Concatenate()(list(inputs.values())))
    hidden = keras.layers.Activation(layer)(hidden) if isinstance(layer, str) else layer(hidden)
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.export(tmp_path / "1", verbose=False)
    loss = load_meta_loss(tmp_path, allow_saved_model=True)
    data = {name: np.random.default_rng(0).normal(size=(6, 1)).astype("float32") for name in inputs}
    np.testing.assert_allclose(loss.call(**data), model(data)[:, 0], rtol=1e-5, atol=1e-6)


def test_model_that_is_not_a_loss_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(1)])
    model.export(tmp_path / "1", verbose=False)
    with pytest.raises(
        CorruptArtifactError, match="is not a loss: expected an endpoint .* Received: endpoints with the inputs "
    ):
        load_meta_loss(tmp_path, allow_saved_model=True)


def test_refused_graph_is_never_loaded(tmp_path, monkeypatch):
    save(reads_a_file, tmp_path / "1")
    monkeypatch.setattr(tf.saved_model, "load", None)
    with pytest.raises(UnsafeArtifactError, match="saved_model.pb': .* pure mathematics"):
        load_meta_loss(tmp_path, allow_saved_model=True)


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_links_and_giants_are_refused(foreign, tmp_path, name):
    copy = shutil.copytree(foreign, tmp_path / "1")
    (copy / name).rename(tmp_path / "elsewhere")
    (copy / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeArtifactError, match=f"{name}' is a link"):
        load_meta_loss(copy, allow_saved_model=True)


def test_files_of_a_graph_that_are_unknown_are_refused(foreign, tmp_path):
    copy = shutil.copytree(foreign, tmp_path / "1")
    (copy / "keras_metadata.pb").write_bytes(b"")
    with pytest.raises(UnsafeArtifactError, match="keras_metadata.pb': a learned loss has no such file"):
        load_meta_loss(copy, allow_saved_model=True)


@pytest.mark.parametrize("words", ["No space left", "no decoder"])
def test_model_that_tensorflow_cannot_load_is_refused(foreign, monkeypatch, words):
    def fail(path):
        raise RuntimeError(words)

    monkeypatch.setattr(tf.saved_model, "load", fail)
    with pytest.raises(CorruptArtifactError, match=f"saved_model.pb' cannot be loaded: RuntimeError: {words}"):
        load_meta_loss(foreign, allow_saved_model=True)


def test_mutated_graphs_raise_the_documented_errors(foreign, tmp_path, monkeypatch):
    """TensorFlow's own loader is left out: ml3_tf makes no promise about it."""
    loaded = tf.saved_model.load(str(foreign))
    monkeypatch.setattr(tf.saved_model, "load", lambda path: loaded)
    copy = shutil.copytree(foreign, tmp_path / "1")
    data, generator, num_refused = (foreign / "saved_model.pb").read_bytes(), random.Random(0), 0
    for _ in range(NUM_MUTATIONS):
        changed = bytearray(data)
        for _ in range(generator.randint(1, 4)):
            changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
        (copy / "saved_model.pb").write_bytes(changed)
        try:
            load_meta_loss(copy, allow_saved_model=True)
        except ArtifactError:
            num_refused += 1
    assert num_refused > NUM_MUTATIONS / 4
    assert len(parse(foreign).meta_graphs) == 1


def test_examples_of_docstrings_run():
    result = doctest.testmod(_foreign)
    assert result.attempted > 0
    assert result.failed == 0


def test_no_configuration_makes_another_loss_of_it(foreign, tmp_path):
    """A model that was compiled with it is neither cloned nor loaded with a loss of other values: the error helps."""
    loss = load_meta_loss(foreign, allow_saved_model=True)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", loss)
    model.save(tmp_path / "model.keras")
    advice = "cannot be built from its configuration"
    with pytest.raises(ValueError, match=advice):
        keras.losses.deserialize(keras.losses.serialize(loss))
    with pytest.raises(ValueError, match=advice):
        keras.models.clone_model(model)
    with pytest.raises(Exception, match=advice):
        keras.models.load_model(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    again.compile("sgd", loss)
    np.testing.assert_allclose(again.evaluate(X, Y, verbose=0), model.evaluate(X, Y, verbose=0), rtol=1e-6)
