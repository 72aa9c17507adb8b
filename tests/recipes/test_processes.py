"""Jobs in processes, and the seeds of a recipe among them: errors, a process that is killed, and one seed of many."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import toy_recipe

from parts.experiment import run_seeds
from parts.processes import only_seed, run_in_processes

ROOT = Path(__file__).parents[2]


def divide(dividend, divisor):
    return dividend / divisor, os.getpid()


@pytest.mark.parametrize("num_processes", [1, 2])
def test_an_error_does_not_end_other_jobs(num_processes):
    outcomes = sorted(run_in_processes(divide, [(4, 2), (1, 0), (9, 3)], num_processes=num_processes))
    assert [outcome.index for outcome in outcomes] == [0, 1, 2]
    values, errors = zip(*(outcome[1:] for outcome in outcomes))
    assert (values[0][0], values[1], values[2][0]) == (2.0, None, 3.0)
    assert errors[0] is None and errors[2] is None
    assert errors[1].startswith("Traceback") and errors[1].rstrip().endswith("ZeroDivisionError: division by zero")
    assert (values[0][1] == os.getpid()) == (num_processes == 1)


def test_no_jobs_need_no_process():
    assert list(run_in_processes(divide, [], num_processes=2)) == []


def test_a_killed_process_is_reported_with_a_remedy(tmp_path):
    settings = toy_recipe.Settings(rate=9.0, tuned=0.0)
    with pytest.raises(RuntimeError, match="One of the 2 processes was killed.* Run the same command again.*--jobs"):
        run_seeds(toy_recipe.run_seed, [100, 101], settings, tmp_path, jobs=2)


def test_a_failed_seed_is_named_and_others_are_kept(tmp_path):
    settings = toy_recipe.Settings(rate=5.0, tuned=0.0)
    with pytest.raises(RuntimeError, match=r"^Seed 101 failed:\n(.*\n)*ValueError: it diverged\nThe results of other"):
        run_seeds(toy_recipe.run_seed, [101, 102, 103], settings, tmp_path, jobs=2)
    assert [(tmp_path / "seeds" / f"seed_{seed}.json").is_file() for seed in (101, 102, 103)] == [False, True, True]


def test_a_recipe_that_is_run_as_a_command_finds_its_functions_in_other_processes(tmp_path):
    command = [sys.executable, ROOT / "tests" / "toy_recipe.py", "--seeds", "2", "--jobs", "2", "--output-dir", "run"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'recipes'}"}
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    assert {"seed 0: 0 s", "seed 1: 0 s"} <= {*process.stdout.splitlines()}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["metrics"]["error"] == [1.1, 2.1]


def test_one_seed_of_many_is_run_and_kept_without_a_summary(tmp_path):
    settings = toy_recipe.Settings(marks=tmp_path)
    for seed in (102, 100):
        with only_seed(seed):
            toy_recipe.main(settings, seeds=3, first_seed=100, output_dir=tmp_path)
    assert not (tmp_path / "summary.json").exists()
    (tmp_path / "go").touch()
    toy_recipe.main(settings, seeds=3, first_seed=100, output_dir=tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["seeds"] == [100, 101, 102]
    for seed in ("tuning", 100, 101, 102):
        assert len((tmp_path / f"0.1_{seed}").read_text().splitlines()) == 1
