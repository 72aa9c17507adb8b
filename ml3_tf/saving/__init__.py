"""Export, load and list learned losses; what `load_meta_loss` refuses, and why, stands in SECURITY.md."""

from ml3_tf.saving.catalog import list_meta_losses
from ml3_tf.saving.errors import ArtifactError, ArtifactVersionError, CorruptArtifactError, UnsafeArtifactError
from ml3_tf.saving.export import export_meta_loss
from ml3_tf.saving.load import load_meta_loss

__all__ = [
    "ArtifactError",
    "ArtifactVersionError",
    "CorruptArtifactError",
    "UnsafeArtifactError",
    "export_meta_loss",
    "list_meta_losses",
    "load_meta_loss",
]
