"""Losses that start as a loss of Keras, to the last bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf
from ml3_tf.meta_loss._base import BASES, get_base

CLASSES = {"p": 3, "t": 3}
LOSSES = {
    "mse": "mse",
    "mae": keras.losses.MeanAbsoluteError(),
    "huber": keras.losses.Huber(delta=0.5),  # Keras's own configuration forgets delta
    "log_cosh": keras.losses.log_cosh,
    "binary": "binary_crossentropy",
    "binary logits": keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1),
    "categorical": "categorical_crossentropy",
    "categorical logits": keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2),
    "sparse": "sparse_categorical_crossentropy",
    "sparse logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "generalized": keras.losses.CategoricalGeneralizedCrossEntropy(q=0.7),
    "forward": {"name": "forward_corrected_cross_entropy", "q": 0.7, "prior_count": 2.0, "balance": 0.5},
}
OF_CLASSES = [name for name in LOSSES if name.startswith(("categorical", "sparse", "generalized", "forward"))]
OF_LABELS = [name for name in OF_CLASSES if not name.startswith("categorical")]
GENERATOR = np.random.default_rng(0)
Y_PRED = GENERATOR.dirichlet([1.0] * 3, 5).astype("float32")
LABELS = np.array([0, 1, 2, 1, 0])
Y_TRUE = np.eye(3, dtype="float32")[LABELS]


def of_keras(base):
    if isinstance(base, dict):
        return get_base(base).call(Y_TRUE, keras.ops.convert_to_tensor(Y_PRED))
    takes_labels = base in [LOSSES[name] for name in OF_LABELS]
    loss = keras.losses.get(base)
    return (loss.call if isinstance(loss, keras.losses.Loss) else loss)(
        keras.ops.convert_to_tensor(LABELS if takes_labels else Y_TRUE), keras.ops.convert_to_tensor(Y_PRED)
    )


def around(name, **arguments):
    return ml3_tf.MetaLoss.around(LOSSES[name], features=CLASSES, **arguments)


def bend(meta_loss):
    """Gives the last layer weights, so that the network counts."""
    last = (meta_loss.score_network or meta_loss.network).layers[-1].kernel
    last.assign(np.random.default_rng(1).normal(size=last.shape) / 3)
    return meta_loss


def assert_equal_losses(loss, other, y_true=Y_TRUE, y_pred=Y_PRED):
    for ours, theirs in zip(loss.value_and_gradient(y_true, y_pred), other.value_and_gradient(y_true, y_pred)):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_around_a_base_is_the_base_at_first(name):
    np.testing.assert_array_equal(around(name).call(Y_TRUE, Y_PRED), of_keras(LOSSES[name]))


@pytest.mark.parametrize("name", LOSSES)
def test_a_per_output_loss_is_the_base_at_first(name):
    loss = ml3_tf.MetaLoss.around(LOSSES[name], mode="per_output")
    np.testing.assert_array_equal(loss.call(Y_TRUE, Y_PRED), of_keras(LOSSES[name]))


def test_a_set_has_the_base_of_each_example_and_the_score_of_all():
    loss = around("mse", mode="per_set")
    np.testing.assert_array_equal(loss.call(Y_TRUE, Y_PRED), of_keras("mse"))
    added = bend(loss).call(Y_TRUE, Y_PRED) - of_keras("mse")
    np.testing.assert_allclose(added, np.full(5, added[0]), rtol=1e-5)
    assert abs(added[0]) > 1e-3


def test_the_base_sees_the_target_and_the_network_the_rest_too():
    loss = ml3_tf.MetaLoss.around("mse", features={"p": 3, "t": 3, "hint": 2})
    y_true = np.concatenate([Y_TRUE, np.ones((5, 2), "float32")], axis=1)
    np.testing.assert_array_equal(loss.call(y_true, Y_PRED), of_keras("mse"))
    other = np.concatenate([Y_TRUE, np.zeros((5, 2), "float32")], axis=1)
    assert not np.allclose(bend(loss).call(y_true, Y_PRED), loss.call(other, Y_PRED))


def test_the_rate_multiplies_base_and_network():
    loss = around("mse", learning_rate=0.5)
    np.testing.assert_allclose(loss.call(Y_TRUE, Y_PRED), of_keras("mse") / 2, rtol=1e-6)


@pytest.mark.parametrize("mode", ["per_sample", "per_output", "per_set"])
@pytest.mark.parametrize("name", LOSSES)
def test_it_is_exported_and_copied_with_its_base(name, mode, tmp_path):
    features = None if mode == "per_output" else CLASSES
    loss = bend(ml3_tf.MetaLoss.around(LOSSES[name], mode=mode, features=features, learning_rate=0.5))
    loaded = ml3_tf.load_meta_loss(loss.export(tmp_path))
    assert_equal_losses(loaded, loss)
    copy = ml3_tf.MetaLoss.from_config(loss.get_config())
    assert loaded.base.get_config() == copy.base.get_config() == loss.base.get_config()


def test_meta_training_moves_it_from_the_base():
    loss = ml3_tf.MetaLoss.around("mse")
    build = lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    trainer = ml3_tf.MetaTrainer(build, loss, inner_steps=2, seed=0)
    trainer.compile(keras.optimizers.Adam(1e-2), inner_optimizer=keras.optimizers.SGD(0.01), run_eagerly=True)
    trainer.fit(ml3_tf.sine_tasks(2, seed=0), steps_per_epoch=1, verbose=0)
    assert np.all(loss.network.layers[-1].kernel.numpy() != 0)


def test_a_base_is_a_loss_of_keras():
    assert {get_base(name).name for name in BASES} == {*BASES}
    assert get_base(get_base("huber").get_config()).get_config() == {"name": "huber", "delta": 1.0}
    ignoring = keras.losses.SparseCategoricalCrossentropy(ignore_class=0)
    for wrong in ("poisson", lambda y_true, y_pred: 0.0, keras.losses.BinaryCrossentropy(axis=1), ignoring):
        with pytest.raises(ValueError, match="`base` must be one of .'mean_squared_error'"):
            get_base(wrong)


def test_a_configuration_names_a_base_and_its_arguments():
    """A `.keras` file holds such configurations: it must not name other functions of Keras."""
    for wrong in ({"name": "deserialize"}, {}, {"name": "huber"}, {"name": "huber", "delta": 1.0, "axis": 0}):
        with pytest.raises(ValueError, match="A base is one of "):
            get_base(wrong)


def test_a_base_must_fit_the_features():
    with pytest.raises(ValueError, match="expected two first `features` of one width"):
        ml3_tf.MetaLoss.around("mse", features={"p": 3, "t": 2})
    network = ml3_tf.MetaLoss.mlp(learning_rate="network").network
    with pytest.raises(ValueError, match="With a `base`, `learning_rate` is None or a number"):
        ml3_tf.MetaLoss(network, base="mse", learning_rate="network")
    with pytest.raises(ValueError, match="needs a hidden layer"):
        ml3_tf.MetaLoss.around("mse", ())
    for name in OF_CLASSES:
        with pytest.raises(ValueError, match="expected mode='per_output', or `features` as wide as the classes"):
            ml3_tf.MetaLoss.around(LOSSES[name])


# Parameters of a base


@pytest.mark.parametrize(
    ("base", "name", "low", "high"),
    [
        (keras.losses.Huber(delta=0.5), "delta", 2**-10, np.inf),
        (keras.losses.CategoricalCrossentropy(label_smoothing=0.1), "label_smoothing", 0.0, 0.875),
        (keras.losses.BinaryCrossentropy(label_smoothing=0.1), "label_smoothing", 0.0, 0.875),
        (keras.losses.CategoricalGeneralizedCrossEntropy(q=0.7), "q", 2**-7, 1.0),
        (LOSSES["forward"], "prior_count", 2**-10, np.inf),
        (LOSSES["forward"], "balance", 0.0, np.inf),
    ],
)
def test_its_parameters_are_learned_within_their_range(base, name, low, high, tmp_path):
    loss = ml3_tf.MetaLoss.around(base, features=CLASSES)
    find = lambda loss: next(variable for variable in loss.trainable_variables if variable.name == name)
    variable = find(loss)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(loss.call(Y_TRUE, 4 * Y_PRED - 1))
    gradient = tape.gradient(total, variable.value)
    changed = {}
    for step in (1e-3, -1e-3):
        other = ml3_tf.MetaLoss.from_config(loss.get_config())
        find(other).assign(float(variable) + step)
        changed[step] = float(tf.reduce_sum(other.call(Y_TRUE, 4 * Y_PRED - 1)))
    np.testing.assert_allclose(gradient, (changed[1e-3] - changed[-1e-3]) / 2e-3, rtol=2e-2)

    for slope, limit in ((1e3, low), (-1e3, high)):
        keras.optimizers.SGD(1.0).apply([tf.constant(slope)], [variable])
        assert float(variable) == limit or (limit == np.inf and float(variable) > 500)
        assert ml3_tf.MetaLoss.from_config(loss.get_config()).base.get_config()[name] == float(variable)
    variable.assign(0.25)
    assert ml3_tf.load_meta_loss(loss.export(tmp_path)).base.get_config()[name] == 0.25
    assert ml3_tf.MetaLoss.from_config(loss.get_config()).base.get_config()[name] == 0.25


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ["categorical logits", "categorical", "binary logits"])
def test_a_meta_gradient_moves_its_smoothing(name, compiled):
    """TensorFlow's softmax cross-entropy has no second derivative with respect to targets."""
    loss, logits = around(name), tf.constant(4 * Y_PRED - 1)
    [smoothing] = loss.base.trainable_variables
    outputs = {"categorical": tf.nn.softmax}.get(name, tf.identity)

    def step():  # one of SGD at the rate 1 on logits, and the error of where it ends
        with tf.GradientTape() as tape:
            tape.watch(logits)
            total = tf.reduce_sum(loss.call(Y_TRUE, outputs(logits)))
        return tf.reduce_sum((logits - tape.gradient(total, logits)) ** 3)

    def differentiate():
        with tf.GradientTape() as tape:
            error = step()
        return tape.gradient(error, smoothing.value)

    smoothing.assign(0.2)
    gradient = (tf.function(differentiate) if compiled else differentiate)()
    errors = []
    for value in (0.21, 0.19):
        smoothing.assign(value)
        errors.append(float(step()))
    np.testing.assert_allclose(gradient, (errors[0] - errors[1]) / 2e-2, rtol=2e-2)


