"""Meta-learn a loss that teaches an ant to walk to a goal, and count the samples that it saves against PPO (ML3,
section 4.1 and figure 4, b and d).

    python recipes/ant_model_free.py                       one seed, 20 minutes, and the tuning of PPO, 14
    python recipes/ant_model_free.py --seeds 3 --policy-layers 1 2 3 4         the reported run
    python recipes/ant_model_free.py --losses learned_alone                    also a loss without a guide

The ant of `ml3_tf/AntGoal-v0`, four legs and eight torques, has to walk to a place 2 m away, in any direction, within
100 steps of .05 s. A task is a stance and the place. The reward of a step is the negative distance in m, the return
their sum over an episode: but for a constant the metric of ML3, the sum over time of what the distance has shrunk. At
meta-test a fresh policy takes gradient steps with the learned loss alone on its own experience, without rewards
(Algorithm 5): one episode, then a step of Adam for each mini-batch of 2 time steps.

Meta-training is Algorithm 4, shaped (eq. 9) by what only meta-training has: a guide, one policy for all goals that PPO
has trained before (its samples count). The task loss is eq. 8, and two gaps: on the same fresh rollouts the squared gap
between the means of policy and guide; and the squared gap between the slopes that the learned loss gives to means and
the way from the guide's mean to them. So the loss stores what the guide knows, for policies that start anew. On seed
100, eq. 8 alone, in five settings with a standard deviation of .3, got from -203 to between -174 and -187 m within 2 to
5 million steps; with the gap between means it came to -100, and not beyond with twice the steps; the slopes took it to
-53. The guide learns goals in the front quarter, and turns all others there by the symmetry of the four legs.

Methods:
    learned: the learned loss. It sees mean, standard deviation, observation and action, the paper's form.
    learned_alone: the same, meta-trained without the guide (with `--losses learned_alone`).
    ppo: PPO for each task from scratch, at the rate and number of episodes of a grid that need the fewest samples to
        80 % on 4 tasks of their own ("config", "ppo"; the grid's samples in `seeds/tuning/`). Its discount and lambda
        are those of eq. 8 here.
    paper_ppo: the same with 20 episodes an update, as a reader of the paper might set it, at the best rate of the grid.
    goal_conditioned: the guide. It needs no sample of a new task.

All but the guide, which has layers of 128, start from networks of two tanh layers of 64 units with a linear mean and a
fixed standard deviation of .2.

Fixed in advance: a curve is the mean over 10 tasks that meta-training has not seen, with a fresh policy each, of the
return of the mean policy (without noise; those of the noisy policy are named on_policy), against the environment
steps of one policy. Rollouts that only measure count for no method. Curves are not smoothed. PPO has 160,000 steps a
task, and still rises at their end: more of them would lift its final return. The level is 80 % of the way from the
fresh policies' return to the best final return of `learned`, `ppo` and `paper_ppo`; it is reached where a curve stays
at or above it to its end (sustained). A final return is the mean of the last 5 evaluations. Settings were chosen with
seed 100.

Metrics (`summary.json`, one value per seed; METHOD is one of the above):
    sample_ratio_to_ppo: samples to the level of `ppo` over those of `learned`; 0 if `learned` does not get there, and
        if PPO does not, with all of its samples (a lower bound).
    sample_ratio_to_paper_ppo: the same for `paper_ppo`.
    samples_to_level_METHOD: samples to the level, environment steps; -1 if it is not reached.
    level: the level, m.
    final_return_METHOD: final return of the mean policy, m.
    on_policy_final_return_METHOD: that of the noisy policy, m.
    initial_return: return of fresh policies, m.
    meta_train_env_steps_METHOD: environment steps that meta-training used, those of the guide included.
    shifted_METRIC: a metric on 3 tasks with goals 3 m away, farther than all of meta-training.
    layers_D_final_return: `final_return_learned` for policies of D hidden layers, m (with `--policy-layers`; the loss
        was meta-trained with two).
    spread_between_layers, spread_between_tasks: standard deviation of final returns over depths (mean over tasks) and
        over tasks (mean over depths), m.

Departures from the paper, which names neither rates nor sizes of this experiment: the guide; the reward is the negative
distance alone; eq. 8 has normalized advantages and a quadratic baseline, serves three passes over the rollouts with
PPO's clipping, and comes with a penalty on means beyond the limits of the torques; inner steps are those of Adam, at a
rate that falls to zero over the life of a policy, 48 episodes in meta-training and 100 at meta-test.

Files: `summary.json`, `history.csv`, `figure.png`, `before_and_after.gif` (the mean policy before and after it learned
a task, half speed), and the learned loss of the first seed in `meta_loss/`.
"""

