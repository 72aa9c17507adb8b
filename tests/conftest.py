"""Fixtures that more than one test file needs."""

import numpy as np
import pytest

from ml3_tf import MetaLoss


@pytest.fixture(scope="session")
def make_loss():
    """A function that makes a small `MetaLoss.mlp` with weights, the learned rate included, that no default gives."""

    def make(hidden_units=(5,), **kwargs):
        loss = MetaLoss.mlp(hidden_units, **kwargs)
        generator = np.random.default_rng(0)
        loss.network.set_weights([generator.normal(size=weights.shape) for weights in loss.network.get_weights()])
        if loss.learned_rate is not None:
            loss.learned_rate.log_rate.assign(-0.7)
        return loss

    return make
