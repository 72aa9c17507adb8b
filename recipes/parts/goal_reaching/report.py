"""One run of a recipe that reaches goals: tuning, seeds, and the files and the table that are made of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from parts.experiment import (
    Metrics,
    Result,
    export_seed_loss,
    fill_in,
    print_table,
    run_seeds,
    seed_loss_folder,
    training_folder,
    write_history,
    write_summary,
)
from parts.goal_reaching.experiment import Experiment, meta_train
from parts.goal_reaching.figure import LABELS, draw_figure
from parts.goal_reaching.measures import compute_metrics, count_costs
from parts.goal_reaching.meta_testing import (
    METHODS,
    TUNED_SETTINGS,
    TUNING_SEED,
    draw_test_tasks,
    final_distances,
    meta_test,
    tune,
)
from parts.goal_reaching.settings import GoalReachingSettings


def run_experiment(
    experiment: Experiment,
    settings: GoalReachingSettings,
    seeds: Sequence[int],
    *,
    command: str,
    run_tuning: Callable[..., Result],
    run_seed: Callable[..., Result],
    jobs: int,
    output_dir: Path | str,
) -> Metrics:
    """Tunes the baselines once, runs the seeds, writes their results, and prints them.

    Args:
        experiment: `Experiment`.
        settings: The settings.
        seeds: The seeds.
        command: The command of the run.
        run_tuning: Function of the recipe as `fill_in` takes it.
        run_seed: Function of the recipe as `run_seeds` takes it.
        jobs: Number of processes.
        output_dir: Folder of the run.

    Returns:
        The metrics, name -> one value per seed.
    """
    output_dir = Path(output_dir)
    settings = fill_in(run_tuning, TUNED_SETTINGS, settings, output_dir)
    results = run_seeds(run_seed, seeds, settings, output_dir, jobs=jobs)
    metrics = write_summary(experiment.name, command, seeds, results, settings, output_dir)
    write_history(history_rows(seeds, results), output_dir)
    draw_figure(results, experiment, settings).savefig(output_dir / "figure.png")
    loss_path = export_seed_loss(seeds[0], output_dir)
    _print(metrics, experiment, settings, output_dir, loss_path)
    return metrics


def _print(
    metrics: Metrics, experiment: Experiment, settings: GoalReachingSettings, output_dir: Path, loss_path: Path
) -> None:
    rows = [
        (f"{title}: {LABELS[method]} ({experiment.unit})", f"{prefix}final_distance_{method}")
        for prefix, title in experiment.titles.items()
        for method in METHODS
    ]
    print_table(metrics, rows)
    print(
        f"\nDistance to the goal after {settings.reported_step} updates. Best rate, clipping:"
        f"\n    {LABELS['tuned']}: {settings.tuned}\n    {LABELS['tuned_squared']}: {settings.tuned_squared}"
        f"\nThe best of all baselines on tuning goals: {LABELS[settings.best_baseline]}"
        f"\n\nFigure: {output_dir / 'figure.png'}\nLearned loss: {loss_path}"
        f'\n\nUse it with any policy:\n\n    import keras, ml3_tf\n    loss = ml3_tf.load_meta_loss("{loss_path}")\n'
        f"    optimizer = keras.optimizers.SGD({settings.inner_rate}, clipnorm={settings.inner_clipnorm})\n"
        "    policy.compile(optimizer=optimizer, loss=loss)"
    )


def tune_baselines(experiment: Experiment, settings: GoalReachingSettings, output_dir: Path, *, verbose: int) -> Result:
    """Meta-trains with `TUNING_SEED`, and tunes the baselines with the dynamics that were learned on the way."""
    folder = training_folder("tuning", output_dir)
    return tune(experiment, settings, meta_train(experiment, settings, TUNING_SEED, folder, verbose=verbose).dynamics)


def run_one_seed(
    experiment: Experiment, settings: GoalReachingSettings, seed: int, output_dir: Path, *, verbose: int
) -> Result:
    """Meta-trains, then meta-tests every method on the same goals and from the same policies.

    Returns:
        `"metrics"`, `"costs"`, and for the figure `"distances"` (prefix and method -> `[num_updates + 1, N]`),
        `"paths"` (the same -> `[N, T + 1, G]`, after the reported update) and `"goals"` (prefix -> `[N, G]`).
    """
    tests = draw_test_tasks(experiment, seed, settings.num_goals)
    tasks = tuple(np.concatenate(parts) for parts in zip(*tests.values()))
    trained = meta_train(experiment, settings, seed, training_folder(seed, output_dir), verbose=verbose)
    trained.meta_loss.export(seed_loss_folder(seed, output_dir))
    results = {"metrics": {}, "distances": {}, "paths": {}, "meta_train": trained.history}
    results["goals"] = {prefix: goals.tolist() for prefix, (_, goals) in tests.items()}
    for method in METHODS:
        states = meta_test(experiment, settings, method, trained, tasks, seed=seed)
        for prefix, part in zip(tests, np.split(states, len(tests), axis=1)):
            _add(results, prefix, method, part, settings)
    results["metrics"]["dynamics_log_likelihood"] = trained.history["dynamics_log_likelihood"][-1]
    first, goals = next(iter(tests.items()))
    compared = {"learned": "learned", "baseline": settings.best_baseline}
    distances = {role: np.array(results["distances"][first + method]) for role, method in compared.items()}
    results["costs"] = count_costs(experiment, settings, trained, goals, distances)
    return results


def _add(results: Result, prefix: str, method: str, states: np.ndarray, settings: GoalReachingSettings) -> None:
    """Adds the rollouts of one method for the goals of one prefix."""
    goals = np.array(results["goals"][prefix])
    distances = final_distances(states, goals)
    results["metrics"] |= compute_metrics(prefix, method, distances, settings)
    results["distances"][prefix + method] = distances.tolist()
    results["paths"][prefix + method] = states[settings.reported_step, ..., : goals.shape[-1]].tolist()


def history_rows(seeds: Sequence[int], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Returns the rows of `history.csv`: the final distance of each policy after each update."""
    return [
        {"seed": seed, "goals": prefix, "method": name, "update": update, "policy": policy, "final_distance": distance}
        for seed, result in zip(seeds, results)
        for prefix in result["goals"]
        for name in METHODS
        for update, distances in enumerate(result["distances"][prefix + name])
        for policy, distance in enumerate(distances)
    ]
