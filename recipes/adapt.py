"""DOC"""

import dataclasses
import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from parts.adapt.figure import draw_figure
from parts.adapt.report import compute_metrics, compute_statistics, history_rows, print_report
from parts.adapt.scoring import Score, boost
from parts.adapt.tables import KINDS, SETTINGS, TUNING_CLASSIFICATION, TUNING_REGRESSION, draw_parts, load_table
from parts.adapt.training import CHECKED_STEPS, OPTIMIZERS, Choice, Trainer
from parts.experiment import (
    Metrics,
    Result,
    Seed,
    run_seeds,
    save_figure,
    training_folder,
    write_history,
    write_summary,
)
from parts.settings import RecipeSettings, recorded_command, run_command

ARMS = {
    "clean": ("base", "adapt"),
    "label_noise": ("base", "adapt", "robust"),
    "outliers": ("base", "adapt", "robust"),
    "imbalance": ("base", "adapt", "robust"),
}
TUNING_TABLES = {"regression": TUNING_REGRESSION, "classification": TUNING_CLASSIFICATION}


@dataclasses.dataclass(frozen=True)
class Settings(RecipeSettings):
    optimizers: tuple[str, ...] = ("adam", "adamw", "muon")
    """The optimizers of the models."""
    num_tables: int = 15
    """Number of tables of regression, and of classification: the first ones."""
    num_steps: int = 600
    """Largest number of gradient steps; the best one is tuned."""
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    """The grid for the rate of the optimizers."""
    outer_rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    """The grid for the rate of the Adam that moves the loss."""
    deltas: tuple[float, ...] = (0.3, 1.0, 3.0)
    """The grid for the delta of Huber's loss, in standard deviations of the target."""
    qs: tuple[float, ...] = (0.5, 0.7, 0.9)
    """The grid for the q of generalized cross-entropy."""
    tuning_seeds: tuple[int, ...] = (100, 101)
    """Seeds to tune with."""
    tuned: dict[str, tuple[float, float, int]] | None = None
    """"setting/kind/optimizer/arm" -> rate, parameter and number of steps. None: tune them."""

    def parameters(self, setting: str, arm: str) -> tuple[float, ...]:
        """Returns the grid for the parameter of an arm."""
        if arm == "adapt":
            return self.outer_rates
        return {"outliers": self.deltas, "label_noise": self.qs}.get(setting, (0.0,)) if arm == "robust" else (0.0,)

    def smoke(self) -> "Settings":
        return self.replace(
            optimizers=self.optimizers[:1],
            num_tables=1,
            num_steps=CHECKED_STEPS,
            rates=self.rates[1:2],
            outer_rates=self.outer_rates[2:3],
            deltas=self.deltas[1:2],
            qs=self.qs[1:2],
        )


def tables_of(setting: str, settings: Settings) -> list[str]:
    """Returns the first tables of each kind."""
    kinds = {kind: [name for name in SETTINGS[setting] if KINDS[name] == kind] for kind in TUNING_TABLES}
    return [name for names in kinds.values() for name in names[: settings.num_tables]]


def tune_all(settings: Settings, output_dir: Path, jobs: int) -> Settings:
    """Returns the settings with what was tuned, on tables and seeds that are not reported."""
    if settings.tuned is not None:
        return settings
    names = [f"tuning_{setting}-{optimizer}" for setting in SETTINGS for optimizer in settings.optimizers]
    found = run_seeds(tune, names, settings, output_dir, jobs=jobs)
    return settings.replace(tuned={name: tuple(choice) for result in found for name, choice in result["tuned"].items()})


def tune(name: Seed, settings: Settings, output_dir: Path, verbose: int) -> Result:
    """Tunes all arms of one setting and optimizer."""
    setting, optimizer = name.removeprefix("tuning_").split("-")
    tuned = {}
    for kind in sorted({KINDS[table] for table in SETTINGS[setting]}):
        for arm in ARMS[setting]:
            run = f"{setting}/{kind}/{optimizer}/{arm}"
            tuned[run] = tune_arm(setting, kind, optimizer, arm, settings)
            print(f"{run}: {tuned[run]}", flush=True)
    return {"tuned": tuned}


