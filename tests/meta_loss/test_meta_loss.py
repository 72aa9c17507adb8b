"""Tests of `ml3_tf.meta_loss`: values, layouts and rates, also in Keras's own training, and the words of each error."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf
from ml3_tf import MetaLoss

# The layouts, modes and rates of a loss. Feature names are in no alphabetical order, so that sorting would show.
KINDS = {
    "pair": {},
    "three_features": {"features": {"y_pred": 2, "state": 3, "goal": 1}},
    "per_output": {"mode": "per_output"},
    "scaled": {"input_scale": [2.0, 0.5]},
    "scalar_rate": {"learning_rate": 0.1},
    "network_rate": {"learning_rate": "network"},
    "float64": {"dtype": "float64"},
}
_PER_SET = {"mode": "per_set", "score_units": (4,)}
PER_SET_KINDS = {
    "per_set": _PER_SET,
    "scaled": {**_PER_SET, "features": {"y_pred": 2, "y": 1, "x": 1}, "input_scale": [1.0, 2.0, 0.5, 4.0]},
    "scalar_rate": {**_PER_SET, "learning_rate": 0.1},
    "network_rate": {**_PER_SET, "learning_rate": "network"},
    "float64": {**_PER_SET, "dtype": "float64"},
}
X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


def batch(loss, *shape):
    """Returns random `y_true` and `y_pred` of `shape` examples that fit the features of `loss`."""
    pred_width, *true_widths = loss.features.values()
    values = np.random.default_rng(1).normal(size=(*shape, sum(true_widths) + pred_width)).astype(loss.dtype)
    return values[..., pred_width:], values[..., :pred_width]


def linear_loss(*columns, **kwargs):
    """Returns a `MetaLoss` whose network multiplies its inputs by the given columns."""
    network = keras.Sequential([keras.Input((len(columns[0]),)), keras.layers.Dense(len(columns), use_bias=False)])
    network.set_weights([np.transpose(columns)])
    return MetaLoss(network, **kwargs)


def build_regressor(num_outputs=1, dtype=None):
    def dense(units, seed, activation=None):
        initializer = keras.initializers.GlorotUniform(seed)
        return keras.layers.Dense(units, activation, kernel_initializer=initializer, dtype=dtype)

    return keras.Sequential([keras.Input((3,)), dense(4, 1, "tanh"), dense(num_outputs, 2)])


def train(loss, x=X, y=Y, sample_weight=None, model=None, **kwargs):
    """Returns the weights of a regressor after two epochs of four batches of `fit`."""
    model = model or build_regressor()
    model.compile(keras.optimizers.Adam(0.01), loss, **kwargs)
    model.fit(x, y, sample_weight=sample_weight, batch_size=4, epochs=2, shuffle=False, verbose=0)
    return model.get_weights()


def assert_equal_weights(received, expected, **tolerance):
    for a, b in zip(received, expected, strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def differ(received, expected):
    return any(not np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(received, expected, strict=True))


@pytest.fixture
def mixed_float16_policy():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


# Values


@pytest.mark.parametrize("kind", KINDS)
def test_call_gives_each_example_its_own_value(make_loss, kind):
    loss = make_loss(**KINDS[kind])
    y_true, y_pred = batch(loss, 6)
    values = loss.call(y_true, y_pred)
    assert values.shape == (6,)
    assert len(np.unique(values)) == 6
    alone = [loss.call(y_true[i : i + 1], y_pred[i : i + 1])[0] for i in range(6)]
    np.testing.assert_allclose(values, alone, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_call_keeps_the_task_axis(make_loss, kind):
    loss = make_loss(**KINDS[kind])
    y_true, y_pred = batch(loss, 3, 5)
    values = loss.call(y_true, y_pred)
    assert values.shape == (3, 5)
    np.testing.assert_allclose(values, [loss.call(y_true[n], y_pred[n]) for n in range(3)], rtol=1e-5)


def test_graph_with_free_task_and_batch_axes_gives_the_values(make_loss):
    loss = make_loss()
    call = tf.function(loss.call, input_signature=[tf.TensorSpec((None, None, 1))] * 2)
    for shape in [(1, 4), (3, 2)]:
        y_true, y_pred = batch(loss, *shape)
        np.testing.assert_allclose(call(y_true, y_pred), loss.call(y_true, y_pred), rtol=1e-5)


def test_network_reads_the_prediction_and_then_the_slices_of_y_true_in_order():
    loss = linear_loss([1.0, 10.0, 100.0, 1e3, 1e4], features={"y_pred": 2, "state": 2, "goal": 1})
    assert loss.call([[3.0, 4.0, 5.0]], [[1.0, 2.0]]).numpy() == [54321.0]


def test_default_network_is_two_silu_layers_of_40_without_an_output_bias():
    first, second, output = MetaLoss.mlp().network.layers
    assert [layer.units for layer in (first, second, output)] == [40, 40, 1]
    assert first.activation is second.activation is keras.activations.silu
    assert output.activation is keras.activations.linear
    assert [layer.use_bias for layer in (first, second, output)] == [True, True, False]


def test_output_activation_is_applied(make_loss):
    loss = make_loss()
    softplus = MetaLoss.mlp((5,), output_activation="softplus")
    softplus.network.set_weights(loss.network.get_weights())
    y_true, y_pred = batch(loss, 6)
    np.testing.assert_allclose(softplus.call(y_true, y_pred), np.logaddexp(0, loss.call(y_true, y_pred)), rtol=1e-5)


@pytest.mark.parametrize("num_outputs", [2, 10])
def test_per_output_is_the_mean_score_of_the_pairs_for_any_number_of_outputs(make_loss, num_outputs):
    loss = make_loss(mode="per_output")
    pair_loss = MetaLoss(loss.network)
    y_true, y_pred = np.random.default_rng(2).normal(size=(2, 6, num_outputs))
    scores = [pair_loss.call(y_true[:, i : i + 1], y_pred[:, i : i + 1]) for i in range(num_outputs)]
    np.testing.assert_allclose(loss.call(y_true, y_pred), np.mean(scores, axis=0), rtol=1e-5)


@pytest.mark.parametrize("num_outputs", [2, 10])
def test_an_output_is_scored_with_its_own_column_of_each_slice(make_loss, num_outputs):
    features = {"torque": 1, "way": 1, "speed": 1}
    loss = make_loss(mode="per_output", features=features)
    single = MetaLoss(loss.network, features=features)
    y_pred, way, speed = np.random.default_rng(2).normal(size=(3, 6, num_outputs))
    scores = [
        single.call(np.stack([way[:, i], speed[:, i]], axis=-1), y_pred[:, i : i + 1]) for i in range(num_outputs)
    ]
    values = loss.call(np.concatenate([way, speed], axis=-1), y_pred)
    np.testing.assert_allclose(values, np.mean(scores, axis=0), rtol=1e-5)


def test_one_per_output_loss_trains_models_of_two_and_of_ten_outputs(make_loss):
    loss = make_loss(mode="per_output")
    for num_outputs in (2, 10):
        labels = keras.utils.to_categorical(np.arange(16) % num_outputs, num_outputs)
        weights = train(loss, y=labels, model=build_regressor(num_outputs))
        assert differ(weights, build_regressor(num_outputs).get_weights())


def test_input_scale_divides_each_input():
    loss = linear_loss([1.0, 10.0], input_scale=[2, 5])
    assert loss.call([[10.0]], [[4.0]]).numpy() == [22.0]


# Learned rates


def test_scalar_rate_multiplies_value_and_gradient(make_loss):
    plain = make_loss()
    rated = MetaLoss(plain.network, learning_rate=0.1)
    data = batch(plain, 6)
    for rate in (0.1, 3.0):
        rated.learned_rate.log_rate.assign(np.log(rate))
        for received, expected in zip(rated.value_and_gradient(*data), plain.value_and_gradient(*data)):
            np.testing.assert_allclose(received, rate * expected, rtol=1e-5)


def test_scalar_rate_starts_at_the_given_value_and_is_trained_after_the_network():
    loss = linear_loss([1.0, 1.0], learning_rate=0.1)
    log_rate = loss.learned_rate.log_rate
    assert [id(v) for v in loss.trainable_variables] == [id(loss.network.trainable_variables[0]), id(log_rate)]
    with tf.GradientTape() as tape:
        value = loss.call([[1.0]], [[2.0]])
    np.testing.assert_allclose(value, [0.3], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(value, log_rate.value), 0.3, rtol=1e-6)  # d exp(l) m / dl = exp(l) m


def test_network_rate_is_the_softplus_of_the_second_output_and_bends_no_gradient():
    loss = linear_loss([2.0, 3.0], [0.7, -0.4], learning_rate="network")
    p, t = 0.5, -1.0
    value, rate_input = 2 * p + 3 * t, 0.7 * p - 0.4 * t
    rate, slope = np.log1p(np.exp(rate_input)), 1 / (1 + np.exp(-rate_input))
    y_pred = tf.constant([[p]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(y_pred)
        received = loss.call([[t]], y_pred)
    np.testing.assert_allclose(received, [value * rate], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(received, y_pred), [[2 * rate]], rtol=1e-6)
    # The rate itself is learned: d (m softplus(r)) / d kernel, with inputs (p, t).
    kernel_gradient = tape.gradient(received, loss.trainable_variables[0].value)
    np.testing.assert_allclose(kernel_gradient, np.outer([p, t], [rate, value * slope]), rtol=1e-6)


# Reductions, weights, masks


class Given(keras.losses.Loss):
    """Keras's own loss of values that are already there."""

    def call(self, y_true, y_pred):
        return y_pred


