"""Numbers of things."""

import numpy as np
import pytest

from ml3_tf.arguments import check_counts


def test_integers_of_python_and_numpy_are_counts():
    check_counts(steps=1, tasks=np.int64(3))


@pytest.mark.parametrize("count", [0, -1, 2.0, "2", None])
def test_what_is_no_count_is_named(count):
    with pytest.raises(ValueError) as refused:
        check_counts(tasks=3, steps=count)
    assert str(refused.value) == f"`steps` must be an integer of at least 1. Received: steps={count!r}"
