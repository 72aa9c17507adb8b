"""Fixtures that more than one test file needs."""

import json
import shutil

import numpy as np
import pytest

from ml3_tf import MetaLoss
from ml3_tf.saving import _manifest


@pytest.fixture(scope="session")
def make_loss():
    """A function that makes a small `MetaLoss.mlp` with weights, the learned rate included, that no default gives."""

    def make(hidden_units=(5,), **kwargs):
        loss = MetaLoss.mlp(hidden_units, **kwargs)
        generator = np.random.default_rng(0)
        for network in filter(None, [loss.network, loss.score_network]):
            network.set_weights([generator.normal(size=weights.shape) for weights in network.get_weights()])
        if loss.learned_rate is not None:
            loss.learned_rate.log_rate.assign(-0.7)
        return loss

    return make


@pytest.fixture(scope="session")
def pristine(make_loss, tmp_path_factory):
    """An exported version that nobody changes."""
    return make_loss(learning_rate=0.1).export(tmp_path_factory.mktemp("pristine") / "loss")


@pytest.fixture
def artifact(pristine, tmp_path):
    """A copy of `pristine`, to be tampered with."""
    return shutil.copytree(pristine, tmp_path / "loss" / "1")


@pytest.fixture
def edit_json():
    """A function that edits a JSON file of an artifact and renews its manifest, as a clever stranger would."""

    def edit(version, name, change):
        value = json.loads((version / name).read_text())
        change(value)
        (version / name).write_text(json.dumps(value))
        if name != _manifest.MANIFEST:
            _manifest.write(version)

    return edit
