"""The layers of a learner and of a meta-loss, one by one: are their first and second derivatives right?

A meta-gradient is a derivative of a gradient, so each layer needs a second one. Shape letters: N tasks, B examples.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.diagnosis._differences import Comparison, compare
from ml3_tf.diagnosis._records import NOT_CHECKED, LayerCheck
from ml3_tf.diagnosis._twin import Twin, run_once
from ml3_tf.inner_loop import per_task_loss
from ml3_tf.keras_internals import second_derivatives
from ml3_tf.learner import rnn_by_scan

Tensors = list[tf.Tensor]


class Call(NamedTuple):
    """A call of a layer: the values of its variables, its arguments and its outputs."""

    layer: keras.layers.Layer
    trainable: Tensors
    non_trainable: Tensors
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Any


def check_layers(twin: Twin, model_of_trainer: keras.Model) -> tuple[LayerCheck, ...]:
    """Checks the layers of the learner and of the meta-loss on the examples of a first step.

    Args:
        twin: The twin, in float64.
        model_of_trainer: The model of the trainer's own learner, by whose names layers are known.
    """
    learners, trainer = twin.learners, twin.trainer
    model, loss = trainer.learner.model, trainer.meta_loss
    examples = run_once(lambda: twin.support(learners, twin.batch)(learners.parameters, 0))
    x, y, weights = keras.utils.unpack_x_y_sample_weight(examples)
    calls: list[list[Call]] = []
    for n in range(learners.age.shape[0]):
        parameters, of_task = tf.nest.map_structure(lambda rows, n=n: rows[n : n + 1], (learners.parameters, x))
        with recorded(_parts([model])) as seen:  # one task is not vectorized: layers get its tensors
            trainer.learner.apply(parameters, of_task, training=True)
        calls.append(seen)
    names = {id(own): layer.name for own, layer in zip(_parts([model]), _parts([model_of_trainer]))}
    checks = [_check("learner", of_tasks) for of_tasks in zip(*calls)]
    checks = [check._replace(name=names[id(call.layer)]) for check, call in zip(checks, calls[0])]
    y_pred = run_once(lambda: trainer.learner.apply(learners.parameters, x, training=True)[0])
    with recorded(_parts(loss.layers)) as seen:
        per_task_loss(loss, y_pred[..., :0] if y is None else y, y_pred, weights)
    return (*checks, *(_check("meta-loss", [call]) for call in seen))


@contextlib.contextmanager
def recorded(layers: Sequence[keras.layers.Layer]) -> Iterator[list[Call]]:
    """Records the first call of each layer, in the order of the calls."""
    calls: list[Call] = []

    def recorder(layer: keras.layers.Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        def record(*args: Any, **kwargs: Any) -> Any:
            trainable, fixed = ([tf.convert_to_tensor(v.value) for v in part] for part in _variables(layer))
            outputs = call(*args, **kwargs)
            if all(layer is not seen.layer for seen in calls):
                calls.append(Call(layer, trainable, fixed, args, kwargs, outputs))
            return outputs

        return record

    for layer in layers:
        layer.__dict__["call"] = recorder(layer, layer.call)
    try:
        yield calls
    finally:
        for layer in layers:
            del layer.__dict__["call"]


def _parts(layers: Sequence[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """Returns layers, and in the place of a model its own; each once."""
    found: dict[int, keras.layers.Layer] = {}
    for layer in layers:
        inner = _parts(layer.layers) if isinstance(layer, keras.Model) and layer.layers else [layer]
        found |= {id(part): part for part in inner if not isinstance(part, keras.layers.InputLayer)}
    return list(found.values())


def _check(owner: str, calls: Sequence[Call]) -> LayerCheck:
    """Checks a layer by its call for the first task; those for the others tell which units are off."""
    layer = calls[0].layer
    kind = f"{owner}: {type(layer).__name__}"
    off = float(np.mean([_share_off(call.outputs) for call in calls]))
    try:
        first, second = _compare_derivatives(calls[0])
    except LookupError as error:  # of an operation without a gradient
        return LayerCheck(layer.name, kind, np.nan, np.nan, off, f"missing: {str(error).splitlines()[0]}")
    except Exception as error:  # whatever a layer raises on tensors that are given to it alone
        return LayerCheck(layer.name, kind, np.nan, np.nan, off, f"{NOT_CHECKED}: {str(error).splitlines()[0][:80]}")
    if first is None or second is None:
        return LayerCheck(layer.name, kind, np.nan, np.nan, off, f"{NOT_CHECKED}: no numbers to differentiate")
    off = off if off < 1.0 or first.verdict == "zero" else 0.0  # a last layer of zeros is not dead: it has slopes
    return LayerCheck(layer.name, kind, first.error, second.error, off, _verdict(first, second))


def _verdict(first: Comparison, second: Comparison) -> str:
    for name, found in (("first", first), ("second", second)):
        if found.verdict == "differs":
            return f"{name} derivative is {'missing' if found.error > 0.999 else 'wrong'}"
    if "unsettled" in (first.verdict, second.verdict):
        return "unsettled"
    return "agrees" if first.verdict == "agrees" else "zero"


def _compare_derivatives(call: Call) -> tuple[Comparison | None, Comparison | None]:
    """Compares the gradient of a random sum of the outputs, and the product of its Hessian with a direction."""
    draw = np.random.default_rng(0)
    given: Any = (call.args, call.kwargs)
    values = [*(value for value in tf.nest.flatten(given) if _is_float(value)), *call.trainable]
    weights: list[np.ndarray] = []

    def total(values: Tensors) -> tf.Tensor:
        left = iter(values)
        args, kwargs = tf.nest.map_structure(lambda value: next(left) if _is_float(value) else value, given)
        with second_derivatives(rnn_by_scan):
            outputs = call.layer.stateless_call(list(left), call.non_trainable, *args, **kwargs)[0]
        outputs = [value for value in tf.nest.flatten(outputs) if _is_float(value)]
        if not weights:
            weights.extend(draw.normal(size=value.shape) for value in outputs)
        return tf.add_n([tf.reduce_sum(value * weight) for value, weight in zip(outputs, weights)])

    if not values:
        return None, None
    gradient = lambda values: _gradient(total, values)
    direction = [draw.normal(size=value.shape) for value in values]
    moved = lambda step: [value + step * way for value, way in zip(values, direction)]
    along = lambda rows: sum(float(tf.reduce_sum(row * way)) for row, way in zip(rows, direction))
    flat = lambda rows: np.concatenate([np.ravel(row) for row in rows])
    central = lambda function: lambda h: (function(moved(h)) - function(moved(-h))) / (2 * h)
    slopes = gradient(values)
    scale = float(tf.abs(total(values))) + float(np.linalg.norm(flat(slopes)))
    first = compare(along(slopes), central(lambda values: float(total(values))), scale)
    curved = _gradient(
        lambda values: tf.add_n([tf.reduce_sum(row * way) for row, way in zip(gradient(values), direction)]), values
    )
    second = compare(flat(curved), central(lambda values: flat(gradient(values))), scale)
    return first, second


def _gradient(function: Callable[[Tensors], tf.Tensor], values: Tensors) -> Tensors:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        result = function(values)
    found = tape.gradient(result, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [tf.convert_to_tensor(gradient) for gradient in found]


def _variables(layer: keras.layers.Layer) -> tuple[list[keras.Variable], list[keras.Variable]]:
    return layer.trainable_variables, layer.non_trainable_variables


def _is_float(value: Any) -> bool:
    return tf.is_tensor(value) and value.dtype.is_floating


def _share_off(outputs: Any) -> float:
    """Returns the share of units, along the last axis, that are zero for all examples."""
    heads = [np.asarray(value) for value in tf.nest.flatten(outputs) if _is_float(value)]
    shares = [np.mean(~np.reshape(head, (-1, head.shape[-1])).any(axis=0)) for head in heads if head.ndim > 1]
    return float(np.mean(shares)) if shares else 0.0
