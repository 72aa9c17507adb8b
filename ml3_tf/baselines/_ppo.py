"""Proximal policy optimization, for many tasks at once.

Shape letters: N tasks, E episodes of a task, T time, O observation, A action, B time steps of a task.
"""

from typing import NamedTuple

import keras
import tensorflow as tf

from ml3_tf.inner_loop import InnerLoop, LearnerState
from ml3_tf.learner import Learner
from ml3_tf.rl.loss_inputs import learning_batch
from ml3_tf.rl.meta_testing import adapt_on_policy
from ml3_tf.rl.policy_gradient import gaussian_log_prob, surrogate
from ml3_tf.rl.returns import generalized_advantages, normalized
from ml3_tf.rl.simulators import Sampler, policy_action_size, as_tasks

# Normalized observations are clipped there, as is usual: a first state may be far from all others.
MAX_NORMALIZED = 10.0


class ClippedObjective:
    """PPO's loss of a policy: `-min(r A, clip(r, 1 - eps, 1 + eps) A) - c H`, `r = pi(a | s) / pi_old(a | s)`.

    Args:
        clip_range: eps.
        entropy_weight: c, of the entropy H of the policy.

    Source: Schulman et al., Proximal policy optimization algorithms, 2017, eq. 7 and 9.

    Example:

    >>> objective = ClippedObjective(clip_range=0.2)
    >>> old, mean_and_std = gaussian_log_prob([[0.0, 1.0]], [[0.5]]), [[0.5, 1.0]]
    >>> y_true = tf.concat([[[0.5]], old[:, tf.newaxis], [[2.0]]], -1)
    >>> print(objective(y_true, tf.constant(mean_and_std)).numpy().round(4))  # the ratio is exp(1/8), below 1.2
    [-2.2663]
    """

    def __init__(self, clip_range=0.2, entropy_weight=0.0):
        if not clip_range > 0 or not entropy_weight >= 0:
            raise ValueError(
                "Expected a positive `clip_range` and an `entropy_weight` that is not negative. Received: "
                f"clip_range={clip_range}, entropy_weight={entropy_weight}"
            )
        self.clip_range, self.entropy_weight = clip_range, entropy_weight

    def __call__(self, y_true, y_pred):
        """The loss of each time step.

        Args:
            y_true: `[..., A + 2]`, action, its log-probability when it was taken, and advantage.
            y_pred: `[..., 2A]`, mean and standard deviation.

        Returns:
            `[...]`.
        """
        # But for a constant, the entropy of a Gaussian is the sum of the logarithms of its standard deviations.
        std = tf.split(y_pred, 2, -1)[1]
        return -surrogate(y_true, y_pred, self.clip_range) - self.entropy_weight * tf.reduce_sum(tf.math.log(std), -1)


