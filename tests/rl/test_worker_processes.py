"""Tests of `ml3_tf.rl.worker_processes`: the samples of one process, and workers that fail, are named and end.

The workers are spawned: a fork of a process in which TensorFlow runs can stand still.
"""

import functools
import signal

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf
import worker_envs
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

import ml3_tf
from ml3_tf.rl import (
    CategoricalPolicy,
    GaussianActions,
    ModelFreeTrainer,
    RolloutError,
    Sampler,
    as_tasks,
    observation_and_action,
    rollout_env,
    worker_processes,
)

MAKERS = {
    "cart-pole": functools.partial(gymnasium.make, "CartPole-v1"),
    "pendulum": functools.partial(gymnasium.make, "Pendulum-v1", max_episode_steps=8),
    "reacher": functools.partial(gymnasium.make, "Reacher-v5", max_episode_steps=8),
}


def make_workers(*faults, at=2):
    """Returns a vector with a worker for each fault; `None` is a sound one."""
    return AsyncVectorEnv([functools.partial(worker_envs.Faulty, fault, at) for fault in faults], context="spawn")


def roll_out(env, horizon=4):
    return rollout_env(lambda observations: np.zeros((env.num_envs, 1), np.float32), env, horizon=horizon, seed=7)


def random_policy(env):
    env.action_space.seed(0)
    return lambda observations: env.action_space.sample()


def in_both(makers, run):
    """Returns what a function of a vector returns for environments in this process, and in others."""
    results = []
    for env in (SyncVectorEnv(makers), AsyncVectorEnv(makers, context="spawn")):
        results.append(run(env))
        env.close()
    return results


@pytest.mark.parametrize("name", MAKERS)
def test_samples_are_those_of_one_process(name):
    """Also where a reset cuts an episode off, and where the horizon ends with it."""

    def run(env):
        policy = random_policy(env)
        return [
            rollout_env(policy, env, horizon=horizon, seed=seed) for horizon, seed in ((8, [3, 8]), (5, None), (12, 5))
        ]

    sync, workers = in_both([MAKERS[name]] * 2, run)
    assert sync[-1].mask.sum() < 24 or name == "cart-pole"
    for expected, received in zip(sync, workers, strict=True):
        for values, name_of_values in zip(zip(expected, received), expected._fields):
            np.testing.assert_array_equal(*values, err_msg=name_of_values)


def test_tasks_reach_the_workers():
    tasks = as_tasks({"state": np.random.default_rng(0).uniform(0.1, 5.0, (2, 1, 3))})
    outputs = lambda _, observations: tf.concat([observations[..., :1], tf.ones_like(observations[..., :1])], -1)
    noise = tf.random.stateless_normal((2, 1, 8, 1), seed=(0, 0))
    sample = lambda env: Sampler(outputs, env, horizon=8, distribution=GaussianActions(1))(None, tasks, noise)
    sync, workers = in_both([worker_envs.make_pendulum] * 2, sample)
    np.testing.assert_allclose(workers.observations[:, 0, 0, 2], tasks["state"][:, 0, 1], rtol=1e-6)
    for expected, received in zip(sync, workers, strict=True):
        np.testing.assert_array_equal(expected, received)


def test_a_loss_is_learned_as_in_one_process():
    def learn(env):
        inputs = ml3_tf.LossInputs(observation_and_action, {"log_probabilities": 2, "observation": 4, "action": 2})
        keras.utils.set_random_seed(0)
        trainer = ModelFreeTrainer(
            lambda: CategoricalPolicy(4, 2, hidden_units=(4,)),
            ml3_tf.MetaLoss.mlp((4,), features=inputs),
            simulator=env,
            horizon=12,
            loss_inputs=inputs,
            seed=0,
        )
        trainer.compile("adam")
        trainer.fit(tf.data.Dataset.from_tensors({"seed": np.array([[3], [8]])}).repeat(2), verbose=0)
        return [np.array(variable) for variable in trainer.meta_loss.trainable_variables]

    sync, workers = in_both([MAKERS["cart-pole"]] * 2, learn)
    for expected, received in zip(sync, workers, strict=True):
        np.testing.assert_array_equal(expected, received)


