"""Tests of the rivals that are learned: their networks, and that what they have learned is kept."""

import numpy as np
import pytest

from ml3_tf.bench import meta_learned


@pytest.mark.parametrize("learn", [meta_learned.learn_ml3_reference, meta_learned.learn_adalfl])
@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_a_rival_is_learned_once_and_then_read(learn, kind, tmp_path):
    loss = learn(kind, tmp_path, smoke=True)
    assert loss.mode == "per_output" and [layer.units for layer in loss.network.layers] == [40, 40, 1]
    [path] = tmp_path.glob("*.npz")
    stamp = path.stat().st_mtime_ns
    again = learn(kind, tmp_path, smoke=True)
    assert path.stat().st_mtime_ns == stamp
    for first, second in zip(loss.network.get_weights(), again.network.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_reference_has_relus_and_a_softplus():
    loss = meta_learned.MetaLoss.mlp(activation="relu", output_activation="softplus")
    assert np.all(np.asarray(loss.call([[0.0], [1.0]], [[3.0], [-3.0]])) >= 0)


def test_no_reported_table_is_learned_from():
    from ml3_tf.bench.tasks.tabular import TABLES

    for kind, names in meta_learned.OTHER_TABLES.items():
        assert not set(names) & set(TABLES[kind])
