"""Export: a learned loss as a versioned SavedModel, with the description to rebuild it from beside the graph."""

import os
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np

from ml3_tf.feature_layout import PER_OUTPUT
from ml3_tf.saving import _bundle
from ml3_tf.saving.catalog import find_versions


def export_meta_loss(meta_loss, directory):
    """Writes a loss as the next version below `directory`, in the layout of TF Serving.

    ::

        directory/1/_foreign.pb, fingerprint.pb, variables/    for TensorFlow and TF Serving
        directory/1/assets.extra/                                 for `load_meta_loss`, see `ml3_tf.saving._bundle`,
                                                                  and warm-up requests for TF Serving

    The SavedModel has two signatures with named inputs `y_true`, `y_pred` and a free batch size: `serving_default`
    gives `loss` `[batch]`, and `value_and_grad` gives `loss` and `grad`, the derivative of each example's loss with
    respect to its `y_pred`. To a per-set loss a request is one set: its `grad` is the derivative of the sum of the
    losses, and a server must not batch requests. The version is written beside its place, read back, and renamed into
    it, so that a reader, or a crash, never sees half of it. What only training uses is not kept: initializers,
    regularizers, constraints.

    Args:
        meta_loss: A `MetaLoss` around a chain of the layers in `ml3_tf.saving._architecture.LAYERS`.
        directory: The folder of this loss; its last part is the name of the loss.

    Returns:
        The `pathlib.Path` of the version that was written.

    Raises:
        ValueError: A weight is not finite.
        ml3_tf.saving.errors.UnsafeArtifactError: The network has a layer that an artifact cannot describe.
        OSError: The folder cannot be written; nothing is changed then.
        RuntimeError: Keras runs on another backend than TensorFlow, which writes the SavedModel.
    """
    _check_exportable(meta_loss)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=directory))
    try:
        _write_saved_model(meta_loss, unfinished)
        _bundle.write(meta_loss, unfinished)
        unfinished.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        version = directory / str(max(find_versions(directory), default=0) + 1)
        os.rename(unfinished, version)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return version


def _check_exportable(meta_loss):
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "A SavedModel is written by TensorFlow: export with KERAS_BACKEND=tensorflow. "
            f"Received: {keras.backend.backend()}. What was exported loads on every backend."
        )
    for variable in [variable for layer in meta_loss.layers for variable in layer.weights]:
        if not np.all(np.isfinite(variable.numpy())):
            raise ValueError(
                f"A loss with non-finite weights is not exported. Received: NaN or infinity in '{variable.path}'."
            )
    _bundle.describe(meta_loss)


def _write_saved_model(meta_loss, path):
    import tensorflow as tf

    from ml3_tf.saving._warmup import write_warmup_requests

    widths = list(meta_loss.features.values())
    true_width, pred_width = (None, None) if meta_loss.mode == PER_OUTPUT else (sum(widths[1:]), widths[0])
    signature = [
        tf.TensorSpec((None, true_width), meta_loss.dtype, name="y_true"),
        tf.TensorSpec((None, pred_width), meta_loss.dtype, name="y_pred"),
    ]

    def value(y_true, y_pred):
        return {"loss": meta_loss.call(y_true, y_pred)}

    def value_and_grad(y_true, y_pred):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            loss = meta_loss.call(y_true, y_pred)
        return {"loss": loss, "grad": tape.gradient(loss, y_pred)}

    archive = keras.export.ExportArchive()
    for layer in meta_loss.layers:
        archive.track(layer)
    archive.add_endpoint("serving_default", value, input_signature=signature)
    archive.add_endpoint("value_and_grad", value_and_grad, input_signature=signature)
    archive.write_out(str(path), verbose=False)
    write_warmup_requests(path, meta_loss.name, true_width, pred_width, meta_loss.dtype)
