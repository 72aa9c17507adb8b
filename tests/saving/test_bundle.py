"""Tests of `ml3_tf.saving._bundle`: losses of many kinds are rebuilt, tampered ones raise the documented errors."""

import random
import shutil

import keras
import numpy as np
import pytest
import safetensors.numpy

from ml3_tf import MetaLoss, load_meta_loss
from ml3_tf.saving import _bundle, _manifest, _probe
from ml3_tf.saving.errors import ArtifactError, CorruptArtifactError, UnsafeArtifactError

NUM_MUTATIONS = 300
HONEST = [
    {"hidden_units": units, "activation": activation, **kwargs}
    for units, activation in [((), None), ((3,), "tanh"), ((4, 2), "softplus"), ((40, 40), "silu")]
    for kwargs in [
        {},
        {"mode": "per_output", "reduction": "sum"},
        {"features": {"y_pred": 2, "a": 3, "b": 1}, "learning_rate": 0.3, "input_scale": [1, 2, 3, 4, 5, 6]},
        {"learning_rate": "network", "dtype": "float64", "reduction": None},
        {"dtype": "bfloat16", "output_activation": "sigmoid", "name": "my loss (é)"},
        {"mode": "per_set", "score_units": (3, 2), "learning_rate": 0.3},
    ]
    if units or kwargs.get("mode") != "per_set"
]


@pytest.fixture
def write_bundle():
    """A function that writes a bundle beside empty files in place of the graph, which takes milliseconds."""

    def write(meta_loss, folder):
        (folder / "variables").mkdir(parents=True)
        for name in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"):
            (folder / name).write_bytes(b"")
        _bundle.write(meta_loss, folder)
        return folder

    return write


