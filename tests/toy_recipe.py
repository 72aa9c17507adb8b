"""A recipe that takes no time, for tests of what runs recipes."""

import dataclasses
import functools
import os
import signal
import time
from pathlib import Path

from parts.experiment import Metrics, fill_in, run_seeds, write_summary
from parts.settings import RecipeSettings, recorded_command, run_command


@dataclasses.dataclass(frozen=True)
class Head:
    width: int = 3
    """Width."""


@dataclasses.dataclass(frozen=True)
class Settings(RecipeSettings):
    rate: float = 0.1
    """Added to the error. With 5.0 seed 101 fails, with 9.0 the process is killed."""
    pair: tuple[int, int] = (1, 2)
    """Two numbers."""
    decay: bool = True
    """Whether something decays."""
    head: Head = Head()
    """A head."""
    marks: Path | None = None
    """Folder where each run of a seed leaves a mark. Seed 101 waits there for a file `go`."""
    tuned: float | None = None
    """Added to the error. None: tune it."""

    def smoke(self) -> "Settings":
        return self.replace(tuned=7.0)


@functools.cache
def offset(seed: int) -> int:
    return seed % 3


def leave_mark(seed: int | str, settings: Settings) -> None:
    if settings.marks is not None:
        with (settings.marks / f"{settings.rate}_{seed}").open("a") as file:
            file.write(f"{os.getpid()}\n")


def tune(seed, settings, output_dir, verbose):
    leave_mark(seed, settings)
    return {"tuned": 1.0}


def run_seed(seed, settings, output_dir, verbose):
    print(f"this is seed {seed}")
    leave_mark(seed, settings)
    if settings.rate == 5.0 and seed == 101:
        raise ValueError("it diverged")
    if settings.rate == 9.0:
        os.kill(os.getpid(), signal.SIGKILL)
    while settings.marks is not None and seed == 101 and not (settings.marks / "go").exists():
        time.sleep(0.1)
    return {"metrics": {"error": settings.rate + offset(seed) + settings.tuned, "width": settings.head.width}}


def main(
    settings: Settings = Settings(),
    *,
    seeds: int = 1,
    first_seed: int = 0,
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("runs/toy"),
) -> Metrics:
    """Does next to nothing.

    Args:
        settings: The settings.
        seeds: Number of seeds.
        first_seed: The first seed.
        smoke: Tune nothing.
        jobs: Number of processes.
        output_dir: Folder for the results.
    """
    command = recorded_command(main, settings, seeds=seeds, first_seed=first_seed, smoke=smoke)
    settings = settings.smoke() if smoke else settings
    settings = fill_in(tune, ("tuned",), settings, output_dir)
    numbers = range(first_seed, first_seed + seeds)
    results = run_seeds(run_seed, numbers, settings, output_dir, jobs=jobs)
    return write_summary("toy_recipe", command, numbers, results, settings, output_dir)


if __name__ == "__main__":
    run_command(main, description=__doc__)
