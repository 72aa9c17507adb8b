"""Export and load: a learned loss as a versioned SavedModel, with what is needed to rebuild it beside the graph."""

import os
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np

from ml3_tf import bundle, manifest
from ml3_tf.errors import UnsafeArtefactError
from ml3_tf.layout import PER_OUTPUT

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

        directory/1/saved_model.pb, fingerprint.pb, variables/    for TensorFlow and TF Serving
        directory/1/assets.extra/                                 for `load_meta_loss`, see `ml3_tf.bundle`,
                                                                  and warm-up requests for TF Serving

    The SavedModel has two signatures with named inputs `y_true`, `y_pred` and a free batch size: `serving_default`
    gives `loss` `[batch]`, and `value_and_grad` gives `loss` and `grad`, the derivative of each example's loss with
    respect to its `y_pred`. To a per-set loss a request is one set: its `grad` is the derivative of the sum of the
    losses, and a server must not batch requests. The version is written beside its place, read back, and renamed into
    it, so that a reader, or a crash, never sees half of it. What only training uses is not kept: initializers,
    regularizers, constraints.

    Args:
        meta_loss: A `MetaLoss` around a chain of the layers in `ml3_tf.architecture.LAYERS`.
        directory: The folder of this loss; its last part is the name of the loss.

    Returns:
        The `pathlib.Path` of the version that was written.

    Raises:
        ValueError: A weight is not finite.
        ml3_tf.errors.UnsafeArtefactError: The network has a layer that an artefact cannot describe.
        OSError: The folder cannot be written; nothing is changed then.
        RuntimeError: Keras runs on another backend than TensorFlow, which writes the SavedModel.
    """
    _check_exportable(meta_loss)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=directory))
    try:
        _write_saved_model(meta_loss, unfinished)
        bundle.write(meta_loss, unfinished)
        unfinished.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        version = directory / str(max(_versions(directory), default=0) + 1)
        os.rename(unfinished, version)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return version


def load_meta_loss(path_or_name=None, version="latest", expected_sha256=None, allow_saved_model=False):
    """Returns an exported loss, ready for `model.compile(loss=...)`, or for further meta-training.

    The loss is rebuilt from a description in a closed vocabulary and from its weights; no graph is run and no code is
    loaded. Every file is compared with the manifest first. That proves that the artefact is whole, not who wrote it:
    for that, pin it with `expected_sha256`. It works on every Keras backend; only `allow_saved_model` needs TensorFlow.

    Args:
        path_or_name: The folder that `MetaLoss.export` was given, or one of its versions, or the name of a loss that
            ships with ml3_tf. Default: the shipped regression loss, `"sine"`.
        version: `"latest"`, or the number of a version.
        expected_sha256: Optional SHA-256 of the version's `assets.extra/manifest.json`, in hexadecimal digits (the
            output of `sha256sum`). Through the manifest it pins every other file.
        allow_saved_model: Whether a SavedModel from elsewhere may be loaded, which runs its graph. Each operation in it
            must be known as pure mathematics. It needs an endpoint with the inputs `y_true` and `y_pred`.

    Returns:
        A `MetaLoss` with the values and gradients of the one that was exported; a `ml3_tf.saved_model.SavedModelLoss`
        for a SavedModel from elsewhere.

    Raises:
        FileNotFoundError: There is no such loss or version.
        ml3_tf.errors.ArtefactError: The artefact is refused as unsafe, corrupt, or of a newer format.

    Example:

    >>> import keras, ml3_tf
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer="sgd", loss=ml3_tf.load_meta_loss())
    """
    path_or_name = _SHIPPED / DEFAULT_META_LOSS if path_or_name is None else path_or_name
    folder = _find_version(path_or_name, version)
    if os.path.lexists(folder / manifest.MANIFEST):
        return bundle.read(folder, expected_sha256)
    if not allow_saved_model or expected_sha256 is not None:
        raise UnsafeArtefactError(
            f"'{folder}' holds no learned loss of ml3_tf: expected {manifest.MANIFEST}, as `MetaLoss.export` writes "
            "it. A SavedModel from elsewhere is a program: it is loaded with `allow_saved_model=True` alone, and has "
            "no manifest that `expected_sha256` could pin."
        )
    from ml3_tf import saved_model

    return saved_model.load(folder)


def list_meta_losses():
    """Prints the losses that ship with ml3_tf, one line each: name, versions, purpose.

    The purpose is the first paragraph of the model card, `README.md`, that lies beside the versions.

    Returns:
        The names, sorted, as `load_meta_loss` takes them.

    Example:

    >>> import ml3_tf
    >>> names = ml3_tf.list_meta_losses()  # doctest: +ELLIPSIS
    ant_model_free ... version 1 ...
    """
    names = _shipped_names()
    for name in names:
        versions = ", ".join(map(str, sorted(_versions(_SHIPPED / name))))
        print(f"{name:<{max(map(len, names))}}  version {versions}  {_purpose(_SHIPPED / name / 'README.md')}".rstrip())
    return names


def _shipped_names():
    if not _SHIPPED.is_dir():
        return []
    return sorted(path.name for path in _SHIPPED.iterdir() if path.is_dir() and not path.name.startswith("."))


def _purpose(card):
    """The first paragraph of a model card that is no heading, on one line."""
    if not card.is_file():
        return ""
    paragraphs = card.read_text(encoding="utf-8").split("\n\n")
    texts = [" ".join(line for line in text.splitlines() if not line.startswith("#")).strip() for text in paragraphs]
    return next((text for text in texts if text), "")


def _find_version(path_or_name, version):
    folder = Path(path_or_name)
    if not folder.is_dir() and len(folder.parts) == 1:
        folder = _SHIPPED / folder
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no learned loss '{path_or_name}': expected the folder of an exported loss, or one of the "
            f"shipped losses {_shipped_names()}."
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
    bundle.describe(meta_loss)


def _write_saved_model(meta_loss, path):
    import tensorflow as tf

    from ml3_tf.warmup import write_warmup_requests

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
