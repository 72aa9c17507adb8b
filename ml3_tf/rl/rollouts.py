"""Trajectories of a policy, in a differentiable model and in real environments.

Shape letters: `...` the leading axes of the initial states (tasks, episodes), N environments, T time, S state,
O observation, A action, G goal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from ml3_tf.arguments import TensorLike, check_counts
from ml3_tf.learner import scan

if TYPE_CHECKING:
    import gymnasium


class Trajectory(NamedTuple):
    """Observations, actions and rewards of episodes of one length: tensors, or arrays from real environments.

    Attributes:
        observations: `[..., T + 1, O]`, from the first to the last.
        actions: `[..., T, A]`, the actions as the policy gave them.
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
    seed: int | None = None,
    options: dict[str, Any] | None = None,
) -> Trajectory:
    """Rolls a policy out in a real environment: one episode in each environment of a gymnasium vector.

    An episode that ends before the horizon keeps its last observation, and its mask is 0 from then on. The vector
    starts the next episode by itself; nothing of it gets into the trajectory.

    Args:
        policy: Function of observations `[N, O]` that returns actions `[N, A]`, e.g. a Keras model.
        env: `gymnasium.vector.VectorEnv` of N environments.
        horizon: T, the number of steps.
        seed: Seed for `env.reset`. `None`: the environments go on with their random streams.
        options: Options for `env.reset`.

    Returns:
        A `Trajectory` of float32 arrays `[N, ...]`; its goal is `info["goal"]` of the reset, if there is one.

    Raises:
        ValueError: A horizon below 1, an environment that is not a vector or that starts the next episode within a
            step, observations that the policy does not take, or actions that the environment does not take.
        FloatingPointError: An observation is not finite: the simulator diverged.

    Example:

    >>> import gymnasium, ml3_tf.envs
    >>> env = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=3, vectorization_mode="sync")
    >>> trajectory = rollout_env(lambda states: 0.2 * np.sign(states[:, 1:]), env, horizon=35)
    >>> trajectory.observations.shape, trajectory.goal.shape
    ((3, 36, 2), (3, 2))
    """
    check_counts(horizon=horizon)
    _check_env(env)
    first, info = env.reset(seed=seed, options=options)
    observations, actions, rewards, masks = [_checked_observations(first, env)], [], [], []
    alive = np.ones(env.num_envs, bool)
    for step in range(horizon):
        action = np.asarray(_act(policy, observations[-1]))
        _check_action(action, env)
        received, reward, terminated, truncated, _ = env.step(action)
        received = np.where(alive[:, np.newaxis], _checked_observations(received, env), observations[-1])
        _check_finite(received, step + 1)
        observations.append(received)
        actions.append(action)
        rewards.append(np.where(alive, reward, 0))
        masks.append(alive)
        alive = alive & ~(terminated | truncated)
    goal = np.asarray(info.get("goal", np.zeros((env.num_envs, 0))))
    stacked = [np.stack(values, axis=1) for values in (observations, actions, rewards)]
    arrays: list[Any] = [values.astype(np.float32) for values in (*stacked, goal, np.stack(masks, axis=1))]
    return Trajectory(*arrays)


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


def _check_env(env: Any) -> None:
    if not hasattr(env, "num_envs"):
        raise ValueError(
            f"`env` must be a vector of environments, `gymnasium.make_vec(name, num_envs=...)`. Received: {env}"
        )
    mode = env.metadata.get("autoreset_mode")
    if getattr(mode, "name", None) == "SAME_STEP":
        raise ValueError(
            "`env` must not start the next episode within the step that ends one: it hides the last observation. "
            f"Received: autoreset_mode={mode}. Make it with `AutoresetMode.NEXT_STEP`, the default of gymnasium."
        )
    shape = env.single_observation_space.shape
    if shape is None or len(shape) != 1:
        raise ValueError(f"`env` must have observations that are vectors. Received: {env.single_observation_space}")


def _check_finite(observations: np.ndarray, num_steps: int) -> None:
    is_finite = np.isfinite(observations).all(axis=1)
    if not is_finite.all():
        raise FloatingPointError(
            "The simulator diverged: the observations of environment(s) "
            f"{np.flatnonzero(~is_finite).tolist()} are not finite after step {num_steps}. Nothing was learned from "
            "them. Bound the actions, or shorten the time step of the simulation."
        )


def _checked_observations(observations: Any, env: Any) -> np.ndarray:
    observations, expected = np.asarray(observations, np.float32), (env.num_envs, *env.single_observation_space.shape)
    if observations.shape != expected:
        raise ValueError(
            f"`env` must return observations of the shape of its `observation_space`, {expected}. Received: shape "
            f"{observations.shape}"
        )
    return observations


def _check_action(action: np.ndarray, env: Any) -> None:
    expected = (env.num_envs, *env.single_action_space.shape)
    if action.shape != expected:
        raise ValueError(
            f"`policy` must return actions of shape {expected} for this environment. Received: shape {action.shape}. "
            "Pass `policy.mean` for the actions of a `GaussianPolicy`."
        )
