"""Proximal policy optimization, for many tasks at once.

Shape letters: N tasks, E episodes of a task, S state, G goal, T time, O observation, A action, B time steps of a task.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from ml3_tf.arguments import Batch, ModelLike, OptimizerLike, check_counts
from ml3_tf.baselines._ppo_learning import ClippedObjective, PPOLearning, PPOState
from ml3_tf.inner_loop import InnerLoop
from ml3_tf.learner import Learner
from ml3_tf.rl.action_distributions import get_action_distribution
from ml3_tf.rl.meta_testing import Adaptation, OnPolicySettings, adapt_on_policy
from ml3_tf.rl.rollouts import Trajectory
from ml3_tf.rl.simulators import Sampler, Simulator, as_tasks

if TYPE_CHECKING:
    import gymnasium


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPOSettings(OnPolicySettings):
    """How PPO gathers experience and learns from it.

    Args:
        num_updates: Number of times that the policies gather experience and learn from it.
        horizon: T, the number of steps of an episode.
        batch_size: Number of time steps of a task in a mini-batch, at most all of an update.
        deterministic: Whether to measure the returns without noise, too, with rollouts of their own.
        epochs: Number of passes over the experience of an update.
        optimizer: Keras optimizer of the policy. `None`: Adam with the rate 3e-4, which clips the gradient of each
            variable to the norm 0.5.
        value_optimizer: Keras optimizer of the value network. `None`: as `optimizer`.
        value_network: Function without arguments that builds the Keras model of a value, `[B, O] -> [B, 1]`, or one.
            `None`: two tanh layers of 64 units. It sees neither goal nor time, unless they are observed.
        discount: gamma, between 0 and 1.
        gae_lambda: lambda of the generalized advantage estimates, between 0 and 1.
        clip_range: eps of `ClippedObjective`.
        entropy_weight: c of `ClippedObjective`.
        bootstrap: Whether an episode that reaches the horizon goes on, worth the value of its last observation.
            `False`: the horizon is its end.
        normalize_observations: Whether policy and value see observations less their running mean, over their running
            standard deviation.

    Raises:
        ValueError: `num_updates`, `horizon`, `batch_size` or `epochs` is not a positive integer.

    Example:

    >>> PPOSettings(num_updates=20, horizon=65, discount=0.9).clip_range
    0.2
    """

    batch_size: int = 64
    epochs: int = 10
    optimizer: OptimizerLike | None = None
    value_optimizer: OptimizerLike | None = None
    value_network: ModelLike | None = None
    discount: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    entropy_weight: float = 0.0
    bootstrap: bool = True
    normalize_observations: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(batch_size=self.batch_size, epochs=self.epochs)


def ppo(
    policy: ModelLike,
    simulator: Simulator | gymnasium.vector.VectorEnv,
    tasks: Batch,
    *,
    settings: PPOSettings,
    parameters: keras.Model | None = None,
    evaluation_simulator: Simulator | gymnasium.vector.VectorEnv | None = None,
    seed: int | None = None,
    jit_compile: bool = True,
) -> Adaptation:
    """Trains stochastic policies by proximal policy optimization: N independent runs, in one compiled graph.

    An update rolls each policy out for the E episodes of its task and estimates advantages with a value network of the
    task. Then it takes `epochs` passes over the experience in mini-batches, for policy and value. Policies, simulators
    and the account of samples are those of `meta_test_on_policy`; only the learning differs.

    Advantages are normalized over the experience of a task. A pass takes `B // batch_size` mini-batches; it leaves out
    the rest.

    Args:
        policy: Function without arguments that builds a stochastic policy, or one: `GaussianPolicy(...)`,
            `CategoricalPolicy(...)`, or another Keras model, see `get_action_distribution`.
        simulator: `Simulator`, or `gymnasium.vector.VectorEnv` of N x E environments, see `Sampler`.
        tasks: Where episodes start, and their goals, or the seeds of their resets, see `as_tasks`.
        settings: `PPOSettings`.
        parameters: Optional model of the policy's architecture: all policies start from its weights.
        evaluation_simulator: Where the mean policies are measured, in the first episode of each task alone: another
            `Simulator`, or N environments. Without noise, episodes that start alike are all the same. `None`: in
            `simulator`, and in all episodes.
        seed: Optional integer that determines fresh policies and values, noise and mini-batches.
        jit_compile: Whether to compile with XLA.

    Returns:
        `Adaptation`. Its parameters are those of the policies. With `normalize_observations` they expect normalized
        observations.

    Raises:
        ValueError: A deterministic policy, tasks or environments that do not fit, a `batch_size` above the number of
            time steps, or a `clip_range` or `entropy_weight` that `ClippedObjective` refuses.
        RolloutError: The simulator or a policy diverged, or an environment broke.

    Example:

    >>> from ml3_tf.rl import GaussianPolicy, Simulator
    >>> walk = Simulator(lambda s, a: s + 0.1 * a, lambda s, a, goal: -tf.norm(s - goal, axis=-1))
    >>> tasks = {"state": tf.zeros((3, 2, 2)), "goal": tf.ones((3, 2, 2))}
    >>> policy = lambda: GaussianPolicy(2, 2, hidden_units=(8,), std=0.5)
    >>> settings = PPOSettings(num_updates=1, horizon=10, batch_size=5, epochs=2)
    >>> ppo(policy, walk, tasks, settings=settings).returns.shape
    (2, 3)

    References:
        Schulman et al., Proximal policy optimization algorithms, 2017.
    """
    tasks, learner = as_tasks(tasks), Learner(policy, seed=seed)
    num_tasks, num_episodes = tasks["state"].shape[:2]
    num_steps = num_episodes * settings.horizon
    _check_batch_size(settings.batch_size, num_steps)
    learning = _make_learning(learner, settings, seed)
    seeds = keras.random.SeedGenerator(seed)
    compiled = lambda function: tf.function(function, autograph=False, jit_compile=jit_compile)
    improve = compiled(learning.improve)
    sampler = _make_sampler(learning, simulator, settings.horizon, compiled)
    measuring = None
    if evaluation_simulator is not None:
        first_episodes = {name: values[:, :1] for name, values in tasks.items()}
        measuring = _make_sampler(learning, evaluation_simulator, settings.horizon, compiled), first_episodes

    def update(state: PPOState, trajectory: Trajectory) -> PPOState:
        orders = tf.argsort(keras.random.uniform((settings.epochs, num_tasks, num_steps), seed=seeds))
        return improve(state, trajectory, _split(orders, settings.batch_size))

    result = adapt_on_policy(
        sampler,
        tasks,
        learning.start(num_tasks, None if parameters is None else learner.copies(parameters, num_tasks)),
        get_parameters=lambda state: state,  # the policies of a `PPOState` act by its statistics, too
        update=update,
        settings=settings,
        seeds=seeds,
        measuring=measuring,
    )
    state: Any = result.parameters
    return result._replace(parameters=state.policy.parameters)


def _make_learning(learner: Learner, settings: PPOSettings, seed: int | None) -> PPOLearning:
    optimizer = keras.optimizers.Adam(3e-4, clipnorm=0.5) if settings.optimizer is None else settings.optimizer
    model: Any = learner.model
    observation_size = model.input_shape[-1]
    network = settings.value_network
    network = (lambda: _build_value(observation_size)) if network is None else network
    critic = Learner(network, seed=None if seed is None else seed + 1)
    distribution = get_action_distribution(learner.model)
    objective = ClippedObjective(distribution, clip_range=settings.clip_range, entropy_weight=settings.entropy_weight)
    return PPOLearning(
        policy=InnerLoop(learner, objective, optimizer),
        value=InnerLoop(critic, "mse", optimizer if settings.value_optimizer is None else settings.value_optimizer),
        discount=settings.discount,
        gae_lambda=settings.gae_lambda,
        bootstrap=settings.bootstrap,
        normalize_observations=settings.normalize_observations,
    )


def _make_sampler(learning: PPOLearning, simulator: Any, horizon: int, compiled: Callable[..., Any]) -> Sampler:
    distribution = learning.policy.loss.distribution
    return Sampler(learning.predict, simulator, horizon=horizon, distribution=distribution, compiled=compiled)


def _check_batch_size(batch_size: int, num_steps: int) -> None:
    if batch_size > num_steps:
        raise ValueError(
            f"`batch_size` must be at most {num_steps}, the number of time steps of a task: its episodes times the "
            f"horizon. Received: batch_size={batch_size}. Lower it, or gather more episodes."
        )


def _build_value(observation_size: int) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((observation_size,)),
            keras.layers.Dense(64, "tanh"),
            keras.layers.Dense(64, "tanh"),
            keras.layers.Dense(1),
        ]
    )


def _split(orders: tf.Tensor, batch_size: int) -> tf.Tensor:
    """Splits orders `[epochs, N, B]` of time steps into mini-batches `[epochs * (B // batch_size), N, batch_size]`."""
    epochs, num_tasks, num_steps = orders.shape
    number = num_steps // batch_size
    parts = tf.reshape(orders[..., : number * batch_size], [epochs, num_tasks, number, batch_size])
    return tf.reshape(tf.transpose(parts, [0, 2, 1, 3]), [epochs * number, num_tasks, batch_size])
