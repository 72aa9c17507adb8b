"""Tests of `ml3_tf.rl.meta_testing`: Algorithm 5 with sampled experience."""

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf.envs  # noqa: F401 - registers the environments
from ml3_tf import LossInputs, MetaLoss
from ml3_tf.envs.pointmass import pointmass_step
from ml3_tf.learner import Learner
from ml3_tf.rl.action_distributions import GaussianActions
from ml3_tf.rl.checked_env import RolloutError
from ml3_tf.rl.loss_inputs import learning_batch, mini_batches, observation_and_action, observation_and_goal
from ml3_tf.rl.meta_testing import OnPolicySettings, meta_test_in_env, meta_test_on_policy
from ml3_tf.rl.policies import GaussianPolicy, MLPPolicy
from ml3_tf.rl.rollouts import rollout_env
from ml3_tf.rl.simulators import Sampler, Simulator, as_tasks

INPUTS = LossInputs(observation_and_action, {"mean_and_std": 4, "observation": 4, "action": 2})
CAR_INPUTS = LossInputs(observation_and_goal, {"action": 1, "state": 2, "goal": 2})
TASKS = {
    "state": np.zeros((3, 2, 4), "float32"),
    "goal": np.random.default_rng(0).uniform(-1, 1, (3, 2, 2)).astype("float32"),
}
POINTMASS = Simulator(pointmass_step, lambda s, a, goal: -tf.norm(s[..., :2] - goal, axis=-1))


def build_car_policy():
    initializer = keras.initializers.RandomNormal(stddev=0.5)
    return MLPPolicy(2, 1, hidden_units=(4,), action_limit=0.25, output_initializer=initializer)


def build_policy():
    return GaussianPolicy(4, 2, hidden_units=(5,), std=0.5)


def run(simulator=POINTMASS, **arguments):
    keras.utils.set_random_seed(0)
    loss = MetaLoss.mlp((6,), features=INPUTS)
    settings = {"num_updates": 2, "horizon": 6}
    names = "num_updates", "batch_size", "deterministic"
    settings |= {name: arguments.pop(name) for name in names if name in arguments}
    defaults = {"optimizer": keras.optimizers.SGD(0.5), "jit_compile": False, "seed": 0, "loss_inputs": INPUTS}
    arguments = {**defaults, "settings": OnPolicySettings(**settings), **arguments}
    return meta_test_on_policy(build_policy, loss, simulator=simulator, tasks=TASKS, **arguments)


def test_an_update_is_compile_and_train_on_batch():
    """Nothing of ml3_tf is in the loop of who uses a learned loss, but the layout of its inputs."""
    keras.utils.set_random_seed(0)
    loss, policy = MetaLoss.mlp((6,), features=INPUTS), build_policy()
    many = meta_test_on_policy(
        policy,
        loss,
        keras.optimizers.SGD(0.5),
        POINTMASS,
        TASKS,
        settings=OnPolicySettings(num_updates=2, horizon=6, batch_size=4),
        loss_inputs=INPUTS,
        parameters=policy,
        seed=0,
    )
    learner, tasks, seeds = Learner(policy), as_tasks(TASKS), keras.random.SeedGenerator(0)
    sampler = Sampler(learner.predict, POINTMASS, horizon=6, distribution=GaussianActions(2))
    models = [keras.models.clone_model(policy) for _ in range(3)]
    for model in models:
        model.set_weights(policy.get_weights())
        model.compile(keras.optimizers.SGD(0.5), loss=loss)
    for number in range(3):
        # The policy of a task alone, among copies of itself: the noise is that of all tasks.
        noise = sampler.noise(tasks, seeds)
        rollouts = [sampler(learner.copies(model, 3), tasks, noise) for model in models]
        trajectory = tf.nest.map_structure(lambda *t: tf.stack([t[n][n] for n in range(3)]), *rollouts)
        np.testing.assert_allclose(many.returns[number], np.mean(np.sum(trajectory.rewards, 2), 1), rtol=1e-4)
        for x, y, sample_weight in mini_batches(trajectory, INPUTS, batch_size=4, seeds=seeds) if number < 2 else []:
            for task, model in enumerate(models):
                model.train_on_batch(x[task], y[task], sample_weight[task])
    for task, model in enumerate(models):
        for received, expected in zip(many.parameters.trainable, model.trainable_variables):
            np.testing.assert_allclose(received[task], expected, rtol=1e-4, atol=1e-5)


def test_the_account_of_what_it_took():
    result = run()
    assert result.returns.shape == result.deterministic_returns.shape == (3, 3)
    np.testing.assert_array_equal(result.samples, [[0] * 3, [12] * 3, [24] * 3])
    assert run(deterministic=False).deterministic_returns is None


