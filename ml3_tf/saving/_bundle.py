"""The bundle of an artifact: what `load_meta_loss` rebuilds a loss from, without running a graph.

::

    assets.extra/meta_loss.json           mode, features, network, ... in a closed vocabulary
    assets.extra/meta_loss.safetensors    weights
    assets.extra/_probe.safetensors    a few inputs with values and gradients
    assets.extra/manifest.json            size and SHA-256 of every file of the version
"""

import copy
import json
from pathlib import Path

from keras import ops

from ml3_tf.feature_layout import FROM_NETWORK, MODES
from ml3_tf.meta_loss import MetaLoss
from ml3_tf.saving.errors import ArtifactError, CorruptArtifactError, UnsafeArtifactError
from ml3_tf.saving import _architecture, _manifest, _probe, _safetensors, _strict_json

MAX_FEATURES = 64
_RATE = _strict_json.Field(
    f"null, '{FROM_NETWORK}' or a positive finite number",
    lambda value: value in (None, FROM_NETWORK) or _strict_json.POSITIVE.accepts(value),
)
_FEATURE = {"name": _strict_json.TEXT, "width": _strict_json.integer(1, _architecture.MAX_WIDTH)}
_META_LOSS = {
    "name": _strict_json.TEXT,
    "mode": _strict_json.one_of(*MODES),
    "features": _strict_json.LIST,
    "input_scale": _strict_json.optional(_strict_json.LIST),
    "learning_rate": _RATE,
    "reduction": _strict_json.one_of(None, "none", "sum", "sum_over_batch_size", "mean", "mean_with_sample_weight"),
    "dtype": _strict_json.one_of(*_architecture.FLOATS),
    "network": _strict_json.OBJECT,
    "score_network": _strict_json.optional(_strict_json.OBJECT),
}


def describe(meta_loss):
    """Returns the description of a loss, in the words that `read` knows.

    Raises:
        UnsafeArtifactError: The loss or its network cannot be described.
    """
    if type(meta_loss) is not MetaLoss:
        raise UnsafeArtifactError(
            f"Only a `MetaLoss` itself is exported: the methods of a subclass would be lost. Received: {meta_loss!r}"
        )
    return {
        "name": meta_loss.name,
        "mode": meta_loss.mode,
        "features": [{"name": name, "width": width} for name, width in meta_loss.features.items()],
        "input_scale": meta_loss.input_scale,
        "learning_rate": meta_loss.learning_rate,
        "reduction": meta_loss.reduction,
        "dtype": meta_loss.dtype,
        "network": _architecture.describe(meta_loss.network),
        "score_network": meta_loss.score_network and _architecture.describe(meta_loss.score_network),
    }


def write(meta_loss, version):
    """Writes the bundle of a loss into the folder `version`, which holds all its other files already.

    What was written is read back, so that no artifact is exported that would be refused.
    """
    version = Path(version)
    weights = {name: ops.convert_to_numpy(variable) for name, variable in _weights(meta_loss).items()}
    (version / "assets.extra").mkdir(exist_ok=True)
    description = describe(meta_loss)
    (version / _manifest.DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    (version / _manifest.WEIGHTS).write_bytes(_safetensors.to_bytes(weights))
    (version / _manifest.SELF_TEST).write_bytes(
        _probe.record(meta_loss, _in_float64(description, weights), description)
    )
    _manifest.write(version)
    read(version)


def read(version, expected_sha256=None):
    """Returns the `MetaLoss` of the bundle in the folder `version`.

    Args:
        version: The folder of one version.
        expected_sha256: Optional SHA-256 of its `assets.extra/manifest.json`.

    Raises:
        ArtifactError: It is refused, see `ml3_tf.saving.errors`.
        OSError: A file cannot be read.
    """
    files = _manifest.read(version, expected_sha256)
    description = _strict_json.parse(files[_manifest.DESCRIPTION], source := f"{version}/{_manifest.DESCRIPTION}")
    if type(description) is dict:
        description.setdefault("score_network", None)  # the first artifacts of this format knew no per-set losses
    check(description, source)
    shapes = _by_name({name: _architecture.weight_shapes(network) for name, network in _networks(description)})
    if type(description["learning_rate"]) is not str and description["learning_rate"] is not None:
        shapes["log_rate"] = ()
    values = _safetensors.from_bytes(files[_manifest.WEIGHTS], shapes, f"{version}/{_manifest.WEIGHTS}")
    meta_loss = _build(description, source)
    _probe.check(description, values, files[_manifest.SELF_TEST], f"{version}/{_manifest.SELF_TEST}")
    _assign(meta_loss, values)
    return meta_loss


def check(description, source):
    """Raises unless `description` is one of a loss within the limits; builds nothing."""
    _strict_json.check_fields(description, _META_LOSS, source, "the loss")
    features, scale = description["features"], description["input_scale"] or []
    if len(features) > MAX_FEATURES:
        raise UnsafeArtifactError(f"'{source}': {len(features)} features. At most {MAX_FEATURES}.")
    for index, feature in enumerate(features):
        _strict_json.check_fields(feature, _FEATURE, source, f"feature {index}")
    if len({feature["name"] for feature in features}) < len(features):
        raise CorruptArtifactError(f"'{source}': two features have the same name.")
    for index, value in enumerate(scale):
        _strict_json.check_value(value, _strict_json.POSITIVE, source, f"'input_scale' {index}")
    for _, network in _networks(description):
        _architecture.check(network, source)


def _networks(description):
    """Pairs of a prefix for the names of weights, and the description of a network."""
    networks = {"": description["network"], "score.": description["score_network"]}
    return [(prefix, network) for prefix, network in networks.items() if network is not None]


def _by_name(weights):
    """Prefix -> name -> weight, as prefix and name -> weight."""
    return {prefix + name: weight for prefix, named in weights.items() for name, weight in named.items()}


def _build(description, source):
    features = {feature["name"]: feature["width"] for feature in description["features"]}
    try:
        names = [name for name in ("network", "score_network") if description[name] is not None]
        networks = {name: _architecture.build(description[name]) for name in names}
        return MetaLoss(**{**description, "features": features, **networks})
    except ArtifactError:
        raise
    except ValueError as error:  # each value is allowed, but they do not fit together
        raise CorruptArtifactError(f"'{source}' describes no loss: {error}") from error


def _in_float64(description, weights):
    """The described loss with all its layers in float64."""
    exact = copy.deepcopy(description) | {"dtype": "float64"}
    for _, network in _networks(exact):
        network["input_dtype"] = "float64"
        for layer in network["layers"]:
            layer["dtype"] = "float64"
    meta_loss = _build(exact, description["name"])
    _assign(meta_loss, {name: values.astype("float64") for name, values in weights.items()})
    return meta_loss


def _assign(meta_loss, weights):
    for name, variable in _weights(meta_loss).items():
        variable.assign(weights[name])


def _weights(meta_loss):
    networks = {"": meta_loss.network, "score.": meta_loss.score_network}
    weights = _by_name({prefix: _architecture.weights(network) for prefix, network in networks.items() if network})
    if meta_loss.learned_rate is not None:
        weights["log_rate"] = meta_loss.learned_rate.log_rate
    return weights