def test_parameters_stand_in_one_order_in_every_process():
    """Sets of names do not: their order hangs on a hash that Python draws anew."""
    assert [variable.name for variable in get_base(LOSSES["forward"]).variables] == ["q", "prior_count", "balance"]


def test_a_parameter_outside_of_its_range_is_refused():
    with pytest.raises(
        ValueError, match="`q` of 'categorical_generalized_cross_entropy' must be from 0.0078125 to 1. Rec"
    ):
        ml3_tf.MetaLoss.around(keras.losses.CategoricalGeneralizedCrossEntropy(q=1e-3), features=CLASSES)


def test_meta_training_moves_the_parameter_of_a_base():
    loss = ml3_tf.MetaLoss.around(keras.losses.Huber(delta=0.5))
    build = lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    trainer = ml3_tf.MetaTrainer(build, loss, inner_steps=2, seed=0)
    trainer.compile(keras.optimizers.Adam(1e-2), inner_optimizer=keras.optimizers.SGD(0.01))
    trainer.fit(ml3_tf.sine_tasks(2, seed=0), steps_per_epoch=2, verbose=0)
    assert loss.base.get_config()["delta"] == pytest.approx(0.52, abs=1e-3)  # it is too small for these tasks


# Class indices


@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None], Y_TRUE])
@pytest.mark.parametrize("name", OF_LABELS)
def test_class_indices_are_taken_as_keras_takes_them(name, labels):
    loss = around(name)
    np.testing.assert_array_equal(loss.call(labels, Y_PRED), of_keras(LOSSES[name]))
    per_output = ml3_tf.MetaLoss.around(LOSSES[name], mode="per_output")
    np.testing.assert_array_equal(per_output.call(labels, Y_PRED), of_keras(LOSSES[name]))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", loss=loss)
    assert np.isfinite(model.train_on_batch(Y_PRED, labels))


