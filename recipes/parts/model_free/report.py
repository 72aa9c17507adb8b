"""One run of a recipe that reaches goals by experience alone: tuning, seeds, and the files that are made of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import ml3_tf.envs  # noqa: F401 - registers the environments
from ml3_tf import MetaLoss, Parameters
from ml3_tf.rl import Adaptation
from parts.experiment import (
    Metrics,
    Result,
    export_seed_loss,
    print_table,
    run_seeds,
    seed_loss_folder,
    training_folder,
    write_history,
    write_summary,
)
from parts.model_free.baselines import GoalConditioned, guide_returns, train_by_ppo, train_goal_conditioned
from parts.model_free.experiment import Experiment, Tasks, count_tasks, meta_train
from parts.model_free.figure import METHODS, draw_figure, write_animation
from parts.model_free.measures import compare_depths, make_curve, measure
from parts.model_free.meta_testing import draw_fresh_parameters, draw_test_tasks, meta_test, roll_out_means
from parts.model_free.settings import ModelFreeSettings, TuningSettings
from parts.model_free.tuning import tune_ppo


def run_experiment(
    experiment: Experiment,
    settings: ModelFreeSettings,
    seeds: Sequence[int],
    *,
    command: str,
    run_tuning: Callable[..., Result],
    run_seed: Callable[..., Result],
    jobs: int,
    output_dir: Path | str,
) -> Metrics:
    """Tunes PPO once, runs the seeds, writes their results, and prints them.

    Args:
        experiment: `Experiment`.
        settings: The settings.
        seeds: The seeds.
        command: The command of the run.
        run_tuning: Function of the recipe as `tune_ppo` takes it.
        run_seed: Function of the recipe as `run_seeds` takes it.
        jobs: Number of processes.
        output_dir: Folder of the run.

    Returns:
        The metrics, name -> one value per seed.

    Raises:
        ValueError: A number of layers below 1.
    """
    layers = settings.policy_layers
    if not layers or min(layers) < 1:
        raise ValueError(f"`policy_layers` must be numbers of hidden layers, at least 1. Received: {layers}")
    output_dir = Path(output_dir)
    tuning_settings, further_config = settings.restricted_to(TuningSettings), {}
    if settings.ppo is None or settings.paper_ppo is None:
        tuned = tune_ppo(run_tuning, tuning_settings, output_dir / "seeds" / "tuning", jobs=jobs)
        settings = settings.replace(ppo=settings.ppo or tuned.ppo, paper_ppo=settings.paper_ppo or tuned.paper_ppo)
        further_config["ppo_grid"] = tuned.grid
    results = run_seeds(run_seed, seeds, settings, output_dir, jobs=jobs)
    metrics = write_summary(
        experiment.name, command, seeds, results, settings, output_dir, further_config=further_config
    )
    write_history(history_rows(seeds, results, experiment), output_dir)
    draw_figure(results, experiment).savefig(output_dir / "figure.png")
    if experiment.to_states is not None:
        env = gymnasium.make(experiment.env, render_mode="rgb_array")
        write_animation(env, results[0]["path"], output_dir / "before_and_after.gif")
    loss_path = export_seed_loss(seeds[0], output_dir)
    _print(metrics, settings, experiment, output_dir, loss_path)
    return metrics


def run_one_seed(
    experiment: Experiment, settings: ModelFreeSettings, seed: int, output_dir: Path, *, verbose: int
) -> Result:
    """Meta-trains, then trains fresh policies on unseen tasks with every method.

    Returns:
        `"metrics"`, `"meta_train"` (loss -> returns), and for figure and history `"curves"`: prefix and method ->
        `{"samples", "returns", "on_policy"}`, `"layers"`: depth -> the same, `"goal_conditioned"`: prefix -> return,
        `"path"`: see `_path`; `None` without pictures.
    """
    tests = draw_test_tasks(experiment, settings, seed)
    guide = train_goal_conditioned(experiment, settings, seed=seed)
    losses, returns, metrics = {}, {}, {}
    for name in settings.loss_names:
        loss_settings = settings.loss_settings(name)
        guided = loss_settings.guide_weight > 0
        folder, used_guide = training_folder(seed, output_dir) / name, guide if guided else None
        learned = meta_train(experiment, loss_settings, seed, folder, verbose=verbose, guide=used_guide)
        losses[name], returns[name] = learned.meta_loss, learned.returns
        guide_samples = settings.goal_conditioned_samples if guided else 0
        metrics[f"meta_train_env_steps_{name}"] = learned.samples + guide_samples
        learned.meta_loss.export(seed_loss_folder(seed if name == "learned" else f"{seed}_{name}", output_dir))
    adapted, path = _adapt(experiment, settings, losses, tests, seed, guide)
    goal_conditioned = {}
    for prefix, tasks in tests.items():
        goal_conditioned[prefix] = float(np.mean(guide_returns(experiment, guide, tasks)))
        metrics |= {f"{prefix}{name}": value for name, value in measure(adapted[prefix]).items()}
        metrics[f"{prefix}final_return_goal_conditioned"] = goal_conditioned[prefix]
    layers = _adapt_depths(experiment, settings, losses["learned"], adapted[""]["learned"], tests[""], seed)
    metrics |= compare_depths(layers, settings.num_policies)
    curves = {prefix + name: _kept(result) for prefix, part in adapted.items() for name, result in part.items()}
    kept = {"meta_train": returns, "curves": curves, "goal_conditioned": goal_conditioned, "path": path}
    return {"metrics": metrics, "layers": {depth: _kept(result) for depth, result in layers.items()}, **kept}


def _adapt(
    experiment: Experiment,
    settings: ModelFreeSettings,
    losses: Mapping[str, MetaLoss],
    tests: Mapping[str, Tasks],
    seed: int,
    guide: GoalConditioned,
) -> tuple[dict[str, dict[str, Adaptation]], dict[str, Any] | None]:
    """Prefix -> method -> `Adaptation`, and `_path`; a method trains for all prefixes at once: compiled once."""
    parts = list(tests.values())
    tasks = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    results = {
        name: meta_test(experiment, settings.loss_settings(name), loss, tasks, seed=seed)
        for name, loss in losses.items()
    }
    ppo_settings = {
        "ppo": (*settings.ppo, settings.ppo_samples),
        "paper_ppo": (*settings.paper_ppo, settings.paper_ppo_samples),
    }
    runs = {}  # both have one if they have the same settings
    for name, (rate, episodes, samples) in ppo_settings.items():
        key = rate, episodes, samples
        if key not in runs:
            runs[key] = train_by_ppo(
                experiment, settings, tasks, seed=seed, rate=rate, episodes=episodes, samples=samples
            )
        results[name] = runs[key]
    if settings.fine_tuning is not None:
        rate, episodes, samples = settings.fine_tuning
        setting = {"rate": rate, "episodes": episodes, "samples": samples, "value_rate": settings.ppo[0]}
        results["fine_tuned"] = train_by_ppo(experiment, settings, tasks, seed=seed, pretrained=guide.model, **setting)
    ends = np.cumsum([count_tasks(part) for part in parts])
    limits = dict(zip(tests, zip([0, *ends], ends)))
    path = experiment.to_states and _path(experiment, settings, results["learned"].parameters, tasks, seed)
    return {
        prefix: {name: _select_tasks(result, *limits[prefix]) for name, result in results.items()} for prefix in tests
    }, path


def _select_tasks(result: Adaptation, start: int, end: int) -> Adaptation:
    """The part of an `Adaptation` that belongs to some of the tasks."""
    returns, deterministic, samples = (
        values[:, start:end] for values in (result.returns, result.deterministic_returns, result.samples)
    )
    parameters = Parameters(*([values[start:end] for values in group] for group in result.parameters))
    return Adaptation(returns, deterministic, samples, parameters)


def _adapt_depths(
    experiment: Experiment,
    settings: ModelFreeSettings,
    meta_loss: MetaLoss,
    adapted: Adaptation,
    tasks: Tasks,
    seed: int,
) -> dict[str, Adaptation]:
    """Depth of the policies -> `Adaptation` with the learned loss; that of depth 2 is known already."""
    loss_settings = settings.loss_settings("learned")
    return {
        str(depth): adapted
        if depth == 2
        else meta_test(experiment, loss_settings, meta_loss, tasks, seed=seed, depth=depth)
        for depth in settings.policy_layers
    }


def _path(
    experiment: Experiment, settings: ModelFreeSettings, parameters: Parameters, tasks: Tasks, seed: int
) -> dict[str, Any]:
    """How the first policy moves before and after it has learned: `"states"` `[2, T + 1, S]`, `"goal"` `[G]`."""
    fresh = draw_fresh_parameters(experiment, settings, seed=seed, number=len(tasks["goal"]))
    states = [
        experiment.to_states(roll_out_means(experiment, settings, values, tasks).observations[0, 0].numpy())
        for values in (fresh, parameters)
    ]
    return {"states": np.round(states, 4).tolist(), "goal": tasks["goal"][0, 0].tolist()}


def _kept(adaptation: Adaptation) -> dict[str, Any]:
    samples, returns = make_curve(adaptation)
    return {"samples": samples, "returns": returns, "on_policy": make_curve(adaptation, on_policy=True)[1]}


def history_rows(seeds: Sequence[int], results: Sequence[Result], experiment: Experiment) -> list[dict[str, Any]]:
    """Returns the rows of `history.csv`: mean returns after each update, of mean and of noisy policies."""
    return [
        {"seed": seed, "tasks": prefix, "method": name, "samples": samples, "return": value, "on_policy": noisy}
        for seed, result in zip(seeds, results)
        for prefix in experiment.test_tasks
        for name in (*result["meta_train"], *(method for method in METHODS if method != "learned"))
        if prefix + name in result["curves"]
        for samples, value, noisy in zip(*result["curves"][prefix + name].values())
    ]


def _print(
    metrics: Metrics, settings: ModelFreeSettings, experiment: Experiment, output_dir: Path, loss_path: Path
) -> None:
    print_table(metrics, [(name.replace("_", " "), name) for name in metrics])
    # Steps of Keras's `fit`.
    num_steps = settings.test_updates * math.ceil(experiment.horizon / settings.test_batch_size)
    unit = f"Returns in {experiment.unit}. " if experiment.unit else ""
    print(
        f"\n{unit}Best rate and episodes of PPO: {settings.ppo}\nFigure: {output_dir / 'figure.png'}"
        f"\nLearned loss: {loss_path}\n\nUse it with any policy:\n\n    import keras, ml3_tf\n"
        f'    loss = ml3_tf.load_meta_loss("{loss_path}")\n'
        f"    rate = keras.optimizers.schedules.CosineDecay({settings.test_rate}, {num_steps})\n"
        f"    policy.compile(keras.optimizers.Adam(rate), loss=loss)\n\n"
        f"and after each of {settings.test_updates} episodes, y being its inputs of the loss:\n\n"
        f"    policy.fit(observations, y, batch_size={settings.test_batch_size})"
    )
