"""Tests of `ml3_tf.diagnosis._diagnose`: planted faults are found, and nothing else; the trainer stays as it is."""

import random
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from planted_faults import FAULTS, HEALTHY, InFloat32, batch, build_learner, make_trainer

from ml3_tf import EvolutionStrategies, LossInputs, LossPerHead, MetaLoss, MetaTrainer, StopScaleGradient
from ml3_tf.rl import GaussianPolicy, MLPPolicy, ModelBasedTrainer, ModelFreeTrainer, Simulator, observation_and_goal


def verdicts(diagnosis):
    return {variable.verdict for variable in diagnosis.variables}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name):
    make, change, expected = FAULTS[name]
    diagnosis = make().diagnose(change(batch()), num_directions=1)
    problems = [finding.problem for finding in diagnosis.findings]
    assert len(problems) == len(expected), diagnosis
    for problem, words in zip(problems, expected, strict=True):
        assert re.search(words, problem)
    assert not diagnosis.is_healthy and all(all(finding) for finding in diagnosis.findings)


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_trainer_has_no_findings(name):
    diagnosis = HEALTHY[name]().diagnose(batch(), num_directions=1)
    assert diagnosis.findings == (), diagnosis
    assert diagnosis.is_healthy and diagnosis.dtype == "float64"
    assert verdicts(diagnosis) <= {"agrees", "zero"} and "agrees" in verdicts(diagnosis)
    assert {layer.verdict for layer in diagnosis.layers} == {"agrees"}
    assert list(diagnosis.by_steps)[0] == 1 and list(diagnosis.drift)[0] == 0


# Kinds of trainers


def make_policy_trainer(dynamics=lambda states, actions: states + 0.1 * actions):
    inputs = LossInputs(observation_and_goal, {"action": 2, "observation": 2, "goal": 2})
    trainer = ModelBasedTrainer(
        lambda: MLPPolicy(2, 2, hidden_units=(4,)),
        MetaLoss.mlp((5,), features=inputs),
        dynamics=dynamics,
        horizon=3,
        loss_inputs=inputs,
        inner_steps=2,
    )
    trainer.compile(cost=lambda tau: tf.norm(tau.observations[..., -1, :] - tau.goal, axis=-1))
    return trainer


def starts_and_goals():
    pair = tf.random.stateless_uniform((2, 1, 2), (0, 0)), tf.ones((2, 1, 2))
    return {"support": pair, "query": pair}


def test_policies_are_compared_through_the_one_step_that_is_not_cut():
    diagnosis = make_policy_trainer().diagnose(starts_and_goals(), num_directions=1)
    assert diagnosis.findings == () and diagnosis.query is None
    assert verdicts(diagnosis) == {"agrees"} and diagnosis.num_checked_steps == 1
    assert any("no gradient flows through them" in note for note in diagnosis.notes)


def test_a_trainer_that_does_not_run_in_float64_says_so():
    diagnosis = make_trainer(build_learner(InFloat32)).diagnose(batch(), num_directions=1)
    assert diagnosis.dtype == "float32" and diagnosis.layers == () and verdicts(diagnosis) == {"not checked"}
    assert "does not run in float64" in diagnosis.notes[0] and "float" in diagnosis.notes[0].split("The error: ")[1]
    assert all(norm > 0 for norm in diagnosis.by_steps.values()) and diagnosis.query is not None
    assert keras.config.floatx() == "float32" and keras.config.dtype_policy().name == "float32"


def test_mixed_precision_and_given_models_run_in_float64():
    policy = "mixed_float16"
    model = keras.Sequential([keras.Input((1,)), layers.Dense(6, "tanh", dtype=policy), layers.Dense(1, dtype=policy)])
    diagnosis = make_trainer(model, start=model).diagnose(batch(), num_directions=1)
    assert diagnosis.dtype == "float64" and verdicts(diagnosis) == {"agrees"}
    assert [layer.name for layer in diagnosis.layers][:2] == [layer.name for layer in model.layers]


def test_several_outputs():
    def build():
        inputs = keras.Input((1,))
        hidden = layers.Dense(4, "tanh")(inputs)
        return keras.Model(inputs, {name: layers.Dense(1, name=name)(hidden) for name in ("a", "b")})

    keras.utils.set_random_seed(0)
    trainer = MetaTrainer(build, LossPerHead({"a": MetaLoss.mlp((4,)), "b": "mse"}))
    trainer.compile(loss={"a": "mse", "b": keras.losses.MeanSquaredError()})
    tasks = {name: (x, {"a": y, "b": y}) for name, (x, y) in batch().items()}
    diagnosis = trainer.diagnose(tasks, num_directions=1)
    assert diagnosis.findings == () and verdicts(diagnosis) == {"agrees"}


