"""The networks that an artifact can describe: chains of the layers in one table, `LAYERS`, and nothing else.

A description is JSON of our own, not a Keras configuration: it has no module names, code or paths, and each word in it
comes from an enumeration. It holds what a network computes. Initializers, regularizers and constraints, which only
training uses, are not kept.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import keras

from ml3_tf.saving.errors import UnsafeArtifactError
from ml3_tf.saving import _strict_json

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
    """How one kind of layer is described.

    Args:
        layer: The Keras class. A subclass is another class, with code of its own.
        fields: Its constructor arguments that are kept, each with the values it may have.
        weights: Function of the description and the input width that gives the shape of each weight, by attribute.
        fixed: Attributes with the only value that can be described.
        initial: Constructor arguments that keep a layer from drawing weights which the artifact's replace: a process
            that draws its first random numbers waits longer for them than for the whole rest of loading.
    """

    layer: type
    fields: Mapping[str, _strict_json.Field]
    weights: Callable[[dict, int], dict[str, tuple[int, ...]]] = lambda description, width: {}
    fixed: Mapping[str, object] = {}
    initial: Mapping[str, object] = {}


def _dense_weights(description, width):
    units = description["units"]
    return {"kernel": (width, units), **({"bias": (units,)} if description["use_bias"] else {})}


def _normalization_weights(description, width):
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


def describe(network):
    """Returns the description of a built Keras network.

    Raises:
        UnsafeArtifactError: The network is no chain of `LAYERS`; the message names the layer and what is possible.
    """
    return {
        "name": network.name,
        "input_width": network.input_shape[-1],
        "input_dtype": network.inputs[0].dtype,
        "layers": _with_unique_names([_describe_layer(layer) for layer in chain(network)]),
    }


def check(description, source):
    """Raises unless `description` is one of a network that fits the limits; builds nothing."""
    _strict_json.check_fields(description, _NETWORK, source, "the network")
    layers = description["layers"]
    if not 1 <= len(layers) <= MAX_LAYERS:
        raise UnsafeArtifactError(f"'{source}': a network of {len(layers)} layers. Expected 1 to {MAX_LAYERS}.")
    for index, layer in enumerate(layers):
        kind = layer.get("type") if type(layer) is dict else None
        _strict_json.check_value(kind, _COMMON["type"], source, f"'type' of layer {index}")
        _strict_json.check_fields(layer, {**_COMMON, **LAYERS[kind].fields}, source, f"layer {index} ({kind})")
    parameters = sum(math.prod(shape) for shape in weight_shapes(description).values())
    if parameters > MAX_PARAMETERS:
        raise UnsafeArtifactError(f"'{source}': a network of {parameters} parameters. At most {MAX_PARAMETERS}.")


def weight_shapes(description):
    """Returns the shape of each weight, `{"layers.0.kernel": (2, 40), ...}`, of a checked description."""
    shapes, width = {}, description["input_width"]
    for index, layer in enumerate(description["layers"]):
        weights = LAYERS[layer["type"]].weights(layer, width)
        shapes |= {f"layers.{index}.{name}": shape for name, shape in weights.items()}
        width = layer.get("units", width)
    return shapes


def build(description):
    """Returns the `keras.Sequential` of a checked description, with weights still to be set."""
    layers = []
    for layer in description["layers"]:
        arguments = {name: value for name, value in layer.items() if name != "type"}
        kind = LAYERS[layer["type"]]
        layers.append(kind.layer(**arguments, **kind.initial))
    inputs = keras.Input((description["input_width"],), dtype=description["input_dtype"])
    return keras.Sequential([inputs, *layers], name=description["name"])


def weights(network):
    """Returns the Keras variables of a network that can be described, by the names of `weight_shapes`."""
    variables = {}
    for index, layer in enumerate(chain(network)):
        for variable in layer.weights:
            variables[f"layers.{index}.{variable.name}"] = variable
    return variables


def chain(network):
    """Returns the layers of a Sequential or functional model in the order of the computation, nested models opened."""
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        raise _refusal(f"'{network.name}' has {len(network.inputs)} inputs and {len(network.outputs)} outputs")
    layers, tensor = [], network.outputs[0]
    while not isinstance(operation := tensor._keras_history.operation, keras.layers.InputLayer):
        inputs = operation._inbound_nodes[tensor._keras_history.node_index].input_tensors
        if len(inputs) != 1:
            raise _refusal(f"'{operation.name}' ({type(operation).__name__}) has {len(inputs)} inputs")
        nested = isinstance(operation, keras.Model) and hasattr(operation, "inputs")
        layers = (chain(operation) if nested else [operation]) + layers
        tensor = inputs[0]
    if len(set(map(id, layers))) < len(layers):
        raise _refusal(f"'{network.name}' uses one layer twice")
    return layers


def _describe_layer(layer):
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


def _with_unique_names(layers):
    """Nested models may each have a layer "dense"; in one chain, a name comes once."""
    names = set()
    for layer in layers:
        name, count = layer["name"], 1
        while layer["name"] in names:
            layer["name"], count = f"{name}_{count}", count + 1
        names.add(layer["name"])
    return layers


def _value(layer, field):
    value = getattr(layer, field, None)
    if field == "activation":
        names = [name for name in ACTIVATIONS if getattr(keras.activations, name) is value]
        return names[0] if names else getattr(value, "__name__", repr(value)) + " (not that of Keras)"
    return value


def _refusal(reason):
    return UnsafeArtifactError(
        f"This network cannot be exported: {reason}. An artifact describes Sequential and functional models that are "
        f"one chain of {', '.join(LAYERS)}, each of Keras itself, with the activations {', '.join(ACTIVATIONS)}."
    )