def ppo(
    policy,
    simulator,
    tasks,
    updates,
    horizon,
    optimizer=None,
    value=None,
    value_optimizer=None,
    discount=0.99,
    gae_lambda=0.95,
    clip_range=0.2,
    entropy_weight=0.0,
    batch_size=64,
    epochs=10,
    bootstrap=True,
    normalize_observations=False,
    parameters=None,
    deterministic=True,
    evaluation_simulator=None,
    seed=None,
    jit_compile=True,
):
    """Trains stochastic policies by proximal policy optimization: N independent runs, in one compiled graph.

    An update rolls each policy out for the E episodes of its task, estimates advantages with a value network of the
    task, and then takes `epochs` passes over the experience in mini-batches, for policy and value. Policies, simulators
    and account are those of `meta_test_on_policy`; only the learning differs.

    Advantages are normalized over the experience of a task. The default optimizer clips the gradient of each variable
    to the norm 0.5. A pass takes `B // batch_size` mini-batches; what is left over is left out of it.

    Args:
        policy: As in `ModelFreeTrainer`.
        simulator: As in `ModelFreeTrainer`.
        tasks: `{"state": [N, E, S], "goal": [N, E, G]}`.
        updates: Number of updates.
        horizon: T.
        optimizer: Any Keras optimizer of the policy; `None`: Adam with rate 3e-4.
        value: Function without arguments that builds the Keras model of a value, `[B, O] -> [B, 1]`; `None`: two tanh
            layers of 64. It sees neither goal nor time, unless they are observed.
        value_optimizer: The same of the value; `None`: as `optimizer`.
        discount: gamma.
        gae_lambda: lambda of `generalized_advantages`.
        clip_range: eps of `ClippedObjective`.
        entropy_weight: c of `ClippedObjective`.
        batch_size: Time steps of a task in a mini-batch, at most all.
        epochs: Number of passes over the experience of an update.
        bootstrap: Whether an episode that reaches the horizon goes on, worth the value of its last state. `False`: the
            horizon is its end.
        normalize_observations: Whether policy and value see observations less their running mean, over their running
            standard deviation.
        parameters: Optional model of the policy's architecture: all policies start from its weights.
        deterministic: Whether the returns of the mean policies are measured, too, with rollouts of their own.
        evaluation_simulator: What they are measured in: as `simulator`, for the first episode of each task alone.
            Episodes that start alike are all the same without noise. `None`: `simulator`, and all episodes.
        seed: Optional integer that determines fresh policies and values, noise and mini-batches.
        jit_compile: Whether to compile with XLA.

    Returns:
        `Adaptation`. Its parameters are those of the policies, for normalized observations if they were.

    Raises:
        ValueError: Numbers that do not fit; what `ModelFreeTrainer` refuses.
        FloatingPointError: The simulator or a policy diverged.

    Source: Schulman et al., Proximal policy optimization algorithms, 2017.

    Example:

    >>> from ml3_tf.rl.policies import GaussianPolicy
    >>> from ml3_tf.rl.simulators import Simulator
    >>> walk = Simulator(lambda s, a: s + 0.1 * a, lambda s, a, goal: -tf.norm(s - goal, axis=-1))
    >>> tasks = {"state": tf.zeros((3, 2, 2)), "goal": tf.ones((3, 2, 2))}
    >>> policy = lambda: GaussianPolicy(2, 2, hidden_units=(8,), std=0.5)
    >>> ppo(policy, walk, tasks, updates=1, horizon=10, batch_size=5, epochs=2).returns.shape
    (2, 3)
    """
    tasks, learner = as_tasks(tasks), Learner(policy, seed)
    optimizer = keras.optimizers.Adam(3e-4, clipnorm=0.5) if optimizer is None else optimizer
    num_observed = learner.model.input_shape[-1]
    critic = Learner(value or (lambda: _build_value(num_observed)), None if seed is None else seed + 1)
    num_tasks, num_steps = tasks["state"].shape[0], tasks["state"].shape[1] * horizon
    _check_passes(batch_size, epochs, num_steps)
    run = _PPO(
        policy=InnerLoop(learner, ClippedObjective(clip_range, entropy_weight), optimizer),
        value=InnerLoop(critic, "mse", optimizer if value_optimizer is None else value_optimizer),
        discount=discount,
        gae_lambda=gae_lambda,
        bootstrap=bootstrap,
        normalize=normalize_observations,
    )
    compiled = lambda function: tf.function(function, autograph=False, jit_compile=jit_compile)
    improve, seeds = compiled(run.improve), keras.random.SeedGenerator(seed)
    action_size = policy_action_size(learner.model)
    sampler = Sampler(run.predict, simulator, horizon, action_size, compiled)
    measuring = None
    if evaluation_simulator is not None:
        first = {name: values[:, :1] for name, values in tasks.items()}
        measuring = Sampler(run.predict, evaluation_simulator, horizon, action_size, compiled), first

    def update(state, trajectory):
        orders = tf.argsort(keras.random.uniform((epochs, num_tasks, num_steps), seed=seeds))
        return improve(state, trajectory, _slices(orders, batch_size))

    start = run.start(num_tasks, None if parameters is None else learner.copies(parameters, num_tasks))
    result = adapt_on_policy(
        sampler, tasks, start, lambda state: state, update, updates, seeds, deterministic, measuring
    )
    return result._replace(parameters=result.parameters.policy.parameters)


class _Statistics(NamedTuple):
    """Running moments of the observations of each task: `[N, 1, 1, O]` and their number `[N, 1, 1, 1]`."""

    mean: tf.Tensor
    variance: tf.Tensor
    number: tf.Tensor


class _State(NamedTuple):
    policy: LearnerState
    value: LearnerState
    statistics: _Statistics


