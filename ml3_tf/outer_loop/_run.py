"""A run of `fit` that is saved, and that goes on with the run before."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Self

import keras
import tensorflow as tf

from ml3_tf.outer_loop._callback_state import CallbackStates, decode, encode
from ml3_tf.outer_loop._checkpoint import Checkpoint, Store, check_finite
from ml3_tf.outer_loop._interrupts import Interrupts
from ml3_tf.outer_loop._position import Position


class SavedRun:
    """Saves a run of a trainer's `fit`, after going on with the run that its folder holds.

    Keras begins an epoch at its first step. Steps that the run before has taken are left out: the callbacks do not hear
    of them, and the train function returns at once.

    Args:
        trainer: The trainer, with `training_state` and `training_config`.
        checkpoint: The `Checkpoint` among the callbacks.
        callbacks: All callbacks.
        tasks: The dataset.
        validation_data: The dataset of the validation; `None`: there is none.
        steps_per_epoch: As in `fit`.
        initial_epoch: As in `fit`.
        epochs: As in `fit`.
    """

    def __init__(
        self,
        trainer: Any,
        checkpoint: Checkpoint,
        callbacks: Sequence[keras.callbacks.Callback],
        *,
        tasks: tf.data.Dataset,
        validation_data: tf.data.Dataset | None,
        steps_per_epoch: int | None,
        initial_epoch: int,
        epochs: int,
    ) -> None:
        self._trainer, self._checkpoint, self._epochs = trainer, checkpoint, epochs
        self._callbacks = CallbackStates([callback for callback in callbacks if callback is not checkpoint])
        self._one_pass = steps_per_epoch is None
        length = int(tasks.cardinality())
        self._num_steps = steps_per_epoch or (length if length > 0 else None)
        self._positions = {"tasks": Position(tasks, "tasks")}
        if validation_data is not None:
            self._positions["validation_data"] = Position(validation_data, "validation_data")
        self._store = Store(checkpoint.folder, only_reads=not trainer.is_first_host)
        self._config = _as_json(
            {
                **trainer.training_config,
                "steps_per_epoch": steps_per_epoch,
                "tasks": repr(tasks.element_spec),
                "callbacks": self._callbacks.names,
            }
        )
        self._path: str | None = None  # of the state that the run goes on from
        self._epoch, self._step = initial_epoch, 0  # where the run is: epochs that are over, steps of this one
        self._num_left_out = 0  # steps of this epoch that the run before has taken
        self.is_left_out: bool = False  # whether this step is one of them
        self._step_of_last_save = 0
        self._logs: dict[str, Any] = {}
        self._best: float | None = None

    @contextlib.contextmanager
    def active(self) -> Iterator[Self]:
        """Holds the folder, and puts signals off; goes on with the run before."""
        advice = (
            f"Meta-training is saved in '{self._checkpoint.folder}'. Run the same command again to go on from there."
        )
        with self._store.locked(), Interrupts(advice) as self._interrupts:
            self._path = self._store.find()
            if self._path is not None:
                self._resume(self._path)
            self._checkpoint.is_running = True
            try:
                yield self
            finally:
                self._checkpoint.is_running = False

    @property
    def initial_epoch(self) -> int:
        """The first epoch: that of the run before, if there is one; none is left if that has ended."""
        record = self._store.record.values
        is_over = record.get("is_over", False) and self._epochs <= record["epochs"]
        return self._epochs if is_over else self._epoch

    def callback_list(
        self, callbacks: Sequence[keras.callbacks.Callback], *, verbose: int | str
    ) -> "SavedCallbackList":
        """Returns the callbacks as Keras's `fit` takes them, with its own."""
        params = {"verbose": verbose, "epochs": self._epochs, "steps": self._num_steps}
        return SavedCallbackList(
            self, callbacks, add_history=True, add_progbar=verbose != 0, model=self._trainer, **params
        )

    def validates_on(self, dataset: Any) -> bool:
        """Whether a dataset is the one that `fit` validates on."""
        position = self._positions.get("validation_data")
        return position is not None and position.dataset is dataset

    # What the callbacks and the train function call, in the order of a run.

    def begin(self) -> None:
        """Training begins: takes up the history, and how the callbacks are."""
        self._callbacks.begin()
        if self._path is not None:
            record = self._store.record.values
            self._trainer.history.history = decode(record["history"])
            self._trainer.history.epoch = list(record["history_epochs"])

    def begin_epoch(self, *, is_first_call: bool) -> None:
        """An epoch begins: the callbacks have heard of it at the second call."""
        # In the middle of an epoch, what the callbacks did at its begin is done, and saved.
        if self._path is None or is_first_call == (self._num_left_out > 0):
            return
        self._restore(self._path)
        self._callbacks.set(self._store.record.values["callbacks"], before_training=False)
        if not self._num_left_out:
            self._trainer.reset_metrics()
        self._path = None

    def begin_step(self, batch: int) -> None:
        """A step begins."""
        self.is_left_out = batch < self._num_left_out

    def before_step(self, iterator: Any) -> dict[str, Any] | None:
        """Follows the iterator; returns the logs of a step that is left out."""
        self._positions["tasks"].draw(iterator, 0 if self.is_left_out else self._trainer.steps_per_execution)
        return self._logs if self.is_left_out else None

    def before_validation_step(self, iterator: Any) -> None:
        """Follows the iterator of the validation."""
        self._positions["validation_data"].draw(iterator, self._trainer.steps_per_execution)

    def after_step(self, batch: int, logs: dict[str, Any]) -> None:
        """Saves if it is time, and leaves if a signal came."""
        self._step, self._logs = batch + 1, logs
        save_freq = self._checkpoint.save_freq
        is_interrupted = self._interrupts.received is not None
        if is_interrupted or (save_freq is not None and self._step - self._step_of_last_save >= save_freq):
            self._save()
        if is_interrupted:
            self._interrupts.leave()

    def after_epoch(self, epoch: int) -> None:
        """Saves, also as the best epoch if it is."""
        self._epoch, self._step, self._num_left_out = epoch + 1, 0, 0
        checkpoint = self._checkpoint
        results = {name: curve[-1] for name, curve in self._trainer.history.history.items()}
        monitor = checkpoint.monitor or ("val_loss" if "validation_data" in self._positions else "loss")
        if monitor not in results and not monitor.startswith("val_"):  # there is not a validation after each epoch
            raise ValueError(f"`monitor` must be one of {sorted(results)}. Received: monitor={monitor!r}")
        sign = 1 if checkpoint.mode == "min" else -1
        is_best = monitor in results and (self._best is None or sign * results[monitor] < sign * self._best)
        if is_best:
            self._best = float(results[monitor])
        self._save()
        if is_best and not self._store.only_reads:
            self._store.save("best", self._trainer.training_state)
        if self._interrupts.received is not None:
            self._interrupts.leave()

    def begin_end(self) -> None:
        """Training ends: the callbacks have not heard of it yet."""
        if self._path is not None:  # no epoch was left
            self._callbacks.set(self._store.record.values["callbacks"], before_training=False)

    def end(self) -> None:
        """Training has ended: saves what the callbacks did then, such as going back to the best weights."""
        if self._path is None or self._is_left_to_end:
            self._save(is_over=True)

    @property
    def _is_left_to_end(self) -> bool:
        """Whether the run before was interrupted after its last epoch."""
        record = self._store.record.values
        return not record["is_over"] and (self._epochs, 0) == (record["epoch"], record["step"])

    def _resume(self, path: str) -> None:
        record = self._store.record.values
        self._refuse_other_settings(record["config"])
        self._restore(path)
        self._epoch, self._num_left_out = record["epoch"], record["step"]
        self._step = self._step_of_last_save = record["step"]
        self._logs, self._best = decode(record["logs"]), record["best"]
        if not record["is_over"]:
            for name, position in self._positions.items():
                if name in record["positions"]:
                    is_within = name == "tasks" and (not self._one_pass or self._num_left_out > 0)
                    kept = record["positions"][name]
                    position.restore(path, kept["config"], key=kept["key"], is_within=is_within)
        self._callbacks.set(record["callbacks"], before_training=True)

    def _restore(self, path: str) -> None:
        status = tf.train.Checkpoint(**self._trainer.training_state).restore(path)
        status.assert_existing_objects_matched().expect_partial()

    def _save(self, *, is_over: bool = False) -> None:
        if self._store.only_reads:
            return
        check_finite(self._trainer.training_state["meta_loss"])
        state, positions = dict(self._trainer.training_state), {}
        for name, position in self._positions.items():
            if position.iterator is not None:
                positions[name] = {"config": position.to_config(), "key": name if position.is_savable else None}
                if position.is_savable:
                    state[name] = position.iterator
        self._store.record.values = {
            "config": self._config,
            "epoch": self._epoch,
            "step": self._step,
            "epochs": self._epochs,
            "is_over": is_over,
            "logs": encode({name: float(value) for name, value in self._logs.items()}),
            "history": encode(self._trainer.history.history),
            "history_epochs": list(self._trainer.history.epoch),
            "callbacks": self._callbacks.get(),
            "positions": positions,
            "best": self._best,
        }
        self._store.save("last", state)
        self._step_of_last_save = self._step

    def _refuse_other_settings(self, config: dict[str, Any]) -> None:
        names = sorted({*config, *self._config})
        changed = [name for name in names if config.get(name) != self._config.get(name)]
        if changed:
            differences = "; ".join(f"{n}: {config.get(n)!r} there, {self._config.get(n)!r} here" for n in changed)
            raise ValueError(
                f"'{self._checkpoint.folder}' holds a run of other settings, which this one cannot go on from. Choose "
                f"another folder, or delete it to start anew. Different are {differences}"
            )


class SavedCallbackList(keras.callbacks.CallbackList):
    """Keras's list of callbacks, which tells a `SavedRun` after it has told all of them."""

    def __init__(self, run: SavedRun, callbacks: Sequence[keras.callbacks.Callback], **arguments: Any) -> None:
        super().__init__(list(callbacks), **arguments)
        self._run = run

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        self._run.begin()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._run.begin_epoch(is_first_call=True)
        super().on_epoch_begin(epoch, logs)
        self._run.begin_epoch(is_first_call=False)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._run.begin_step(batch)
        if not self._run.is_left_out:
            super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self._run.is_left_out:
            super().on_train_batch_end(batch, logs)
            self._run.after_step(batch, logs or {})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._run.after_epoch(epoch)

    def on_train_end(self, logs: Any = None) -> None:
        self._run.begin_end()
        super().on_train_end(logs)
        self._run.end()


def _as_json(config: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(config, default=repr))
