"""The grid of a sweep: from the words of the command to settings of a recipe."""

import dataclasses
import itertools
import operator
import re
import typing
from collections.abc import Sequence
from typing import Any, NamedTuple

from parts.settings import RecipeSettings, settings_from_flags


class Point(NamedTuple):
    """One combination of values."""

    name: str
    """E.g. `outer_rate=0.001,activation=silu`, which is its folder, too."""
    values: dict[str, Any]
    """Name of each setting of the grid -> its value."""
    flags: tuple[str, ...]
    """The flags that set these values, for `settings_from_flags`."""
    settings: RecipeSettings
    """All settings of the recipe."""


def read_grid(settings_type: type[RecipeSettings], texts: Sequence[str]) -> list[Point]:
    """Returns all combinations of the values of a grid.

    Args:
        settings_type: The `Settings` of a recipe.
        texts: One text `NAME=VALUE,VALUE` for each setting. A value is typed as in the flag of the setting: a tuple has
            spaces between its numbers. The field of a field is `NAME.NAME`. No text: the recipe's defaults alone.

    Returns:
        The points, the last name varying fastest.

    Raises:
        ValueError: A text is not of this form, a setting does not exist or comes twice, or a value is not of its type
            or comes twice.
    """
    axes = [_read_axis(settings_type, text) for text in texts]
    names = [name for name, _ in axes]
    if len({*names}) < len(names):
        raise ValueError(f"Each setting must come once in `--grid`. Received: {', '.join(names)}")
    points = [
        _point(settings_type, dict(zip(names, values))) for values in itertools.product(*(values for _, values in axes))
    ]
    folders = [point.name for point in points]
    if len({*folders}) < len(folders):
        raise ValueError(f"Each value of `--grid` must come once. Received: {' '.join(texts)}")
    return points


def setting_types(settings_type: type, prefix: str = "") -> dict[str, Any]:
    """Returns the name of each setting with its type; those of a nested dataclass have its name before them."""
    types = {}
    for name, kind in typing.get_type_hints(settings_type).items():
        if name not in {field.name for field in dataclasses.fields(settings_type)}:
            continue  # a variable of the class
        types |= setting_types(kind, f"{prefix}{name}.") if dataclasses.is_dataclass(kind) else {prefix + name: kind}
    return types


def _read_axis(settings_type: type[RecipeSettings], text: str) -> tuple[str, list[str]]:
    name, _, values = text.partition("=")
    types = setting_types(settings_type)
    if not values:
        raise ValueError(f"`--grid` expects NAME=VALUE,VALUE, e.g. outer_rate=1e-3,3e-3. Received: {text!r}")
    if name not in types:
        raise ValueError(f"`--grid` expects a setting of the recipe, one of {', '.join(types)}. Received: {name!r}")
    for value in values.split(","):
        if settings_from_flags(settings_type, _flags({name: value})) is None:
            kind = types[name].__name__ if isinstance(types[name], type) else types[name]
            raise ValueError(f"`--grid {name}=...` expects values of the type {kind}. Received: {value!r}")
    return name, values.split(",")


def _flags(values: dict[str, str]) -> tuple[str, ...]:
    return tuple(word for name, value in values.items() for word in ("--" + name.replace("_", "-"), *value.split()))


def _point(settings_type: type[RecipeSettings], texts: dict[str, str]) -> Point:
    flags = _flags(texts)
    settings = settings_from_flags(settings_type, flags)
    if settings is None:
        raise ValueError(f"The recipe does not take these values of `--grid` together: {' '.join(flags)}")
    values = {name: operator.attrgetter(name)(settings) for name in texts}
    name = ",".join(f"{name}={_text(value)}" for name, value in values.items())
    return Point(name or "defaults", values, flags, settings)


def _text(value: Any) -> str:
    """A value as the name of a folder has it: `0.001` for `1e-3`, `4_7` for `(4, 7)`."""
    return re.sub(r"[^\w.+-]+", "_", str(value)).strip("_")
