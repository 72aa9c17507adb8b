"""Tests of `ml3_tf.rl.model_based`: Algorithm 3 in a model, Algorithm 5 in real environments."""

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf.envs  # noqa: F401 - registers the environments
from ml3_tf import MetaLoss
from ml3_tf.envs.mountain_car import GOAL, mountain_car_step
from ml3_tf.rl.loss_inputs import learning_batch, state_and_goal
from ml3_tf.rl.model_based import ModelBasedTrainer, meta_test_in_env
from ml3_tf.rl.policies import GaussianPolicy
from ml3_tf.rl.rollouts import Trajectory, rollout_env

FEATURES = {"action": 1, "state": 2, "goal": 2}
STARTS = np.array([[[-0.6, 0.0]], [[-0.5, 0.1]]], "float32")
GOALS = np.array([[GOAL], [GOAL]], "float32")
TASKS = {"support": (STARTS, GOALS), "query": (STARTS + 0.02, GOALS)}


def build_policy():
    initializer = keras.initializers.RandomNormal(stddev=0.5)
    return GaussianPolicy(2, 1, hidden_units=(4,), action_limit=0.25, output_initializer=initializer)


def final_distance(trajectory):
    return tf.norm(trajectory.observations[..., -1, :] - trajectory.goal, axis=-1)


def make_trainer(loss=final_distance, horizon=6, meta_loss=None, **arguments):
    keras.utils.set_random_seed(0)
    meta_loss = meta_loss or MetaLoss.mlp((6,), features=FEATURES)
    compile_arguments = {"optimizer": keras.optimizers.SGD(0.5), "inner_optimizer": keras.optimizers.SGD(0.3)}
    compile_arguments |= {name: arguments.pop(name) for name in ("jit_compile", "optimizer") if name in arguments}
    trainer = ModelBasedTrainer(build_policy, meta_loss, mountain_car_step, horizon, seed=0, **arguments)
    trainer.compile(loss=loss, **{"jit_compile": False, **compile_arguments})
    return trainer


def dataset(count=1):
    return tf.data.Dataset.from_tensors(tf.nest.map_structure(tf.constant, TASKS)).repeat(count)


def phi_of(trainer):
    return [variable.numpy() for variable in trainer.meta_loss.trainable_variables]


def run(policy, weights, state, horizon):
    states, actions = [tf.constant(state)], []
    for _ in range(horizon):
        actions.append(policy.stateless_call(weights, [], states[-1])[0])
        states.append(mountain_car_step(states[-1], actions[-1]))
    return tf.concat(states, 0), tf.concat(actions, 0)


def test_one_step_is_algorithm_3():
    """One step of `fit`, written out task by task with Keras's own model and two tapes."""
    trainer = make_trainer()
    theta = trainer.learner.draw(2).trainable  # what the trainer draws next is what a twin draws first
    trainer = make_trainer()
    phi, before = trainer.meta_loss.trainable_variables, phi_of(trainer)
    policy, costs = build_policy(), []
    with tf.GradientTape() as outer:
        for task in range(2):
            weights = [values[task] for values in theta]
            states, actions = run(policy, weights, STARTS[task], 6)
            with tf.GradientTape() as inner:
                inner.watch(weights)
                actions = policy.stateless_call(weights, [], states[:-1])[0]  # the states are data
                inputs = tf.concat([states[:-1], tf.repeat(GOALS[task], 6, 0)], -1)
                loss = tf.reduce_mean(trainer.meta_loss.call(inputs, actions))
            weights = [w - 0.3 * g for w, g in zip(weights, inner.gradient(loss, weights))]
            costs.append(tf.norm(run(policy, weights, STARTS[task] + 0.02, 6)[0][-1] - GOALS[task, 0]))
        cost = tf.reduce_mean(costs)
    gradients = outer.gradient(cost, phi)
    history = trainer.fit(dataset(), verbose=0).history
    np.testing.assert_allclose(history["loss"], [cost], rtol=1e-5)
    for received, start, gradient in zip(phi_of(trainer), before, gradients):
        np.testing.assert_allclose(received, start - 0.5 * gradient, rtol=1e-4, atol=1e-6)


def test_it_learns_a_loss_that_moves_policies_to_the_goal():
    """In a world without walls, where the action is the velocity: a real step then equals a modelled one."""
    keras.utils.set_random_seed(0)
    meta_loss = MetaLoss.mlp((20,), features={"action": 1, "state": 1, "goal": 1})
    step = lambda states, actions: states + 0.2 * actions
    trainer = ModelBasedTrainer(lambda: GaussianPolicy(1, 1, (8,)), meta_loss, step, 10, seed=0)
    trainer.compile(keras.optimizers.Adam(0.01), final_distance, keras.optimizers.SGD(0.5))
    starts, goals = np.zeros((4, 1, 1), "float32"), np.array([-1.0, -0.5, 0.5, 1.0], "float32").reshape(4, 1, 1)
    tasks = tf.data.Dataset.from_tensors({"support": (starts, goals), "query": (starts, goals)}).repeat()
    history = trainer.fit(tasks, steps_per_epoch=50, epochs=2, verbose=0).history["loss"]
    assert history[1] < 0.5 * 0.75  # half of what a policy that stays reaches