@pytest.mark.parametrize("sample_weight", [None, [0.0, 1.0, 2.0, 0.5, 0.0, 3.0]])
@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size", "mean", "mean_with_sample_weight", "none", None])
def test_reduction_is_that_of_keras(make_loss, reduction, sample_weight):
    loss = make_loss(reduction=reduction)
    y_true, y_pred = batch(loss, 6)
    expected = Given(reduction=reduction)(y_true, loss.call(y_true, y_pred), sample_weight)
    np.testing.assert_allclose(loss(y_true, y_pred, sample_weight), expected, rtol=1e-6)


def test_sample_weight_multiplies_the_value_of_its_example(make_loss):
    loss = make_loss()
    y_true, y_pred = batch(loss, 3)
    first, second, third = loss.call(y_true, y_pred).numpy()
    expected = (2 * first + 0 * second + 0.5 * third) / 3
    np.testing.assert_allclose(loss(y_true, y_pred, [2.0, 0.0, 0.5]), expected, rtol=1e-5)


def test_examples_of_weight_zero_do_not_train(make_loss):
    loss = make_loss(reduction="sum")
    kept = np.arange(16) % 2 == 0
    wrong_where_dropped = np.where(kept[:, None], Y, 100.0)
    weights = train(loss, y=wrong_where_dropped, sample_weight=kept.astype("float32"))
    assert_equal_weights(weights, train(loss, sample_weight=kept.astype("float32")), rtol=1e-6)
    assert differ(weights, train(loss))


