"""Tests of `ml3_tf.commands.doctor`: each thing that may be wrong is found, with the way to mend it."""

import importlib.metadata

import keras
import pytest

from ml3_tf.commands import doctor, requirements
from ml3_tf.commands.doctor import diagnose
from ml3_tf.commands.requirements import Package
from ml3_tf.saving import catalog


def finding_about(subject):
    return next(finding for finding in diagnose().findings if finding.subject == subject)


@pytest.fixture
def packages(monkeypatch):
    """A function that sets the packages that are needed, and those of the extra `[plot]`."""

    def set_packages(needed=(), of_plot=()):
        monkeypatch.setattr(requirements, "needed_packages", lambda: list(needed))
        monkeypatch.setattr(requirements, "packages_of_extras", lambda: {"plot": list(of_plot)})

    return set_packages


def test_this_installation_is_fit():
    diagnosis = diagnose()
    assert diagnosis.passed
    subjects = [finding.subject for finding in diagnosis.findings]
    for subject in ("Python", "keras", "numpy", "tensorflow", "[plot]", "Keras backend", "devices", "shipped losses"):
        assert subject in subjects
    assert finding_about("keras").detail.startswith(keras.__version__)
    assert "cpu" in finding_about("devices").detail.lower()


@pytest.mark.parametrize("installed", [None, "3.14.0"])
def test_a_needed_package_that_is_missing_or_too_old_fails(packages, installed):
    packages(needed=[Package("keras", ">=3.15.1,<3.16", installed)])
    assert not diagnose().passed
    finding = finding_about("keras")
    assert finding.status == "failed" and finding.remedy == "pip install 'keras>=3.15.1,<3.16'"
    assert finding.detail == f"{installed or 'not installed'} (needs >=3.15.1,<3.16)"


def test_another_python_fails(monkeypatch):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.10.2")
    assert not diagnose().passed
    assert finding_about("Python").remedy == "use Python >=3.11"


def test_a_missing_extra_is_a_note_with_the_line_that_brings_it(packages):
    packages(of_plot=[Package("matplotlib", ">=3.9", "3.8.1"), Package("pillow", ">=10.1", "13.0.0")])
    assert diagnose().passed
    finding = finding_about("[plot]")
    assert finding.status == "note" and finding.remedy == "pip install 'ml3_tf[plot]'"
    assert finding.detail == "missing: matplotlib >=3.9 (3.8.1)"
    packages(of_plot=[Package("pillow", ">=10.1", "13.0.0")])
    assert finding_about("[plot]").detail == "pillow 13.0.0"


def test_tensorflow_is_needed_on_its_own_backend_alone(packages, monkeypatch):
    packages(needed=[Package("tensorflow", ">=2.21", None)])
    assert finding_about("tensorflow").status == "failed"
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert diagnose().passed
    assert finding_about("tensorflow").status == finding_about("Keras backend").status == "note"
    assert "learned on TensorFlow alone" in finding_about("Keras backend").detail


def test_a_folder_that_is_not_installed_fails(monkeypatch):
    def metadata(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "metadata", metadata)
    assert not diagnose().passed
    finding = finding_about("ml3_tf")
    assert "is not installed" in finding.detail and finding.remedy == "pip install . in the checkout"


def test_drivers_that_fail_end_no_diagnosis(monkeypatch):
    def list_devices():
        raise RuntimeError("no driver")

    monkeypatch.setattr(keras.distribution, "list_devices", list_devices)
    assert finding_about("devices").detail == "could not be listed: no driver"
    assert diagnose().passed


def test_an_installation_without_losses_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "SHIPPED", tmp_path / "nowhere")
    assert not diagnose().passed
    assert finding_about("shipped losses").detail == "none are installed"


def test_a_folder_without_a_version_fails(tmp_path, monkeypatch):
    (tmp_path / "sine").mkdir()
    monkeypatch.setattr(catalog, "SHIPPED", tmp_path)
    finding = finding_about("loss sine")
    assert finding.status == "failed" and "is not the folder of an exported loss" in finding.detail
