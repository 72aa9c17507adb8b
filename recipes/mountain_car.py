"""Meta-learn a loss that drives a weak car up its hill, in a model, and train fresh policies with it in the real
environment (ML3, section 4.2 and figure 6, a and b).

    python recipes/mountain_car.py                             one seed, about one minute
    python recipes/mountain_car.py --seeds 10 --jobs 2         the reported run
    python recipes/mountain_car.py --setting paper             the paper's own setting alone

The car is too weak for the hill on its right: it has to swing to the left first, away from the goal. What knows this is
the *shaped* task loss of meta-training, which wants the first 14 steps near a place high on the left slope and the rest
at the goal (position .5 m, velocity 1.0375 m/s, reached within 35 steps of .1 s). The learned loss keeps the knowledge:
at meta-test a fresh policy takes gradient steps with it alone, one rollout in the environment each, without task loss,
reward, or model (Algorithm 5).

Methods:
    shaped: the loss learned with the shaped task loss.
    unshaped: the same, but the task loss is the distance to the goal throughout.
    paper_setting: the shaped loss in the setting of the paper and its public reference: linear policies of two layers
        (200 units), force clipped, raw inputs, one inner step of rate 1e-3, Adam at 1e-3, 300 outer steps; the loss
        sees the final distance instead of the final error.
    ilqr: control-limited iLQR with the true model, from zero force. It plans each trajectory anew.

A policy of the first two is a network of one tanh layer (64 units) whose output is squashed, `.25 N tanh(z)`. Each
outer step draws 24 fresh policies and starts and trains them for 20 steps; phi moves after each. The states that an
inner step visits count as data, as in the environment, so meta-training teaches what meta-test does. For each time
step the learned loss sees force, state, and where the rollout ended, as its last state minus the goal. After 30 % of
meta-training the task loss begins to care for where a rollout ends, and starts are drawn from a wider range.

Metrics (`summary.json`, one value per seed; METHOD is one of the above), in the environment, after 10 updates:
    final_distance_METHOD: distance of the last state to the goal (position in m, velocity in m/s), median over 20
        fresh policies from the paper's start, at rest at -.55 m.
    reach_rate_METHOD: share of them that reach the goal's position.
    strict_rate_METHOD: share of them whose final distance is below .1.
    random_start_final_distance_METHOD, random_start_reach_rate_METHOD, random_start_strict_rate_METHOD: the same from
        starts at rest between -.6 and -.4 m (those of Gymnasium's MountainCar), another for each policy.
    later_strict_rate_METHOD: `strict_rate` after 30 updates; 20 were trained for.
    ilqr_iterations, ilqr_model_calls: its cost from the paper's start: iterations, and evaluated steps of the model.
    ilqr_weightings: share of 36 weightings of its cost (force, distance along the way, distance at the end) with which
        it ends within .1 of the goal.

Departures from the paper: policies are fresh in every outer step and at test (the reference trains and tests one fixed
policy); inner gradients do not flow through the model, which is not there at test (in the reference they do); the
improved setting changes policy, scales, penalty and end of the task loss as said; iLQR, which the paper says fails
here, does not. The paper names neither weights nor scales.

Files: `summary.json`, `history.csv`, `figure.png`, `car.gif`, and the shaped loss of the first seed in `meta_loss/`.
"""

from pathlib import Path
from typing import Literal

import gymnasium
import keras
import numpy as np
import tyro
from experiment import command_line, print_table, run_seeds, write_history, write_summary
from mountain_car_figure import draw_figure, write_animation
from mountain_car_task import (
    HORIZON,
    ILQR_GRID,
    LAYOUTS,
    TaskLoss,
    build_policy,
    plan,
    scores,
    start_tasks,
    starts_of,
)

import ml3_tf
import ml3_tf.envs  # noqa: F401 - registers the environment
from ml3_tf.envs.mountain_car import GOAL, MAX_FORCE, mountain_car_step
from ml3_tf.rl.model_based import ModelBasedTrainer, meta_test_in_env

