"""The settings of a recipe, which are the flags of its command."""

import argparse
import dataclasses
import functools
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

import tyro

AnySettings = TypeVar("AnySettings", bound="RecipeSettings")


@dataclasses.dataclass(frozen=True)
class RecipeSettings:
    """Base of the settings of a recipe: each field is a setting, a flag of the command, and a key of "config".

    Derive a frozen dataclass, give every field a default and a docstring (the help of its flag), and define `smoke`.
    A field of another dataclass becomes flags with a prefix, `--field.name`. A recipe with presets names the field that
    chooses one in `preset_field`, and returns them by `presets`.
    """

    preset_field: ClassVar[str | None] = None

    @classmethod
    def presets(cls) -> Mapping[str, Self]:
        """Returns the presets by their names, which are the values of `preset_field`."""
        return {}

    def preset(self) -> Self:
        """Returns the preset that these settings start from, or the defaults.

        Raises:
            ValueError: There is no such preset.
        """
        if self.preset_field is None:
            return type(self)()
        field, presets = self.preset_field, self.presets()
        name = getattr(self, field)
        if name not in presets:
            raise ValueError(f"Unknown {field}. Expected one of {sorted(presets)}. Received: {field}={name!r}")
        return presets[name]

    def smoke(self) -> Self:
        """Returns a version of these settings that runs in seconds, to see that everything works."""
        raise NotImplementedError(f"{type(self).__name__} must define `smoke`.")

    def replace(self, **changes: Any) -> Self:
        """Returns these settings with some fields changed."""
        return dataclasses.replace(self, **changes)

    def restricted_to(self, base: type[AnySettings]) -> AnySettings:
        """Returns the fields of a base class alone, e.g. those whose change needs a new tuning."""
        return base(**{field.name: getattr(self, field.name) for field in dataclasses.fields(base)})

    def to_config(self) -> dict[str, Any]:
        """Returns the settings as JSON can hold them: tuples become lists, paths become strings."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=os.fspath))


def run_command(main: Callable[..., Any], *, description: str | None) -> None:
    """Runs `main` with the flags of the command line.

    The fields of the settings are flags without a prefix, beside the other arguments of `main`. A preset is chosen
    first, so that other flags override it: `--setting paper --inner-steps 5`.
    """
    main = _by_module(main)
    signature, settings_type = inspect.signature(main), _settings_type(main)
    annotation = Annotated[settings_type, tyro.conf.arg(name="")]  # no prefix

    @functools.wraps(main)
    def command(**arguments: Any) -> Any:
        return main(**arguments)

    del command.__wrapped__  # the annotations below count, not those of `main`
    default = _chosen_preset(settings_type, sys.argv[1:])
    settings = signature.parameters["settings"].replace(default=default, annotation=annotation)
    command.__signature__ = signature.replace(
        parameters=[settings, *(value for name, value in signature.parameters.items() if name != "settings")]
    )
    command.__annotations__ = {**main.__annotations__, "settings": annotation}
    tyro.cli(command, description=description)


def settings_from_flags(settings_type: type[AnySettings], flags: Sequence[str]) -> AnySettings | None:
    """Returns the settings that flags stand for, as `run_command` reads them, or `None` if they stand for none.

    Here a flag that is on or off takes a value, too: `--cosine-decay False`.
    """
    default, config = _chosen_preset(settings_type, flags), (tyro.conf.FlagConversionOff,)
    try:
        return tyro.cli(settings_type, args=list(flags), default=default, config=config, console_outputs=False)
    except SystemExit:
        return None


def recorded_command(
    main: Callable[..., Any], settings: RecipeSettings, *, seeds: int, first_seed: int, smoke: bool
) -> str:
    """Returns the command that repeats this run; flags at their default, or that of the preset, are left out."""
    command = ["python", f"recipes/{Path(inspect.getsourcefile(main)).name}"]
    preset, defaults, field = settings.preset(), type(settings)(), settings.preset_field
    if field is not None and getattr(preset, field) != getattr(defaults, field):
        command += _flag(field, getattr(preset, field))
    command += _flags(settings, preset)
    command += _flag("seeds", seeds) if seeds != 1 else []
    command += _flag("first_seed", first_seed) if first_seed != 0 else []
    return " ".join(command + (["--smoke"] if smoke else []))


def _by_module(main: Callable[..., Any]) -> Callable[..., Any]:
    """The `main` of the file that is run, from the module of its name, where other processes find its functions."""
    if main.__module__ != "__main__":
        return main
    return getattr(importlib.import_module(Path(inspect.getsourcefile(main)).stem), main.__name__)


def _settings_type(main: Callable[..., Any]) -> type[RecipeSettings]:
    return inspect.signature(main).parameters["settings"].annotation


def _chosen_preset(settings_type: type[AnySettings], arguments: Sequence[str]) -> AnySettings:
    """The preset that the command line names, or the default; a name that is unknown is left to tyro's error."""
    if settings_type.preset_field is None:
        return settings_type()
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(_flag_name(settings_type.preset_field), dest="name", nargs="?")
    return settings_type.presets().get(parser.parse_known_args(arguments)[0].name, settings_type())


def _flag_name(name: str) -> str:
    return "--" + name.replace("_", "-")


def _flags(settings: Any, defaults: Any, prefix: str = "") -> list[str]:
    """The flags of all fields that differ from the defaults; a nested dataclass adds a prefix."""
    flags = []
    for field in dataclasses.fields(settings):
        value, default, name = getattr(settings, field.name), getattr(defaults, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            flags += _flags(value, default, name + ".")
        elif value != default:
            flags += _flag(name, value)
    return flags


def _flag(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [_flag_name(name if value else ".".join([*name.split(".")[:-1], "no_" + name.split(".")[-1]]))]
    return [_flag_name(name), *_words(value)]


def _words(value: Any) -> list[str]:
    """The value of a flag as it is typed: nested tuples one number after the other."""
    return [word for part in value for word in _words(part)] if isinstance(value, (tuple, list)) else [str(value)]
