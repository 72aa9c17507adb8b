"""`fit`, `evaluate` and `diagnose` of trainers: they read tasks, and a run is guarded, saved and resumed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from ml3_tf.arguments import Batch
from ml3_tf.inner_loop import Replicas
from ml3_tf.meta_loss import MetaLoss, TrainingFacts
from ml3_tf.outer_loop._checkpoint import Checkpoint, get_checkpoint
from ml3_tf.outer_loop._checks import check_callbacks, check_length, warn_of_non_finite
from ml3_tf.outer_loop._guard import FiniteGuard, MotionWatch, NormWatch
from ml3_tf.outer_loop._run import SavedRun

if TYPE_CHECKING:
    from ml3_tf.diagnosis import Diagnosis


class FittedOnTasks(keras.Model):
    """A Keras model that is fitted on tasks: the base class of `OuterLoop`.

    A subclass guards its steps by `_guard` and two watches, and says by `training_state` and `training_config` what a
    run consists of.
    """

    meta_loss: MetaLoss
    read_variables: list[keras.Variable]
    _guard: FiniteGuard
    _norm_watch: NormWatch
    _motion_watch: MotionWatch
    _run: SavedRun | None = None  # while `fit` runs with a `Checkpoint`
    _is_validation: bool = False  # whether the evaluation that runs is that of `fit`
    _replicas: Replicas | None = None

    @property
    def facts(self) -> TrainingFacts:
        """What the loss is learned with."""
        raise NotImplementedError

    @property
    def training_state(self) -> dict[str, Any]:
        """All variables that a step of `fit` reads and moves: lists of them, or objects that TensorFlow can track."""
        raise NotImplementedError

    @property
    def training_config(self) -> dict[str, Any]:
        """What a run must have in common with the one that it goes on from."""
        raise NotImplementedError

    def fit(
        self,
        tasks: tf.data.Dataset,
        *,
        epochs: int = 1,
        steps_per_epoch: int | None = None,
        initial_epoch: int = 0,
        validation_data: tf.data.Dataset | None = None,
        validation_steps: int | None = None,
        validation_freq: int = 1,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        verbose: int | str = "auto",
        resume: str | os.PathLike[str] | None = None,
    ) -> keras.callbacks.History:
        """Meta-trains the loss. All other arguments are those of `keras.Model.fit`.

        Args:
            tasks: `tf.data.Dataset` of batches, for `MetaTrainer` `{"support": (x, y), "query": (x, y), ...}`, each
                array `[N, B, ...]`.
            epochs: Number of passes over the dataset, or of `steps_per_epoch` steps.
            steps_per_epoch: Number of steps in an epoch; needed if `tasks` has no end. Where it ends, it starts over.
            initial_epoch: The epoch to start from; a run that is resumed starts where it was.
            validation_data: `tf.data.Dataset` of batches to evaluate after each epoch.
            validation_steps: Number of steps of an evaluation; needed if `validation_data` has no end.
            validation_freq: Number of epochs between two evaluations.
            callbacks: Keras callbacks.
            verbose: "auto" and 1 show a progress bar, 2 a line for each epoch, 0 nothing.
            resume: A folder. The run is saved there after each epoch, and an interrupted one goes on: short for
                `callbacks=[Checkpoint(resume)]`, which has more options.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: `tasks` is not a dataset of batches, is empty, or has no end and no number of steps; the task
                loss does not depend on phi.
            ImportError: A callback needs a package that is not installed, e.g. tensorboard.
            FloatingPointError: The meta-gradient is not finite in four steps in a row, or in all. The loss keeps its
                last finite weights. (Single steps are left out, with a warning in the end.)
        """
        tasks = _check_tasks(tasks, steps_per_epoch)
        check_length(validation_data, "validation_data", validation_steps=validation_steps)
        callbacks, checkpoint = _check_callbacks_and_resume(callbacks, resume)
        self._guard.reset()

        def run(callbacks: Any, initial_epoch: int) -> keras.callbacks.History:
            return super(FittedOnTasks, self).fit(
                tasks,
                shuffle=False,
                epochs=epochs,
                steps_per_epoch=steps_per_epoch,
                initial_epoch=initial_epoch,
                validation_data=validation_data,
                validation_steps=validation_steps,
                validation_freq=validation_freq,
                callbacks=callbacks,
                verbose=verbose,
            )

        self._agree()
        if checkpoint is None:
            history = run(callbacks, initial_epoch)
        else:
            sizes = {"steps_per_epoch": steps_per_epoch, "initial_epoch": initial_epoch, "epochs": epochs}
            self._run = SavedRun(self, checkpoint, callbacks, tasks=tasks, validation_data=validation_data, **sizes)
            try:
                with self._run.active():
                    history = run(self._run.callback_list(callbacks, verbose=verbose), self._run.initial_epoch)
            finally:
                self._run = None
        if history.epoch and not history.history:  # only a run shows how long a generator is
            raise ValueError("`tasks` has no batch: nothing was learned. Expected a dataset of at least one.")
        self.meta_loss.facts = self.facts.merge(self.meta_loss.facts)
        self._guard.finish(self.optimizer)
        self._norm_watch.warn_and_forget()
        self._motion_watch.warn_and_forget(was_run=bool(history.history))
        return history

    def evaluate(self, x: Any = None, y: Any = None, *, steps: int | None = None, **kwargs: Any) -> Any:
        """Returns the task loss of learners trained on a `tf.data.Dataset` of batches; see `keras.Model.evaluate`.

        Raises:
            ValueError: The dataset is empty, or has no end and no number of `steps`.
        """
        check_length(x, "x", steps=steps)
        self._agree()
        self._is_validation = self._run is not None and self._run.validates_on(x)
        results: Any = super().evaluate(x, y, steps=steps, **kwargs)
        warn_of_non_finite(results)
        return results

    def distribute(self, strategy: tf.distribute.Strategy) -> None:
        """Shares the tasks of each step among the devices, or hosts, of a strategy. Call it before `compile`.

        Each replica trains the learners of its rows of a batch, and what they give is joined: the result is that of one
        device with the same batches, but for the order of sums. The trainer, its losses and models are made outside of
        `strategy.scope()`, and stay ordinary Keras objects. Hosts run the same program with the same `tasks`, which
        need a seed; `fit` and `evaluate` take the first one's state on all, and it alone saves.

        Args:
            strategy: `tf.distribute.MirroredStrategy` for the GPUs of one host, `MultiWorkerMirroredStrategy` for more.

        Raises:
            ValueError: Another strategy; in `fit`: a batch whose number of tasks is no multiple of that of replicas.
            RuntimeError: The trainer is compiled.

        Example:

        >>> import ml3_tf
        >>> build = lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> trainer = ml3_tf.MetaTrainer(build, ml3_tf.MetaLoss.mlp((4,)))
        >>> trainer.distribute(tf.distribute.MirroredStrategy())  # all GPUs
        >>> trainer.compile(inner_optimizer=keras.optimizers.SGD(0.01))
        >>> history = trainer.fit(ml3_tf.sine_tasks(num_tasks=8, seed=0), steps_per_epoch=1, verbose=0)
        """
        if self.compiled:
            raise RuntimeError("A trainer compiles for its devices: call `distribute` before `compile`.")
        self._replicas = Replicas(strategy)

    def _agree(self) -> None:
        """Takes the state of the first host, if there are several."""
        if self._replicas is None:
            return
        self._replicas.check_steps(self.steps_per_execution)
        state = [*self.training_state.values(), [variable.value for variable in self.read_variables]]
        self._replicas.agree([variable for part in state if isinstance(part, list) for variable in part])

    @property
    def is_first_host(self) -> bool:
        """Whether this process is the only one of `distribute`, or the first, which saves for all."""
        return self._replicas is None or self._replicas.host == 0

    def diagnose(self, batch: Batch, *, num_tasks: int = 8, num_directions: int = 2, seed: int = 0) -> Diagnosis:
        """Looks for faults that keep a meta-gradient from teaching anything, and says what to do about them.

        A twin of the trainer, in float64, trains fresh learners on a batch. The meta-gradient of each variable of the
        meta-loss is compared with finite differences, and so are the first and second derivatives of each layer. Then
        it measures how the meta-gradient grows with the number of inner steps, how far learners move, where they drift
        beyond their life, and whether the query belongs to the task of the support. It takes tens of seconds.

        The trainer stays as it is, to the last bit, and so do the global random generators. Keras builds in float64
        meanwhile: do not build models in other threads.

        Args:
            batch: A batch of tasks, as `fit` reads them: `next(iter(tasks))`.
            num_tasks: Number of tasks to look at, the first of the batch.
            num_directions: Number of random directions for each variable, along which finite differences are taken.
            seed: Integer that determines the fresh learners.

        Returns:
            A `Diagnosis`: `print` it, or draw it by `ml3_tf.inspection.plot_diagnosis`. If something does not run in
            float64, a note says so, and derivatives are not compared.

        Raises:
            ValueError: The trainer is not compiled, or it has an `estimator`, and so no meta-gradient.
            NotImplementedError: A `ml3_tf.rl.ModelFreeTrainer`.

        Example:

        >>> import ml3_tf
        >>> build = lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> trainer = ml3_tf.MetaTrainer(build, ml3_tf.MetaLoss.mlp((4,)))
        >>> trainer.compile(inner_optimizer=keras.optimizers.SGD(0.01))
        >>> diagnosis = trainer.diagnose(next(iter(ml3_tf.sine_tasks(num_tasks=2))))
        >>> [variable.verdict for variable in diagnosis.variables]
        ['agrees', 'agrees', 'agrees']
        """
        from ml3_tf.diagnosis import diagnose

        return diagnose(self, batch, num_tasks=num_tasks, num_directions=num_directions, seed=seed)

    def make_train_function(self, force: bool = False) -> None:
        if self.train_function is not None and not force:
            return
        super().make_train_function(force)
        run = self.train_function

        def train_function(iterator: Any) -> Any:
            logs = None if self._run is None else self._run.before_step(iterator)
            if logs is None:
                logs = run(iterator)
                self._guard.raise_if_in_a_row(self.optimizer)
            return logs

        self.train_function = train_function

    def make_test_function(self, force: bool = False) -> None:
        if self.test_function is not None and not force:
            return
        super().make_test_function(force)
        run = self.test_function

        def test_function(iterator: Any) -> Any:
            if self._run is not None and self._is_validation:
                self._run.before_validation_step(iterator)
            return run(iterator)

        self.test_function = test_function

    def save(self, *_: Any, **__: Any) -> None:
        """Raises `NotImplementedError`: a trainer holds the code of its tasks, which no file does."""
        raise NotImplementedError(
            "A trainer is not saved as a whole. Save what it has learned by `meta_loss.export(folder)`, its weights by "
            "`save_weights(path)`, and a run that shall go on by `fit(resume=folder)` or `ml3_tf.Checkpoint(folder)`. "
            "Keras's `ModelCheckpoint` needs save_weights_only=True."
        )


def _check_tasks(tasks: tf.data.Dataset, steps_per_epoch: int | None) -> tf.data.Dataset:
    """Returns the dataset of a run, which starts over where it ends within an epoch."""
    if not isinstance(tasks, tf.data.Dataset):
        raise ValueError(f"`fit` takes a `tf.data.Dataset` of tasks. Received: {type(tasks).__name__}")
    check_length(tasks, "tasks", steps_per_epoch=steps_per_epoch)
    return tasks.repeat() if steps_per_epoch is not None and tasks.cardinality() > 0 else tasks


def _check_callbacks_and_resume(
    callbacks: Sequence[keras.callbacks.Callback] | None, resume: str | os.PathLike[str] | None
) -> tuple[list[keras.callbacks.Callback], Checkpoint | None]:
    """Returns the callbacks of a run, with that of `resume`, and the `Checkpoint` among them."""
    all_callbacks = list(callbacks or ()) + ([] if resume is None else [Checkpoint(resume)])
    check_callbacks(all_callbacks)
    return all_callbacks, get_checkpoint(all_callbacks)
