"""What every recipe does around its experiment: seeds that resume, a summary, a history, a table."""

import csv
import inspect
import json
import multiprocessing
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import ml3_tf

tf.get_logger().setLevel("ERROR")  # a recipe compiles many functions once each; TensorFlow warns of retracing


def run_seeds(run_seed, seeds, config, output_dir, jobs=1):
    """Runs an experiment once for each seed, and keeps the result of each, so that an interrupted run resumes.

    Args:
        run_seed: Function `(seed, config, output_dir, verbose) -> result`, defined at the top of a module; `result` is
            a dictionary that JSON can hold.
        seeds: The seeds.
        config: Dictionary of settings that JSON can hold. A kept result is used for the same settings only.
        output_dir: Folder of the run; results are kept in `seeds/` below it.
        jobs: Number of processes.

    Returns:
        List of results, one for each seed, each with its `"seconds"`.

    Raises:
        ValueError: The folder holds results of other settings.
    """
    folder = Path(output_dir) / "seeds"
    folder.mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in seeds if _read_kept(folder, seed, config) is None]
    if jobs == 1:
        for seed in missing:
            print(f"{run_seed.__name__.replace('_', ' ')}: {seed}", flush=True)
            _run_and_keep(run_seed, seed, config, output_dir, verbose=1)
    elif missing:
        # Spawned, because a process that has imported TensorFlow must not be forked.
        # Each seed has a process of its own: what it compiled leaves the memory with it.
        context, workers = multiprocessing.get_context("spawn"), min(jobs, len(missing))
        with ProcessPoolExecutor(workers, context, max_tasks_per_child=1) as pool:
            futures = {seed: pool.submit(_run_and_keep, run_seed, seed, config, output_dir, 0) for seed in missing}
            for seed, future in futures.items():
                print(f"seed {seed}: {future.result():.0f} s", flush=True)
    return [_read_kept(folder, seed, config) for seed in seeds]


def write_summary(recipe, command, seeds, results, config, output_dir):
    """Writes `summary.json`; returns the metrics, name -> one value per seed."""
    metrics = {name: [result["metrics"][name] for result in results] for name in results[0]["metrics"]}
    summary = {
        "recipe": recipe,
        "command": command,
        "seeds": list(seeds),
        "metrics": metrics,
        "config": config,
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (ml3_tf, tf, keras, np)},
        },
        "seconds": round(sum(result["seconds"] for result in results), 1),
    }
    _write_atomically(Path(output_dir) / "summary.json", json.dumps(summary, indent=2) + "\n")
    return metrics


def export_loss_of(seed, output_dir):
    """Exports the loss that was kept for a seed as the learned loss of the run; returns its path."""
    return ml3_tf.load_meta_loss(Path(output_dir) / "seeds" / f"meta_loss_{seed}").export(
        Path(output_dir) / "meta_loss"
    )


def write_history(rows, output_dir):
    """Writes `history.csv` from dictionaries with the same keys."""
    with (Path(output_dir) / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def print_table(metrics, rows):
    """Prints mean and standard deviation over seeds.

    Args:
        metrics: name -> one value per seed.
        rows: Pairs of a label and the name of a metric.
    """
    width = max(len(label) for label, _ in rows)
    print(f"\n{'':{width}}  {'mean':>9}  {'std':>9}  over {len(next(iter(metrics.values())))} seed(s)")
    for label, name in rows:
        print(f"{label:{width}}  {np.mean(metrics[name]):9.4f}  {np.std(metrics[name]):9.4f}")


def command_line(main, arguments):
    """The command that runs `main` with these arguments; flags at their default are left out."""
    command = ["python", f"recipes/{Path(inspect.getsourcefile(main)).name}"]
    for name, parameter in inspect.signature(main).parameters.items():
        value = arguments[name]
        if value != parameter.default and name not in ("output_dir", "jobs"):
            flag = "--" + name.replace("_", "-")
            command += [flag] if value is True else [flag, *_words(value)]
    return " ".join(command)


def _words(value):
    """A flag's value as it is typed: nested tuples one number after the other."""
    return [word for part in value for word in _words(part)] if isinstance(value, tuple) else [str(value)]


def _run_and_keep(run_seed, seed, config, output_dir, verbose):
    start = time.time()
    result = run_seed(seed, config, Path(output_dir), verbose)
    result["seconds"] = time.time() - start
    text = json.dumps({"config": config, "result": result})
    _write_atomically(Path(output_dir) / "seeds" / f"seed_{seed}.json", text)
    return result["seconds"]


def _read_kept(folder, seed, config):
    path = folder / f"seed_{seed}.json"
    if not path.is_file():
        return None
    kept = json.loads(path.read_text())
    changed = sorted(name for name in {*kept["config"], *config} if kept["config"].get(name) != config.get(name))
    if changed:
        raise ValueError(
            f"'{path}' was made with other settings ({', '.join(changed)} differ). Choose another --output-dir, or "
            f"delete '{folder}' to start anew."
        )
    return kept["result"]


def _write_atomically(path, text):
    """A reader, or a crash, sees the old file or the new one."""
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(text)
    os.replace(unfinished, path)
