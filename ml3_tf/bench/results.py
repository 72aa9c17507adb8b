"""The files of results: one JSON for each loss, task and seed, and one for what was tuned."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ml3_tf.bench.task import NUM_CHECKS, Task


class Result(NamedTuple):
    """What a loss has reached on a task with a seed.

    Attributes:
        loss: Name of the row.
        task: Name of the task.
        seed: The seed.
        kind: The kind of the task.
        score: Horizon, as a multiple of the task's number of steps -> score after it.
        best: The highest score on the way, and the step of it; a practitioner would not know it.
        best_step: See `best`.
        curve: Scores, before the first step and after each tenth of the first horizon.
        config: What the result depends on.
    """

    loss: str
    task: str
    seed: int
    kind: str
    score: dict[str, float]
    best: float
    best_step: int
    curve: list[float]
    config: dict[str, Any]


def summarize(loss: str, name: str, task: Task, seed: int, scores: np.ndarray, config: Mapping[str, Any]) -> Result:
    """Returns the `Result` of scores `[checks + 1]`."""
    curve = [round(float(value), 6) for value in scores]
    best = int(np.argmax(curve))
    horizons = {str(horizon): curve[horizon * NUM_CHECKS] for horizon in task.horizons}
    steps = best * task.num_steps // NUM_CHECKS
    return Result(loss, name, seed, task.kind, horizons, curve[best], steps, curve, dict(config))


def result_path(folder: Path, loss: str, task: str, seed: int) -> Path:
    """Returns the file of a result.

    >>> result_path(Path("losses"), "mse", "sines", 3).as_posix()
    'losses/mse/sines/seed_3.json'
    """
    return folder / loss / task / f"seed_{seed}.json"


def read_result(path: Path, config: Mapping[str, Any]) -> Result | None:
    """Returns a kept result, or `None` if there is none of the same configuration."""
    kept = read_json(path)
    return None if kept is None or kept.get("config") != dict(config) else Result(**kept)


def read_results(folder: Path) -> list[Result]:
    """Returns all results of a folder, in the order of their paths."""
    return [Result(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*/*/seed_*.json"))]


def read_json(path: Path) -> Any:
    """Returns what a file holds, or `None` if there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def read_sources(folder: Path) -> dict[str, str]:
    """Returns where each loss of a folder comes from."""
    return {path.parent.name: json.loads(path.read_text())["source"] for path in sorted(folder.glob("*/loss.json"))}


def write_json(path: Path, value: Any) -> None:
    """Writes a file as a whole, so that an interrupted run leaves none that is cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def collect(results: Sequence[Result], losses: Sequence[str], tasks: Sequence[str], horizon: str) -> np.ndarray:
    """Returns scores `[losses, seeds, tasks]` of the seeds that all of them have."""
    found = {(r.loss, r.task, r.seed): r.score[horizon] for r in results if horizon in r.score}
    seeds = sorted({seed for *_, seed in found})
    shared = [seed for seed in seeds if all((loss, task, seed) in found for loss in losses for task in tasks)]
    return np.array([[[found[loss, task, seed] for task in tasks] for seed in shared] for loss in losses])
