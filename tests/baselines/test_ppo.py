"""Tests of `ml3_tf.baselines._ppo`: its objective, its parts by hand, and a task that it solves."""

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf.envs  # noqa: F401 - registers the environments
from ml3_tf.baselines import ppo as module
from ml3_tf.baselines._ppo import ClippedObjective, ppo
from ml3_tf.envs.pointmass import pointmass_step
from ml3_tf.rl.policies import GaussianPolicy
from ml3_tf.rl.policy_gradient import gaussian_log_prob
from ml3_tf.rl.rollouts import Trajectory
from ml3_tf.rl.simulators import Simulator

GENERATOR = np.random.default_rng(0)
POINTMASS = Simulator(pointmass_step, lambda s, a, goal: -tf.norm(s[..., :2] - goal, axis=-1))
TASKS = {"state": np.zeros((2, 2, 4)), "goal": np.repeat(GENERATOR.uniform(-1, 1, (2, 1, 2)), 2, 1)}


def build_policy():
    return GaussianPolicy(4, 2, hidden_units=(8,), std=0.5)


def run(simulator=POINTMASS, tasks=TASKS, **arguments):
    defaults = {"updates": 2, "horizon": 6, "batch_size": 5, "epochs": 2, "seed": 0, "jit_compile": False}
    return ppo(build_policy, simulator, tasks, **{**defaults, **arguments})


@pytest.fixture(scope="module")
def plain():
    """The returns of a run without options."""
    return run().returns


@pytest.mark.parametrize(
    "ratio, advantage, expected, moves",
    [(1.1, 2.0, -2.2, True), (1.5, 2.0, -2.4, False), (0.5, 2.0, -1.0, True), (0.5, -2.0, 1.6, False)],
    ids=["within", "too far up", "back up", "too far down"],
)
def test_the_objective_by_hand(ratio, advantage, expected, moves):
    """With eps = 0.2; beyond it, a step that would go on has no gradient."""
    y_pred, actions = tf.constant([[0.1, -0.2, 0.5, 0.6]]), tf.constant([[0.3, 0.4]])
    old = gaussian_log_prob(y_pred, actions) - np.log(ratio)
    y_true = tf.concat([actions, old[:, tf.newaxis], [[advantage]]], -1)
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        loss = ClippedObjective(0.2)(y_true, y_pred)
    np.testing.assert_allclose(loss, [expected], rtol=1e-5)
    assert (np.abs(tape.gradient(loss, y_pred)).max() > 0) == moves


def test_the_entropy_is_that_of_a_gaussian_but_for_a_constant():
    std = np.array([[0.5, 0.6], [1.0, 2.0]])
    y_pred, y_true = tf.constant(np.concatenate([np.zeros((2, 2)), std], 1)), tf.zeros((2, 4), tf.float64)
    losses = [ClippedObjective(0.2, entropy_weight=weight)(y_true, y_pred).numpy() for weight in (0.0, 0.1)]
    np.testing.assert_allclose(losses[1] - losses[0], -0.1 * np.log(std).sum(1))


def test_running_moments_are_those_of_all_observations():
    """Of those that happened: a mask leaves some out."""
    observations = GENERATOR.normal(3, 2, size=(2, 2, 5, 7, 3)).astype("float32")
    mask = np.ones((2, 2, 5, 6), "float32")
    mask[1, 0, 1, 4:] = 0
    start = module._Statistics(tf.zeros((2, 1, 1, 3)), tf.ones((2, 1, 1, 3)), tf.zeros((2, 1, 1, 1)))
    for rollouts in range(2):
        trajectory = Trajectory(observations[rollouts], None, None, None, tf.constant(mask[rollouts]))
        start = module._with_more(start, trajectory)
    for task in range(2):
        happened = observations[:, task, :, :-1][mask[:, task] == 1]
        np.testing.assert_allclose(start.mean[task, 0, 0], happened.mean(0), rtol=1e-5)
        np.testing.assert_allclose(start.variance[task, 0, 0], happened.var(0), rtol=1e-4)
        assert start.number[task, 0, 0, 0] == len(happened)


def test_mini_batches_pass_over_all_experience():
    orders = tf.argsort(tf.random.stateless_uniform((3, 2, 12), [0, 0]))
    parts = module._slices(orders, 5).numpy()
    assert parts.shape == (3 * 2, 2, 5)
    for epoch in range(3):
        for task in range(2):
            order = np.concatenate([parts[2 * epoch, task], parts[2 * epoch + 1, task]])
            np.testing.assert_array_equal(order, orders[epoch, task, :10])


def test_it_solves_a_task():
    """Pointmass, 300 episodes; who stays at the origin has -25 times the distance of the goal."""
    goals = np.array([[1.0, -0.5], [-0.8, 0.8]])
    tasks = {"state": np.zeros((2, 10, 4)), "goal": np.repeat(goals[:, np.newaxis], 10, 1)}
    result = ppo(
        lambda: GaussianPolicy(4, 2, hidden_units=(32,), std=0.5),
        POINTMASS,
        tasks,
        updates=30,
        horizon=25,
        optimizer=keras.optimizers.Adam(0.01, clipnorm=0.5),
        discount=0.9,
        gae_lambda=0.9,
        batch_size=50,
        seed=0,
    )
    staying = -25 * np.linalg.norm(goals, axis=1)
    np.testing.assert_allclose(result.deterministic_returns[0], staying, rtol=0.1)
    assert (result.deterministic_returns[-1] > 0.65 * staying).all()
    np.testing.assert_array_equal(result.samples[:, 0], 250 * np.arange(31))


def test_real_environments_and_their_simulator_agree(plain):
    env = gymnasium.make_vec("ml3_tf/PointmassGoal-v0", num_envs=4, vectorization_mode="sync")
    np.testing.assert_allclose(run(env).returns, plain, rtol=1e-3)
    env.close()


def test_mean_policies_may_be_measured_apart(plain):
    """In an environment each, where episodes of a task start alike; the noisy ones are as before."""
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


@pytest.mark.parametrize("options", [{"normalize_observations": True}, {"bootstrap": False}], ids=["scaled", "ends"])
def test_options_change_what_is_learned(plain, options):
    returns = run(**options).returns
    np.testing.assert_array_equal(returns[0], plain[0])  # before anything is learned
    assert (returns[1:] != plain[1:]).any()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"batch_size": 13}, "1 <= `batch_size` <= 12, the number of time steps of a task.* Received: batch_size=13"),
        ({"epochs": 0}, "`epochs` >= 1. Received: batch_size=5, epochs=0"),
        ({"clip_range": 0.0}, "Expected a positive `clip_range`.* Received: clip_range=0.0"),
        ({"entropy_weight": -1.0}, "`entropy_weight` that is not negative.* entropy_weight=-1.0"),
        ({"updates": 0}, "`updates` must be an integer, at least 1. Received: updates=0"),
    ],
    ids=["batch", "epochs", "clip", "entropy", "updates"],
)
def test_numbers_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        run(**arguments)


def test_a_deterministic_policy_is_refused():
    with pytest.raises(ValueError, match="mean and standard deviation side by side"):
        ppo(lambda: GaussianPolicy(4, 2), POINTMASS, TASKS, 1, 6, batch_size=5)


def test_a_simulator_that_diverges_is_named():
    with pytest.raises(FloatingPointError, match=r"The rewards of task\(s\) \[0, 1\] are not finite"):
        run(POINTMASS._replace(reward=lambda s, a, goal: s[..., 0] * np.nan))
