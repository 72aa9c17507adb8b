"""`AdaptLoss`: a loss that is learned while a model trains with it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf
from ml3_tf import AdaptLoss, MetaLoss

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(96, 3)).astype("float32")
Y = np.tanh(X.sum(axis=1, keepdims=True))
WRONG = Y + 9 * (np.arange(96) % 4 == 0)[:, None]  # outliers, all on one side
CLEAN = X[64:], Y[64:]
TRAIN = X[:64], WRONG[:64]


def build(*layers, loss=None, optimizer=None, **compiled):
    keras.utils.set_random_seed(0)
    layers = layers or (keras.layers.Dense(8, "tanh"),)
    model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(1)])
    loss = MetaLoss.around("mse") if loss is None else loss
    model.compile(optimizer or keras.optimizers.Adam(0.01), loss=loss, **compiled)
    return model


def fit(model, callback, epochs=2, **options):
    callbacks = [] if callback is None else [callback]
    return model.fit(*TRAIN, batch_size=8, epochs=epochs, verbose=0, callbacks=callbacks, **options).history


def adapt(meta=CLEAN, **options):
    return AdaptLoss(TRAIN, meta, **{"loss": "mae", "every": 2, "seed": 0, **options})


def phi(model):
    return [np.array(variable) for variable in model.loss.trainable_variables]


def count_moves(callback):
    return int(callback.optimizer.iterations)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_model_goes_on_from_the_weights_it_had(jit_compile):
    """With a loss that stays, weights, moving statistics, seeds and slots are those of a run without the callback."""
    ends = []
    for callback in (None, adapt(optimizer=keras.optimizers.SGD(0.0))):
        keras.utils.set_random_seed(0)
        model = build(
            keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.Dropout(0.3), jit_compile=jit_compile
        )
        fit(model, callback)
        ends.append([np.array(v) for v in [*model.variables, *model.optimizer.variables]])
    assert count_moves(callback) == 8
    for ours, theirs in zip(*ends, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("look_ahead", [1, 3])
@pytest.mark.parametrize("optimizer", [keras.optimizers.SGD(0.1, momentum=0.9), keras.optimizers.AdamW(0.05)])
def test_the_loss_moves_by_the_gradient_of_what_a_step_gives(float64, optimizer, look_ahead):
    """Finite differences of the task loss after `train_on_batch`, from the weights and slots that the model has."""
    loss = MetaLoss.around("huber", dtype="float64")
    loss.network.layers[-1].kernel.assign(np.random.default_rng(1).normal(size=(16, 1)) / 4)
    model = build(loss=loss, optimizer=type(optimizer).from_config(optimizer.get_config()))
    callback = adapt(optimizer=keras.optimizers.SGD(1.0), every=8, batch_size=64, look_ahead=look_ahead)
    fit(model, None)
    before = [np.array(v) for v in [*model.variables, *model.optimizer.variables]]
    first = phi(model)

    def task_loss_after_steps(values):
        for variable, value in zip(loss.trainable_variables, values, strict=True):
            variable.assign(value)
        for variable, value in zip([*model.variables, *model.optimizer.variables], before, strict=True):
            variable.assign(value)
        for _ in range(look_ahead):
            model.train_on_batch(*TRAIN)
        return float(tf.reduce_mean(tf.abs(model(CLEAN[0]) - CLEAN[1])))

    direction = [np.random.default_rng(2).normal(size=value.shape) for value in first]
    steps = [[value + size * d for value, d in zip(first, direction)] for size in (1e-5, -1e-5)]
    slope = (task_loss_after_steps(steps[0]) - task_loss_after_steps(steps[1])) / 2e-5
    task_loss_after_steps(first)
    for variable, value in zip([*model.variables, *model.optimizer.variables], before, strict=True):
        variable.assign(value)
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    callback.on_train_batch_end(7)
    moved = sum(np.sum((old - new) * d) for old, new, d in zip(first, phi(model), direction))
    assert moved == pytest.approx(slope, rel=1e-4)


def test_it_finds_the_outliers_by_clean_examples():
    errors = []
    for callback in (None, adapt(optimizer=keras.optimizers.Adam(0.02))):
        model = build()
        history = fit(model, callback, epochs=40)
        errors.append(float(np.mean(np.abs(model.predict(X, verbose=0) - Y))))
    assert errors[1] < errors[0] / 2 and errors[0] > 1
    assert len(history["meta_loss"]) == 40 and history["meta_loss"][-1] < history["meta_loss"][0] / 2
    assert history["meta_loss"][-1] == pytest.approx(
        np.mean(np.abs(model.predict(X[64:], verbose=0) - Y[64:])), rel=1e-4
    )


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_it_counts_batches_however_many_are_one_execution(steps_per_execution):
    callback = adapt(every=4)
    fit(build(steps_per_execution=steps_per_execution), callback, epochs=3)
    assert count_moves(callback) == 3 * 8 // 4


def test_it_is_traced_once_and_another_fit_goes_on():
    callback, model = adapt(), build()
    fit(model, callback)
    fit(model, callback)
    assert count_moves(callback) == 16
    assert callback._move.experimental_get_tracing_count() == 1
    assert [snapshot["epoch"] for snapshot in callback.snapshots] == [-1, 0, 1, 0, 1]


def test_a_rate_that_callbacks_change_is_that_of_the_virtual_step():
    gradients = []
    for rate in (0.01, 0.0):
        model, callback = build(optimizer=keras.optimizers.SGD(0.01)), adapt(optimizer=keras.optimizers.SGD(1.0))
        fit(model, callback, epochs=1)
        model.optimizer.learning_rate = rate
        before = phi(model)
        fit(model, callback, epochs=1)
        gradients.append(sum(np.abs(a - b).sum() for a, b in zip(before, phi(model))))
    assert gradients[0] > 0 and gradients[1] == 0


def test_a_model_with_a_step_of_its_own():
    class Clipped(keras.Sequential):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(y=y, y_pred=self(x, training=True))
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply([tf.sign(gradient) for gradient in gradients], self.trainable_variables)
            return {"loss": loss}

    model = Clipped([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", loss=MetaLoss.around("mse"))
    callback = adapt()
    fit(model, callback)
    assert count_moves(callback) == 8


def test_a_subclassed_model_that_is_built_by_its_first_batch():
    class Plain(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x):
            return self.dense(x)

    model = Plain()
    model.compile("adam", loss=MetaLoss.around("mse"))
    callback = adapt()
    fit(model, callback)
    assert count_moves(callback) == 8


def test_datasets_of_batches_and_weights():
    dataset = lambda examples: tf.data.Dataset.from_tensor_slices(examples).batch(5)
    train, clean = dataset((*TRAIN, np.ones(64, "float32"))), dataset((*CLEAN, np.ones(32, "float32")))
    callback = AdaptLoss(train, clean, loss="mae", every=2, look_ahead=2)
    history = fit(build(), callback)
    assert count_moves(callback) == 8 and np.isfinite(history["meta_loss"]).all()
    arrays = adapt()
    fit(build(), arrays, epochs=1)
    assert callback.snapshots[0]["meta_loss"] == pytest.approx(arrays.snapshots[0]["meta_loss"], rel=0.2)


def test_classes_with_a_loss_of_labels():
    labels = (X[:, 0] > 0).astype(int)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
    loss = MetaLoss.around("sparse_categorical_crossentropy", mode="per_output")
    model.compile("adam", loss=loss, metrics=["accuracy"])
    callback = AdaptLoss((X, labels), (X, labels), loss="sparse_categorical_crossentropy", every=2)
    model.fit(X, labels, epochs=2, batch_size=8, callbacks=[callback], verbose=0)
    assert count_moves(callback) == 12


def test_a_share_is_split_off():
    callback = AdaptLoss((X, Y), 0.25, loss="mse", seed=0)
    assert [len(values) for values in (*callback.train, *callback.meta)] == [72, 72, 24, 24]
    rows = np.concatenate([callback.train[0], callback.meta[0]])
    np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(X, axis=0))


def test_it_falls_back_if_the_task_loss_gets_no_better():
    model = build(optimizer=keras.optimizers.SGD(1e-12))  # too little to move a weight, and so the score
    first = phi(model)
    callback = adapt(optimizer=keras.optimizers.SGD(1e10), patience=2)
    with pytest.warns(UserWarning, match="not been better than .* for 2 epochs: the loss 'meta_loss' is again what it"):
        fit(model, callback, epochs=5)
    assert callback.has_fallen_back and count_moves(callback) == 2 * 4
    moved = [np.array(v) for v in callback.snapshots[2]["loss"].trainable_variables]
    assert max(np.abs(a - b).max() for a, b in zip(moved, first, strict=True)) > 1e-3
    for ours, theirs in zip(phi(model), first, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_loss_is_exported_as_usual(tmp_path):
    model = build()
    fit(model, adapt())
    loaded = ml3_tf.load_meta_loss(model.loss.export(tmp_path))
    np.testing.assert_array_equal(loaded(Y, Y + 1), model.loss(Y, Y + 1))
    changed = MetaLoss.around("mse")(Y, Y + 1)
    assert not np.array_equal(loaded(Y, Y + 1), changed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 0}, "`every`"),
        ({"look_ahead": 0}, "`look_ahead`"),
        ({"batch_size": 2.5}, "`batch_size`"),
        ({"patience": 0}, "`patience`"),
        ({"meta": 1.5}, "between 0 and 1; .* Received: meta=1.5"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        adapt(**arguments)


def test_examples_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="arrays of one length each.*Received: the lengths .32, 31."):
        adapt(meta=(X[64:], Y[65:]))
    empty = tf.data.Dataset.from_tensor_slices(CLEAN).batch(8).take(0)
    with pytest.raises(ValueError, match="Received: an empty dataset"):
        fit(build(), adapt(meta=empty))
    with pytest.raises(ValueError, match="needs a target for each prediction"):  # not broadcast
        fit(build(), adapt(meta=(X[64:], np.ones((32, 3), "float32"))))


def test_a_dataset_may_be_smaller_than_a_batch():
    small = tf.data.Dataset.from_tensor_slices((X[64:68], Y[64:68])).batch(3)
    callback = adapt(meta=small, batch_size=32)
    fit(build(), callback)
    assert count_moves(callback) == 8


def test_a_model_without_a_learned_loss_is_refused():
    with pytest.raises(ValueError, match="compile it with `loss=` a `MetaLoss`.*Received: loss='mse'"):
        fit(build(loss="mse"), adapt())


def test_an_optimizer_that_cannot_be_differentiated_is_refused():
    with pytest.raises(ValueError, match="use_ema=True"):
        fit(build(optimizer=keras.optimizers.SGD(0.1, use_ema=True)), adapt())


def test_a_meta_gradient_that_is_not_finite_does_not_pass_in_silence():
    with pytest.raises(FloatingPointError, match="not finite in 4 step"):
        fit(build(), adapt(meta=(X, np.full_like(Y, np.nan))), epochs=4)