def test_masked_steps_contribute_nothing(make_loss):
    loss = make_loss()
    x = np.random.default_rng(3).normal(size=(16, 4, 2)).astype("float32")
    kept = np.arange(4) < 1 + np.arange(16)[:, None] % 4
    x[~kept] = 0.0

    def build():
        initializer = keras.initializers.GlorotUniform(1)
        return keras.Sequential(
            [keras.Input((4, 2)), keras.layers.Masking(), keras.layers.Dense(1, kernel_initializer=initializer)]
        )

    y = x.sum(axis=-1, keepdims=True)
    weights = train(loss, x, y, model=build())
    assert_equal_weights(train(loss, x, np.where(kept[..., None], y, 100.0), model=build()), weights, rtol=1e-6)
    assert differ(train(loss, x, np.where(kept[..., None], 100.0, y), model=build()), weights)

    model = build()
    model.compile("sgd", loss)
    expected = np.mean(loss.call(y, model(x)).numpy()[kept])
    np.testing.assert_allclose(model.evaluate(x, y, batch_size=16, verbose=0), expected, rtol=1e-5)


def test_targets_without_feature_axis_are_columns(make_loss):
    loss = make_loss()
    y_true, y_pred = batch(loss, 6)
    np.testing.assert_array_equal(loss.call(y_true[:, 0], y_pred), loss.call(y_true, y_pred))
    assert_equal_weights(train(loss, y=Y[:, 0]), train(loss), rtol=1e-6)


