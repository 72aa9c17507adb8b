"""What policies learn from: experience as the examples of a loss.

Shape letters: N tasks, E episodes of a task, T time, O observation, S state, A action, G goal;
`...` any leading axes.
"""

import keras
import tensorflow as tf

from ml3_tf.rl.returns import discounted_sums, normalized
from ml3_tf.rl.rollouts import Trajectory


def state_and_goal(trajectory):
    """What a learned loss sees beside each action, by default: the state it was taken in, and the goal.

    Its features are `{"action": A, "state": S, "goal": G}`.

    Args:
        trajectory: `Trajectory`.

    Returns:
        `[..., T, S + G]`.
    """
    states = trajectory.observations[..., :-1, :]
    goal = tf.broadcast_to(trajectory.goal[..., tf.newaxis, :], [*states.shape[:-1], trajectory.goal.shape[-1]])
    return tf.concat([states, goal], -1)


def state_and_action(trajectory):
    """What a learned loss sees beside mean and standard deviation, by default: observation and action.

    Its features are `{"mean_and_std": 2A, "state": O, "action": A}`. The goal has to be among the observations; where
    it is not, take `tf.concat([state_and_goal(trajectory), trajectory.actions], -1)`.

    Args:
        trajectory: `Trajectory`.

    Returns:
        `[..., T, O + A]`.

    Example:

    >>> from ml3_tf.rl.rollouts import Trajectory
    >>> episode = Trajectory(tf.zeros((6, 3)), tf.ones((5, 2)), tf.zeros(5), tf.zeros(0), tf.ones(5))
    >>> state_and_action(episode).numpy()[0].tolist()
    [0.0, 0.0, 0.0, 1.0, 1.0]
    """
    return tf.concat([trajectory.observations[..., :-1, :], trajectory.actions], -1)


def state_action_and_return(discount):
    """The same with how well it went: a loss that sees rewards can notice that its habits do not serve.

    Its features are `{"mean_and_std": 2A, "state": O, "action": A, "return": 1}`. The return is the reward-to-go from
    each time on, `normalized` over all times and episodes of the task.

    Args:
        discount: gamma, between 0 and 1.

    Returns:
        Function of a `Trajectory` `[N, E, ...]` that returns `[N, E, T, O + A + 1]`.
    """

    def inputs(trajectory):
        to_go = discounted_sums(trajectory.rewards * trajectory.mask, discount)
        return tf.concat([state_and_action(trajectory), normalized(to_go, trajectory.mask)[..., tf.newaxis]], -1)

    return inputs


def with_reward_changes(inputs):
    """Adds the feature `{"reward_changes": 2}`: a loss's view of the rewards, by which it can notice what actions do.

    The first column is `r_t - r_{t - 1}`, how the reward rose with the action, the second how that itself changed since
    the action before. Where the reward is a distance and actions are forces, that is a speed and an acceleration, and
    the second is the one that an action moves at once: from it a loss tells whether a motor turns the other way round.
    Returns and advantages say the same, but with the noise of all that follows. Nothing is scaled: see `input_scale`
    of `MetaLoss.mlp`. Where rewards are lacking, for the first action and the first two, a change is 0.

    Args:
        inputs: Function of a `Trajectory` that returns the other features, `[N, E, T, width]`.

    Returns:
        Function of a `Trajectory` `[N, E, ...]` that returns `[N, E, T, width + 2]`.

    Example:

    >>> from ml3_tf.rl.rollouts import Trajectory
    >>> rewards = tf.constant([[[-3.0, -2.0, -2.0]]])
    >>> trajectory = Trajectory(
    ...     tf.zeros((1, 1, 4, 1)), tf.zeros((1, 1, 3, 1)), rewards, tf.zeros(0), tf.ones((1, 1, 3))
    ... )
    >>> with_reward_changes(state_and_action)(trajectory).numpy()[0, 0, :, -2:].tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, -1.0]]
    """

    def extended(trajectory):
        change = lambda values: tf.concat([tf.zeros_like(values[..., :1]), values[..., 1:] - values[..., :-1]], -1)
        rises = change(trajectory.rewards)
        known = tf.range(rises.shape[-1]) > 1  # the second is known from the third action on
        changes = tf.stack([rises, tf.where(known, change(rises), 0.0)], -1)
        changes *= trajectory.mask[..., tf.newaxis]
        return tf.concat([inputs(trajectory), changes], -1)

    return extended


def learning_batch(trajectory, loss_inputs=state_and_goal):
    """What a policy learns from, for `train_on_batch` or an `InnerLoop`: time steps become examples.

    Args:
        trajectory: `Trajectory`, `[N, ..., T, ...]`.
        loss_inputs: Function of the trajectory that returns what the loss sees beside each action, `[..., T, width]`.

    Returns:
        `(x, y, sample_weight)`: states, inputs of the loss and mask, each `[N, examples, ...]`.

    Example:

    >>> import ml3_tf.rl.rollouts
    >>> fall = lambda states, actions: states + 0.1 * actions
    >>> trajectory = ml3_tf.rl.rollouts.rollout_model(lambda states: -states, fall, tf.ones((3, 4, 2)), horizon=5)
    >>> [tuple(part.shape) for part in learning_batch(trajectory)]
    [(3, 20, 2), (3, 20, 2), (3, 20)]
    """
    trajectory = Trajectory(*map(tf.convert_to_tensor, trajectory))
    examples = [trajectory.observations[..., :-1, :], loss_inputs(trajectory), trajectory.mask[..., tf.newaxis]]
    x, y, mask = (tf.reshape(part, [part.shape[0], -1, part.shape[-1]]) for part in examples)
    return x, y, mask[..., 0]


def mini_batches(trajectory, loss_inputs, batch_size, seeds):
    """What policies learn from: one epoch of `policy.fit(x, y, sample_weight, batch_size)`.

    Args:
        trajectory: `Trajectory` `[N, E, ...]`.
        loss_inputs: Function of a trajectory that returns what the loss sees beside the policy's outputs.
        batch_size: Number of time steps in each; what is left over is left out. `None`: all in one.
        seeds: `SeedGenerator` that shuffles the time steps of each task.

    Returns:
        List of `(x, y, sample_weight)`, each `[N, batch_size, ...]`.

    Raises:
        ValueError: More time steps in a batch than there are.
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
