"""Tests of the public surface: names, docstrings and their examples, imports, the version, and the tests themselves."""

import doctest
import importlib
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools

import ml3_tf

ROOT = Path(__file__).resolve().parents[1]
PUBLIC_OBJECTS = sorted(set(ml3_tf.__all__) - {"__version__"})
MODULES = [
    *("demonstrations", "dynamics", "dynamics_refit", "example_sets", "experience", "inner_loop", "inner_optimizer"),
    *("learner", "meta_loss", "meta_trainer", "model_based", "model_free", "on_policy", "policies", "policy_gradient"),
    *("rollouts", "sampling", "saving", "task_map", "tasks"),
    *("baselines.behavior_cloning", "baselines.box_qp", "baselines.ilqr", "baselines.model_gradient", "baselines.ppo"),
    *("envs.ant", "envs.batched", "envs.mountain_car", "envs.pointmass", "envs.reacher"),
]
# Untested by design: they hold names alone.
WITHOUT_TESTS = {"__init__", "version"}

IMPORT = """
import json, sys, time
import keras, tensorflow
before, start = set(sys.modules), time.perf_counter()
import ml3_tf
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "all": sorted(sys.modules), "added": sorted(set(sys.modules) - before)}))
"""


@pytest.fixture(scope="module")
def imported():
    """What importing ml3_tf, after keras and tensorflow, does in a fresh process."""
    process = subprocess.run([sys.executable, "-c", IMPORT], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def packages(modules):
    return {module.split(".")[0] for module in modules}


def test_all_names_what_the_design_promises():
    promised = {"LearnedRate", "MetaLoss", "MetaTrainer", "__version__", "load_meta_loss", "meta_test", "sine_tasks"}
    assert promised <= set(ml3_tf.__all__)
    assert len(set(ml3_tf.__all__)) == len(ml3_tf.__all__)


def test_star_import_gives_all():
    names = {}
    exec("from ml3_tf import *", names)
    assert set(ml3_tf.__all__) <= set(names)


def test_dir_names_all_before_anything_is_used():
    command = [sys.executable, "-c", "import json, ml3_tf; print(json.dumps(dir(ml3_tf)))"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    names = json.loads(process.stdout.splitlines()[-1])
    assert set(ml3_tf.__all__) <= set(names)
    assert names == sorted(set(names))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'ml3_tf' has no attribute 'load_meta_los'"):
        _ = ml3_tf.load_meta_los


@pytest.mark.parametrize("name", PUBLIC_OBJECTS)
def test_public_object_has_a_docstring_with_an_example(name):
    public_object = getattr(ml3_tf, name)
    assert public_object.__module__.startswith("ml3_tf.")
    assert doctest.DocTestParser().get_examples(public_object.__doc__ or "")


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_run(name):
    module = importlib.import_module(f"ml3_tf.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_import_loads_no_optional_or_heavy_package(imported):
    assert not packages(imported["all"]) & {"gymnasium", "mujoco", "tensorflow_probability", "tf_keras"}
    # Keras itself loads matplotlib and scikit-learn where they are installed.
    assert packages(imported["added"]) <= {"ml3_tf"} | sys.stdlib_module_names
    assert "ml3_tf.meta_loss" in imported["added"]
    assert not {"ml3_tf.inspection.learning_curves", "ml3_tf.saving._foreign", "ml3_tf.meta_trainer"} & set(
        imported["added"]
    )


def test_import_takes_at_most_a_second_more_than_keras_and_tensorflow(imported):
    assert imported["seconds"] <= 1


def test_version_is_that_of_the_distribution(monkeypatch):
    metadata = {}
    monkeypatch.setattr(setuptools, "setup", metadata.update)
    runpy.run_path(str(ROOT / "setup.py"))
    assert metadata["name"] == "ml3_tf"
    assert metadata["version"] == ml3_tf.__version__


def test_every_module_has_a_test_file():
    modules = {path.stem for path in (ROOT / "ml3_tf").rglob("*.py")} - WITHOUT_TESTS
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests").rglob("test_*.py")}
    assert "meta_loss" in modules
    assert sorted(modules - tests) == []