@pytest.mark.parametrize("name", OF_LABELS)
def test_class_indices_of_sequences_and_with_further_features(name):
    y_pred, labels = np.stack([Y_PRED, Y_PRED[::-1]]), np.stack([LABELS, LABELS[::-1]])
    expected = around(name).call(np.stack([Y_TRUE, Y_TRUE[::-1]]), y_pred)
    np.testing.assert_array_equal(around(name).call(labels, y_pred), expected)
    loss = bend(ml3_tf.MetaLoss.around(LOSSES[name], features={"p": 3, "t": 3, "hint": 1}))
    hint = np.arange(5.0, dtype="float32")[:, None]
    expected = loss.call(np.concatenate([Y_TRUE, hint], 1), Y_PRED)
    np.testing.assert_array_equal(loss.call(np.concatenate([LABELS[:, None], hint], 1), Y_PRED), expected)
    loss = bend(ml3_tf.MetaLoss.around(LOSSES[name], mode="per_output", features={"p": 1, "t": 1, "hint": 1}))
    hint = np.arange(15.0, dtype="float32").reshape(5, 3)
    expected = loss.call(np.concatenate([Y_TRUE, hint], 1), Y_PRED)
    np.testing.assert_array_equal(loss.call(np.concatenate([LABELS[:, None], hint], 1), Y_PRED), expected)


def test_an_index_out_of_range_is_nan_and_not_another_class():
    values = np.asarray(around("sparse").call(np.array([0, 1, 2, 3, -1]), Y_PRED))
    np.testing.assert_array_equal(np.isnan(values), [False, False, False, True, True])


@pytest.mark.parametrize("name", OF_CLASSES)
def test_tasks_with_class_indices_are_meta_trained_by_xla_too(name):
    generator = np.random.default_rng(0)
    x, labels = generator.normal(size=(2, 6, 4)).astype("float32"), generator.integers(0, 3, (2, 6))
    targets = labels if name in OF_LABELS else np.eye(3, dtype="float32")[labels]
    loss, norms = around(name), []
    for jit_compile in (False, True):
        trainer = ml3_tf.MetaTrainer(
            lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")]),
            ml3_tf.MetaLoss.from_config(loss.get_config()),
            inner_steps=2,
            seed=0,
        )
        task_loss = "sparse_categorical_crossentropy" if name in OF_LABELS else "categorical_crossentropy"
        trainer.compile(loss=task_loss, jit_compile=jit_compile)
        batch = {"support": (x, targets), "query": (x, targets)}
        history = trainer.fit(tf.data.Dataset.from_tensors(batch), verbose=0)
        norms += history.history["meta_gradient_norm"]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4) and norms[0] > 0


def test_a_probability_of_zero_has_a_finite_slope():
    value, slope = around("generalized").value_and_gradient(Y_TRUE[:1], np.array([[0.0, 0.5, 0.5]], "float32"))
    assert np.isfinite(value).all() and np.isfinite(slope).all()
