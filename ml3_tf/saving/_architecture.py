"""The networks that an artifact can describe: chains of the layers in the table `LAYERS`.

A description is JSON of our own, not a Keras configuration: it has no module names, code or paths, and each word in it
comes from an enumeration. It holds the computation of a network. Initializers, regularizers and constraints are not
kept: only training uses them.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras

from ml3_tf.keras_internals import get_producer
from ml3_tf.saving import _strict_json
from ml3_tf.saving.errors import UnsafeArtifactError

MAX_LAYERS = 64
MAX_WIDTH = 65536
MAX_PARAMETERS = 10_000_000
FLOATS = ("float16", "bfloat16", "float32", "float64")
DTYPES = (*FLOATS, "mixed_float16", "mixed_bfloat16")
ACTIVATIONS = (
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign"),
    *("squareplus", "sparse_plus", "tanh", "tanh_shrink", "hard_tanh", "sigmoid", "hard_sigmoid", "log_sigmoid"),
    *("hard_silu", "hard_shrink", "soft_shrink", "exponential", "softmax", "log_softmax"),
)


class LayerType(NamedTuple):
    """One kind of layer, and the form of its description.

    Args:
        layer: The Keras class. A subclass does not count, since it has code of its own.
        fields: The constructor arguments that are kept, each with its allowed values.
        weights: Function of the description and the input width that returns the shape of each weight, by attribute.
        fixed: Attributes of which only one value can be described.
        initial: Constructor arguments that avoid drawing random weights, which those of the artifact replace. The first
            random numbers of a process take longer than all the rest of loading.
    """

    layer: type[keras.layers.Layer]
    fields: Mapping[str, _strict_json.Field]
    weights: Callable[[dict[str, Any], int], dict[str, tuple[int, ...]]] = lambda description, width: {}
    fixed: Mapping[str, object] = {}
    initial: Mapping[str, Any] = {}


def _dense_weights(description: dict[str, Any], width: int) -> dict[str, tuple[int, ...]]:
    units = description["units"]
    return {"kernel": (width, units), **({"bias": (units,)} if description["use_bias"] else {})}


def _normalization_weights(description: dict[str, Any], width: int) -> dict[str, tuple[int, ...]]:
    names = {"gamma": description["scale"], "beta": description["center"]}
    return {name: (width,) for name, wanted in names.items() if wanted}


_ACTIVATION = _strict_json.one_of(*ACTIVATIONS)
LAYERS = {
    "Dense": LayerType(
        keras.layers.Dense,
        {
            "units": _strict_json.integer(1, MAX_WIDTH),
            "activation": _ACTIVATION,
            "use_bias": _strict_json.BOOLEAN,
        },
        _dense_weights,
        {"lora_enabled": False, "quantization_mode": None},
        {"kernel_initializer": "zeros"},
    ),
    "Activation": LayerType(keras.layers.Activation, {"activation": _ACTIVATION}),
    "LayerNormalization": LayerType(
        keras.layers.LayerNormalization,
        {"epsilon": _strict_json.POSITIVE, "center": _strict_json.BOOLEAN, "scale": _strict_json.BOOLEAN},
        _normalization_weights,
    ),
    "Rescaling": LayerType(keras.layers.Rescaling, {"scale": _strict_json.NUMBER, "offset": _strict_json.NUMBER}),
}
_COMMON = {
    "type": _strict_json.one_of(*LAYERS),
    "name": _strict_json.TEXT,
    "dtype": _strict_json.one_of(*DTYPES),
    "trainable": _strict_json.BOOLEAN,
}
_NETWORK = {
    "name": _strict_json.TEXT,
    "input_width": _strict_json.integer(1, MAX_WIDTH),
    "input_dtype": _strict_json.one_of(*FLOATS),
    "layers": _strict_json.LIST,
}


def describe(network: keras.Model) -> dict[str, Any]:
    """Returns the description of a built Keras network.

    Raises:
        UnsafeArtifactError: The network is not a chain of `LAYERS`; the message names the layer and what is allowed.
    """
    return {
        "name": network.name,
        "input_width": network.input_shape[-1],
        "input_dtype": network.inputs[0].dtype,
        "layers": _with_unique_names([_describe_layer(layer) for layer in chain(network)]),
    }


def check(description: Any, source: str) -> None:
    """Raises `ArtifactError` unless `description` describes a network within the limits; builds nothing."""
    _strict_json.check_fields(description, _NETWORK, source, "the network")
    layers = description["layers"]
    if not 1 <= len(layers) <= MAX_LAYERS:
        raise UnsafeArtifactError(f"'{source}': a network of {len(layers)} layers. Expected 1 to {MAX_LAYERS}.")
    for index, layer in enumerate(layers):
        kind: Any = layer.get("type") if type(layer) is dict else None
        _strict_json.check_value(kind, _COMMON["type"], source, f"'type' of layer {index}")
        _strict_json.check_fields(layer, {**_COMMON, **LAYERS[kind].fields}, source, f"layer {index} ({kind})")
    parameters = sum(math.prod(shape) for shape in weight_shapes(description).values())
    if parameters > MAX_PARAMETERS:
        raise UnsafeArtifactError(f"'{source}': a network of {parameters} parameters. At most {MAX_PARAMETERS}.")


def weight_shapes(description: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each weight, `{"layers.0.kernel": (2, 40), ...}`, of a checked description."""
    shapes, width = {}, description["input_width"]
    for index, layer in enumerate(description["layers"]):
        weights = LAYERS[layer["type"]].weights(layer, width)
        shapes |= {f"layers.{index}.{name}": shape for name, shape in weights.items()}
        width = layer.get("units", width)
    return shapes


