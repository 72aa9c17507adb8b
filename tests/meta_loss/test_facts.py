"""Tests of `ml3_tf.meta_loss._facts`: what a loss was learned with, and a check of its use."""

import json
import warnings

import keras
import numpy as np
import pytest

import ml3_tf
from ml3_tf import MetaLoss, MetaTrainer, TrainingFacts, check_use, load_meta_loss
from ml3_tf.saving.errors import ArtifactError

layers, optimizers = keras.layers, keras.optimizers
FACTS = TrainingFacts("SGD", (1e-3, 1e-2), "probabilities", (0.0, 1.0))


def make_model(optimizer=None, *, activation="sigmoid", facts=FACTS):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2, activation, kernel_initializer="ones")])
    loss = MetaLoss.mlp((3,), features={"y_pred": 2, "y_true": 2})
    loss.facts = facts
    model.compile(optimizer or optimizers.SGD(3e-3), loss=loss)
    return model


X, Y = np.array([[1.0, 2.0], [-3.0, 4.0]]), np.eye(2)


def test_use_as_it_was_learned_is_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_use(make_model(), X, Y) == []
        assert check_use(make_model(optimizers.SGD(3e-2))) == []  # within a factor of three
        schedule = optimizers.schedules.CosineDecay(10.0, 10)
        assert check_use(make_model(optimizers.SGD(schedule))) == []
        assert check_use(make_model(facts=TrainingFacts("SGD")), 1e9 * X, 1e9 * Y) == []


@pytest.mark.parametrize(
    ("model", "y", "words"),
    [
        (make_model(optimizers.Adam(3e-3)), Y, "learned for the optimizer SGD. Received: Adam."),
        (make_model(optimizers.SGD(0.1)), Y, "a learning rate of 0.001 to 0.01. Received: 0.1."),
        (make_model(optimizers.SGD(1e-5)), Y, "a learning rate of 0.001 to 0.01. Received: 1e-05."),
        (make_model(activation=None), Y, "must end in a softmax or sigmoid. Received: predictions between 1 and 3."),
        (make_model(), Y * np.nan, "Expected finite targets, or the loss is NaN. Received: 4 value(s) that are not."),
        (make_model(), 7 * Y, "seen targets between 0 and 1. Received: targets between 0 and 7. Scale them"),
    ],
    ids=["optimizer", "high rate", "low rate", "logits", "nan", "targets"],
)
def test_each_difference_is_told(model, y, words):
    with pytest.warns(UserWarning, match="The loss 'meta_loss' is used for something else. [A-Z]"):
        [sentence] = check_use(model, X, y)
    assert words in sentence


def test_models_that_cannot_be_checked():
    model = make_model()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="compiled with a `MetaLoss`. Received: .*Sequential.*loss='mse'"):
        check_use(model)
    with pytest.raises(ValueError, match="does not know what it was learned with: `MetaTrainer.fit` tells it"):
        check_use(make_model(facts=None))


def test_trainings_one_after_the_other_widen_what_is_known():
    merge = lambda *facts: facts[0].merge(facts[1])
    assert merge(FACTS, None) == FACTS
    wider = merge(FACTS, TrainingFacts("SGD", (1e-4, 1e-4), "probabilities", (-1.0, 0.5)))
    assert wider == TrainingFacts("SGD", (1e-4, 1e-2), "probabilities", (-1.0, 1.0))
    assert merge(FACTS, TrainingFacts("Adam", (1.0, 1.0))) == FACTS
    assert merge(FACTS, TrainingFacts("SGD", None, "probabilities")).targets is None


def train(head, *, optimizer="sgd", loss=None, scale=1.0):
    build = lambda: keras.Sequential([keras.Input((1,)), layers.Dense(1, head)])
    loss = loss or MetaLoss.mlp((3,))
    trainer = MetaTrainer(build, loss, seed=0)
    trainer.compile(inner_optimizer=optimizer)
    tasks = ml3_tf.sine_tasks(2, num_support=50, amplitude=scale, phase=0.0, seed=0)
    trainer.fit(tasks, steps_per_epoch=3, verbose=0)
    return loss


def test_a_trainer_tells_its_loss():
    loss = train(None, optimizer=optimizers.SGD(0.02))
    assert loss.facts.optimizer == "SGD" and loss.facts.outputs == "numbers"
    np.testing.assert_allclose(loss.facts.learning_rates, 0.02, rtol=1e-6)
    np.testing.assert_allclose(loss.facts.targets, (-1, 1), atol=0.02)
    train(None, optimizer=optimizers.SGD(0.2), loss=loss, scale=3.0)
    np.testing.assert_allclose(loss.facts.learning_rates, (0.02, 0.2), rtol=1e-6)
    np.testing.assert_allclose(loss.facts.targets, (-3, 3), atol=0.06)
    schedule = optimizers.schedules.CosineDecay(0.1, 10)
    other = train("sigmoid", optimizer=optimizers.Adam(schedule)).facts
    assert (other.optimizer, other.outputs, other.learning_rates) == ("Adam", "probabilities", None)


def test_facts_stay_with_the_loss(tmp_path):
    loss = make_model().loss
    exported = load_meta_loss(loss.export(tmp_path / "loss"))
    configured = MetaLoss.from_config(json.loads(json.dumps(loss.get_config())))
    assert exported.facts == configured.facts == FACTS
    assert load_meta_loss(MetaLoss.mlp((3,)).export(tmp_path / "other")).facts is None


@pytest.mark.parametrize(
    "change",
    [
        {"outputs": "anything"},
        {"optimizer": "os.system/"},
        {"targets": [1.0, 0.0]},
        {"targets": [0.0]},
        {"learning_rates": [0.0, 1e999]},
        {"more": 1},
    ],
    ids=str,
)
def test_hostile_facts_are_refused(tmp_path, edit_json, change):
    folder = make_model().loss.export(tmp_path / "loss")
    edit_json(folder, "assets.extra/meta_loss.json", lambda description: description["facts"].update(change))
    with pytest.raises(ArtifactError, match=r"the facts|not.*JSON|finite"):
        load_meta_loss(folder)


def test_every_shipped_loss_knows_what_it_was_learned_with():
    for name in ml3_tf.list_meta_losses().names:
        assert load_meta_loss(name).facts is not None, name
