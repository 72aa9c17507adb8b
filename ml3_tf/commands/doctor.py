"""The checks of the installation: each is a finding that says what is there, and how to mend what is not."""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import keras

import ml3_tf
from ml3_tf.commands import requirements
from ml3_tf.commands.requirements import Package
from ml3_tf.saving import list_meta_losses, verify_export

Status = Literal["ok", "note", "failed"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        subject: The thing.
        status: "ok"; "note" where something is missing that not everybody needs; "failed".
        detail: What was found.
        remedy: What to do; an empty text: nothing.
    """

    subject: str
    status: Status
    detail: str
    remedy: str = ""


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """All findings about an installation, in their order."""

    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing that is needed is wrong."""
        return all(finding.status != "failed" for finding in self.findings)


def diagnose() -> Diagnosis:
    """Returns what is there and what is missing: versions, backend, devices, extras, shipped losses.

    Example:

    >>> [finding.subject for finding in diagnose().findings][0]
    'Python'
    """
    return Diagnosis((*_look_at_packages(), *_look_at_keras(), *_look_at_losses()))


def _look_at_packages() -> Iterator[Finding]:
    try:
        bounds = requirements.python_bounds()
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            "ml3_tf",
            "failed",
            f"{ml3_tf.__version__}, imported from {Path(ml3_tf.__file__).parent}, is not installed: nothing says which "
            "packages it needs",
            "pip install . in the checkout",
        )
        return
    yield _look_at_package(Package("Python", bounds, platform.python_version()))
    yield Finding("ml3_tf", "ok", f"{ml3_tf.__version__}, in {Path(ml3_tf.__file__).parent}")
    yield from map(_look_at_package, requirements.needed_packages())
    for extra, packages in requirements.packages_of_extras().items():
        yield _look_at_extra(extra, packages)


def _look_at_package(package: Package) -> Finding:
    detail = f"{package.installed or 'not installed'} (needs {package.bounds or 'any version'})"
    if package.fits:
        return Finding(package.name, "ok", detail)
    if package.name == "Python":
        return Finding(package.name, "failed", detail, f"use Python {package.bounds}")
    if package.name == "tensorflow" and keras.backend.backend() != "tensorflow":
        return Finding(
            package.name,
            "note",
            f"{detail}: without it losses are loaded and used, but not learned",
            "pip install ml3_tf",
        )
    return Finding(package.name, "failed", detail, f"pip install '{package.name}{package.bounds}'")


def _look_at_extra(extra: str, packages: list[Package]) -> Finding:
    missing = [
        f"{package.name} {package.bounds} ({package.installed or 'not installed'})"
        for package in packages
        if not package.fits
    ]
    if missing:
        return Finding(f"[{extra}]", "note", f"missing: {', '.join(missing)}", f"pip install 'ml3_tf[{extra}]'")
    return Finding(f"[{extra}]", "ok", ", ".join(f"{package.name} {package.installed}" for package in packages))


def _look_at_keras() -> Iterator[Finding]:
    backend = keras.backend.backend()
    if backend == "tensorflow":
        yield Finding("Keras backend", "ok", backend)
    else:
        detail = f"{backend}: losses are loaded and used, but learned on TensorFlow alone"
        yield Finding("Keras backend", "note", detail, "KERAS_BACKEND=tensorflow")
    try:
        devices = ", ".join(keras.distribution.list_devices())
    except Exception as error:  # drivers fail in many ways, and the other findings are wanted all the more
        yield Finding("devices", "note", f"could not be listed: {error}")
    else:
        yield Finding("devices", "ok", devices)


def _look_at_losses() -> Iterator[Finding]:
    names = list_meta_losses().names
    if not names:
        yield Finding("shipped losses", "failed", "none are installed", "install ml3_tf again")
    for name in names:
        try:
            reason = "".join(check.reason for check in verify_export(name).checks)
        except OSError as error:
            reason = str(error)
        if reason:
            yield Finding(f"loss {name}", "failed", reason, "install ml3_tf again")
    if names:
        yield Finding("shipped losses", "ok", f"{len(names)} were checked: {', '.join(names)}")
