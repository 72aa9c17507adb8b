"""Tests of `ml3_tf.rl.simulators`: simulators in TensorFlow, real environments, and what goes wrong in them."""

import contextlib

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf.envs  # noqa: F401 - registers the environments
from ml3_tf.envs.pointmass import pointmass_step
from ml3_tf.rl.action_distributions import CategoricalActions, GaussianActions
from ml3_tf.rl.checked_env import RolloutError
from ml3_tf.rl.simulators import Sampler, Simulator, as_tasks, simulate

GENERATOR = np.random.default_rng(0)
GOALS = GENERATOR.uniform(-1, 1, (3, 2, 2)).astype("float32")
TASKS = {"state": np.zeros((3, 2, 4), "float32"), "goal": GOALS}
NOISE = GENERATOR.normal(size=(3, 2, 5, 2)).astype("float32")
POINTMASS = Simulator(pointmass_step, lambda s, a, goal: -tf.norm(s[..., :2] - goal, axis=-1))


def predict(gain, observations):
    """A policy that looks ahead, with a standard deviation of 0.3."""
    mean = gain * observations[..., :2] + 0.2 * observations[..., 2:4]
    return tf.concat([mean, 0.3 + 0.0 * mean], -1)


def columns(_, observations):
    """A policy of `Pendulum-v1`, whose mean is the first column of the observation."""
    return tf.concat([observations[..., :1], tf.ones_like(observations[..., :1])], -1)


def test_a_simulated_rollout_equals_one_written_out():
    tasks = {"state": GENERATOR.normal(size=(3, 2, 4)).astype("float32"), "goal": GOALS}
    look = lambda states, goal: tf.concat([states, goal], -1)
    trajectory = simulate(
        lambda o: predict(-0.5, o),
        POINTMASS._replace(observation=look),
        tasks=tasks,
        noise=NOISE,
        distribution=GaussianActions(2),
    )
    states = tasks["state"]
    for t in range(5):
        np.testing.assert_allclose(trajectory.observations[:, :, t], np.concatenate([states, GOALS], -1), rtol=1e-5)
        actions = -0.5 * states[..., :2] + 0.2 * states[..., 2:] + 0.3 * NOISE[:, :, t]
        np.testing.assert_allclose(trajectory.actions[:, :, t], actions, rtol=1e-4, atol=1e-6)
        states = pointmass_step(states, actions).numpy()
        rewards = -np.linalg.norm(states[..., :2] - GOALS, axis=-1)
        np.testing.assert_allclose(trajectory.rewards[:, :, t], rewards, rtol=1e-5)
    np.testing.assert_array_equal(trajectory.mask, np.ones((3, 2, 5)))
    np.testing.assert_array_equal(trajectory.goal, GOALS)


@pytest.fixture
def envs():
    vector = gymnasium.make_vec("ml3_tf/PointmassGoal-v0", num_envs=6, vectorization_mode="sync")
    yield vector
    vector.close()


def test_environment_and_simulator_agree(envs):
    tasks = as_tasks({"state": 0.2 * GENERATOR.normal(size=(3, 2, 4)), "goal": GOALS})
    samplers = (
        Sampler(predict, simulator, horizon=5, distribution=GaussianActions(2)) for simulator in (envs, POINTMASS)
    )
    real, simulated = (sampler(tf.constant(-0.5), tasks, NOISE) for sampler in samplers)
    for name in real._fields:
        np.testing.assert_allclose(getattr(real, name), getattr(simulated, name), atol=1e-5, err_msg=name)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_tasks_reach_environments_unrounded(dtype):
    """The nearest goal that the arm reaches, 0.01 m away: as float32 it lies too near."""
    env = gymnasium.make_vec("ml3_tf/ReacherFingertipGoal-v0", num_envs=1, vectorization_mode="sync")
    tasks = as_tasks({"state": np.zeros((1, 1, 4)), "goal": np.array([[[0.01, 0.0]]], dtype)})
    sampler = Sampler(
        lambda _, observations: 0.0 * observations[..., :4], env, horizon=2, distribution=GaussianActions(2)
    )
    with contextlib.nullcontext() if dtype == "float64" else pytest.raises(ValueError, match="`goal` must lie"):
        trajectory = sampler(tf.constant(0.0), tasks, tf.zeros((1, 1, 2, 2)))
        np.testing.assert_allclose(trajectory.goal, tasks["goal"], rtol=1e-6)
    env.close()


