"""The inputs of a learned loss of policies, and the examples that policies learn from.

Shape letters: N tasks, E episodes of a task, T time, O observation, A action, G goal; `...` any leading axes.
"""

import dataclasses
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from ml3_tf.arguments import LossInputs, check_counts
from ml3_tf.rl.returns import discounted_sums, normalize
from ml3_tf.rl.rollouts import Trajectory, concat_goal

Examples = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


def observation_and_goal(trajectory: Trajectory) -> tf.Tensor:
    """Returns the observation that each action was taken in, and the goal, side by side.

    A function for `LossInputs`, with features such as `{"action": A, "observation": O, "goal": G}`.

    Args:
        trajectory: `Trajectory`.

    Returns:
        `[..., T, O + G]`.
    """
    return concat_goal(trajectory)


def observation_and_action(trajectory: Trajectory) -> tf.Tensor:
    """Returns observation and action side by side, for the loss of a stochastic policy.

    A function for `LossInputs`, with features such as `{"mean_and_std": 2A, "observation": O, "action": A}`, or, for a
    `CategoricalPolicy`, `{"log_probabilities": A, "observation": O, "action": A}`. The goal must be part of the
    observation; where it is not, concatenate it by `observation_and_goal`.

    Args:
        trajectory: `Trajectory`.

    Returns:
        `[..., T, O + A]`.

    Example:

    >>> episode = Trajectory(tf.zeros((6, 3)), tf.ones((5, 2)), tf.zeros(5), tf.zeros(0), tf.ones(5))
    >>> observation_and_action(episode).numpy()[0].tolist()
    [0.0, 0.0, 0.0, 1.0, 1.0]
    """
    return tf.concat([trajectory.observations[..., :-1, :], trajectory.actions], -1)


def with_return(inputs: LossInputs, *, discount: float) -> LossInputs:
    """Adds the feature `{"return": 1}`: the reward-to-go, normalized over all times and episodes of the task.

    Args:
        inputs: `LossInputs` of the other features.
        discount: gamma, between 0 and 1.

    Returns:
        `LossInputs` of trajectories `[N, E, ...]`, without a name.
    """

    def to_go(trajectory: Trajectory) -> tf.Tensor:
        returns = discounted_sums(trajectory.rewards * trajectory.mask, discount)
        return normalize(returns, trajectory.mask)[..., tf.newaxis]

    return _extended(inputs, "return", to_go, (1.0,))


def with_reward_changes(inputs: LossInputs, *, scale: tuple[float, float] = (1.0, 1.0)) -> LossInputs:
    """Adds the feature `{"reward_changes": 2}`, by which a loss can notice that its actions do not serve.

    The columns are the first and the second difference of the reward: `r_t - r_{t-1}`, and how that changed since the
    action before. Where the reward is a distance and actions are forces, they are a speed and an acceleration, and an
    action moves the second at once: it tells whether a motor turns the other way round. Returns and advantages tell the
    same, but with the noise of all later actions. Before the second and the third action a difference is 0.

    Args:
        inputs: `LossInputs` of the other features.
        scale: Divisors of the two columns, in the unit of the reward.

    Returns:
        `LossInputs` of trajectories `[N, E, ...]`, without a name.

    Example:

    >>> rewards = tf.constant([[[-3.0, -2.0, -2.0]]])
    >>> trajectory = Trajectory(
    ...     tf.zeros((1, 1, 4, 1)), tf.zeros((1, 1, 3, 1)), rewards, tf.zeros(0), tf.ones((1, 1, 3))
    ... )
    >>> inputs = LossInputs(observation_and_action, {"mean_and_std": 2, "observation": 1, "action": 1})
    >>> with_reward_changes(inputs)(trajectory).numpy()[0, 0, :, -2:].tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, -1.0]]
    """

    def changes(trajectory: Trajectory) -> tf.Tensor:
        change = lambda values: tf.concat([tf.zeros_like(values[..., :1]), values[..., 1:] - values[..., :-1]], -1)
        first = change(trajectory.rewards)
        known = tf.range(first.shape[-1]) > 1  # the second difference is known from the third action on
        return tf.stack([first, tf.where(known, change(first), 0.0)], -1) * trajectory.mask[..., tf.newaxis]

    return _extended(inputs, "reward_changes", changes, scale)


