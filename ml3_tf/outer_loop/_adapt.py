"""A loss that is learned while a model trains with it, on one data set.

Shape letters: B examples of a batch.
"""

import warnings
from collections.abc import Iterator
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.arguments import LossLike, OptimizerLike, check_counts
from ml3_tf.inner_loop import InnerLoop, LearnerState, per_task_loss
from ml3_tf.learner import Learner, Parameters
from ml3_tf.meta_gradient import complete_gradients
from ml3_tf.meta_loss import MetaLoss
from ml3_tf.outer_loop._guard import FiniteGuard

Examples: TypeAlias = tuple[Any, ...] | tf.data.Dataset[Any]
PREDICTED_AT_ONCE = 1024


class AdaptLoss(keras.callbacks.Callback):
    """Learns the loss of a model while the model trains with it: no distribution of tasks is needed.

    After every so many batches of `fit`, the model's weights take a virtual step with the learned loss, on examples of
    `train`. The task loss of what comes out, on examples of `meta`, is differentiated through that step, and moves phi
    (eq. 5 and 6 of ML3, with the model itself as the only learner). Then the model goes on from the weights it had: its
    loss alone has changed. This pays where `meta` knows more than `train`: where its labels are clean, its classes
    balanced, or where its task loss is the aim that training only approaches.

    The virtual step is that of the model's optimizer, with its moments and rate of now. It is a plain step also where
    the model has a `train_step` of its own. The loss stays a `MetaLoss` throughout; export it afterwards.

    Args:
        train: Examples like those that the model trains on, for virtual steps: `(x, y)` or `(x, y, sample_weight)` of
            arrays, or a `tf.data.Dataset` of batches.
        meta: Examples that score the virtual steps, likewise; the model should not train on them. Or the share of
            `train` that is split off for this, 0.1, say: then train on `callback.train`, which holds the others.
        loss: The task loss on `meta`.
        optimizer: The optimizer that moves phi.
        every: The loss moves after so many batches.
        look_ahead: Number of virtual steps.
        batch_size: Number of examples in a virtual step, and of `meta` in a score.
        patience: After so many epochs in a row without a better task loss on `meta`, the loss goes back to what it was
            at first, and stays so. `None`: it does not.
        seed: Optional integer that determines the draws.

    Raises:
        ValueError: Arguments out of range; in `fit`: a model without a `MetaLoss`, or an optimizer that cannot be
            differentiated.

    Example:

    >>> import keras, ml3_tf, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    >>> y = x.sum(axis=1, keepdims=True)
    >>> noisy = y + (np.arange(64) % 4 == 0)[:, None] * 9  # every fourth target is wrong
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> loss = ml3_tf.MetaLoss.around("mse")
    >>> model.compile(keras.optimizers.Adam(1e-2), loss=loss)
    >>> adapt = ml3_tf.AdaptLoss((x[:48], noisy[:48]), (x[48:], y[48:]), loss="mae", every=2)
    >>> history = model.fit(x[:48], noisy[:48], batch_size=8, epochs=2, callbacks=[adapt], verbose=0)
    >>> sorted(history.history)
    ['loss', 'meta_loss']

    Sources: the online phase of AdaLFL (Raymond et al., "Online Loss Function Learning", 2023), which takes such a step
    after each batch.
    """

    def __init__(
        self,
        train: Examples,
        meta: Examples | float,
        *,
        loss: LossLike,
        optimizer: OptimizerLike = "adam",
        every: int = 10,
        look_ahead: int = 1,
        batch_size: int = 32,
        patience: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_counts(every=every, look_ahead=look_ahead, batch_size=batch_size)
        if patience is not None:
            check_counts(patience=patience)
        if isinstance(meta, (int, float)):
            train, meta = _split(train, meta, seed)
        self.train: Examples = _as_arrays(train)
        self.meta: Examples = _as_arrays(meta)
        self.task_loss: Any = keras.losses.get(loss)
        self.optimizer: keras.optimizers.Optimizer = keras.optimizers.get(optimizer)
        self.every: int = every
        self.look_ahead: int = look_ahead
        self.batch_size: int = batch_size
        self.patience: int | None = patience
        self.seed: int | None = seed
        self.snapshots: list[dict[str, Any]] = []
        """For each epoch, and before the first: "epoch", the task loss "meta_loss" on `meta`, and "loss", a copy."""
        self.has_fallen_back: bool = False
        self._batches: Iterator[Any] | None = None
        self._trained: keras.Model | None = None
        self._move: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        meta_loss = getattr(self.model, "loss", None)
        if not isinstance(meta_loss, MetaLoss):
            raise ValueError(
                "`AdaptLoss` moves the loss of a model: compile it with `loss=` a `MetaLoss`, such as "
                f"`MetaLoss.around('mse')`. Received: loss={meta_loss!r}"
            )
        if self._trained is not self.model:  # another call of `fit` goes on
            self._trained, self._move = self.model, None
            self.meta_loss: MetaLoss = meta_loss
            self.snapshots, self.has_fallen_back = [], False
            self._first = [np.asarray(variable).copy() for variable in meta_loss.trainable_variables]
            self._guard = FiniteGuard(meta_loss.trainable_variables)
            self.optimizer.build(meta_loss.trainable_variables)
        self._seen = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._last_batch = -1

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._seen += batch - self._last_batch  # several batches may be one execution
        self._last_batch = batch
        if self._seen < self.every or self.has_fallen_back:
            return
        self._seen = 0
        examples = next(self._data)
        if self._move is None:
            self._move = self._compile()  # now model and optimizer are built
            self._record(-1)
        self._move(examples)
        self._guard.raise_if_in_a_row(self.optimizer)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._move is None:
            return
        self._record(epoch)
        if logs is not None:
            logs["meta_loss"] = self.snapshots[-1]["meta_loss"]
        scores = [snapshot["meta_loss"] for snapshot in self.snapshots]
        best = len(scores) - 1 - int(np.argmin(np.nan_to_num(scores, nan=np.inf)))
        if self.patience is not None and best >= self.patience and not self.has_fallen_back:
            self.has_fallen_back = True
            for variable, value in zip(self.meta_loss.trainable_variables, self._first, strict=True):
                variable.assign(value)
            warnings.warn(
                f"The task loss on `meta` has not been better than {scores[-1 - best]:.4g} for {best} epochs: the loss "
                f"'{self.meta_loss.name}' is again what it was at first. A lower rate of `optimizer` may do better.",
                stacklevel=2,
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._guard.finish(self.optimizer)

    def _record(self, epoch: int) -> None:
        copy = MetaLoss.from_config(self.meta_loss.get_config())
        self.snapshots.append({"epoch": epoch, "meta_loss": self._score(), "loss": copy})

    def _score(self) -> float:
        """The task loss of the model on all of `meta`."""
        model: Any = self.model
        batches, total, count = self.meta, 0.0, 0
        if not isinstance(batches, tf.data.Dataset):
            batches = tf.data.Dataset.from_tensor_slices(batches).batch(PREDICTED_AT_ONCE)
        for batch in batches:
            x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
            scored = [
                tf.convert_to_tensor(v)[tf.newaxis] for v in (y, model.predict_on_batch(x), weights) if v is not None
            ]
            total += scored[0].shape[1] * float(per_task_loss(self.task_loss, *scored)[0])
            count += scored[0].shape[1]
        return total / count

    def _compile(self) -> Any:
        """Returns the compiled function of examples that moves phi once."""
        model: Any = self.model
        phi = self.meta_loss.trainable_variables
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # of one that scales losses
        loop = InnerLoop(Learner(lambda: model), self.meta_loss, optimizer)
        of_one_task = lambda values: tf.nest.map_structure(
            lambda value: tf.convert_to_tensor(value)[tf.newaxis], values
        )

        def meta_gradient(state: Any, support: Any, query: Any) -> Any:
            parameters, slots = of_one_task(state)
            swept = loop.differentiate(
                LearnerState(Parameters(*parameters), slots),
                lambda _, i: tf.nest.map_structure(lambda values: tf.gather(values, i)[tf.newaxis], support),
                lambda learners: loop.evaluate(self.task_loss, learners.parameters, of_one_task(query)),
                num_steps=self.look_ahead,
                variables=phi,
            )
            return complete_gradients(swept.gradients, self.meta_loss)

        @tf.function(autograph=False)  # not by XLA: on a CPU it takes twice as long here
        def move(batch: Any) -> None:
            values = lambda variables: [tf.convert_to_tensor(variable) for variable in variables]
            parameters = values(model.trainable_variables), values(model.non_trainable_variables)
            self._guard.apply(self.optimizer, meta_gradient((parameters, values(optimizer.variables)), *batch))

        return move

    @property
    def _data(self) -> Iterator[Any]:
        """Endless batches `(examples of each virtual step [look_ahead, B, ...], examples of meta [B, ...])`."""
        if self._batches is None:
            generator = np.random.default_rng(self.seed)
            support = _endless(self.train, self.batch_size, generator)
            query = _endless(self.meta, self.batch_size, generator)
            stack = lambda batches: tf.nest.map_structure(lambda *values: tf.stack(values), *batches)
            self._batches = ((stack([next(support) for _ in range(self.look_ahead)]), batch) for batch in query)
        return self._batches


def _endless(examples: Examples, batch_size: int, generator: np.random.Generator) -> Iterator[Any]:
    """Yields random batches for ever; of a dataset, its examples in their order."""
    if isinstance(examples, tf.data.Dataset):
        yield from examples.repeat().rebatch(batch_size)
        raise ValueError("`train` and `meta` need at least one batch. Received: an empty dataset")
    size = len(tf.nest.flatten(examples)[0])
    while True:
        rows = generator.choice(size, min(batch_size, size), replace=False)
        yield tf.nest.map_structure(lambda values, rows=rows: values[rows], examples)


def _as_arrays(examples: Examples) -> Examples:
    if isinstance(examples, tf.data.Dataset):
        return examples
    arrays: Any = keras.tree.map_structure(np.asarray, tuple(examples))
    sizes = {len(values) for values in tf.nest.flatten(arrays)}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            "`train` and `meta` need arrays of one length each, at least 1. Received: the lengths "
            f"{[len(values) for values in tf.nest.flatten(arrays)]}"
        )
    return arrays


def _split(train: Examples, share: float, seed: int | None) -> tuple[Examples, Examples]:
    if not 0 < share < 1 or isinstance(train, tf.data.Dataset):
        raise ValueError(
            "`meta` is examples, or the share of `train` to split off, between 0 and 1; `train` is arrays then. "
            f"Received: meta={share}, train of the type {type(train).__name__}"
        )
    size = len(tf.nest.flatten(train)[0])
    order = np.random.default_rng(seed).permutation(size)
    number = max(1, round(share * size))
    take = lambda rows: tuple(keras.tree.map_structure(lambda values: np.asarray(values)[rows], part) for part in train)
    return take(order[number:]), take(order[:number])
