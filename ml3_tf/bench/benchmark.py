"""The benchmark: every loss trains fresh models of every task that it fits, with the same budgets."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from ml3_tf.bench.contenders import RIVALS, Contender, find_misfit, fingerprint, load_contender
from ml3_tf.bench.results import Result, read_json, read_result, result_path, summarize, write_json
from ml3_tf.bench.task import Task
from ml3_tf.bench.tasks import TASKS
from ml3_tf.bench.training import OPTIMIZERS, Training
from ml3_tf.bench.tuning import FIRST_TUNING_SEED, RATES, TUNING_SEEDS, Choice, tune
from ml3_tf.extras import needed_for

with needed_for("ml3_tf.bench", "tyro", extra="cli"):
    from tyro.conf import Positional

AS_EXPORTED = "_as_exported"


@dataclasses.dataclass(frozen=True)
class BenchmarkSettings:
    """What the benchmark runs."""

    name_or_folder: Positional[tuple[str, ...]] = ()
    """Names of shipped losses, or folders of exported ones."""
    losses: tuple[str, ...] = tuple(RIVALS)
    """Losses of Keras and of the literature to compare with."""
    tasks: tuple[str, ...] = tuple(TASKS)
    """Tasks to train on."""
    seeds: int = 1
    """Number of seeds."""
    first_seed: int = 0
    """The first seed."""
    output_dir: Path = Path("runs/bench")
    """Folder for the results. An interrupted run resumes from it."""
    smoke: bool = False
    """Take a few steps only, to see that everything works."""

    def __post_init__(self) -> None:
        for field, known in (("losses", RIVALS), ("tasks", TASKS)):
            unknown = sorted({*getattr(self, field)} - {*known})
            if unknown:
                raise ValueError(f"`{field}` must be among {sorted(known)}. Received: {unknown}")
        if self.seeds < 1 or not 0 <= self.first_seed <= FIRST_TUNING_SEED - self.seeds:
            raise ValueError(
                f"Seeds must be at least one, from 0 to {FIRST_TUNING_SEED - 1}: the others tune. Received: "
                f"seeds={self.seeds}, first_seed={self.first_seed}"
            )

    @property
    def results_dir(self) -> Path:
        """The folder of the JSON files."""
        return self.report_dir / "losses"

    @property
    def report_dir(self) -> Path:
        """The folder of the report; a smoke run has one of its own."""
        return self.output_dir / "smoke" if self.smoke else self.output_dir

    @property
    def rates(self) -> Mapping[str, Sequence[float]]:
        """Optimizer -> grid of rates."""
        return {name: grid[4:6] for name, grid in RATES.items() if name in ("SGD", "Adam")} if self.smoke else RATES

    @property
    def tuning_seeds(self) -> Sequence[int]:
        """The seeds that rates are tuned with."""
        return TUNING_SEEDS[:1] if self.smoke else TUNING_SEEDS


def run_benchmark(settings: BenchmarkSettings, say: Callable[[str], None] = print) -> list[Result]:
    """Runs what has not been run yet, and writes a JSON for each loss, task and seed.

    Without names of losses all tasks are run, otherwise those of the kinds that these losses train.

    Args:
        settings: `BenchmarkSettings`.
        say: Takes a line about each loss and task that was run, or that is left out.

    Returns:
        The results of these settings.

    Raises:
        FileNotFoundError: There is no such loss.
        ValueError: A loss fits no task.
    """
    exported = [load_contender(name) for name in settings.name_or_folder]
    names = [contender.name for contender in exported]
    taken = sorted({name for name in names if name in RIVALS or names.count(name) > 1})
    if taken:
        raise ValueError(f"Each loss needs a name, that of its folder, of its own. Received: {taken}, which are taken")
    contenders = [*exported, *(RIVALS[name] for name in settings.losses)]
    kinds = {kind for contender in exported or contenders for kind in contender.kinds}
    results = []
    for name in settings.tasks:
        task = TASKS[name].smoke() if settings.smoke else TASKS[name]
        if task.kind in kinds and _has_data(task, say):
            for contender in contenders:
                if task.kind in contender.kinds:
                    results += _run_loss(settings, task, contender, say)
    return results


def _has_data(task: Task, say: Callable[[str], None]) -> bool:
    """Whether the data of a task are on this machine; if not, it says how to get them."""
    try:
        task.draw(FIRST_TUNING_SEED)
    except (OSError, ImportError) as error:
        say(f"{', '.join(task.names)} left out: {error}")
        return False
    return True


def _run_loss(
    settings: BenchmarkSettings, task: Task, contender: Contender, say: Callable[[str], None]
) -> list[Result]:
    """Runs a loss on a task, tuned and as it was exported."""
    loss = contender.build(task.kind, settings.results_dir / contender.name / "learned", settings.smoke)
    misfit = find_misfit(loss, task)
    if misfit:
        say(f"{contender.name} is left out on {', '.join(task.names)}: {misfit}")
        return []
    config = _config(task, fingerprint(loss, task))
    rows = {contender.name: _choose(settings, task, contender.name, loss, config)}
    if contender.recorded is not None:
        optimizer, rate = contender.recorded
        if optimizer in OPTIMIZERS:
            rows[contender.name + AS_EXPORTED] = [Choice(optimizer, rate)] * len(task.names)
        else:
            say(f"{contender.name} is not run as exported: the benchmark has no optimizer {optimizer}")
    write_json(settings.results_dir / contender.name / "loss.json", {"source": contender.source})
    results = []
    for row, choices in rows.items():
        found = list(_train(settings, task, row, loss, choices, config))
        results += found
        for name, choice in zip(task.names, choices, strict=True):
            scores = [result.score["1"] for result in found if result.task == name]
            mean = sum(scores) / len(scores)
            say(f"{name:<28} {row:<28} {choice.optimizer:<6} {choice.rate:<8g} score {mean:.3f}")
    return results


def _choose(settings: BenchmarkSettings, task: Task, row: str, loss: Any, shared: Mapping[str, Any]) -> list[Choice]:
    """The tuned optimizer and rate of each name of a task; kept."""
    grids = {optimizer: list(grid) for optimizer, grid in settings.rates.items()}
    config = {**shared, "rates": grids, "seeds": list(settings.tuning_seeds)}
    paths = [settings.results_dir / row / name / "tuning.json" for name in task.names]
    kept = [read_json(path) for path in paths]
    if all(found is not None and found["config"] == config for found in kept):
        return [Choice(*found["choice"]) for found in kept]
    choices, scores = tune(task, loss, rates=grids, seeds=settings.tuning_seeds, jit_compile=not settings.smoke)
    for number, (path, choice) in enumerate(zip(paths, choices, strict=True)):
        found = {optimizer: values[number] for optimizer, values in scores.items()}
        write_json(path, {"choice": list(choice), "scores": found, "config": config})
    return choices


def _train(
    settings: BenchmarkSettings,
    task: Task,
    row: str,
    loss: Any,
    choices: Sequence[Choice],
    shared: Mapping[str, Any],
) -> Iterator[Result]:
    """Trains with each seed; what is kept is read."""
    num_steps = task.num_steps * max(task.horizons)
    for optimizer in sorted({choice.optimizer for choice in choices}):
        training = None  # compiled for the first seed that is missing
        own = [number for number, choice in enumerate(choices) if choice.optimizer == optimizer]
        config = {n: {**shared, "optimizer": optimizer, "rate": choices[n].rate} for n in own}
        # The others train along, since the models of a task are compiled together.
        rates = [choices[n if n in own else own[0]].rate for n in range(len(choices))]
        for seed in range(settings.first_seed, settings.first_seed + settings.seeds):
            paths = {n: result_path(settings.results_dir, row, task.names[n], seed) for n in own}
            kept = {n: read_result(paths[n], config[n]) for n in own}
            if None in kept.values():
                training = training or Training(task, loss, optimizer, jit_compile=not settings.smoke)
                scores = training.run_choices(rates, seed=seed, num_steps=num_steps)
                kept = {n: summarize(row, task.names[n], task, seed, scores[:, n], config[n]) for n in own}
                for n, result in kept.items():
                    write_json(paths[n], result._asdict())
            yield from (result for result in kept.values() if result is not None)


def _config(task: Task, digest: str) -> dict[str, Any]:
    return {
        "num_steps": task.num_steps,
        "batch_size": task.batch_size,
        "horizons": list(task.horizons),
        "loss": digest,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
    }