FAULTS = {
    "raises": "`step` raised RuntimeError in environment 1: the motor is on fire. ",
    "diverges": "`step` raised FloatingPointError in environment 1: a joint ran away. ",
    "dies": "`step` failed: the process of environment 1 ended by SIGKILL, perhaps because memory ran out. ",
    "leaves": "`step` failed: the process of environment 1 ended by exit code 3. ",
    "local": "`step` raised an error in environment 1 that cannot be pickled; its worker has printed it. ",
    "misshapen": r"`step` raised an error in environment 1 that cannot be unpickled \(TypeError: .*'limit'\). ",
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # gymnasium shows the error, too
@pytest.mark.parametrize("fault, message", FAULTS.items(), ids=FAULTS)
def test_a_worker_that_fails_is_named_and_all_end(fault, message):
    env = make_workers(None, fault, None)
    with pytest.raises(
        RolloutError, match=f"AsyncVectorEnv, seed=7, step 2: {message}Nothing was learned.* has been closed"
    ) as caught:
        roll_out(env)
    assert not caught.value.diverged  # a reset cannot repair it
    assert env.closed and not any(process.is_alive() for process in env.processes)
    with pytest.raises(ValueError, match="`env` must be open"):
        roll_out(env)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("fault", ["raises", "dies"])
def test_a_worker_that_fails_in_a_reset_is_named(fault):
    env = make_workers(fault, None, at=0)
    with pytest.raises(RolloutError, match="seed=7, reset: `reset` (raised RuntimeError in|failed.* of) environment 0"):
        roll_out(env)
    assert env.closed and not any(process.is_alive() for process in env.processes)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_worker_that_raised_is_named():
    env = make_workers("raises", None, "diverges")
    message = "raised RuntimeError in environment 0: the motor .*; raised FloatingPointError in environment 2: a joint"
    with pytest.raises(RolloutError, match=message):
        roll_out(env)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("fault", ["task", "dies"])
def test_a_worker_that_does_not_take_its_task_is_named(fault):
    env = make_workers(None, fault, at=1)
    if fault == "dies":
        env.processes[1].kill()
        env.processes[1].join()
    sampler = Sampler(lambda _, observations: observations, env, horizon=2, distribution=GaussianActions(1))
    tasks = as_tasks({"goal": np.ones((2, 1, 1))})
    message = "taking a task (raised ValueError in environment 1: the goal is out|failed: the process of environment 1)"
    with pytest.raises(RolloutError, match=message):
        sampler(None, tasks, sampler.no_noise(tasks))
    assert env.closed and not any(process.is_alive() for process in env.processes)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_worker_that_does_not_end_is_ended(monkeypatch):
    monkeypatch.setattr(worker_processes, "GRACE", 0.5)
    env = make_workers("raises", "stays")
    with pytest.raises(RolloutError, match="in environment 0"):
        roll_out(env)
    assert env.closed and env.processes[1].exitcode == -signal.SIGTERM


def test_an_error_of_this_process_is_not_a_workers():
    env = make_workers(None, None)
    with pytest.raises((ValueError, AssertionError), match="num_envs=2"):  # as gymnasium 1.4 and 1.2 raise it
        rollout_env(lambda observations: observations, env, horizon=2, seed=[1, 2, 3])
    assert roll_out(env).mask.all()
    env.close()


def test_other_vectors_have_no_workers():
    env = SyncVectorEnv([worker_envs.Faulty] * 2)
    worker_processes.watch_workers(env)
    assert not worker_processes.has_workers(env)
    assert worker_processes.worker_failure(env, EOFError()) is None
    worker_processes.close_failed(env)
    assert env.closed