def test_the_weights_of_the_dynamics_are_no_part_of_the_trainer():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    dynamics = lambda s, a: tf.reshape(model(tf.reshape(tf.concat([s, a], -1), [-1, 3])), s.shape)
    meta_loss = MetaLoss.mlp((6,), features=FEATURES)
    trainer = ModelBasedTrainer(build_policy, meta_loss, dynamics, 3, seed=0)
    trainer.compile(loss=final_distance, jit_compile=False)
    before = model.get_weights()
    first = trainer.fit(dataset(), verbose=0).history["loss"]
    np.testing.assert_array_equal(before[0], model.get_weights()[0])
    assert len(trainer.trainable_variables) == len(meta_loss.trainable_variables)
    model.set_weights([0 * weights for weights in before])  # a refit counts without compiling anew
    after = trainer.fit(dataset(), verbose=0).history["loss"]
    np.testing.assert_allclose(after, np.linalg.norm(GOAL), rtol=1e-5)
    assert abs(first[0] - after[0]) > 1e-3


def test_a_loss_must_score_each_episode():
    with pytest.raises(ValueError, match=r"returns the cost of each episode, shape \(2, 1\). Received: shape \(2,\)"):
        make_trainer(lambda trajectory: final_distance(trajectory)[:, 0]).fit(dataset(), verbose=0)
    with pytest.raises(ValueError, match="`loss` is the task loss: expected a function of a `Trajectory`.*loss='mse'"):
        make_trainer("mse")


def test_a_horizon_of_zero_is_refused():
    with pytest.raises(ValueError, match="`horizon` must be an integer, at least 1"):
        make_trainer(horizon=0)


def test_what_the_loss_sees_by_default():
    trajectory = Trajectory(np.arange(12.0).reshape(2, 3, 2), np.zeros((2, 2, 1)), 0, np.ones((2, 1)), np.ones((2, 2)))
    expected = [[[0, 1, 1], [2, 3, 1]], [[6, 7, 1], [8, 9, 1]]]
    np.testing.assert_array_equal(state_and_goal(trajectory._replace(goal=tf.ones((2, 1), tf.float64))), expected)


# Algorithm 5


@pytest.fixture
def cars():
    env = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=2, vectorization_mode="sync")
    env.set_attr("task", [{"state": [-0.6, 0.0]}, {"state": [-0.5, 0.1]}])
    yield env
    env.close()


def test_a_real_step_is_compile_and_train_on_batch(cars):
    """Nothing of ml3_tf is in the loop of who uses a learned loss, but the layout of its inputs."""
    keras.utils.set_random_seed(0)
    loss = MetaLoss.mlp((6,), features=FEATURES)
    policy = build_policy()
    many = meta_test_in_env(policy, loss, keras.optimizers.SGD(30.0), cars, 2, 8, parameters=policy)
    policy.compile(keras.optimizers.SGD(30.0), loss=loss)
    one = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=1, vectorization_mode="sync")
    one.set_attr("task", [{"state": [-0.5, 0.1]}])
    for step in range(3):
        trajectory = rollout_env(policy, one, 8)
        np.testing.assert_allclose(trajectory.observations[0], many.observations[step, 1], atol=1e-6)
        x, y, sample_weight = (part[0] for part in learning_batch(trajectory))
        policy.train_on_batch(x, y, sample_weight)
    assert many.observations.shape == (3, 2, 9, 2)
    assert np.abs(many.actions[2] - many.actions[0]).max() > 1e-4


def test_policies_are_fresh_and_determined_by_the_seed(cars):
    loss = MetaLoss.mlp((6,), features=FEATURES)
    runs = [meta_test_in_env(build_policy, loss, "sgd", cars, 1, 4, seed=seed).actions for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0], runs[2])
    assert not np.allclose(runs[0][0, 0], runs[0][0, 1])


def test_nothing_is_learned_after_the_end_of_an_episode(cars):
    """Transitions that did not happen have weight 0."""
    trajectory = rollout_env(build_policy(), cars, 40)
    x, _, sample_weight = learning_batch(trajectory)
    assert x.shape == (2, 40, 2)
    np.testing.assert_array_equal(sample_weight, trajectory.mask)
    assert sample_weight.numpy().sum() == 70


def test_no_step_is_refused(cars):
    with pytest.raises(ValueError, match="`steps` must be an integer, at least 1. Received: steps=0"):
        meta_test_in_env(build_policy, MetaLoss.mlp((6,), features=FEATURES), "sgd", cars, 0, 4)