def test_what_is_left_out_on_purpose_is_a_note():
    stopped = make_trainer(inner_optimizer=StopScaleGradient(keras.optimizers.Adam(0.01)))
    diagnosis = stopped.diagnose(batch(), num_directions=1)
    assert diagnosis.findings == () and verdicts(diagnosis) == {"not checked"}
    assert any("`StopScaleGradient` leaves out" in note for note in diagnosis.notes)
    diagnosis = make_trainer(meta_loss=MetaLoss.mlp((5,), learning_rate="network")).diagnose(batch(), num_directions=1)
    assert verdicts(diagnosis) == {"agrees"} and diagnosis.num_checked_steps == 1
    assert any('learning_rate="network"' in note for note in diagnosis.notes)


def test_a_gradient_that_a_hook_cuts_is_found():
    class Cut(MetaTrainer):
        def compute_task_loss(self, parameters, batch):
            first = parameters.trainable[0]
            return super().compute_task_loss(parameters, batch) + tf.reduce_mean(tf.round(0 * first) + first, [1, 2])

        def support(self, parameters, batch):
            return batch["support"]

    class CutInside(Cut):
        def compute_task_loss(self, parameters, batch):
            parameters = parameters._replace(trainable=[tf.stop_gradient(v) for v in parameters.trainable])
            return MetaTrainer.compute_task_loss(self, parameters, batch)

    for kind, expected in ((Cut, {"agrees"}), (CutInside, {"cut"})):
        keras.utils.set_random_seed(0)
        trainer = kind(build_learner(), MetaLoss.mlp((5,)), inner_steps=2)
        trainer.compile(inner_optimizer=keras.optimizers.SGD(0.02))
        diagnosis = trainer.diagnose(batch(), num_directions=1)
        assert verdicts(diagnosis) == expected
        problems = [finding.problem for finding in diagnosis.findings]
        assert [p.split(":")[0].split(" for ")[0] for p in problems] == (
            [] if kind is Cut else ["There is no meta-gradient", "The meta-gradient is cut off"]
        )


# The trainer stays as it is


def snapshot(trainer):
    state = tf.nest.flatten(trainer.training_state)
    model = trainer.learner.model.variables
    return [np.asarray(v).copy() for v in [*state, *model, *trainer.optimizer.variables]]


@pytest.mark.parametrize("start", ["fresh", pytest.param("learned", marks=pytest.mark.long)])
def test_the_trainer_stays_as_it_is(start):
    def make():
        trainer = make_trainer(build_learner(lambda: layers.Dropout(0.2)), start=start)
        trainer.fit(tasks, steps_per_epoch=1, verbose=0)
        return trainer

    tasks = tf.data.Dataset.from_tensors(batch()).repeat()
    diagnosed, other = make(), make()
    before, drawn = snapshot(diagnosed), (random.getstate(), np.random.get_state()[1].tolist())
    of_keras = np.asarray(keras.random.SeedGenerator(0).state)
    diagnosed.diagnose(batch(), num_directions=1)
    for value, expected in zip(snapshot(diagnosed), before, strict=True):
        np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(of_keras, keras.random.SeedGenerator(0).state)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == drawn
    for trainer in (diagnosed, other):
        trainer.fit(tasks, steps_per_epoch=2, verbose=0)
    for value, expected in zip(snapshot(diagnosed), snapshot(other), strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.long
def test_it_says_the_same_twice():
    trainer = make_trainer()
    first, second = (str(trainer.diagnose(batch(), num_directions=1, seed=3)) for _ in range(2))
    assert first == second


# Refusals


def test_a_model_free_trainer_is_refused_by_name():
    inputs = LossInputs(observation_and_goal, {"mean_and_std": 4, "observation": 2, "goal": 2})
    trainer = ModelFreeTrainer(
        lambda: GaussianPolicy(2, 2, hidden_units=(4,), std=0.5),
        MetaLoss.mlp((5,), features=inputs),
        simulator=Simulator(lambda s, a: s + 0.1 * a, lambda s, a, goal: -tf.norm(s - goal, axis=-1)),
        horizon=3,
        loss_inputs=inputs,
    )
    with pytest.raises(NotImplementedError, match="ModelFreeTrainer is estimated from rollouts.*ModelBasedTrainer"):
        trainer.diagnose({"state": tf.zeros((2, 1, 2)), "goal": tf.ones((2, 1, 2))})


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="call `trainer.compile"):
        MetaTrainer(build_learner(), MetaLoss.mlp((5,))).diagnose(batch())
    with pytest.raises(ValueError, match="without an `estimator`"):
        make_trainer(estimator=EvolutionStrategies()).diagnose(batch())
    with pytest.raises(ValueError, match="`num_tasks` must be an integer of at least 1"):
        make_trainer().diagnose(batch(), num_tasks=0)
    with pytest.raises(ValueError, match="Tasks are dictionaries"):
        make_trainer().diagnose({"support": batch()["support"]})