# Sets


@pytest.mark.parametrize("kind", PER_SET_KINDS)
def test_every_example_of_a_set_receives_its_score(make_loss, kind):
    loss = make_loss(**PER_SET_KINDS[kind])
    y_true, y_pred = batch(loss, 3, 5)
    values = loss.call(y_true, y_pred).numpy()
    assert values.shape == (3, 5)
    assert len(np.unique(values[:, 0])) == 3
    np.testing.assert_array_equal(values, np.repeat(values[:, :1], 5, axis=1))
    np.testing.assert_allclose(values, [loss.call(y_true[n], y_pred[n]) for n in range(3)], rtol=1e-5)


def test_the_score_is_that_of_the_mean_of_the_learned_features():
    features = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    features.set_weights([np.array([[1.0, 0.0], [0.0, 10.0]])])
    score = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "exponential", use_bias=False)])
    score.set_weights([np.ones((2, 1))])
    loss = MetaLoss(features, mode="per_set", score_network=score)
    y_true, y_pred = [[0.1], [0.3]], [[1.0], [2.0]]
    np.testing.assert_allclose(loss.call(y_true, y_pred), [np.exp(1.5 + 2)] * 2, rtol=1e-6)
    expected = np.exp((1 * 1 + 3 * 2) / 4 + 10 * (1 * 0.1 + 3 * 0.3) / 4)
    np.testing.assert_allclose(loss.call(y_true, y_pred, sample_weight=[1, 3]), [expected] * 2, rtol=1e-6)


@pytest.mark.parametrize("kind", PER_SET_KINDS)
def test_the_order_of_a_set_does_not_matter(make_loss, kind):
    loss = make_loss(**PER_SET_KINDS[kind])
    y_true, y_pred = batch(loss, 7)
    weights = np.arange(7.0)
    order = np.random.default_rng(5).permutation(7)
    value, gradient = loss.value_and_gradient(y_true, y_pred)
    shuffled = loss.value_and_gradient(y_true[order], y_pred[order])
    np.testing.assert_allclose(shuffled[0], value, rtol=1e-5)
    np.testing.assert_allclose(shuffled[1], gradient[order], rtol=1e-4, atol=1e-6)
    weighted = loss(y_true, y_pred, weights)
    np.testing.assert_allclose(loss(y_true[order], y_pred[order], weights[order]), weighted, rtol=1e-5)
    assert not np.allclose(loss(y_true[order], y_pred[order], weights), weighted, rtol=1e-5)


def test_examples_of_weight_zero_leave_the_set(make_loss):
    loss = make_loss(**PER_SET_KINDS["per_set"], reduction="mean_with_sample_weight")
    y_true, y_pred = batch(loss, 6)
    weights = np.array([2.0, 0.0, 2.0, 0.0, 0.0, 2.0], "float32")
    kept = weights > 0
    for shape in ((6,), (6, 1)):
        received = loss(y_true, y_pred, weights.reshape(shape))
        np.testing.assert_allclose(received, loss(y_true[kept], y_pred[kept]), rtol=1e-5)
    assert not np.isclose(loss(y_true, y_pred), received)


@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size", "mean", "mean_with_sample_weight", "none", None])
def test_weighted_sets_are_reduced_as_keras_reduces(make_loss, reduction):
    loss = make_loss(**PER_SET_KINDS["per_set"], reduction=reduction)
    y_true, y_pred = batch(loss, 6)
    weights = [0.0, 1.0, 2.0, 0.5, 0.0, 3.0]
    expected = Given(reduction=reduction)(y_true, loss.call(y_true, y_pred, weights), weights)
    np.testing.assert_allclose(loss(y_true, y_pred, weights), expected, rtol=1e-6)


