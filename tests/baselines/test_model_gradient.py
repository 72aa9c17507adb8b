"""Tests of `ml3_tf.baselines._model_gradient`: the closed form in a linear system, and the words of each error."""

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf.envs  # noqa: F401 - registers the environments
from ml3_tf.baselines import train_in_model
from ml3_tf.envs.pointmass import TIME_STEP, pointmass_step
from ml3_tf.rl import CategoricalPolicy, MLPPolicy, rollout_env

GOALS = np.array([[0.3, -0.2], [-0.5, 0.4]])
HORIZON = 4


@pytest.fixture
def masses():
    env = gymnasium.make_vec("ml3_tf/PointmassGoal-v0", num_envs=2, vectorization_mode="sync")
    env.set_attr("task", [{"goal": goal} for goal in GOALS])
    yield env
    env.close()


def constant_policy():
    """Its action is its bias, whatever the state: a linear system is then quadratic in it."""
    bias = keras.initializers.Constant(0.1)
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(2, kernel_initializer="zeros", bias_initializer=bias)]
    )


def squared_distance(trajectory):
    return tf.reduce_sum(tf.square(trajectory.observations[..., -1, :2] - trajectory.goal), -1)


def small_policy():
    return MLPPolicy(4, 2, hidden_units=(4,), action_limit=1.0)


def train(env, *, policy=small_policy, cost=squared_distance, optimizer="sgd", **arguments):
    return train_in_model(
        policy, cost, optimizer, dynamics=pointmass_step, env=env, **{"horizon": HORIZON, **arguments}
    )


def test_a_step_is_the_gradient_in_closed_form(masses):
    """`x_T = c a`, `c = dt^2 T (T + 1) / 2`: from rest, d|c a - g|^2 / da = 2 c (c a - g)."""
    reach = TIME_STEP**2 * HORIZON * (HORIZON + 1) / 2
    optimizer = keras.optimizers.SGD(3.0)
    weights = constant_policy().trainable_variables
    assert [tuple(w.shape) for w in weights] == [(4, 2), (2,)]
    result = train(masses, policy=constant_policy, optimizer=optimizer, num_steps=2)
    action = np.full((2, 2), 0.1)
    np.testing.assert_allclose(result.actions[0], np.repeat(action[:, np.newaxis], HORIZON, 1), atol=1e-6)
    np.testing.assert_allclose(result.observations[0, :, -1, :2], reach * action, atol=1e-6)
    action -= 3.0 * 2 * reach * (reach * action - GOALS)
    np.testing.assert_allclose(result.actions[1, :, 0], action, atol=1e-5)  # at rest at the origin the bias acts alone
    assert result.observations.shape == (3, 2, HORIZON + 1, 4)


def test_each_policy_has_its_rate(masses):
    run = lambda **arguments: train(masses, optimizer=keras.optimizers.SGD(7.0), num_steps=3, seed=0, **arguments)
    rates = run(learning_rates=[0.0, 7.0]).observations
    np.testing.assert_array_equal(rates[3, 0], rates[0, 0])
    np.testing.assert_allclose(rates[:, 1], run().observations[:, 1], atol=1e-6)


def test_it_trains_policies(masses):
    result = train(masses, optimizer=keras.optimizers.Adam(0.05), num_steps=30, horizon=25, seed=0)
    distances = np.linalg.norm(result.observations[:, :, -1, :2] - GOALS, axis=-1)
    assert (distances[-1] < 0.2 * distances[0]).all()


def test_policies_start_from_given_weights(masses):
    policy = small_policy()
    result = train(masses, policy=policy, num_steps=1, parameters=policy)
    np.testing.assert_allclose(result.actions[0], rollout_env(policy, masses, horizon=HORIZON).actions, atol=1e-6)


def test_a_step_that_is_not_finite_is_not_taken(masses):
    cost = lambda trajectory: squared_distance(trajectory) * tf.constant([[1.0], [np.nan]])
    result = train(masses, cost=cost, optimizer=keras.optimizers.SGD(3.0), num_steps=1, seed=0)
    np.testing.assert_array_equal(result.observations[1, 1], result.observations[0, 1])
    assert not np.allclose(result.observations[1, 0], result.observations[0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_steps": 0}, "`num_steps` must be an integer of at least 1. Received: num_steps=0"),
        ({"cost": lambda trajectory: tf.zeros(2)}, r"shape \(2, 1\). Received: shape \(2,\)"),
        ({"learning_rates": [0.1]}, r"shape \(2,\), one rate for each environment.*Received: shape \(1,\)"),
        ({"policy": lambda: MLPPolicy(3, 2)}, r"does not take observations of shape \(2, 4\)"),
        ({"policy": lambda: CategoricalPolicy(4, 2)}, "`policy` must return an action.* Received: CategoricalPolicy"),
    ],
    ids=["no step", "cost", "rates", "policy", "choices"],
)
def test_arguments_that_do_not_fit_are_refused(masses, arguments, words):
    with pytest.raises(ValueError, match=words):
        train(masses, **{"num_steps": 1, **arguments})


def test_a_single_environment_is_refused():
    with pytest.raises(ValueError, match="`env` must be a vector of environments.* Received: Pendulum-v1"):
        train(gymnasium.make("Pendulum-v1"), num_steps=1)


def test_a_schedule_has_no_rate_for_each_policy(masses):
    optimizer = keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10))
    with pytest.raises(ValueError, match="`optimizer` must have no schedule. Received"):
        train(masses, optimizer=optimizer, num_steps=1, learning_rates=[0.1, 0.2])
