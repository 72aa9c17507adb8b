"""Tests of `ml3_tf.inspection.closed_form`: planted closed forms come back, and the words of each error."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from ml3_tf import MetaLoss
from ml3_tf.inspection import evaluate_on_plane, explain


@keras.saving.register_keras_serializable("ml3_tf_tests")
class ClosedForm(keras.layers.Layer):
    """A planted loss as a network: features (y_pred, y_true) to `form(error, y_true)`."""

    def __init__(self, form, **kwargs):
        super().__init__(**kwargs)
        self.form = form

    def call(self, features):
        y_pred, y_true = features[:, :1], features[:, 1:2]
        return self.form(y_pred - y_true, y_true)


def planted(form, **kwargs):
    """A `MetaLoss` whose value is `form(error, y_true)`."""
    return MetaLoss(keras.Sequential([keras.Input((2,)), ClosedForm(form)]), **kwargs)


def log_cosh(x):
    return ops.softplus(2 * x) - x


# The value of each term; the module has only their derivatives.
VALUES = {
    "e²": lambda e: e**2,
    "|e|": lambda e: ops.abs(e),
    "|e|³": lambda e: ops.abs(e) ** 3,
    "e⁴": lambda e: e**4,
    "|e|^1.5": lambda e: ops.abs(e) ** 1.5,
    "log(1 + |e|)": lambda e: ops.log(1 + ops.abs(e)),
    "log(1 + e²)": lambda e: ops.log(1 + e**2),
    "log(1 + (e/2)²)": lambda e: ops.log(1 + (e / 2) ** 2),
    "log(1 + (e/4)²)": lambda e: ops.log(1 + (e / 4) ** 2),
    "log cosh e": log_cosh,
    "log cosh(e/2)": lambda e: log_cosh(e / 2),
    "log cosh(e/4)": lambda e: log_cosh(e / 4),
    "e": lambda e: e,
    "e³": lambda e: e**3,
}
WITH_PRODUCT = [name for name in VALUES if name not in ("e", "e³")]


# Planted forms


def test_two_times_the_squared_error_is_one_line():
    explanation = explain(planted(lambda e, y: 2 * e**2))
    assert explanation.terms == ("e²",)
    np.testing.assert_allclose(explanation.coefficients, [2.0], rtol=1e-5)
    assert explanation.r_squared == pytest.approx(1.0, abs=1e-9)
    assert str(explanation) == "loss ≈ 2.00·e² (R² = 1.000 for y in [-5, 5])"


@pytest.mark.parametrize("name", VALUES)
def test_every_term_is_recovered(name):
    explanation = explain(planted(lambda e, y: -3 * VALUES[name](e)))
    assert explanation.terms == (name,)
    np.testing.assert_allclose(explanation.coefficients, [-3.0], rtol=1e-4)


@pytest.mark.parametrize("name", WITH_PRODUCT)
def test_every_product_with_the_target_is_recovered(name):
    explanation = explain(planted(lambda e, y: 0.5 * ops.abs(y) * VALUES[name](e)))
    assert explanation.terms == (f"|y|·{name}",)
    np.testing.assert_allclose(explanation.coefficients, [0.5], rtol=1e-4)


@pytest.mark.parametrize(
    "planted_terms",
    [
        {"e²": 3.1, "|e|³": -0.42},
        {"|e|": 2.0, "e²": 1.0},
        {"log cosh e": 4.0, "e²": 0.3, "e": -1.0},
        {"log(1 + |e|)": 5.0, "e⁴": 0.01, "e³": 0.1},
        {"log cosh(e/4)": 1700.0, "|e|": 60.0},
    ],
)
def test_mixtures_are_recovered(planted_terms):
    loss = planted(lambda e, y: sum(c * VALUES[name](e) for name, c in planted_terms.items()))
    explanation = explain(loss)
    found = dict(zip(explanation.terms, explanation.coefficients, strict=True))
    assert found == pytest.approx(planted_terms, rel=1e-3)
    assert explanation.r_squared == pytest.approx(1.0, abs=1e-6)


def test_a_function_of_the_target_alone_changes_nothing():
    plain = explain(planted(lambda e, y: e**2))
    shifted = explain(planted(lambda e, y: e**2 + ops.exp(y) - 7))
    assert shifted.terms == plain.terms
    np.testing.assert_allclose(shifted.coefficients, plain.coefficients, rtol=1e-4)


@pytest.mark.parametrize(
    "loss", ["mse", "MeanSquaredError", keras.losses.mean_squared_error, keras.losses.MeanSquaredError()]
)
def test_any_keras_loss_is_explained(loss):
    assert str(explain(loss)) == "loss ≈ 1.00·e² (R² = 1.000 for y in [-5, 5])"


def test_the_learned_rate_is_part_of_the_coefficient():
    explanation = explain(planted(lambda e, y: 2 * e**2, learning_rate=10.0))
    np.testing.assert_allclose(explanation.coefficients, [20.0], rtol=1e-4)


def test_classes_give_binary_cross_entropy():
    loss = keras.losses.BinaryCrossentropy()
    explanation = explain(loss, y_range=(0.05, 0.95), targets=(0, 1))
    assert str(explanation) == "loss ≈ −1.00·log(1 − |e|) (R² = 1.000 for y_true in {0, 1}, y_pred in [0.05, 0.95])"


def test_in_a_small_range_the_simpler_of_two_like_terms_is_named():
    # Below an error of 0.5, 16 log(1 + (e/4)²) is e² to within a percent.
    loss = planted(lambda e, y: 16 * ops.log(1 + (e / 4) ** 2) + 0.003 * ops.sin(20 * e))
    assert explain(loss, y_range=(0.0, 0.5)).terms == ("e²",)


# How many terms


def test_max_terms_bounds_the_line_and_more_terms_explain_no_less():
    loss = planted(lambda e, y: 3 * e**2 - 0.4 * ops.abs(e) ** 3 + 20 * log_cosh(e) + 9 * e)
    explanations = [explain(loss, max_terms=max_terms) for max_terms in (1, 2, 3, 4)]
    scores = [explanation.r_squared for explanation in explanations]
    assert [len(explanation.terms) for explanation in explanations] == [1, 2, 3, 4]
    assert scores == sorted(scores)
    assert scores[-1] == pytest.approx(1.0, abs=1e-5)


def test_terms_that_coincide_on_the_range_do_no_harm():
    # Where every error is positive, |e| is e, and with the target 0 all products vanish.
    assert explain("mse", y_range=(1.0, 2.0), targets=[0.0]).terms == ("e²",)


def test_the_largest_contribution_comes_first():
    assert explain(planted(lambda e, y: 0.2 * e**2 + 50 * ops.abs(e))).terms == ("|e|", "e²")


def test_a_loss_outside_the_family_has_a_lower_r_squared():
    assert explain(planted(lambda e, y: ops.cos(3 * e))).r_squared < 0.9


def test_a_loss_unlike_all_terms_has_no_term():
    assert explain(planted(lambda e, y: ops.cos(40 * e) * ops.sin(9 * y))).terms == ()


def test_a_loss_without_a_gradient_is_zero():
    explanation = explain(planted(lambda e, y: y + 0 * e))
    assert explanation.terms == ()
    assert str(explanation) == "loss ≈ 0 (R² = 1.000 for y in [-5, 5])"


def test_the_same_loss_gives_the_same_line():
    loss = MetaLoss.mlp()
    assert explain(loss) == explain(loss)


# Errors


@pytest.mark.parametrize("y_range", [(1.0, 1.0), (2.0, -2.0), (0.0, np.inf), (np.nan, 1.0), (1.0,), (0, 1, 2)])
def test_an_invalid_range_is_refused(y_range):
    with pytest.raises(ValueError, match=r"`y_range` must be a pair \(low, high\) .* low < high\. Received: \("):
        explain("mse", y_range=y_range)


@pytest.mark.parametrize("max_terms", [0, -1, 5, 2.0, None])
def test_invalid_max_terms_are_refused(max_terms):
    with pytest.raises(ValueError, match=r"`max_terms` must be an integer from 1 to 4\. Received: max_terms="):
        explain("mse", max_terms=max_terms)


def test_a_gradient_that_is_not_finite_is_refused_with_its_place():
    loss = planted(lambda e, y: ops.log(ops.abs(e)))
    with pytest.raises(
        ValueError,
        match=r"`loss` must have a finite gradient .* Received: \S+ at y_true=-5, y_pred=-5\. Choose another",
    ):
        explain(loss)


# evaluate_on_plane


def test_value_and_gradient_keep_the_shape_of_the_points():
    y_true, y_pred = np.meshgrid([0.0, 1.0, 2.0], [3.0, 4.0])
    value, gradient = evaluate_on_plane(planted(lambda e, y: e**2), y_true=y_true, y_pred=y_pred)
    np.testing.assert_allclose(value, (y_pred - y_true) ** 2, rtol=1e-6)
    np.testing.assert_allclose(gradient, 2 * (y_pred - y_true), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_meta_loss_is_evaluated_in_its_own_dtype(dtype):
    loss = MetaLoss.mlp(dtype=dtype)
    value, gradient = evaluate_on_plane(loss, y_true=[0.1, 0.2], y_pred=[0.3, 0.4])
    expected = loss.value_and_gradient([[0.1], [0.2]], [[0.3], [0.4]])
    np.testing.assert_array_equal(value, expected[0])
    np.testing.assert_array_equal(gradient, expected[1][:, 0])


def test_per_output_loss_is_a_plane_too():
    loss = MetaLoss.mlp(mode="per_output")
    value, gradient = evaluate_on_plane(loss, y_true=[0.0, 1.0], y_pred=0.3)
    y_pred = tf.constant([[0.3], [0.3]])
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        expected = loss.call([[0.0], [1.0]], y_pred)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, tape.gradient(expected, y_pred)[:, 0], rtol=1e-5)


WIDE = {"y_pred": 2, "state": 2, "goal": 2}


def test_per_set_loss_is_refused():
    loss = MetaLoss.mlp((3,), mode="per_set")
    with pytest.raises(ValueError, match="scores examples together.* Received: 'meta_loss' with mode='per_set'"):
        explain(loss)


def test_fixed_features_stand_in_their_place():
    loss = MetaLoss.mlp(features=WIDE)
    fixed = {"y_pred": [None, 0.1], "state": [0.2, 0.3], "goal": [0.4, None]}
    value, _ = evaluate_on_plane(loss, y_true=[5.0, 6.0], y_pred=[7.0, 8.0], fixed=fixed)
    rows = [[7.0, 0.1, 0.2, 0.3, 0.4, 5.0], [8.0, 0.1, 0.2, 0.3, 0.4, 6.0]]
    np.testing.assert_allclose(value, loss.network(np.array(rows, "float32"))[:, 0], rtol=1e-5)


def test_the_gradient_is_that_of_the_free_component():
    weights = [np.array([[1.0], [20.0], [0.0], [0.0], [0.0], [0.0]])]
    loss = MetaLoss.mlp((), features=WIDE)
    loss.network.set_weights(weights)
    fixed = {"y_pred": [0.1, None], "state": [0.2, 0.3], "goal": [0.4, None]}
    np.testing.assert_allclose(evaluate_on_plane(loss, y_true=1.0, y_pred=[2.0], fixed=fixed)[1], [20.0])


def test_features_that_are_not_fixed_are_named():
    loss = MetaLoss.mlp(features={"y_pred": 1, "state": 3, "goal": 1})
    words = r"one of \['state', 'goal'\] together\. Received: .*'state': 3, 'goal': 1.* free\. .* fixed=\{'state': \[0"
    with pytest.raises(ValueError, match=words):
        explain(loss)
    assert explain(loss, fixed={"state": [0.0, 0.0, 0.0]}).region == "y in [-5, 5]"


def test_everything_fixed_is_refused():
    with pytest.raises(ValueError, match=r"expected one free component of 'y_pred'.* Received: .*'y_true': 0"):
        evaluate_on_plane(MetaLoss.mlp(), y_true=0.0, y_pred=0.0, fixed={"y_true": [1.0]})


def test_unknown_or_misshapen_fixed_features_are_refused():
    loss = MetaLoss.mlp(features={"y_pred": 1, "state": 3, "goal": 1})
    with pytest.raises(
        ValueError,
        match=r"`fixed` must hold features of this loss: \['y_pred', 'state', 'goal'\]\. Received: \['velocity",
    ):
        evaluate_on_plane(loss, y_true=0.0, y_pred=0.0, fixed={"velocity": [1.0]})
    with pytest.raises(ValueError, match=r"`fixed\['state'\]` must have the shape \(3,\)\. Received: shape \(2,\)"):
        evaluate_on_plane(loss, y_true=0.0, y_pred=0.0, fixed={"state": [1.0, 2.0]})


@pytest.mark.parametrize("base", ["categorical_crossentropy", "sparse_categorical_crossentropy"])
def test_a_loss_around_one_of_classes_is_that_of_the_first_of_two(base):
    p = np.linspace(0.1, 0.9, 5)
    loss = MetaLoss.around(base, mode="per_output", dtype="float64")
    for target, expected in ((1.0, -np.log(p)), (0.0, -np.log(1 - p))):
        value, _ = evaluate_on_plane(loss, y_true=target, y_pred=p)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="needs a prediction for each class"):
        loss.call(np.ones((3, 1)), np.ones((3, 1)))


def test_a_label_free_loss_has_a_value_for_each_prediction():
    loss = MetaLoss.mlp((4,), features={"p": 1}, mode="per_output")
    p = np.linspace(0.1, 0.9, 5)
    values = [evaluate_on_plane(loss, y_true=target, y_pred=p)[0] for target in (0.0, 1.0)]
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_allclose(values[0], loss.call(np.zeros((5, 0)), p[:, None]), rtol=1e-6)
    with pytest.raises(ValueError, match="one free component of 'p'.*fixed={'p': .0.0, None.}"):
        evaluate_on_plane(MetaLoss.mlp((4,), features={"p": 2}), y_true=0.0, y_pred=p)
