"""Tests of metrics on query points, of learners with one output or several."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.outer_loop._query_metrics import QueryMetrics, get_metric

GENERATOR = np.random.default_rng(0)
BOX, KIND = GENERATOR.normal(size=(2, 5, 3)).astype("float32"), np.eye(4, dtype="float32")[np.arange(10) % 4]
Y = {"box": BOX, "kind": KIND.reshape(2, 5, 4)}
PREDICTED = {"box": tf.constant(BOX + 0.5), "kind": tf.constant(GENERATOR.dirichlet([1.0] * 4, (2, 5)), tf.float32)}


def results(metrics):
    return {metric.name: float(metric.result()) for metric in metrics.metrics}


def test_a_metric_is_found_by_a_name_that_is_not_ambiguous():
    assert isinstance(get_metric("mse"), keras.metrics.MeanSquaredError)
    with pytest.raises(ValueError, match="Which accuracy"):
        get_metric("accuracy")


@pytest.mark.parametrize("form", [dict, list])
def test_each_output_has_metrics_of_its_own(form):
    of = {"box": ["mse", keras.metrics.RootMeanSquaredError(name="root")], "kind": ["mse", "categorical_accuracy"]}
    in_form = lambda values: values if form is dict else list(values.values())
    metrics = QueryMetrics(in_form(of))
    weights = {name: tf.ones((2, 5)) for name in Y}
    metrics.update(in_form(Y), in_form(PREDICTED), (in_form(weights),))
    right = np.mean(PREDICTED["kind"].numpy().argmax(-1) == Y["kind"].argmax(-1))
    box, kind = ("box", "kind") if form is dict else (0, 1)
    assert results(metrics) == pytest.approx(
        {
            f"{box}_mean_squared_error": 0.25,
            f"{box}_root": 0.5,
            f"{kind}_mean_squared_error": np.mean((PREDICTED["kind"] - Y["kind"]) ** 2),
            f"{kind}_categorical_accuracy": right,
        },
        rel=1e-5,
    )
    assert of["box"][1].name == "root"  # that of the user stays as it is


def test_one_output_may_have_one_metric_and_others_none():
    metrics = QueryMetrics({"box": "mae"})
    weights = {"box": tf.constant([[0.0] * 5, [1.0] * 5]), "kind": tf.ones((2, 5))}
    metrics.update(Y, {**PREDICTED, "box": PREDICTED["box"] * [[[9.0]], [[1.0]]]}, (weights,))
    assert results(metrics) == {"box_mean_absolute_error": pytest.approx(0.5)}
    assert QueryMetrics().metrics == []


@pytest.mark.parametrize(
    ("metrics", "y_pred", "received"),
    [
        (["mse"], PREDICTED, "metrics of one output for a learner with the outputs .'box', 'kind'"),
        ({"bax": "mse"}, PREDICTED, "metrics of 'bax' for a learner with the outputs .'box', 'kind'"),
        ([[], [], ["mse"]], list(PREDICTED.values()), r"metrics of 2 for a learner with the outputs \[0, 1\]"),
        ({"box": "mse"}, PREDICTED["box"], "metrics of 'box' for a learner with one output"),
    ],
)
def test_metrics_of_another_form_are_refused(metrics, y_pred, received):
    with pytest.raises(ValueError, match=f"a mapping from their names.*{received}"):
        QueryMetrics(metrics).update(Y, y_pred)
