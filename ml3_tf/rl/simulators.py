"""Rollouts of stochastic policies, in gymnasium's vector environments and in simulators written in TensorFlow.

Shape letters: N tasks, E episodes of a task, T time, S state, O observation, A action, G goal; `...` any leading axes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.arguments import Batch, check_counts
from ml3_tf.rl.checked_env import RolloutError
from ml3_tf.rl.policies import MLPPolicy
from ml3_tf.rl.rollouts import Trajectory, rollout_tasks, sample_actions

if TYPE_CHECKING:
    import gymnasium


class Simulator(NamedTuple):
    """An environment made of TensorFlow functions: all episodes run in one compiled loop, tens of times faster.

    Attributes:
        step: Function `(states [..., S], actions [..., A]) -> [..., S]`. It clips actions to their limits.
        reward: Function `(next_states [..., S], actions [..., A], goal [..., G]) -> [...]`.
        observation: Function `(states [..., S], goal [..., G]) -> [..., O]` for the policy. Default: the state.

    Example:

    >>> walk = Simulator(
    ...     step=lambda states, actions: states + 0.1 * tf.clip_by_value(actions, -1.0, 1.0),
    ...     reward=lambda states, actions, goal: -tf.norm(states - goal, axis=-1),
    ... )
    """

    step: Callable[[Any, Any], Any]
    reward: Callable[[Any, Any, Any], Any]
    observation: Callable[[Any, Any], Any] = lambda states, goal: states


_as_graph = partial(tf.function, autograph=False)


class Sampler:
    """Rolls out the stochastic policies of N tasks, in a `Simulator` or in real environments.

    Args:
        predict: TensorFlow function `(parameters, observations [N, E, O]) -> [N, E, 2A]`, mean and standard deviation.
        simulator: `Simulator`, or `gymnasium.vector.VectorEnv` of N x E environments: the E episodes of the first task,
            then of the next. Each must take its task from its attribute `task`, as those of `ml3_tf.envs` do; with
            states and goals of width 0 the environments choose.
        horizon: T, the number of steps of an episode.
        action_size: A, width of an action.
        compiled: Function that compiles a function, for many calls with the same shapes.

    Raises:
        ValueError: A horizon or action size below 1, or a simulator of another type.

    Example:

    >>> walk = Simulator(lambda s, a: s + a, lambda s, a, goal: -tf.norm(s - goal, axis=-1))
    >>> predict = lambda speed, observations: tf.concat([speed + 0 * observations, tf.ones_like(observations)], -1)
    >>> sampler = Sampler(predict, walk, horizon=4, action_size=1)
    >>> tasks = as_tasks({"state": tf.zeros((3, 2, 1)), "goal": tf.ones((3, 2, 1))})
    >>> sampler(tf.constant(0.5), tasks, sampler.no_noise(tasks)).observations.numpy()[0, 0, :, 0].tolist()
    [0.0, 0.5, 1.0, 1.5, 2.0]
    """

    def __init__(
        self,
        predict: Callable[[Any, Any], Any],
        simulator: Simulator | gymnasium.vector.VectorEnv,
        *,
        horizon: int,
        action_size: int,
        compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = _as_graph,
    ) -> None:
        check_counts(horizon=horizon, action_size=action_size)
        if not isinstance(simulator, Simulator) and not hasattr(simulator, "num_envs"):
            raise ValueError(
                "`simulator` must be a `Simulator` or a vector of environments, `gymnasium.make_vec(name, "
                f"num_envs=...)`. Received: {simulator!r}"
            )
        model: Any = simulator
        self.simulator: Any = simulator
        self.horizon: int = horizon
        self.action_size: int = action_size
        self.runs_in_graph: bool = isinstance(simulator, Simulator)
        self._predict = compiled(predict)
        self._simulate = compiled(
            lambda parameters, tasks, noise: simulate(partial(predict, parameters), model, tasks=tasks, noise=noise)
        )

    def noise(self, tasks: Batch, seeds: keras.random.SeedGenerator) -> tf.Tensor:
        """Draws the noise of rollouts from the standard normal distribution, `[N, E, T, A]`."""
        return keras.random.normal((*tasks["state"].shape[:2], self.horizon, self.action_size), seed=seeds)

    def no_noise(self, tasks: Batch) -> tf.Tensor:
        """Returns the noise of policies that act by their mean: zeros, `[N, E, T, A]`."""
        return tf.zeros((*tasks["state"].shape[:2], self.horizon, self.action_size))

    def __call__(self, parameters: Any, tasks: Batch, noise: tf.Tensor) -> Trajectory:
        """Rolls each policy out on its task.

        Args:
            parameters: First argument of `predict`.
            tasks: `{"state": [N, E, S], "goal": [N, E, G]}`, as `as_tasks` returns them.
            noise: `[N, E, T, A]`, standard normal.

        Returns:
            `Trajectory` `[N, E, ...]`.

        Raises:
            RolloutError: A simulator outside of a graph or a policy diverged; or an environment broke.
        """
        if self.runs_in_graph:
            trajectory = self._simulate(parameters, tasks, noise)
        else:
            trajectory = rollout_tasks(partial(self._predict, parameters), self.simulator, tasks=tasks, noise=noise)
        if tf.executing_eagerly():
            _check_finite(trajectory)
        return trajectory


def as_tasks(batch: Batch) -> dict[str, tf.Tensor]:
    """Returns a batch of tasks, `{"state": [N, E, S], "goal": [N, E, G]}`, as tensors, after checking its form.

    Use float64 for real environments: rounded to float32, a goal at the limit of the reachable may lie beyond it.

    Args:
        batch: The initial states of the simulator and the goals, for each of the E episodes of N tasks.

    Raises:
        ValueError: Other names, other shapes, or no tasks or episodes.

    Example:

    >>> as_tasks({"state": np.zeros((3, 2, 4)), "goal": np.ones((3, 2, 1))})["goal"].shape
    TensorShape([3, 2, 1])
    """
    if not isinstance(batch, dict) or set(batch) != {"state", "goal"}:
        received = sorted(batch) if isinstance(batch, dict) else type(batch).__name__
        raise ValueError(
            "Tasks must be a dictionary {'state': [N, E, S], 'goal': [N, E, G]}: initial states and goals of the E "
            f"episodes of N tasks. Received: {received}"
        )
    tasks = {name: tf.convert_to_tensor(batch[name]) for name in ("state", "goal")}
    shapes = {name: tuple(values.shape) for name, values in tasks.items()}
    if any(len(shape) != 3 for shape in shapes.values()) or shapes["state"][:2] != shapes["goal"][:2]:
        raise ValueError(f"Tasks must have the shapes [N, E, S] and [N, E, G]. Received: {shapes}")
    if None in shapes["state"][:2] or 0 in shapes["state"][:2]:
        raise ValueError(
            "Expected a static, positive number of tasks and of episodes: batch a dataset with drop_remainder=True. "
            f"Received: {shapes}"
        )
    return tasks


def policy_action_size(policy: keras.Model) -> int:
    """Returns A, the width of the actions of a stochastic policy.

    Args:
        policy: Keras model `[B, O] -> [B, 2A]`, mean and standard deviation side by side.

    Raises:
        ValueError: The policy is an `MLPPolicy`, without a standard deviation, or the width of its output is odd.
    """
    size, odd = divmod(policy.output_shape[-1], 2)
    if odd or isinstance(policy, MLPPolicy):
        raise ValueError(
            "Model-free learning needs a stochastic policy, one that returns mean and standard deviation side by side, "
            f"[B, 2A]: use `GaussianPolicy`. Received: {type(policy).__name__} with output shape {policy.output_shape}"
        )
    return size


def simulate(policy: Callable[[Any], Any], simulator: Simulator, *, tasks: Batch, noise: Any) -> Trajectory:
    """Rolls stochastic policies out in a `Simulator`; no gradient flows through a rollout.

    `a_t = mu(o_t) + sigma(o_t) noise_t`.

    Args:
        policy: Function of observations `[N, E, O]` that returns mean and standard deviation `[N, E, 2A]`.
        simulator: `Simulator`.
        tasks: `{"state": [N, E, S], "goal": [N, E, G]}`, initial states and goals.
        noise: `[N, E, T, A]`, standard normal; zeros for the mean policy.

    Returns:
        `Trajectory` `[N, E, ...]`.

    Raises:
        ValueError: A step or a reward of another shape.

    Example:

    >>> walk = Simulator(lambda states, actions: states + actions, lambda states, actions, goal: -states[..., 0])
    >>> tasks = {"state": tf.zeros((3, 2, 1)), "goal": tf.zeros((3, 2, 0))}
    >>> policy = lambda observations: tf.concat([tf.zeros_like(observations), tf.ones_like(observations)], -1)
    >>> simulate(policy, walk, tasks=tasks, noise=tf.ones((3, 2, 4, 1))).rewards.numpy()[0, 0].tolist()
    [-1.0, -2.0, -3.0, -4.0]
    """
    initial, goal = (tf.cast(tasks[name], tf.float32) for name in ("state", "goal"))
    noise = tf.transpose(noise, [2, 0, 1, 3])
    horizon = noise.shape[0]
    first = simulator.observation(initial, goal)

    def body(t: Any, states: Any, observations: Any, *arrays: Any) -> tuple[Any, ...]:
        actions = sample_actions(policy(observations), noise[t])
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


def _checked(expected: tf.Tensor, received: tf.Tensor, name: str) -> tf.Tensor:
    if received.shape != expected.shape:
        raise ValueError(
            f"`{name}` of the simulator must return the shape {tuple(expected.shape)}. "
            f"Received: shape {tuple(received.shape)}"
        )
    return received


def _check_finite(trajectory: Trajectory) -> None:
    """Raises `RolloutError` if the simulator diverged: nothing shall be learned from it."""
    for name in ("observations", "actions", "rewards"):
        finite = np.isfinite(getattr(trajectory, name)).reshape(*trajectory.mask.shape[:2], -1).all(-1)
        if not finite.all():
            message = (
                f"The {name} of task(s) {np.flatnonzero(~finite.all(1)).tolist()} are not finite: simulator or policy "
                "diverged. Bound the actions, lower the learning rate, or shorten the time step of the simulation."
            )
            raise RolloutError(message, diverged=True)
