"""Export, load, verify and list learned losses.

`SECURITY.md` says which files `load_meta_loss` refuses, and why. `SavedModelLoss` needs TensorFlow, so it is imported
when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

from ml3_tf.saving.catalog import ShippedLoss, ShippedLosses, list_meta_losses
from ml3_tf.saving.errors import ArtifactError, ArtifactVersionError, CorruptArtifactError, UnsafeArtifactError
from ml3_tf.saving.export import export_meta_loss
from ml3_tf.saving.load import load_meta_loss
from ml3_tf.saving.verify import Check, Verification, verify_export

if TYPE_CHECKING:
    from ml3_tf.saving._foreign import SavedModelLoss

__all__ = [
    "ArtifactError",
    "ArtifactVersionError",
    "Check",
    "CorruptArtifactError",
    "SavedModelLoss",
    "ShippedLoss",
    "ShippedLosses",
    "UnsafeArtifactError",
    "Verification",
    "export_meta_loss",
    "list_meta_losses",
    "load_meta_loss",
    "verify_export",
]


def __getattr__(name: str) -> Any:
    if name != "SavedModelLoss":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from ml3_tf.saving._foreign import SavedModelLoss

    globals()[name] = SavedModelLoss
    return SavedModelLoss


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
