"""A twin of a trainer, in float64 where that is possible: it takes the same steps, and may be taken apart.

Shape letters: N tasks, B examples of a task.
"""

import contextlib
import copy
import dataclasses
import random
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.inner_loop import InnerLoop, LearnerState, at_step
from ml3_tf.inner_optimizer import StopScaleGradient
from ml3_tf.keras_internals import same_global_seeds, with_compute_dtype
from ml3_tf.learner import Learner, Parameters
from ml3_tf.meta_loss import LossPerHead, MetaLoss
from ml3_tf.meta_trainer import MetaTrainer

FLOAT64 = "float64"


@dataclasses.dataclass(frozen=True)
class Twin:
    """A copy of a trainer with a learner and losses of its own, fresh learners, and their tasks.

    Attributes:
        trainer: The copy. It scores learners after the last step, whatever the task loss says of ages.
        learners: `LearnerState` of N learners at their start.
        batch: Their tasks.
        dtype: "float64", or that of the learner's parameters.
    """

    trainer: MetaTrainer
    learners: LearnerState
    batch: Any
    dtype: str

    def support(self, learners: LearnerState, batch: Any) -> Callable[[Parameters, Any], Any]:
        """Returns the function of parameters and step that gives the examples to train on."""
        return lambda parameters, i: self.trainer.support(parameters, at_step(batch, learners.age, i))

    def task_losses(self, learners: LearnerState, batch: Any) -> tf.Tensor:
        """Returns the task loss of each task, `[N]`, without shaping."""
        return self.trainer.compute_task_loss(learners.parameters, batch)

    def scores(self, learners: LearnerState, batch: Any) -> tf.Tensor:
        """Returns the task loss of each task, shaped by eq. 9: `[N]`."""
        return self.trainer.shape_loss(self.task_losses(learners, batch), learners.parameters, batch)

    def run(self, learners: LearnerState, batch: Any, num_steps: Any) -> LearnerState:
        """Trains learners by the learned loss for `num_steps` steps, an integer or a tensor."""
        return self.trainer.inner_loop.run(learners, self.support(learners, batch), num_steps)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles a function of structures `[N, ...]`: a learner that is not vectorized lies in a graph once."""
        return self.trainer.inner_loop.compile(function, jit_compile=False)


def make_twin(trainer: MetaTrainer, batch: Any, *, seed: int, dtype: str | None) -> Twin:
    """Returns a twin of a trainer.

    Args:
        trainer: A compiled `MetaTrainer`.
        batch: Tensors of N tasks.
        seed: Integer that determines the fresh learners.
        dtype: "float64"; the caller is `in_float64`. `None`: the dtypes that the trainer has.
    """
    convert = (lambda values: values) if dtype is None else _cast
    template = trainer.learner.draw(1, seed=seed)
    build = lambda: _as_float64(trainer.learner.build_model(template), dtype)
    learner = Learner(build, seed=seed)
    num_tasks = tf.nest.flatten(batch)[0].shape[0]
    start = trainer.start
    parameters = (
        learner.copies(start, num_tasks, fresh_seeds=True)
        if isinstance(start, keras.Model)
        else learner.draw(num_tasks)
    )
    meta_loss, task_loss = trainer.meta_loss, trainer.task_loss
    if dtype is not None:
        meta_loss, task_loss = _loss_in_float64(meta_loss), _loss_in_float64(task_loss)
    inner: Any = trainer.inner_loop.optimizer
    optimizer = StopScaleGradient(inner.optimizer) if inner.stops_scale else inner.optimizer
    inner_loop = InnerLoop(learner, meta_loss, optimizer)
    twin = object.__new__(type(trainer))  # `copy.copy` would save and load the model
    vars(twin).update(vars(trainer))
    vars(twin).update(
        learner=learner,
        meta_loss=meta_loss,
        inner_loop=inner_loop,
        task_loss=task_loss,
        objective=dataclasses.replace(trainer.objective, loss=task_loss, at="end"),
    )
    learners = inner_loop.start(num_tasks, Parameters(*(list(map(convert, values)) for values in parameters)))
    return Twin(twin, learners, tf.nest.map_structure(convert, batch), learners.parameters.trainable[0].dtype.name)


def run_once(function: Callable[[], Any]) -> Any:
    """Runs a function as a graph."""
    return tf.function(function, autograph=False)()


@contextlib.contextmanager
def without_warnings_of_tracing() -> Iterator[None]:
    """Silences TensorFlow's warning that functions are traced often: each is here for a few calls."""
    logger = tf.get_logger()
    is_of_something_else = lambda record: "retracing" not in str(record.msg)
    logger.addFilter(is_of_something_else)
    try:
        yield
    finally:
        logger.removeFilter(is_of_something_else)


@contextlib.contextmanager
def in_float64(is_on: bool = True) -> Iterator[None]:
    """Makes float64 the dtype of what Keras builds and computes, for a while."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    if is_on:
        keras.config.set_floatx(FLOAT64)
        keras.config.set_dtype_policy(FLOAT64)
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


@contextlib.contextmanager
def same_random_state() -> Iterator[None]:
    """Gives the global random generators back the state that they had: to build a layer draws a seed."""
    before = random.getstate(), np.random.get_state()
    try:
        with same_global_seeds():
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _cast(value: Any) -> tf.Tensor:
    value = tf.convert_to_tensor(value)
    return tf.cast(value, FLOAT64) if value.dtype.is_floating else value


def _as_float64(model: keras.Model, dtype: str | None) -> keras.Model:
    """Returns a model with float64 layers. One whose layers name another dtype themselves is cloned."""
    floats = lambda model: [variable.dtype for variable in model.variables if "float" in variable.dtype]
    is_plain = all(layer.compute_dtype == FLOAT64 for layer in [model, *model.layers])
    if dtype is None or (is_plain and set(floats(model)) == {FLOAT64}):
        return model
    rename = lambda layer: type(layer).from_config(_with_float64(layer.get_config()))
    clone: Any = keras.models.clone_model(model, clone_function=rename)
    for variable, value in zip(clone.variables, model.variables, strict=True):
        variable.assign(value)
    if set(floats(clone)) != {FLOAT64}:
        raise ValueError(f"a layer of the learner '{model.name}' keeps the dtype {sorted(set(floats(clone)))}")
    return clone


def _loss_in_float64(loss: Any) -> Any:
    """Returns a loss that computes in float64 and has the same values."""
    if isinstance(loss, LossPerHead):
        is_mapping = isinstance(loss.losses, dict)
        names: Any = loss.losses if is_mapping else range(len(loss.losses))
        parts = [_loss_in_float64(loss.losses[name]) for name in names]
        return LossPerHead(dict(zip(names, parts)) if is_mapping else parts, loss.weights)
    if isinstance(loss, MetaLoss):
        return type(loss).from_config(_with_float64(loss.get_config()))
    return with_compute_dtype(copy.copy(loss), FLOAT64) if isinstance(loss, keras.losses.Loss) else loss


def _with_float64(config: Any) -> Any:
    """Returns a configuration of Keras in which every dtype of floats is float64."""
    if isinstance(config, (list, tuple)):
        return type(config)(map(_with_float64, config))
    if not isinstance(config, dict):
        return config
    is_float = lambda value: isinstance(value, dict) or (isinstance(value, str) and "float" in value)
    return {k: FLOAT64 if k == "dtype" and is_float(v) else _with_float64(v) for k, v in config.items()}
