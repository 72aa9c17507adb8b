"""Tests of `ml3_tf.rl.meta_testing`: Algorithm 5 with sampled experience."""

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf.envs  # noqa: F401 - registers the environments
from ml3_tf import MetaLoss
from ml3_tf.envs.pointmass import pointmass_step
from ml3_tf.learner import Learner
from ml3_tf.rl.loss_inputs import mini_batches, state_and_action
from ml3_tf.rl.meta_testing import meta_test_on_policy
from ml3_tf.rl.policies import GaussianPolicy
from ml3_tf.rl.simulators import Sampler, Simulator, as_tasks

FEATURES = {"mean_and_std": 4, "state": 4, "action": 2}
TASKS = {
    "state": np.zeros((3, 2, 4), "float32"),
    "goal": np.random.default_rng(0).uniform(-1, 1, (3, 2, 2)).astype("float32"),
}
POINTMASS = Simulator(pointmass_step, lambda s, a, goal: -tf.norm(s[..., :2] - goal, axis=-1))


def build_policy():
    return GaussianPolicy(4, 2, hidden_units=(5,), std=0.5)


def run(simulator=POINTMASS, **arguments):
    keras.utils.set_random_seed(0)
    loss = MetaLoss.mlp((6,), features=FEATURES)
    defaults = {"optimizer": keras.optimizers.SGD(0.5), "updates": 2, "horizon": 6, "jit_compile": False, "seed": 0}
    return meta_test_on_policy(build_policy, loss, simulator=simulator, tasks=TASKS, **{**defaults, **arguments})


def test_an_update_is_compile_and_train_on_batch():
    """Nothing of ml3_tf is in the loop of who uses a learned loss, but the layout of its inputs."""
    keras.utils.set_random_seed(0)
    loss, policy = MetaLoss.mlp((6,), features=FEATURES), build_policy()
    many = meta_test_on_policy(
        policy, loss, keras.optimizers.SGD(0.5), POINTMASS, TASKS, 2, 6, batch_size=4, parameters=policy, seed=0
    )
    learner, tasks, seeds = Learner(policy), as_tasks(TASKS), keras.random.SeedGenerator(0)
    sampler = Sampler(lambda p, x: learner.apply(p, x, False)[0], POINTMASS, 6, 2)
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
        for x, y, sample_weight in mini_batches(trajectory, state_and_action, 4, seeds) if number < 2 else []:
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


@pytest.mark.parametrize("updates", [0, 1.5])
def test_a_number_of_updates_that_is_none_is_refused(updates):
    with pytest.raises(ValueError, match=f"`updates` must be an integer, at least 1. Received: updates={updates}"):
        run(updates=updates)


def test_policies_that_diverge_are_named():
    with pytest.raises(FloatingPointError, match=r"of task\(s\) \[0, 1, 2\] are not finite"):
        run(optimizer=keras.optimizers.SGD(1e30), updates=3)
