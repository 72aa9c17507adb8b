"""The examples run at toy size, and each is one file to read: short, self-contained, with public names alone."""

import ast
import importlib
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PATHS = sorted((ROOT / "examples").glob("*.py"))
# Constants at the top of an example, and their values at toy size.
TOY_SIZES = {
    "classification": {"INNER_STEPS": 2, "TEST_STEPS": 3, "TUNED_RATES": (0.1,), "PER_CLASS": 4},
    "demonstrations": {"INNER_STEPS": 2, "TEST_STEPS": 3, "HORIZON": 4},
    "model_based": {"INNER_STEPS": 2, "REPORTED_STEPS": (0, 1, 2), "HORIZON": 4, "TUNED_RATES": (0.1,)},
    "model_free_pendulum": {"INNER_STEPS": 2, "NUM_TASKS": 4, "HORIZON": 10, "PPO_UPDATES": 2},
    "discrete_actions": {"INNER_STEPS": 2, "NUM_TASKS": 4, "HORIZON": 10, "PPO_UPDATES": 2},
    "own_tables": {"INNER_STEPS": 2, "TEST_STEPS": 3, "TUNED_RATES": (0.01,)},
    "regression": {"INNER_STEPS": 2, "TEST_STEPS": 3, "TUNED_RATES": (0.01,)},
}


@pytest.mark.parametrize("name", TOY_SIZES)
def test_an_example_runs_at_toy_size(name, monkeypatch, capsys):
    example = importlib.import_module(f"examples.{name}")
    for constant, value in TOY_SIZES[name].items():
        assert hasattr(example, constant)
        monkeypatch.setattr(example, constant, value)
    example.main(num_outer_steps=2)
    printed = capsys.readouterr().out
    reported = printed[printed.rindex("meta_gradient_norm") :].splitlines()[1:]
    expected = _expected_output(example.__doc__)
    assert len(reported) >= len(expected) - 2  # those of policies report some steps only once
    # The words are those of the docstring; the numbers are those of two outer steps.
    first_words = [line.split()[0] for line in expected]
    assert all(line.split()[0] in first_words for line in reported)
    numbers = [float(number) for number in re.findall(r"-?\d+\.\d+|nan|inf", "\n".join(reported))]
    assert numbers and np.all(np.isfinite(numbers))


def test_the_serving_example_learns_the_same_from_the_export(tmp_path, capsys):
    from benchmarks.in_process_server import InProcessServer
    from examples import serving

    errors = serving.main(num_epochs=5, folder=tmp_path)
    assert "docker run" in capsys.readouterr().out
    trained = {name: error for name, error in errors.items() if "learned" in name or "export" in name}
    assert len(trained) == 3
    np.testing.assert_allclose(list(trained.values()), errors["learned loss"], rtol=1e-5)
    assert errors["learned loss"] < errors["untrained"]

    with InProcessServer({"sine": tmp_path / "sine"}) as server:
        errors = serving.main(num_epochs=5, folder=tmp_path, address=server.address)
    np.testing.assert_allclose(errors[f"the server at {server.address}"], errors["learned loss"], rtol=1e-5)


def test_the_example_of_one_data_set_trains_in_every_way(monkeypatch, capsys):
    from examples import one_data_set

    monkeypatch.setattr(one_data_set, "NUM_EPOCHS", 2)
    monkeypatch.setattr(one_data_set, "NUM_CLASSIFIERS", 1)
    accuracies = one_data_set.main()
    expected = [line.rsplit(maxsplit=1)[0].strip() for line in _expected_output(one_data_set.__doc__)]
    assert list(accuracies) == expected
    assert [line.rsplit(maxsplit=1)[0].strip() for line in capsys.readouterr().out.splitlines()] == expected
    assert min(accuracies.values()) > 0.5  # two epochs are too few for wrong labels to be learned


def test_the_example_of_several_hosts_runs_alone_and_goes_on(tmp_path, monkeypatch, capsys):
    from examples import several_hosts

    monkeypatch.setattr(several_hosts, "INNER_STEPS", 2)
    monkeypatch.setattr(several_hosts, "STEPS_PER_EPOCH", 3)
    several_hosts.main(tmp_path, num_epochs=1)
    assert "Epoch 1/2" not in capsys.readouterr().out
    several_hosts.main(tmp_path, num_epochs=2)
    printed = capsys.readouterr().out
    assert "Epoch 2/2" in printed and "Epoch 1/2" not in printed
    assert f"The loss is in {tmp_path / 'sine' / '2'}" in printed
    errors = [float(number) for number in re.findall(r" {4}(\d+\.\d+)$", printed, re.MULTILINE)]
    assert len(errors) == 2 and np.all(np.isfinite(errors))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_does(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 120
    docstring = ast.get_docstring(ast.parse(text))
    assert f"Command: python examples/{path.name}" in docstring
    assert "\nTime: " in docstring and "\nExpected output" in docstring
    assert len(_expected_output(docstring)) >= 4


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_an_example_uses_public_names_alone(path):
    assert path.stem in ("one_data_set", "several_hosts", "serving") or path.stem in TOY_SIZES
    tree = ast.parse(path.read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    for node in imports:
        modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        assert not {module.split(".")[0] for module in modules} & {
            "examples",
            "recipes",
            "parts",
            "tools",
            "benchmarks",
        }
        if isinstance(node, ast.ImportFrom) and node.module.startswith("ml3_tf") and node.module != "ml3_tf.serving":
            public = importlib.import_module(node.module).__all__
            assert {alias.name for alias in node.names} <= set(public)
    package = importlib.import_module("ml3_tf")
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ml3_tf"
    }
    assert used <= set(package.__all__)


def _expected_output(docstring):
    """The indented lines after the words "Expected output"."""
    lines = docstring.split("Expected output")[1].splitlines()[1:]
    return [line for line in lines if line.startswith("    ")]
