"""The tuning of PPO: the rate and the number of episodes of an update, on tasks of their own."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parts.experiment import Result, run_seeds
from parts.model_free.baselines import train_by_ppo
from parts.model_free.experiment import Experiment
from parts.model_free.measures import Curve, compute_level, final, make_curve, samples_to
from parts.model_free.settings import PPORate, TuningSettings

TUNING_SEED = 1000  # of the tasks and policies that PPO is tuned on
PAPER_EPISODES = 20  # of an update, as a reader of the paper might set it


class Tuned(NamedTuple):
    """The best settings of PPO, each a rate and a number of episodes.

    Attributes:
        ppo: Those of the grid that need the fewest samples to 80 %.
        paper_ppo: The best with `PAPER_EPISODES`; the same rate as `ppo` if the grid has none with so many.
        grid: "rate, episodes" -> `{"samples_to_level", "final_return"}`, of the whole grid.
    """

    ppo: PPORate
    paper_ppo: PPORate
    grid: Mapping[str, Any]


def run_setting(experiment: Experiment, settings: TuningSettings, name: str) -> Result:
    """Trains policies for the tuning tasks by PPO of one setting, which `name` tells: "ppo_0.003_40".

    Returns:
        `{"samples", "returns"}`, the curve of the mean policies.
    """
    _, rate, episodes = name.split("_")
    draw = next(iter(experiment.test_tasks.values()))
    tasks = draw(np.random.default_rng([TUNING_SEED, 2]), settings.num_tuning_tasks)
    result = train_by_ppo(
        experiment,
        settings,
        tasks,
        seed=TUNING_SEED,
        rate=float(rate),
        episodes=int(episodes),
        samples=settings.ppo_samples,
    )
    samples, returns = make_curve(result)
    return {"samples": samples, "returns": returns}


def tune_ppo(run_tuning: Callable[..., Result], settings: TuningSettings, folder: Path, *, jobs: int) -> Tuned:
    """Finds the rate and the number of episodes that take the fewest samples to 80 %.

    An optimum at the edge of the grid tells nothing about settings beyond it: the grid grows there, until its optimum
    lies inside. So does that of `PAPER_EPISODES`, along the rates. Each setting is kept by itself, so an interrupted
    tuning resumes, and another first grid uses what is kept.

    Args:
        run_tuning: Function as `run_seeds` takes it, that calls `run_setting`.
        settings: The settings; `ppo_rates` and `ppo_episodes` are the first grid. One value stands for itself.
        folder: Where the settings of the grid are kept.
        jobs: Number of processes.
    """
    rates, episodes = sorted(settings.ppo_rates), sorted(settings.ppo_episodes)
    # What a setting gives does not depend on the grid that asks for it: another first grid uses what is kept.
    settings = settings.replace(ppo_rates=(), ppo_episodes=(), ppo=None, paper_ppo=None)
    while True:
        grid = list(itertools.product(rates, episodes))
        results = run_seeds(
            run_tuning, [f"ppo_{rate:g}_{number}" for rate, number in grid], settings, folder, jobs=jobs
        )
        tuned = choose(dict(zip(grid, ((result["samples"], result["returns"]) for result in results))))
        wider_rates = grow(grow(rates, tuned.ppo[0]), tuned.paper_ppo[0])
        wider_episodes = sorted({max(1, round(number)) for number in grow(episodes, tuned.ppo[1])})
        if (wider_rates, wider_episodes) == (rates, episodes):
            return tuned
        rates, episodes = wider_rates, wider_episodes


def choose(curves: Mapping[PPORate, Curve]) -> Tuned:
    """Chooses from the curves of a grid; of those that never get to 80 %, the one that ends best."""
    level = compute_level(curves.values())
    needed = {setting: samples_to(level, *curve) for setting, curve in curves.items()}
    finals = {setting: final(returns) for setting, (_, returns) in curves.items()}
    order = lambda setting: (needed[setting] is None, needed[setting] or 0, -finals[setting])
    chosen = min(needed, key=order)
    of_paper = [setting for setting in needed if setting[1] == PAPER_EPISODES]
    grid = {
        f"{setting[0]:g}, {setting[1]}": {"samples_to_level": needed[setting], "final_return": finals[setting]}
        for setting in curves
    }
    return Tuned(chosen, min(of_paper, key=order) if of_paper else (chosen[0], PAPER_EPISODES), grid)


def grow(values: Sequence[float], best: float) -> list[float]:
    """Returns sorted values, and one more where the best of several is the first or the last of them.

    The further value lies as far away, as a ratio, as the neighbor on the other side.

    Example:

    >>> grow([0.001, 0.003], 0.003)
    [0.001, 0.003, 0.009]
    """
    if len(values) > 1 and best in (values[0], values[-1]):
        neighbor = values[1] if best == values[0] else values[-2]
        return sorted({*values, float(f"{best * best / neighbor:.2g}")})
    return list(values)
