"""One run of a recipe that reaches goals by experience alone: tuning, seeds, and what is written of them."""

import math
from pathlib import Path

import gymnasium
import numpy as np
from experiment import export_loss_of, print_table, run_seeds, write_history, write_summary
from model_free_reaching import draw_tests, fresh_parameters, meta_test, meta_train, roll_out_means
from model_free_reaching_baselines import returns_of_one, train_by_ppo, train_goal_conditioned
from model_free_reaching_figure import draw_figure, write_animation
from model_free_reaching_measures import compare_depths, curve_of, measure

import ml3_tf.envs  # noqa: F401 - registers the environments

TUNING = [  # settings that PPO is tuned with: a change of others keeps what was tuned
    *("policy_units", "discount", "gae_lambda", "num_tuning_tasks", "smoke"),
    *("ppo_rates", "ppo_episodes", "ppo_samples", "ppo_batch", "ppo_epochs"),
]


def run_experiment(experiment, command, functions, numbers, config, output_dir, jobs):
    """Tunes PPO once, runs the seeds, writes their results, and prints them.

    Args:
        experiment: `Experiment`.
        command: The command line of the recipe.
        functions: `(run_tuning, run_seed)` of the recipe, as `run_seeds` takes them.
        numbers: The seeds.
        config: Settings.
        output_dir: Folder of the run.
        jobs: Number of processes.

    Returns:
        The metrics, name -> one value per seed.

    Raises:
        ValueError: A number of layers below 1.
    """
    layers, losses = config["policy_layers"], config["losses"]
    if not layers or min(layers) < 1:
        raise ValueError(f"`policy_layers` must be numbers of hidden layers, at least 1. Received: {layers}")
    losses = {name: _settings(experiment, config, name) for name in ("learned", *losses)}
    config = {**config, "policy_layers": list(layers), "losses": losses}
    run_tuning, run_seed = functions
    output_dir = Path(output_dir)
    tuning = {name: config[name] for name in TUNING}
    [tuned] = run_seeds(run_tuning, ["tuning"], tuning, output_dir / "seeds" / "tuning")
    config = {**config, "ppo": tuned["ppo"], "paper_ppo": tuned["paper_ppo"]}
    results = run_seeds(run_seed, numbers, config, output_dir, jobs)
    metrics = write_summary(experiment.name, command, numbers, results, config, output_dir)
    write_history(_history(numbers, results, experiment), output_dir)
    draw_figure(results, experiment).savefig(output_dir / "figure.png")
    path = results[0]["path"]
    write_animation(gymnasium.make(experiment.env, render_mode="rgb_array"), path, output_dir / "before_and_after.gif")
    loss_path = export_loss_of(numbers[0], output_dir)
    _print(metrics, config, experiment.horizon, output_dir, loss_path)
    return metrics


def run_seed(experiment, config, seed, output_dir, verbose):
    """Meta-trains, then trains fresh policies on unseen tasks with every method.

    Returns:
        `"metrics"`, `"meta_train"` (loss -> returns), and for figure and history `"curves"`: prefix and method ->
        `{"samples", "returns", "on_policy"}`, `"layers"`: depth -> the same, `"goal_conditioned"`: prefix -> return,
        `"path"`: see `_path`.
    """
    tests = draw_tests(experiment, config, seed)
    guide = train_goal_conditioned(experiment, config, seed, config["goal_conditioned_samples"])
    losses, returns, metrics = {}, {}, {}
    for name in config["losses"]:
        settings = {**config, **config["losses"][name]}
        guidance = guide if settings["guide_weight"] else None
        losses[name], returns[name], samples = meta_train(experiment, settings, seed, verbose, guidance)
        samples += config["goal_conditioned_samples"] if settings["guide_weight"] else 0
        metrics[f"meta_train_env_steps_{name}"] = samples
        suffix = "" if name == "learned" else f"_{name}"
        losses[name].export(output_dir / "seeds" / f"meta_loss_{seed}{suffix}")
    adapted, path = _adapt(experiment, config, losses, tests, seed)
    goal_conditioned = {}
    for prefix, tasks in tests.items():
        goal_conditioned[prefix] = float(np.mean(returns_of_one(experiment, guide, tasks)))
        metrics |= {f"{prefix}{name}": value for name, value in measure(adapted[prefix]).items()}
        metrics[f"{prefix}final_return_goal_conditioned"] = goal_conditioned[prefix]
    settings = {**config, **config["losses"]["learned"]}
    layers = {
        str(depth): adapted[""]["learned"]
        if depth == 2
        else meta_test(experiment, settings, losses["learned"], tests[""], seed, depth)
        for depth in config["policy_layers"]
    }
    metrics |= compare_depths(layers, config["num_policies"])
    curves = {prefix + name: _kept(result) for prefix, part in adapted.items() for name, result in part.items()}
    kept = {"meta_train": returns, "curves": curves, "goal_conditioned": goal_conditioned, "path": path}
    return {"metrics": metrics, "layers": {depth: _kept(result) for depth, result in layers.items()}, **kept}


