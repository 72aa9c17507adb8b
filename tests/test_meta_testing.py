"""Tests of `ml3_tf.meta_testing`: Algorithm 2, and the metrics beside the task loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf import Learner, meta_test, sine_tasks

layers, optimizers = keras.layers, keras.optimizers


def build_mlp():
    return keras.Sequential([keras.Input((1,)), layers.Dense(5, activation="tanh"), layers.Dense(1)])


def test_meta_test_reports_the_loss_before_and_after_each_step():
    tasks = next(iter(sine_tasks(num_tasks=3, num_query=10, seed=0)))
    curve = meta_test(build_mlp, "mse", optimizers.SGD(0.05), tasks, num_steps=30, seed=1)
    learner = Learner(build_mlp, seed=1)
    first = learner.apply(learner.draw(3), tasks["query"][0], training=False)[0]
    np.testing.assert_allclose(curve[0], np.mean((first - tasks["query"][1]) ** 2, axis=(1, 2)), rtol=1e-4)
    assert curve.shape == (31, 3)
    assert np.all(curve[-1] < curve[0])


def test_meta_test_can_start_from_a_given_model():
    tasks = next(iter(sine_tasks(num_tasks=2, seed=0)))
    model = build_mlp()
    curve = meta_test(model, "mse", "sgd", tasks, num_steps=2, parameters=model)
    expected = [np.mean((model(x) - y) ** 2) for x, y in zip(*tasks["query"])]
    np.testing.assert_allclose(curve[0], expected, rtol=1e-5)


def test_the_same_seed_gives_the_same_curve():
    tasks = next(iter(sine_tasks(num_tasks=2, seed=0)))
    curves = [meta_test(build_mlp, "mse", "sgd", tasks, num_steps=2, seed=seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(curves[0], curves[1])
    assert not np.allclose(curves[0], curves[2])


def test_a_learner_keeps_what_is_compiled_and_a_seed_is_that_of_a_fresh_learner():
    """Other rates and seeds share a compiled function; another loss, optimizer or number of steps does not."""
    tasks = next(iter(sine_tasks(num_tasks=2, seed=0)))
    learner = Learner(build_mlp)
    for rate, seed in [(0.01, 1), (0.05, 2)]:
        curve = meta_test(learner, "mse", optimizers.SGD(rate), tasks, num_steps=2, seed=seed)
        alone = meta_test(build_mlp, "mse", optimizers.SGD(rate), tasks, num_steps=2, seed=seed)
        np.testing.assert_array_equal(curve, alone)
    assert len(learner.compiled) == 1
    schedules = [optimizers.schedules.ExponentialDecay(0.1, 10, decay) for decay in (0.9, 0.5)]
    others = [("mae", "sgd", 2), ("mse", optimizers.SGD(0.01, momentum=0.9), 2), ("mse", "sgd", 3)]
    for loss, optimizer, num_steps in others + [("mse", optimizers.SGD(schedule), 2) for schedule in schedules]:
        curve = meta_test(learner, loss, optimizer, tasks, num_steps=num_steps, seed=1)
        alone = meta_test(build_mlp, loss, optimizer, tasks, num_steps=num_steps, seed=1)
        np.testing.assert_array_equal(curve, alone)
    assert len(learner.compiled) == 6


@pytest.mark.parametrize("jit_compile", [True, False], ids=["XLA", "graph"])
def test_metrics_are_recorded_beside_the_loss(jit_compile):
    """With the metric "mse" on the query points, each curve equals the other; a metric may have any shape."""
    tasks = next(iter(sine_tasks(num_tasks=3, num_query=10, seed=0)))
    learner = Learner(build_mlp, seed=1)
    metrics = {
        "mse": lambda parameters, tasks: tf.reduce_mean(
            tf.square(learner.predict(parameters, tasks["query"][0]) - tasks["query"][1]), [1, 2]
        ),
        "biases": lambda parameters, tasks: parameters.trainable[-1],
    }
    curves = meta_test(learner, "mse", "sgd", tasks, num_steps=4, metrics=metrics, jit_compile=jit_compile)
    alone = meta_test(build_mlp, "mse", "sgd", tasks, num_steps=4, seed=1)
    np.testing.assert_allclose(curves["loss"], alone, rtol=1e-5)
    np.testing.assert_allclose(curves["mse"], curves["loss"], rtol=1e-5)
    assert curves["biases"].shape == (5, 3, 1)
    assert np.all(curves["biases"][0] == 0) and np.all(curves["biases"][-1] != 0)


def test_it_can_start_from_given_parameters():
    tasks = next(iter(sine_tasks(num_tasks=2, seed=0)))
    learner = Learner(build_mlp, seed=1)
    parameters = learner.draw(2)
    curves = [meta_test(build_mlp, "mse", "sgd", tasks, num_steps=1, parameters=parameters, seed=s) for s in (1, 2)]
    np.testing.assert_array_equal(*curves)


def test_steps_must_be_positive():
    with pytest.raises(ValueError, match="`num_steps` must be an integer of at least 1. Received: num_steps=0"):
        meta_test(build_mlp, "mse", "sgd", next(iter(sine_tasks())), num_steps=0)


def test_a_dataset_is_not_read_for_ever():
    with pytest.raises(ValueError, match=r"`meta_test` one of them: next\(iter\(dataset\)\). Received: .*Dataset"):
        meta_test(build_mlp, "mse", "sgd", sine_tasks(2), num_steps=2)


@pytest.mark.parametrize("part", ["support", "query"])
def test_tasks_that_are_not_finite_are_named(part):
    tasks = {name: tuple(v.numpy().copy() for v in xy) for name, xy in next(iter(sine_tasks(4, num_support=5))).items()}
    tasks[part][1][[1, 3], 2, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"NaN or infinity in the task\(s\) \[1, 3\]"):
        meta_test(build_mlp, "mse", "sgd", tasks, num_steps=2)