@pytest.mark.parametrize("call", ["eager", "graph"])
def test_a_set_without_any_weight_gives_zero_and_no_nan(make_loss, call):
    loss = make_loss(**PER_SET_KINDS["per_set"])
    y_true, y_pred = batch(loss, 4)

    def differentiate(y_pred):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = loss(y_true, y_pred, np.zeros(4, "float32"))
        return value, tape.gradient(value, y_pred)

    differentiate = tf.function(differentiate) if call == "graph" else differentiate
    value, gradient = differentiate(tf.constant(y_pred))
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros((4, 1)))


def test_masked_examples_leave_their_sets(make_loss):
    """A set for each sequence: its steps."""
    loss = make_loss(**PER_SET_KINDS["per_set"])
    y_true, values = batch(loss, 3, 5)
    mask = np.arange(5) < np.array([[2], [5], [3]])
    y_pred = tf.constant(values)
    y_pred._keras_mask = tf.constant(mask)
    alone = [loss.call(y_true[n][mask[n]], values[n][mask[n]])[0] for n in range(3)]
    np.testing.assert_allclose(loss(y_true, y_pred), np.average(alone, weights=mask.sum(axis=1)), rtol=1e-5)
    by_weight = loss.call(y_true, values, mask)
    np.testing.assert_allclose(by_weight[:, 0], alone, rtol=1e-5)


def test_fit_on_full_batches_does_not_see_the_order(make_loss):
    loss = make_loss(**PER_SET_KINDS["per_set"])
    order = np.random.default_rng(5).permutation(16)
    weights = np.linspace(0, 2, 16).astype("float32")

    def fit(rows):
        model = build_regressor()
        model.compile(keras.optimizers.SGD(0.1), loss)
        model.fit(X[rows], Y[rows], sample_weight=weights[rows], batch_size=16, epochs=3, shuffle=False, verbose=0)
        return model.get_weights()

    assert_equal_weights(fit(order), fit(np.arange(16)), rtol=1e-4, atol=1e-6)
    assert differ(fit(order), build_regressor().get_weights())


def test_per_set_mlp_pools_its_last_hidden_layer():
    loss = MetaLoss.mlp((7, 5), mode="per_set", score_units=(3,), learning_rate="network", activation="elu")
    assert [layer.units for layer in loss.network.layers] == [7, 5]
    assert loss.network.layers[-1].activation is keras.activations.elu
    assert [layer.units for layer in loss.score_network.layers] == [3, 2]
    assert loss.layers == [loss.network, loss.score_network]
    assert len(loss.trainable_variables) == 7


def test_per_set_mlp_without_hidden_layer_is_refused():
    with pytest.raises(ValueError, match=r"at least one width in `hidden_units`. Received: hidden_units=\(\)"):
        MetaLoss.mlp((), mode="per_set")


def test_networks_of_a_per_set_loss_that_do_not_fit_are_refused(make_loss):
    loss = make_loss(**PER_SET_KINDS["per_set"])
    with pytest.raises(ValueError, match=r"`score_network` must map 5 inputs \(the outputs of `network`\) to 1 output"):
        MetaLoss(loss.network, mode="per_set", score_network=loss.network)
    with pytest.raises(ValueError, match="`score_network` has no weights yet"):
        MetaLoss(loss.network, mode="per_set", score_network=keras.Sequential([keras.layers.Dense(1)]))
    with pytest.raises(ValueError, match=r"`network` must map 3 inputs .* Received a network from 2 to 5"):
        MetaLoss(loss.network, mode="per_set", features={"y_pred": 1, "y": 2}, score_network=loss.score_network)


# Dtypes


def test_float64_loss_computes_in_float64(make_loss):
    loss = make_loss(dtype="float64")
    y_true, y_pred = batch(loss, 6)
    kernel, bias, output_kernel = loss.network.get_weights()
    hidden = np.hstack([y_pred, y_true]) @ kernel + bias
    expected = (hidden / (1 + np.exp(-hidden)) @ output_kernel)[:, 0]
    values = loss.call(y_true, y_pred)
    assert values.dtype == "float64"
    np.testing.assert_allclose(values, expected, rtol=1e-13)


