"""Export and load: a learned loss as a versioned SavedModel, with what is needed to rebuild it beside the graph."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.meta_loss import PER_OUTPUT, MetaLoss
from ml3_tf.version import __version__

FORMAT_VERSION = 1
DEFAULT_META_LOSS = "sine"
# An installed wheel carries `savedmodels/` inside the package, a checkout beside it.
_SHIPPED = next(
    (
        path
        for path in (Path(__file__).parent / "savedmodels", Path(__file__).parents[1] / "savedmodels")
        if path.is_dir()
    ),
    Path(__file__).parent / "savedmodels",
)


def export(meta_loss, directory):
    """Writes a loss as the next version below `directory`, in the layout of TF Serving.

    ::

        directory/1/saved_model.pb, variables/     for TensorFlow and TF Serving
        directory/1/assets.extra/meta_loss.json    configuration: layout, mode, network, rate
        directory/1/assets.extra/meta_loss.npz     weights

    The SavedModel has two signatures with named inputs `y_true`, `y_pred` and a free batch size: `serving_default`
    gives `loss` `[batch]`, and `value_and_grad` gives `loss` and `grad`, the derivative of each example's loss with
    respect to its `y_pred`. The version is written beside its place and renamed into it, so that a reader, or a crash,
    never sees half of it.

    Args:
        meta_loss: A `MetaLoss`.
        directory: The folder of this loss; its last part is the name of the loss.

    Returns:
        The `pathlib.Path` of the version that was written.

    Raises:
        ValueError: A weight is not finite.
        OSError: The folder cannot be written; nothing is changed then.
    """
    for variable in _weights(meta_loss):
        if not np.all(np.isfinite(variable.numpy())):
            raise ValueError(
                f"A loss with non-finite weights is not exported. Received: NaN or infinity in '{variable.path}'."
            )
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=directory))
    try:
        _write_saved_model(meta_loss, unfinished)
        _write_bundle(meta_loss, unfinished / "assets.extra")
        unfinished.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        version = directory / str(max(_versions(directory), default=0) + 1)
        os.rename(unfinished, version)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return version


def load_meta_loss(path_or_name=None, version="latest"):
    """Returns an exported loss, ready for `model.compile(loss=...)`, or for further meta-training.

    Args:
        path_or_name: The folder that `MetaLoss.export` was given, or one of its versions, or the name of a loss that
            ships with ml3_tf. Default: the shipped regression loss, `"sine"`.
        version: `"latest"`, or the number of a version.

    Returns:
        A `MetaLoss` with the values and gradients of the one that was exported.

    Raises:
        FileNotFoundError: There is no such loss or version.
        ValueError: The folder holds a SavedModel that is not a `MetaLoss`, or weights that do not fit its network.

    Example:

    >>> import keras, ml3_tf
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer="sgd", loss=ml3_tf.load_meta_loss())
    """
    path_or_name = _SHIPPED / DEFAULT_META_LOSS if path_or_name is None else path_or_name
    bundle = _find_version(path_or_name, version) / "assets.extra"
    description = bundle / "meta_loss.json"
    if not description.is_file():
        raise ValueError(
            f"'{bundle.parent}' holds no learned loss of ml3_tf: expected assets.extra/meta_loss.json, as "
            "`MetaLoss.export` writes it. A SavedModel from elsewhere cannot be loaded."
        )
    description = json.loads(description.read_text())
    if description["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"'{bundle.parent}' has format version {description['format_version']}, and this ml3_tf {__version__} "
            f"reads up to {FORMAT_VERSION}. Install a newer ml3_tf."
        )
    meta_loss = MetaLoss.from_config(description["config"])
    _read_weights(meta_loss, bundle / "meta_loss.npz")
    return meta_loss


def _find_version(path_or_name, version):
    folder = Path(path_or_name)
    if not folder.is_dir() and len(folder.parts) == 1:
        folder = _SHIPPED / folder
    if not folder.is_dir():
        shipped = sorted(path.name for path in _SHIPPED.iterdir() if path.is_dir()) if _SHIPPED.is_dir() else []
        raise FileNotFoundError(
            f"There is no learned loss '{path_or_name}': expected the folder of an exported loss, or one of the "
            f"shipped losses {shipped}."
        )
    if (folder / "saved_model.pb").is_file():
        return folder
    versions = _versions(folder)
    chosen = max(versions, default=None) if version == "latest" else version
    if chosen not in versions:
        raise FileNotFoundError(f"'{folder}' has no version {version!r}. Versions found: {sorted(versions)}.")
    return folder / str(chosen)


def _versions(directory):
    return [int(path.name) for path in directory.iterdir() if path.name.isdecimal() and path.is_dir()]


def _weights(meta_loss):
    rate = meta_loss.learned_rate.weights if meta_loss.learned_rate else []
    return [*meta_loss.network.weights, *rate]


def _write_bundle(meta_loss, bundle):
    bundle.mkdir(exist_ok=True)
    description = {"format_version": FORMAT_VERSION, "ml3_tf": __version__, "config": meta_loss.get_config()}
    (bundle / "meta_loss.json").write_text(json.dumps(description, indent=2) + "\n")
    np.savez(bundle / "meta_loss.npz", **{str(i): v.numpy() for i, v in enumerate(_weights(meta_loss))})


def _read_weights(meta_loss, path):
    weights = _weights(meta_loss)
    with np.load(path, allow_pickle=False) as arrays:
        values = [arrays[name] for name in sorted(arrays.files, key=int)]
    expected, received = [tuple(v.shape) for v in weights], [value.shape for value in values]
    if expected != received:
        raise ValueError(
            f"The weights in '{path}' do not fit the network. Expected shapes {expected}. Received: {received}."
        )
    for variable, value in zip(weights, values, strict=True):
        variable.assign(value)


def _write_saved_model(meta_loss, path):
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
    archive.track(meta_loss.network)
    if meta_loss.learned_rate is not None:
        archive.track(meta_loss.learned_rate)
    archive.add_endpoint("serving_default", value, input_signature=signature)
    archive.add_endpoint("value_and_grad", value_and_grad, input_signature=signature)
    archive.write_out(str(path), verbose=False)
