"""Tests of `ml3_tf.outer_loop._fitting`: `fit` of trainers; see `test_run.py` for runs that are saved."""

import keras
import pytest
from resumed_runs import make_trainer, sines

from ml3_tf import Checkpoint


def test_steps_of_an_epoch_go_beyond_the_end_of_the_tasks():
    trainer = make_trainer()
    history = trainer.fit(sines().take(2), steps_per_epoch=3, epochs=2, verbose=0)
    assert history.epoch == [0, 1]
    assert int(trainer.optimizer.iterations) == 2 * 6


def test_it_takes_datasets():
    with pytest.raises(ValueError, match="takes a `tf.data.Dataset` of tasks. Received: list"):
        make_trainer().fit([1])


def test_a_trainer_is_not_saved_as_a_whole(tmp_path):
    with pytest.raises(NotImplementedError, match=r"`meta_loss.export\(folder\)`.*`fit\(resume=folder\)`"):
        make_trainer().save(tmp_path / "trainer.keras")
    whole = keras.callbacks.ModelCheckpoint(tmp_path / "trainer.keras")
    with pytest.raises(NotImplementedError, match="`ModelCheckpoint` needs save_weights_only=True"):
        make_trainer().fit(sines(), steps_per_epoch=1, callbacks=[whole], verbose=0)


def test_a_second_run_after_one_that_failed(tmp_path):
    """Nothing of a saved run is left in the trainer."""
    trainer = make_trainer()
    with pytest.raises(ValueError, match="`monitor` must be one of"):
        trainer.fit(sines(), steps_per_epoch=1, callbacks=[Checkpoint(tmp_path, monitor="none")], verbose=0)
    assert trainer.fit(sines(), steps_per_epoch=1, verbose=0).epoch == [0]
    assert trainer.evaluate(sines(), steps=1, verbose=0) > 0
