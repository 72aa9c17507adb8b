"""Runs a recipe over a grid of settings and over seeds, and names the best setting.

    python tools/sweep.py recipes/sine_regression.py --metric test_mse_learned --grid outer_rate=1e-3,3e-3
    python tools/sweep.py recipes/sine_regression.py --metric test_mse_learned --grid num_tasks=8,16 --cluster ray
    python tools/sweep.py recipes/digits.py --metric steps_to_90_learned --grid epochs=25,50 "test_pairs=0 9"

A value is typed as in the flag of the recipe's setting: `two_classes.outer_rate=1e-3`, `"test_pairs=0 9 1 2,3 5 6 8"`.
More names make all combinations. A single value fixes a setting: fix what the recipe would tune anew for each setting,
such as the rate of a baseline.

Settings must not be chosen on the seeds and tasks that are reported: there, the best of many settings looks better than
it is. Reported seeds begin at 0; those of a sweep are 100, 101, ... unless `--first-seed` says otherwise. If a recipe
tests all seeds on the same data, as `digits.py` does on its pairs, let the grid name other data, too.

Files in `--output-dir`: `sweep.json` (the metric of each setting with its interval, the best, and what failed),
`figure.png`, and a folder for each setting, as the recipe writes it. `seeds/log_100.txt` in there holds what seed 100
printed, and its error. An error of one setting does not end the others; the exit status is 1 then. Run the same command
again after an interruption: results of seeds are kept, and a meta-training goes on from its last epoch.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import keras
import tyro

from sweeping.cluster import Runner, runner
from sweeping.grid import read_grid
from sweeping.report import write_report
from sweeping.runs import Run, is_kept, kept_metrics, load_recipe, log_file, run_part

Grid = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction]


class Sweep:
    """Runs jobs, shows one progress bar for all of them, and notes which settings failed.

    Args:
        runs: Name of each setting -> its run.
        run_jobs: Runs the jobs, see `runner`.
    """

    def __init__(self, runs: dict[str, Run], run_jobs: Runner) -> None:
        self.runs, self.run_jobs = runs, run_jobs
        self.failed: dict[str, str] = {}
        """Name of a setting -> its first error."""
        self.bar = keras.utils.Progbar(sum(len(run.seeds) + 1 for run in runs.values()), unit_name="job")

    def run(self, parts: Iterable[tuple[str, int | None]]) -> None:
        """Runs parts of settings, see `run_part`, without those that are kept already or whose setting failed."""
        parts = list(parts)
        todo = [
            (name, seed)
            for name, seed in parts
            if name not in self.failed and (seed is None or not is_kept(self.runs[name], seed))
        ]
        self.bar.add(len(parts) - len(todo))
        for index, _, error in self.run_jobs(run_part, [(self.runs[name], seed) for name, seed in todo]):
            name, seed = todo[index]
            if error is not None:
                self.fail(name, seed, error)
            elif seed is not None and not is_kept(self.runs[name], seed):
                self.fail(name, seed, "The result is not in the output folder, which all machines must share.")
            self.bar.add(1)

    def fail(self, name: str, seed: int | None, error: str) -> None:
        """Notes an error, and keeps it whole in the log of the part."""
        log = log_file(self.runs[name], seed)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            file.write(error.rstrip() + "\n")
        part = "summary" if seed is None else f"seed {seed}"
        self.failed.setdefault(name, f"{part}: {error.strip().splitlines()[-1]} (see '{log}')")

    def check_metric(self, metric: str) -> None:
        """Lets settings fail that lack the metric, after their first seed."""
        for name, run in self.runs.items():
            if name in self.failed:
                continue
            names = kept_metrics(run, run.seeds[0])
            if metric not in names:
                self.fail(name, run.seeds[0], f"`metric` expects one of {', '.join(names)}. Received: {metric!r}.")


def main(
    recipe: tyro.conf.Positional[Path],
    *,
    metric: str,
    maximize: bool = False,
    grid: Grid = (),
    seeds: int = 10,
    first_seed: int = 100,
    smoke: bool = False,
    jobs: int | None = None,
    cluster: Literal["ray"] | None = None,
    output_dir: Path | None = None,
) -> int:
    """Runs a recipe over a grid of settings and over seeds.

    Args:
        recipe: File of the recipe.
        metric: What settings are compared by: a key of "metrics" in the summary of the recipe. Less is better.
        maximize: More of the metric is better.
        grid: A setting and its values, NAME=VALUE,VALUE; several make all combinations.
        seeds: Number of seeds.
        first_seed: The first seed. Reported runs begin at 0, and settings must not be chosen on reported seeds.
        smoke: Run a few steps only, to see that everything works.
        jobs: Number of processes at a time. None: one for each core of this machine, or of the cluster.
        cluster: `ray` runs on the Ray cluster of this machine, or on one that is started for the time. None: on this
            machine.
        output_dir: Folder for the results, for `ray` one that all machines share. None: `runs/sweep_NAME`.

    Returns:
        The exit status: 1 if settings failed.

    Raises:
        ValueError: An argument is out of range, or does not fit the recipe.
    """
    if seeds < 1 or (jobs is not None and jobs < 1):
        raise ValueError(f"`seeds` and `jobs` must be positive integers. Received: seeds={seeds}, jobs={jobs}")
    recipe = recipe.resolve()
    points = read_grid(load_recipe(recipe).Settings, [text for texts in grid for text in texts])
    output_dir = (output_dir or Path("runs") / f"sweep_{recipe.stem}").resolve()
    numbers = range(first_seed, first_seed + seeds)
    runs = {point.name: Run(recipe, point.flags, output_dir / point.name, numbers, smoke) for point in points}
    with runner(cluster, jobs) as run_jobs:
        sweep = Sweep(runs, run_jobs)
        # The first seed of a setting tunes what the recipe leaves open; the others find it.
        sweep.run((name, numbers[0]) for name in runs)
        sweep.check_metric(metric)
        sweep.run((name, seed) for seed in numbers[1:] for name in runs)
        sweep.run((name, None) for name in runs)
    facts = {"recipe": recipe.name, "seeds": list(numbers), "metric": metric, "maximize": maximize, "smoke": smoke}
    write_report(points, runs, sweep.failed, facts, output_dir)
    return 1 if sweep.failed else 0


if __name__ == "__main__":
    try:
        sys.exit(tyro.cli(main, description=__doc__))
    except KeyboardInterrupt:
        sys.exit("Interrupted. Run the same command again: it goes on from here.")
