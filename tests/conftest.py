"""Fixtures that more than one test file needs."""

import gc
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf import LossInputs, MetaLoss, MetaTrainer, meta_test
from ml3_tf.rl import ModelBasedTrainer, ModelFreeTrainer
from ml3_tf.saving import _manifest

# The files whose tests take longest, the longest first: with one file to a worker, none of them is left for the end.
LONGEST_FIRST = (
    *("by_xla", "in_graphs"),
    *("recipes/", "examples/", "diagnosis/", "test_inner_loop", "rl/", "baselines/", "test_meta_trainer", "saving/"),
)
SERVED_FEATURES = {"y_pred": 2, "state": 3}


def pytest_configure(config):
    """Spares the tests work that tells them nothing."""
    # Tracing makes millions of objects that live on, and each pass of the collector looks at all.
    gc.set_threshold(100_000, 20, 20)
    # XLA takes seconds to compile what then runs for milliseconds: tests of XLA ask for it.
    for function in (MetaTrainer.compile, ModelBasedTrainer.compile, ModelFreeTrainer.compile, meta_test):
        assert function.__kwdefaults__["jit_compile"] is True
        function.__kwdefaults__["jit_compile"] = False


def pytest_collection_modifyitems(items):
    """Puts the longest files first; the order within a file stays."""
    rank = lambda item: next((n for n, part in enumerate(LONGEST_FIRST) if part in item.nodeid), len(LONGEST_FIRST))
    items.sort(key=rank)


@pytest.fixture(scope="session")
def make_loss():
    """A function that makes a small `MetaLoss.mlp` whose weights, with the learned rate, differ from every default."""

    def make(hidden_units=(5,), *, input_scale=None, reduction="sum_over_batch_size", features=None, **kwargs):
        if input_scale is not None:
            features = LossInputs(None, features or {"y_pred": 1, "y_true": 1}, input_scale)
        loss = MetaLoss.mlp(hidden_units, features=features, **kwargs)
        loss.reduction = reduction
        generator = np.random.default_rng(0)
        for network in filter(None, [loss.network, loss.score_network]):
            network.set_weights([generator.normal(size=weights.shape) for weights in network.get_weights()])
        if loss.learned_rate is not None:
            loss.learned_rate.log_rate.assign(-0.7)
        return loss

    return make


@pytest.fixture
def float64():
    """Layers and losses in float64, in which equal steps agree to rounding whatever their size."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def pristine(make_loss, tmp_path_factory):
    """The folder of an exported version that no test changes."""
    return make_loss(learning_rate=0.1).export(tmp_path_factory.mktemp("pristine") / "loss")


@pytest.fixture
def artifact(pristine, tmp_path):
    """The folder of a copy of `pristine`, which a test may change."""
    return shutil.copytree(pristine, tmp_path / "loss" / "1")


@pytest.fixture(scope="session")
def edit_json():
    """A function that edits a JSON file of an artifact and renews its manifest, as an attacker would."""

    def edit(folder, name, change):
        value = json.loads((folder / name).read_text())
        change(value)
        (folder / name).write_text(json.dumps(value))
        if name != _manifest.MANIFEST:
            _manifest.write(folder)

    return edit


@pytest.fixture(scope="session")
def served_loss(make_loss):
    """The loss that the server serves as `sine`; no test changes it."""
    return make_loss(features=SERVED_FEATURES)


@pytest.fixture(scope="session")
def served_models(served_loss, make_loss, tmp_path_factory):
    """Folders of the served models: the loss, a float64 one, a per-output one, and a model that is not a loss."""
    folder = tmp_path_factory.mktemp("models")
    served_loss.export(folder / "sine")
    make_loss(features=SERVED_FEATURES, dtype="float64").export(folder / "double")
    make_loss(mode="per_output").export(folder / "outputs")
    module = tf.Module()
    module.double = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec((None,), name="x")])
    tf.saved_model.save(module, str(folder / "other" / "1"), signatures=module.double)
    return {name: folder / name for name in ("sine", "double", "outputs", "other")}


@pytest.fixture(scope="module")
def running_server(served_models):
    """The stand-in server in this process, which answers by the documented rules of TF Serving."""
    from benchmarks.in_process_server import InProcessServer

    with InProcessServer(served_models) as server:
        yield server


@pytest.fixture
def server(running_server):
    """The running server, without faults."""
    yield running_server
    running_server.faults.clear()
    running_server.delay = 0.0


@pytest.fixture(scope="module", params=["in_process", "real"])
def address(request, served_models):
    """The address of a server that serves the model `sine`: the stand-in, and a real one if there is one."""
    from serving_helpers import run_real_server

    if request.param == "in_process":
        yield request.getfixturevalue("running_server").address
        return
    with run_real_server(served_models["sine"]) as address:
        yield address
