"""`tools/sweep.py`: the grid, the best setting, settings that fail, a sweep that is interrupted, and Ray."""

import functools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import sweep
import toy_recipe
import tyro

from sweeping.grid import read_grid
from sweeping.report import Score, ranked
from sweeping.runs import load_recipe

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "toy_recipe.py"


@pytest.fixture
def run(tmp_path, capsys):
    """A function that runs a sweep of the toy; returns its status, `sweep.json`, and what it printed."""

    def run_sweep(*grid, **arguments):
        arguments = {"metric": "error", "seeds": 3, "jobs": 1, "output_dir": tmp_path / "sweep", **arguments}
        status = sweep.main(TOY, grid=(grid,), **arguments)
        return status, json.loads((arguments["output_dir"] / "sweep.json").read_text()), capsys.readouterr()

    return run_sweep


# The grid


def test_a_grid_is_all_combinations_with_the_types_of_the_settings():
    grid = ["rate=1e-3,2", "pair=3 4,5 6", "decay=False", "head.width=7", "marks=a/b", "tuned=None"]
    points = read_grid(toy_recipe.Settings, grid)
    assert [(point.settings.rate, point.settings.pair) for point in points] == [
        (0.001, (3, 4)),
        (0.001, (5, 6)),
        (2.0, (3, 4)),
        (2.0, (5, 6)),
    ]
    expected = toy_recipe.Settings(0.001, (3, 4), False, toy_recipe.Head(7), Path("a/b"))
    assert points[0].settings == expected
    assert points[0].name == "rate=0.001,pair=3_4,decay=False,head.width=7,marks=a_b,tuned=None"
    assert points[0].values["head.width"] == 7


def test_no_grid_is_the_defaults():
    [point] = read_grid(toy_recipe.Settings, [])
    assert (point.name, point.settings) == ("defaults", toy_recipe.Settings())


def test_a_preset_is_chosen_before_other_values(monkeypatch):
    recipe = load_recipe(ROOT / "recipes" / "sine_regression.py")
    points = read_grid(recipe.Settings, ["inner_steps=7", "setting=improved,paper"])
    presets = recipe.Settings.presets()
    assert [point.settings for point in points] == [presets[name].replace(inner_steps=7) for name in presets]


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (["rate"], "expects NAME=VALUE,VALUE, e.g. outer_rate=1e-3,3e-3. Received: 'rate'"),
        (["rate="], "expects NAME=VALUE,VALUE"),
        (["rte=1"], "one of rate, pair, decay, head.width, marks, tuned. Received: 'rte'"),
        (["head=1"], "expects a setting of the recipe, .* Received: 'head'"),
        (["rate=1,x"], "`--grid rate=...` expects values of the type float. Received: 'x'"),
        (["rate=1,"], "expects values of the type float. Received: ''"),
        (["pair=1"], r"expects values of the type tuple\[int, int\]. Received: '1'"),
        (["tuned=x"], r"expects values of the type float \| None. Received: 'x'"),
        (["rate=1", "rate=2"], "Each setting must come once in `--grid`. Received: rate, rate"),
        (["rate=0.1,1e-1"], "Each value of `--grid` must come once. Received: rate=0.1,1e-1"),
    ],
)
def test_a_grid_that_does_not_fit_the_recipe_is_refused(grid, words):
    with pytest.raises(ValueError, match=words):
        read_grid(toy_recipe.Settings, grid)