IMPROVED = {
    "policy": "tanh",
    "policy_units": 64,
    "policy_scale": [0.3, 0.3],  # a slow oscillation in the valley must be visible to policy and loss
    "layout": "final_error",
    "hidden_units": [40, 40],
    "input_scale": [MAX_FORCE, 0.3, 0.3, 0.5, 0.5],
    "inner_steps": 20,
    "inner_rate": 1.0,
    "inner_clipnorm": 0.5,
    "num_tasks": 24,
    "outer_steps": 800,
    "outer_rate": 3e-3,
    "cosine_decay": True,
    "outer_clipnorm": 1.0,
    "start_spread": [0.03, 0.15],  # m, at the beginning and at the end of meta-training
    "speed_spread": 0.02,  # m/s
    "shaping_weight": 3.0,  # gamma of eq. 9; at 1 the first steps of some seeds lead nowhere
    "path_weight": [1.0, 0.3],  # of the (shaped) distance along the way
    "end_weight": [0.0, 3.0],  # of the final distance
    "saturation_weight": 0.1,
}
PAPER = {
    "policy": "linear",
    "policy_units": 200,
    "policy_scale": [1.0, 1.0],
    "layout": "final_distance",
    "hidden_units": [400, 400],
    "input_scale": None,
    "inner_steps": 1,
    "inner_rate": 1e-3,
    "inner_clipnorm": None,
    "num_tasks": 1,
    "outer_steps": 300,
    "outer_rate": 1e-3,
    "cosine_decay": False,
    "outer_clipnorm": None,
    "start_spread": [0.0, 0.0],
    "speed_spread": 0.0,
    "shaping_weight": 1.0,
    "path_weight": [1.0, 1.0],
    "end_weight": [0.0, 0.0],
    "saturation_weight": 0.0,
}
METHODS = {
    "shaped": {**IMPROVED, "shaped": True},
    "unshaped": {**IMPROVED, "shaped": False},
    "paper_setting": {**PAPER, "shaped": True},
}
SETTINGS = {"improved": list(METHODS), "paper": ["paper_setting"]}
NUM_EPOCHS = 20
NUM_POLICIES = 20
TEST_STEPS = 30
REPORTED_STEP = 10
STARTS = {"nominal": "", "random": "random_start_"}  # kind -> prefix of its metrics


def inner_optimizer(config):
    return keras.optimizers.SGD(config["inner_rate"], clipnorm=config["inner_clipnorm"])


def meta_train(config, seed, verbose):
    """Returns the learned loss, and the task loss for each epoch of meta-training."""
    keras.utils.set_random_seed(seed)
    loss_inputs, features = LAYOUTS[config["layout"]]
    meta_loss = ml3_tf.MetaLoss.mlp(
        config["hidden_units"], "elu", features=features, input_scale=config["input_scale"], name="mountain_car"
    )
    trainer = ModelBasedTrainer(
        lambda: build_policy(config),
        meta_loss,
        mountain_car_step,
        HORIZON,
        loss_inputs,
        inner_steps=config["inner_steps"],
        unroll=1,
        seed=seed,
    )
    task_loss, rate, steps = TaskLoss(config), config["outer_rate"], config["outer_steps"]
    if config["cosine_decay"]:
        rate = keras.optimizers.schedules.CosineDecay(rate, steps * config["inner_steps"])
    trainer.compile(
        keras.optimizers.Adam(rate, global_clipnorm=config["outer_clipnorm"]),
        task_loss,
        inner_optimizer(config),
        jit_compile=not config.get("smoke"),  # compiling takes longer than a few steps
        steps_per_execution=5 if steps % (5 * NUM_EPOCHS) == 0 else 1,
    )
    num_epochs = min(NUM_EPOCHS, steps)
    progress = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: task_loss.set_progress(epoch / num_epochs)
    )
    history = trainer.fit(
        start_tasks(config, seed),
        steps_per_epoch=steps // num_epochs,
        epochs=num_epochs,
        callbacks=[progress],
        verbose=verbose,
    )
    return meta_loss, history.history["loss"]


def meta_test(meta_loss, config, starts, seed, test_steps):
    """States `[updates + 1, N, T + 1, 2]` of N fresh policies in the real environment: Algorithm 5."""
    env = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=len(starts), vectorization_mode="sync")
    env.set_attr("task", [{"state": start} for start in starts])
    test_seed = 10_000 + seed  # policies that meta-training has not drawn
    policy, loss_inputs = lambda: build_policy(config), LAYOUTS[config["layout"]][0]
    optimizer = inner_optimizer(config)
    return meta_test_in_env(policy, meta_loss, optimizer, env, test_steps, HORIZON, loss_inputs, seed=test_seed).observations


def run_ilqr(seed, config, output_dir, verbose):
    """iLQR from the starts of one seed."""
    plans = {
        kind: plan(starts_of(kind, seed, config["num_policies"] if prefix else 1)) for kind, prefix in STARTS.items()
    }
    metrics = {}
    for kind, prefix in STARTS.items():
        metrics |= _named(scores(plans[kind].states), prefix, "ilqr")
    nominal = plans["nominal"]
    metrics |= {"ilqr_iterations": int(nominal.iterations[0]), "ilqr_model_calls": int(nominal.model_calls[0])}
    return {"metrics": metrics, "path": nominal.states[0].tolist()}


def run_weightings(_, config, output_dir, verbose):
    """The share of weightings with which iLQR ends at the goal from the paper's start."""
    grid = ILQR_GRID[: config["num_weightings"]]
    rates = [scores(plan(starts_of("nominal", 0, 1), weights).states)["strict_rate"] for weights in grid]
    return {"share": float(np.mean(rates))}


