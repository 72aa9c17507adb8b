"""The losses of the benchmark: those of Keras and of the literature, and exported ones."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ml3_tf.bench import literature, meta_learned
from ml3_tf.bench.task import Kind, Task
from ml3_tf.bench.tasks.policies import LAYOUTS, FinalDistance, SquaredFinalDistance, find_inputs
from ml3_tf.meta_loss import MetaLoss


@dataclasses.dataclass(frozen=True)
class Contender:
    """A loss of the benchmark.

    Args:
        name: The name of its row, and of its folder.
        build: Function `(kind, folder, smoke) -> loss`. In the folder it may keep what it has learned; with `smoke`,
            a few steps of learning are enough.
        kinds: The kinds of tasks that it trains.
        source: Where it comes from, in words.
        recorded: Optional optimizer and rate that the loss was learned with.
    """

    name: str
    build: Callable[[Kind, Path, bool], Any]
    kinds: tuple[Kind, ...]
    source: str
    recorded: tuple[str, float] | None = None


_NUMBERS: tuple[Kind, ...] = ("regression",)
_CLASSES: tuple[Kind, ...] = ("classification",)
_POLICIES: tuple[Kind, ...] = tuple(LAYOUTS)
_POLICY_LOSSES = sum(LAYOUTS.values(), ())
_losses = keras.losses
_GIVEN: tuple[tuple[str, Callable[[], keras.losses.Loss], tuple[Kind, ...], str], ...] = (
    ("mse", _losses.MeanSquaredError, _NUMBERS, "Keras"),
    ("mae", _losses.MeanAbsoluteError, _NUMBERS, "Keras"),
    ("huber", _losses.Huber, _NUMBERS, "Huber, 1964; in Keras"),
    ("log_cosh", _losses.LogCosh, _NUMBERS, "Keras"),
    ("cross_entropy", _losses.CategoricalCrossentropy, _CLASSES, "Keras"),
    (
        "label_smoothing",
        lambda: _losses.CategoricalCrossentropy(label_smoothing=0.1),
        _CLASSES,
        "Szegedy et al., 2016: cross-entropy with a label smoothing of 0.1; in Keras",
    ),
    ("focal", _losses.CategoricalFocalCrossentropy, _CLASSES, "Lin et al., 2017; in Keras"),
    (
        "generalized_cross_entropy",
        literature.GeneralizedCrossEntropy,
        _CLASSES,
        "Zhang and Sabuncu, 2018, q = 0.7",
    ),
    (
        "symmetric_cross_entropy",
        literature.SymmetricCrossEntropy,
        _CLASSES,
        "Wang et al., 2019, alpha = 0.1, beta = 1, as the authors' code has for CIFAR-10",
    ),
    ("baikal", literature.Baikal, _CLASSES, "Gonzalez and Miikkulainen, 2020"),
    (
        "taylor_polynomial",
        literature.TaylorPolynomial,
        _CLASSES,
        "TaylorGLO (Gonzalez and Miikkulainen, 2021), evolved on MNIST, from the authors' repository",
    ),
    (
        "final_distance",
        FinalDistance,
        _POLICIES,
        "the distance at the end of a rollout, differentiated through the true equations, which no learned loss sees",
    ),
    ("squared_final_distance", SquaredFinalDistance, _POLICIES, "the square of the former, in the same way"),
)
RIVALS: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        *(Contender(name, lambda *_, make=make: make(), kinds, source) for name, make, kinds, source in _GIVEN),
        Contender(
            "ml3_reference",
            meta_learned.learn_ml3_reference,
            _NUMBERS + _CLASSES,
            "the ReLU network with a softplus output of the public reference of ML3 (Bechtle et al., 2021), learned on "
            "sines and on other tables",
        ),
        Contender(
            "adalfl_offline",
            meta_learned.learn_adalfl,
            _NUMBERS + _CLASSES,
            "the smooth leaky ReLU network of AdaLFL (Raymond et al., 2023), learned by its offline step on other "
            "tables",
        ),
    )
}
"""Name -> loss that others are compared with."""


def load_contender(name_or_folder: str) -> Contender:
    """Returns an exported loss. It is rebuilt from its description: no graph of it is run.

    Raises:
        FileNotFoundError: There is no such loss.
        ValueError: It does not fit any kind of task.
        ml3_tf.saving.ArtifactError: The export is refused.

    Example:

    >>> contender = load_contender("sine")
    >>> contender.name, contender.kinds, contender.recorded
    ('sine', ('regression',), ('SGD', 0.001...))
    """
    from ml3_tf.saving import load_meta_loss

    loss = load_meta_loss(name_or_folder)
    recorded, facts = None, loss.facts
    if facts is not None and facts.learning_rates is not None:
        recorded = facts.optimizer, float(facts.learning_rates[1])
    folder = Path(name_or_folder)
    name = folder.parent.name if folder.name.isdecimal() else folder.name
    return Contender(name, lambda *_: loss, (find_kind(loss),), f"an exported loss, {_shape(loss)}", recorded)


def find_kind(loss: MetaLoss) -> Kind:
    """Returns the kind of tasks that a learned loss trains.

    Its features tell a loss of policies. The facts that it records decide between numbers and probabilities; without
    them, a `"per_output"` loss is one of probabilities.

    Raises:
        ValueError: The benchmark has no tasks for what the loss sees.

    Example:

    >>> find_kind(MetaLoss.mlp()), find_kind(MetaLoss.mlp(mode="per_output"))
    ('regression', 'classification')
    """
    for kind in LAYOUTS:
        if find_inputs(loss, kind) is not None:
            return kind
    if len(loss.features) != 2 or len({*loss.features.values()}) != 1 or loss.mode == "per_set":
        raise ValueError(
            f"The benchmark has no task for the loss '{loss.name}'. Expected a loss of a prediction and a target, in "
            f"the mode 'per_sample' or 'per_output', or one of policies with the features of {_POLICY_LOSSES}. "
            f"Received: features={loss.features}, mode={loss.mode!r}"
        )
    if loss.facts is not None:
        return "classification" if loss.facts.outputs == "probabilities" else "regression"
    return "classification" if loss.mode == "per_output" else "regression"


def find_misfit(loss: Any, task: Task) -> str:
    """Returns in words why a loss of the task's kind cannot train its models; empty if it can.

    >>> from ml3_tf.bench.tasks import TASKS
    >>> find_misfit(MetaLoss.mlp(features={"y_pred": 2, "y_true": 2}), TASKS["sines"])
    'it sees 2 output(s), and the models have 1'
    """
    if not isinstance(loss, MetaLoss) or loss.mode == "per_output" or task.kind in LAYOUTS:
        return ""
    [width], num_outputs = {*loss.features.values()}, task.build().output_shape[-1]
    return "" if width == num_outputs else f"it sees {width} output(s), and the models have {num_outputs}"


def fingerprint(loss: Any, task: Task) -> str:
    """Returns a digest of the values of a loss on fixed examples: of another loss, or other weights, it is another.

    Configurations would not do: that of Keras's `Huber` leaves out `delta`, and names of layers are counted up.

    Args:
        loss: A loss of Keras or a `MetaLoss`.
        task: `Task` that tells the form of the examples.

    Example:

    >>> from ml3_tf.bench.tasks import TASKS
    >>> fingerprint(keras.losses.Huber(), TASKS["sines"]) == fingerprint(keras.losses.Huber(2.0), TASKS["sines"])
    False
    """
    num_outputs = task.build().output_shape[-1]
    inputs = find_inputs(loss, task.kind) if isinstance(loss, MetaLoss) else None
    num_targets = num_outputs if inputs is None else _count_targets(loss, num_outputs)
    generator = np.random.default_rng(0)
    y_true, y_pred = (
        generator.normal(scale=2.0, size=(64, width)).astype("float32") for width in (num_targets, num_outputs)
    )
    if task.kind == "classification":
        y_true = np.eye(num_outputs, dtype="float32")[y_true.argmax(axis=-1)]
        y_pred = np.exp(y_pred) / np.exp(y_pred).sum(axis=-1, keepdims=True)
    values: Any = loss.call(keras.ops.convert_to_tensor(y_true), keras.ops.convert_to_tensor(y_pred))
    return hashlib.sha256(np.asarray(values, "float32").tobytes()).hexdigest()[:16]


def _count_targets(loss: MetaLoss, num_outputs: int) -> int:
    """The columns of `y_true`: a per-output loss sees one for each output and feature."""
    _, *widths = loss.features.values()
    return sum(widths) * (num_outputs if loss.mode == "per_output" else 1)


def _shape(loss: MetaLoss) -> str:
    return f"mode {loss.mode}, features {', '.join(loss.features)}"
