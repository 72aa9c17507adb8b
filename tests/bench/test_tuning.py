"""Tests of the choice of optimizer and rate."""

import keras
import numpy as np

from ml3_tf.bench.task import Problems, Task
from ml3_tf.bench.tuning import RATES, TUNING_SEEDS, Choice, tune


def draw(seed):
    x = np.random.default_rng(seed).normal(size=(2, 40, 1)).astype("float32")
    y = np.stack([x[0], -2 * x[1]])
    return Problems((x, y), (x, y), np.array([40, 40]), np.array([40, 40]))


def test_the_best_optimizer_and_rate_of_each_name_is_chosen():
    build = lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="output")])
    task = Task(("first", "second"), "regression", build, draw, num_steps=10)
    rates = {"SGD": (1e-6, 0.3, 50.0), "Adam": (1e-6, 1e-5)}
    choices, scores = tune(task, "mse", rates=rates, seeds=(100,), jit_compile=False)
    assert choices == [Choice("SGD", 0.3)] * 2
    assert set(scores) == {"SGD", "Adam"} and np.shape(scores["SGD"]) == (2, 3) and np.shape(scores["Adam"]) == (2, 2)
    assert scores["SGD"][0][1] > 0.9 and scores["SGD"][0][2] == 0  # the last has diverged


def test_tuning_seeds_are_none_of_the_reported_ones_and_grids_are_half_decades():
    assert min(TUNING_SEEDS) >= 100
    assert RATES["SGD"][0] == 1e-4 and RATES["SGD"][-1] == 10.0
    assert all(np.allclose(np.diff(np.log10(grid)), 0.5, atol=1e-2) for grid in RATES.values())
