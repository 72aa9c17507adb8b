"""Tests of `ml3_tf.extras`: every error about a missing package names the command that installs it.

In one fresh process, each optional module is missing in turn, while all public names are asked for.
"""

import ast
import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import parts
from ml3_tf.extras import needed_for

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRA_OF = {
    "matplotlib": "plot",
    "gymnasium": "rl",
    "mujoco": "rl",
    "PIL": "rl",
    "tensorflow_probability": "rl",
    "tf_keras": "rl",
    "grpc": "serving",
    "tensorflow_serving": "serving",
    "tyro": "cli",
    "scipy": "recipes",
    "sklearn": "recipes",
}
CORE = {"ml3_tf", "keras", "numpy", "safetensors", "tensorflow"} | {"google", "packaging"}  # TensorFlow needs these two

EACH_MISSING = """
import contextlib, importlib, io, json, sys
import ml3_tf

extra_of = json.loads(sys.argv[1])

def is_of(name, module):
    return name == module or name.startswith(module + ".")

def ask_for_all(missing):
    errors = []
    # What cannot be imported twice is asked for alone if it lacks something.
    of_serving = ["serving"] if extra_of[missing] == "serving" else []
    of_bench = ["bench.statistics", "bench.tables"]
    for wing in ["envs", "inspection", "rl", "commands", *of_bench, *of_serving]:
        try:
            module = importlib.import_module(f"ml3_tf.{wing}")
        except ImportError as error:
            errors.append(str(error))
            continue
        for name in module.__all__:
            try:
                getattr(module, name)
            except ImportError as error:
                errors.append(str(error))
    if missing in ("tensorflow_probability", "tf_keras"):
        from ml3_tf.rl import _probability
        try:
            _probability.import_distributions()
        except ImportError as error:
            errors.append(str(error))
    if missing == "tyro":
        printed = io.StringIO()
        with contextlib.redirect_stderr(printed):
            from ml3_tf import commands
            assert commands.main(["list"]) == 1
        errors.append(printed.getvalue().strip())
    return errors

for missing in extra_of:
    kept = {name: module for name, module in sys.modules.items() if is_of(name, missing)}
    again = ("envs", "inspection", "commands", "bench")
    purged = [name for name in sys.modules if any(is_of(name, f"ml3_tf.{wing}") for wing in again)]
    for name in [*kept, *purged]:
        del sys.modules[name]
    for wing in again:
        vars(ml3_tf).pop(wing, None)
    sys.modules[missing] = None
    print(json.dumps({missing: ask_for_all(missing)}))
    del sys.modules[missing]
    sys.modules.update(kept)
"""


@pytest.fixture(scope="module")
def errors():
    """Missing module -> the errors that it led to."""
    arguments = [sys.executable, "-c", EACH_MISSING, json.dumps(EXTRA_OF)]
    process = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    lines = [line for line in process.stdout.splitlines() if line.startswith("{")]
    return {module: found for line in lines for module, found in json.loads(line).items()}


@pytest.mark.parametrize("module", EXTRA_OF)
def test_an_error_names_the_extra_that_brings_what_is_missing(errors, module):
    assert errors[module]
    for error in errors[module]:
        assert error.endswith(f"pip install 'ml3_tf[{EXTRA_OF[module]}]'"), error
        assert "\n" not in error


def test_every_extra_that_an_error_names_exists():
    assert {*EXTRA_OF.values(), "recipes", "data", "tensorboard"} <= set(PROJECT["optional-dependencies"])


def imports_of(path):
    """Top-level modules that a file imports when it runs, without those for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    of_types = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    ignored = {id(node) for block in of_types for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) not in ignored and isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (name.partition(".")[0] for name in names)


def test_no_optional_module_is_forgotten_here():
    found = {name for path in (ROOT / "ml3_tf").rglob("*.py") for name in imports_of(path)}
    assert found - CORE - set(sys.stdlib_module_names) <= set(EXTRA_OF)


def test_recipes_need_no_other_packages_than_they_ask_for():
    found = {name for path in (ROOT / "recipes").rglob("*.py") for name in imports_of(path)}
    assert found - CORE - set(sys.stdlib_module_names) <= set(parts.NEEDED) | {"parts"}


@pytest.mark.parametrize("module", parts.NEEDED)
def test_recipes_name_what_is_missing(module, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ImportError, match=rf"not installed: {parts.NEEDED[module]}\. .*pip install 'ml3_tf\[recipes\]'"
    ):
        parts.check_packages()


def test_recipes_say_so_before_anything_else(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['tyro'] = None")
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""}
    command = [sys.executable, str(ROOT / "recipes" / "sine_regression.py"), "--help"]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert process.returncode == 1
    assert process.stderr.rstrip().endswith(
        "not installed: tyro. Install what is missing: pip install 'ml3_tf[recipes]'"
    )


def test_an_import_that_works_is_left_alone():
    with needed_for("A test", "json", extra="plot"):
        import json as imported
    assert imported is json


def test_an_import_that_fails_keeps_its_reason():
    with pytest.raises(
        ImportError, match=r"^A test needs x, which could not be imported \(No module named 'nowhere'\)"
    ):
        with needed_for("A test", "x", extra="plot"):
            importlib.import_module("nowhere")


def test_other_errors_stay_as_they_are():
    with pytest.raises(ValueError, match="^mine$"):
        with needed_for("A test", "x", extra="plot"):
            raise ValueError("mine")