def test_without_noise_the_policy_acts_by_its_mean():
    sampler = Sampler(predict, POINTMASS, horizon=5, distribution=GaussianActions(2))
    trajectory = sampler(tf.constant(-0.5), as_tasks(TASKS), sampler.no_noise(TASKS))
    states = trajectory.observations[:, :, :-1]
    np.testing.assert_allclose(trajectory.actions, -0.5 * states[..., :2] + 0.2 * states[..., 2:], atol=1e-6)


def test_noise_is_standard_normal_and_determined_by_the_seed():
    sampler = Sampler(predict, POINTMASS, horizon=200, distribution=GaussianActions(2))
    draws = [sampler.noise(TASKS, keras.random.SeedGenerator(seed)).numpy() for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert draws[0].shape == (3, 2, 200, 2)
    np.testing.assert_allclose([draws[0].mean(), draws[0].std()], [0, 1], atol=0.1)
    seeds = keras.random.SeedGenerator(0)
    assert not np.array_equal(sampler.noise(TASKS, seeds), sampler.noise(TASKS, seeds))


def test_no_gradient_leaks_through_a_rollout():
    """Through `mu + sigma noise` and the simulator it would: actions and rewards are data."""
    gain = tf.constant(-0.5)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(gain)
        trajectory = simulate(
            lambda o: predict(gain, o), POINTMASS, tasks=TASKS, noise=NOISE, distribution=GaussianActions(2)
        )
        sums = [tf.reduce_sum(values) for values in trajectory]
    assert [tape.gradient(value, gain) for value in sums] == [None] * 5


class Faulty(gymnasium.Env):
    """Observes two numbers; from its second step on it does what its fault is. No episode ends by itself."""

    observation_space = gymnasium.spaces.Box(-10, 10, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))
    task = {}

    def __init__(self, fault=None):
        self.fault = fault

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.state = 0, np.asarray(self.task["state"], np.float32)
        return self.state, {"goal": np.zeros(1, np.float32) if self.fault == "goal" else self.task["goal"]}

    def step(self, action):
        self.steps += 1
        fault = self.fault if self.steps == 2 else None
        if fault == "raises":
            raise RuntimeError("the motor is on fire")
        observation = np.full(2, np.nan, np.float32) if fault == "state" else self.state + 0.1
        return observation, np.nan if fault == "reward" else 1.0, False, False, {}


def run_faulty(fault, count=2, vector=None):
    env = vector or gymnasium.vector.SyncVectorEnv([lambda: Faulty(fault)] * count)
    tasks = as_tasks({"state": np.zeros((2, 1, 2)), "goal": np.ones((2, 1, 1))})
    outputs = lambda _, observations: tf.concat([observations[..., :1], tf.ones_like(observations[..., :1])], -1)
    sampler = Sampler(outputs, env, horizon=4, distribution=GaussianActions(1))
    return sampler(tf.constant(0.0), tasks, tf.zeros((2, 1, 4, 1)))


@pytest.mark.parametrize(
    "fault, error, message",
    [
        ("raises", RolloutError, "step 2: `step` raised RuntimeError: the motor is on fire"),
        ("state", RolloutError, r"step 2: observations are not finite in environment\(s\) \[0, 1\]"),
        ("reward", RolloutError, r"step 2: rewards are not finite in environment\(s\) \[0, 1\]"),
        ("goal", ValueError, "The environments did not take their tasks"),
    ],
)
def test_faults_of_environments_are_named(fault, error, message):
    with pytest.raises(error, match=message):
        run_faulty(fault)


def test_an_episode_without_end_is_cut_at_the_horizon():
    """And the next starts anew: nothing is left of the one before."""
    env = gymnasium.vector.SyncVectorEnv([Faulty] * 2)
    first, second = run_faulty(None, vector=env), run_faulty(None, vector=env)
    np.testing.assert_array_equal(first.mask, np.ones((2, 1, 4)))
    np.testing.assert_array_equal(first.observations, second.observations)


