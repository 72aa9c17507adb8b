"""Learners with several outputs: a loss for each, learned ones beside those of Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf
from ml3_tf import LossPerHead, MetaLoss
from ml3_tf.inner_loop import InnerLoop
from ml3_tf.learner import Learner

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(2, 6, 4)).astype("float32")
NUMBERS = X[..., :1] - 1
KINDS = np.eye(3, dtype="float32")[GENERATOR.integers(0, 3, (2, 6))]
NAMED = {"number": NUMBERS, "kind": KINDS}


def build(form=dict):
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(5, "tanh")(inputs)
    number = keras.layers.Dense(1, name="number")(hidden)
    kind = keras.layers.Dense(3, "softmax", name="kind")(hidden)
    return keras.Model(inputs, {"number": number, "kind": kind} if form is dict else [number, kind])


def make_losses(form=dict):
    keras.utils.set_random_seed(0)
    losses = {"number": MetaLoss.mlp((4,)), "kind": "categorical_crossentropy"}
    return losses if form is dict else list(losses.values())


def make_tasks(form=dict, *weights):
    y = NAMED if form is dict else (NUMBERS, KINDS)
    return {"support": (X, y, *weights), "query": (X, y)}


@pytest.mark.parametrize("form", [dict, list])
def test_a_step_is_that_of_keras(form):
    """With the same losses and weights in `compile`, for each task."""
    losses = make_losses(form)
    factors = {"number": 0.5, "kind": 2.0} if form is dict else [0.5, 2.0]
    loop = InnerLoop(Learner(lambda: build(form), seed=0), LossPerHead(losses, factors), keras.optimizers.Adam(0.1))
    start = loop.start(2)
    end = loop.run(start, lambda *_: make_tasks(form)["support"], 3)
    for task in range(2):
        model = build(form)
        for variable, value in zip(model.trainable_variables, start.parameters.trainable, strict=True):
            variable.assign(value[task])
        model.compile(keras.optimizers.Adam(0.1), loss=losses, loss_weights=factors)
        for _ in range(3):
            model.train_on_batch(X[task], tf.nest.map_structure(lambda y, n=task: y[n], make_tasks(form)["support"][1]))
        for variable, value in zip(model.trainable_variables, end.parameters.trainable, strict=True):
            np.testing.assert_allclose(value[task], variable, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("form", [dict, list])
def test_the_losses_of_all_heads_are_learned_together(form, jit_compile):
    kind = MetaLoss.around("categorical_crossentropy", mode="per_output")
    losses = {"number": MetaLoss.around("mse"), "kind": kind}
    losses = losses if form is dict else list(losses.values())
    trainer = ml3_tf.MetaTrainer(lambda: build(form), losses, inner_steps=2, seed=0)
    task_losses = {"number": "mse", "kind": "categorical_crossentropy"}
    task_losses = task_losses if form is dict else list(task_losses.values())
    trainer.compile(keras.optimizers.Adam(0.01), task_losses, keras.optimizers.SGD(0.3), jit_compile=jit_compile)
    before = [np.array(v) for v in trainer.meta_loss.trainable_variables]
    history = trainer.fit(tf.data.Dataset.from_tensors(make_tasks(form)), epochs=3, verbose=0).history
    assert min(history["meta_gradient_norm"]) > 0
    moved = [not np.array_equal(a, b) for a, b in zip(before, trainer.meta_loss.trainable_variables)]
    last = [i for i, v in enumerate(trainer.meta_loss.trainable_variables) if len(v.shape) == 2 and v.shape[-1] == 1]
    assert len(last) == 2 and all(moved[i] for i in last)
    assert kind.facts.optimizer == "SGD" and kind.facts.targets is None


def test_meta_gradients_agree_with_finite_differences(float64):
    loss = LossPerHead({"number": MetaLoss.mlp((4,)), "kind": "categorical_crossentropy"})
    loop = InnerLoop(Learner(build, seed=0), loss, keras.optimizers.SGD(0.3))
    start, tasks = loop.start(2), tf.nest.map_structure(lambda v: tf.cast(v, "float64"), make_tasks())
    score = lambda learners: loop.evaluate(
        LossPerHead({"number": "mse", "kind": "mse"}), learners.parameters, tasks["query"]
    )
    variables = loss.trainable_variables
    swept = loop.differentiate(start, lambda *_: tasks["support"], score, num_steps=6, variables=variables)
    directions = [np.random.default_rng(1).normal(size=v.shape) for v in variables]
    totals = []
    for step in (1e-6, -2e-6):
        for variable, direction in zip(variables, directions):
            variable.assign_add(step * direction)
        totals.append(float(tf.reduce_mean(score(loop.run(start, lambda *_: tasks["support"], 6)))))
    expected = sum(float(tf.reduce_sum(g * d)) for g, d in zip(swept.gradients, directions))
    assert (totals[0] - totals[1]) / 2e-6 == pytest.approx(expected, rel=1e-5)


def test_a_head_without_a_loss_and_weights_of_examples():
    weights = np.array([[1, 0, 2, 1, 1, 1]] * 2, "float32")
    for given in (weights, {"number": weights, "kind": np.ones((2, 6), "float32")}):
        losses = LossPerHead({"number": "mse", "kind": None})
        curve = ml3_tf.meta_test(build, losses, "sgd", make_tasks(dict, given), num_steps=2, task_loss=losses, seed=0)
        assert curve.shape == (3, 2)
        learner = Learner(build)
        model = learner.build_model(learner.draw(2, seed=0))
        model.compile("sgd", loss={"number": "mse", "kind": None})
        expected = model.evaluate(X[0], {"number": NUMBERS[0], "kind": KINDS[0]}, verbose=0)
        assert curve[0, 0] == pytest.approx(expected if np.isscalar(expected) else expected[0], rel=1e-4)


def test_evolution_strategies_and_masks():
    def masked():
        inputs = keras.Input((5,), dtype="int32")
        hidden = keras.layers.GRU(3, return_sequences=True)(keras.layers.Embedding(7, 3, mask_zero=True)(inputs))
        dense = keras.layers.Dense
        return keras.Model(inputs, {"a": dense(1)(hidden), "b": dense(1)(hidden)})

    words = np.random.default_rng(0).integers(0, 7, (2, 4, 5))
    y = np.ones((2, 4, 5, 1), "float32")
    tasks = {"support": (words, {"a": y, "b": y}), "query": (words, {"a": y, "b": y})}
    for estimator in (None, ml3_tf.EvolutionStrategies(num_pairs=2)):
        losses = {"a": MetaLoss.mlp((4,)), "b": "mse"}
        trainer = ml3_tf.MetaTrainer(masked, losses, inner_steps=2, seed=0, estimator=estimator)
        trainer.compile(loss={"a": "mse", "b": "mse"}, inner_optimizer=keras.optimizers.SGD(0.1), jit_compile=False)
        norm = trainer.fit(tf.data.Dataset.from_tensors(tasks), verbose=0).history["meta_gradient_norm"][0]
        assert np.isfinite(norm) and norm > 0


def test_losses_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="for at least one of its outputs"):
        LossPerHead([None, None])
    with pytest.raises(
        ValueError, match="`weights` needs a number for each of the losses .'a'.. Received: weights=.1.0."
    ):
        LossPerHead({"a": "mse"}, [1.0])
    with pytest.raises(ValueError, match="`weights` needs a number"):
        LossPerHead({"a": "mse"}, {"b": 1.0})
    with pytest.raises(ValueError, match="expected targets and predictions in this form"):
        other = LossPerHead({"number": "mse", "sort": "mse"})
        ml3_tf.meta_test(build, other, "sgd", make_tasks(), num_steps=1, task_loss=other)
    with pytest.raises(ValueError, match="`meta_loss` has nothing to learn"):
        ml3_tf.MetaTrainer(build, {"number": "mse", "kind": "mse"})
    for losses in ({"number": "mse"}, ["mse", "mse"], {"number": "mse", "kind": "mse", "more": "mse"}):
        with pytest.raises(
            ValueError, match="expected targets and predictions in this form. Received: .*'number', 'kind'"
        ):
            ml3_tf.meta_test(build, losses, "sgd", make_tasks(), num_steps=1, task_loss=LossPerHead(losses))


@pytest.mark.parametrize("weights", [(), (np.array([[1, 0, 1, 1, 1, 2]] * 2, "float32"),)])
def test_metrics_of_each_output_are_those_of_the_trained_learners(weights):
    trainer = ml3_tf.MetaTrainer(build, make_losses(), inner_steps=2, seed=0)
    metrics = {"number": ["mse"], "kind": ["mse", "categorical_accuracy"]}
    trainer.compile(loss={"number": "mse", "kind": "mse"}, metrics=metrics, jit_compile=False)
    logs = trainer.evaluate(tf.data.Dataset.from_tensors(make_tasks(dict, *weights)), return_dict=True, verbose=0)
    assert set(logs) == {"loss", "number_mean_squared_error", "kind_mean_squared_error", "kind_categorical_accuracy"}
    if not weights:  # the task loss is the sum of both
        assert logs["loss"] == pytest.approx(logs["number_mean_squared_error"] + logs["kind_mean_squared_error"])
    trainer.compile(loss={"number": "mse", "kind": "mse"}, metrics=["mae"], jit_compile=False)
    with pytest.raises(ValueError, match="with several, a mapping from their names.*outputs .'number', 'kind'"):
        trainer.fit(tf.data.Dataset.from_tensors(make_tasks()), verbose=0)
