"""Tests of `ml3_tf.rl.model_based`: Algorithm 3 in a model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf import LossInputs, MetaLoss
from ml3_tf.envs.mountain_car import GOAL, mountain_car_step
from ml3_tf.rl.loss_inputs import observation_and_goal
from ml3_tf.rl.model_based import ModelBasedTrainer
from ml3_tf.rl.policies import MLPPolicy

INPUTS = LossInputs(observation_and_goal, {"action": 1, "state": 2, "goal": 2})
STARTS = np.array([[[-0.6, 0.0]], [[-0.5, 0.1]]], "float32")
GOALS = np.array([[GOAL], [GOAL]], "float32")
TASKS = {"support": (STARTS, GOALS), "query": (STARTS + 0.02, GOALS)}


def build_policy():
    initializer = keras.initializers.RandomNormal(stddev=0.5)
    return MLPPolicy(2, 1, hidden_units=(4,), action_limit=0.25, output_initializer=initializer)


def final_distance(trajectory):
    return tf.norm(trajectory.observations[..., -1, :] - trajectory.goal, axis=-1)


def make_trainer(cost=final_distance, horizon=6, meta_loss=None, **arguments):
    keras.utils.set_random_seed(0)
    meta_loss = meta_loss or MetaLoss.mlp((6,), features=INPUTS)
    compile_arguments = {"optimizer": keras.optimizers.SGD(0.5), "inner_optimizer": keras.optimizers.SGD(0.3)}
    compile_arguments |= {name: arguments.pop(name) for name in ("jit_compile", "optimizer") if name in arguments}
    arguments = {"dynamics": mountain_car_step, "loss_inputs": INPUTS, "seed": 0, **arguments}
    trainer = ModelBasedTrainer(build_policy, meta_loss, horizon=horizon, **arguments)
    trainer.compile(cost=cost, **{"jit_compile": False, **compile_arguments})
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
    inputs = LossInputs(observation_and_goal, {"action": 1, "state": 1, "goal": 1})
    trainer = ModelBasedTrainer(
        lambda: MLPPolicy(1, 1, hidden_units=(8,)),
        MetaLoss.mlp((20,), features=inputs),
        dynamics=lambda states, actions: states + 0.2 * actions,
        horizon=10,
        loss_inputs=inputs,
        seed=0,
    )
    trainer.compile(keras.optimizers.Adam(0.01), final_distance, keras.optimizers.SGD(0.5))
    starts, goals = np.zeros((4, 1, 1), "float32"), np.array([-1.0, -0.5, 0.5, 1.0], "float32").reshape(4, 1, 1)
    tasks = tf.data.Dataset.from_tensors({"support": (starts, goals), "query": (starts, goals)}).repeat()
    history = trainer.fit(tasks, steps_per_epoch=50, epochs=2, verbose=0).history["loss"]
    assert history[1] < 0.5 * 0.75  # half of what a policy that stays reaches


def test_the_weights_of_the_dynamics_are_not_part_of_the_trainer():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    dynamics = lambda s, a: tf.reshape(model(tf.reshape(tf.concat([s, a], -1), [-1, 3])), s.shape)
    meta_loss = MetaLoss.mlp((6,), features=INPUTS)
    trainer = make_trainer(meta_loss=meta_loss, dynamics=dynamics, horizon=3, optimizer="adam")
    before = model.get_weights()
    first = trainer.fit(dataset(), verbose=0).history["loss"]
    np.testing.assert_array_equal(before[0], model.get_weights()[0])
    assert len(trainer.trainable_variables) == len(meta_loss.trainable_variables)
    model.set_weights([0 * weights for weights in before])  # a refit counts without compiling anew
    with pytest.warns(UserWarning, match="The meta-gradient was zero"):
        after = trainer.fit(dataset(), verbose=0).history["loss"]
    np.testing.assert_allclose(after, np.linalg.norm(GOAL), rtol=1e-5)
    assert abs(first[0] - after[0]) > 1e-3


def test_a_loss_must_score_each_episode():
    words = r"`cost` must return one value for each episode, shape \(2, 1\). Received: shape \(2,\)"
    with pytest.raises(ValueError, match=words):
        make_trainer(lambda trajectory: final_distance(trajectory)[:, 0]).fit(dataset(), verbose=0)
    with pytest.raises(ValueError, match="`cost` must be a function of a `Trajectory`.*cost='mse'"):
        make_trainer("mse")


def test_a_horizon_of_zero_is_refused():
    with pytest.raises(ValueError, match="`horizon` must be an integer of at least 1"):
        make_trainer(horizon=0)


def test_inputs_that_do_not_fit_the_loss_are_refused():
    with pytest.raises(ValueError, match="`loss_inputs` must have the widths of the loss's features"):
        make_trainer(meta_loss=MetaLoss.mlp((6,), features={"action": 1, "state": 4}))
