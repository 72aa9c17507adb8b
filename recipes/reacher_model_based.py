"""Meta-learn a loss that brings an arm of two links to a pose, through a learned model of its dynamics, and train fresh
policies with it in the real environment (ML3, section 4.2 and figure 3c).

    python recipes/reacher_model_based.py                        one minute, and three to tune the baselines
    python recipes/reacher_model_based.py --seeds 10 --jobs 2    the reported run

The arm starts at rest and has .65 s (65 steps) to bring the angles of shoulder and elbow to those of a goal. A policy
is made for one start and one goal. It sees the arm alone, angles and velocities; what wants the goal is the loss.

Meta-training is Algorithm 3: fresh policies take ten steps with the learned loss, in a probabilistic ensemble that is
fitted to random episodes at first and refitted every 100 outer steps to real episodes of the trained policies. Phi
moves after each step, down the task loss of the new policies, differentiated through the ensemble. Starts and goals are
drawn anew for each outer step, with both joints between 0 and pi.

Meta-test is Algorithm 5: one real episode and one gradient step an update, without model, reward or task loss.

Methods:
    learned: the learned loss, with the inner optimizer of its meta-training.
    same_rate: the task loss through the dynamics that were learned in meta-training, with the same optimizer.
    tuned: the same at the rate of a grid, with gradients clipped or not, that ends nearest to 30 other goals of the
        untrained side after 5 updates, with the dynamics of another seed.
    tuned_squared: the squared final distance through the same dynamics, tuned in the same way.

Metrics (`summary.json`, one value per seed; METHOD is one of the above), in the environment, mean over 20 goals with a
fresh policy each:
    final_distance_METHOD: distance of the joint angles to the goal at the end of an episode (rad), after 5 updates, on
        the untrained side: both joints between -pi and 0, the mirror image of what meta-training has seen.
    final_speed_METHOD: speed of the joints at that moment (rad/s): the arm passes through the goal, or overshoots it.
    later_final_distance_METHOD: distance after 20 updates; ten were trained for.
    initial_distance: distance before the first update (rad).
    trained_side_final_distance_METHOD, trained_side_final_speed_METHOD, trained_side_later_final_distance_METHOD,
        trained_side_initial_distance: the same for new goals among those that meta-training drew from.
    dynamics_log_likelihood: log-likelihood of the ensemble for real transitions that it was not fitted to, at the end
        of meta-training (nats per transition).

**Reachable goals only.** A goal of meta-test counts as reachable if iLQR with the true model brings the arm to rest in
it in time, within .02 rad and .2 rad/s. Nothing pulls at the arm, so what rests there stays there. Of 400 goals drawn
on each side all were; within .35 s 86 %, within .25 s 42 %. Each goal is checked before it is used.

Departures from the paper, which gives no setting: the loss sees what is left to the goal, angle by angle, in place of
goal and angles, and the velocities; policies are fresh in each outer step and at test. The task loss is the mean
distance, the final one, a little of the final speed and a penalty on torques near their limit; the public reference
weighs 1, 10, 1e-4 (mean speed) and 0. As that allows, policies pass through the goal at the end of an episode rather
than rest there.

Files: `summary.json`, `history.csv`, `figure.png`, and the loss of the first seed in `meta_loss/`.
"""

from pathlib import Path

import goal_reaching_report
import numpy as np
import tyro
from experiment import command_line
from goal_reaching import Experiment, squared_final_distance
from goal_reaching_report import run_experiment
from reacher_model_based_task import (
    HORIZON,
    build_loss,
    build_policy,
    draw_tasks,
    loss_inputs,
    reachable_tasks,
    task_loss,
)

from ml3_tf.envs.reacher import TIME_STEP

CONFIG = {
    "policy_units": [64],
    "hidden_units": [40, 40],
    "learning_rate": 1.0,  # initial value of the learned one, times `inner_rate`
    "inner_steps": 10,
    "unroll": 1,
    "inner_rate": 0.1,
    "inner_clipnorm": 0.5,
    "num_tasks": 16,
    "outer_steps": 300,
    "outer_rate": 3e-3,
    "outer_clipnorm": 1.0,
    "path_weight": 1.0,
    "end_weight": 1.0,
    "speed_weight": 0.02,
    "saturation_weight": 0.05,
    "dynamics_rate": 3e-3,
    "dynamics_epochs": 20,
    "dynamics_batch": 256,
    "refit_every": 100,
    "num_refit_episodes": 16,
    "exploration": 4,
    "test_steps": 20,
    "reported_step": 5,
    "num_goals": 20,
    "num_tuning_goals": 30,
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
    "goals": {"": "goals of the untrained side", "trained_side_": "new goals of the trained side"},
    "unit": "rad",
    "axis_labels": ("shoulder, angle from the goal (rad)", "elbow, angle from the goal (rad)"),
}
EXPERIMENT = Experiment(
    env="ml3_tf/ReacherGoal-v0",
    horizon=HORIZON,
    build_policy=build_policy,
    build_loss=build_loss,
    loss_inputs=loss_inputs,
    task_loss=task_loss,
    other_costs={"tuned_squared": squared_final_distance},
    train_tasks=draw_tasks("trained"),
    test_tasks={"": reachable_tasks("untrained"), "trained_side_": reachable_tasks("trained")},
    dynamics={"state_size": 4, "action_size": 2, "angles": (0, 1)},
)


def run_tuning(_, config, output_dir, verbose):
    return goal_reaching_report.run_tuning(EXPERIMENT, config, verbose)


def run_seed(seed, config, output_dir, verbose):
    results = goal_reaching_report.run_seed(EXPERIMENT, config, seed, output_dir, verbose)
    for prefix in results["goals"]:
        for method in EXPERIMENT.methods:
            results["metrics"][f"{prefix}final_speed_{method}"] = final_speed(results["paths"][prefix + method])
    return seen_from_goals(results)


def final_speed(paths):
    """Mean speed (rad/s) at the end of paths `[N, T + 1, 2]`: the environment moves the angles by `dt` times it."""
    last_steps = np.diff(paths, axis=1)[:, -1]
    return float(np.mean(np.linalg.norm(last_steps, axis=-1)) / TIME_STEP)


def seen_from_goals(results):
    """The results with paths that count from their goals: in the figure all of them shall end in one point."""
    paths, goals = {}, {}
    for prefix, values in results["goals"].items():
        for name in (prefix + method for method in EXPERIMENT.methods):
            paths[name] = (np.array(results["paths"][name]) - np.array(values)[:, np.newaxis]).tolist()
        goals[prefix] = np.zeros_like(values).tolist()
    return {**results, "paths": paths, "goals": goals}


def main(
    seeds: int = 1,
    first_seed: int = 0,
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("results/reacher_model_based"),
):
    """Meta-learns a loss for poses of an arm, and trains policies with it for poses that it was not learned for.

    Args:
        seeds: Number of seeds.
        first_seed: The first seed.
        smoke: Run a few steps only, to see that everything works.
        jobs: Number of processes; each takes seeds of its own.
        output_dir: Where results go. An interrupted run resumes from it.

    Returns:
        The metrics, name -> one value per seed.
    """
    command = command_line(main, locals())
    config = {**CONFIG, **(SMOKE if smoke else {})}
    numbers = range(first_seed, first_seed + seeds)
    functions = (run_tuning, run_seed)
    return run_experiment("reacher_model_based", command, functions, numbers, config, output_dir, jobs, FIGURE)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
