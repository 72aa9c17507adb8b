"""Warm-up requests, which a TF Serving server replays when it loads a version, so that its first answers are fast.

The server reads `<folder>/assets.extra/tf_serving_warmup_requests`, a TFRecord of `PredictionLog` messages. Only five
nested fields of that message are needed. They are encoded here by hand, so that an export does not require the package
`tensorflow-serving-api`. The tests compare the bytes with those of the real messages.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

FILE_NAME = "tf_serving_warmup_requests"
SIGNATURES = ("serving_default", "value_and_grad")
# One example, a usual batch and a large one; the server accepts up to 1,000 records.
BATCH_SIZES = (1, 32, 256)


def write_warmup_requests(
    folder: str | Path,
    name: str,
    *,
    true_width: int | None,
    pred_width: int,
    dtype: Any,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> Path:
    """Writes the warm-up requests of both signatures of an exported loss.

    Call it after the SavedModel is written and before the manifest: `load_meta_loss` refuses a version with a file that
    the manifest does not list.

    Args:
        folder: The folder of the version, which holds `saved_model.pb`.
        name: The name under which the loss is served; the server does not compare it.
        true_width: Width of `y_true`, of a single output for a per-output loss; `None` for a label-free loss, which
            accepts any (the requests then have width 1).
        pred_width: Width of `y_pred`, 1 for a per-output loss.
        dtype: Dtype of the signatures, as a string or `tf.DType`.
        batch_sizes: Sizes of the batches, one request for each and each signature.

    Returns:
        The path of the file that was written.

    Raises:
        ValueError: There is no batch size, one is below 1, or there are more requests than the server accepts.
        OSError: The file cannot be written.

    Example:

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> path = write_warmup_requests(folder, "sine", true_width=1, pred_width=1, dtype="float32", batch_sizes=(1, 8))
    >>> len(list(tf.data.TFRecordDataset(str(path))))
    4
    """
    if not batch_sizes or min(batch_sizes) < 1 or len(batch_sizes) * len(SIGNATURES) > 1000:
        raise ValueError(
            f"`batch_sizes` must hold 1 to {1000 // len(SIGNATURES)} positive sizes. Received: {batch_sizes}"
        )
    file = Path(folder) / "assets.extra" / FILE_NAME
    file.parent.mkdir(exist_ok=True)
    widths = {"y_true": true_width or 1, "y_pred": pred_width}
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature in SIGNATURES:
            for size in batch_sizes:
                inputs = {key: tf.make_tensor_proto(0.5, dtype, (size, width)) for key, width in widths.items()}
                writer.write(encode_warmup_record(name, signature, inputs))
    return file


def encode_warmup_record(name: str, signature: str, inputs: Mapping[str, Any]) -> bytes:
    """Returns one serialized `PredictionLog` around a predict request.

    Args:
        name: Name of the model.
        signature: Name of the signature.
        inputs: Mapping from input name to `TensorProto` (`tf.make_tensor_proto`).

    Returns:
        The bytes of `PredictionLog.SerializeToString(deterministic=True)`.

    Example:

    >>> len(encode_warmup_record("sine", "serving_default", {"y_pred": tf.make_tensor_proto([[0.5]])}))
    59
    """
    model_spec = _field(1, name.encode()) + _field(3, signature.encode())
    request = _field(1, model_spec)
    for key, tensor in sorted(inputs.items()):
        request += _field(2, _field(1, key.encode()) + _field(2, tensor.SerializeToString(deterministic=True)))
    predict_log = _field(1, request)
    return _field(6, predict_log)


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer: tag, length, content."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth bit is set if more bytes follow."""
    encoded = b""
    while value > 127:
        encoded += bytes([value & 127 | 128])
        value >>= 7
    return encoded + bytes([value])
