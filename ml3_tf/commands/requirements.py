"""The packages that the metadata of ml3_tf ask for, and those that are installed."""

import dataclasses
import importlib.metadata
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

DISTRIBUTION = "ml3_tf"
FOR_DEVELOPERS = ("bench", "docs", "test")  # extras that only a checkout needs
FOR_DEVICES = ("gpu",)  # TensorFlow once more, with libraries of its own: the devices tell whether they are there


@dataclasses.dataclass(frozen=True)
class Package:
    """A package that is asked for.

    Args:
        name: Its name.
        bounds: The versions that will do, such as ">=1.26"; an empty text: all.
        installed: The version that is installed; `None`: it is not.
    """

    name: str
    bounds: str
    installed: str | None

    @property
    def fits(self) -> bool:
        """Whether it is installed in a version that will do."""
        return self.installed is not None and SpecifierSet(self.bounds).contains(self.installed, prereleases=True)


def needed_packages() -> list[Package]:
    """Returns the packages that ml3_tf always needs.

    Raises:
        importlib.metadata.PackageNotFoundError: ml3_tf is not installed, but imported from a folder.

    Example:

    >>> [package.name for package in needed_packages()]
    ['keras', 'numpy', 'safetensors', 'tensorflow']
    """
    return [_look_up(requirement) for requirement in _requirements("")]


def packages_of_extras() -> dict[str, list[Package]]:
    """Returns the packages of each extra for users, those of extras that it includes among them.

    Raises:
        importlib.metadata.PackageNotFoundError: ml3_tf is not installed, but imported from a folder.

    Example:

    >>> [package.name for package in packages_of_extras()["plot"]]
    ['matplotlib', 'pillow']
    """
    extras = importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    packages = {}
    for extra in sorted(set(extras) - {*FOR_DEVELOPERS, *FOR_DEVICES}):
        found = {requirement.name: _look_up(requirement) for requirement in _requirements(extra)}
        packages[extra] = [found[name] for name in sorted(found)]
    return packages


def python_bounds() -> str:
    """Returns the versions of Python that will do.

    >>> python_bounds()
    '>=3.11'
    """
    return importlib.metadata.metadata(DISTRIBUTION).get("Requires-Python") or ""


def _requirements(extra: str) -> Iterator[Requirement]:
    """The requirements of an extra, or of ml3_tf itself if it is empty."""
    for requirement in map(Requirement, importlib.metadata.requires(DISTRIBUTION) or []):
        of_all = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        of_extra = requirement.marker is not None and requirement.marker.evaluate({"extra": extra})
        if of_all if extra == "" else of_extra and not of_all:
            if requirement.name.replace("-", "_") == DISTRIBUTION:
                for included in requirement.extras:
                    yield from _requirements(included)
            else:
                yield requirement


def _look_up(requirement: Requirement) -> Package:
    try:
        installed = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        installed = None
    return Package(requirement.name, str(requirement.specifier), installed)
