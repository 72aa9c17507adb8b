"""Rollouts of stochastic policies, in gymnasium's vector environments and in simulators written in TensorFlow.

Shape letters: N tasks, E episodes of a task, T time, S state, O observation, A action, G goal,
P outputs of a policy; `...` any leading axes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.arguments import Batch, check_counts
from ml3_tf.rl.action_distributions import ActionDistribution
from ml3_tf.rl.checked_env import RolloutError
from ml3_tf.rl.env_spaces import check_distribution, check_vector
from ml3_tf.rl.rollouts import Trajectory, rollout_tasks

if TYPE_CHECKING:
    import gymnasium


class Simulator(NamedTuple):
    """An environment made of TensorFlow functions: all episodes run in one compiled loop, tens of times faster.

    Attributes:
        step: Function `(states [..., S], actions [..., A]) -> [..., S]`. It clips actions to their limits. Discrete
            actions are one-hot.
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
        predict: TensorFlow function `(parameters, observations [N, E, O]) -> [N, E, P]`, the outputs of the policies.
        simulator: `Simulator`, or `gymnasium.vector.VectorEnv` of N x E environments: the E episodes of the first task,
            then of the next. Each takes its task from its attribute `task`, as those of `ml3_tf.envs` do, or is reset
            with the seed of its task.
        horizon: T, the number of steps of an episode.
        distribution: `ActionDistribution` of the policies, see `get_action_distribution`.
        compiled: Function that compiles a function, for many calls with the same shapes.

    Raises:
        ValueError: A horizon below 1, a simulator of another type, or environments that expect other actions.

    Example:

    >>> from ml3_tf.rl import GaussianActions
    >>> walk = Simulator(lambda s, a: s + a, lambda s, a, goal: -tf.norm(s - goal, axis=-1))
    >>> predict = lambda speed, observations: tf.concat([speed + 0 * observations, tf.ones_like(observations)], -1)
    >>> sampler = Sampler(predict, walk, horizon=4, distribution=GaussianActions(1))
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
        distribution: ActionDistribution,
        compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = _as_graph,
    ) -> None:
        check_counts(horizon=horizon)
        if not isinstance(simulator, Simulator):
            check_vector(simulator, "simulator")
            check_distribution(distribution, simulator)
        model: Any = simulator
        self.simulator: Any = simulator
        self.horizon: int = horizon
        self.distribution: ActionDistribution = distribution
        self.runs_in_graph: bool = isinstance(simulator, Simulator)
        self._predict = compiled(predict)
        self._simulate = compiled(
            lambda parameters, tasks, noise: simulate(
                partial(predict, parameters), model, tasks=tasks, noise=noise, distribution=distribution
            )
        )

    def noise(self, tasks: Batch, seeds: keras.random.SeedGenerator) -> tf.Tensor:
        """Draws the noise of rollouts, `[N, E, T, A]`."""
        return self.distribution.noise((*tasks["state"].shape[:2], self.horizon), seeds)

    def no_noise(self, tasks: Batch) -> tf.Tensor:
        """Returns the noise of policies that act by their mean, or most likely action: zeros, `[N, E, T, A]`."""
        return self.distribution.no_noise((*tasks["state"].shape[:2], self.horizon))

    def __call__(self, parameters: Any, tasks: Batch, noise: tf.Tensor) -> Trajectory:
        """Rolls each policy out on its task.

        Args:
            parameters: First argument of `predict`.
            tasks: As `as_tasks` returns them.
            noise: `[N, E, T, A]`, of `noise` or `no_noise`.

        Returns:
            `Trajectory` `[N, E, ...]`.

        Raises:
            ValueError: Tasks that the environments or the `Simulator` do not take.
            RolloutError: A simulator outside of a graph or a policy diverged; or an environment broke.
        """
        if self.runs_in_graph:
            trajectory = self._simulate(parameters, tasks, noise)
        else:
            policy, given = partial(self._predict, parameters), {"tasks": tasks, "noise": noise}
            trajectory = rollout_tasks(policy, self.simulator, distribution=self.distribution, **given)
        if tf.executing_eagerly():
            _check_finite(trajectory)
        return trajectory