def test_environments_that_would_ignore_their_tasks_are_refused():
    """They may start where they like if the tasks say neither where nor what for."""
    env = gymnasium.make_vec("Pendulum-v1", num_envs=2, vectorization_mode="sync")
    sampler = Sampler(columns, env, horizon=4, distribution=GaussianActions(1))
    free, noise = tf.zeros((2, 1, 0)), tf.zeros((2, 1, 4, 1))
    with pytest.raises(
        ValueError, match=r"attribute `task` at `reset`, .*\['state'\].* Received: Pendulum-v1, without"
    ):
        sampler(None, as_tasks({"state": tf.zeros((2, 1, 2))}), noise)
    assert sampler(None, as_tasks({"state": free, "goal": free}), noise).observations.shape == (2, 1, 5, 3)


def test_an_asynchronous_vector_that_was_asked_for_tasks_is_closed():
    """The question ends its workers: without a word, the next rollout would fail for no visible reason."""
    env = gymnasium.make_vec("Pendulum-v1", num_envs=2, vectorization_mode="async")
    sampler, noise = Sampler(columns, env, horizon=2, distribution=GaussianActions(1)), tf.zeros((2, 1, 2, 1))
    with pytest.warns(UserWarning, match="ERROR"), pytest.raises(ValueError, match="Use seeds as tasks"):
        sampler(None, as_tasks({"state": tf.zeros((2, 1, 2))}), noise)
    with pytest.raises(ValueError, match="`env` must be open.* Received: Pendulum-v1, closed"):
        sampler(None, as_tasks({"seed": [[1], [2]]}), noise)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_seed_is_a_task(mode):
    """Each reset starts the environment of a task in the same way; nothing has to be added to it."""
    env = gymnasium.make_vec("Pendulum-v1", num_envs=2, vectorization_mode=mode)
    sampler, noise = Sampler(columns, env, horizon=2, distribution=GaussianActions(1)), tf.zeros((1, 2, 2, 1))
    first, second, other = (
        sampler(None, as_tasks({"seed": seeds}), noise).observations for seeds in ([[3, 8]], [[3, 8]], [[3, 9]])
    )
    env.close()
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first[:, 0], other[:, 0])
    assert not np.allclose(first[:, 1, 0], other[:, 1, 0])
    expected, _ = gymnasium.make("Pendulum-v1").reset(seed=8)
    np.testing.assert_array_equal(first[0, 1, 0], expected)


def test_the_goal_of_an_environment_that_chooses_it_is_kept(envs):
    sampler = Sampler(predict, envs, horizon=2, distribution=GaussianActions(2))
    trajectory = sampler(tf.constant(0.0), as_tasks({"seed": np.arange(6).reshape(3, 2)}), NOISE[:, :, :2])
    assert trajectory.goal.shape == (3, 2, 2) and np.ptp(trajectory.goal) > 0


def test_seeds_are_for_environments():
    with pytest.raises(ValueError, match="Tasks of a `Simulator` are states and goals. Received: seeds"):
        simulate(None, POINTMASS, tasks={**TASKS, "seed": 0}, noise=NOISE, distribution=GaussianActions(2))


def test_actions_of_another_kind_are_refused_with_a_policy_that_fits():
    env = gymnasium.make_vec("CartPole-v1", num_envs=2)
    with pytest.raises(ValueError, match=r"Received: GaussianActions\(size=1\), for CartPole-v1"):
        Sampler(columns, env, horizon=2, distribution=GaussianActions(1))


WALK_OF_CHOICES = Simulator(
    step=lambda states, actions: states + actions[..., 1:] - actions[..., :1],
    reward=lambda states, actions, goal: states[..., 0],
)


