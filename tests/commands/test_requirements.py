"""Tests of `ml3_tf.commands.requirements`: what the metadata ask for, against what is installed."""

import importlib.metadata
import tomllib
from email.message import Message
from pathlib import Path

import pytest

from ml3_tf.commands import requirements
from ml3_tf.commands.requirements import Package, needed_packages, packages_of_extras, python_bounds

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def metadata(monkeypatch):
    """The metadata of an installed ml3_tf with two extras, of which one includes the other."""
    message = Message()
    for extra in ("plot", "all", "gpu", "test"):
        message["Provides-Extra"] = extra
    message["Requires-Python"] = ">=3.11"
    asked = [
        "numpy>=1.26",
        'never>=1; python_version < "3"',
        'matplotlib>=99; extra == "plot"',
        'ml3-tf[plot]; extra == "all"',
        'no-such-package>=1; extra == "all"',
    ]
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: message)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: asked)


def test_needed_packages_are_those_of_this_platform(metadata):
    [package] = needed_packages()
    assert (package.name, package.bounds) == ("numpy", ">=1.26") and package.fits
    assert python_bounds() == ">=3.11"


def test_extras_include_each_other_and_those_of_developers_and_devices_are_left_out(metadata):
    extras = packages_of_extras()
    assert list(extras) == ["all", "plot"]
    assert [package.name for package in extras["all"]] == ["matplotlib", "no-such-package"]
    matplotlib, unknown = extras["all"]
    assert matplotlib.installed and not matplotlib.fits  # too old
    assert unknown.installed is None and not unknown.fits


@pytest.mark.parametrize(
    "bounds, installed, fits",
    [
        (">=2.21", "2.21.0", True),
        (">=2.21", "2.22.0rc1", True),
        (">=2.21", "2.20.1", False),
        (">=3.15.1,<3.16", "3.16.0", False),
        ("", "0.1", True),
        ("", None, False),
    ],
)
def test_a_version_fits_its_bounds(bounds, installed, fits):
    assert Package("keras", bounds, installed).fits is fits


def test_the_needed_packages_are_those_of_the_project():
    assert sorted(package.name + package.bounds for package in needed_packages() if package.name != "keras") == sorted(
        text for text in PROJECT["dependencies"] if not text.startswith("keras")
    )
    assert set(requirements.FOR_DEVELOPERS) < set(PROJECT["optional-dependencies"])
