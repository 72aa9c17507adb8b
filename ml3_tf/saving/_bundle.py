"""The bundle of an artifact: the files from which `load_meta_loss` rebuilds a loss without running a graph.

::

    assets.extra/meta_loss.json           mode, features, network, ... in a closed vocabulary
    assets.extra/meta_loss.safetensors    weights
    assets.extra/self_test.safetensors    a few inputs with values and gradients
    assets.extra/manifest.json            size and SHA-256 of every file of the version
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops

from ml3_tf.feature_layout import FROM_NETWORK, MODES
from ml3_tf.meta_loss import BASES, MetaLoss, TrainingFacts
from ml3_tf.saving import _architecture, _manifest, _probe, _safetensors, _strict_json
from ml3_tf.saving.errors import ArtifactError, CorruptArtifactError, UnsafeArtifactError

_T = TypeVar("_T")
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
    "base": _strict_json.optional(_strict_json.OBJECT),
    "facts": _strict_json.optional(_strict_json.OBJECT),
}
_RANGE = _strict_json.optional(
    _strict_json.Field(
        "two finite numbers in ascending order",
        lambda value: (
            type(value) is list
            and len(value) == 2
            and all(map(_strict_json.NUMBER.accepts, value))
            and value[0] <= value[1]
        ),
    )
)
_FACTS = {
    "optimizer": _strict_json.TEXT,
    "learning_rates": _RANGE,
    "outputs": _strict_json.one_of("probabilities", "numbers"),
    "targets": _RANGE,
}
_BASE_FIELDS = {
    "name": _strict_json.one_of(*BASES),
    "delta": _strict_json.POSITIVE,
    "prior_count": _strict_json.POSITIVE,
    "balance": _strict_json.Field(
        "a finite number of at least 0", lambda value: _strict_json.NUMBER.accepts(value) and value >= 0
    ),
    "q": _strict_json.Field("a number from 0 to 1", lambda value: _strict_json.POSITIVE.accepts(value) and value <= 1),
    "from_logits": _strict_json.BOOLEAN,
    "label_smoothing": _strict_json.Field(
        "a number from 0 to 1", lambda value: _strict_json.NUMBER.accepts(value) and 0 <= value <= 1
    ),
}


def describe(meta_loss: MetaLoss) -> dict[str, Any]:
    """Returns the description of a loss, in the vocabulary of `read`.

    Raises:
        UnsafeArtifactError: The loss or its network cannot be described.
    """
    if type(meta_loss) is not MetaLoss:
        raise UnsafeArtifactError(
            f"Only a `MetaLoss` can be exported: the methods of a subclass would be lost. Received: {meta_loss!r}"
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
        "base": meta_loss.base and meta_loss.base.get_config(),
        "facts": meta_loss.facts and meta_loss.facts.get_config(),
    }


def write(meta_loss: MetaLoss, folder: str | Path) -> None:
    """Writes the bundle of a loss into the folder of a version, which already holds all its other files.

    The bundle is read back, so that no artifact is exported that would be refused.
    """
    folder = Path(folder)
    weights: dict[str, Any] = {
        name: ops.convert_to_numpy(variable) for name, variable in get_weights(meta_loss).items()
    }
    (folder / "assets.extra").mkdir(exist_ok=True)
    description = describe(meta_loss)
    (folder / _manifest.DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    (folder / _manifest.WEIGHTS).write_bytes(_safetensors.to_bytes(weights))
    (folder / _manifest.SELF_TEST).write_bytes(
        _probe.record(meta_loss, build_in("float64", description, weights), description)
    )
    _manifest.write(folder)
    read(folder)


def read(
    folder: str | Path,
    expected_sha256: str | None = None,
    dtype: str | None = None,
    begin_check: _manifest.BeginCheck = _manifest.tell_nobody,
) -> MetaLoss:
    """Returns the `MetaLoss` of the bundle in the folder of a version.

    Args:
        folder: The folder of one version.
        expected_sha256: Optional SHA-256 of its `assets.extra/manifest.json`.
        dtype: Optional dtype in place of that of the bundle.
        begin_check: Function that is told the name of each check before it runs.

    Raises:
        ValueError: See `build_in`.
        ArtifactError: The bundle is refused, see `ml3_tf.saving.errors`.
        OSError: A file cannot be read.
    """
    files = _manifest.read(folder, expected_sha256, begin_check)
    begin_check("description: it has known words alone")
    description = _strict_json.parse(files[_manifest.DESCRIPTION], source := f"{folder}/{_manifest.DESCRIPTION}")
    if type(description) is dict:
        for key in ("score_network", "base", "facts"):
            description.setdefault(key, None)  # the first artifacts of this format have no such keys
    check(description, source)
    shapes = _join_names({name: _architecture.weight_shapes(network) for name, network in _networks(description)})
    if type(description["learning_rate"]) is not str and description["learning_rate"] is not None:
        shapes["log_rate"] = ()
    begin_check("weights: they fit the description and are finite")
    values = _safetensors.from_bytes(files[_manifest.WEIGHTS], shapes, f"{folder}/{_manifest.WEIGHTS}")
    begin_check("network: it is built from the description")
    meta_loss = _build(description, source)
    begin_check("self-test: the loss has the recorded values and gradients")
    _probe.check(description, values, files[_manifest.SELF_TEST], f"{folder}/{_manifest.SELF_TEST}")
    if dtype is not None:
        return build_in(dtype, description, values)
    _assign(meta_loss, values)
    return meta_loss


def check(description: Any, source: str) -> None:
    """Raises `ArtifactError` unless `description` describes a loss within the limits; builds nothing."""
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
    if description["facts"] is not None:
        _strict_json.check_fields(description["facts"], _FACTS, source, "the facts")
    if description["base"] is not None:
        name: Any = description["base"].get("name")
        _strict_json.check_value(name, _BASE_FIELDS["name"], source, "'name' of the base")
        fields = {key: _BASE_FIELDS[key] for key in ("name", *BASES[name])}
        _strict_json.check_fields(description["base"], fields, source, f"the base ({name})")


def get_weights(meta_loss: MetaLoss) -> dict[str, keras.Variable]:
    """Returns the variables of a loss, by their names in the bundle."""
    networks = {"": meta_loss.network, "score.": meta_loss.score_network}
    weights = _join_names(
        {prefix: _architecture.get_weights(network) for prefix, network in networks.items() if network}
    )
    if meta_loss.learned_rate is not None:
        weights["log_rate"] = meta_loss.learned_rate.log_rate
    return weights


def build_in(dtype: str, description: dict[str, Any], weights: Mapping[str, np.ndarray]) -> MetaLoss:
    """Returns the described loss with all its layers in a dtype of `_architecture.FLOATS`.

    Raises:
        ValueError: Another dtype, or a weight that is too large for it.
    """
    if dtype not in _architecture.FLOATS:
        raise ValueError(f"`dtype` must be one of {_architecture.FLOATS}. Received: dtype={dtype!r}")
    changed = copy.deepcopy(description) | {"dtype": dtype}
    for _, network in _networks(changed):
        network["input_dtype"] = dtype
        for layer in network["layers"]:
            layer["dtype"] = dtype
    meta_loss = _build(changed, description["name"])
    with np.errstate(over="ignore"):  # it is refused below
        _assign(meta_loss, {name: values.astype("float64") for name, values in weights.items()})
    for name, variable in get_weights(meta_loss).items():
        if not np.all(np.isfinite(np.asarray(ops.convert_to_numpy(ops.cast(variable, "float64"))))):
            raise ValueError(f"The weight '{name}' of '{description['name']}' is too large for dtype={dtype!r}.")
    return meta_loss


def _networks(description: dict[str, Any]) -> list[tuple[str, Any]]:
    """The described networks, each with the prefix for the names of its weights."""
    networks = {"": description["network"], "score.": description["score_network"]}
    return [(prefix, network) for prefix, network in networks.items() if network is not None]


def _join_names(weights: Mapping[str, Mapping[str, _T]]) -> dict[str, _T]:
    """`{prefix: {name: weight}}` as `{prefix + name: weight}`."""
    return {prefix + name: weight for prefix, named in weights.items() for name, weight in named.items()}


def _build(description: dict[str, Any], source: str) -> MetaLoss:
    features = {feature["name"]: feature["width"] for feature in description["features"]}
    try:
        names = [name for name in ("network", "score_network") if description[name] is not None]
        networks = {name: _architecture.build(description[name]) for name in names}
        arguments = {**description, "features": features, **networks}
        facts = arguments.pop("facts")
        meta_loss = MetaLoss(**arguments)
    except ArtifactError:
        raise
    except ValueError as error:  # each value is allowed, but they do not fit together
        raise CorruptArtifactError(f"'{source}' does not describe a valid loss: {error}") from error
    meta_loss.facts = facts and TrainingFacts.from_config(facts)
    return meta_loss


def _assign(meta_loss: MetaLoss, weights: Mapping[str, np.ndarray]) -> None:
    for name, variable in get_weights(meta_loss).items():
        variable.assign(weights[name])
