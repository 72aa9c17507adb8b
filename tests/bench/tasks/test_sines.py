"""Tests of the sines of the benchmark."""

import numpy as np

from ml3_tf.bench.tasks.sines import draw_sines


def test_support_and_query_lie_on_one_sine():
    problems = draw_sines(0)
    for number in range(10):
        x, y = (np.concatenate([part[i][number] for part in (problems.support, problems.query)]) for i in (0, 1))
        basis = np.concatenate([np.sin(x), np.cos(x)], axis=1)
        residual = y - basis @ np.linalg.lstsq(basis, y, rcond=None)[0]
        assert np.abs(residual).max() < 1e-4
