"""Tests of `ml3_tf.outer_loop._checks`: datasets without an end or a batch, callbacks that lack a package, and what
cannot be differentiated."""

import sys
import types

import keras
import pytest
import tensorflow as tf

from ml3_tf import MetaLoss, MetaTrainer, sine_tasks
from ml3_tf.outer_loop._checks import PACKAGES_OF_CALLBACKS, check_callbacks, check_length, refuse_without_derivative

layers = keras.layers


def make_trainer():
    trainer = MetaTrainer(lambda: keras.Sequential([keras.Input((1,)), layers.Dense(1)]), MetaLoss.mlp((5,)), seed=0)
    trainer.compile(jit_compile=False)
    return trainer


ENDLESS = sine_tasks(2, num_support=5, seed=0)


def test_a_dataset_without_an_end_needs_a_number_of_steps():
    trainer = make_trainer()
    with pytest.raises(ValueError, match=r"`tasks` has no end. .* in `steps_per_epoch`, or .*dataset.take\(100\)"):
        trainer.fit(ENDLESS, verbose=0)
    with pytest.raises(ValueError, match="`validation_data` has no end. .* in `validation_steps`"):
        trainer.fit(ENDLESS.take(1), validation_data=ENDLESS, verbose=0)
    with pytest.raises(ValueError, match="`x` has no end. .* in `steps`"):
        trainer.evaluate(ENDLESS, verbose=0)
    history = trainer.fit(ENDLESS, steps_per_epoch=1, validation_data=ENDLESS, validation_steps=1, verbose=0).history
    assert sorted(history) == ["loss", "meta_gradient_norm", "val_loss"]
    assert trainer.evaluate(ENDLESS, steps=1, verbose=0) > 0


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "found out by running"])
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_an_empty_dataset_is_refused(is_known):
    generator = tf.data.Dataset.from_generator(lambda: iter(()), output_signature=ENDLESS.element_spec)
    with pytest.raises(ValueError, match="`tasks` (is empty|has no batch)"):
        make_trainer().fit(ENDLESS.take(0) if is_known else generator, verbose=0)


def test_other_data_is_not_checked():
    check_length(None, "validation_data", validation_steps=None)
    check_length(ENDLESS, "tasks", steps_per_epoch=3)


def test_an_evaluation_that_is_not_finite_is_told():
    batch = next(iter(ENDLESS))
    x, y = batch["query"]
    tasks = tf.data.Dataset.from_tensors({**batch, "query": (x, y * float("nan"))})
    with pytest.warns(UserWarning, match="The evaluation is not finite: .*nan.*`clipnorm`.*`meta_test` names"):
        make_trainer().evaluate(tasks, verbose=0)


def test_an_optimizer_that_steps_by_a_sign_is_refused():
    refuse_without_derivative("adam")
    with pytest.raises(ValueError, match="Lion cannot be the `inner_optimizer`"):
        refuse_without_derivative(keras.optimizers.Lion())


@pytest.mark.parametrize(
    "name, arguments, remedy",
    [
        ("TensorBoard", {"log_dir": "unused"}, r"pip install 'ml3_tf\[tensorboard\]'"),
        ("RemoteMonitor", {}, "pip install 'requests'"),
    ],
)
def test_a_callback_whose_package_is_missing_is_refused_before_training(name, arguments, remedy, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGES_OF_CALLBACKS[name][0], None)
    trainer = make_trainer()
    callback = getattr(keras.callbacks, name)(**arguments)
    with pytest.raises(ImportError, match=f"`callbacks` holds `keras.callbacks.{name}`.*is not installed.*{remedy}"):
        trainer.fit(ENDLESS, steps_per_epoch=1, callbacks=[callback], verbose=0)
    assert int(trainer.optimizer.iterations) == 0


def test_other_callbacks_need_no_package():
    check_callbacks([keras.callbacks.EarlyStopping(), keras.callbacks.TerminateOnNaN()])


def test_a_callback_whose_package_is_there_is_taken(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", keras)  # any module that is there
    check_callbacks([keras.callbacks.TensorBoard("unused")])


def test_the_scope_of_several_replicas_is_refused(monkeypatch):
    strategy = types.SimpleNamespace(num_replicas_in_sync=2)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    layers = keras.layers
    remedy = r"outside of `strategy.scope\(\)`, and call `trainer.distribute\(strategy\)` before `compile`"
    with pytest.raises(RuntimeError, match=f"{remedy}.*a SimpleNamespace with 2 replicas"):
        MetaTrainer(lambda: keras.Sequential([keras.Input((1,)), layers.Dense(1)]), MetaLoss.mlp((3,)))


def test_the_scope_of_one_replica_is_taken():
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        trainer = MetaTrainer(lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]), MetaLoss.mlp((3,)))
    assert trainer.inner_steps == 1
