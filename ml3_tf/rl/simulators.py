"""Rollouts of stochastic policies, in gymnasium's vector environments and in simulators written in TensorFlow.

Shape letters: N tasks, E episodes of a task, T time, S state, O observation, A action, G goal.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.arguments import check_counts
from ml3_tf.rl.policies import GaussianPolicy
from ml3_tf.rl.rollouts import Trajectory, rollout_env


class Simulator(NamedTuple):
    """An environment as functions of TensorFlow: all episodes run in one compiled loop, tens of times faster.

    Attributes:
        step: Function `(states [..., S], actions [..., A]) -> [..., S]`. It clips actions to their limits.
        reward: Function `(next states, actions, goal [..., G]) -> [...]`.
        observation: Function `(states, goal) -> [..., O]`, what the policy sees; the state, unless given.

    Example:

    >>> walk = Simulator(
    ...     step=lambda states, actions: states + 0.1 * tf.clip_by_value(actions, -1.0, 1.0),
    ...     reward=lambda states, actions, goal: -tf.norm(states - goal, axis=-1),
    ... )
    """

    step: Callable
    reward: Callable
    observation: Callable = lambda states, goal: states


def _as_graph(function):
    return tf.function(function, autograph=False)


class Sampler:
    """Rolls out the policies of N tasks.

    Args:
        predict: Function `(parameters, observations [N, E, O]) -> [N, E, 2A]`, mean and standard deviation, in
            TensorFlow; it is compiled.
        simulator: `Simulator`, or `gymnasium.vector.VectorEnv` of N x E environments, episode after episode of the
            first task, then of the next; each must take its task from the attribute `task`, as `GoalEnv` does.
        horizon: T.
        action_size: A.
        compiled: Function that compiles a function, for many calls with the same shapes.

    Raises:
        ValueError: A horizon or a simulator that is none; tasks or environments that do not fit.
    """

    def __init__(self, predict, simulator, horizon, action_size, compiled=_as_graph):
        check_counts(horizon=horizon)
        if not isinstance(simulator, Simulator) and not hasattr(simulator, "num_envs"):
            raise ValueError(
                "`simulator` must be a `Simulator` or a vector of environments, `gymnasium.make_vec(name, "
                f"num_envs=...)`. Received: {simulator!r}"
            )
        self.simulator, self.horizon, self.action_size = simulator, horizon, action_size
        self.runs_in_graph = isinstance(simulator, Simulator)
        self._predict = compiled(predict)
        self._simulate = compiled(
            lambda parameters, tasks, noise: simulate(lambda o: predict(parameters, o), simulator, tasks, noise)
        )

    def noise(self, tasks, seeds):
        """Draws the noise of rollouts: standard normal, `[N, E, T, A]`."""
        return keras.random.normal((*tasks["state"].shape[:2], self.horizon, self.action_size), seed=seeds)

    def no_noise(self, tasks):
        """The noise of policies that act by their mean."""
        return tf.zeros((*tasks["state"].shape[:2], self.horizon, self.action_size))

    def __call__(self, parameters, tasks, noise):
        """Rolls each policy out on its task: a `Trajectory` `[N, E, ...]`, whose states are observations.

        Args:
            parameters: What `predict` takes.
            tasks: As `as_tasks` returns them.
            noise: `[N, E, T, A]`.

        Raises:
            FloatingPointError: An environment, or a simulator outside of a graph, diverged.
        """
        if self.runs_in_graph:
            trajectory = self._simulate(parameters, tasks, noise)
        else:
            trajectory = run_environments(lambda o: self._predict(parameters, o), self.simulator, tasks, noise)
        if tf.executing_eagerly():
            _check_finite(trajectory)
        return trajectory


def as_tasks(data):
    """Returns `{"state": [N, E, S], "goal": [N, E, G]}` as tensors, after a check of their form.

    Give environments float64: rounded to float32, a goal at the limit of what can be reached may lie beyond it.
    """
    if not isinstance(data, dict) or set(data) != {"state", "goal"}:
        received = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise ValueError(
            "Tasks are dictionaries {'state': [N, E, S], 'goal': [N, E, G]}: where the E episodes of each of N tasks "
            f"start, and their goals. Received: {received}"
        )
    tasks = {name: tf.convert_to_tensor(data[name]) for name in ("state", "goal")}
    shapes = {name: tuple(values.shape) for name, values in tasks.items()}
    if any(len(shape) != 3 for shape in shapes.values()) or shapes["state"][:2] != shapes["goal"][:2]:
        raise ValueError(f"Tasks must have the shapes [N, E, S] and [N, E, G]. Received: {shapes}")
    if None in shapes["state"][:2] or 0 in shapes["state"][:2]:
        raise ValueError(
            "Tasks need a static, positive number of tasks and of episodes (batch a dataset with "
            f"drop_remainder=True). Received: {shapes}"
        )
    return tasks


def policy_action_size(policy):
    """A of a stochastic policy; raises a `ValueError` for one that has no standard deviation."""
    size, odd = divmod(policy.output_shape[-1], 2)
    if odd or (isinstance(policy, GaussianPolicy) and policy.arguments["std"] is None):
        raise ValueError(
            "Model-free learning needs a policy that returns mean and standard deviation side by side, [B, 2A]: "
            f"`GaussianPolicy(..., std=0.5)`. Received a policy with output shape {policy.output_shape}"
        )
    return size


def simulate(policy, simulator, tasks, noise):
    """Rolls stochastic policies out in a `Simulator`; no gradient flows through a rollout.

    `a_t = mu(o_t) + sigma(o_t) noise_t`.

    Args:
        policy: Function of observations `[N, E, O]` that returns mean and standard deviation `[N, E, 2A]`.
        simulator: `Simulator`.
        tasks: `{"state": [N, E, S], "goal": [N, E, G]}`, where episodes start, and their goals.
        noise: `[N, E, T, A]`, standard normal; zeros for the mean policy.

    Returns:
        `Trajectory` `[N, E, ...]`, whose states are observations.

    Raises:
        ValueError: A step or a reward that changes shapes.

    Example:

    >>> walk = Simulator(lambda states, actions: states + actions, lambda states, actions, goal: -states[..., 0])
    >>> tasks = {"state": tf.zeros((3, 2, 1)), "goal": tf.zeros((3, 2, 0))}
    >>> policy = lambda observations: tf.concat([tf.zeros_like(observations), tf.ones_like(observations)], -1)
    >>> simulate(policy, walk, tasks, tf.ones((3, 2, 4, 1))).rewards.numpy()[0, 0].tolist()
    [-1.0, -2.0, -3.0, -4.0]
    """
    initial, goal = (tf.cast(tasks[name], tf.float32) for name in ("state", "goal"))
    horizon, noise = noise.shape[-2], tf.transpose(noise, [2, 0, 1, 3])
    first = simulator.observation(initial, goal)

    def body(t, states, observations, *arrays):
        actions = _sample(policy(observations), noise[t])
        states = _checked(states, simulator.step(states, actions), "step")
        rewards = _checked(states[..., 0], simulator.reward(states, actions, goal), "reward")
        observations = simulator.observation(states, goal)
        new = (observations, actions, rewards)
        return t + 1, states, observations, *(array.write(t, values) for array, values in zip(arrays, new))

    shapes = (first.shape, noise.shape[1:], first.shape[:-1])
    arrays = [tf.TensorArray(tf.float32, horizon, element_shape=shape) for shape in shapes]
    loop = (0, initial, first, *arrays)
    _, _, _, *arrays = tf.while_loop(lambda t, *_: t < horizon, body, loop, maximum_iterations=horizon)
    observations, actions, rewards = (array.stack() for array in arrays)
    observations = tf.concat([first[tf.newaxis], observations], 0)
    rewards = tf.transpose(rewards, [1, 2, 0])
    observations, actions = (tf.transpose(values, [1, 2, 0, 3]) for values in (observations, actions))
    trajectory = Trajectory(observations, actions, rewards, goal, tf.ones_like(rewards))
    return tf.nest.map_structure(tf.stop_gradient, trajectory)


def run_environments(policy, env, tasks, noise):
    """Rolls stochastic policies out in real environments, one for each episode of each task.

    Args:
        policy: As in `simulate`.
        env: `gymnasium.vector.VectorEnv` of N x E environments, see `Sampler`.
        tasks: As in `simulate`.
        noise: As in `simulate`.

    Returns:
        `Trajectory` `[N, E, ...]`, whose states are observations.

    Raises:
        ValueError: Environments that do not fit, see `rollout_env`.
        FloatingPointError: An environment diverged.
    """
    num_tasks, num_episodes, horizon, action_size = noise.shape
    axes = [num_tasks, num_episodes]
    _set_tasks(env, tasks, num_tasks * num_episodes)
    noise_of_step = iter(tf.unstack(noise, axis=2))

    def act(observations):
        outputs = policy(tf.reshape(observations, [*axes, observations.shape[-1]]))
        return tf.reshape(_sample(outputs, next(noise_of_step)), [-1, action_size])

    flat = rollout_env(act, env, horizon)
    trajectory = Trajectory(*(tf.reshape(values, [*axes, *values.shape[1:]]) for values in flat))
    goal = tf.cast(tasks["goal"], tf.float32)
    if trajectory.goal.shape[-1] and not np.allclose(trajectory.goal, goal, rtol=1e-4, atol=1e-5):
        raise ValueError(
            "The environments did not take their tasks: they tell other goals than they were given. Each must take "
            "its start and goal from its attribute `task` at `reset`, as `ml3_tf.envs` do."
        )
    return trajectory._replace(goal=goal)


def _set_tasks(env, tasks, count):
    if env.num_envs != count:
        raise ValueError(
            f"`simulator` must have an environment for each episode of each task, {count}. Received: num_envs="
            f"{env.num_envs}"
        )
    named = {name: np.asarray(values).reshape(count, -1) for name, values in tasks.items() if values.shape[-1]}
    env.set_attr("task", [{name: values[n] for name, values in named.items()} for n in range(count)])


def _sample(mean_and_std, noise):
    mean, std = tf.split(mean_and_std, 2, -1)
    return mean + std * noise


def _checked(expected, received, name):
    if received.shape != expected.shape:
        raise ValueError(
            f"`{name}` of the simulator must return the shape {tuple(expected.shape)}. Received: shape "
            f"{tuple(received.shape)}"
        )
    return received


def _check_finite(trajectory):
    """Of a simulator that diverged nothing shall be learned."""
    for name in ("states", "actions", "rewards"):
        finite = np.isfinite(getattr(trajectory, name)).reshape(*trajectory.mask.shape[:2], -1).all(-1)
        if not finite.all():
            raise FloatingPointError(
                f"The {name} of task(s) {np.flatnonzero(~finite.all(1)).tolist()} are not finite: the simulator or the "
                "policy diverged. Nothing was learned from them. Bound the actions, lower the learning rate, or "
                "shorten the time step of the simulation."
            )
