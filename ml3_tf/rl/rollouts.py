"""Trajectories of a policy, in a differentiable model and in real environments.

Shape letters: `...` the axes that the initial states begin with (tasks, episodes), T time, S state, A action, G goal.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ml3_tf.arguments import check_counts

# Time steps laid out in one pass of the loop over time: what is traced and compiled grows with them and not with the
# horizon. On a CPU one is as fast as five, and compiles in half the time (`benchmarks/rollout.py`).
TIME_UNROLL = 1


class Trajectory(NamedTuple):
    """What happened in episodes of one length.

    Attributes:
        states: `[..., T + 1, S]`, from the first state to the last.
        actions: `[..., T, A]`, the actions as the policy gave them.
        rewards: `[..., T]`, of each transition; zeros where there is no reward.
        goal: `[..., G]`; of width 0 where there is none.
        mask: `[..., T]`, 1 for a transition that happened, 0 after the end of an episode, where its last state stands.

    Example:

    >>> stay = lambda states, actions: states
    >>> rollout_model(lambda states: 0 * states, stay, tf.ones((3, 2)), horizon=4).rewards.shape
    TensorShape([3, 4])
    """

    states: tf.Tensor
    actions: tf.Tensor
    rewards: tf.Tensor
    goal: tf.Tensor
    mask: tf.Tensor


def rollout_model(policy, dynamics, initial_states, horizon, goal=None, reward=None, time_unroll=TIME_UNROLL):
    """Rolls a policy out in a model of the dynamics; gradients of any order flow through all of it.

    `s_{t+1} = dynamics(s_t, policy(s_t))`. The loop over time is a `tf.while_loop`: neither the graph nor the time to
    compile it grows with the horizon.

    Args:
        policy: Function of states `[..., S]` that returns actions `[..., A]`.
        dynamics: Function of states and actions that returns the next states `[..., S]`.
        initial_states: `[..., S]`.
        horizon: T, the number of steps.
        goal: Optional, `[..., G]`; it is kept in the trajectory, and what `reward` sees.
        reward: Optional function of the next states `[..., T, S]`, the actions `[..., T, A]` and the goal
            `[..., 1, G]` that returns the rewards `[..., T]`.
        time_unroll: Steps laid out in one pass of the loop.

    Returns:
        A `Trajectory`.

    Raises:
        ValueError: A horizon below 1, states that the policy does not take, dynamics that change the shape of a state.

    Example:

    >>> fall = lambda states, actions: states + 0.1 * actions
    >>> trajectory = rollout_model(lambda states: -states, fall, tf.ones((3, 2)), horizon=20)
    >>> tuple(trajectory.observations.shape), tuple(trajectory.actions.shape)
    ((3, 21, 2), (3, 20, 2))
    """
    check_counts(horizon=horizon)
    initial_states = tf.convert_to_tensor(initial_states)

    def steps(states, number):
        visited, actions = [], []
        for _ in range(number):
            actions.append(_act(policy, states))
            states = _next_states(dynamics, states, actions[-1])
            visited.append(states)
        return states, tf.stack(visited), tf.stack(actions)

    # The steps that do not fill a pass of the loop come first: they also tell the loop the shape of an action.
    num_loops = (horizon - 1) // time_unroll
    last, states, actions = steps(initial_states, horizon - num_loops * time_unroll)
    if num_loops:
        looped = _loop(lambda states: steps(states, time_unroll), last, num_loops, states.shape[1:], actions.shape[1:])
        states, actions = (tf.concat(pair, 0) for pair in zip((states, actions), looped))
    states, actions = _time_second_last(tf.concat([initial_states[tf.newaxis], states], 0)), _time_second_last(actions)
    goal = tf.zeros([*initial_states.shape[:-1], 0], states.dtype) if goal is None else tf.convert_to_tensor(goal)
    shape = [*initial_states.shape[:-1], horizon]
    rewards = tf.zeros(shape, states.dtype)
    if reward is not None:
        rewards = reward(states[..., 1:, :], actions, goal[..., tf.newaxis, :])
    return Trajectory(states, actions, rewards, goal, tf.ones(shape, states.dtype))


def rollout_env(policy, env, horizon, seed=None, options=None):
    """Rolls a policy out in a real environment: one episode in each environment of a gymnasium vector.

    An episode that ends before the horizon keeps its last state, and the mask says so: nothing of the next episode,
    which the vector starts by itself, gets into the trajectory.

    Args:
        policy: Function of states `[N, S]` that returns actions `[N, A]`; a Keras model is one.
        env: `gymnasium.vector.VectorEnv` of N environments.
        horizon: T, the number of steps.
        seed: As in `env.reset`. `None`: the environments go on with their random streams.
        options: As in `env.reset`.

    Returns:
        A `Trajectory` of arrays `[N, ...]`; its goal is `info["goal"]` of the reset, where the environments tell one.

    Raises:
        ValueError: A horizon below 1, an environment that is no vector or starts anew within a step, observations that
            the policy does not take, actions that the environment does not take.
        FloatingPointError: The simulator diverged.

    Example:

    >>> import gymnasium, ml3_tf.envs
    >>> env = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=3, vectorization_mode="sync")
    >>> trajectory = rollout_env(lambda states: 0.2 * np.sign(states[:, 1:]), env, horizon=35)
    >>> trajectory.observations.shape, trajectory.goal.shape
    ((3, 36, 2), (3, 2))
    """
    check_counts(horizon=horizon)
    _check_env(env)
    observations, info = env.reset(seed=seed, options=options)
    states, actions, rewards, masks = [_checked_observations(observations, env)], [], [], []
    alive = np.ones(env.num_envs, bool)
    for step in range(horizon):
        action = np.asarray(_act(policy, states[-1]))
        _check_action(action, env)
        observations, reward, terminated, truncated, _ = env.step(action)
        observations = np.where(alive[:, np.newaxis], _checked_observations(observations, env), states[-1])
        if not np.isfinite(observations).all():
            bad = np.flatnonzero(~np.isfinite(observations).all(axis=1)).tolist()
            raise FloatingPointError(
                f"The simulator diverged: the states of environment(s) {bad} are not finite after step {step + 1}. "
                "Nothing was learned from them. Bound the actions, or shorten the time step of the simulation."
            )
        states.append(observations)
        actions.append(action)
        rewards.append(np.where(alive, reward, 0))
        masks.append(alive)
        alive = alive & ~(terminated | truncated)
    goal = np.asarray(info.get("goal", np.zeros((env.num_envs, 0))))
    stacked = [np.stack(values, axis=1) for values in (states, actions, rewards)]
    return Trajectory(*(values.astype(np.float32) for values in (*stacked, goal, np.stack(masks, axis=1))))


def _loop(steps, states, num_loops, state_shape, action_shape):
    """`steps` applied `num_loops` times in a `tf.while_loop`: all states and all actions, time first."""

    def body(i, states, visited, actions):
        states, *new = steps(states)
        return i + 1, states, visited.write(i, new[0]), actions.write(i, new[1])

    arrays = [tf.TensorArray(states.dtype, num_loops, element_shape=[None, *s]) for s in (state_shape, action_shape)]
    _, _, *arrays = tf.while_loop(lambda i, *_: i < num_loops, body, (0, states, *arrays), maximum_iterations=num_loops)
    # [loops, steps of a loop, ...] -> [T, ...]
    return [tf.reshape(a.stack(), [-1, *s]) for a, s in zip(arrays, (state_shape, action_shape))]


def _time_second_last(values):
    """`[T, ..., W] -> [..., T, W]`."""
    rank = values.shape.rank
    return tf.transpose(values, [*range(1, rank - 1), 0, rank - 1])


def _act(policy, states):
    try:
        return policy(states)
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            f"`policy` does not take states of shape {tuple(states.shape)}: is it made for another width than "
            f"{states.shape[-1]}? Build it for the states of this environment or model. It said: {error}"
        ) from error


def _next_states(dynamics, states, actions):
    following = dynamics(states, actions)
    if following.shape != states.shape:
        raise ValueError(
            f"`dynamics` must return next states of the shape of the states, {tuple(states.shape)}. Received: shape "
            f"{tuple(following.shape)} for actions of shape {tuple(actions.shape)}."
        )
    return following


def _check_env(env):
    if not hasattr(env, "num_envs"):
        raise ValueError(
            f"`env` must be a vector of environments, `gymnasium.make_vec(name, num_envs=...)`. Received: {env}"
        )
    mode = env.metadata.get("autoreset_mode")
    if getattr(mode, "name", None) == "SAME_STEP":
        raise ValueError(
            "`env` starts the next episode within the step that ends one, which hides the last state. Received: "
            f"autoreset_mode={mode}. Make it with `AutoresetMode.NEXT_STEP`, the default of gymnasium."
        )
    shape = env.single_observation_space.shape
    if shape is None or len(shape) != 1:
        raise ValueError(f"`env` must have states that are vectors. Received: {env.single_observation_space}")


def _checked_observations(observations, env):
    observations, expected = np.asarray(observations, np.float32), (env.num_envs, *env.single_observation_space.shape)
    if observations.shape != expected:
        raise ValueError(
            f"`env` must return observations of the shape that it names, {expected}. Received: shape "
            f"{observations.shape}"
        )
    return observations


def _check_action(action, env):
    expected = (env.num_envs, *env.single_action_space.shape)
    if action.shape != expected:
        raise ValueError(
            f"`policy` must return actions of shape {expected} for this environment. Received: shape {action.shape}. "
            "For the actions of a policy with a standard deviation, pass `policy.mean`."
        )
