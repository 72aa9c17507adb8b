"""The frame around every recipe: seeds that resume, a summary, a history and a table.

A recipe is a frozen dataclass `Settings(RecipeSettings)`, a function `run_seed`, and a function `main` that calls
`recorded_command`, `fill_in`, `run_seeds`, `write_summary`, `write_history` and `print_table`::

    def main(
        settings: Settings = Settings(),
        *,
        seeds: int = 1,
        first_seed: int = 0,
        smoke: bool = False,
        jobs: int = 1,
        output_dir: Path = Path("runs/NAME"),
    ) -> Metrics: ...


    if __name__ == "__main__":
        run_command(main, description=__doc__)
"""

import contextlib
import csv
import functools
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import ml3_tf
from parts.processes import OtherSeedsLeft, run_in_processes, seed_of_this_process
from parts.settings import RecipeSettings

tf.get_logger().setLevel("ERROR")  # a recipe compiles many functions once each; TensorFlow warns of retracing

Seed: TypeAlias = int | str
Result: TypeAlias = dict[str, Any]
"""What `run_seed` returns, as JSON can hold it. "metrics" maps each name to a number; for "costs" see `costs.py`."""
Metrics: TypeAlias = dict[str, list[float]]
"""Name -> one value for each seed."""
AnySettings = TypeVar("AnySettings", bound="RecipeSettings")


def fill_in(
    find: Callable[..., Result], names: Sequence[str], settings: AnySettings, output_dir: Path | str
) -> AnySettings:
    """Fills in settings that are `None`, such as a tuned rate, by an experiment of its own.

    Args:
        find: Function `(seed, settings, output_dir, verbose)`, as `run_seed`, that returns a value for each of `names`.
        names: The settings that it finds. If none of them is `None`, it is not called.
        settings: The settings.
        output_dir: Folder of the run, where the result is kept as that of a seed called "tuning".

    Returns:
        The settings; those that were given keep their values.
    """
    missing = [name for name in names if getattr(settings, name) is None]
    if not missing:
        return settings
    [found] = run_seeds(find, ["tuning"], settings, output_dir)
    return settings.replace(**{name: _as_tuple(found[name]) for name in missing})


def run_seeds(
    run_seed: Callable[..., Result],
    seeds: Sequence[Seed],
    settings: RecipeSettings,
    output_dir: Path | str,
    *,
    jobs: int = 1,
) -> list[Result]:
    """Runs an experiment once for each seed, and keeps the result of each, so that an interrupted run resumes.

    Args:
        run_seed: Function `(seed, settings, output_dir, verbose) -> result`, defined at the top of a module; `result`
            is a dictionary that JSON can hold.
        seeds: The seeds.
        settings: The settings. A kept result is used for the same settings only.
        output_dir: Folder of the run; results are kept in `seeds/` below it.
        jobs: Number of processes.

    Returns:
        List of results, one for each seed, each with its `"seconds"`.

    Raises:
        ValueError: The folder holds results of other settings.
        RuntimeError: Seeds failed in processes of their own; the results of all others are kept.
        OtherSeedsLeft: Within `only_seed`, once that seed is kept.
    """
    folder = Path(output_dir) / "seeds"
    folder.mkdir(parents=True, exist_ok=True)
    config = settings.to_config()
    missing = [seed for seed in seeds if _read_kept(folder, seed, config) is None]
    only = seed_of_this_process()
    is_part = only in seeds  # and not, say, a tuning before all seeds
    if is_part:
        missing = [seed for seed in missing if seed == only]
    if jobs == 1:
        for seed in missing:
            print(f"{run_seed.__name__.replace('_', ' ')}: {seed}", flush=True)
            _run_and_keep(run_seed, seed, settings, output_dir, verbose=1)
    elif missing:
        _run_in_processes(run_seed, missing, settings, output_dir, jobs)
    if is_part:
        raise OtherSeedsLeft(f"Seed {only} is kept in '{folder}'. Other processes run the other seeds.")
    return [_read_kept(folder, seed, config) for seed in seeds]


def write_summary(
    recipe: str,
    command: str,
    seeds: Sequence[Seed],
    results: Sequence[Result],
    settings: RecipeSettings,
    output_dir: Path | str,
    *,
    further_config: Mapping[str, Any] | None = None,
) -> Metrics:
    """Writes `summary.json`, with "costs" if the results have them; returns the metrics.

    Args:
        recipe: Name of the recipe.
        command: The command that repeats the run, see `recorded_command`.
        seeds: The seeds.
        results: One result for each seed, see `run_seeds`.
        settings: The settings, kept as "config".
        output_dir: Folder of the run.
        further_config: Optional values that follow from the settings, added to "config".
    """
    metrics = {name: [result["metrics"][name] for result in results] for name in results[0]["metrics"]}
    summary = {
        "recipe": recipe,
        "command": command,
        "seeds": list(seeds),
        "metrics": metrics,
        **({"costs": _collect([result["costs"] for result in results])} if "costs" in results[0] else {}),
        "config": {**settings.to_config(), **(further_config or {})},
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (ml3_tf, tf, keras, np)},
        },
        "seconds": round(sum(result["seconds"] for result in results), 1),
    }
    _write(Path(output_dir) / "summary.json", json.dumps(summary, indent=2) + "\n")
    return metrics


