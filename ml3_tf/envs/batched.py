"""Many environments of one kind in one simulator: MuJoCo steps them in threads, without Python in between."""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled names have no stubs.)

import os
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Space
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike

from ml3_tf.envs.ant import AntGoalEnv
from ml3_tf.envs.goal_reaching_env import checked, diverged
from ml3_tf.envs.mujoco_env import MujocoGoalEnv, unlogged
from ml3_tf.envs.reacher import ReacherFingertipGoalEnv, ReacherGoalEnv
from ml3_tf.extras import needed_for

with needed_for("`BatchedGoalEnv`", "mujoco", extra="rl"):
    import mujoco
    from mujoco.rollout import Rollout

# The least work for a thread of its own, in steps of the simulator times degrees of freedom. It takes about 0.3 ms; to
# start the threads and to wait for them takes up to 0.1 ms.
THREAD_WORK = 512


class BatchedGoalEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """N goal environments that step together, on `mujoco.rollout`.

    `gymnasium.make_vec(name, num_envs=N, vectorization_mode="vector_entry_point")` makes one. It gives the same numbers
    as gymnasium's `SyncVectorEnv` of the same environments, in a fraction of the time. All episodes have the same
    length, so they end together. The step after the last one starts the next episodes, whatever the actions, with a
    reward of 0.

    To give each environment its own task, call `envs.set_attr("task", [{"state": ..., "goal": ...}, ...])` before
    `reset`. The attributes `states` `[N, S]` and `goals` `[N, G]` hold the present states and goals.

    Args:
        env: An environment, whose spaces, tasks, observations and distances hold for all.
        num_envs: N.
        max_episode_steps: Number of steps of an episode. `None`: it never ends.
        num_threads: Number of threads that simulate. `None`: one for each processor that this process may use, but no
            thread that costs more time than it saves.

    Raises:
        ValueError: A count is not a positive integer; the number of tasks or seeds is not N; in `reset` and `step`, a
            state, goal or action has the wrong width, is not finite or (states and goals) lies beyond its limits.
        FloatingPointError: In `step`: the simulation of the environments that the error names diverged. The step
            returns nothing for any environment; `reset` starts all of them anew.
        RuntimeError: In `step`: `reset` was not called before.

    Example:

    >>> import gymnasium, ml3_tf.envs
    >>> envs = gymnasium.make_vec("ml3_tf/AntGoal-v0", num_envs=4, vectorization_mode="vector_entry_point")
    >>> observations, info = envs.reset(seed=0)
    >>> observations, rewards, terminated, truncated, info = envs.step(np.zeros((4, 8)))
    >>> observations.shape, info["goal"].shape
    ((4, 31), (4, 2))
    >>> envs.close()
    """

    _simulator: "_Simulator | None" = None

    def __init__(
        self,
        env: MujocoGoalEnv,
        num_envs: int,
        *,
        max_episode_steps: int | None = None,
        num_threads: int | None = None,
    ) -> None:
        _check_count("num_envs", num_envs)
        num_threads = _worthwhile_threads(env, num_envs) if num_threads is None else num_threads
        _check_count("num_threads", num_threads)
        if max_episode_steps is not None:
            _check_count("max_episode_steps", max_episode_steps)
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.render_mode: str | None = env.render_mode
        self.metadata: dict[str, Any] = {**env.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space: Space[np.ndarray] = env.observation_space
        self.single_action_space: Space[np.ndarray] = env.action_space
        self.observation_space: Space[np.ndarray] = batch_space(env.observation_space, num_envs)
        self.action_space: Space[np.ndarray] = batch_space(env.action_space, num_envs)
        self._finite_actions = Box(-np.inf, np.inf, (num_envs, env.action_size), np.float64)
        self._env = env
        self._tasks: list[Mapping[str, Any]] = [{}] * num_envs
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._elapsed: int | None = None
        self.states: np.ndarray = np.zeros((num_envs, env.model.nq + env.model.nv))
        self.goals: np.ndarray = np.zeros((num_envs, *env.goal_space.shape))
        self._simulator = _Simulator(env.model, env.num_substeps, num_envs, num_threads)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Returns the attribute `name` of each environment: `"task"`, `"state"` or `"goal"`."""
        values = {"task": self._tasks, "state": self.states, "goal": self.goals}
        if name not in values:
            raise ValueError(f"`name` must be one of {sorted(values)}. Received: name={name!r}")
        return tuple(values[name])

    def set_attr(self, name: str, values: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Sets the attribute `"task"` of each environment: a list of N dicts, or one dict for all."""
        if name != "task":
            raise ValueError(
                "`name` must be 'task': other attributes cannot be set in a batch of environments. Received: "
                f"name={name!r}"
            )
        tasks = [values] * self.num_envs if isinstance(values, Mapping) else list(values)
        if len(tasks) != self.num_envs:
            raise ValueError(f"`values` must hold a task for each of {self.num_envs} environments. Received: {values}")
        self._tasks = tasks

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode in each environment.

        Args:
            seed: One seed for each environment, or the seed of the first: the others get the integers after it. `None`:
                the random numbers continue.
            options: Parts of the task that replace those of all environments.
        """
        seeds = list(seed) if isinstance(seed, Sequence) else _consecutive(seed, self.num_envs)
        if len(seeds) != self.num_envs:
            raise ValueError(f"`seed` must hold a seed for each of {self.num_envs} environments. Received: {seed}")
        tasks = []
        for i, task in enumerate(self._tasks):
            generator = self._generators[i]
            if seeds[i] is not None or generator is None:
                generator, _ = seeding.np_random(seeds[i])
                self._generators[i] = generator
            self._env.np_random = generator
            tasks.append(self._env.choose_task({**task, **(options or {})}))
        self.states, self.goals = (np.stack(values) for values in zip(*tasks))
        self._elapsed = 0
        return self._env.observation(self.states, self.goals), self._info()

    def step(self, actions: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Takes one step in each environment; returns observations, rewards, terminated, truncated and info."""
        if self._elapsed is None or self._simulator is None:
            raise RuntimeError("`step` was called before `reset`, or after a simulation diverged. Call `reset` first.")
        if self._elapsed == self.max_episode_steps:
            observations, info = self.reset()
            return self._result(observations, np.zeros(self.num_envs), info)
        actions = checked("actions", actions, self._finite_actions)
        states, finished = self._simulator.step(self.states, self._env.clip_actions(actions))
        self._check_diverged(~finished | diverged(states), actions)
        self.states = states
        self._elapsed += 1
        info = self._info()
        return self._result(self._env.observation(states, self.goals), -info["distance"], info)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Returns an image `[height, width, 3]`, uint8, of each environment."""
        if self.render_mode is None:
            return None
        return tuple(self._env.draw_frame(*pair) for pair in zip(self.states, self.goals))

    def close_extras(self, **kwargs: Any) -> None:
        """Ends the threads of the simulator."""
        if self._simulator is not None:  # it is None if the arguments raised an error
            self._simulator.close()

    def _result(
        self, observations: np.ndarray, rewards: np.ndarray, info: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        truncated = np.full(self.num_envs, self._elapsed == self.max_episode_steps)
        return observations, rewards, np.zeros(self.num_envs, bool), truncated, info

    def _info(self) -> dict[str, Any]:
        """Returns `info` in the form of gymnasium's vectors: beside each `name`, `_name` marks who has that entry."""
        info = self._env.info(self.states, self.goals)
        everywhere = np.ones(self.num_envs, bool)
        return {**info, **{f"_{name}": everywhere for name in info}}

    def _check_diverged(self, bad: np.ndarray, actions: np.ndarray) -> None:
        if np.any(bad):
            self._elapsed = None
            first = np.flatnonzero(bad)[0]
            raise FloatingPointError(
                f"The simulation of environment(s) {np.flatnonzero(bad).tolist()} diverged. In the first of "
                f"them the next state is not finite after state={self.states[first]} and action={actions[first]}. "
                "Do not learn from these episodes; call `reset`."
            )


class _Simulator:
    """Steps N states of a MuJoCo model at once."""

    def __init__(self, model: mujoco.MjModel, num_substeps: int, num_envs: int, num_threads: int) -> None:
        # The full physics of `mujoco.rollout`: time, positions and velocities. Other models have more.
        self._size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
        if self._size != 1 + model.nq + model.nv:
            raise ValueError(
                "`env` must have a model whose state is its positions and velocities, without activations. Received: "
                f"{self._size - 1} numbers, for {model.nq} positions and {model.nv} velocities"
            )
        self._shape = (num_envs, num_substeps)
        self._models = [model] * num_envs
        self._data = [mujoco.MjData(model) for _ in range(num_threads)]
        self._rollout = Rollout(nthread=num_threads if num_threads > 1 else 0)
        # Just under the duration of a step: an environment that a warning stopped has not reached this time.
        self._duration = (num_substeps - 0.5) * model.opt.timestep

    def step(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the next states `[N, S]`, and for each whether it was reached without a warning of MuJoCo `[N]`."""
        initial = np.concatenate([np.zeros((len(states), 1)), states], 1)
        controls = np.repeat(actions[:, np.newaxis], self._shape[1], 1)
        visited = np.empty((*self._shape, self._size))
        with unlogged():
            self._rollout.rollout(
                self._models, self._data, initial, controls, skip_checks=True, nstep=self._shape[1], state=visited
            )
        return visited[:, -1, 1:], visited[:, -1, 0] > self._duration

    def close(self) -> None:
        self._rollout.close()


def batched_reacher(
    num_envs: int,
    *,
    render_mode: str | None = None,
    max_episode_steps: int | None = None,
    num_threads: int | None = None,
) -> BatchedGoalEnv:
    """Makes `num_envs` environments `ml3_tf/ReacherGoal-v0`; see `BatchedGoalEnv` for the arguments."""
    env = ReacherGoalEnv(render_mode)
    return BatchedGoalEnv(env, num_envs, max_episode_steps=max_episode_steps, num_threads=num_threads)


def batched_fingertip_reacher(
    num_envs: int,
    *,
    render_mode: str | None = None,
    max_episode_steps: int | None = None,
    num_threads: int | None = None,
) -> BatchedGoalEnv:
    """Makes `num_envs` environments `ml3_tf/ReacherFingertipGoal-v0`; see `BatchedGoalEnv` for the arguments."""
    env = ReacherFingertipGoalEnv(render_mode)
    return BatchedGoalEnv(env, num_envs, max_episode_steps=max_episode_steps, num_threads=num_threads)


def batched_ant(
    num_envs: int,
    *,
    render_mode: str | None = None,
    max_episode_steps: int | None = None,
    num_threads: int | None = None,
) -> BatchedGoalEnv:
    """Makes `num_envs` environments `ml3_tf/AntGoal-v0`; see `BatchedGoalEnv` for the arguments."""
    env = AntGoalEnv(render_mode)
    return BatchedGoalEnv(env, num_envs, max_episode_steps=max_episode_steps, num_threads=num_threads)


def _check_count(name: str, count: object) -> None:
    if not isinstance(count, Integral) or count < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1. Received: {name}={count!r}")


def _worthwhile_threads(env: MujocoGoalEnv, num_envs: int) -> int:
    work = num_envs * env.num_substeps * env.model.nv
    return min(len(os.sched_getaffinity(0)), max(1, work // THREAD_WORK))


def _consecutive(seed: int | None, number: int) -> list[int | None]:
    return [None if seed is None else seed + i for i in range(number)]
