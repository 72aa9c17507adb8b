"""Meta-training that is interrupted and goes on as if it had not been: all that it needs is saved."""

import contextlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.arguments import check_counts

NUM_KEPT = {"last": 2, "best": 1}  # should the disk lose the newest, the one before is there


class Checkpoint(keras.callbacks.Callback):
    """Saves meta-training, and goes on exactly where it was interrupted: a callback of `fit` of every trainer.

    It saves at the end of each epoch, every `save_freq` steps, and on SIGTERM or Ctrl-C, which end the run once the
    step is over. The same call of `fit` in a new process then goes on from there, in the middle of an epoch if need be.
    On the same machine the result is that of a run without an interruption, bit for bit: the loss, its optimizer,
    learners that live on, all seeds, the position in `tasks`, metrics, history, and the callbacks' own state. A run
    that has ended is not repeated; with more `epochs` it goes on, and reads `tasks` from the start.

    Not saved: the global random state (call `keras.utils.set_random_seed` first, if anything draws from it), and
    environments outside of TensorFlow, which take a task at each reset. A `tasks` made by a Python generator is read
    once more up to its position, so it must give the same batches in each run.

    The folder belongs to one run at a time. It holds the last state in `last/`, and that after the best epoch in
    `best/`, each a `tf.train.Checkpoint`.

    Args:
        folder: The folder; made if need be.
        save_freq: Number of steps between two saves within an epoch. `None`: none.
        monitor: The result that tells the best epoch. `None`: `"val_loss"`, or `"loss"` without validation data.
        mode: Whether "min" or "max" is best.

    Raises:
        ValueError: In `fit`: the folder holds a run of other settings, or `tasks` cannot be saved.
        BlockingIOError: In `fit`: another process uses the folder.
        OSError: In `fit`: the folder cannot be written; what was saved before is still there.

    Example:

    >>> import keras, ml3_tf, tempfile
    >>> build = lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
    >>> folder = tempfile.mkdtemp()
    >>> for epochs in (2, 3):  # the second run goes on with the third epoch
    ...     trainer = ml3_tf.MetaTrainer(build, ml3_tf.MetaLoss.mlp(), seed=0)
    ...     trainer.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    ...     checkpoint = ml3_tf.Checkpoint(folder)
    ...     history = trainer.fit(
    ...         ml3_tf.sine_tasks(seed=0), steps_per_epoch=2, epochs=epochs, callbacks=[checkpoint], verbose=0
    ...     )
    >>> history.epoch, len(history.history["loss"])
    ([0, 1, 2], 3)
    >>> checkpoint.restore_best()
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        save_freq: int | None = None,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        super().__init__()
        if save_freq is not None:
            check_counts(save_freq=save_freq)
        if mode not in ("min", "max"):
            raise ValueError(f"`mode` must be 'min' or 'max'. Received: mode={mode!r}")
        self.folder: Path = Path(folder)
        self.save_freq: int | None = save_freq
        self.monitor: str | None = monitor
        self.mode: Literal["min", "max"] = mode
        self.is_running: bool = False  # within the `fit` of a trainer

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self.is_running:
            raise ValueError(
                "`Checkpoint` saves meta-training: expected it among the callbacks of a trainer's `fit`. Received: "
                f"the `fit` of {type(self.model).__name__}. For other models Keras has `BackupAndRestore`."
            )

    def restore_best(self) -> None:
        """Gives the learned loss the weights from after its best epoch.

        Raises:
            RuntimeError: No epoch was saved.
        """
        path = tf.train.latest_checkpoint(str(self.folder / "best"))
        if path is None or self.model is None:
            raise RuntimeError(
                f"There is no best epoch yet: no `fit` with this callback has saved one in '{self.folder}'."
            )
        phi = self.model.training_state["meta_loss"]
        tf.train.Checkpoint(meta_loss=phi).restore(path).expect_partial()


def get_checkpoint(callbacks: Sequence[keras.callbacks.Callback]) -> Checkpoint | None:
    """Returns the `Checkpoint` among the callbacks; `None`: there is none.

    Raises:
        ValueError: There are several, or there is Keras's `BackupAndRestore`.
    """
    if any(isinstance(callback, keras.callbacks.BackupAndRestore) for callback in callbacks):
        raise ValueError(
            "`BackupAndRestore` does not save the learners, their seeds and the position in `tasks`, so a resumed run "
            "would differ. Expected `fit(resume=folder)` or `ml3_tf.Checkpoint(folder)` in its place."
        )
    found = [callback for callback in callbacks if isinstance(callback, Checkpoint)]
    if len(found) > 1:
        raise ValueError(
            f"A run is saved once: expected one `Checkpoint`, or `resume`. Received: {[str(c.folder) for c in found]}"
        )
    return found[0] if found else None


class Record(tf.train.experimental.PythonState):
    """What a checkpoint holds beside tensors, as one dictionary."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def serialize(self) -> str:
        return json.dumps(self.values)

    def deserialize(self, string_value: str) -> None:
        self.values = json.loads(string_value)


class Store:
    """The folder of a checkpoint, which one process has for itself, but for hosts that only read it.

    Args:
        folder: The folder.
        only_reads: Whether this is a host that saves nothing, since another one does.

    Raises:
        BlockingIOError: Another process has it.
        OSError: It cannot be written.
    """

    def __init__(self, folder: Path, *, only_reads: bool = False) -> None:
        self.folder: Path = folder
        self.only_reads: bool = only_reads
        self.record: Record = Record()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock of the folder. It ends with the process, however that ends."""
        import fcntl  # not on Windows

        if self.only_reads:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                raise BlockingIOError(
                    f"'{self.folder}' is in use by the process {lock.read() or '?'}, which trains in it. Wait for it, "
                    "or choose another folder."
                ) from error
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def find(self) -> str | None:
        """Returns the path of the newest state that can be read, whose record is then in `record`; `None`: none."""
        state = tf.train.get_checkpoint_state(str(self.folder / "last"))
        paths = [] if state is None else list(reversed(state.all_model_checkpoint_paths))
        for path in paths:
            try:
                tf.train.Checkpoint(record=self.record).restore(path).expect_partial()
            except (tf.errors.OpError, ValueError) as error:
                warnings.warn(f"'{path}' cannot be read, the state before it is taken: {error}", stacklevel=2)
                continue
            return path
        if paths:
            raise OSError(f"None of the states in '{self.folder}' can be read. Delete the folder to start anew.")
        return None

    def save(self, part: Literal["last", "best"], state: Mapping[str, Any]) -> None:
        """Saves trackable objects and the `record`: a reader, or a crash, finds this state or the one before."""
        folder = self.folder / part
        checkpoint = tf.train.Checkpoint(record=self.record, **state)
        manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=NUM_KEPT[part])
        number = 0 if manager.latest_checkpoint is None else int(manager.latest_checkpoint.rsplit("-", 1)[1])
        try:
            manager.save(number + 1)
            for path in [*folder.iterdir(), folder]:
                _sync(path)
        except (tf.errors.OpError, OSError) as error:
            raise OSError(
                f"Meta-training could not be saved in '{folder}': {error} What was saved before is still there."
            ) from error


def check_finite(variables: list[tf.Variable]) -> None:
    """Raises `FloatingPointError` for values that must not be saved over finite ones."""
    bad = [variable.name for variable in variables if not np.all(np.isfinite(variable.numpy()))]
    if bad:
        raise FloatingPointError(
            f"{', '.join(bad)} of the learned loss is not finite, so it was not saved: the state before it is. "
            "Lower the outer learning rate, or clip the outer gradient by `global_clipnorm`."
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