def _adapt(experiment, config, losses, tests, seed):
    """Prefix -> method -> `Adaptation`, and `_path`; a method trains for all prefixes at once: compiled once."""
    parts = list(tests.values())
    tasks = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    results = {
        name: meta_test(experiment, {**config, **config["losses"][name]}, loss, tasks, seed)
        for name, loss in losses.items()
    }
    runs = {}  # both have one if they have the same settings
    for name in ("ppo", "paper_ppo"):
        setting = (*config[name], config[f"{name}_samples"])
        runs[setting] = runs.get(setting) or train_by_ppo(experiment, config, tasks, seed, *setting)
        results[name] = runs[setting]
    ends = np.cumsum([len(part["state"]) for part in parts])
    limits = dict(zip(tests, zip([0, *ends], ends)))
    part_of = lambda result, start, end: type(result)(*(values[:, start:end] for values in result[:3]), None)
    path = _path(experiment, config, results["learned"].parameters, tasks, seed)
    return {
        prefix: {name: part_of(result, *limits[prefix]) for name, result in results.items()} for prefix in tests
    }, path


def _path(experiment, config, parameters, tasks, seed):
    """How the first policy moves before and after it has learned: `"states"` `[2, T + 1, S]`, `"goal"` `[G]`."""
    fresh = fresh_parameters(experiment, config, seed, len(tasks["goal"]))
    states = [
        experiment.states_of(roll_out_means(experiment, config, values, tasks).observations[0, 0].numpy())
        for values in (fresh, parameters)
    ]
    return {"states": np.round(states, 4).tolist(), "goal": tasks["goal"][0, 0].tolist()}


def _settings(experiment, config, name):
    """In which one of the losses differs; in a smoke test all have the same sizes."""
    settings = experiment.losses[name]
    if not config["smoke"]:
        return settings
    return {key: value for key, value in settings.items() if key in ("layout", "train_tasks", "guide_weight")}


def _kept(adaptation):
    samples, returns = curve_of(adaptation)
    return {"samples": samples, "returns": returns, "on_policy": curve_of(adaptation, on_policy=True)[1]}


def _history(numbers, results, experiment):
    return [
        {"seed": seed, "tasks": prefix, "method": name, "samples": samples, "return": value, "on_policy": noisy}
        for seed, result in zip(numbers, results)
        for prefix in experiment.tests
        for name in (*result["meta_train"], "ppo", "paper_ppo")
        for samples, value, noisy in zip(*result["curves"][prefix + name].values())
    ]


def _print(metrics, config, horizon, output_dir, loss_path):
    print_table(metrics, [(name.replace("_", " "), name) for name in metrics])
    num_steps = config["test_updates"] * math.ceil(horizon / config["test_batch_size"])  # those of Keras's `fit`
    print(
        f"\nReturns in m. Best rate and episodes of PPO: {config['ppo']}\nFigure: {output_dir / 'figure.png'}"
        f"\nLearned loss: {loss_path}\n\nUse it with any policy:\n\n    import keras, ml3_tf\n"
        f'    loss = ml3_tf.load_meta_loss("{loss_path}")\n'
        f"    rate = keras.optimizers.schedules.CosineDecay({config['test_rate']}, {num_steps})\n"
        f"    policy.compile(keras.optimizers.Adam(rate), loss=loss)\n\n"
        f"and after each of {config['test_updates']} episodes, y being what the loss sees of it:\n\n"
        f"    policy.fit(observations, y, batch_size={config['test_batch_size']})"
    )
