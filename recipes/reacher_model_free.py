"""Meta-learn a loss that teaches an arm to reach, from nothing but experience, and count the samples that it saves
against PPO (ML3, section 4.1 and figure 4, a and c).

    python recipes/reacher_model_free.py                     one seed, three minutes, and the tuning of PPO, two
    python recipes/reacher_model_free.py --seeds 10 --policy-layers 1 2 3 4     the reported run
    python recipes/reacher_model_free.py --layout paper      the loss sees the plain observation

A planar arm of two links has to bring its fingertip to a place and keep it there, for 65 steps of .01 s, driven by
torques of at most 1 N m. A task is where the arm rests at first, at random angles, and the place. Meta-training
(Algorithm 4, task loss eq. 8) has places in three quarters of all directions from the shoulder; the last quarter, below
the arm, is for the shifted tasks. The reward of a step is the negative distance in m, the return their sum over an
episode. At meta-test a fresh policy takes gradient steps with the learned loss alone on its own experience, without
rewards (Algorithm 5): one episode, then a step of Adam for each mini-batch of 5 time steps. (In meta-training: of SGD,
for mini-batches of 13.)

Methods:
    learned: the learned loss. It sees mean, standard deviation and action, and the observation turned into the frame of
        the upper arm with the moments of way and velocity about both joints (`in_the_arms_frame`).
    ppo: PPO for each task from scratch, at the rate and number of episodes of a grid that need the fewest samples to
        80 % on 20 tasks of their own ("config", "ppo"; the grid's samples in `seeds/tuning/`). Its discount and lambda
        are those of eq. 8 here.
    paper_ppo: the same with 20 episodes an update, as a reader of the paper might set it, at the same rate.
    goal_conditioned: one policy for all goals, which observes the goal and is trained by PPO on 1,024 tasks of the
        distribution of meta-training, for as many environment steps as that used. It needs no sample of a new task.

All methods start from networks of two tanh layers of 64 units with a linear mean and a fixed standard deviation of .5,
and run in the same simulation, which equals the environment `ml3_tf/ReacherFingertipGoal-v0` step by step.

Fixed in advance: a curve is the mean over 10 tasks that meta-training has not seen, with 3 fresh policies each, of the
return of the mean policy (without noise; those of the noisy policy are named on_policy), against the environment
steps of one policy. Rollouts that only measure count for no method. Curves are not smoothed. The level is 80 % of the
way from the fresh policies' return to the best final return of `learned`, `ppo` and `paper_ppo`; it is reached where a
curve stays at or above it to its end (sustained). A final return is the mean of the last 5 evaluations. Settings were
chosen with seeds of 100 and more.

Metrics (`summary.json`, one value per seed; METHOD is one of the above):
    sample_ratio_to_ppo: samples to the level of `ppo` over those of `learned`; 0 if `learned` does not get there, and
        if PPO does not, with all of its samples (a lower bound).
    sample_ratio_to_paper_ppo: the same for `paper_ppo`.
    samples_to_level_METHOD: samples to the level, environment steps; -1 if it is not reached.
    final_return_METHOD: final return of the mean policy, m.
    on_policy_final_return_METHOD: that of the noisy policy, m.
    initial_return: return of fresh policies, m.
    meta_train_env_steps: environment steps that meta-training used.
    shifted_METRIC: a metric on 10 tasks with goals outside the training distribution.
    layers_D_final_return: `final_return_learned` for policies of D hidden layers, m (with `--policy-layers`; the loss
        was meta-trained with two).
    spread_between_layers, spread_between_tasks: standard deviation of final returns over depths (mean over tasks) and
        over tasks (mean over depths), m.

Departures from the paper, which names neither rates nor sizes of this experiment: the reward is the negative distance
alone; eq. 8 has discounted, normalised advantages and a quadratic baseline, and a penalty on means beyond the limits
of the torques; the loss sees the observation in the arm's frame, which is knowledge of the arm, though not of the task
(the paper's form is `--layout paper`); meta-training takes steps of SGD, meta-test of Adam, which needs fewer
samples.

Files: `summary.json`, `history.csv`, `figure.png`, `arm.gif` (the mean policy before and after it
learned a task, half speed), and the learned loss of the first seed in `meta_loss/`.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from experiment import command_line, export_loss_of, print_table, run_seeds, write_history, write_summary
from reacher_model_free_figure import draw_figure, write_animation
from reacher_model_free_measures import LEARNING, compare_depths, curve_of, measure
from reacher_model_free_methods import (
    ARCS,
    fresh_parameters,
    joint_angles,
    meta_test,
    meta_train,
    returns_of_one,
    test_tasks,
    train_by_ppo,
    train_goal_conditioned,
    tune_ppo,
)

TUNING_SEED = 1000
PAPER_EPISODES = 20
CONFIG = {
    "hidden_units": [64, 64],
    "policy_units": 64,
    "inner_steps": 16,
    "inner_rate": 0.2,
    "batch_size": 13,
    "test_rate": 3e-3,
    "test_batch_size": 5,
    "num_tasks": 32,
    "episodes": 1,
    "outer_steps": 200,
    "outer_rate": 1.5e-2,
    "outer_clipnorm": 1.0,
    "excess_weight": 65.0,
    "discount": 0.9,
    "gae_lambda": 0.9,
    "test_updates": 60,
    "num_test_tasks": 10,
    "num_policies": 3,
    "num_tuning_tasks": 20,
    "ppo_rates": [1e-3, 3e-3, 1e-2],
    "ppo_episodes": [1, 2, 4, 8],
    "ppo_samples": 20_800,
    "paper_ppo_samples": 26_000,
    "goal_conditioned_tasks": 1024,
    "goal_conditioned_rate": 1e-3,
    "goal_conditioned_batch": 1024,
    "goal_conditioned_epochs": 2,
    "smoke": False,
}
SMOKE = {
    "policy_units": 8,
    "inner_steps": 2,
    "num_tasks": 2,
    "outer_steps": 2,
    "test_updates": 2,
    "num_test_tasks": 2,
    "num_policies": 1,
    "num_tuning_tasks": 1,
    "ppo_rates": [3e-3],
    "ppo_episodes": [2],
    "ppo_samples": 260,
    "paper_ppo_samples": 1300,
    "goal_conditioned_tasks": 4,
    "goal_conditioned_batch": 65,
    "goal_conditioned_epochs": 1,
    "smoke": True,
}
TUNING = [  # settings that PPO is tuned with: a change of others keeps what was tuned
    *("policy_units", "discount", "gae_lambda", "num_tuning_tasks"),
    *("ppo_rates", "ppo_episodes", "ppo_samples", "smoke"),
]


def run_tuning(_, config, output_dir, verbose):
    return tune_ppo(config, TUNING_SEED)


def run_seed(seed, config, output_dir, verbose):
    """Meta-trains, then trains fresh policies on unseen tasks with every method.

    Returns:
        `"metrics"`, `"meta_train"`, and for figure and history `"curves"`: prefix and method ->
        `{"samples", "returns", "on_policy"}`, `"layers"`: depth -> the same, `"goal_conditioned"`: prefix -> return,
        `"path"`: see `_path`.
    """
    meta_loss, returns, samples = meta_train(config, seed, verbose)
    meta_loss.export(output_dir / "seeds" / f"meta_loss_{seed}")
    tests = test_tasks(config, seed)
    parameters = train_goal_conditioned(config, seed, samples)
    adapted, path = _adapt(config, meta_loss, tests, seed)
    metrics, goal_conditioned = {"meta_train_env_steps": samples}, {}
    for prefix, tasks in tests.items():
        goal_conditioned[prefix] = float(np.mean(returns_of_one(config, parameters, tasks)))
        metrics |= {f"{prefix}{name}": value for name, value in measure(adapted[prefix]).items()}
        metrics[f"{prefix}final_return_goal_conditioned"] = goal_conditioned[prefix]
    layers = _adapt_depths(config, meta_loss, tests[""], seed, adapted[""]["learned"])
    metrics |= compare_depths(layers, config["num_policies"])
    curves = {prefix + name: _kept(result) for prefix, part in adapted.items() for name, result in part.items()}
    kept = {"meta_train": returns, "curves": curves, "goal_conditioned": goal_conditioned, "path": path}
    return {"metrics": metrics, "layers": {depth: _kept(result) for depth, result in layers.items()}, **kept}


def _adapt(config, meta_loss, tests, seed):
    """Prefix -> method -> `Adaptation`, and `_path`; a method trains for all prefixes at once: compiled once."""
    (rate, episodes), parts = config["ppo"], list(tests.values())
    tasks = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    results = {
        "learned": meta_test(meta_loss, config, tasks, seed),
        "ppo": train_by_ppo(config, tasks, seed, rate, episodes, config["ppo_samples"]),
        "paper_ppo": train_by_ppo(config, tasks, seed, rate, PAPER_EPISODES, config["paper_ppo_samples"]),
    }
    number = len(parts[0]["state"])
    part_of = lambda result, order: type(result)(
        *(values[:, order * number : (order + 1) * number] for values in result[:3]), None
    )
    path = _path(config, results["learned"].parameters, tasks, seed)
    return {
        prefix: {name: part_of(result, order) for name, result in results.items()} for order, prefix in enumerate(tests)
    }, path


def _path(config, parameters, tasks, seed):
    """How the first policy moves the arm before and after it has learned: `"joints"` `[2, T + 1, 2]`, `"goal"`."""
    fresh = fresh_parameters(config, seed, len(tasks["goal"]))
    joints = [joint_angles(config, values, tasks)[0].tolist() for values in (fresh, parameters)]
    return {"joints": joints, "goal": tasks["goal"][0, 0].tolist()}


def _adapt_depths(config, meta_loss, tasks, seed, of_two):
    run = lambda depth: of_two if depth == 2 else meta_test(meta_loss, config, tasks, seed, depth)
    return {str(depth): run(depth) for depth in config["policy_layers"]}


def _kept(adaptation):
    samples, returns = curve_of(adaptation)
    return {"samples": samples, "returns": returns, "on_policy": curve_of(adaptation, on_policy=True)[1]}


def _history(numbers, results):
    return [
        {"seed": seed, "goals": prefix, "method": name, "samples": samples, "return": value, "on_policy": noisy}
        for seed, result in zip(numbers, results)
        for prefix in ARCS
        for name in LEARNING
        for samples, value, noisy in zip(*result["curves"][prefix + name].values())
    ]


def main(
    seeds: int = 1,
    first_seed: int = 0,
    layout: Literal["arm", "paper"] = "arm",
    policy_layers: tuple[int, ...] = (2,),
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("results/reacher_model_free"),
):
    """Meta-learns a loss from experience, and trains policies with it for unseen tasks, beside PPO.

    Args:
        seeds: Number of seeds.
        first_seed: The first seed.
        layout: What the learned loss sees: the observation in the arm's frame, or as it is.
        policy_layers: Numbers of hidden layers of the policies that the loss is tested on.
        smoke: Run a few steps only, to see that everything works.
        jobs: Number of processes; each takes seeds of its own.
        output_dir: Where results go. An interrupted run resumes from it.

    Returns:
        The metrics, name -> one value per seed.

    Raises:
        ValueError: A number of layers below 1.
    """
    command = command_line(main, locals())
    if not policy_layers or min(policy_layers) < 1:
        raise ValueError(f"`policy_layers` must be numbers of hidden layers, at least 1. Received: {policy_layers}")
    config = {**CONFIG, "layout": layout, **(SMOKE if smoke else {})}
    output_dir, numbers = Path(output_dir), range(first_seed, first_seed + seeds)
    [tuned] = run_seeds(
        run_tuning, ["tuning"], {name: config[name] for name in TUNING}, output_dir / "seeds" / "tuning"
    )
    config |= {"ppo": tuned["ppo"], "policy_layers": list(policy_layers)}
    results = run_seeds(run_seed, numbers, config, output_dir, jobs)
    metrics = write_summary("reacher_model_free", command, numbers, results, config, output_dir)
    write_history(_history(numbers, results), output_dir)
    draw_figure(results).savefig(output_dir / "figure.png")
    write_animation(results[0]["path"]["joints"], results[0]["path"]["goal"], output_dir / "arm.gif")
    loss_path = export_loss_of(first_seed, output_dir)
    _print(metrics, config, output_dir, loss_path)
    return metrics


def _print(metrics, config, output_dir, loss_path):
    print_table(metrics, [(name.replace("_", " "), name) for name in metrics])
    print(
        f"\nReturns in m. Best rate and episodes of PPO: {config['ppo']}\nFigure: {output_dir / 'figure.png'}"
        f"\nLearned loss: {loss_path}\n\nUse it with any policy:\n\n    import keras, ml3_tf\n"
        f'    loss = ml3_tf.load_meta_loss("{loss_path}")\n'
        f"    policy.compile(keras.optimizers.Adam({config['test_rate']}), loss=loss)"
    )


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
