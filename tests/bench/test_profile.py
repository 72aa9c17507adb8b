"""Tests of the performance profiles."""

import numpy as np

from ml3_tf.bench.profile import THRESHOLDS, draw_profiles, profile
from ml3_tf.bench.results import Result


def test_a_profile_falls_from_all_runs_to_none():
    scores = np.random.default_rng(0).uniform(size=50)
    found = profile(scores)
    assert found[0] == 1 and found[-1] == 0 and np.all(np.diff(found) <= 0)
    assert found[100] == np.mean(scores > THRESHOLDS[100])


def test_a_panel_for_each_group_and_a_line_for_each_loss():
    result = lambda loss: Result(loss, "sines", 0, "regression", {"1": 0.5}, 0.5, 10, [0.0, 0.5], {})
    figure = draw_profiles({"Numbers": [result("mse"), result("mae")], "Classes": [result("focal")]})
    assert [[line.get_label() for line in ax.lines] for ax in figure.axes] == [["mse", "mae"], ["focal"]]
