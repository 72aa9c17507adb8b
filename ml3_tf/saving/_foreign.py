"""Losses from elsewhere: a SavedModel of which every operation is checked before TensorFlow loads it."""

import tempfile
from pathlib import Path

import keras
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from ml3_tf.saving.errors import CorruptArtifactError
from ml3_tf.saving import _graph_check, _manifest

_FILES = ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")
_VALUE = "serving_default"
_VALUE_AND_GRADIENT = "value_and_grad"


class SavedModelLoss(keras.losses.Loss):
    """A loss that runs the graph of a SavedModel.

    The gradient is the one that was exported with it, where there is an endpoint `value_and_grad` with the outputs
    `loss` and `grad`: differentiating the loaded graph instead would make XLA compile it again for every batch.
    Otherwise TensorFlow differentiates the value.

    Args:
        saved_model: What `tf.saved_model.load` returned.
        name: Optional name.
        **kwargs: Further arguments of every Keras loss.

    Raises:
        CorruptArtifactError: It has no endpoint with the inputs `y_true` and `y_pred`.
    """

    def __init__(self, saved_model, name="saved_model_loss", **kwargs):
        self._saved_model = saved_model  # its functions live as long as this object
        self._endpoint, self._has_gradient = _find_endpoint(saved_model)
        inputs = self._endpoint.structured_input_signature[1]
        self._dtypes = {key: spec.dtype for key, spec in inputs.items()}
        super().__init__(name=name, dtype=kwargs.pop("dtype", self._dtypes["y_pred"].name), **kwargs)

    def call(self, y_true, y_pred):
        """Returns the loss of each example, as the endpoint gives it."""
        y_true, y_pred = tf.cast(y_true, self._dtypes["y_true"]), tf.cast(y_pred, self._dtypes["y_pred"])
        values = self._with_exported_gradient(y_true, y_pred) if self._has_gradient else self._run(y_true, y_pred)[0]
        return tf.squeeze(values, -1) if values.shape.rank == 2 and values.shape[-1] == 1 else values

    def _run(self, y_true, y_pred):
        outputs = self._endpoint(y_true=y_true, y_pred=y_pred)
        if self._has_gradient:
            return outputs["loss"], outputs["grad"]
        return tuple(outputs.values())

    def _with_exported_gradient(self, y_true, y_pred):
        @tf.custom_gradient
        def score(y_true, y_pred):
            loss, slope = self._run(y_true, y_pred)

            def gradient(upstream, variables=None):
                upstream = tf.reshape(upstream, tf.concat([tf.shape(upstream), _ones(slope, upstream)], axis=0))
                gradients = (None, upstream * slope)
                return gradients if variables is None else (gradients, [None] * len(variables))

            return loss, gradient

        return score(y_true, y_pred)


def load(version):
    """Returns the `SavedModelLoss` of the folder `version`, once its graph is found to be pure mathematics.

    TensorFlow reads a private copy of the bytes that were checked.

    Raises:
        ArtifactError: It is refused, see `ml3_tf.saving.errors`.
        OSError: A file cannot be read.
    """
    source = f"{version}/{_FILES[0]}"
    with _manifest.open_folder(version) as folder:
        found = _manifest.list_files(folder, version)
        files = {name: _manifest.read_file(folder, name, version) for name in _FILES if name in found}
    try:
        parsed = saved_model_pb2.SavedModel.FromString(files[_FILES[0]])
    except (DecodeError, KeyError):
        raise CorruptArtifactError(f"'{source}' is no SavedModel.") from None
    _graph_check.check(parsed, source)
    with tempfile.TemporaryDirectory() as copy:
        for name, data in files.items():
            path = Path(copy, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        try:
            loaded = tf.saved_model.load(copy)
        except Exception as error:  # its loader names no class for files that it cannot put together
            raise CorruptArtifactError(f"'{source}' cannot be loaded: {type(error).__name__}: {error}") from error
    return SavedModelLoss(loaded)


def _find_endpoint(saved_model):
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
        "This SavedModel is no loss: expected an endpoint 'value_and_grad' or 'serving_default' with the inputs "
        f"'y_true' and 'y_pred'. Found, with their inputs: {found}"
    )


def _ones(slope, upstream):
    """The shape that lets `upstream` `[batch]` multiply `slope` `[batch, width]`."""
    return tf.ones([tf.rank(slope) - tf.rank(upstream)], tf.int32)
