"""Draft."""

from pathlib import Path
from typing import Literal

import goal_reaching_report
import numpy as np
import tensorflow as tf
import tyro
from experiment import command_line
from goal_reaching import Experiment, reaching_cost
from goal_reaching_report import run_experiment

import ml3_tf
from ml3_tf.envs.pointmass import MAX_ACCELERATION, MAX_GOAL
from ml3_tf.policies import GaussianPolicy

HORIZON = 25
FEATURES = {
    "relative": {"acceleration": 2, "to_goal": 2, "velocity": 2},
    "paper": {"acceleration": 2, "state": 4, "goal": 2},
}
CONFIG = {
    "layout": "relative",
    "policy_units": [64],
    "hidden_units": [40, 40],
    "learning_rate": 1.0,
    "inner_steps": 10,
    "unroll": 1,
    "inner_rate": 0.3,
    "inner_clipnorm": 0.5,
    "num_tasks": 16,
    "outer_steps": 200,
    "outer_rate": 3e-3,
    "outer_clipnorm": 1.0,
    "path_weight": 0.5,
    "end_weight": 1.0,
    "end_width": 0.1,
    "speed_weight": 0.1,
    "saturation_weight": 0.01,
    "dynamics_rate": 3e-3,
    "dynamics_epochs": 10,
    "dynamics_batch": 64,
    "refit_every": 50,
    "num_refit_episodes": 16,
    "exploration": 4,
    "test_steps": 20,
    "reported_step": 5,
    "num_goals": 10,
    "num_tuning_goals": 50,
    "smoke": False,
}
SMOKE = {
    "outer_steps": 2,
    "inner_steps": 1,
    "num_tasks": 2,
    "dynamics_epochs": 1,
    "num_refit_episodes": 2,
    "refit_every": 2,
    "test_steps": 2,
    "reported_step": 1,
    "num_goals": 2,
    "num_tuning_goals": 1,
    "smoke": True,
}
FIGURE = {
    "goals": {"": "goals of the untrained side", "trained_side_": "unseen goals of the trained side"},
    "unit": "m",
    "axis_labels": ("x (m)", "y (m)"),
    "trained": (0.0, MAX_GOAL),
}


def build_policy(config):
    if not config.get("bias"):
        return GaussianPolicy(4, 2, hidden_units=config["policy_units"], action_limit=MAX_ACCELERATION)
    import keras
    from ml3_tf.policies import Squash

    b = keras.initializers.RandomUniform(-config["bias"], config["bias"])
    k = keras.initializers.RandomNormal(stddev=config.get("kernel", 0.3))
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(config["policy_units"][0], "tanh", bias_initializer=b, kernel_initializer=k),
            keras.layers.Dense(2, kernel_initializer=keras.initializers.VarianceScaling(0.01, "fan_avg", "uniform")),
            Squash(1.0),
        ]
    )


def build_loss(config):
    features = FEATURES[config["layout"]]
    return ml3_tf.MetaLoss.mlp(
        config["hidden_units"], "silu", features=features, learning_rate=config["learning_rate"], name="pointmass"
    )


def loss_inputs(trajectory, config):
    states, goal = trajectory.states[..., :-1, :], trajectory.goal[..., tf.newaxis, :]
    if config["layout"] == "relative":
        return tf.concat([goal - states[..., :2], states[..., 2:]], -1)
    return tf.concat([states, tf.broadcast_to(goal, [*states.shape[:-1], 2])], -1)


def task_loss(trajectory, config):
    return reaching_cost(trajectory, config, MAX_ACCELERATION)


def train_tasks(generator, number):
    starts, goals = [], []
    while len(starts) < number:
        start, goal = generator.uniform([[0.0, -MAX_GOAL]] * 2, MAX_GOAL)
        if np.abs(goal - start).max() <= MAX_GOAL:
            starts.append(np.concatenate([start, generator.uniform(-0.3, 0.3, 2)]))
            goals.append(goal)
    return np.array(starts), np.array(goals)


def goals_of_side(side):
    def draw(generator, number):
        goals = generator.uniform([0.0, -MAX_GOAL], MAX_GOAL, (number, 2)) * [side, 1.0]
        return np.zeros((number, 4)), goals

    return draw


EXPERIMENT = Experiment(
    env="ml3_tf/PointmassGoal-v0",
    horizon=HORIZON,
    build_policy=build_policy,
    build_loss=build_loss,
    loss_inputs=loss_inputs,
    task_loss=task_loss,
    train_tasks=train_tasks,
    test_tasks={"": goals_of_side(-1.0), "trained_side_": goals_of_side(1.0)},
    dynamics={"state_size": 4, "action_size": 2, "hidden_units": (32, 32)},
)


def run_tuning(_, config, output_dir, verbose):
    return goal_reaching_report.run_tuning(EXPERIMENT, config, verbose)


def run_seed(seed, config, output_dir, verbose):
    return goal_reaching_report.run_seed(EXPERIMENT, config, seed, output_dir, verbose)


def main(
    seeds: int = 1,
    first_seed: int = 0,
    layout: Literal["relative", "paper"] = "relative",
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("results/pointmass"),
):
    """Meta-learns a loss for goals on the right, and trains policies with it for goals on the left.

    Args:
        seeds: Number of seeds.
        first_seed: The first seed.
        layout: `relative`: the loss sees the way to the goal; `paper`: the state and the goal.
        smoke: Run a few steps only, to see that everything works.
        jobs: Number of processes; each takes seeds of its own.
        output_dir: Where results go. An interrupted run resumes from it.

    Returns:
        The metrics, name -> one value per seed.
    """
    command = command_line(main, locals())
    config = {**CONFIG, "layout": layout, **(SMOKE if smoke else {})}
    numbers = range(first_seed, first_seed + seeds)
    return run_experiment("pointmass", command, (run_tuning, run_seed), numbers, config, output_dir, jobs, FIGURE)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
