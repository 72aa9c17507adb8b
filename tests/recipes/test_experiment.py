"""The frame around every recipe: settings that are flags, presets, seeds that resume, and the committed results."""

import dataclasses
import functools
import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import pytest
from resumed_runs import make_trainer, phi_of, sines

from parts.experiment import fill_in, run_seeds, training_folder, write_summary
from parts.settings import RecipeSettings, recorded_command, run_command

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.py"))
SUMMARIES = sorted((ROOT / "results").glob("*/summary.json"))
NUM_SEEDS = {"ant_model_free": 3}  # others: 10


@dataclasses.dataclass(frozen=True)
class Rates:
    first: float = 0.1
    """The first rate."""
    decay: bool = True
    """Whether it decays."""


@dataclasses.dataclass(frozen=True)
class Settings(RecipeSettings):
    setting: Literal["improved", "paper"] = "improved"
    """The setting."""
    inner_steps: int = 100
    """Number of steps."""
    clip_norm: float | None = 0.5
    """Largest norm."""
    pairs: tuple[tuple[int, int], ...] = ((0, 6), (1, 8))
    """Pairs."""
    outer: Rates = Rates()
    """Rates."""
    path: Path | None = None
    """A file."""
    tuned_rate: float | None = None
    """The tuned rate."""

    preset_field = "setting"

    @classmethod
    def presets(cls):
        return {"improved": cls(), "paper": cls(setting="paper", inner_steps=1, clip_norm=None)}

    def smoke(self):
        return self.replace(inner_steps=2)


def main(
    settings: Settings = Settings(), *, seeds: int = 1, first_seed: int = 0, smoke: bool = False, jobs: int = 1
) -> dict:
    """Does nothing.

    Args:
        settings: The settings.
        seeds: Number of seeds.
        first_seed: The first seed.
        smoke: Run little.
        jobs: Number of processes.
    """
    return {}


@pytest.fixture
def parse(monkeypatch):
    """A function that returns the arguments with which a command line calls a `main`."""

    def parse_arguments(arguments, main=main):
        calls = []
        recorder = functools.wraps(main)(lambda **arguments: calls.append(arguments))
        monkeypatch.setattr(sys, "argv", ["recipe", *arguments])
        run_command(recorder, description=None)
        return calls[0]

    return parse_arguments


# Settings and flags


def test_each_field_is_a_flag(parse):
    flags = "--inner-steps 7 --clip-norm None --pairs 2 3 --outer.first 0.3 --outer.no-decay --path a/b --seeds 3"
    called = parse(flags.split())
    expected = Settings(inner_steps=7, clip_norm=None, pairs=((2, 3),), outer=Rates(0.3, False), path=Path("a/b"))
    assert called["settings"] == expected
    assert (called["seeds"], called["first_seed"], called["smoke"]) == (3, 0, False)


def test_the_docstring_of_a_field_is_the_help_of_its_flag(parse, capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out
    for words in (
        "--inner-steps INT",
        "Number of steps. (default: 100)",
        "--seeds INT",
        "Number of seeds. (default: 1)",
    ):
        assert words in text


@pytest.mark.parametrize("flags", ["--setting paper --inner-steps 5", "--inner-steps 5 --setting=paper"])
def test_flags_override_a_preset(parse, flags):
    assert parse(flags.split())["settings"] == Settings.presets()["paper"].replace(inner_steps=5)


@pytest.mark.parametrize("flags", ["--setting unknown", "--setting", "--steps 5"])
def test_unknown_flags_and_presets_are_refused(parse, flags, capsys):
    with pytest.raises(SystemExit):
        parse(flags.split())
    assert flags.split()[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "command"),
    [
        (Settings(), ""),
        (Settings(path=Path("a"), clip_norm=None), " --clip-norm None --path a"),
        (Settings.presets()["paper"], " --setting paper"),
        (Settings.presets()["paper"].replace(inner_steps=100), " --setting paper --inner-steps 100"),
        (Settings(pairs=((3, 4), (5, 6)), outer=Rates(decay=False)), " --pairs 3 4 5 6 --outer.no-decay"),
    ],
)
def test_the_recorded_command_repeats_the_settings(parse, settings, command):
    recorded = recorded_command(main, settings, seeds=2, first_seed=3, smoke=True)
    assert recorded == f"python recipes/test_experiment.py{command} --seeds 2 --first-seed 3 --smoke"
    called = parse(recorded.split()[2:])
    assert called == {"settings": settings, "seeds": 2, "first_seed": 3, "smoke": True, "jobs": 1}


