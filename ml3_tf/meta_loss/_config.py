"""The configuration of a meta-loss, with its weights: a loss that is built from it has the same values.

Keras builds losses from configurations in many places: `clone_model`, `keras.losses.deserialize`, `.h5` files, JSON.
The weights of a layer follow by another way; those of a loss do not.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from ml3_tf.meta_loss._facts import TrainingFacts

if TYPE_CHECKING:
    from ml3_tf.meta_loss._meta_loss import MetaLoss


def to_config(meta_loss: MetaLoss) -> dict[str, Any]:
    """Returns the arguments of a loss, and its weights, as what JSON can hold."""
    serialize = keras.saving.serialize_keras_object
    return {
        "network": serialize(meta_loss.network),
        "score_network": meta_loss.score_network and serialize(meta_loss.score_network),
        "mode": meta_loss.mode,
        "features": meta_loss.features,
        "input_scale": meta_loss.input_scale,
        "learning_rate": meta_loss.learning_rate,
        "dtype": meta_loss.dtype,
        "base": meta_loss.base and meta_loss.base.get_config(),
        "facts": meta_loss.facts and meta_loss.facts.get_config(),
        "weights": [_encode(variable) for variable in _variables(meta_loss)],
    }


def from_config(cls: type[MetaLoss], config: dict[str, Any]) -> MetaLoss:
    """Returns the loss of a configuration.

    Raises:
        ValueError: The configuration has no weights, or those of another loss.
    """
    arguments = dict(config)
    weights, facts = arguments.pop("weights", None), arguments.pop("facts", None)
    if weights is None:
        raise ValueError(
            "A learned loss is its weights, and this configuration has none: expected that of `get_config`, with the "
            f"key 'weights'. Received: keys {sorted(config)}"
        )
    for name in ("network", "score_network"):
        if arguments.get(name):
            arguments[name] = keras.saving.deserialize_keras_object(arguments[name])
    meta_loss = cls(**arguments)
    variables, values = _variables(meta_loss), [_decode(**weight) for weight in weights]
    shapes = [tuple(variable.shape) for variable in variables]
    if [value.shape for value in values] != shapes:
        raise ValueError(
            f"The weights of this configuration do not fit its networks: expected the shapes {shapes}. Received: "
            f"{[value.shape for value in values]}"
        )
    for variable, value in zip(variables, values):
        variable.assign(value)
    meta_loss.facts = facts and TrainingFacts.from_config(facts)
    return meta_loss


def _variables(meta_loss: MetaLoss) -> list[keras.Variable]:
    return [variable for layer in meta_loss.layers for variable in layer.weights]


def _encode(variable: keras.Variable) -> dict[str, Any]:
    # float64 holds every number of the shorter types, of which NumPy does not know bfloat16.
    values = np.asarray(keras.ops.convert_to_numpy(variable), dtype="<f8")
    dtype = "<f8" if variable.dtype == "float64" else "<f4"
    data = base64.b64encode(values.astype(dtype).tobytes()).decode()
    return {"shape": list(values.shape), "dtype": dtype, "data": data}


def _decode(shape: list[int], dtype: str, data: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(data), dtype=dtype).reshape(shape)
