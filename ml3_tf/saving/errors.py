"""What `load_meta_loss` and `export` raise about an artifact: one base class, one class for each kind of refusal.

A file that is missing or cannot be read stays an `OSError`.
"""


class ArtifactError(ValueError):
    """An exported loss was refused. The message names the file and the reason."""


class UnsafeArtifactError(ArtifactError):
    """It holds what a loss has no need of: links, unlisted files, unknown words, code, sizes beyond the limits.

    Also raised where it is not the artifact that was pinned with `expected_sha256`.
    """


class CorruptArtifactError(ArtifactError):
    """It contradicts itself: a wrong checksum, shape or type, a value that is not finite, a self-test that fails."""


class ArtifactVersionError(ArtifactError):
    """It was written in a newer format than this ml3_tf reads."""
