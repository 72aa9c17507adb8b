"""Trajectories of a policy, in a differentiable model and in real environments.

Shape letters: `...` the leading axes of the initial states (tasks, episodes), N environments, T time, S state,
O observation, A action, G goal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from ml3_tf.arguments import Batch, TensorLike, check_counts
from ml3_tf.learner import scan
from ml3_tf.rl.action_distributions import ActionDistribution
from ml3_tf.rl.checked_env import CheckedEnv, RolloutError
from ml3_tf.rl.env_spaces import as_actions, env_name, vector_lines
from ml3_tf.rl.worker_processes import close_failed, watch_workers, worker_failure

if TYPE_CHECKING:
    import gymnasium


class Trajectory(NamedTuple):
    """Observations, actions and rewards of episodes of one length: tensors, or arrays from real environments.

    Attributes:
        observations: `[..., T + 1, O]`, from the first to the last.
        actions: `[..., T, A]`, the actions as the policy gave them; discrete ones are one-hot.
        rewards: `[..., T]`, of each transition; zeros if there is no reward.
        goal: `[..., G]`; of width 0 if there is none.
        mask: `[..., T]`, 1 for a transition that happened. After the end of an episode it is 0, and the last
            observation is repeated.

    Example:

    >>> stay = lambda states, actions: states
    >>> rollout_model(lambda states: 0 * states, stay, tf.ones((3, 2)), horizon=4).rewards.shape
    TensorShape([3, 4])
    """

    observations: tf.Tensor
    actions: tf.Tensor
    rewards: tf.Tensor
    goal: tf.Tensor
    mask: tf.Tensor


def rollout_model(
    policy: Callable[[Any], Any],
    dynamics: Callable[[Any, Any], Any],
    initial_states: TensorLike,
    *,
    horizon: int,
    goal: TensorLike | None = None,
    reward: Callable[[Any, Any, Any], Any] | None = None,
    weights: Sequence[tf.Tensor] = (),
) -> Trajectory:
    """Rolls a policy out in a model of the dynamics; gradients of any order flow through all of it.

    `s_{t+1} = dynamics(s_t, policy(s_t))`. The policy observes the state. The loop over time is a `tf.while_loop`:
    neither the graph nor the time to compile it grows with the horizon.

    Args:
        policy: Function of states `[..., S]` that returns actions `[..., A]`.
        dynamics: Function of states and actions that returns the next states `[..., S]`.
        initial_states: `[..., S]`.
        horizon: T, the number of steps.
        goal: Optional, `[..., G]`, for the trajectory and for `reward`.
        reward: Optional function of the next states `[..., T, S]`, the actions `[..., T, A]` and the goal
            `[..., 1, G]` that returns the rewards `[..., T]`.
        weights: Tensors that the policy depends on. With them the gradient is a sweep back over time, see `scan`: it
            compiles sooner, and XLA keeps no more than the states. It then flows to the initial states, to these
            tensors and to variables, and to no other tensor that policy or dynamics hold.

    Returns:
        A `Trajectory` of tensors; its observations are the states.

    Raises:
        ValueError: A horizon below 1, a policy that does not take the states, or dynamics that change the shape of a
            state.

    Example:

    >>> fall = lambda states, actions: states + 0.1 * actions
    >>> trajectory = rollout_model(lambda states: -states, fall, tf.ones((3, 2)), horizon=20)
    >>> tuple(trajectory.observations.shape), tuple(trajectory.actions.shape)
    ((3, 21, 2), (3, 20, 2))
    """
    check_counts(horizon=horizon)
    start: Any = tf.convert_to_tensor(initial_states)

    def step(carry: list[tf.Tensor], _: list[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        action = _act(policy, carry[0])
        states = _next_states(dynamics, carry[0], action)
        return [states], [states, action]

    last, first = step([start], [])  # it tells the loop the shape of an action
    states, actions = (values[tf.newaxis] for values in first)
    if horizon > 1:
        specs = [tf.TensorSpec(values.shape, values.dtype) for values in first]
        _, looped = scan(step, last, [], outputs=specs, length=horizon - 1, sources=list(weights) or None)
        states, actions = (tf.concat(pair, 0) for pair in zip((states, actions), looped))
    states, actions = _time_second_last(tf.concat([start[tf.newaxis], states], 0)), _time_second_last(actions)
    goals: Any = tf.zeros([*start.shape[:-1], 0], states.dtype) if goal is None else tf.convert_to_tensor(goal)
    shape = [*start.shape[:-1], horizon]
    rewards = tf.zeros(shape, states.dtype)
    if reward is not None:
        rewards = reward(states[..., 1:, :], actions, goals[..., tf.newaxis, :])
    return Trajectory(states, actions, rewards, goals, tf.ones(shape, states.dtype))


def rollout_env(
    policy: Callable[[Any], Any],
    env: gymnasium.vector.VectorEnv,
    *,
    horizon: int,
    seed: int | Sequence[int] | None = None,
    options: dict[str, Any] | None = None,
) -> Trajectory:
    """Rolls a policy out in a real environment: one episode in each environment of a gymnasium vector.

    An episode that ends before the horizon keeps its last observation, and its mask is 0 from then on. The vector
    starts the next episode by itself; nothing of it gets into the trajectory.

    Args:
        policy: Function of observations `[N, O]` that returns actions `[N, A]`, e.g. a Keras model. Discrete actions
            are one-hot `[N, A]`, e.g. from `CategoricalPolicy.mode`, or integers `[N]`.
        env: `gymnasium.vector.VectorEnv` of N environments.
        horizon: T, the number of steps.
        seed: Seed for `env.reset`, or one for each environment. `None`: they go on with their random streams.
        options: Options for `env.reset`.

    Returns:
        A `Trajectory` of float32 arrays `[N, ...]`; its goal is `info["goal"]` of the reset, if there is one.

    Raises:
        ValueError: A horizon below 1, an environment that is not a vector or that starts the next episode within a
            step, observations that the policy does not take, or actions that the environment does not take.
        RolloutError: The simulation or the policy diverged; or the environment broke, and has been closed.

    Example:

    >>> import gymnasium, ml3_tf.envs
    >>> env = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=3, vectorization_mode="sync")
    >>> trajectory = rollout_env(lambda states: 0.2 * np.sign(states[:, 1:]), env, horizon=35)
    >>> trajectory.observations.shape, trajectory.goal.shape
    ((3, 36, 2), (3, 2))
    """
    check_counts(horizon=horizon)
    checked = CheckedEnv(env, seed)
    first, goal = checked.reset(options)
    observations, actions, rewards, masks = [first], [], [], []
    for _ in range(horizon):
        action = as_actions(_act(policy, observations[-1]), env)
        masks.append(checked.alive)
        received, reward = checked.step(action)
        observations.append(received)
        actions.append(action)
        rewards.append(reward)
    stacked = [np.stack(values, axis=1) for values in (observations, actions, rewards)]
    arrays: list[Any] = [values.astype(np.float32) for values in (*stacked, goal, np.stack(masks, axis=1))]
    return Trajectory(*arrays)


def rollout_tasks(
    policy: Callable[[Any], Any],
    env: gymnasium.vector.VectorEnv,
    *,
    tasks: Batch,
    noise: tf.Tensor,
    distribution: ActionDistribution,
) -> Trajectory:
    """Rolls stochastic policies out in real environments, one for each episode of each task.

    Args:
        policy: Function of observations `[N, E, O]` that returns the outputs of the policies, `[N, E, P]`.
        env: `gymnasium.vector.VectorEnv` of N x E environments, see `Sampler`.
        tasks: As `as_tasks` returns them.
        noise: `[N, E, T, A]`, as `distribution` draws it; zeros for the most likely actions.
        distribution: `ActionDistribution` of the policies.

    Returns:
        `Trajectory` `[N, E, ...]`.

    Raises:
        ValueError: Environments that do not fit the tasks or the policy, or that do not take their tasks.
        RolloutError: See `rollout_env`.
    """
    *axes, horizon, action_size = noise.shape
    set_tasks(env, tasks)
    noise_of_step = iter(tf.unstack(noise, axis=2))

    def act(observations: Any) -> tf.Tensor:
        outputs = policy(tf.reshape(observations, [*axes, observations.shape[-1]]))
        return tf.reshape(distribution.sample(outputs, next(noise_of_step)), [-1, action_size])

    seeds = np.ravel(tasks["seed"]).tolist() if "seed" in tasks else None
    flat = rollout_env(act, env, horizon=horizon, seed=seeds)
    trajectory = Trajectory(*(tf.reshape(values, [*axes, *values.shape[1:]]) for values in flat))
    goal = tf.cast(tasks["goal"], tf.float32)
    if not goal.shape[-1]:
        return trajectory
    if trajectory.goal.shape[-1] and not np.allclose(trajectory.goal, goal, rtol=1e-4, atol=1e-5):
        raise ValueError(
            "The environments did not take their tasks: `info['goal']` differs from the goal given. Each must take its "
            "initial state and goal from its attribute `task` at `reset`, as those of `ml3_tf.envs` do."
        )
    return trajectory._replace(goal=goal)


def concat_goal(trajectory: Trajectory) -> tf.Tensor:
    """Returns the observation before each action and the goal, side by side: `[..., T, O + G]`."""
    observations = trajectory.observations[..., :-1, :]
    shape = [*observations.shape[:-1], trajectory.goal.shape[-1]]
    goal = tf.broadcast_to(trajectory.goal[..., tf.newaxis, :], shape)
    return tf.concat([observations, goal], -1)


def _time_second_last(values: tf.Tensor) -> tf.Tensor:
    """Transposes `[T, ..., W] -> [..., T, W]`."""
    rank = values.shape.rank
    return tf.transpose(values, [*range(1, rank - 1), 0, rank - 1])


def _act(policy: Callable[[Any], Any], observations: Any) -> Any:
    try:
        return policy(observations)
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            f"`policy` does not take observations of shape {tuple(observations.shape)}. Build it for observations of "
            f"width {observations.shape[-1]}, those of this environment or model. Its error: {error}"
        ) from error


def _next_states(dynamics: Callable[[Any, Any], Any], states: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    following = dynamics(states, actions)
    if following.shape != states.shape:
        raise ValueError(
            f"`dynamics` must return next states of the states' shape, {tuple(states.shape)}. Received: shape "
            f"{tuple(following.shape)} for actions of shape {tuple(actions.shape)}."
        )
    return following


def set_tasks(env: Any, tasks: Batch) -> None:
    """Gives each environment its task, as its attribute `task`; what the tasks leave out, the environments choose.

    Args:
        env: `gymnasium.vector.VectorEnv` of N x E environments.
        tasks: As `as_tasks` returns them.

    Raises:
        ValueError: Another number of environments, or environments without the attribute.
        RolloutError: A worker of an `AsyncVectorEnv` raised or died.
    """
    number = int(np.prod(tasks["state"].shape[:2]))
    if env.num_envs != number:
        raise ValueError(
            f"`simulator` must have an environment for each episode of each task, {number}. "
            f"Received: num_envs={env.num_envs}"
        )
    given = {name: np.asarray(tasks[name]) for name in ("state", "goal") if tasks[name].shape[-1]}
    named = {name: values.reshape(number, -1) for name, values in given.items()}
    if not named:
        return
    vector: Any = env.unwrapped  # wrappers of a vector do not pass on its attributes
    watch_workers(env)
    try:
        vector.get_attr("task")
        vector.set_attr("task", [{name: values[n] for name, values in named.items()} for n in range(number)])
    except Exception as error:
        if failure := worker_failure(env, error):
            close_failed(env)
        if isinstance(error, AttributeError):
            raise ValueError(
                "Each environment must take its task from its attribute `task` at `reset`, a dictionary of "
                f"{sorted(named)}, as those of `ml3_tf.envs` do. Received: {env_name(env)}, without it. Use seeds as "
                "tasks, by which an environment chooses its start:\n    tasks = {'seed': np.arange(N * E).reshape(N, "
                "E)}\nOr wrap each environment in a `gymnasium.Wrapper` with that attribute. "
                f"{vector_lines(env, 'YourWrapper({0})')}"
            ) from error
        if not failure:
            raise
        raise RolloutError(f"{env_name(env)}: taking a task {failure}. The environment has been closed.") from error