def assert_computes_the_same(received, expected):
    """To the last bit, in the dtype of the losses."""
    widths = list(expected.features.values())
    rng = np.random.default_rng(0)
    y_true, y_pred = rng.normal(size=(8, sum(widths[1:]))), rng.normal(size=(8, widths[0]))
    results = [loss.value_and_gradient(y_true, y_pred) for loss in (received, expected)]
    for a, b in zip(*results, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kwargs", HONEST, ids=str)
def test_honest_losses_are_rebuilt(kwargs, make_loss, write_bundle, tmp_path):
    loss = make_loss(**kwargs)
    loaded = load_meta_loss(write_bundle(loss, tmp_path / "1"))
    expected, received = loss.get_config(), loaded.get_config()
    without_networks = {"network": None, "score_network": None}  # initializers are not kept
    assert {**received, **without_networks} == {**expected, **without_networks}
    for a, b in zip(loaded.trainable_variables, loss.trainable_variables, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert_computes_the_same(loaded, loss)


@pytest.mark.parametrize(
    ("base", "changes", "error"),
    [
        ("huber", {"name": "deserialize"}, UnsafeArtifactError),
        ("huber", {"name": "mean_squared_error"}, UnsafeArtifactError),  # which has no delta
        ("huber", {"from_logits": True}, UnsafeArtifactError),
        ("huber", {"delta": -1.0}, CorruptArtifactError),
        ("huber", {"delta": "1"}, CorruptArtifactError),
        ("mse", {"name": "mean_absolute_error"}, CorruptArtifactError),  # allowed, but not what the self-test recorded
    ],
    ids=str,
)
def test_a_tampered_base_is_refused(write_bundle, edit_json, base, changes, error, tmp_path):
    folder = write_bundle(MetaLoss.around(base), tmp_path / "1")
    edit_json(folder, _manifest.DESCRIPTION, lambda loss: loss["base"].update(changes))
    with pytest.raises(error):
        load_meta_loss(folder)


def test_an_artifact_without_the_key_of_score_networks_loads(artifact, edit_json):
    expected = load_meta_loss(artifact)
    edit_json(artifact, _manifest.DESCRIPTION, lambda loss: loss.pop("score_network"))
    assert_computes_the_same(load_meta_loss(artifact), expected)


def test_an_artifact_recorded_in_its_own_dtype_loads(artifact):
    """The first artifacts of this format were recorded so."""
    loss = load_meta_loss(artifact)
    recorded = safetensors.numpy.load((artifact / _manifest.SELF_TEST).read_bytes())
    recorded["loss"], recorded["grad"] = loss.value_and_gradient(recorded["y_true"], recorded["y_pred"])
    assert recorded["loss"].dtype == np.float32
    (artifact / _manifest.SELF_TEST).write_bytes(safetensors.numpy.save(recorded))
    _manifest.write(artifact)
    assert_computes_the_same(load_meta_loss(artifact), loss)


@pytest.mark.parametrize(
    "edit, error, words",
    [
        (lambda loss: loss.update(score_network=None), UnsafeArtifactError, "unknown keys .'score.layers.0.bias'"),
        (lambda loss: loss.pop("score_network"), UnsafeArtifactError, "unknown keys .'score.layers.0.bias'"),
        (lambda loss: loss.update(score_network=[]), CorruptArtifactError, "expected 'score_network'"),
        (lambda loss: loss.update(mode="per_sample"), CorruptArtifactError, "does not describe a valid loss"),
        (
            lambda loss: loss["score_network"]["layers"][0].update(type="Lambda"),
            UnsafeArtifactError,
            "expected 'type' of layer 0 to be one of",
        ),
        (lambda loss: loss["score_network"].update(input_width=6), CorruptArtifactError, "score.layers.0.kernel"),
    ],
    ids=["null", "missing", "list", "other_mode", "code", "width"],
)
def test_hostile_score_networks_are_refused(write_bundle, tmp_path, make_loss, edit_json, edit, error, words):
    folder = write_bundle(make_loss(mode="per_set", score_units=(4,)), tmp_path / "1")
    load_meta_loss(folder)
    edit_json(folder, _manifest.DESCRIPTION, edit)
    with pytest.raises(error, match=words):
        load_meta_loss(folder)


def test_subclass_is_not_described(make_loss):
    class Doubled(MetaLoss):
        pass

    with pytest.raises(UnsafeArtifactError, match="methods of a subclass would be lost"):
        _bundle.describe(Doubled(make_loss().network))


def test_bundle_that_would_not_load_is_not_exported(write_bundle, tmp_path, monkeypatch, make_loss):
    monkeypatch.setattr(_probe, "record", lambda *_: b"nothing")
    with pytest.raises(CorruptArtifactError, match="self_test.safetensors"):
        write_bundle(make_loss(), tmp_path / "1")


@pytest.mark.parametrize(
    "edit, error, words",
    [
        (lambda loss: loss.update(mode="per_planet"), UnsafeArtifactError, "expected 'mode' of the loss"),
        (lambda loss: loss.update(reduction="os.system"), UnsafeArtifactError, "expected 'reduction'"),
        (lambda loss: loss.update(call="lambda"), UnsafeArtifactError, "unknown keys .'call'"),
        (lambda loss: loss.update(learning_rate=-1), CorruptArtifactError, "expected 'learning_rate'"),
        (lambda loss: loss.update(learning_rate=True), CorruptArtifactError, "expected 'learning_rate'"),
        (
            lambda loss: loss.update(learning_rate="network"),
            CorruptArtifactError,
            "unknown|does not describe a valid loss|lacks",
        ),
        (lambda loss: loss.update(input_scale=[0, 1]), CorruptArtifactError, "'input_scale' 0 to be a positive"),
        (
            lambda loss: loss.update(input_scale=[1]),
            CorruptArtifactError,
            "does not describe a valid loss: `input_scale`",
        ),
        (lambda loss: loss.update(name="../../x"), CorruptArtifactError, "expected 'name' of the loss"),
        (lambda loss: loss["features"].clear(), CorruptArtifactError, "does not describe a valid loss: `features`"),
        (lambda loss: loss["features"].pop(), CorruptArtifactError, "does not describe a valid loss: `network`"),
        (lambda loss: loss["features"].append(loss["features"][0]), CorruptArtifactError, "have the same name"),
        (lambda loss: loss.update(features=loss["features"] * 50), UnsafeArtifactError, "100 features"),
        (lambda loss: loss.update(network=[]), CorruptArtifactError, "expected 'network'"),
    ],
)
def test_hostile_descriptions_are_refused(artifact, edit_json, edit, error, words):
    edit_json(artifact, _manifest.DESCRIPTION, edit)
    with pytest.raises(ArtifactError if "|" in words else error, match=words):
        load_meta_loss(artifact)


def test_weights_of_another_loss_fail_the_self_test(artifact):
    weights = safetensors.numpy.load((artifact / _manifest.WEIGHTS).read_bytes())
    changed = {name: np.asarray(-2 * values, order="C") for name, values in weights.items()}
    (artifact / _manifest.WEIGHTS).write_bytes(safetensors.numpy.save(changed))
    _manifest.write(artifact)
    with pytest.raises(CorruptArtifactError, match="does not reproduce 'loss' of the self-test"):
        load_meta_loss(artifact)


def test_non_finite_weights_are_refused(artifact):
    weights = safetensors.numpy.load((artifact / _manifest.WEIGHTS).read_bytes())
    weights["layers.0.bias"] = np.full_like(weights["layers.0.bias"], np.nan)
    (artifact / _manifest.WEIGHTS).write_bytes(safetensors.numpy.save(weights))
    _manifest.write(artifact)
    with pytest.raises(CorruptArtifactError, match="values of 'layers.0.bias' are not finite"):
        load_meta_loss(artifact)


def test_loading_runs_no_graph_and_unpickles_nothing(artifact, monkeypatch):
    import pickle

    import tensorflow as tf

    def never(*args, **kwargs):
        raise AssertionError("this must not be called")

    monkeypatch.setattr(tf.saved_model, "load", never)
    monkeypatch.setattr(pickle, "loads", never)
    monkeypatch.setattr(keras.saving, "deserialize_keras_object", never)
    load_meta_loss(artifact)


def mutate(data, generator):
    """Returns `data` with one to three small changes: bits, cuts, copies, and tokens that parsers often mishandle."""
    data = bytearray(data)
    for _ in range(generator.randint(1, 3)):
        start = generator.randrange(len(data) + 1)
        kind = generator.randrange(4)
        if kind == 0 and start < len(data):
            data[start] ^= 1 << generator.randrange(8)
        elif kind == 1:
            del data[start : start + generator.randint(1, 20)]
        elif kind == 2:
            data[start:start] = data[start : start + generator.randint(1, 50)]
        else:
            tokens = [b"null", b"-1", b"1e999", b"{}", b"[]", b'"Lambda"', b"\xff", b'"', b"9" * 30, b"true", b"[" * 99]
            data[start : start + generator.randint(0, 9)] = generator.choice(tokens)
    return bytes(data)


def test_mutated_bundles_raise_the_documented_errors(artifact, pristine):
    generator, num_refused = random.Random(0), 0
    names = (_manifest.DESCRIPTION, _manifest.WEIGHTS, _manifest.SELF_TEST, _manifest.MANIFEST)
    for _ in range(NUM_MUTATIONS):
        name = generator.choice(names)
        (artifact / name).write_bytes(mutate((pristine / name).read_bytes(), generator))
        if name != _manifest.MANIFEST:
            _manifest.write(artifact)
        try:
            assert isinstance(load_meta_loss(artifact), MetaLoss)
        except ArtifactError:
            num_refused += 1
        for restored in (name, _manifest.MANIFEST):
            shutil.copyfile(pristine / restored, artifact / restored)
    assert num_refused > NUM_MUTATIONS / 2
