"""Tests of `ml3_tf.baselines._ilqr_checks`: the words of each error of `ilqr`."""

import math

import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.baselines import ilqr


def small(**changes):
    """Solves a problem of two tasks, three steps, one state and one control, with some arguments changed."""
    arguments = {
        "dynamics": lambda states, controls: states + controls,
        "running_cost": lambda states, controls: controls[..., 0] ** 2,
        "final_cost": lambda states: states[..., 0] ** 2,
        "initial_states": np.ones((2, 1)),
        "controls": np.zeros((2, 3, 1)),
    }
    return ilqr(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"controls": np.zeros((2, 0, 1))},
            r"`controls` must have the shape \[N, T, A\], with no axis of length 0. Received: sh",
        ),
        ({"controls": np.zeros((2, 3))}, r"`controls` must have the shape \[N, T, A\].* Received: shape \(2, 3\)"),
        ({"initial_states": np.ones(2)}, r"`initial_states` must have the shape \[N, S\].* Received: shape \(2,\)"),
        ({"initial_states": np.ones((3, 1))}, r"the same number of tasks .* Received: shapes \(3, 1\) and \(2, 3, 1\)"),
        ({"initial_states": [[1.0], [math.nan]]}, "`initial_states` must be finite. Received"),
        ({"lower": [0.0, 1.0]}, r"`lower` must be a number or have the shape \(1,\). Received: shape \(2,\)"),
        ({"lower": 1.0, "upper": -1.0}, "`lower` must be below `upper`. Received: lower=1.0, upper=-1.0"),
        (
            {"dynamics": lambda x, u: x[..., 0]},
            r"`dynamics` must return float64 values of shape \(2, 1, 1\). Received: float64 ",
        ),
        ({"running_cost": lambda x, u: u}, r"`running_cost` must return .* \(2, 3\). Received: float64 .* \(2, 3, 1\)"),
        ({"final_cost": lambda x: tf.reduce_sum(x)}, r"`final_cost` must return .* \(2,\). Received: float64 .* \(\)"),
        (
            {"final_cost": lambda x: tf.cast(x[:, 0], tf.float32)},
            "`final_cost` must return float64 .* Received: float32",
        ),
        (
            {"dynamics": lambda x, u: x / 0.0 + u},
            r"finite states. Received: \[inf\] in task 0 after 1 steps. Start from",
        ),
        ({"running_cost": lambda x, u: tf.math.log(u[..., 0])}, "cost of the first plan must be finite"),
        (
            {"final_cost": lambda x: tf.norm(x - 1.0, axis=-1)},
            "the gradient of `final_cost` is not finite at .* A norm, for example",
        ),
    ],
    ids=[
        "horizon-0",
        "controls-rank",
        "states-rank",
        "tasks",
        "nan-state",
        "limit-width",
        "limits-cross",
        "dynamics-shape",
        "running-shape",
        "final-shape",
        "dtype",
        "diverges",
        "nan-cost",
        "nan-gradient",
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        small(**changes)
