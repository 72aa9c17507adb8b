"""Meta-learn a loss that sends a point mass to goals on the right, in a learned model, and train policies with it for
goals on the left, in the real environment (ML3, section 4.1 and figure 3, a and b).

    python recipes/pointmass.py                             one seed, and the tuning of the baseline: about two minutes
    python recipes/pointmass.py --seeds 10 --jobs 2         the reported run
    python recipes/pointmass.py --layout relative           the loss sees the way to the goal instead of state and goal

A mass (state: position in m, velocity in m/s; action: acceleration, at most 1 m/s^2 along each axis) starts at rest at
the origin and has 25 steps of .1 s to get to a goal within 1.5 m along each axis. Policies see the state alone: each
goal needs a policy of its own. Meta-training (Algorithm 3) has starts and goals in the right half-plane only. Every 100
outer steps the last inner policies are rolled out in the environment, and the model of the dynamics, an ensemble of
probabilistic networks, is refitted to all that was seen. At meta-test fresh policies take gradient steps with the
learned loss, one rollout in the environment each: without model, task loss or reward (Algorithm 5).

Methods:
    learned: the learned loss. It sees acceleration, state and goal, and has a learned learning rate.
    same_rate: the gradient of the task loss through the dynamics learned at meta-training, with the same optimizer.
    tuned: the same at the rate of a grid, with gradients clipped or not, that ends nearest to 50 other goals of the
        untrained side after 5 updates, with the dynamics of another seed.
    tuned_squared: the gradient of the squared final distance through the same dynamics, tuned in the same way: the best
        baseline we found. The mass is nearly linear, so that one rate fits the curvature of this cost for all goals. On
        the untrained side it ends a little nearer than the learned loss, which needs no model.

A policy is a network of one tanh layer of 64 units whose biases are spread, so that one at rest at the origin is not
blind to its own state. Each outer step draws 16 fresh policies, starts and goals, and trains the policies for 10 steps;
phi moves after each. The task loss cares for the distance on the way, the logarithm of the final one, the final speed,
and accelerations near their limit. Baselines descend the same.

Metrics (`summary.json`, one value per seed, METHOD is one of the above), in the environment, after 5 updates, means
over 10 goals of the left half-plane; with the prefix trained_side_ over 10 goals of the right that are unseen too:
    final_distance_METHOD: distance of the last state to the goal, in m.
    later_final_distance_METHOD: the same after 20 updates; 10 were trained for.
    initial_distance: the same of the fresh policies, in m.
    dynamics_log_likelihood: of the model at the end of meta-training, on episodes held out, in nats per transition.

Departures from the paper: it names neither policy, task loss, rates nor starts. Starts of meta-training are spread over
the right half-plane, so that ways to goals point everywhere; states that an inner step visits count as data, as in the
environment. A loss that sees velocity and way to the goal (`--layout relative`) ended no nearer on three other seeds.

Files: `summary.json`, `history.csv`, `figure.png`, and the loss of the first seed in `meta_loss/`.
"""

from pathlib import Path
from typing import Literal

import goal_reaching_report
import keras
import numpy as np
import tensorflow as tf
import tyro
from experiment import command_line
from goal_reaching import Experiment, reaching_cost, squared_final_distance
from goal_reaching_report import run_experiment

import ml3_tf
from ml3_tf.envs.pointmass import MAX_ACCELERATION, MAX_GOAL
from ml3_tf.rl.loss_inputs import state_and_goal
from ml3_tf.rl.policies import Squash

HORIZON = 25
FEATURES = {
    "absolute": {"acceleration": 2, "state": 4, "goal": 2},
    "relative": {"acceleration": 2, "to_goal": 2, "velocity": 2},
}
CONFIG = {
    "hidden_units": [40, 40],
    "learning_rate": 1.0,
    "inner_steps": 10,  # twice as many as are reported
    "unroll": 1,
    "inner_rate": 0.1,
    "inner_clipnorm": 0.5,
    "num_tasks": 16,
    "outer_steps": 400,
    "outer_rate": 3e-3,
    "outer_clipnorm": 1.0,
    "path_weight": 0.5,
    "end_weight": 1.0,
    "end_width": 0.1,  # m
    "speed_weight": 0.1,
    "saturation_weight": 0.01,
    "dynamics_rate": 3e-3,
    "dynamics_epochs": 10,
    "dynamics_batch": 64,
    "refit_every": 100,
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
    """From states `[B, 4]` to accelerations `[B, 2]`."""
    dense, initializers = keras.layers.Dense, keras.initializers
    spread = initializers.RandomUniform(-1.0, 1.0)
    small = initializers.VarianceScaling(0.01, "fan_avg", "uniform")  # a fresh policy hardly pushes
    return keras.Sequential(
        [
            keras.Input((4,)),
            dense(64, "tanh", kernel_initializer=initializers.RandomNormal(stddev=0.3), bias_initializer=spread),
            dense(2, kernel_initializer=small),
            Squash(MAX_ACCELERATION),
        ]
    )


def build_loss(config):
    features = FEATURES[config["layout"]]
    return ml3_tf.MetaLoss.mlp(
        config["hidden_units"], "silu", features=features, learning_rate=config["learning_rate"], name="pointmass"
    )


def loss_inputs(trajectory, config):
    if config["layout"] == "absolute":
        return state_and_goal(trajectory)
    states, goal = trajectory.observations[..., :-1, :], trajectory.goal[..., tf.newaxis, :]
    return tf.concat([goal - states[..., :2], states[..., 2:]], -1)


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
    other_costs={"tuned_squared": squared_final_distance},
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
    layout: Literal["absolute", "relative"] = "absolute",
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("results/pointmass"),
):
    """Meta-learns a loss for goals on the right, and trains policies with it for goals on the left.

    Args:
        seeds: Number of seeds.
        first_seed: The first seed.
        layout: What the learned loss sees beside the acceleration: state and goal, or velocity and way to the goal.
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
