"""Export a learned loss as a versioned SavedModel, with a description beside the graph to rebuild the loss from."""

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ml3_tf.feature_layout import PER_OUTPUT
from ml3_tf.meta_loss import MetaLoss
from ml3_tf.saving import _bundle
from ml3_tf.saving._new_folder import publish, unfinished_folder
from ml3_tf.saving.catalog import find_versions


def export_meta_loss(meta_loss: MetaLoss, folder: str | Path) -> Path:
    """Writes a loss as the next version below `folder`, in the layout of TF Serving.

    ::

        folder/1/saved_model.pb, fingerprint.pb, variables/    for TensorFlow and TF Serving
        folder/1/assets.extra/                                 for `load_meta_loss`, see `ml3_tf.saving._bundle`,
                                                               and warm-up requests for TF Serving

    The SavedModel has two signatures with named inputs `y_true`, `y_pred` and any batch size: `serving_default` returns
    `loss` `[batch]`, and `value_and_grad` returns `loss` and `grad`, the derivative of each example's loss with respect
    to its `y_pred`. For a per-set loss a request is one set: its `grad` is the derivative of the sum of the losses, and
    a server must not batch requests.

    The files are written to a hidden folder, read back, synced to the disk, and moved into place by one rename, so that
    a version is whole or absent, for a reader and after a crash. Several processes may export to one folder at once.
    What an export that was killed has left is removed by the next. Initializers, regularizers and constraints are not
    kept: only training uses them.

    Args:
        meta_loss: A `MetaLoss` around a chain of the layers in `ml3_tf.saving._architecture.LAYERS`.
        folder: The folder of this loss; its last part is the name of the loss.

    Returns:
        The folder of the version that was written.

    Raises:
        ValueError: A weight is not finite.
        ml3_tf.saving.UnsafeArtifactError: The network has a layer that an artifact cannot describe.
        OSError: The folder cannot be written; nothing is changed then.
        RuntimeError: Keras does not run on TensorFlow, which writes the SavedModel.
    """
    _check_exportable(meta_loss)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with unfinished_folder(folder) as unfinished:
            _write_saved_model(meta_loss, unfinished)
            _bundle.write(meta_loss, unfinished)
            unfinished.chmod(0o755)  # only its owner can read a temporary folder
            return publish(unfinished, map(str, itertools.count(max(find_versions(folder), default=0) + 1)))
    except OSError as error:
        if error.errno is not None:
            error.filename = error.filename or str(folder)  # a disk that is full names no file
        raise


def _check_exportable(meta_loss: MetaLoss) -> None:
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "TensorFlow writes the SavedModel: export with KERAS_BACKEND=tensorflow. The exported loss loads on every "
            f"backend. Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    for variable in [variable for layer in meta_loss.layers for variable in layer.weights]:
        if not np.all(np.isfinite(variable.numpy())):
            raise ValueError(
                "A loss with non-finite weights cannot be exported: every weight must be finite. "
                f"Received: NaN or infinity in '{variable.path}'."
            )
    _bundle.describe(meta_loss)


def _write_saved_model(meta_loss: MetaLoss, folder: Path) -> None:
    import tensorflow as tf

    from ml3_tf.saving._warmup import write_warmup_requests

    pred_width, *true_widths = meta_loss.features.values()
    true_width = sum(true_widths) or None  # a label-free loss reads none: any will do
    takes_any = meta_loss.mode == PER_OUTPUT
    signature = [
        tf.TensorSpec((None, None if takes_any else true_width), meta_loss.dtype, name="y_true"),
        tf.TensorSpec((None, None if takes_any else pred_width), meta_loss.dtype, name="y_pred"),
    ]

    def value(y_true: Any, y_pred: Any) -> dict[str, Any]:
        return {"loss": meta_loss.call(y_true, y_pred)}

    def value_and_grad(y_true: Any, y_pred: Any) -> dict[str, Any]:
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            loss = meta_loss.call(y_true, y_pred)
        return {"loss": loss, "grad": tape.gradient(loss, y_pred)}

    archive: Any = keras.export.ExportArchive()
    for layer in meta_loss.layers:
        archive.track(layer)
    archive.add_endpoint("serving_default", value, input_signature=signature)
    archive.add_endpoint("value_and_grad", value_and_grad, input_signature=signature)
    try:
        archive.write_out(str(folder), verbose=False)
    except tf.errors.OpError as error:  # a full disk, which TensorFlow reports in several ways
        raise OSError(f"TensorFlow cannot write to '{folder.parent}'. Is the disk full? Its error: {error}") from error
    write_warmup_requests(folder, meta_loss.name, true_width=true_width, pred_width=pred_width, dtype=meta_loss.dtype)
