"""Meta-test of losses that train policies, in real environments and on their own experience. Algorithm 5 of ML3.

Shape letters: N tasks, E episodes of a task, T time, O observation, A action.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.arguments import Batch, LossInputs, LossLike, ModelLike, OptimizerLike, check_counts
from ml3_tf.inner_loop import InnerLoop, LearnerState
from ml3_tf.learner import Learner, Parameters
from ml3_tf.rl.action_distributions import check_deterministic, get_action_distribution
from ml3_tf.rl.env_spaces import check_vector
from ml3_tf.rl.loss_inputs import learning_batch, mini_batches
from ml3_tf.rl.rollouts import Trajectory, rollout_env
from ml3_tf.rl.simulators import Sampler, as_tasks


def meta_test_in_env(
    policy: ModelLike,
    loss: LossLike,
    optimizer: OptimizerLike,
    env: Any,
    *,
    num_steps: int,
    horizon: int,
    loss_inputs: LossInputs,
    parameters: keras.Model | None = None,
    seed: int | None = None,
    env_seed: int | None = None,
) -> Trajectory:
    """Trains policies in real environments with `loss` alone: no model, no task loss, no reward.

    Algorithm 5 of ML3 for N policies at once, one in each environment of a vector. A step rolls each policy out once
    and takes one step of the optimizer on the trajectory, as `policy.compile(optimizer, loss)` and `train_on_batch`
    would.

    Args:
        policy: Function without arguments that builds the Keras model of a policy, `[B, O] -> [B, A]`, or one.
        loss: A `MetaLoss`, or any other Keras loss of `loss_inputs` and the actions.
        optimizer: Any Keras optimizer, see `InnerOptimizer`.
        env: `gymnasium.vector.VectorEnv` of N environments.
        num_steps: Number of gradient steps.
        horizon: T, the number of steps of a rollout.
        loss_inputs: `LossInputs`, what the loss sees beside each action.
        parameters: Optional model of the policy's architecture: all policies start from its weights.
        seed: Optional integer that determines the fresh policies.
        env_seed: Optional seed of the environments' first reset.

    Returns:
        A `Trajectory` of arrays `[num_steps + 1, N, ...]`: the rollouts before the first step and after each.

    Raises:
        ValueError: `num_steps` is not positive, `loss_inputs` do not fit the loss, the policy is stochastic, or the
            environments do not fit it, see `rollout_env`.

    Example:

    >>> import gymnasium, ml3_tf, ml3_tf.envs
    >>> from ml3_tf.rl import MLPPolicy, get_loss_inputs
    >>> env = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=3, vectorization_mode="sync")
    >>> loss, loss_inputs = ml3_tf.load_meta_loss("mountain_car"), get_loss_inputs("mountain_car")
    >>> policy = lambda: MLPPolicy(2, 1, hidden_units=(8,), action_limit=0.25)
    >>> meta_test_in_env(policy, loss, "sgd", env, num_steps=2, horizon=5, loss_inputs=loss_inputs).observations.shape
    (3, 3, 6, 2)
    """
    check_counts(num_steps=num_steps)
    check_vector(env)
    loss_inputs.check_fits(loss)
    learner = Learner(policy, seed=seed)
    check_deterministic(learner.model, "here it acts by its output.")
    loop = InnerLoop(learner, loss, optimizer)
    start = loop.start(env.num_envs, None if parameters is None else learner.copies(parameters, env.num_envs))

    @tf.function(autograph=False)
    def step(learners: LearnerState, trajectory: Trajectory) -> LearnerState:
        return loop.step(learners, lambda _: learning_batch(trajectory, loss_inputs))

    return record_training(learner, start, step, env, num_steps=num_steps, horizon=horizon, env_seed=env_seed)


def record_training(
    learner: Learner,
    learners: LearnerState,
    step: Callable[[LearnerState, Trajectory], LearnerState],
    env: Any,
    *,
    num_steps: int,
    horizon: int,
    env_seed: int | None = None,
) -> Trajectory:
    """Rolls policies out in real environments before their first training step and after each.

    Args:
        learner: `Learner` of the policies.
        learners: `LearnerState` of N policies at the start.
        step: Function `(LearnerState, Trajectory) -> LearnerState`; it sees the last rollout.
        env: `gymnasium.vector.VectorEnv` of N environments.
        num_steps: Number of training steps.
        horizon: T, the number of steps of a rollout.
        env_seed: Optional seed of the environments' first reset.

    Returns:
        A `Trajectory` of arrays `[num_steps + 1, N, ...]`.
    """

    @tf.function(autograph=False)
    def act(parameters: Parameters, observations: tf.Tensor) -> tf.Tensor:
        return learner.predict(parameters, observations[:, tf.newaxis])[:, 0]

    def roll_out(env_seed: int | None = None) -> Trajectory:
        return rollout_env(lambda o: act(learners.parameters, o), env, horizon=horizon, seed=env_seed)

    rollouts = [roll_out(env_seed)]
    for _ in range(num_steps):
        learners = step(learners, rollouts[-1])
        rollouts.append(roll_out())
    return Trajectory(*(np.stack(parts) for parts in zip(*rollouts)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnPolicySettings:
    """How policies gather experience and learn from it.

    Args:
        num_updates: Number of times that the policies gather experience and learn from it.
        horizon: T, the number of steps of an episode.
        batch_size: Time steps of a task in a mini-batch. `None`: all in one.
        deterministic: Whether to measure the returns without noise, too, with rollouts of their own.

    Raises:
        ValueError: `num_updates` or `horizon` is not positive.
    """

    num_updates: int
    horizon: int
    batch_size: int | None = None
    deterministic: bool = True

    def __post_init__(self) -> None:
        check_counts(num_updates=self.num_updates, horizon=self.horizon)


class Adaptation(NamedTuple):
    """How policies improved, task by task, over `num_updates` updates.

    Attributes:
        returns: `[num_updates + 1, N]`, mean over episodes of the sum of rewards, on policy: before the first update
            and after each.
        deterministic_returns: The same of the policies without noise, by their means or most likely actions; `None` if
            not asked for.
        samples: `[num_updates + 1, N]`, environment steps that went into the policies of these returns. Rollouts that
            only measure, those after the last update and those without noise, do not count.
        parameters: `Parameters` of the policies after the last update.
    """

    returns: np.ndarray
    deterministic_returns: np.ndarray | None
    samples: np.ndarray
    parameters: Parameters


def meta_test_on_policy(
    policy: ModelLike,
    loss: LossLike,
    optimizer: OptimizerLike,
    simulator: Any,
    tasks: Batch,
    *,
    settings: OnPolicySettings,
    loss_inputs: LossInputs,
    parameters: keras.Model | None = None,
    seed: int | None = None,
    jit_compile: bool = True,
) -> Adaptation:
    """Trains stochastic policies on their own experience with `loss` alone.

    Algorithm 5 of ML3 for N tasks at once. An update rolls each policy out for the E episodes of its task, and takes
    one step of the optimizer for each mini-batch of the experience.

    Args:
        policy: Function without arguments that builds a stochastic policy, or one: `GaussianPolicy(...)`,
            `CategoricalPolicy(...)`, or another Keras model, see `get_action_distribution`.
        loss: A `MetaLoss`, or any other Keras loss of `loss_inputs` and the policy's outputs.
        optimizer: Any Keras optimizer, see `InnerOptimizer`.
        simulator: `Simulator`, or `gymnasium.vector.VectorEnv` of N x E environments, see `Sampler`.
        tasks: Where episodes start, and their goals, or the seeds of their resets, see `as_tasks`.
        settings: `OnPolicySettings`.
        loss_inputs: `LossInputs`, what the loss sees beside the policy's outputs.
        parameters: Optional model of the policy's architecture: all policies start from its weights.
        seed: Optional integer that determines fresh policies, noise and mini-batches.
        jit_compile: Whether to compile with XLA.

    Returns:
        `Adaptation`.

    Raises:
        ValueError: A deterministic policy, or tasks, environments or `loss_inputs` that do not fit.
        RolloutError: The simulator or a policy diverged, or an environment broke.

    Example:

    >>> import ml3_tf
    >>> from ml3_tf.rl import GaussianPolicy, Simulator, observation_and_action
    >>> walk = Simulator(lambda s, a: s + 0.1 * a, lambda s, a, goal: -tf.norm(s - goal, axis=-1))
    >>> tasks = {"state": tf.zeros((3, 2, 2)), "goal": tf.ones((3, 2, 2))}
    >>> inputs = ml3_tf.LossInputs(observation_and_action, {"mean_and_std": 4, "observation": 2, "action": 2})
    >>> loss = ml3_tf.MetaLoss.mlp((10,), features=inputs)
    >>> policy = lambda: GaussianPolicy(2, 2, hidden_units=(8,), std=0.5)
    >>> settings = OnPolicySettings(num_updates=2, horizon=10)
    >>> meta_test_on_policy(policy, loss, "sgd", walk, tasks, settings=settings, loss_inputs=inputs).samples.tolist()
    [[0, 0, 0], [20, 20, 20], [40, 40, 40]]
    """
    loss_inputs.check_fits(loss)
    learner, tasks, seeds = Learner(policy, seed=seed), as_tasks(tasks), keras.random.SeedGenerator(seed)
    num_tasks = tasks["state"].shape[0]
    loop = InnerLoop(learner, loss, optimizer)
    start = loop.start(num_tasks, None if parameters is None else learner.copies(parameters, num_tasks))
    compiled = lambda function: tf.function(function, autograph=False, jit_compile=jit_compile)
    step = compiled(lambda learners, batch: loop.step(learners, lambda _: batch))
    distribution = get_action_distribution(learner.model)
    sampler = Sampler(loop.predict, simulator, horizon=settings.horizon, distribution=distribution, compiled=compiled)

    def update(learners: LearnerState, trajectory: Trajectory) -> LearnerState:
        for batch in mini_batches(trajectory, loss_inputs, batch_size=settings.batch_size, seeds=seeds):
            learners = step(learners, batch)
        return learners

    return adapt_on_policy(
        sampler,
        tasks,
        start,
        get_parameters=lambda learners: learners.parameters,
        update=update,
        settings=settings,
        seeds=seeds,
    )


def adapt_on_policy(
    sampler: Sampler,
    tasks: Batch,
    state: Any,
    *,
    get_parameters: Callable[[Any], Any],
    update: Callable[[Any, Trajectory], Any],
    settings: OnPolicySettings,
    seeds: keras.random.SeedGenerator,
    measuring: tuple[Sampler, Batch] | None = None,
) -> Adaptation:
    """Lets policies gather experience and learn from it, and keeps the account that all methods share.

    Args:
        sampler: `Sampler`.
        tasks: As `as_tasks` returns them.
        state: Whatever is learned.
        get_parameters: Function `state -> parameters` that the sampler takes.
        update: Function `(state, trajectory) -> state`.
        settings: `OnPolicySettings`.
        seeds: `SeedGenerator` of the noise.
        measuring: Optional sampler and tasks to measure the mean policies with. `None`: the same.

    Returns:
        `Adaptation`.
    """
    measure, measured_tasks = (sampler, tasks) if measuring is None else measuring
    returns, measured, samples = [], [], [np.zeros(tasks["state"].shape[0], int)]
    for number in range(settings.num_updates + 1):
        parameters = get_parameters(state)
        trajectory = sampler(parameters, tasks, sampler.noise(tasks, seeds))
        returns.append(mean_returns(trajectory))
        if settings.deterministic:
            trajectory_of_means = measure(parameters, measured_tasks, measure.no_noise(measured_tasks))
            measured.append(mean_returns(trajectory_of_means))
        if number < settings.num_updates:
            samples.append(samples[-1] + np.asarray(tf.reduce_sum(trajectory.mask, [1, 2]), int))
            state = update(state, trajectory)
    deterministic = np.stack(measured) if settings.deterministic else None
    return Adaptation(np.stack(returns), deterministic, np.stack(samples), get_parameters(state))


def mean_returns(trajectory: Trajectory) -> tf.Tensor:
    """Returns the mean over the episodes of each task of the sum of their rewards, `[N]`."""
    return tf.reduce_mean(tf.reduce_sum(trajectory.rewards * trajectory.mask, -1), -1)