def test_a_simulator_takes_choices():
    """To the left with probability 0.2, to the right with 0.8: 0.6 a step in the mean, and always without noise."""
    log_probabilities = np.log([0.2, 0.8]).astype("float32")
    predict = lambda _, observations: tf.broadcast_to(log_probabilities, [*observations.shape[:2], 2])
    sampler = Sampler(predict, WALK_OF_CHOICES, horizon=10, distribution=CategoricalActions(2))
    tasks = as_tasks({"state": np.zeros((1, 2_000, 1), "float32")})
    noisy = sampler(None, tasks, sampler.noise(tasks, keras.random.SeedGenerator(0)))
    np.testing.assert_allclose(np.mean(noisy.observations[0, :, -1]), 6.0, atol=0.2)
    np.testing.assert_array_equal(np.sort(noisy.actions, -1)[..., 1], np.ones((1, 2_000, 10)))
    likely = sampler(None, tasks, sampler.no_noise(tasks))
    np.testing.assert_array_equal(likely.observations[0, :, -1], np.full((2_000, 1), 10.0))


def test_every_episode_needs_an_environment():
    with pytest.raises(ValueError, match="for each episode of each task, 2. Received: num_envs=3"):
        run_faulty(None, count=3)


def test_a_simulator_that_diverges_is_named():
    diverging = POINTMASS._replace(step=lambda states, actions: tf.where(states[..., :1] > 0, np.inf, states + 0.5))
    tasks = as_tasks({**TASKS, "state": np.zeros((3, 2, 4)) + np.array([0, 1, 0])[:, None, None]})
    with pytest.raises(RolloutError, match=r"The observations of task\(s\) \[0, 1, 2\] are not finite"):
        Sampler(predict, diverging, horizon=5, distribution=GaussianActions(2))(tf.constant(0.0), tasks, NOISE)
    with pytest.raises(RolloutError, match=r"The observations of task\(s\) \[1\] are not finite"):
        Sampler(predict, diverging, horizon=1, distribution=GaussianActions(2))(
            tf.constant(0.0), tasks, NOISE[:, :, :1]
        )


@pytest.mark.parametrize("name", ["step", "reward"])
def test_functions_of_a_simulator_keep_shapes(name):
    wrong = POINTMASS._replace(**{name: lambda states, actions, *goal: states[..., :1]})
    with pytest.raises(ValueError, match=rf"`{name}` of the simulator must return the shape \(3, 2.*Received: shape"):
        Sampler(predict, wrong, horizon=5, distribution=GaussianActions(2))(tf.constant(0.0), as_tasks(TASKS), NOISE)


@pytest.mark.parametrize(
    "tasks, message",
    [
        ([1], "Received: list"),
        ({}, r"Environments without goals need seeds alone: .* Received: \[\]"),
        ({"support": 1, "query": 2}, r"Received: \['query', 'support'\]"),
        ({"seed": np.zeros((3, 2, 1), int)}, r"\[N, E\] of seeds, which are integers. Received: {'seed': \(3, 2, 1\)}"),
        ({"seed": np.zeros((3, 2))}, "of seeds, which are integers"),
        ({"seed": np.zeros((3, 2), int), "goal": np.zeros((3, 1, 2))}, "Tasks must have the shapes"),
        ({"state": np.zeros((3, 4)), "goal": np.zeros((3, 2))}, r"the shapes \[N, E, S\] of states, \[N, E, G\]"),
        ({"state": np.zeros((3, 2, 4)), "goal": np.zeros((3, 1, 2))}, r"the shapes \[N, E, S\] of states, \[N, E, G\]"),
        ({"state": np.zeros((3, 0, 4)), "goal": np.zeros((3, 0, 2))}, "positive number of tasks and of episodes"),
    ],
    ids=["list", "nothing", "other-names", "seed-rank", "seed-type", "seed-episodes", "rank", "episodes", "none"],
)
def test_tasks_of_another_form_are_refused(tasks, message):
    with pytest.raises(ValueError, match=message):
        as_tasks(tasks)


def test_invalid_arguments_of_a_sampler_are_refused():
    with pytest.raises(ValueError, match="`simulator` must be a `Simulator` or a vector of environments.*Received: 3"):
        Sampler(predict, 3, horizon=5, distribution=GaussianActions(2))
    with pytest.raises(ValueError, match="`horizon` must be an integer of at least 1. Received: horizon=0"):
        Sampler(predict, POINTMASS, horizon=0, distribution=GaussianActions(2))
