"""Meta-learn a loss that sends a point mass to goals on the right, in a learned model, and train policies with it for
goals on the left, in the real environment (ML3, section 4.1 and figure 3, a and b).

    python recipes/pointmass.py                             one minute, and five to tune the baselines
    python recipes/pointmass.py --seeds 10 --jobs 2         the reported run
    python recipes/pointmass.py --layout relative           the loss sees the way to the goal, not state and goal
    python recipes/pointmass.py --lives 60 300              a loss for more updates, see below

A mass (state: position in m, velocity in m/s; action: acceleration, at most 1 m/s^2 along each axis) starts at rest at
the origin. It has 25 steps of 0.1 s to get to a goal within 1.5 m along each axis. Policies see the state alone: each
goal needs a policy of its own.

Meta-training (Algorithm 3) has starts and goals in the right half-plane only. Each outer step draws 16 fresh policies,
starts and goals, and trains the policies for 10 steps; phi moves after each. The task loss weighs the distance on the
way, the logarithm of the final distance, the final speed, and accelerations near their limit. The model of the dynamics
is an ensemble of probabilistic networks. Every 100 outer steps the last policies are rolled out in the environment, and
the model is fitted to all transitions so far.

At meta-test fresh policies take gradient steps with the learned loss, one rollout in the environment each: without
model, task loss or reward (Algorithm 5). A policy is a network of one tanh layer of 64 units. Its biases are spread, so
that a policy at rest at the origin is not blind to its own state.

Methods:
    learned: the learned loss. It sees acceleration, state and goal, and has a learned learning rate.
    same_rate: the gradient of the task loss through the dynamics learned at meta-training, with the same optimizer.
    tuned: the same at the best rate of a grid for SGD, with gradients clipped or not. Best is the setting that ends
        nearest to 50 other goals of the untrained side after 5 updates, with the dynamics of another seed.
    adam, adamw, muon: the same with these optimizers, each at the rate that is best then.
    tuned_squared, adam_squared, adamw_squared, muon_squared: the gradient of the squared final distance through the
        same dynamics, tuned in the same way.

Expected result, ten seeds, final distance on the untrained side: `learned` ends 0.02 m away, `same_rate` and `tuned`
several times as far. `tuned_squared`, the best baseline, ends a little nearer than `learned`, which needs no model: the
mass is nearly linear, so that one rate fits the curvature of this cost for all goals. So the learned loss seldom gets
to its level, and does not pay for itself. The other optimizers need more updates: at the rates that are best after 5,
Adam on the task loss ends 0.24 m away then, and 0.02 m after 50, when `learned` has drifted off to 0.07 m.

A loss for more updates (`--lives 60 300 --outer-steps 1000 --end-width 0.02 --speed-weight 0.3`, ten seeds in
`results/pointmass_lives`): on the trained side policies stay near where they arrive, 0.025 m from the goal after 20
updates, 0.03 m after 50; on the other side they end 0.08 and 0.07 m away. `tuned_squared` is still nearer. These
settings were chosen with seed 100.

Metrics (`summary.json`, one value per seed, METHOD is one of the above), in the environment, after 5 updates, which are
the horizon of meta-test, means over 10 goals of the left half-plane; with the prefix trained_side_ over 10 unseen goals
of the right half-plane:
    final_distance_METHOD: distance of the last state to the goal, in m.
    final_distance_METHOD_15, final_distance_METHOD_50: the same after three and ten times as many updates; policies of
        meta-training were trained for 10.
    best_final_distance_METHOD, best_final_distance_METHOD_15, best_final_distance_METHOD_50: the least up to then.
    later_final_distance_METHOD: the same after 20 updates.
    initial_distance: the same of the fresh policies, in m.
    dynamics_log_likelihood: of the model at the end of meta-training, on episodes held out, in nats per transition.
    "costs", beside the metrics: core-minutes, and samples (steps of the real system), of meta-training, and of training
        one policy until it ends as near to goals of the left half-plane as with the best baseline (on the 50 other
        goals, see "config") after 5 updates, see `parts/costs.py`. Baselines take no samples for a use, but need the
        model that the samples of meta-training were taken for.

Departures from the paper: it names neither policy, task loss, rates nor starts. Starts of meta-training are spread over
the right half-plane, so that ways to goals point everywhere. States that an inner step visits count as data, as in the
environment. A loss that sees velocity and way to the goal (`--layout relative`) ended no nearer on three other seeds.

Files: `summary.json`, `history.csv`, `figure.png`, and the loss of the first seed in `meta_loss/`.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import ml3_tf
from ml3_tf.envs import pointmass
from ml3_tf.rl import DynamicsEnsemble
from parts.experiment import Metrics, Result
from parts.goal_reaching.experiment import Experiment
from parts.goal_reaching.report import run_experiment, run_one_seed, tune_baselines
from parts.goal_reaching.settings import GoalReachingSettings
from parts.pointmass.task import HORIZON, LAYOUTS, build_policy, task_loss, tasks_on_side, train_tasks
from parts.settings import recorded_command, run_command


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(GoalReachingSettings):
    """Settings of this recipe; those that are not here are in `GoalReachingSettings`."""

    layout: Literal["absolute", "relative"] = "absolute"
    """Inputs of the loss beside the acceleration: state and goal, or velocity and way to the goal."""
    outer_steps: int = 400
    """Outer steps of meta-training."""
    path_weight: float = 0.5
    """Weight in the task loss: the mean distance to the goal (m)."""
    end_weight: float = 1.0
    """Weight in the task loss: the logarithm of the final distance."""
    end_width: float = 0.1
    """Final distance (m) below which this logarithm levels out."""
    speed_weight: float = 0.1
    """Weight in the task loss: the square of the final speed (m/s)."""
    saturation_weight: float = 0.01
    """Weight in the task loss: accelerations near their limits."""
    dynamics_epochs: int = 10
    """Epochs of each fit of the dynamics."""
    dynamics_batch: int = 64
    """Transitions in a step of these fits."""
    num_goals: int = 10
    """Goals of meta-test, on each side."""
    num_tuning_goals: int = 50
    """Other goals, for which the baselines are tuned."""


def build_loss(settings: Settings) -> ml3_tf.MetaLoss:
    """Builds the loss to be learned."""
    return ml3_tf.MetaLoss.mlp(
        settings.hidden_units,
        activation="silu",
        features=LAYOUTS[settings.layout],
        learning_rate=settings.learning_rate,
        name="pointmass",
    )


EXPERIMENT = Experiment(
    name="pointmass",
    env="ml3_tf/PointmassGoal-v0",
    horizon=HORIZON,
    build_policy=lambda settings: build_policy(),
    build_loss=build_loss,
    loss_inputs=lambda settings: LAYOUTS[settings.layout],
    build_dynamics=lambda seed: DynamicsEnsemble(4, 2, hidden_units=(32, 32), seed=seed),
    task_loss=lambda trajectory, settings: task_loss(trajectory, settings, end_width=settings.end_width),
    train_tasks=train_tasks,
    test_tasks={"": tasks_on_side(-1.0), "trained_side_": tasks_on_side(1.0)},
    titles={"": "goals of the untrained side", "trained_side_": "unseen goals of the trained side"},
    unit="m",
    axis_labels=("x (m)", "y (m)"),
    trained_range=(0.0, pointmass.MAX_GOAL),
)


def run_tuning(_: str, settings: Settings, output_dir: Path, verbose: int) -> Result:
    """Finds the rate and the clipping of the tuned baselines."""
    return tune_baselines(EXPERIMENT, settings, output_dir, verbose=verbose)


def run_seed(seed: int, settings: Settings, output_dir: Path, verbose: int) -> Result:
    """Meta-trains with one seed, and meta-tests every method."""
    return run_one_seed(EXPERIMENT, settings, seed, output_dir, verbose=verbose)


def main(
    settings: Settings = Settings(),
    *,
    seeds: int = 1,
    first_seed: int = 0,
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("runs/pointmass"),
) -> Metrics:
    """Meta-learns a loss for goals on the right, and trains policies with it for goals on the left.

    Args:
        settings: The settings.
        seeds: Number of seeds.
        first_seed: The first seed.
        smoke: Run a few steps only, to see that everything works.
        jobs: Number of processes; each runs seeds of its own.
        output_dir: Folder of the results. An interrupted run resumes from it.

    Returns:
        The metrics, name -> one value per seed.
    """
    command = recorded_command(main, settings, seeds=seeds, first_seed=first_seed, smoke=smoke)
    return run_experiment(
        EXPERIMENT,
        settings.smoke() if smoke else settings,
        range(first_seed, first_seed + seeds),
        command=command,
        run_tuning=run_tuning,
        run_seed=run_seed,
        jobs=jobs,
        output_dir=output_dir,
    )


if __name__ == "__main__":
    run_command(main, description=__doc__)
