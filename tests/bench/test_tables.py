"""Tests of the tables: how they are chosen, loaded, divided and spoiled."""

import numpy as np
import pytest

from ml3_tf.bench import tables


def test_thirty_tables_are_reported_and_others_tune():
    reported = tables.REGRESSION + tables.CLASSIFICATION
    tuning = tables.TUNING_REGRESSION + tables.TUNING_CLASSIFICATION
    assert len(tables.REGRESSION) == len(tables.CLASSIFICATION) == 15
    assert len({*reported, *tuning}) == len(reported) + len(tuning) == len(tables.KINDS)
    in_order = lambda *names: sorted(names, key=str.lower)
    regression = in_order(*tables.REGRESSION, *tables.TUNING_REGRESSION)
    classification = in_order(*tables.CLASSIFICATION, *tables.TUNING_CLASSIFICATION)
    assert regression[::5] == [*tables.TUNING_REGRESSION]
    assert classification[::4] == [*tables.TUNING_CLASSIFICATION]


@pytest.mark.parametrize("name", tables.KINDS)
def test_a_table_loads(name):
    x, y = tables.load_table(name)
    assert len(x) == len(y) and 200 <= len(x) <= 10_000 and x.shape[1] <= 64
    assert np.isfinite(x).all() and np.isfinite(y).all()
    if tables.KINDS[name] == "classification":
        counts = np.bincount(y)
        assert counts.min() > 0 and counts.max() <= 7 * counts.min()


def test_an_unknown_table_or_setting_is_refused():
    with pytest.raises(ValueError, match="Unknown table. Expected one of .*'wdbc'.* Received: 'iris'"):
        tables.load_table("iris")
    with pytest.raises(ValueError, match="Unknown setting. Expected one of .*'outliers'.* Received: 'noise'"):
        tables.draw_parts("wdbc", "noise", seed=0)


def test_the_parts_of_a_table_are_apart_and_only_what_trains_is_spoiled():
    clean, noisy = (tables.draw_parts("wdbc", setting, seed=0) for setting in ("clean", "label_noise"))
    assert [len(rows.x) for rows in clean] == [313, 85, 171]  # 55, 15 and 30 % of 569
    assert len(np.unique(np.concatenate([rows.x for rows in clean]), axis=0)) == 569
    assert np.allclose(clean.train.x.mean(axis=0), 0, atol=1e-2)  # but for features that are clipped
    assert np.array_equal(clean.meta.y, noisy.meta.y) and np.array_equal(clean.test.y, noisy.test.y)
    assert np.array_equal(clean.train.x, noisy.train.x)
    assert np.sum(clean.train.y[:, 0] != noisy.train.y[:, 0]) == round(0.2 * 313)
    assert len(tables.draw_parts("ccpp", "clean", seed=0).train.x) == 550
    assert len(tables.draw_parts("ccpp", "clean", seed=0).meta.x) == 150


def test_spoiled_targets():
    generator = np.random.default_rng(0)
    y = np.eye(4, dtype="float32")[np.arange(100) % 4]
    moved = tables.move_labels(y, generator)
    assert np.sum(moved.argmax(1) != y.argmax(1)) == 20 and np.array_equal(moved.sum(1), np.ones(100))
    targets = np.zeros((200, 1), "float32")
    outliers = tables.add_outliers(targets, generator)
    sizes = np.abs(outliers[outliers != 0])
    assert len(sizes) == 10 and sizes.min() >= 5 and sizes.max() <= 15
    assert (outliers > 0).any() and (outliers < 0).any() and not targets.any()
    labels = np.repeat([0, 1, 2], [30, 100, 4])
    kept = tables.imbalanced_rows(np.eye(3)[labels], generator)
    assert np.bincount(labels[kept]).tolist() == [10, 100, 4]
