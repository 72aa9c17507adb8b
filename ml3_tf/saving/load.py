"""Load a learned loss: the way back from `MetaLoss.export`."""

import os
from pathlib import Path

from ml3_tf.saving import _bundle, _manifest
from ml3_tf.saving.catalog import SHIPPED, find_versions, shipped_names
from ml3_tf.saving.errors import UnsafeArtifactError

DEFAULT_META_LOSS = "sine"


def load_meta_loss(path_or_name=None, version="latest", expected_sha256=None, allow_saved_model=False):
    """Returns an exported loss, ready for `model.compile(loss=...)`, or for further meta-training.

    The loss is rebuilt from a description in a closed vocabulary and from its weights; no graph is run and no code is
    loaded. Every file is compared with the manifest first. That proves that the artifact is whole, not who wrote it:
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
        A `MetaLoss` with the values and gradients of the one that was exported; a `ml3_tf.saving._foreign.SavedModelLoss`
        for a SavedModel from elsewhere.

    Raises:
        FileNotFoundError: There is no such loss or version.
        ml3_tf.saving.errors.ArtifactError: The artifact is refused as unsafe, corrupt, or of a newer format.

    Example:

    >>> import keras, ml3_tf
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer="sgd", loss=ml3_tf.load_meta_loss())
    """
    path_or_name = SHIPPED / DEFAULT_META_LOSS if path_or_name is None else path_or_name
    folder = _find_version(path_or_name, version)
    if os.path.lexists(folder / _manifest.MANIFEST):
        return _bundle.read(folder, expected_sha256)
    if not allow_saved_model or expected_sha256 is not None:
        raise UnsafeArtifactError(
            f"'{folder}' holds no learned loss of ml3_tf: expected {_manifest.MANIFEST}, as `MetaLoss.export` writes "
            "it. A SavedModel from elsewhere is a program: it is loaded with `allow_saved_model=True` alone, and has "
            "no manifest that `expected_sha256` could pin."
        )
    from ml3_tf.saving import _foreign

    return _foreign.load(folder)


def _find_version(path_or_name, version):
    folder = Path(path_or_name)
    if not folder.is_dir() and len(folder.parts) == 1:
        folder = SHIPPED / folder
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no learned loss '{path_or_name}': expected the folder of an exported loss, or one of the "
            f"shipped losses {shipped_names()}."
        )
    if (folder / "saved_model.pb").is_file():
        return folder
    versions = find_versions(folder)
    chosen = max(versions, default=None) if version == "latest" else version
    if chosen not in versions:
        raise FileNotFoundError(f"'{folder}' has no version {version!r}. Versions found: {sorted(versions)}.")
    return folder / str(chosen)
