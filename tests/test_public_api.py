"""Tests of the public surface: names, docstrings and their examples, the version, and the tests themselves."""

import doctest
import importlib
import inspect
import pkgutil
import tomllib
from pathlib import Path

import keras
import pytest

import ml3_tf

ROOT = Path(__file__).resolve().parents[1]
WINGS = (
    "ml3_tf",
    "ml3_tf.saving",
    "ml3_tf.rl",
    "ml3_tf.inspection",
    "ml3_tf.envs",
    "ml3_tf.baselines",
    "ml3_tf.commands",
    "ml3_tf.bench",
)
MODULES = sorted(module.name for module in pkgutil.walk_packages(ml3_tf.__path__, "ml3_tf."))
WITHOUT_TESTS = {"__init__", "__main__"}  # they hold names alone, which this file and `test_command_line.py` test


def public_objects():
    """Every name of every `__all__`, once."""
    found = {}
    for wing in map(importlib.import_module, WINGS):
        found |= {f"{wing.__name__}.{name}": getattr(wing, name) for name in wing.__all__}
    return found


@pytest.mark.parametrize("wing", WINGS)
def test_all_names_exist_and_come_once(wing):
    module = importlib.import_module(wing)
    assert len(set(module.__all__)) == len(module.__all__)
    names = {}
    exec(f"from {wing} import *", names)
    assert set(module.__all__) <= set(names)


def test_all_names_what_the_design_promises():
    promised = {"LearnedRate", "MetaLoss", "MetaTrainer", "__version__", "load_meta_loss", "meta_test", "sine_tasks"}
    assert promised <= set(ml3_tf.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'ml3_tf' has no attribute 'load_meta_los'"):
        _ = ml3_tf.load_meta_los


@pytest.mark.parametrize("name", sorted(set(ml3_tf.__all__) - {"__version__"}))
def test_public_object_has_a_docstring_with_an_example(name):
    public_object = getattr(ml3_tf, name)
    assert public_object.__module__.startswith("ml3_tf.")
    if name != "Parameters":  # a record, which the example of `Learner` shows
        assert doctest.DocTestParser().get_examples(public_object.__doc__ or "")


def test_every_public_object_has_a_docstring():
    documented = lambda value: not callable(value) or bool(inspect.getdoc(value))
    assert [name for name, value in public_objects().items() if not documented(value)] == []


def test_no_public_module_and_function_share_a_name():
    """`from ml3_tf import meta_test` must not depend on which of two things was imported first."""
    public = {name for name, value in public_objects().items() if not inspect.ismodule(value)}
    assert [module for module in MODULES if module in public] == []


def test_public_signatures_are_short():
    """At most ten parameters, all but the first few by keyword; nothing hidden in `**kwargs` but those of Keras."""
    too_long = {}
    for name, value in public_objects().items():
        is_own_function = inspect.isfunction(value) or (inspect.isclass(value) and "__init__" in vars(value))
        if is_own_function and len(inspect.signature(value).parameters) > 10:
            is_settings = hasattr(value, "__dataclass_fields__") or issubclass(value, tuple)
            if not (inspect.isclass(value) and is_settings):
                too_long[name] = len(inspect.signature(value).parameters)
    assert too_long == {}


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_run(name):
    """Found by walking the packages, so that no module is missed."""
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_the_metadata_names_the_version_and_bounds_keras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "ml3_tf.__version__"}
    [bound] = [text for text in project["project"]["dependencies"] if text.startswith("keras")]
    assert bound == "keras>=3.15.1,<3.16"
    assert keras.__version__.startswith("3.15.")


def test_tests_mirror_the_modules():
    """Each module has a test file at the same place, without its leading underscore."""
    missing = []
    for path in (ROOT / "ml3_tf").rglob("*.py"):
        relative = path.relative_to(ROOT / "ml3_tf")
        if path.stem not in WITHOUT_TESTS:
            mirrored = ROOT / "tests" / relative.parent / f"test_{path.stem.lstrip('_')}.py"
            missing += [] if mirrored.is_file() else [str(mirrored.relative_to(ROOT))]
    assert missing == []
