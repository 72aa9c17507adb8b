"""Fixtures that more than one test file of `ml3_tf.saving` needs."""

import pytest
from saving_helpers import KINDS


@pytest.fixture(scope="session")
def exported(make_loss, tmp_path_factory):
    """Every kind of loss, with the folder to which it was exported; no test changes them."""
    losses = {kind: make_loss(reduction="sum", name=kind, **kwargs) for kind, kwargs in KINDS.items()}
    folder = tmp_path_factory.mktemp("savedmodels")
    for kind, loss in losses.items():
        loss.export(folder / kind)
    return {kind: (loss, folder / kind) for kind, loss in losses.items()}
