"""The jobs of a sweep: one seed of one setting each, then one summary for each setting."""

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from parts.processes import only_seed
from parts.settings import settings_from_flags


class Run(NamedTuple):
    """All seeds of one setting of a recipe."""

    recipe: Path
    """File of the recipe."""
    flags: tuple[str, ...]
    """The flags that set the values of the grid."""
    folder: Path
    """The output folder of the recipe."""
    seeds: range
    """The seeds."""
    smoke: bool
    """Whether to run a few steps only."""


def load_recipe(path: Path) -> ModuleType:
    """Imports a recipe from its file.

    Raises:
        ValueError: The file does not exist, or it does not define `main` and `Settings`.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise ValueError(f"`recipe` expects the file of a recipe, e.g. recipes/digits.py. Received: '{path}'")
    module = sys.modules.get(path.stem)
    if module is None or getattr(module, "__file__", None) != str(path):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    if not hasattr(module, "main") or not hasattr(module, "Settings"):
        raise ValueError(f"`recipe` expects a file that defines `main` and `Settings`. Received: '{path}'")
    return module


def run_part(run: Run, seed: int | None) -> None:
    """Runs one seed of a setting and keeps its result, or makes the summary of all seeds, if `seed` is `None`.

    All that it prints is added to a file beside the results of the seeds, see `log_file`.
    """
    with _output_to(log_file(run, seed)):
        recipe = load_recipe(run.recipe)
        settings = settings_from_flags(recipe.Settings, run.flags)
        with contextlib.nullcontext() if seed is None else only_seed(seed):
            recipe.main(
                settings,
                seeds=len(run.seeds),
                first_seed=run.seeds[0],
                smoke=run.smoke,
                jobs=1,
                output_dir=run.folder,
            )


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Adds to a file what Python prints, and what TensorFlow's C++ writes to the standard error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def log_file(run: Run, seed: int | None) -> Path:
    """Returns the file of what `run_part` prints."""
    return run.folder / "seeds" / f"log_{'summary' if seed is None else seed}.txt"


def is_kept(run: Run, seed: int) -> bool:
    """Returns whether there is a result for a seed."""
    return _seed_file(run, seed).is_file()


def kept_metrics(run: Run, seed: int) -> dict[str, float]:
    """Returns the metrics of a seed."""
    return json.loads(_seed_file(run, seed).read_text())["result"]["metrics"]


def _seed_file(run: Run, seed: int) -> Path:
    return run.folder / "seeds" / f"seed_{seed}.json"