def test_an_unknown_preset_is_named():
    with pytest.raises(ValueError, match=r"Unknown setting. Expected one of \['improved', 'paper'\]. Received: .*'x'"):
        Settings(setting="x").preset()


def test_settings_are_json():
    config = Settings(path=Path("a/b")).to_config()
    assert config["pairs"] == [[0, 6], [1, 8]]
    assert config["path"] == "a/b"
    assert config["outer"] == {"first": 0.1, "decay": True}
    with pytest.raises(TypeError):  # and not the words of a number
        Settings(inner_steps=np.float32(1)).to_config()


# Seeds and their files


def write_seed(seed, settings, output_dir, verbose):
    return {"metrics": {"seed": seed, "steps": settings.inner_steps}}


def test_seeds_run_in_processes_of_their_own(tmp_path):
    results = run_seeds(write_seed, range(3), Settings(inner_steps=5), tmp_path, jobs=2)
    assert [result["metrics"] for result in results] == [{"seed": seed, "steps": 5} for seed in range(3)]


def test_kept_results_serve_the_same_settings_alone(tmp_path):
    calls = []

    def run_seed(seed, settings, output_dir, verbose):
        calls.append(seed)
        return {"metrics": {}}

    run_seeds(run_seed, [0, 1], Settings(), tmp_path)
    run_seeds(run_seed, [1, 2], Settings(), tmp_path)
    assert calls == [0, 1, 2]
    with pytest.raises(ValueError, match=r"made with other settings \(inner_steps, outer differ\). Choose another"):
        run_seeds(run_seed, [0], Settings(inner_steps=1, outer=Rates(decay=False)), tmp_path)


def test_a_seed_that_was_interrupted_goes_on_with_the_same_settings_alone(tmp_path):
    def run_seed(seed, settings, output_dir, verbose):
        folder = training_folder(seed, output_dir) / "loss"
        trainer = make_trainer(seed=seed)
        history = trainer.fit(sines(seed), steps_per_epoch=2, epochs=2, callbacks=callbacks, resume=folder, verbose=0)
        return {"metrics": {"loss": history.history["loss"][-1]}, "phi": [value.tolist() for value in phi_of(trainer)]}

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1 and is_interrupted:
                raise KeyboardInterrupt

    callbacks, is_interrupted = [Stop()], False
    [whole] = run_seeds(run_seed, [3], Settings(), tmp_path / "whole")
    is_interrupted = True
    with pytest.raises(KeyboardInterrupt):
        run_seeds(run_seed, [3], Settings(), tmp_path)
    is_interrupted = False
    with pytest.raises(ValueError, match=r"settings.json' was made with other settings \(inner_steps differ\)"):
        run_seeds(run_seed, [3], Settings(inner_steps=1), tmp_path)
    [resumed] = run_seeds(run_seed, [3], Settings(), tmp_path)
    assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}
    assert not training_folder(3, tmp_path).exists()


def test_open_settings_are_filled_in_once(tmp_path):
    calls = []

    def tune(seed, settings, output_dir, verbose):
        calls.append(settings)
        return {"tuned_rate": 0.3, "pairs": [[1, 2]], "notes": "not a setting"}

    for _ in range(2):
        assert fill_in(tune, ("tuned_rate", "pairs"), Settings(), tmp_path) == Settings(tuned_rate=0.3)
    assert calls == [Settings()]
    given = Settings(tuned_rate=0.1)
    assert fill_in(tune, ("tuned_rate",), given, tmp_path) == given
    assert fill_in(tune, ("pairs",), Settings(pairs=None), tmp_path / "other").pairs == ((1, 2),)