def test_measuring_the_mean_policies_moves_nothing():
    np.testing.assert_array_equal(run().returns, run(deterministic=False).returns)


def test_seeds_reproduce():
    results = [run(seed=seed, batch_size=5).returns for seed in (0, 0, 1)]
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.allclose(results[0], results[2])


def test_real_environments_and_their_simulator_agree():
    env = gymnasium.make_vec("ml3_tf/PointmassGoal-v0", num_envs=6, vectorization_mode="sync")
    np.testing.assert_allclose(run(env).returns, run().returns, rtol=1e-4)
    env.close()


@pytest.mark.parametrize("name", ["num_updates", "horizon"])
@pytest.mark.parametrize("count", [0, 1.5])
def test_settings_must_count(name, count):
    with pytest.raises(ValueError, match=f"`{name}` must be an integer of at least 1. Received: {name}={count}"):
        OnPolicySettings(**{"num_updates": 1, "horizon": 1, name: count})


def test_policies_that_diverge_are_named():
    with pytest.raises(RolloutError, match=r"of task\(s\) \[0, 1, 2\] are not finite"):
        run(optimizer=keras.optimizers.SGD(1e30), num_updates=3)


# In real environments


@pytest.fixture
def cars():
    env = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=2, vectorization_mode="sync")
    env.set_attr("task", [{"state": [-0.6, 0.0]}, {"state": [-0.5, 0.1]}])
    yield env
    env.close()


def test_a_real_step_is_compile_and_train_on_batch(cars):
    """Nothing of ml3_tf is in the loop of who uses a learned loss, but the layout of its inputs."""
    keras.utils.set_random_seed(0)
    loss = MetaLoss.mlp((6,), features=CAR_INPUTS)
    policy = build_car_policy()
    many = meta_test_in_env(
        policy,
        loss,
        keras.optimizers.SGD(30.0),
        cars,
        num_steps=2,
        horizon=8,
        loss_inputs=CAR_INPUTS,
        parameters=policy,
    )
    policy.compile(keras.optimizers.SGD(30.0), loss=loss)
    one = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=1, vectorization_mode="sync")
    one.set_attr("task", [{"state": [-0.5, 0.1]}])
    for step in range(3):
        trajectory = rollout_env(policy, one, horizon=8)
        np.testing.assert_allclose(trajectory.observations[0], many.observations[step, 1], atol=1e-6)
        x, y, sample_weight = (part[0] for part in learning_batch(trajectory, CAR_INPUTS))
        policy.train_on_batch(x, y, sample_weight)
    assert many.observations.shape == (3, 2, 9, 2)
    assert np.abs(many.actions[2] - many.actions[0]).max() > 1e-4


def test_policies_are_fresh_and_determined_by_the_seed(cars):
    loss = MetaLoss.mlp((6,), features=CAR_INPUTS)
    settings = {"num_steps": 1, "horizon": 4, "loss_inputs": CAR_INPUTS}
    runs = [meta_test_in_env(build_car_policy, loss, "sgd", cars, seed=s, **settings).actions for s in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0], runs[2])
    assert not np.allclose(runs[0][0, 0], runs[0][0, 1])


def test_nothing_is_learned_after_the_end_of_an_episode(cars):
    """Transitions that did not happen have weight 0."""
    trajectory = rollout_env(build_car_policy(), cars, horizon=40)
    x, _, sample_weight = learning_batch(trajectory, CAR_INPUTS)
    assert x.shape == (2, 40, 2)
    np.testing.assert_array_equal(sample_weight, trajectory.mask)
    assert sample_weight.numpy().sum() == 70


def test_what_does_not_fit_is_refused(cars):
    loss, settings = MetaLoss.mlp((6,), features=CAR_INPUTS), {"horizon": 4, "loss_inputs": CAR_INPUTS}
    with pytest.raises(ValueError, match="`num_steps` must be an integer of at least 1. Received: num_steps=0"):
        meta_test_in_env(build_car_policy, loss, "sgd", cars, num_steps=0, **settings)
    with pytest.raises(ValueError, match="`loss_inputs` must have the widths of the loss's features"):
        meta_test_in_env(build_car_policy, MetaLoss.mlp(), "sgd", cars, num_steps=1, **settings)
    with pytest.raises(ValueError, match="`policy` must return an action.* Received: GaussianPolicy, .* `meta_test_on"):
        meta_test_in_env(lambda: GaussianPolicy(2, 1), loss, "sgd", cars, num_steps=1, **settings)
    with pytest.raises(ValueError, match="`env` must be a vector of environments.* Received: Pendulum-v1"):
        meta_test_in_env(build_car_policy, loss, "sgd", gymnasium.make("Pendulum-v1"), num_steps=1, **settings)