def tune_arm(setting: str, kind: str, optimizer: str, arm: str, settings: Settings) -> Choice:
    """Returns the best rate, then the best parameter, and the best number of steps with them."""
    grid = settings.parameters(setting, arm)
    middle = grid[len(grid) // 2]
    examples = [
        (draw_parts(name, setting, seed), seed) for name in TUNING_TABLES[kind] for seed in settings.tuning_seeds
    ]
    num_outputs, trainers, scores = examples[0][0].train.y.shape[1], {}, {}

    def try_out(rate: float, parameter: float) -> None:
        key = parameter if arm == "robust" else None  # a robust loss has its parameter compiled in
        if key not in trainers:
            trainers[key] = Trainer(setting, arm, optimizer, num_outputs, parameter, seed=settings.tuning_seeds[0])
        choice = Choice(rate, parameter, settings.num_steps)
        curves = [[s.normalized for s in trainers[key].fit(parts, choice, seed)] for parts, seed in examples]
        for number, mean in enumerate(np.mean(curves, axis=0), start=1):
            scores[Choice(rate, parameter, number * CHECKED_STEPS)] = mean

    if len(settings.rates) == len(grid) == 1 and settings.num_steps == CHECKED_STEPS:
        return Choice(settings.rates[0], middle, settings.num_steps)
    for rate in settings.rates:
        try_out(rate, middle)
    best = max(scores, key=scores.get)
    for parameter in grid:
        if parameter != middle:
            try_out(best.rate, parameter)
    return max(scores, key=scores.get)


def run_seed(seed: int, settings: Settings, output_dir: Path, verbose: int) -> Result:
    """Trains all arms on all tables; each setting and optimizer is kept, so that an interrupted seed goes on."""
    curves = {}
    for setting, optimizer in itertools.product(SETTINGS, (*settings.optimizers, "boosting")):
        path = training_folder(seed, output_dir) / f"{setting}_{optimizer}.json"
        if not path.is_file():
            if verbose:
                print(f"    {setting}, {optimizer}", flush=True)
            run = run_boosting if optimizer == "boosting" else run_optimizer
            unfinished = path.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(run(setting, optimizer, seed, settings)))
            os.replace(unfinished, path)
        curves |= json.loads(path.read_text())
    return {"metrics": compute_metrics(curves), "curves": curves}


def run_optimizer(setting: str, optimizer: str, seed: int, settings: Settings) -> dict[str, list[Score]]:
    """Returns "setting/optimizer/arm/table" -> the scores after each 100 steps, up to the tuned number."""
    curves, trainers = {}, {}
    for name in tables_of(setting, settings):
        parts = draw_parts(name, setting, seed)
        for arm in ARMS[setting]:
            choice = Choice(*settings.tuned[f"{setting}/{KINDS[name]}/{optimizer}/{arm}"])
            key = arm, parts.train.y.shape[1]
            if key not in trainers:
                trainers[key] = Trainer(setting, arm, optimizer, key[1], choice.parameter, seed)
            curves[f"{setting}/{optimizer}/{arm}/{name}"] = trainers[key].fit(parts, choice, seed)
    return curves


def run_boosting(setting: str, optimizer: str, seed: int, settings: Settings) -> dict[str, list[Score]]:
    """Returns the same for gradient boosting, with one score each."""
    return {
        f"{setting}/{optimizer}/boosting/{name}": [boost(setting, draw_parts(name, setting, seed), seed)]
        for name in tables_of(setting, settings)
    }


def check(settings: Settings) -> None:
    """Raises a `ValueError` for settings that cannot be."""
    unknown = sorted({*settings.optimizers} - {*OPTIMIZERS})
    if unknown or not settings.optimizers:
        raise ValueError(f"Expected `optimizers` among {sorted(OPTIMIZERS)}. Received: {settings.optimizers}")
    if settings.num_steps < CHECKED_STEPS or settings.num_steps % CHECKED_STEPS:
        raise ValueError(f"Expected `num_steps` as a multiple of {CHECKED_STEPS}. Received: {settings.num_steps}")
    if settings.num_tables < 1:
        raise ValueError(f"Expected `num_tables` of at least 1. Received: {settings.num_tables}")


def main(
    settings: Settings = Settings(),
    *,
    seeds: int = 1,
    first_seed: int = 0,
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("runs/adapt"),
) -> Metrics:
    """Compares a loss that adapts with the loss that it starts from, on thirty tables.

    Args:
        settings: The settings.
        seeds: Number of seeds.
        first_seed: The first seed.
        smoke: Train for a few steps only, to see that everything works.
        jobs: Number of processes; each takes seeds of its own.
        output_dir: Folder for the results. An interrupted run resumes from it.

    Returns:
        The metrics, name -> one value for each seed.
    """
    command = recorded_command(main, settings, seeds=seeds, first_seed=first_seed, smoke=smoke)
    check(settings)
    settings = settings.smoke() if smoke else settings
    load_table(tables_of("clean", settings)[0])  # fails before anything is written
    settings = tune_all(settings, Path(output_dir), jobs)
    numbers = range(first_seed, first_seed + seeds)
    results = run_seeds(run_seed, numbers, settings, output_dir, jobs=jobs)
    statistics = compute_statistics(results, num_samples=50 if smoke else 2000)
    further: dict[str, Any] = {"statistics": statistics}
    metrics = write_summary("adapt", command, numbers, results, settings, output_dir, further_config=further)
    write_history(history_rows(numbers, results), output_dir)
    figure_path = save_figure(draw_figure(statistics), output_dir)
    print_report(statistics)
    print(f"\nFigure: {figure_path}")
    return metrics


if __name__ == "__main__":
    run_command(main, description=__doc__)
