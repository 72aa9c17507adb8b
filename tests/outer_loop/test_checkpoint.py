"""Tests of `ml3_tf.outer_loop._checkpoint`: what its folder holds; see `test_run.py` for runs that go on."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from resumed_runs import make_trainer, phi_of, sines

import ml3_tf
from ml3_tf.outer_loop._checkpoint import Store, check_finite, get_checkpoint


def fit(folder, *, epochs=2, seed=0, callbacks=(), **arguments):
    trainer = make_trainer(seed=seed)
    checkpoint = ml3_tf.Checkpoint(folder, **arguments)
    trainer.fit(sines(), steps_per_epoch=2, epochs=epochs, callbacks=[*callbacks, checkpoint], verbose=0)
    return trainer, checkpoint


class Diverge(keras.callbacks.Callback):
    """Makes the results of epochs worse and worse, and phi known."""

    def on_epoch_end(self, epoch, logs=None):
        logs["loss"] = float(epoch == 0)  # 1, 0, 0, ...
        self.model.meta_loss.trainable_variables[0].assign(self.model.meta_loss.trainable_variables[0] * 0 + epoch)


@pytest.mark.parametrize(("mode", "best"), [("min", 1), ("max", 0)])
def test_the_best_epoch_is_kept(tmp_path, mode, best):
    trainer, checkpoint = fit(tmp_path, epochs=3, callbacks=[Diverge()], mode=mode)
    assert np.all(phi_of(trainer)[0] == 2)
    checkpoint.restore_best()
    assert np.all(phi_of(trainer)[0] == best)


def test_there_is_no_best_epoch_at_first(tmp_path):
    with pytest.raises(RuntimeError, match="There is no best epoch yet"):
        ml3_tf.Checkpoint(tmp_path).restore_best()


def test_a_result_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`monitor` must be one of \['loss', 'meta_gradient_norm'\].*'accuracy'"):
        fit(tmp_path, monitor="accuracy")


@pytest.mark.parametrize("arguments", [{"mode": "least"}, {"save_freq": 0}, {"save_freq": 1.5}])
def test_arguments_that_make_no_sense(tmp_path, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ml3_tf.Checkpoint(tmp_path, **arguments)


def test_it_is_for_trainers(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"among the callbacks of a trainer's `fit`.*Sequential.*`BackupAndRestore`"):
        model.fit(np.ones((2, 1)), np.ones((2, 1)), callbacks=[ml3_tf.Checkpoint(tmp_path)], verbose=0)


def test_one_checkpoint_and_not_that_of_keras(tmp_path):
    assert get_checkpoint([keras.callbacks.History()]) is None
    with pytest.raises(ValueError, match="`BackupAndRestore` does not save the learners.*`fit\\(resume=folder\\)`"):
        get_checkpoint([keras.callbacks.BackupAndRestore(tmp_path)])
    with pytest.raises(ValueError, match="expected one `Checkpoint`, or `resume`"):
        make_trainer().fit(sines(), steps_per_epoch=1, callbacks=[ml3_tf.Checkpoint("a")], resume="b", verbose=0)


def test_a_folder_belongs_to_one_process(tmp_path):
    hold = "import sys, fcntl; f = open(sys.argv[1], 'a+'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    with Store(tmp_path).locked():
        pass  # makes the file
    with subprocess.Popen(
        [sys.executable, "-c", hold, tmp_path / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(BlockingIOError, match=f"'{tmp_path}' is in use by the process {os.getpid()}"):
            fit(tmp_path)
        other.kill()
    fit(tmp_path)  # the lock has died with its process


class Break(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            self.model.meta_loss.trainable_variables[0].assign(self.model.meta_loss.trainable_variables[0] * np.nan)


def test_what_is_not_finite_is_not_saved(tmp_path):
    check_finite([tf.Variable(1.0)])
    kept = phi_of(fit(tmp_path, epochs=1, callbacks=[Break()])[0])
    with pytest.raises(FloatingPointError, match="of the learned loss is not finite, so it was not saved"):
        fit(tmp_path, epochs=2, callbacks=[Break()])
    for before, restored in zip(kept, phi_of(fit(tmp_path, epochs=1, callbacks=[Break()])[0])):
        np.testing.assert_array_equal(before, restored)


def test_a_state_that_cannot_be_read_is_replaced_by_the_one_before(tmp_path):
    fit(tmp_path, epochs=2)
    newest = tf.train.latest_checkpoint(tmp_path / "last")
    with open(newest + ".index", "wb") as file:
        file.write(b"nothing")
    store = Store(tmp_path)
    with pytest.warns(UserWarning, match="cannot be read, the state before it is taken"):
        path = store.find()
    assert path != newest and store.record.values["epoch"] == 2 and not store.record.values["is_over"]
    with open(path + ".index", "wb") as file:
        file.write(b"nothing")
    with pytest.warns(UserWarning), pytest.raises(OSError, match="None of the states in .* can be read"):
        store.find()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=str(tmp_path)):
        fit(tmp_path)


def test_a_failed_save_leaves_the_state_before(tmp_path, monkeypatch):
    fit(tmp_path, epochs=1)

    def fail(*_):
        raise tf.errors.OutOfRangeError(None, None, "No space left on device")

    monkeypatch.setattr(tf.train.CheckpointManager, "save", fail)
    with pytest.raises(OSError, match=f"could not be saved in '{tmp_path}/last': No space left.*is still there"):
        fit(tmp_path, epochs=2)
    monkeypatch.undo()
    store = Store(tmp_path)
    store.find()
    assert store.record.values["epoch"] == 1
