"""Tests of `ml3_tf.rl.time_loop`: a gradient by a sweep back over time is that of the loop."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.rl import rollout_model
from ml3_tf.rl.time_loop import loop_over_time

STARTS = np.random.default_rng(0).normal(size=(3, 2, 2))
WEIGHTS = tf.constant(np.random.default_rng(1).normal(size=(2, 1)))


def pendulum(states, actions):
    angle, speed = states[..., :1], states[..., 1:]
    speed += 0.1 * (actions - tf.sin(angle))
    return tf.concat([angle + 0.1 * speed, speed], -1)


def gradients(*, swept, horizon=9, time_unroll=1, jit_compile=None, dynamics=pendulum, variables=()):
    """Of a cost of states and actions, for weights, initial states and variables."""

    def differentiate(weights, starts):
        with tf.GradientTape() as tape:
            tape.watch([weights, starts])
            policy = lambda states: tf.tanh(tf.tensordot(states, weights, 1))
            arguments = {"horizon": horizon, "time_unroll": time_unroll, "weights": [weights] if swept else ()}
            trajectory = rollout_model(policy, dynamics, starts, **arguments)
            cost = tf.reduce_sum(trajectory.observations**2) + tf.reduce_sum(tf.sin(3.0 * trajectory.actions))
        return tape.gradient(cost, [weights, starts, *variables])

    function = differentiate if jit_compile is None else tf.function(differentiate, jit_compile=jit_compile)
    return function(WEIGHTS, tf.constant(STARTS))


@pytest.mark.parametrize(("horizon", "time_unroll"), [(2, 1), (9, 1), (9, 4)])
@pytest.mark.parametrize("jit_compile", [None, False, True], ids=["eager", "graph", "XLA"])
def test_a_sweep_over_time_gives_the_gradient_of_the_loop(horizon, time_unroll, jit_compile):
    plain = gradients(swept=False, horizon=horizon, time_unroll=time_unroll)
    swept = gradients(swept=True, horizon=horizon, time_unroll=time_unroll, jit_compile=jit_compile)
    for value, expected in zip(swept, plain, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-12)


@pytest.mark.parametrize("jit_compile", [None, True], ids=["eager", "XLA"])
def test_it_flows_to_variables_of_the_dynamics(jit_compile):
    damping = keras.Variable(0.3, dtype="float64")
    damped = lambda states, actions: pendulum(states, actions) * (1.0 - 0.1 * damping)
    arguments = {"dynamics": damped, "variables": [damping.value], "jit_compile": jit_compile}
    plain, swept = (gradients(swept=swept, **arguments) for swept in (False, True))
    assert abs(plain[2]) > 0.1
    for value, expected in zip(swept, plain, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_a_sweep_can_be_differentiated_again():
    weights = tf.constant([0.7], tf.float64)
    steps = lambda x: [x * tf.sin(weights), (x * tf.sin(weights))[tf.newaxis], x[tf.newaxis]]
    start, shapes = tf.constant([1.3], tf.float64), (tf.TensorShape([1]),) * 2
    with tf.GradientTape() as outer:
        outer.watch(weights)
        with tf.GradientTape() as inner:
            inner.watch(weights)
            end = loop_over_time(steps, start, 4, shapes, weights=[weights])[0][-1]
        slope = inner.gradient(end, weights)
    w, x = 0.7, 1.3  # x sin(w)^4
    np.testing.assert_allclose(slope, [4 * x * np.sin(w) ** 3 * np.cos(w)])
    curvature = 4 * x * (3 * np.sin(w) ** 2 * np.cos(w) ** 2 - np.sin(w) ** 4)
    np.testing.assert_allclose(outer.gradient(slope, weights), [curvature])
