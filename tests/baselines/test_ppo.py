"""Tests of `ml3_tf.baselines._ppo`: its options, a task that it solves, and the words of each error."""

import dataclasses

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf.envs  # noqa: F401 - registers the environments
from ml3_tf.baselines import PPOSettings, _ppo, ppo
from ml3_tf.envs.pointmass import pointmass_step
from ml3_tf.learner import Learner
from ml3_tf.rl import CategoricalPolicy, GaussianPolicy, MLPPolicy, RolloutError, Simulator

GENERATOR = np.random.default_rng(0)
POINTMASS = Simulator(pointmass_step, lambda s, a, goal: -tf.norm(s[..., :2] - goal, axis=-1))
TASKS = {"state": np.zeros((2, 2, 4)), "goal": np.repeat(GENERATOR.uniform(-1, 1, (2, 1, 2)), 2, 1)}


def build_policy():
    return GaussianPolicy(4, 2, hidden_units=(8,), std=0.5)


def run(simulator=POINTMASS, tasks=TASKS, *, policy=build_policy, evaluation_simulator=None, seed=0, **changes):
    """Runs PPO at toy size, with some of its settings changed."""
    settings = PPOSettings(**{"num_updates": 2, "horizon": 6, "batch_size": 5, "epochs": 2, **changes})
    return ppo(
        policy,
        simulator,
        tasks,
        settings=settings,
        evaluation_simulator=evaluation_simulator,
        seed=seed,
        jit_compile=False,
    )


@pytest.fixture(scope="module")
def plain():
    """The returns of a run without options."""
    return run().returns


def test_mini_batches_pass_over_all_experience():
    orders = tf.argsort(tf.random.stateless_uniform((3, 2, 12), [0, 0]))
    parts = _ppo._split(orders, 5).numpy()
    assert parts.shape == (3 * 2, 2, 5)
    for epoch in range(3):
        for task in range(2):
            order = np.concatenate([parts[2 * epoch, task], parts[2 * epoch + 1, task]])
            np.testing.assert_array_equal(order, orders[epoch, task, :10])


def test_it_solves_a_task():
    """Pointmass, 300 episodes; a policy that stays at the origin has -25 times the distance of the goal."""
    goals = np.array([[1.0, -0.5], [-0.8, 0.8]])
    tasks = {"state": np.zeros((2, 10, 4)), "goal": np.repeat(goals[:, np.newaxis], 10, 1)}
    settings = PPOSettings(
        num_updates=30,
        horizon=25,
        batch_size=50,
        optimizer=keras.optimizers.Adam(0.01, clipnorm=0.5),
        discount=0.9,
        gae_lambda=0.9,
    )
    policy = lambda: GaussianPolicy(4, 2, hidden_units=(32,), std=0.5)
    result = ppo(policy, POINTMASS, tasks, settings=settings, seed=0)
    staying = -25 * np.linalg.norm(goals, axis=1)
    np.testing.assert_allclose(result.deterministic_returns[0], staying, rtol=0.1)
    assert (result.deterministic_returns[-1] > 0.65 * staying).all()
    np.testing.assert_array_equal(result.samples[:, 0], 250 * np.arange(31))


def test_it_balances_a_pole():
    """In at most 12,000 environment steps of `CartPole-v1`: a random policy holds the pole for about 22 steps."""
    env = gymnasium.make_vec("CartPole-v1", num_envs=10, vectorization_mode="sync")
    settings = PPOSettings(
        num_updates=12, horizon=100, batch_size=100, epochs=6, optimizer=keras.optimizers.Adam(0.01), bootstrap=False
    )
    policy = lambda: CategoricalPolicy(4, 2, hidden_units=(16,))
    tasks = {"seed": np.arange(10).reshape(1, 10)}
    result = ppo(policy, env, tasks, settings=settings, seed=0, jit_compile=False)
    env.close()
    assert result.returns[0, 0] < 35 and result.deterministic_returns[-1, 0] > 70


def test_real_environments_and_their_simulator_agree(plain):
    env = gymnasium.make_vec("ml3_tf/PointmassGoal-v0", num_envs=4, vectorization_mode="sync")
    np.testing.assert_allclose(run(env).returns, plain, rtol=1e-3)
    env.close()


def test_mean_policies_may_be_measured_apart(plain):
    """One environment for each task suffices where the task's episodes start alike; noisy rollouts do not change."""
    alike = {name: np.repeat(values[:, :1], 2, 1) for name, values in TASKS.items()}
    both, apart = (run(tasks=alike, evaluation_simulator=simulator) for simulator in (None, POINTMASS))
    np.testing.assert_array_equal(apart.returns, both.returns)
    np.testing.assert_allclose(apart.deterministic_returns, both.deterministic_returns, rtol=1e-5)
    env = gymnasium.make_vec("ml3_tf/PointmassGoal-v0", num_envs=2, vectorization_mode="sync")
    in_env = run(tasks=alike, evaluation_simulator=env)
    env.close()
    np.testing.assert_allclose(in_env.deterministic_returns, both.deterministic_returns, rtol=1e-3)


def test_seeds_reproduce(plain):
    np.testing.assert_array_equal(run().returns, plain)
    assert not np.allclose(run(seed=1).returns, plain)


@pytest.mark.parametrize("changes", [{"normalize_observations": True}, {"bootstrap": False}], ids=["scaled", "ends"])
def test_settings_change_the_learned_policies(plain, changes):
    returns = run(**changes).returns
    np.testing.assert_array_equal(returns[0], plain[0])  # before anything is learned
    assert (returns[1:] != plain[1:]).any()


def test_settings_reach_policy_and_value():
    settings = PPOSettings(num_updates=1, horizon=6, clip_range=0.3, entropy_weight=0.5, optimizer="sgd")
    learning = _ppo._make_learning(Learner(build_policy), settings, seed=0)
    assert (learning.policy.loss.clip_range, learning.policy.loss.entropy_weight) == (0.3, 0.5)
    assert [isinstance(loop.optimizer.optimizer, keras.optimizers.SGD) for loop in learning[:2]] == [True, True]
    value = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    settings = dataclasses.replace(settings, value_optimizer="rmsprop", value_network=value)
    learning = _ppo._make_learning(Learner(build_policy), settings, seed=0)
    assert isinstance(learning.value.optimizer.optimizer, keras.optimizers.RMSprop)
    assert learning.value.learner.model.count_params() == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 13}, "`batch_size` must be at most 12, the number of time steps.* Received: batch_size=13"),
        ({"batch_size": 0}, "`batch_size` must be an integer of at least 1. Received: batch_size=0"),
        ({"epochs": 0}, "`epochs` must be an integer of at least 1. Received: epochs=0"),
        ({"clip_range": 0.0}, "`clip_range` must be positive.* Received: clip_range=0.0"),
        ({"entropy_weight": -1.0}, "`entropy_weight` must not be negative.* entropy_weight=-1.0"),
        ({"num_updates": 0}, "`num_updates` must be an integer of at least 1. Received: num_updates=0"),
    ],
    ids=["batch", "no batch", "epochs", "clip", "entropy", "updates"],
)
def test_numbers_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        run(**changes)


def test_a_deterministic_policy_is_refused():
    with pytest.raises(ValueError, match="mean and standard deviation side by side"):
        run(policy=lambda: MLPPolicy(4, 2))


def test_a_simulator_that_diverges_is_named():
    with pytest.raises(RolloutError, match=r"The rewards of task\(s\) \[0, 1\] are not finite"):
        run(POINTMASS._replace(reward=lambda s, a, goal: s[..., 0] * np.nan))