def with_response(
    inputs: LossInputs,
    motion: Callable[[Trajectory], tf.Tensor],
    *,
    scale: Sequence[float],
    limit: float = float("inf"),
    window: int = 1,
) -> LossInputs:
    """Adds the feature `{"response": A}`, by which a loss can notice how strongly its actions move the robot.

    A column is the slope of the line through zero that tells what an action did from the action: the best one, in least
    squares, over all times and episodes of the task. If `motion` returns the force of each motor, as the motion shows
    it, the slope is the gain of the motor: 1 for a usual one, 0.5 for a weak one, negative where it turns the other way
    round. All time steps of a column agree, so it is far less noisy than what followed a single action. It needs no
    reward.

    Args:
        inputs: `LossInputs` of the other features.
        motion: Function of a trajectory that returns what followed each action, `[..., T, A]`, a column for each: a
            force, an acceleration, or the change of a velocity.
        scale: A divisor for each of the A columns, e.g. the usual slope.
        limit: Largest action; the robot takes larger ones as this. Default: infinity.
        window: Number of steps over which motion and action are averaged, twice, before they are compared. A sensor's
            error makes the second difference of positions jump from step to step, which averages out. Episodes of less
            than twice as many steps take a smaller window. Default: 1, as they are.

    Returns:
        `LossInputs` of trajectories `[N, E, ...]`, without a name.

    Raises:
        ValueError: `window` is not a positive integer; or, for a trajectory, `motion` returns another shape than that
            of its actions.

    Example:

    >>> actions = tf.constant([[[[1.0], [-0.5], [2.0]]]])
    >>> trajectory = Trajectory(
    ...     tf.zeros((1, 1, 4, 1)), actions, tf.zeros((1, 1, 3)), tf.zeros((1, 1, 0)), tf.ones((1, 1, 3))
    ... )
    >>> inputs = LossInputs(observation_and_action, {"mean_and_std": 2, "observation": 1, "action": 1})
    >>> weak_and_reversed = lambda trajectory: -0.5 * trajectory.actions
    >>> with_response(inputs, weak_and_reversed, scale=[1.0])(trajectory).numpy()[0, 0, :, -1].tolist()
    [-0.5, -0.5, -0.5]
    """
    check_counts(window=window)

    def slopes(trajectory: Trajectory) -> tf.Tensor:
        mask, followed = trajectory.mask[..., tf.newaxis], motion(trajectory)
        if not tf.TensorShape(followed.shape).is_compatible_with(trajectory.actions.shape):  # a graph may know less
            raise ValueError(
                f"`motion` must return a value for each action, {trajectory.actions.shape}. Received: {followed.shape}"
            )
        actions = _smooth(mask * tf.clip_by_value(trajectory.actions, -limit, limit), window)
        moved = _smooth(mask * followed, window)
        total = lambda values: tf.reduce_sum(values, (-3, -2), keepdims=True)  # over episodes and times
        return mask * tf.math.divide_no_nan(total(actions * moved), total(tf.square(actions)))

    return _extended(inputs, "response", slopes, scale)


def learning_batch(trajectory: Trajectory, loss_inputs: Callable[[Trajectory], tf.Tensor]) -> Examples:
    """Turns time steps into the examples of `train_on_batch` or of an `InnerLoop`.

    Args:
        trajectory: `Trajectory`, `[N, ..., T, ...]`.
        loss_inputs: `LossInputs`, or another function of a trajectory that returns `[..., T, width]`.

    Returns:
        `(x, y, sample_weight)`: observations, inputs of the loss and mask, each `[N, examples, ...]`.

    Example:

    >>> import ml3_tf.rl
    >>> fall = lambda states, actions: states + 0.1 * actions
    >>> trajectory = ml3_tf.rl.rollout_model(lambda states: -states, fall, tf.ones((3, 4, 2)), horizon=5)
    >>> [tuple(part.shape) for part in learning_batch(trajectory, observation_and_goal)]
    [(3, 20, 2), (3, 20, 2), (3, 20)]
    """
    trajectory = Trajectory(*map(tf.convert_to_tensor, trajectory))
    examples = [trajectory.observations[..., :-1, :], loss_inputs(trajectory), trajectory.mask[..., tf.newaxis]]
    x, y, mask = (tf.reshape(part, [part.shape[0], -1, part.shape[-1]]) for part in examples)
    return x, y, mask[..., 0]


def mini_batches(
    trajectory: Trajectory,
    loss_inputs: Callable[[Trajectory], tf.Tensor],
    *,
    batch_size: int | None,
    seeds: keras.random.SeedGenerator,
) -> list[Examples]:
    """Splits time steps into mini-batches: one epoch of `policy.fit(x, y, sample_weight, batch_size)`.

    Args:
        trajectory: `Trajectory` `[N, E, ...]`.
        loss_inputs: As in `learning_batch`.
        batch_size: Number of time steps of a task in a mini-batch; a smaller rest is left out. `None`: all in one.
        seeds: `SeedGenerator` that shuffles the time steps of each task.

    Returns:
        List of `(x, y, sample_weight)`, each `[N, batch_size, ...]`.

    Raises:
        ValueError: `batch_size` is larger than the number of time steps.
    """
    examples = learning_batch(trajectory, loss_inputs)
    num_tasks, num_examples = examples[2].shape
    if batch_size is None:
        return [examples]
    if not 1 <= batch_size <= num_examples:
        raise ValueError(
            f"`batch_size` must lie between 1 and the number of time steps of a task, {num_examples}. Received: "
            f"batch_size={batch_size}"
        )
    order = tf.argsort(keras.random.uniform((num_tasks, num_examples), seed=seeds))
    parts = [order[:, i : i + batch_size] for i in range(0, num_examples - batch_size + 1, batch_size)]
    return [tuple(tf.gather(values, part, batch_dims=1) for values in examples) for part in parts]


def _extended(
    inputs: LossInputs, name: str, function: Callable[[Trajectory], tf.Tensor], scale: Sequence[float]
) -> LossInputs:
    """`inputs` with one more feature, whose columns are divided by `scale`."""
    old_scale = [1.0] * sum(inputs.features.values()) if inputs.scale is None else inputs.scale
    return dataclasses.replace(
        inputs,
        function=lambda trajectory: tf.concat([inputs(trajectory), function(trajectory)], -1),
        features={**inputs.features, name: len(scale)},
        scale=None if inputs.scale is None and set(scale) == {1.0} else [*old_scale, *scale],
        name=None,
    )


def _smooth(values: tf.Tensor, window: int) -> tf.Tensor:
    """Means over `window` steps of means over `window` steps, `[..., T, A] -> [..., T - 2 (window - 1), A]`."""
    window = min(window, (values.shape[-2] + 1) // 2)
    for _ in range(2):
        values = tf.reduce_mean(tf.signal.frame(values, window, 1, axis=-2), axis=-2)
    return values