@pytest.mark.parametrize("kwargs", [{"learning_rate": 0.1}, {"learning_rate": "network"}, {"input_scale": [2.0, 0.1]}])
def test_rates_and_scales_of_a_float64_loss_are_float64(make_loss, kwargs):
    loss = make_loss(dtype="float64", **kwargs)
    assert {variable.dtype for variable in loss.trainable_variables} == {"float64"}
    assert loss.call(*batch(loss, 6)).dtype == "float64"


def test_integer_targets_are_cast(make_loss):
    loss = make_loss()
    labels, y_pred = np.array([[0], [1], [2]]), np.array([[0.1], [0.2], [0.3]], "float32")
    np.testing.assert_array_equal(loss.call(labels, y_pred), loss.call(labels.astype("float32"), y_pred))
    np.testing.assert_array_equal(loss(labels, y_pred), loss(labels.astype("float32"), y_pred))


def test_model_with_float16_predictions_trains_as_in_float32(make_loss):
    loss = make_loss(learning_rate=0.1)
    model = build_regressor(dtype="mixed_float16")
    assert model(X).dtype == "float16"
    assert_equal_weights(train(loss, model=model), train(loss), atol=5e-3)


def test_loss_made_under_the_mixed_float16_policy_stays_in_float32(mixed_float16_policy):
    loss = MetaLoss.mlp(learning_rate=0.1)
    assert {layer.compute_dtype for layer in (*loss.network.layers, loss.learned_rate)} == {"float32"}
    assert loss(Y.astype("float16"), Y.astype("float16")).dtype == "float32"
    model = build_regressor()
    before = model.get_weights()
    weights = train(loss, model=model)
    assert model.compute_dtype == "float16"
    assert all(np.all(np.isfinite(values)) for values in weights)
    assert differ(weights, before)


# Keras's own saving and training


@pytest.mark.parametrize("kind", KINDS)
def test_config_is_json_and_gives_the_loss_back(make_loss, kind):
    loss = make_loss(reduction="sum", name="mine", **KINDS[kind])
    again = keras.losses.deserialize(json.loads(json.dumps(keras.losses.serialize(loss))))
    data = batch(loss, 6)
    np.testing.assert_array_equal(again(*data), loss(*data))
    assert list(again.features.items()) == list(loss.features.items())
    assert (again.name, again.reduction, again.dtype) == ("mine", "sum", loss.dtype)


@pytest.mark.parametrize("kind", ["pair", "scalar_rate", "network_rate", "per_set"])
def test_keras_file_keeps_the_loss_and_training_goes_on_identically(make_loss, tmp_path, kind):
    loss = make_loss(**{**KINDS, "per_set": PER_SET_KINDS["scalar_rate"]}[kind])
    model = build_regressor()
    train(loss, model=model)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.loss is not loss
    for received, expected in zip(again.loss.trainable_variables, loss.trainable_variables, strict=True):
        np.testing.assert_array_equal(received, expected)
    for copy in (model, again):
        copy.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
    assert_equal_weights(again.get_weights(), model.get_weights(), rtol=0)


def test_every_way_of_running_fit_trains_alike(make_loss):
    loss = make_loss(learning_rate=0.1)
    expected = train(loss, run_eagerly=True)
    assert differ(expected, build_regressor().get_weights())
    for kwargs in ({"jit_compile": True}, {"jit_compile": False}, {"jit_compile": False, "steps_per_execution": 2}):
        assert_equal_weights(train(loss, **kwargs), expected, rtol=1e-5, atol=1e-6)


def test_fit_moves_the_model_and_never_the_loss(make_loss):
    loss = make_loss(learning_rate=0.1)
    before = [np.array(variable) for variable in loss.trainable_variables]
    model = build_regressor()
    train(loss, model=model)
    assert_equal_weights(loss.trainable_variables, before, rtol=0)
    assert len(model.weights) == 4


# Errors