def test_documented_commands_fit_their_recipes():
    texts = (ROOT / "docs" / "guides" / "more_machines.md").read_text(), sweep.__doc__
    commands = re.findall(r"^ *python tools/sweep.py (.*)$", "\n".join(texts), re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        given = functools.wraps(sweep.main)(lambda recipe, **others: [recipe, others])
        recipe, others = tyro.cli(given, args=shlex.split(command))
        assert read_grid(load_recipe(ROOT / recipe).Settings, [text for texts in others["grid"] for text in texts])
        summary = json.loads((ROOT / "results" / recipe.stem / "summary.json").read_text())
        assert others["metric"] in summary["metrics"]


# Results


def test_the_best_setting_comes_first_with_its_interval(run, tmp_path):
    status, result, printed = run("rate=0.3,0.1", "decay=False")
    assert status == 0
    assert (result["best"], result["seeds"], result["failed"]) == ("rate=0.1,decay=False", [100, 101, 102], {})
    best, second = result["settings"]
    assert best["settings"] == {"rate": 0.1, "decay": False}
    np.testing.assert_allclose(best["values"], [2.1, 3.1, 1.1])  # rate + seed % 3 + what is tuned
    np.testing.assert_allclose([best["mean"], second["mean"]], [2.1, 2.3])
    assert 1.1 <= best["low"] < 2.1 < best["high"] <= 3.1
    lines = [" ".join(line.split()) for line in printed.out.splitlines()]
    assert "rate=0.1,decay=False 2.1 [1.1, 3.1]" in lines
    assert "first less second, seed by seed -0.2 [-0.2, -0.2]" in lines
    assert lines[-1].endswith("recipes/toy_recipe.py --no-decay --seeds 10")  # 0.1 is the default
    assert "8/8" in printed.out and "this is seed" not in printed.out
    folder = tmp_path / "sweep" / "rate=0.3,decay=False"
    assert "this is seed 101\n" in (folder / "seeds" / "log_101.txt").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["command"].endswith("--rate 0.3 --no-decay --seeds 3 --first-seed 100")
    assert (tmp_path / "sweep" / "figure.png").is_file()


def test_more_may_be_better(run):
    assert run("rate=0.1,0.3", maximize=True)[1]["best"] == "rate=0.3"


@pytest.mark.parametrize("maximize", [False, True])
def test_a_metric_that_is_not_finite_is_never_the_best(run, maximize):
    point = read_grid(toy_recipe.Settings, [])[0]
    scores = [Score(point, [1.0, value]) for value in (np.nan, np.inf, -np.inf, 2.0)]
    assert ranked(scores, maximize=maximize)[0] is scores[-1]
    status, result, printed = run("rate=inf,0.3", maximize=maximize)
    assert (status, result["best"]) == (0, "rate=0.3")
    assert "inf  [nan, nan]" in printed.out


def test_smoke_settings_and_seeds_are_passed_on(run):
    _, result, _ = run(smoke=True, seeds=1, first_seed=5)
    assert (result["best"], result["seeds"]) == ("defaults", [5])
    np.testing.assert_allclose(result["settings"][0]["values"], [9.1])


# Failures


def test_a_setting_that_fails_does_not_end_the_others(run, tmp_path):
    status, result, printed = run("rate=0.3,5,0.1")
    assert (status, result["best"], [*result["failed"]]) == (1, "rate=0.1", ["rate=5.0"])
    log = tmp_path / "sweep" / "rate=5.0" / "seeds" / "log_101.txt"
    assert printed.err.endswith(f"1 of 3 settings failed:\nrate=5.0: seed 101: ValueError: it diverged (see '{log}')\n")
    assert "Traceback" in log.read_text()
    assert "12/12" in printed.out


def test_an_unknown_metric_is_refused_after_one_seed(run, tmp_path):
    status, result, printed = run("rate=0.3,0.1", metric="eror")
    assert (status, result["best"], len(result["failed"])) == (1, None, 2)
    assert "`metric` expects one of error, width. Received: 'eror'" in printed.err
    assert not (tmp_path / "sweep" / "rate=0.3" / "seeds" / "seed_101.json").exists()


def test_results_of_other_settings_are_refused(run):
    run("rate=0.1")
    status, result, _ = run("rate=0.1", smoke=True)
    assert status == 1 and "tuned differ). Choose another --output-dir" in result["failed"]["rate=0.1"]


@pytest.mark.parametrize(
    ("recipe", "arguments", "words"),
    [
        ("nowhere.py", {}, "`recipe` expects the file of a recipe, .* Received: '.*nowhere.py'"),
        ("tests/comparisons.py", {}, "defines `main` and `Settings`. Received"),
        (TOY, {"seeds": 0}, "must be positive integers. Received: seeds=0, jobs=None"),
        (TOY, {"jobs": 0}, "must be positive integers. Received: seeds=10, jobs=0"),
        (TOY, {"cluster": "slurm"}, "`cluster` expects 'ray' or None. Received: 'slurm'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(recipe, arguments, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        sweep.main(ROOT / recipe, metric="error", output_dir=tmp_path, **arguments)


def test_ray_that_is_missing_is_named_with_the_remedy(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"needs Ray, .* pip install 'ml3_tf\[ray\]'"):
        run(cluster="ray")


# Interruptions


def test_kept_seeds_are_not_run_again(run, tmp_path):
    (tmp_path / "go").touch()
    for rate in ("5", "5,0.1"):
        run(f"rate={rate}", f"marks={tmp_path}")
    counts = {path.name: len(path.read_text().splitlines()) for path in tmp_path.glob("*_1*")}
    assert counts == {"5.0_100": 1, "5.0_101": 2, "5.0_102": 1, "0.1_100": 1, "0.1_101": 1, "0.1_102": 1}
    assert len((tmp_path / "5.0_tuning").read_text().splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_sweep_leaves_no_process_and_goes_on(number, run, tmp_path):
    grid, folder = ("rate=0.1,0.3", f"marks={tmp_path}"), tmp_path / "sweep"
    # A shell that starts tests in the background lets them, and what they start, ignore Ctrl-C.
    command = ["env", "--default-signal=INT", sys.executable, ROOT / "tools" / "sweep.py", TOY]
    command += ["--grid", *grid, "--output-dir", folder]
    command += "--metric error --seeds 2 --jobs 2".split()
    waits = [tmp_path / f"{rate}_101" for rate in (0.1, 0.3)]  # seed 101 waits for the file `go`
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # and without that of the recipes
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment) as process:
        wait_until(lambda: all(mark.is_file() and mark.read_text() for mark in waits) or process.poll() is not None)
        workers = [int(mark.read_text()) for mark in waits]
        process.send_signal(number)
        try:
            errors = process.communicate(timeout=300)[1]
        finally:
            process.kill()
    assert len({process.pid, *workers}) == 3
    if number == signal.SIGINT:
        assert errors.endswith(b"Interrupted. Run the same command again: it goes on from here.\n")
    wait_until(lambda: not any(map(is_running, workers)))
    (tmp_path / "go").touch()
    status, result, _ = run(*grid, seeds=2)
    assert (status, result["best"].split(",")[0]) == (0, "rate=0.1")
    assert len((tmp_path / "0.1_100").read_text().splitlines()) == 1
    assert len((tmp_path / "0.1_101").read_text().splitlines()) == 2


def is_running(process):
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


def wait_until(is_true, seconds=300):
    for _ in range(seconds * 10):
        if is_true():
            return
        time.sleep(0.1)
    raise AssertionError(f"It was not so within {seconds} s.")


# Ray


def test_a_sweep_on_ray_outlives_processes_that_are_killed(run, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # otherwise it writes a token into the home folder
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        status, result, _ = run("rate=9,0.1", f"marks={tmp_path}", seeds=1, jobs=None, cluster="ray")
        assert ray.is_initialized()  # it was not the sweep that started it
    finally:
        ray.shutdown()
    assert (status, result["best"].split(",")[0]) == (1, "rate=0.1")
    np.testing.assert_allclose(result["settings"][0]["values"], [2.1])
    [error] = result["failed"].values()
    assert "seed 100: Ray could not finish the job: WorkerCrashedError" in error
    assert len((tmp_path / "9.0_100").read_text().splitlines()) == 2  # it was tried once more
