"""Tests of the ten tables of the benchmark."""

from ml3_tf.bench import tables
from ml3_tf.bench.tasks.tabular import TABLES, TABLES_OF_CLASSES, TABLES_OF_NUMBERS, draw_tables


def test_there_are_ten_tables_and_none_that_tunes():
    names = [*TABLES["regression"], *TABLES["classification"]]
    assert len(names) == len(set(names)) == 10
    assert not {*names} & {*tables.TUNING_REGRESSION, *tables.TUNING_CLASSIFICATION}
    assert TABLES_OF_NUMBERS.names[0] == "table_autoMPG6" and TABLES_OF_CLASSES.names[-1] == "table_wdbc"


def test_seventy_percent_of_the_rows_train_and_features_are_padded():
    problems = draw_tables("classification", 0)
    rows = tables.draw_parts("wdbc", "clean", 0)
    assert problems.num_support[-1] == len(rows.train.x) + len(rows.meta.x)
    assert problems.num_query[-1] == len(rows.test.x)
    num_features = rows.test.x.shape[1]
    assert (problems.query[0][-1, : len(rows.test.x), :num_features] == rows.test.x).all()
    assert not problems.query[0][-1, :, num_features:].any()