@pytest.mark.parametrize(
    ("kwargs", "true_shape", "pred_shape", "words"),
    [
        ({}, (4, 1), (4, 2), r"1 for y_true \(y_true, side by side\) and 1 for y_pred. .* y_pred \(4, 2\)"),
        ({}, (4, 3), (4, 1), r"widths of this loss's features .* Received: y_true \(4, 3\)"),
        (KINDS["three_features"], (4, 3), (4, 2), r"4 for y_true \(state, goal, side by side\) and 2 for y_pred"),
        ({}, (4, 1), (3, 1), r"the same examples. Received: y_true \(4, 1\), y_pred \(3, 1\)"),
        ({}, (1, 1), (4, 1), "the same examples"),
        ({}, (2, 4, 1), (4, 1), "the same examples"),
        (KINDS["per_output"], (4, 3), (1, 3), "the same examples"),
        ({}, (0, 1), (0, 1), "The batch is empty: a loss needs at least one example"),
        ({}, (), (4, 1), r"expected shape \[batch, width\]. Received a scalar"),
        (KINDS["per_output"], (4,), (4, 10), r"\(one-hot labels, not indices\). .* y_true \(4, 1\), y_pred \(4, 10\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(make_loss, kwargs, true_shape, pred_shape, words):
    loss = make_loss(**kwargs)
    for call in (loss, loss.call, tf.function(loss.call)):
        with pytest.raises(ValueError, match=words):
            call(np.zeros(true_shape, "float32"), np.zeros(pred_shape, "float32"))


def test_fit_with_label_indices_is_refused_before_the_first_step(make_loss):
    model = build_regressor(num_outputs=10)
    with pytest.raises(ValueError, match="one-hot labels, not indices"):
        train(make_loss(mode="per_output"), y=np.arange(16) % 10, model=model)
    assert_equal_weights(model.get_weights(), build_regressor(10).get_weights(), rtol=0)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        (
            {"mode": "per_planet"},
            r"Expected one of \('per_sample', 'per_output', 'per_set'\). Received: mode='per_planet'",
        ),
        ({"mode": "per_set"}, "`score_network` scores .* expected a network with mode='per_set'.* score_network=None"),
        (
            {"score_network": MetaLoss.mlp().network},
            "None with any other. Received: mode='per_sample', score_network=<",
        ),
        ({"features": {}}, "the name of the prediction.* Received: features={}"),
        ({"features": {"y_pred": 1, "state": 0}}, "positive integer widths"),
        ({"features": {"y_pred": 1, "state": 1.0}}, "positive integer widths"),
        ({"features": {"y_pred": 1, "state": 2}, "mode": "per_output"}, "Use mode='per_sample' for wider features"),
        ({"features": {"y_pred": 1, "way": 1, "state": 2}, "mode": "per_output"}, "expected `features` of width 1"),
        ({"input_scale": [1.0]}, r"each of the 2 network inputs. Received: input_scale=\[1.0\]"),
        ({"input_scale": [1.0, 0.0]}, "positive finite divisor"),
        ({"input_scale": [1.0, float("nan")]}, "positive finite divisor"),
        ({"input_scale": [1.0, float("inf")]}, "positive finite divisor"),
        ({"learning_rate": 0.0}, "a positive float or 'network'. Received: 0.0"),
        ({"learning_rate": -1}, "a positive float or 'network'. Received: -1"),
        ({"learning_rate": float("inf")}, "a positive float or 'network'. Received: inf"),
        ({"learning_rate": float("nan")}, "a positive float or 'network'. Received: nan"),
        ({"learning_rate": "auto"}, "a positive float or 'network'. Received: 'auto'"),
        ({"features": {"y_pred": 1, "state": 2}}, "must map 3 inputs .* Received a network from 2 to 1"),
        (
            {"learning_rate": "network"},
            r"to 2 output\(s\) with learning_rate='network'. Received a network from 2 to 1",
        ),
        ({"reduction": "average"}, "Invalid value for argument `reduction`"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(kwargs, words):
    network = MetaLoss.mlp().network
    with pytest.raises(ValueError, match=words):
        MetaLoss(network, **kwargs)


def test_network_without_weights_is_refused():
    with pytest.raises(ValueError, match="`network` has no weights yet. Give it a `keras.Input`"):
        MetaLoss(keras.Sequential([keras.layers.Dense(1)]))


def test_network_of_wrong_output_width_is_refused():
    with pytest.raises(ValueError, match=r"to 1 output\(s\) .* Received a network from 2 to 3"):
        linear_loss(*np.ones((3, 2)))


def test_network_without_a_fixed_layout_is_refused():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs[:, :1]

    network = Subclassed()
    network(np.zeros((1, 2)))
    with pytest.raises(
        ValueError, match="`network` must be a Sequential or functional Keras model. Received: Subclassed"
    ):
        MetaLoss(network)


# Label-free losses


def entropy_like(mode, width):
    keras.utils.set_random_seed(0)
    features = {"y_pred": 1 if mode == "per_output" else width}
    return MetaLoss.mlp((8,), mode=mode, features=features, learning_rate=0.5)


@pytest.mark.parametrize("mode", ["per_sample", "per_output", "per_set"])
def test_a_label_free_loss_reads_the_prediction_alone(mode, tmp_path):
    loss = entropy_like(mode, 3)
    assert loss.is_label_free and not MetaLoss.mlp().is_label_free
    y_pred = np.random.default_rng(0).dirichlet([1.0] * 3, 5).astype("float32")
    values = [np.asarray(loss.call(y_true, y_pred)) for y_true in (np.zeros((5, 0)), np.arange(5), np.ones((5, 7)))]
    assert values[0].shape == (5,) and np.ptp(values[0]) > 0 or mode == "per_set"
    for value in values[1:]:
        np.testing.assert_array_equal(value, values[0])
    for copy in (ml3_tf.load_meta_loss(loss.export(tmp_path)), MetaLoss.from_config(loss.get_config())):
        np.testing.assert_array_equal(copy.call(np.zeros((5, 0)), y_pred), values[0])
    served = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    answer = served(y_true=tf.zeros((5, 1)), y_pred=tf.constant(y_pred))["loss"]
    np.testing.assert_allclose(answer, values[0], rtol=1e-5)


def test_a_model_adapts_to_examples_without_labels():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", loss=entropy_like("per_output", 3))
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    before = model.get_weights()[0].copy()
    model.fit(x, np.zeros((16, 0)), verbose=0)
    assert not np.array_equal(model.get_weights()[0], before)


def test_a_label_free_loss_has_no_base():
    with pytest.raises(ValueError, match="two first `features` of one width"):
        MetaLoss.around("categorical_crossentropy", features={"y_pred": 3})


def test_a_label_free_loss_is_learned_from_labelled_queries():
    """The support has no targets; without a label-free loss that is refused."""
    generator = np.random.default_rng(0)
    x, y = (
        generator.normal(size=(2, 8, 4)).astype("float32"),
        np.eye(3, dtype="float32")[generator.integers(0, 3, (2, 8))],
    )
    build = lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    tasks = tf.data.Dataset.from_tensors({"support": (x,), "query": (x, y)})
    for mode in ("per_sample", "per_output", "per_set"):
        trainer = ml3_tf.MetaTrainer(build, entropy_like(mode, 3), inner_steps=2, seed=0)
        trainer.compile(keras.optimizers.Adam(0.01), "categorical_crossentropy", keras.optimizers.SGD(0.5))
        assert trainer.fit(tasks, epochs=2, verbose=0).history["meta_gradient_norm"][0] > 0
        assert trainer.meta_loss.facts.targets is None
    curve = ml3_tf.meta_test(build, trainer.meta_loss, "sgd", next(iter(tasks)), num_steps=2, task_loss="mse")
    assert curve.shape == (3, 2) and np.isfinite(curve).all()
    for loss in (MetaLoss.mlp(features={"p": 3, "t": 3}), "mse"):
        with pytest.raises(ValueError, match="needs targets: expected examples \\(x, y\\). Received: inputs alone"):
            ml3_tf.meta_test(build, loss, "sgd", next(iter(tasks)), num_steps=2)
