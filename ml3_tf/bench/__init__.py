"""The benchmark of losses, `python -m ml3_tf.bench FOLDER_OR_NAME`, with its data and its statistics."""

__all__: list[str] = []