def write_history(rows: Sequence[Mapping[str, Any]], output_dir: Path | str) -> None:
    """Writes `history.csv` from dictionaries with the same keys."""
    with _new_file(Path(output_dir) / "history.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def save_figure(figure: Figure, output_dir: Path | str) -> Path:
    """Writes `figure.png`; returns its path."""
    path = Path(output_dir) / "figure.png"
    with _new_file(path) as unfinished:
        figure.savefig(unfinished)
    return path


@functools.cache
def kept_learner(build: Callable[[], keras.Model]) -> ml3_tf.Learner:
    """Returns one learner for each function that builds it, so that all meta-tests share what is compiled for it."""
    return ml3_tf.Learner(build)


def seed_loss_folder(seed: Seed, output_dir: Path | str) -> Path:
    """Returns the folder to which `run_seed` exports the loss that it learned."""
    return Path(output_dir) / "seeds" / f"meta_loss_{seed}"


def training_folder(seed: Seed, output_dir: Path | str) -> Path:
    """Returns the folder in which `run_seed` saves its meta-training, to go on if it was interrupted."""
    return Path(output_dir) / "seeds" / f"training_{seed}"


def export_seed_loss(seed: Seed, output_dir: Path | str) -> Path:
    """Exports the loss of a seed as the learned loss of the run; returns its path."""
    return ml3_tf.load_meta_loss(seed_loss_folder(seed, output_dir)).export(Path(output_dir) / "meta_loss")


def print_table(metrics: Metrics, rows: Sequence[tuple[str, str]]) -> None:
    """Prints mean and standard deviation over seeds.

    Args:
        metrics: Name -> one value for each seed.
        rows: Pairs of a label and the name of a metric.
    """
    width = max(len(label) for label, _ in rows)
    print(f"\n{'':{width}}  {'mean':>9}  {'std':>9}  over {len(next(iter(metrics.values())))} seed(s)")
    for label, name in rows:
        print(f"{label:{width}}  {np.mean(metrics[name]):9.4f}  {np.std(metrics[name]):9.4f}")


def _collect(costs: Sequence[Any]) -> Any:
    """Dictionaries of the same keys become one, with a list over seeds in place of each value."""
    if isinstance(costs[0], Mapping):
        return {name: _collect([cost[name] for cost in costs]) for name in costs[0]}
    return list(costs)


def _as_tuple(value: Any) -> Any:
    """JSON has lists for tuples."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _run_in_processes(
    run_seed: Callable[..., Result],
    seeds: Sequence[Seed],
    settings: RecipeSettings,
    output_dir: Path | str,
    num_processes: int,
) -> None:
    """Runs all seeds, then names those that failed."""
    arguments, errors = [(run_seed, seed, settings, output_dir, 0) for seed in seeds], []
    for index, seconds, error in run_in_processes(_run_and_keep, arguments, num_processes=num_processes):
        print(f"seed {seeds[index]}: {'failed' if error else f'{seconds:.0f} s'}", flush=True)
        errors += [f"Seed {seeds[index]} failed:\n{error}"] if error else []
    if errors:
        raise RuntimeError(
            "\n".join(errors)
            + f"The results of other seeds are kept in '{output_dir}'. Run the same command again for "
            "those that are missing."
        )


def _run_and_keep(
    run_seed: Callable[..., Result], seed: Seed, settings: RecipeSettings, output_dir: Path | str, verbose: int
) -> float:
    config, training = settings.to_config(), training_folder(seed, output_dir)
    if (training / "settings.json").is_file():
        _refuse_other_settings(training / "settings.json", config)
    training.mkdir(parents=True, exist_ok=True)
    _write(training / "settings.json", json.dumps({"config": config}))
    start = time.time()
    result = run_seed(seed, settings, Path(output_dir), verbose)
    result["seconds"] = time.time() - start
    _write(training.with_name(f"seed_{seed}.json"), json.dumps({"config": config, "result": result}))
    shutil.rmtree(training)
    return result["seconds"]


def _read_kept(folder: Path, seed: Seed, config: Mapping[str, Any]) -> Result | None:
    path = folder / f"seed_{seed}.json"
    return _refuse_other_settings(path, config)["result"] if path.is_file() else None


def _refuse_other_settings(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a file holds, after checking that it was made with these settings."""
    kept = json.loads(path.read_text())
    changed = sorted(name for name in {*kept["config"], *config} if kept["config"].get(name) != config.get(name))
    if changed:
        raise ValueError(
            f"'{path}' was made with other settings ({', '.join(changed)} differ). Choose another --output-dir, or "
            f"delete '{path.parent}' to start anew."
        )
    return kept


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """Yields a path to write to, and moves the file into place: a reader, or a crash, sees the old one or the new."""
    unfinished = path.with_name(f".unfinished_{path.name}")
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a disk that is full names no file
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    with _new_file(path) as unfinished:
        unfinished.write_text(text)
