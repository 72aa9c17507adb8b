"""Tests of `ml3_tf.rl.policy_trainer`: rollouts in the model, and the policies that the last step trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf import LossInputs, MetaLoss
from ml3_tf.rl.loss_inputs import learning_batch, observation_and_goal
from ml3_tf.rl.policies import CategoricalPolicy, GaussianPolicy, MLPPolicy
from ml3_tf.rl.policy_trainer import PolicyTrainer

INPUTS = LossInputs(observation_and_goal, {"action": 2, "state": 2, "goal": 2})
STARTS, GOALS = np.random.default_rng(0).normal(size=(2, 3, 1, 2)).astype("float32")
BATCH = {"support": (STARTS, GOALS), "query": (np.zeros((3, 4, 2), "float32"), np.ones((3, 4, 2), "float32"))}


def drift(states, actions):
    return states + 0.1 * actions


def make_trainer(horizon=5, loss_inputs=INPUTS, policy=MLPPolicy, dynamics=drift, **arguments):
    keras.utils.set_random_seed(0)
    trainer = PolicyTrainer(
        lambda: policy(2, 2, hidden_units=(4,)),
        MetaLoss.mlp((6,), features=INPUTS),
        dynamics=dynamics,
        horizon=horizon,
        loss_inputs=loss_inputs,
        seed=0,
        **arguments,
    )
    trainer.compile(inner_optimizer=keras.optimizers.SGD(0.3), jit_compile=False)
    return trainer


def test_the_support_is_a_rollout_without_a_gradient():
    trainer = make_trainer()
    parameters = trainer.learner.draw(3)
    with tf.GradientTape() as tape:
        tape.watch(parameters.trainable)
        x, y, weights = trainer.support(parameters, BATCH)
    expected = learning_batch(trainer.rollout(parameters, STARTS, GOALS), INPUTS)
    for received, value in zip((x, y, weights), expected):
        np.testing.assert_allclose(received, value, rtol=1e-6)
    assert all(gradient is None for gradient in tape.gradient(x, parameters.trainable))


class Ensemble(keras.Model):
    def __init__(self):
        super().__init__()
        self.gain = self.add_weight(shape=(), initializer="ones", name="gain")

    def next_states(self, states, actions):
        return states + self.gain * actions


class Module(tf.Module):
    def __init__(self):
        super().__init__()
        self.gain = tf.Variable(1.0)

    def next_states(self, states, actions):
        return states + self.gain * actions


def test_what_a_method_of_a_keras_model_reads_is_known():
    """So that other devices get its values. Of variables that are not Keras's, only their own device can read them."""
    model, trainer = Ensemble(), make_trainer()
    own = trainer.read_variables
    assert [v.path for v in own] == [v.path for v in trainer.meta_loss.trainable_variables]
    assert make_trainer(dynamics=model.next_states).read_variables[-1] is model.gain
    assert len(make_trainer(dynamics=Module().next_states).read_variables) == len(own)


def test_the_last_policies_are_kept_with_their_support():
    trainer = make_trainer()
    with pytest.raises(RuntimeError, match="`fit` has not taken a step"):
        trainer.last_policies()
    trainer.fit(tf.data.Dataset.from_tensors(tf.nest.map_structure(tf.constant, BATCH)), verbose=0)
    parameters, (starts, goals) = trainer.last_policies()
    np.testing.assert_array_equal(starts, STARTS)
    np.testing.assert_array_equal(goals, GOALS)
    learners = make_trainer().inner_loop.start(3)
    moved = np.abs(parameters.trainable[-1] - learners.parameters.trainable[-1]).max()
    assert moved > 0


def test_policies_live_on_with_their_support():
    """Those that go on keep their starts, goals and parameters; with lives of one step, all are new at each."""
    other = tf.nest.map_structure(lambda values: tf.constant(values) + 1.0, BATCH)
    tasks = tf.data.Dataset.from_tensors(tf.nest.map_structure(tf.constant, BATCH))
    kept = {}
    for lives in (1, 50):
        trainer = make_trainer(lives=lives)
        for batch in (tasks, tf.data.Dataset.from_tensors(other)):
            trainer.fit(batch, verbose=0)
        kept[lives] = trainer.last_policies()[1][0]
    np.testing.assert_array_equal(kept[1], other["support"][0])
    goes_on = np.all(kept[50] == STARTS, axis=(1, 2))
    assert goes_on.any()
    np.testing.assert_array_equal(kept[50][~goes_on], other["support"][0][~goes_on])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="`horizon` must be an integer of at least 1. Received: horizon=0"):
        make_trainer(horizon=0)
    with pytest.raises(ValueError, match="`loss_inputs` must have the widths of the loss's features"):
        make_trainer(loss_inputs=LossInputs(observation_and_goal, {"action": 2, "state": 3, "goal": 2}))


@pytest.mark.parametrize("part", [STARTS, (STARTS,)], ids=["bare", "alone"])
@pytest.mark.parametrize("name", ["support", "query"])
def test_tasks_without_goals_are_refused(name, part):
    tasks = tf.data.Dataset.from_tensors(tf.nest.map_structure(tf.constant, {**BATCH, name: part}))
    with pytest.raises(
        ValueError, match=rf"Tasks of policies are .*\(initial_states, goals\).*Received: batch.*{name}"
    ):
        make_trainer().fit(tasks, verbose=0)


@pytest.mark.parametrize("policy", [CategoricalPolicy, GaussianPolicy])
def test_no_gradient_flows_through_a_choice(policy):
    words = f"the gradient flows through the action into the dynamics. Received: {policy.__name__}.* `ModelFreeTrainer`"
    with pytest.raises(ValueError, match=words):
        make_trainer(policy=policy)