def run_seed(seed, config, output_dir, verbose):
    results = {"metrics": {}, "meta_train": {}, "distances": {}, "paths": {}}
    reported, last = config["reported_step"], config["test_steps"]
    for name in config["methods"]:
        method = {**METHODS[name], **config["smaller"]}
        meta_loss, results["meta_train"][name] = meta_train(method, seed, verbose)
        meta_loss.export(output_dir / "seeds" / f"{name}_{seed}" / "mountain_car")
        starts = np.concatenate([starts_of(kind, seed, config["num_policies"]) for kind in STARTS])
        states = meta_test(meta_loss, method, starts, seed, last)
        for prefix, part in zip(STARTS.values(), np.split(states, len(STARTS), axis=1)):
            results["metrics"] |= _named(scores(part[reported]), prefix, name)
            results["distances"][f"{prefix}{name}"] = np.linalg.norm(part[:, :, -1] - GOAL, axis=-1).tolist()
        nominal = states[:, : config["num_policies"]]
        results["metrics"][f"later_strict_rate_{name}"] = scores(nominal[last])["strict_rate"]
        results["paths"][name] = nominal[reported, 0].tolist()  # that of the first policy, whatever it does
    return results


def _named(metrics, prefix, method):
    return {f"{prefix}{name}_{method}": value for name, value in metrics.items()}


def _history(numbers, results):
    return [
        {"seed": seed, "starts": kind, "method": name, "update": update, "policy": policy, "final_distance": distance}
        for seed, result in zip(numbers, results)
        for kind, prefix in STARTS.items()
        for name in result["paths"]
        for update, distances in enumerate(result["distances"][prefix + name])
        for policy, distance in enumerate(distances)
    ]


def _export_first(output_dir, method, seed):
    folder = output_dir / "seeds" / f"{method}_{seed}" / "mountain_car"
    return ml3_tf.load_meta_loss(folder).export(output_dir / "meta_loss")


def main(
    seeds: int = 1,
    first_seed: int = 0,
    setting: Literal["improved", "paper"] = "improved",
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("results/mountain_car"),
):
    """Meta-learns losses for the mountain car and trains fresh policies with them.

    Args:
        seeds: Number of seeds.
        first_seed: The first seed.
        setting: `improved` for all methods, `paper` for the setting of the paper alone.
        smoke: Run a few steps only, to see that everything works.
        jobs: Number of processes; each takes seeds of its own.
        output_dir: Where results go. An interrupted run resumes from it.

    Returns:
        The metrics, name -> one value per seed.
    """
    command = command_line(main, locals())
    methods = [name for name in SETTINGS[setting] if not (smoke and name == "unshaped")]
    config = {
        "setting": setting,
        "methods": {name: METHODS[name] for name in methods},
        "smaller": {"outer_steps": 2, "inner_steps": 2, "num_tasks": 2, "smoke": True} if smoke else {},
        "test_steps": 3 if smoke else TEST_STEPS,
        "reported_step": 2 if smoke else REPORTED_STEP,
        "num_policies": 3 if smoke else NUM_POLICIES,
    }
    output_dir, numbers = Path(output_dir), range(first_seed, first_seed + seeds)
    results = run_seeds(run_seed, numbers, config, output_dir, jobs)
    ilqr_config = {"num_policies": config["num_policies"], "num_weightings": 2 if smoke else len(ILQR_GRID)}
    planned = run_seeds(run_ilqr, numbers, ilqr_config, output_dir / "seeds" / "ilqr", jobs)
    [weightings] = run_seeds(run_weightings, ["weightings"], ilqr_config, output_dir / "seeds" / "ilqr")
    for result, plans in zip(results, planned):
        result["metrics"] |= {**plans["metrics"], "ilqr_weightings": weightings["share"]}
    metrics = write_summary("mountain_car", command, numbers, results, config, output_dir)
    write_history(_history(numbers, results), output_dir)
    draw_figure(results, planned[0]["path"], config).savefig(output_dir / "figure.png")
    write_animation(results[0]["paths"][methods[0]], output_dir / "car.gif")
    loss_path = _export_first(output_dir, methods[0], first_seed)

    first = METHODS[methods[0]]
    rows = [("final distance", "final_distance"), ("reached the flag", "reach_rate"), ("strict", "strict_rate")]
    print_table(
        metrics,
        [
            (f"{label}, {start} start, {method}", f"{prefix}{name}_{method}")
            for prefix, start in (("", "the paper's"), ("random_start_", "random"))
            for label, name in rows
            for method in (*methods, "ilqr")
        ],
    )
    print(
        f"\niLQR: {metrics['ilqr_iterations'][0]} iterations and {metrics['ilqr_model_calls'][0]} steps of the model; "
        f"it ends at the goal with {weightings['share']:.0%} of the weightings."
        f"\nFigure: {output_dir / 'figure.png'}, {output_dir / 'car.gif'}\nLearned loss: {loss_path}"
        f'\n\nUse it with any policy:\n\n    import keras, ml3_tf\n    loss = ml3_tf.load_meta_loss("{loss_path}")\n'
        f"    optimizer = keras.optimizers.SGD({first['inner_rate']}, clipnorm={first['inner_clipnorm']})\n"
        "    policy.compile(optimizer=optimizer, loss=loss)"
    )
    return metrics


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
