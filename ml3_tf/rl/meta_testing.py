"""Policies that learn from their own experience with a loss alone, and the account of what it took.

Shape letters: N tasks, E episodes of a task, T time, O observation, A action.
"""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.arguments import check_counts
from ml3_tf.inner_loop import InnerLoop
from ml3_tf.learner import Learner
from ml3_tf.rl.loss_inputs import mini_batches, state_and_action
from ml3_tf.rl.simulators import Sampler, policy_action_size, as_tasks


class Adaptation(NamedTuple):
    """How policies improved, task by task; `updates` is the number of times that they gathered experience.

    Attributes:
        returns: `[updates + 1, N]`, mean over episodes of the sum of rewards, on policy: before the first update and
            after each.
        deterministic_returns: The same of the policies' means, without noise; `None` if not asked for.
        samples: `[updates + 1, N]`, environment steps that went into the policies of these returns. Rollouts that
            only measure, those after the last update and those without noise, do not count.
        parameters: `Parameters` of the policies after the last update.
    """

    returns: np.ndarray
    deterministic_returns: np.ndarray | None
    samples: np.ndarray
    parameters: tuple


def meta_test_on_policy(
    policy,
    loss,
    optimizer,
    simulator,
    tasks,
    updates,
    horizon,
    loss_inputs=state_and_action,
    batch_size=None,
    parameters=None,
    deterministic=True,
    seed=None,
    jit_compile=True,
):
    """Trains stochastic policies on their own experience with `loss` alone.

    Algorithm 5 of ML3 for N tasks at once. An update rolls each policy out for the E episodes of its task, and takes
    one step of the optimizer for each mini-batch of what happened.

    Args:
        policy: As in `ModelFreeTrainer`.
        loss: A `MetaLoss`, or any other Keras loss of what `loss_inputs` returns and the policy's outputs.
        optimizer: Any Keras optimizer, see `InnerOptimizer`.
        simulator: As in `ModelFreeTrainer`.
        tasks: `{"state": [N, E, S], "goal": [N, E, G]}`.
        updates: Number of updates.
        horizon: T.
        loss_inputs: As in `ModelFreeTrainer`.
        batch_size: As in `ModelFreeTrainer`.
        parameters: Optional model of the policy's architecture: all policies start from its weights.
        deterministic: Whether the returns of the mean policies are measured, too, with rollouts of their own.
        seed: Optional integer that determines fresh policies, noise and mini-batches.
        jit_compile: Whether to compile with XLA.

    Returns:
        `Adaptation`.

    Raises:
        ValueError: `updates` is not positive; what `ModelFreeTrainer` refuses.
        FloatingPointError: The simulator or a policy diverged.

    Example:

    >>> import ml3_tf
    >>> from ml3_tf.rl.policies import GaussianPolicy
    >>> from ml3_tf.rl.simulators import Simulator
    >>> walk = Simulator(lambda s, a: s + 0.1 * a, lambda s, a, goal: -tf.norm(s - goal, axis=-1))
    >>> tasks = {"state": tf.zeros((3, 2, 2)), "goal": tf.ones((3, 2, 2))}
    >>> loss = ml3_tf.MetaLoss.mlp((10,), features={"mean_and_std": 4, "state": 2, "action": 2})
    >>> policy = lambda: GaussianPolicy(2, 2, hidden_units=(8,), std=0.5)
    >>> meta_test_on_policy(policy, loss, "sgd", walk, tasks, updates=2, horizon=10).samples.tolist()
    [[0, 0, 0], [20, 20, 20], [40, 40, 40]]
    """
    learner, tasks, seeds = Learner(policy, seed), as_tasks(tasks), keras.random.SeedGenerator(seed)
    num_tasks = tasks["state"].shape[0]
    loop = InnerLoop(learner, loss, optimizer)
    start = loop.start(num_tasks, None if parameters is None else learner.copies(parameters, num_tasks))
    compiled = lambda function: tf.function(function, autograph=False, jit_compile=jit_compile)
    step = compiled(lambda state, batch: loop.step(state, lambda _: batch))
    sampler = Sampler(loop.predict, simulator, horizon, policy_action_size(learner.model), compiled)

    def update(state, trajectory):
        for batch in mini_batches(trajectory, loss_inputs, batch_size, seeds):
            state = step(state, batch)
        return state

    return adapt_on_policy(sampler, tasks, start, lambda state: state.parameters, update, updates, seeds, deterministic)


def adapt_on_policy(sampler, tasks, state, parameters_of, update, updates, seeds, deterministic=True, measuring=None):
    """Lets policies gather experience and learn from it, and keeps the account: what all methods share.

    Args:
        sampler: `Sampler`.
        tasks: As `as_tasks` returns them.
        state: Whatever is learned.
        parameters_of: Function `state -> parameters` that the sampler takes.
        update: Function `(state, trajectory) -> state`.
        updates: Number of updates.
        seeds: `SeedGenerator` of the noise.
        deterministic: Whether the mean policies are measured, too.
        measuring: Optional sampler and tasks that they are measured with. `None`: the same.

    Returns:
        `Adaptation`.

    Raises:
        ValueError: `updates` is not positive.
    """
    check_counts(updates=updates)
    measure, measured_tasks = (sampler, tasks) if measuring is None else measuring
    returns, measured, samples = [], [], [np.zeros(tasks["state"].shape[0], int)]
    for number in range(updates + 1):
        parameters = parameters_of(state)
        trajectory = sampler(parameters, tasks, sampler.noise(tasks, seeds))
        returns.append(mean_returns(trajectory))
        if deterministic:
            trajectory_of_means = measure(parameters, measured_tasks, measure.no_noise(measured_tasks))
            measured.append(mean_returns(trajectory_of_means))
        if number < updates:
            samples.append(samples[-1] + np.asarray(tf.reduce_sum(trajectory.mask, [1, 2]), int))
            state = update(state, trajectory)
    return Adaptation(
        np.stack(returns), np.stack(measured) if deterministic else None, np.stack(samples), parameters_of(state)
    )


def mean_returns(trajectory):
    """Mean over the episodes of each task of the sum of their rewards, `[N]`."""
    return tf.reduce_mean(tf.reduce_sum(trajectory.rewards * trajectory.mask, -1), -1)