def build(description: dict[str, Any]) -> keras.Sequential:
    """Returns the `keras.Sequential` of a checked description, before its weights are set."""
    layers = []
    for layer in description["layers"]:
        arguments = {name: value for name, value in layer.items() if name != "type"}
        kind = LAYERS[layer["type"]]
        layers.append(kind.layer(**arguments, **kind.initial))
    inputs = keras.Input((description["input_width"],), dtype=description["input_dtype"])
    return keras.Sequential([inputs, *layers], name=description["name"])


def get_weights(network: keras.Model) -> dict[str, keras.Variable]:
    """Returns the variables of a network that can be described, by the names of `weight_shapes`."""
    variables = {}
    for index, layer in enumerate(chain(network)):
        for variable in layer.weights:
            variables[f"layers.{index}.{variable.name}"] = variable
    return variables


def chain(network: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers of a Sequential or functional model in the order of the computation, nested models opened.

    Raises:
        UnsafeArtifactError: The network branches, or uses one layer twice.
    """
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        raise _refusal(f"'{network.name}' has {len(network.inputs)} inputs and {len(network.outputs)} outputs")
    layers: list[Any] = []
    layer, inputs = get_producer(network.outputs[0])
    while not isinstance(layer, keras.layers.InputLayer):
        if len(inputs) != 1:
            raise _refusal(f"'{layer.name}' ({type(layer).__name__}) has {len(inputs)} inputs")
        nested = isinstance(layer, keras.Model) and hasattr(layer, "inputs")
        layers = (chain(layer) if nested else [layer]) + layers
        layer, inputs = get_producer(inputs[0])
    if len(set(map(id, layers))) < len(layers):
        raise _refusal(f"'{network.name}' uses one layer twice")
    return layers


def _describe_layer(layer: keras.layers.Layer) -> dict[str, Any]:
    name = type(layer).__name__
    kind = LAYERS.get(name)
    if kind is None or type(layer) is not kind.layer:
        raise _refusal(f"layer '{layer.name}' is a {name} of {type(layer).__module__}")
    if name == "LayerNormalization" and layer.axis not in (-1, 1, [-1], [1], (-1,), (1,)):
        raise _refusal(f"layer '{layer.name}' has axis={layer.axis}")
    for attribute, expected in kind.fixed.items():
        if getattr(layer, attribute, expected) != expected:
            raise _refusal(f"layer '{layer.name}' has {attribute}={getattr(layer, attribute)!r}")
    description = {"type": name, "name": layer.name, "dtype": layer.dtype_policy.name, "trainable": layer.trainable}
    for field, values in {**_COMMON, **kind.fields}.items():
        value = description.get(field, _value(layer, field))
        if not values.accepts(value):
            raise _refusal(f"layer '{layer.name}' has {field}={value!r}, expected {values.expected}")
        description[field] = value
    return description


def _with_unique_names(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Renames layers of equal names: nested models may each have a layer "dense", one chain may not."""
    names = set()
    for layer in layers:
        name, count = layer["name"], 1
        while layer["name"] in names:
            layer["name"], count = f"{name}_{count}", count + 1
        names.add(layer["name"])
    return layers


def _value(layer: keras.layers.Layer, field: str) -> Any:
    value = getattr(layer, field, None)
    if field == "activation":
        names = [name for name in ACTIVATIONS if getattr(keras.activations, name) is value]
        return names[0] if names else getattr(value, "__name__", repr(value)) + " (not the one of Keras)"
    return value


def _refusal(reason: str) -> UnsafeArtifactError:
    return UnsafeArtifactError(
        f"This network cannot be exported: {reason}. An artifact describes Sequential and functional models that are "
        f"one chain of {', '.join(LAYERS)}, classes of Keras itself, with the activations {', '.join(ACTIVATIONS)}."
    )