from pathlib import Path
from typing import Literal

import tyro
from ant_model_free_task import EXPERIMENT
from experiment import command_line
from model_free_reaching_baselines import tune_ppo
from model_free_reaching_report import run_experiment
from model_free_reaching_report import run_seed as run_seed_of

CONFIG = {
    "layout": "observation",
    "hidden_units": [128, 128],
    "activation": "silu",
    "output_scale": 0.01,
    "policy_units": 64,
    "train_tasks": {},
    "inner_steps": 48,
    "inner_rate": 1e-2,
    "batch_size": 10,
    "test_rate": 3e-3,
    "test_batch_size": 2,
    "num_tasks": 64,
    "episodes": 1,
    "outer_steps": 8,
    "outer_epochs": 3,
    "outer_batch_size": 4,
    "outer_rate": 2e-3,
    "outer_clipnorm": 1.0,
    "clip_range": 0.2,
    "excess_weight": 100.0,
    "guide_weight": 1000.0,
    "guide_limit": 1.0,
    "discount": 0.98,
    "gae_lambda": 0.95,
    "baseline": "quadratic",
    "test_updates": 100,
    "num_test_tasks": 10,
    "num_shifted_tasks": 3,
    "num_policies": 1,
    "num_tuning_tasks": 4,
    "ppo_rates": [5e-4, 1e-3, 3e-3],
    "ppo_episodes": [8, 20, 40],
    "ppo_batch": 200,
    "ppo_epochs": 10,
    "ppo_samples": 160_000,
    "paper_ppo_samples": 160_000,
    "goal_conditioned_tasks": 64,
    "goal_conditioned_units": 128,
    "goal_conditioned_samples": 2_000_000,
    "goal_conditioned_rate": 1e-3,
    "goal_conditioned_batch": 400,
    "goal_conditioned_epochs": 10,
    "goal_conditioned_discount": 0.98,
    "goal_conditioned_lambda": 0.95,
    "smoke": False,
}
SMOKE = {
    "hidden_units": [8],
    "policy_units": 8,
    "inner_steps": 2,
    "batch_size": 50,
    "test_batch_size": 50,
    "num_tasks": 2,
    "outer_steps": 2,
    "outer_epochs": 1,
    "outer_batch_size": 1,
    "test_updates": 2,
    "num_test_tasks": 2,
    "num_shifted_tasks": 1,
    "num_tuning_tasks": 1,
    "ppo_rates": [1e-3],
    "ppo_episodes": [2],
    "ppo_epochs": 1,
    "ppo_samples": 400,
    "paper_ppo_samples": 2000,
    "goal_conditioned_tasks": 4,
    "goal_conditioned_units": 8,
    "goal_conditioned_samples": 800,
    "goal_conditioned_epochs": 1,
    "smoke": True,
}


def run_tuning(_, config, output_dir, verbose):
    return tune_ppo(EXPERIMENT, config)


def run_seed(seed, config, output_dir, verbose):
    return run_seed_of(EXPERIMENT, config, seed, output_dir, verbose)


def main(
    seeds: int = 1,
    first_seed: int = 0,
    losses: tuple[Literal["learned", "learned_alone"], ...] = ("learned",),
    policy_layers: tuple[int, ...] = (2,),
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("results/ant_model_free"),
):
    """Meta-learns a loss from experience, and trains policies with it for unseen tasks, beside PPO.

    Args:
        seeds: Number of seeds.
        first_seed: The first seed.
        losses: The losses to be learned; `learned` is always among them.
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
    config = {**CONFIG, "losses": losses, "policy_layers": policy_layers, **(SMOKE if smoke else {})}
    numbers = range(first_seed, first_seed + seeds)
    return run_experiment(EXPERIMENT, command, (run_tuning, run_seed), numbers, config, output_dir, jobs)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
