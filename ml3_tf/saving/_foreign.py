"""Losses that ml3_tf did not write: every operation of a SavedModel is checked before TensorFlow loads it."""

import tempfile
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from ml3_tf.arguments import Reduction, TensorLike
from ml3_tf.saving import _graph_check, _manifest
from ml3_tf.saving.errors import CorruptArtifactError

_FILES = ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")
_VALUE = "serving_default"
_VALUE_AND_GRADIENT = "value_and_grad"


@keras.saving.register_keras_serializable("ml3_tf")
class SavedModelLoss(keras.losses.Loss):
    """A loss that runs the graph of a SavedModel, as `load_meta_loss(..., allow_saved_model=True)` returns it.

    If the SavedModel has an endpoint `value_and_grad` with the outputs `loss` and `grad`, that gradient is used: XLA
    would compile the derivative of a loaded graph again for every batch. Otherwise TensorFlow differentiates the value.

    Args:
        saved_model: The object that `tf.saved_model.load` returned.
        reduction: As in every Keras loss.
        name: Optional name.
        dtype: As in every Keras loss. Default: the dtype of `y_pred` in the endpoint.

    Raises:
        CorruptArtifactError: There is no endpoint with the inputs `y_true` and `y_pred`.

    Example:

    >>> module = tf.Module()
    >>> specs = [tf.TensorSpec((None, 1), name=name) for name in ("y_true", "y_pred")]
    >>> module.score = tf.function(lambda y_true, y_pred: tf.reduce_mean((y_true - y_pred) ** 2, -1), specs)
    >>> folder = tempfile.mkdtemp()
    >>> tf.saved_model.save(module, folder, {"serving_default": module.score})
    >>> float(SavedModelLoss(tf.saved_model.load(folder))([[1.0], [2.0]], [[0.0], [0.0]]))
    2.5
    """

    def __init__(
        self,
        saved_model: Any,
        *,
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = "saved_model_loss",
        dtype: Any = None,
    ) -> None:
        self._saved_model = saved_model  # its functions live as long as this object
        self._endpoint, self._has_gradient = _find_endpoint(saved_model)
        inputs = self._endpoint.structured_input_signature[1]
        self._dtypes = {key: spec.dtype for key, spec in inputs.items()}
        dtype = dtype or self._dtypes["y_pred"].name
        super().__init__(name, reduction, dtype)  # pyright: ignore[reportArgumentType] - Keras takes None, too

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SavedModelLoss":
        """Raises `ValueError`: no configuration holds a program."""
        raise ValueError(
            "The loss of a SavedModel cannot be built from its configuration, which does not hold the program. Load it "
            "by `ml3_tf.load_meta_loss(folder, allow_saved_model=True)`; load a model that was trained with it by "
            f"`keras.models.load_model(file, compile=False)`, and compile it again. Received: {config}"
        )

    def call(self, y_true: TensorLike, y_pred: TensorLike) -> tf.Tensor:
        """Returns the loss of each example that the endpoint computes."""
        y_true, y_pred = tf.cast(y_true, self._dtypes["y_true"]), tf.cast(y_pred, self._dtypes["y_pred"])
        values = self._with_exported_gradient(y_true, y_pred) if self._has_gradient else self._run(y_true, y_pred)[0]
        return tf.squeeze(values, -1) if values.shape.rank == 2 and values.shape[-1] == 1 else values

    def _run(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tuple[tf.Tensor, ...]:
        outputs = self._endpoint(y_true=y_true, y_pred=y_pred)
        if self._has_gradient:
            return outputs["loss"], outputs["grad"]
        return tuple(outputs.values())

    def _with_exported_gradient(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> Any:
        @tf.custom_gradient
        def score(y_true: Any, y_pred: Any) -> Any:
            loss, slope = self._run(y_true, y_pred)

            def gradient(upstream: Any, variables: Any = None) -> Any:
                upstream = tf.reshape(upstream, tf.concat([tf.shape(upstream), _ones(slope, upstream)], axis=0))
                gradients = (None, upstream * slope)
                return gradients if variables is None else (gradients, [None] * len(variables))

            return loss, gradient

        return score(y_true, y_pred)


def load(folder: str | Path, dtype: str | None = None) -> SavedModelLoss:
    """Returns the `SavedModelLoss` in the folder of a version, after a check that its graph is pure mathematics.

    TensorFlow reads a private copy of the bytes that were checked.

    Raises:
        ArtifactError: The SavedModel is refused, see `ml3_tf.saving.errors`.
        OSError: A file cannot be read.
    """
    source = f"{folder}/{_FILES[0]}"
    with _manifest.open_folder(folder) as descriptor:
        found = _manifest.list_files(descriptor, folder)
        files = {name: _manifest.read_file(descriptor, name, folder) for name in _FILES if name in found}
    try:
        parsed = saved_model_pb2.SavedModel.FromString(files[_FILES[0]])
    except (DecodeError, KeyError):
        raise CorruptArtifactError(f"'{source}' is not a valid SavedModel.") from None
    _graph_check.check(parsed, source)
    with tempfile.TemporaryDirectory() as copy:
        for name, data in files.items():
            path = Path(copy, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        try:
            loaded = tf.saved_model.load(copy)
        except Exception as error:  # the loader documents no class for files that it cannot read
            raise CorruptArtifactError(f"'{source}' cannot be loaded: {type(error).__name__}: {error}") from error
    return SavedModelLoss(loaded, dtype=dtype)


def _find_endpoint(saved_model: Any) -> tuple[Any, bool]:
    for name, has_gradient in ((_VALUE_AND_GRADIENT, True), (_VALUE, False)):
        endpoint = saved_model.signatures.get(name) if hasattr(saved_model, "signatures") else None
        if endpoint is None or set(endpoint.structured_input_signature[1]) != {"y_true", "y_pred"}:
            continue
        if {"loss", "grad"} <= set(endpoint.structured_outputs) if has_gradient else len(endpoint.outputs) == 1:
            return endpoint, has_gradient
    found = {
        name: sorted(endpoint.structured_input_signature[1])
        for name, endpoint in getattr(saved_model, "signatures", {}).items()
    }
    raise CorruptArtifactError(
        "This SavedModel is not a loss: expected an endpoint 'value_and_grad' or 'serving_default' with the inputs "
        f"'y_true' and 'y_pred'. Received: endpoints with the inputs {found}"
    )


def _ones(slope: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    """The shape that lets `upstream` `[batch]` multiply `slope` `[batch, width]`."""
    return tf.ones([tf.rank(slope) - tf.rank(upstream)], tf.int32)
