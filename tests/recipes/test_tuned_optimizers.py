"""Tests of how the optimizers of baselines are tuned."""

import keras
import numpy as np
import pytest

import ml3_tf
from parts.tuned_optimizers import build_optimizers, tune_optimizers, tune_rate


@pytest.mark.parametrize("best", [1e-4, 2e-3, 0.02, 0.3, 7.0])
def test_a_grid_grows_until_its_best_rate_is_inside(best):
    asked = []

    def measure(rate):
        asked.append(rate)
        return np.log(rate / best) ** 2 if rate < 9 else np.nan

    rate, score = tune_rate(measure, [0.01, 0.02, 0.05], name="SGD")
    assert best / 1.8 < rate < 1.8 * best
    assert score == measure(rate)
    assert min(asked) < rate < max(asked)
    assert len(set(asked)) == len(asked) - 1  # each once, but for the line above


def test_a_best_rate_at_the_edge_is_told_loudly():
    with pytest.warns(UserWarning, match=r"The best rate of Adam, .*, is at the edge .* extended 12 times: it is not"):
        tune_rate(lambda rate: -rate, [0.1, 0.2], name="Adam")


def test_rates_at_which_all_diverge_are_refused():
    with pytest.raises(ValueError, match="All learners of Muon diverged, at rates from .* to 1. Expected a grid"):
        tune_rate(lambda rate: np.nan, [0.5, 1.0], name="Muon")
    with pytest.raises(ValueError, match="All learners of Muon diverged, at rates from 1 to 1"):
        tune_rate(lambda rate: np.inf, [1.0], name="Muon")


def test_one_rate_is_taken_as_it_is():
    assert tune_rate(lambda rate: rate, [0.5], name="SGD") == (0.5, 0.5)


def test_each_optimizer_has_its_rate_and_the_least_error_is_best():
    wishes = {"SGD": (0.05, 3.0), "Adam": (0.01, 2.0), "AdamW": (0.005, 1.0), "Muon": (0.005, 4.0)}

    def measure(optimizer):
        rate, error = wishes[type(optimizer).__name__]
        return error + abs(np.log(float(optimizer.learning_rate) / rate))

    tuned = tune_optimizers(measure)
    assert tuned.rates == (0.05, 0.01, 0.005, 0.005)
    assert tuned.scores == pytest.approx((3, 2, 1, 4), abs=1e-6)
    assert tuned.best == "adamw"


@pytest.mark.parametrize("name", ["output", "mean"])
def test_the_output_layer_is_left_to_the_adam_of_muon(name):
    muon = build_optimizers([0.1] * 4)["muon"]
    layers = [keras.layers.Dense(4, name="hidden_of_means"), keras.layers.Dense(3, name=name)]
    model = keras.Sequential([keras.Input((2,)), *layers])
    muon.build(model.trainable_variables)
    assert [velocity is not None for velocity in muon.adam_velocities] == [False, True, True, True]


def test_all_train_by_meta_test():
    tasks = next(iter(ml3_tf.sine_tasks(num_tasks=2, seed=1)))
    dense = keras.layers.Dense
    learner = ml3_tf.Learner(
        lambda: keras.Sequential([keras.Input((1,)), dense(8, "relu"), dense(8, "relu"), dense(1, name="output")])
    )
    for name, optimizer in build_optimizers([0.01, 0.002, 0.002, 0.002]).items():
        curve = ml3_tf.meta_test(learner, "mse", optimizer, tasks, num_steps=20, seed=0, jit_compile=False)
        assert curve[-1].mean() < curve[0].mean(), name