def as_tasks(batch: Batch) -> dict[str, tf.Tensor]:
    """Returns a batch of tasks as tensors, after checking its form.

    A task says of each of its E episodes where it starts, and what for, or with which seed the environment is reset.
    The parts that a batch leaves out, the environments choose; they have width 0.

    Use float64 for real environments: rounded to float32, a goal at the limit of the reachable may lie beyond it.

    Args:
        batch: Dictionary of one or more of "state" `[N, E, S]`, the initial states of the simulator; "goal"
            `[N, E, G]`; and "seed", integers `[N, E]`, for environments.

    Returns:
        `{"state": [N, E, S], "goal": [N, E, G]}`, and "seed" if it was given.

    Raises:
        ValueError: Other names, other shapes, or no tasks or episodes.

    Example:

    >>> tasks = as_tasks({"seed": np.arange(6).reshape(3, 2)})
    >>> tasks["seed"].shape, tasks["goal"].shape
    (TensorShape([3, 2]), TensorShape([3, 2, 0]))
    """
    if not isinstance(batch, dict) or not batch or not batch.keys() <= {"state", "goal", "seed"}:
        received = sorted(batch) if isinstance(batch, dict) else type(batch).__name__
        raise ValueError(
            "Tasks must be a dictionary of 'state' [N, E, S], 'goal' [N, E, G] and 'seed' [N, E], or some of them: "
            "initial states, goals and seeds of the E episodes of N tasks. Environments without goals need seeds "
            f"alone: {{'seed': np.arange(N * E).reshape(N, E)}}. Received: {received}"
        )
    tasks = {name: tf.convert_to_tensor(values) for name, values in batch.items()}
    shapes = {name: tuple(values.shape) for name, values in tasks.items()}
    integers = "seed" not in tasks or tasks["seed"].dtype.is_integer
    ranks = all(len(shape) == (2 if name == "seed" else 3) for name, shape in shapes.items())
    if not ranks or not integers or len({shape[:2] for shape in shapes.values()}) > 1:
        raise ValueError(
            "Tasks must have the shapes [N, E, S] of states, [N, E, G] of goals, and [N, E] of seeds, which are "
            f"integers. Received: {shapes}"
        )
    [axes] = {shape[:2] for shape in shapes.values()}
    if None in axes or 0 in axes:
        raise ValueError(
            "Expected a static, positive number of tasks and of episodes: batch a dataset with drop_remainder=True. "
            f"Received: {shapes}"
        )
    nothing = tf.zeros((*axes, 0))
    return {"state": nothing, "goal": nothing, **tasks}


def simulate(
    policy: Callable[[Any], Any], simulator: Simulator, *, tasks: Batch, noise: Any, distribution: ActionDistribution
) -> Trajectory:
    """Rolls stochastic policies out in a `Simulator`; no gradient flows through a rollout.

    Args:
        policy: Function of observations `[N, E, O]` that returns the outputs of the policies, `[N, E, P]`.
        simulator: `Simulator`.
        tasks: `{"state": [N, E, S], "goal": [N, E, G]}`, initial states and goals.
        noise: `[N, E, T, A]`, as `distribution` draws it; zeros for the most likely actions.
        distribution: `ActionDistribution` of the policies.

    Returns:
        `Trajectory` `[N, E, ...]`.

    Raises:
        ValueError: A step or a reward of another shape, or tasks with seeds.

    Example:

    >>> from ml3_tf.rl import GaussianActions
    >>> walk = Simulator(lambda states, actions: states + actions, lambda states, actions, goal: -states[..., 0])
    >>> tasks = {"state": tf.zeros((3, 2, 1)), "goal": tf.zeros((3, 2, 0))}
    >>> policy = lambda observations: tf.concat([tf.zeros_like(observations), tf.ones_like(observations)], -1)
    >>> settings = {"tasks": tasks, "noise": tf.ones((3, 2, 4, 1)), "distribution": GaussianActions(1)}
    >>> simulate(policy, walk, **settings).rewards.numpy()[0, 0].tolist()
    [-1.0, -2.0, -3.0, -4.0]
    """
    if "seed" in tasks:
        raise ValueError("Tasks of a `Simulator` are states and goals. Received: seeds, which only environments take.")
    initial, goal = (tf.cast(tasks[name], tf.float32) for name in ("state", "goal"))
    noise = tf.transpose(noise, [2, 0, 1, 3])
    horizon = noise.shape[0]
    first = simulator.observation(initial, goal)

    def body(t: Any, states: Any, observations: Any, *arrays: Any) -> tuple[Any, ...]:
        actions = distribution.sample(policy(observations), noise[t])
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
