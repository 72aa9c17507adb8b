"""One run of a recipe that reaches goals: tuning, seeds, and what is written and printed of them."""

from pathlib import Path

import numpy as np
from experiment import export_loss_of, print_table, run_seeds, write_history, write_summary
from goal_reaching import TUNING_SEED, draw_tests, final_distances, meta_test, meta_train, tune
from goal_reaching_figure import draw_figure

LABELS = {
    "learned": "learned loss",
    "same_rate": "task loss, same rate",
    "tuned": "task loss, best rate",
    "tuned_squared": "squared distance, best rate",
}


def run_experiment(recipe, command, functions, numbers, config, output_dir, jobs, figure):
    """Tunes the baseline once, runs the seeds, writes their results, and prints them.

    Args:
        recipe: Name of the recipe.
        command: Its command line.
        functions: `(run_tuning, run_seed)` of the recipe, as `run_seeds` takes them.
        numbers: The seeds.
        config: Settings.
        output_dir: Folder of the run.
        jobs: Number of processes.
        figure: Arguments of `draw_figure` beside results and settings.

    Returns:
        The metrics, name -> one value per seed.
    """
    run_tuning, run_seed = functions
    output_dir = Path(output_dir)
    [tuned] = run_seeds(run_tuning, ["tuning"], config, output_dir)
    config = {**config, **{name: chosen for name, chosen in tuned.items() if name not in ("distances", "seconds")}}
    results = run_seeds(run_seed, numbers, config, output_dir, jobs)
    metrics = write_summary(recipe, command, numbers, results, config, output_dir)
    write_history(history_rows(numbers, results), output_dir)
    draw_figure(results, config, **figure).savefig(output_dir / "figure.png")
    loss_path = export_loss_of(numbers[0], output_dir)
    _print(metrics, results, config, figure, output_dir, loss_path)
    return metrics


def _print(metrics, results, config, figure, output_dir, loss_path):
    rows = [
        (f"{goals}: {LABELS[method]} ({figure['unit']})", f"{prefix}final_distance_{method}")
        for prefix, goals in figure["goals"].items()
        for method in results[0]["methods"]
    ]
    print_table(metrics, rows)
    print(f"\nDistance to the goal after {config['reported_step']} updates. Best rate, clipping:")
    print("\n".join(f"    {LABELS[name]}: {config[name]}" for name in results[0]["methods"] if name in config))
    print(
        f"\nFigure: {output_dir / 'figure.png'}\nLearned loss: {loss_path}"
        f'\n\nUse it with any policy:\n\n    import keras, ml3_tf\n    loss = ml3_tf.load_meta_loss("{loss_path}")\n'
        f"    optimizer = keras.optimizers.SGD({config['inner_rate']}, clipnorm={config['inner_clipnorm']})\n"
        "    policy.compile(optimizer=optimizer, loss=loss)"
    )


def run_tuning(experiment, config, verbose):
    """Meta-trains with `TUNING_SEED`, and tunes the baseline with the dynamics that were learned on the way."""
    _, dynamics, _ = meta_train(experiment, config, TUNING_SEED, verbose)
    return tune(experiment, config, dynamics)


def run_seed(experiment, config, seed, output_dir, verbose):
    """One seed: meta-train, then meta-test with every method on the same goals and from the same policies.

    Returns:
        `"metrics"`, `"methods"`, and for the figure `"distances"` (prefix and method -> `[updates + 1, N]`),
        `"paths"` (the same -> `[N, T + 1, G]`, after the reported update) and `"goals"` (prefix -> `[N, G]`).
    """
    tasks = draw_tests(experiment, seed, config["num_goals"])
    starts, goals = (np.concatenate(parts) for parts in zip(*tasks.values()))
    results = {"metrics": {}, "methods": experiment.methods, "distances": {}, "paths": {}}
    results["goals"] = {prefix: aims.tolist() for prefix, (_, aims) in tasks.items()}
    meta_loss, dynamics, results["meta_train"] = meta_train(experiment, config, seed, verbose)
    meta_loss.export(output_dir / "seeds" / f"meta_loss_{seed}")
    for method in experiment.methods:
        states = meta_test(experiment, config, method, meta_loss, dynamics, starts, goals, seed)
        for prefix, part in zip(tasks, np.split(states, len(tasks), axis=1)):
            _add(results, prefix, method, part, config["reported_step"])
    results["metrics"]["dynamics_log_likelihood"] = results["meta_train"]["dynamics_log_likelihood"][-1]
    return results


def _add(results, prefix, method, states, reported):
    """Adds what one method did for the goals of one prefix."""
    goals = np.array(results["goals"][prefix])
    distances = final_distances(states, goals)
    results["metrics"] |= {
        f"{prefix}initial_distance": float(distances[0].mean()),
        f"{prefix}final_distance_{method}": float(distances[reported].mean()),
        f"{prefix}later_final_distance_{method}": float(distances[-1].mean()),
    }
    results["distances"][prefix + method] = distances.tolist()
    results["paths"][prefix + method] = states[reported, ..., : goals.shape[-1]].tolist()


def history_rows(numbers, results):
    """Rows of `history.csv`: the final distance of each policy after each update."""
    return [
        {"seed": seed, "goals": prefix, "method": name, "update": update, "policy": policy, "final_distance": distance}
        for seed, result in zip(numbers, results)
        for prefix in result["goals"]
        for name in result["methods"]
        for update, distances in enumerate(result["distances"][prefix + name])
        for policy, distance in enumerate(distances)
    ]
