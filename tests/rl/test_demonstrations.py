"""Tests of `ml3_tf.rl.demonstrations`: a loss is learned from what an expert does, not from what it costs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf import LossInputs, MetaLoss
from ml3_tf.rl.demonstrations import DemonstrationTrainer
from ml3_tf.rl.loss_inputs import observation_and_goal
from ml3_tf.rl.policies import MLPPolicy

GENERATOR = np.random.default_rng(0)
STARTS, GOALS = (GENERATOR.normal(size=(2, 1, 2)).astype("float32") for _ in range(2))
STATES, ACTIONS = (GENERATOR.normal(size=(2, 7, 2)).astype("float32") for _ in range(2))
INPUTS = LossInputs(observation_and_goal, {"action": 2, "state": 2, "goal": 2})
TASKS = {"support": (STARTS, GOALS), "query": (STATES, ACTIONS)}


def push(states, actions):
    return states + 0.1 * actions


def build_policy():
    return MLPPolicy(2, 2, hidden_units=(4,), output_initializer=keras.initializers.RandomNormal(stddev=0.5))


def make_trainer(**arguments):
    keras.utils.set_random_seed(0)
    loss = MetaLoss.mlp((6,), features=INPUTS)
    trainer = DemonstrationTrainer(
        build_policy, loss, dynamics=push, horizon=5, loss_inputs=INPUTS, seed=0, **arguments
    )
    trainer.compile(keras.optimizers.SGD(0.5), inner_optimizer=keras.optimizers.SGD(0.3), jit_compile=False)
    return trainer


def dataset(tasks=TASKS, count=1):
    return tf.data.Dataset.from_tensors(tf.nest.map_structure(tf.constant, tasks)).repeat(count)


def test_one_step_is_cloning_through_one_inner_step():
    """One step of `fit`, written out task by task with Keras's own model and two tapes."""
    trainer = make_trainer()
    theta = trainer.learner.draw(2).trainable  # what the trainer draws next is what a twin draws first
    trainer, policy = make_trainer(), build_policy()
    loss, phi = trainer.meta_loss, trainer.meta_loss.trainable_variables
    act = lambda weights, states: policy.stateless_call(weights, [], states)[0]
    with tf.GradientTape() as outer:
        errors = []
        for task in range(2):
            weights, state, states = [values[task] for values in theta], tf.constant(STARTS[task]), []
            for _ in range(5):
                states.append(state)
                state = push(state, act(weights, state))
            states = tf.concat(states, 0)
            y_true = tf.concat([states, np.repeat(GOALS[task], 5, 0)], -1)
            with tf.GradientTape() as inner:
                inner.watch(weights)
                value = tf.reduce_mean(loss.call(y_true, act(weights, states)))
            weights = [w - 0.3 * g for w, g in zip(weights, inner.gradient(value, weights))]
            errors.append(tf.reduce_mean((act(weights, STATES[task]) - ACTIONS[task]) ** 2))
        expected = tf.reduce_mean(errors)
    moved = [v - 0.5 * g for v, g in zip(phi, outer.gradient(expected, phi))]
    history = trainer.fit(dataset(), verbose=0).history
    np.testing.assert_allclose(history["loss"][0], expected, rtol=1e-5)
    for variable, value in zip(phi, moved):
        np.testing.assert_allclose(variable, value, rtol=1e-4, atol=1e-6)


def test_it_brings_policies_to_do_what_the_expert_does():
    """The expert pushes straight towards its goal; policies that do not see the goal learn to do so."""
    goals = np.random.default_rng(1).uniform(-1, 1, (8, 1, 2)).astype("float32")
    states = 0.3 * goals * np.linspace(0, 1, 6, dtype="float32")[:, np.newaxis]
    tasks = {"support": (np.zeros_like(goals), goals), "query": (states, np.broadcast_to(goals, states.shape))}
    trainer = make_trainer(inner_steps=4)
    trainer.compile(keras.optimizers.Adam(1e-2), inner_optimizer=keras.optimizers.SGD(0.3), jit_compile=False)
    before = trainer.evaluate(dataset(tasks), verbose=0, return_dict=True)["loss"]
    trainer.fit(dataset(tasks, 100), verbose=0)
    assert trainer.evaluate(dataset(tasks), verbose=0, return_dict=True)["loss"] < 0.3 * before


def test_the_rollout_needs_no_expert_and_the_query_no_rollout():
    """The expert's examples are of any number; the support depends on starts and goals alone."""
    trainer = make_trainer()
    parameters = trainer.learner.draw(2)
    other = {"support": TASKS["support"], "query": (STATES[:, :3], ACTIONS[:, :3])}
    for one, two in zip(trainer.support(parameters, TASKS), trainer.support(parameters, other)):
        np.testing.assert_array_equal(one, two)
    errors = (trainer.learner.predict(parameters, STATES[:, :3]) - ACTIONS[:, :3]) ** 2
    np.testing.assert_allclose(trainer.compute_task_loss(parameters, other), np.mean(errors, (1, 2)), rtol=1e-5)


def test_tasks_without_demonstrations_are_refused():
    with pytest.raises(ValueError, match="Tasks are dictionaries"):
        make_trainer().fit(dataset({"support": TASKS["support"]}), verbose=0)