class _PPO(NamedTuple):
    """The learning of `ppo`: pure functions of its state."""

    policy: InnerLoop
    value: InnerLoop
    discount: float
    gae_lambda: float
    bootstrap: bool
    normalize: bool

    def start(self, num_tasks, parameters):
        shape = (num_tasks, 1, 1, self.policy.learner.model.input_shape[-1])
        statistics = _Statistics(tf.zeros(shape), tf.ones(shape), tf.zeros((num_tasks, 1, 1, 1)))
        return _State(self.policy.start(num_tasks, parameters), self.value.start(num_tasks), statistics)

    def predict(self, state, observations):
        return _by_examples(self.policy, state.policy, self.normalized(state, observations))

    def normalized(self, state, observations):
        if not self.normalize:
            return observations
        mean, variance, _ = state.statistics
        if observations.shape.rank == 3:  # of one point in time
            mean, variance = mean[:, 0], variance[:, 0]
        scaled = (observations - mean) * tf.math.rsqrt(variance + 1e-8)
        return tf.clip_by_value(scaled, -MAX_NORMALIZED, MAX_NORMALIZED)

    def improve(self, state, trajectory, batches):
        """The update: mini-batches `[number of steps, N, batch_size]` of indices, one step with each."""
        examples = self.examples(state, trajectory)

        def body(i, policy, value):
            x, scored, targets, mask = (tf.gather(values, batches[i], batch_dims=1) for values in examples)
            policy = self.policy.step(policy, lambda _: (x, scored, mask))
            return i + 1, policy, self.value.step(value, lambda _: (x, targets, mask))

        number = batches.shape[0]
        loop = (0, state.policy, state.value)
        _, policy, value = tf.while_loop(lambda i, *_: i < number, body, loop, maximum_iterations=number)
        return _State(policy, value, _with_more(state.statistics, trajectory))

    def examples(self, state, trajectory):
        """Observations, what `ClippedObjective` looks at, targets of the value, mask: each `[N, E * T, ...]`."""
        observations, mask = self.normalized(state, trajectory.observations), trajectory.mask
        values = _by_examples(self.value, state.value, observations)[..., 0]
        if not self.bootstrap:
            values = tf.concat([values[..., :-1], tf.zeros_like(values[..., -1:])], -1)
        advantages = generalized_advantages(trajectory.rewards, values, self.discount, self.gae_lambda, mask)
        log_prob = gaussian_log_prob(
            _by_examples(self.policy, state.policy, observations[..., :-1, :]), trajectory.actions
        )
        numbers = tf.stack([log_prob, normalized(advantages, mask), advantages + values[..., :-1]], -1)
        lived = trajectory._replace(observations=observations)
        x, y, mask = learning_batch(lived, lambda lived: tf.concat([lived.actions, numbers], -1))
        return x, y[..., :-1], y[..., -1:], mask


def _check_passes(batch_size, epochs, num_steps):
    if not 1 <= batch_size <= num_steps or epochs < 1:
        raise ValueError(
            f"Expected 1 <= `batch_size` <= {num_steps}, the number of time steps of a task, and `epochs` >= 1. "
            f"Received: batch_size={batch_size}, epochs={epochs}"
        )


def _build_value(num_observed):
    return keras.Sequential(
        [
            keras.Input((num_observed,)),
            keras.layers.Dense(64, "tanh"),
            keras.layers.Dense(64, "tanh"),
            keras.layers.Dense(1),
        ]
    )


def _by_examples(loop, tasks, inputs):
    """Predictions for `[N, ..., O]`."""
    flat = tf.reshape(inputs, [inputs.shape[0], -1, inputs.shape[-1]])
    outputs = loop.predict(tasks.parameters, flat)
    return tf.reshape(outputs, [*inputs.shape[:-1], outputs.shape[-1]])


def _slices(orders, batch_size):
    """`[epochs, N, B] -> [epochs * (B // batch_size), N, batch_size]`."""
    epochs, num_tasks, num_steps = orders.shape
    number = num_steps // batch_size
    parts = tf.reshape(orders[..., : number * batch_size], [epochs, num_tasks, number, batch_size])
    return tf.reshape(tf.transpose(parts, [0, 2, 1, 3]), [epochs * number, num_tasks, batch_size])


def _with_more(statistics, trajectory):
    """The moments after more observations; Chan et al. 1979, eq. 2.1."""
    mask = trajectory.mask[..., tf.newaxis]
    number = tf.reduce_sum(mask, [1, 2], keepdims=True)
    observations = trajectory.observations[..., :-1, :]
    mean = tf.reduce_sum(mask * observations, [1, 2], keepdims=True) / number
    squares = tf.reduce_sum(mask * tf.square(observations - mean), [1, 2], keepdims=True)
    total, difference = statistics.number + number, mean - statistics.mean
    squares += statistics.variance * statistics.number + difference**2 * statistics.number * number / total
    return _Statistics(statistics.mean + difference * number / total, squares / total, total)
