"""Load a learned loss that `MetaLoss.export` wrote."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from ml3_tf.meta_loss import MetaLoss
from ml3_tf.saving import _bundle, _manifest, catalog
from ml3_tf.saving.errors import UnsafeArtifactError

if TYPE_CHECKING:
    from ml3_tf.saving._foreign import SavedModelLoss

DEFAULT_META_LOSS = "sine"


@overload
def load_meta_loss(
    name_or_folder: str | Path | None = None,
    *,
    version: int | Literal["latest"] = "latest",
    expected_sha256: str | None = None,
    dtype: str | None = None,
    allow_saved_model: Literal[False] = False,
) -> MetaLoss: ...


@overload
def load_meta_loss(
    name_or_folder: str | Path | None = None,
    *,
    version: int | Literal["latest"] = "latest",
    expected_sha256: str | None = None,
    dtype: str | None = None,
    allow_saved_model: bool,
) -> MetaLoss | SavedModelLoss: ...


def load_meta_loss(
    name_or_folder: str | Path | None = None,
    *,
    version: int | Literal["latest"] = "latest",
    expected_sha256: str | None = None,
    dtype: str | None = None,
    allow_saved_model: bool = False,
) -> MetaLoss | SavedModelLoss:
    """Returns an exported loss, ready for `model.compile(loss=...)` or for further meta-training.

    Without a name it returns the shipped loss for regression, `"sine"`.

    The loss is rebuilt from its weights and from a description in a closed vocabulary: no graph is run and no code is
    loaded. Every file is compared with the manifest first. The manifest proves that the artifact is complete, not who
    wrote it: for that, pin it with `expected_sha256`. Loading works on every Keras backend; only `allow_saved_model`
    needs TensorFlow.

    Args:
        name_or_folder: The name of a loss that ships with ml3_tf, the folder that `MetaLoss.export` was given, or the
            folder of one version. Default: the shipped regression loss, `"sine"`.
        version: `"latest"`, or the number of a version.
        expected_sha256: Optional SHA-256 of the file `assets.extra/manifest.json` of the version, in hexadecimal digits
            (the output of `sha256sum`). Through the manifest it pins every other file.
        dtype: Optional dtype in place of that of the exported loss: `"float64"`, `"float32"`, `"bfloat16"` or
            `"float16"`. Network and learned rate have it too.
        allow_saved_model: Whether to accept a SavedModel that ml3_tf did not write. Its graph is run, after each
            operation was found on a list of pure mathematics. It needs an endpoint with the inputs `y_true` and
            `y_pred`.

    Returns:
        A `MetaLoss` with the values and gradients of the exported one, or a `ml3_tf.saving.SavedModelLoss` for a
        SavedModel that ml3_tf did not write.

    Raises:
        FileNotFoundError: There is no such loss or version.
        ValueError: Another dtype, or one that is too narrow for a weight.
        ml3_tf.saving.ArtifactError: The artifact is refused as unsafe, corrupt, or of a newer format.

    Example:

    >>> import keras, ml3_tf
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer="sgd", loss=ml3_tf.load_meta_loss())
    """
    folder = find_folder(catalog.SHIPPED / DEFAULT_META_LOSS if name_or_folder is None else name_or_folder, version)
    if os.path.lexists(folder / _manifest.MANIFEST):
        return _bundle.read(folder, expected_sha256, dtype)
    if not allow_saved_model or expected_sha256 is not None:
        raise refusal_without_manifest(folder)
    from ml3_tf.saving import _foreign

    return _foreign.load(folder, dtype)


def find_folder(name_or_folder: str | Path, version: int | Literal["latest"]) -> Path:
    """Returns the folder of one version; the arguments are those of `load_meta_loss`.

    Raises:
        FileNotFoundError: There is no such loss or version.
    """
    folder = Path(name_or_folder)
    if not folder.is_dir() and len(folder.parts) == 1:
        folder = catalog.SHIPPED / folder
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no learned loss '{name_or_folder}'. Expected the folder of an exported loss, or the name of a "
            f"shipped loss: {catalog.list_shipped_names()}."
        )
    if (folder / "saved_model.pb").is_file():
        return folder
    versions = catalog.find_versions(folder)
    if not versions:
        raise FileNotFoundError(
            f"'{folder}' is not the folder of an exported loss. Expected the folder that `MetaLoss.export` was given, "
            "with a folder for each version: 1, 2, ... Received: a folder without versions."
        )
    chosen = max(versions) if version == "latest" else version
    if chosen not in versions:
        raise FileNotFoundError(f"'{folder}' has no version {version!r}. Versions found: {sorted(versions)}.")
    return folder / str(chosen)


def refusal_without_manifest(folder: Path) -> UnsafeArtifactError:
    """Returns the error about a folder of a version that `MetaLoss.export` did not write."""
    return UnsafeArtifactError(
        f"'{folder}' is not a learned loss of ml3_tf: expected the file {_manifest.MANIFEST}, which `MetaLoss.export` "
        "writes. Any other SavedModel is a program. It is loaded only with `allow_saved_model=True`, and it has no "
        "manifest that `expected_sha256` could pin."
    )
