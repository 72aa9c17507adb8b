"""Meta-test of the losses that were learned from experience alone, and rollouts of the policies."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ml3_tf import Learner, MetaLoss, Parameters
from ml3_tf.rl import (
    Adaptation,
    OnPolicySettings,
    Sampler,
    Trajectory,
    as_tasks,
    get_action_distribution,
    meta_test_on_policy,
)
from parts.model_free.experiment import Experiment, Tasks, build_inner_optimizer
from parts.model_free.settings import ModelFreeSettings


def meta_test(
    experiment: Experiment,
    settings: ModelFreeSettings,
    meta_loss: MetaLoss,
    tasks: Tasks,
    *,
    seed: int,
    depth: int = 2,
) -> Adaptation:
    """Trains fresh policies with `depth` hidden layers, one for each task, by Algorithm 5."""
    num_updates, batch_size = settings.test_updates, settings.test_batch_size
    return meta_test_on_policy(
        lambda: experiment.build_policy(settings.policy_units, depth),
        meta_loss,
        build_inner_optimizer(settings.test_rate, num_updates, experiment.horizon, batch_size),
        experiment.simulator(count_episodes(tasks)),
        tasks,
        settings=OnPolicySettings(num_updates=num_updates, horizon=experiment.horizon, batch_size=batch_size),
        loss_inputs=experiment.layouts[settings.layout],
        seed=meta_test_seed(seed),
        jit_compile=settings.jit_compile,
    )


def draw_fresh_parameters(experiment: Experiment, settings: ModelFreeSettings, *, seed: int, number: int) -> Parameters:
    """Draws the parameters that `meta_test` starts from."""
    build = lambda: experiment.build_policy(settings.policy_units, 2)
    return Learner(build, seed=meta_test_seed(seed)).draw(number)


def roll_out_means(
    experiment: Experiment, settings: ModelFreeSettings, parameters: Parameters, tasks: Tasks
) -> Trajectory:
    """Rolls out the mean policies with these `Parameters`: `[N, E, ...]`."""
    learner = Learner(lambda: experiment.build_policy(settings.policy_units, 2))
    return roll_out_without_noise(experiment, learner.predict, parameters, as_tasks(tasks))


def roll_out_without_noise(
    experiment: Experiment, predict: Callable[[Any, Any], tf.Tensor], parameters: Any, tasks: Tasks
) -> Trajectory:
    """Rolls out the means that a function `(parameters, observations)` predicts: `[N, E, ...]`."""
    simulator = experiment.simulator(count_episodes(tasks))
    distribution = get_action_distribution(experiment.build_policy(1, 1))
    sampler = Sampler(predict, simulator, horizon=experiment.horizon, distribution=distribution)
    return sampler(parameters, tasks, sampler.no_noise(tasks))


def count_episodes(tasks: Tasks) -> int:
    """Returns the number of episodes of all tasks together."""
    return int(np.prod(tasks["state"].shape[:2]))


def meta_test_seed(seed: int) -> int:
    """Returns the seed of policies that meta-training has not drawn."""
    return 10_000 + seed


def draw_test_tasks(experiment: Experiment, settings: ModelFreeSettings, seed: int) -> dict[str, Tasks]:
    """Draws the tasks of meta-test, prefix -> tasks, each several times in a row: once for each fresh policy."""
    numbers = [settings.num_test_tasks] + [settings.num_shifted_tasks] * (len(experiment.test_tasks) - 1)
    drawn = {
        prefix: draw(np.random.default_rng([seed, 1, order]), numbers[order])
        for order, (prefix, draw) in enumerate(experiment.test_tasks.items())
    }
    copies = dict.fromkeys(drawn, settings.num_policies) | experiment.num_policies
    return {
        prefix: {name: np.repeat(values, copies[prefix], 0) for name, values in tasks.items()}
        for prefix, tasks in drawn.items()
    }