def test_a_summary_holds_metrics_and_settings(tmp_path):
    results = run_seeds(write_seed, [4, 5], Settings(), tmp_path)
    metrics = write_summary("toy", "python toy.py", [4, 5], results, Settings(), tmp_path, further_config={"unit": "m"})
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary) == ["recipe", "command", "seeds", "metrics", "config", "versions", "seconds"]
    assert summary["metrics"] == metrics == {"seed": [4, 5], "steps": [100, 100]}
    assert summary["config"] == {**Settings().to_config(), "unit": "m"}
    assert set(summary["versions"]) == {"python", "ml3_tf", "tensorflow", "keras", "numpy"}


def test_a_summary_holds_the_costs_of_each_seed(tmp_path):
    results = [
        {"metrics": {}, "seconds": 1.0, "costs": {"core_minutes": {"meta_train": minutes, "learned": None}}}
        for minutes in (1.5, 2.5)
    ]
    write_summary("toy", "python toy.py", [4, 5], results, Settings(), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["costs"] == {"core_minutes": {"meta_train": [1.5, 2.5], "learned": [None, None]}}


# All recipes


@pytest.mark.parametrize("name", RECIPES)
def test_every_file_at_the_top_is_a_command(name):
    pytest.importorskip("mujoco")
    recipe = importlib.import_module(name)
    parameters = inspect.signature(recipe.main).parameters
    assert list(parameters) == ["settings", "seeds", "first_seed", "smoke", "jobs", "output_dir"]
    settings = parameters["settings"].default
    assert settings == recipe.Settings() and settings.smoke() != settings
    assert f"python recipes/{name}.py" in recipe.__doc__
    for word in ("Metrics (", "Departures", "Files:"):
        assert word in recipe.__doc__ or (name, word) == ("keras_fit", "Departures")  # the paper has no such experiment


@pytest.mark.parametrize("path", SUMMARIES, ids=lambda path: path.parent.name)
def test_a_recorded_command_still_means_the_same(path, parse):
    pytest.importorskip("mujoco")
    summary = json.loads(path.read_text())
    _, file, *flags = summary["command"].split()
    recipe = importlib.import_module(Path(file).stem)
    called = parse(flags, recipe.main)
    assert called["seeds"] == len(summary["seeds"]) and not called["smoke"]
    config = json.loads(json.dumps(called["settings"].to_config()))
    assert_same_where_both_have(summary["config"], config)


def assert_same_where_both_have(recorded, settings):
    """A setting that is `None` is found by the recipe itself."""
    for name in {*recorded} & {*settings}:
        if isinstance(recorded[name], dict) and isinstance(settings[name], dict):
            assert_same_where_both_have(recorded[name], settings[name])
        elif settings[name] is None:
            continue
        elif isinstance(recorded[name], dict):  # names with their settings; now the names alone
            assert settings[name] == [*recorded[name]], name
        else:
            assert settings[name] in (None, recorded[name]), name


@pytest.mark.parametrize("path", SUMMARIES, ids=lambda path: path.parent.name)
def test_committed_results_are_complete(path):
    summary = json.loads(path.read_text())
    num_seeds = NUM_SEEDS.get(path.parent.name, 10)
    assert len(summary["seeds"]) == num_seeds
    assert "--smoke" not in summary["command"] and not summary["config"].get("smoke")
    assert all(np.isfinite(values).all() and len(values) == num_seeds for values in summary["metrics"].values())
    assert (path.parent / "figure.png").is_file()


@pytest.mark.parametrize("name", RECIPES)
def test_the_table_of_recipes_names_each(name):
    text = (ROOT / "recipes" / "README.md").read_text()
    assert f"[`{name}.py`]({name}.py)" in text
