"""The exceptions that `load_meta_loss` and `MetaLoss.export` raise about an artifact, i.e. an exported loss.

There is one base class, with one class for each kind of refusal. A file that is missing or cannot be read raises an
`OSError` as usual.
"""


class ArtifactError(ValueError):
    """Raised when an exported loss is refused. The message names the file and the reason."""


class UnsafeArtifactError(ArtifactError):
    """Raised for content that a loss does not need: links, unlisted files, unknown words, code, excessive sizes.

    Also raised if the manifest is not the one that was pinned with `expected_sha256`.
    """


class CorruptArtifactError(ArtifactError):
    """Raised for contradictions: a wrong checksum, shape or type, a value that is not finite, a failed self-test."""


class ArtifactVersionError(ArtifactError):
    """Raised for an artifact in a newer format than this ml3_tf reads."""
