"""Many environments of one kind in one simulator: MuJoCo steps them in threads, without Python in between."""

import os

import gymnasium
import mujoco
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from mujoco.rollout import Rollout

from ml3_tf.arguments import check_counts
from ml3_tf.envs.ant import AntGoalEnv
from ml3_tf.envs.goal_env import checked, diverged
from ml3_tf.envs.reacher import ReacherFingertipGoalEnv, ReacherGoalEnv

# Work that a thread of its own is worth, in steps of the simulator times degrees of freedom: about 0.3 ms, where to
# start and to await the threads takes up to 0.1 ms.
THREAD_WORK = 512


class BatchedGoalEnv(VectorEnv):
    """N goal environments that step together, on `mujoco.rollout`.

    `gymnasium.make_vec(name, num_envs=N, vectorization_mode="vector_entry_point")` makes one. It is gymnasium's
    `SyncVectorEnv` of the same environments, number by number, in a fraction of the time. All episodes have one length,
    and so end together; the step after the last one starts the next episodes, whatever the actions, with a reward of 0.

    For a task each: `envs.set_attr("task", [{"state": ..., "goal": ...}, ...])` before `reset`. The attributes `states`
    `[N, S]` and `goals` `[N, G]` hold where the environments are.

    Args:
        env: A `MujocoGoalEnv`: what it says of spaces, tasks, observations and distances holds for all.
        num_envs: N.
        max_episode_steps: Steps of an episode. `None`: it never ends.
        num_threads: Threads that simulate. `None`: as many as this process may use processors, but none that costs
            more time than it saves.

    Raises:
        ValueError: N or a number of threads below 1; tasks or seeds that are not N; in `reset` and `step`, a
            state, goal or action of another width, not finite or (states and goals) beyond its limits.
        FloatingPointError: In `step`: the simulation of the environments that it names diverged. No environment tells
            anything of that step; a `reset` starts all of them anew.
        RuntimeError: In `step`: no `reset` came before it.

    Example:

    >>> import gymnasium, ml3_tf.envs
    >>> envs = gymnasium.make_vec("ml3_tf/AntGoal-v0", num_envs=4, vectorization_mode="vector_entry_point")
    >>> observations, info = envs.reset(seed=0)
    >>> observations, rewards, terminated, truncated, info = envs.step(np.zeros((4, 8)))
    >>> observations.shape, info["goal"].shape
    ((4, 31), (4, 2))
    >>> envs.close()
    """

    _simulator = None

    def __init__(self, env, num_envs, max_episode_steps=None, num_threads=None):
        check_counts(num_envs=num_envs)
        num_threads = _worthwhile_threads(env, num_envs) if num_threads is None else num_threads
        check_counts(num_threads=num_threads)
        if max_episode_steps is not None:
            check_counts(max_episode_steps=max_episode_steps)
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.render_mode = env.render_mode
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space
        self.observation_space = batch_space(env.observation_space, num_envs)
        self.action_space = batch_space(env.action_space, num_envs)
        self._finite_actions = gymnasium.spaces.Box(-np.inf, np.inf, self.action_space.shape, np.float64)
        self._env = env
        self._tasks = [{}] * num_envs
        self._generators = [None] * num_envs
        self._elapsed = None
        self.states = np.zeros((num_envs, env.model.nq + env.model.nv))
        self.goals = np.zeros((num_envs, *env.goal_space.shape))
        self._simulator = _Simulator(env.model, env.num_substeps, num_envs, num_threads)

    def get_attr(self, name):
        """The attribute `name` of each environment: `"task"`, `"state"` or `"goal"`."""
        values = {"task": self._tasks, "state": self.states, "goal": self.goals}
        if name not in values:
            raise ValueError(f"`name` must be one of {sorted(values)}. Received: name={name!r}")
        return tuple(values[name])

    def set_attr(self, name, values):
        """Sets the attribute `"task"` of each environment: a list of N dicts, or one dict for all."""
        if name != "task":
            raise ValueError(f"`name` must be 'task': environments in a batch have no others. Received: name={name!r}")
        values = list(values) if isinstance(values, (list, tuple)) else [values] * self.num_envs
        if len(values) != self.num_envs:
            raise ValueError(f"`values` must hold a task for each of {self.num_envs} environments. Received: {values}")
        self._tasks = values

    def reset(self, *, seed=None, options=None):
        seeds = seed if isinstance(seed, (list, tuple)) else _consecutive(seed, self.num_envs)
        if len(seeds) != self.num_envs:
            raise ValueError(f"`seed` must hold a seed for each of {self.num_envs} environments. Received: {seed}")
        tasks = []
        for i, task in enumerate(self._tasks):
            if seeds[i] is not None or self._generators[i] is None:
                self._generators[i], _ = seeding.np_random(seeds[i])
            self._env.np_random = self._generators[i]
            tasks.append(self._env.choose_task({**task, **(options or {})}))
        self.states, self.goals = (np.stack(values) for values in zip(*tasks))
        self._elapsed = 0
        return self._env.observation(self.states, self.goals), self._info()

    def step(self, actions):
        if self._elapsed is None:
            raise RuntimeError("`step` was called before `reset`, or after a simulation diverged. Call `reset` first.")
        if self._elapsed == self.max_episode_steps:
            observations, info = self.reset()
            return self._result(observations, np.zeros(self.num_envs), info)
        actions = checked("actions", actions, self._finite_actions)
        space = self.single_action_space
        states, finished = self._simulator.step(self.states, np.clip(actions, space.low, space.high))
        self._check_diverged(~finished | diverged(states), actions)
        self.states = states
        self._elapsed += 1
        info = self._info()
        return self._result(self._env.observation(states, self.goals), -info["distance"], info)

    def render(self):
        if self.render_mode is None:
            return None
        return tuple(self._env.draw_frame(*pair) for pair in zip(self.states, self.goals))

    def close_extras(self, **kwargs):
        if self._simulator is not None:  # it is where the arguments were refused
            self._simulator.close()

    def _result(self, observations, rewards, info):
        truncated = np.full(self.num_envs, self._elapsed == self.max_episode_steps)
        return observations, rewards, np.zeros(self.num_envs, bool), truncated, info

    def _info(self):
        """`info` as gymnasium's vectors tell it: beside each entry `name`, `_name` says which environments have it."""
        info = self._env.info(self.states, self.goals)
        everywhere = np.ones(self.num_envs, bool)
        return {**info, **{f"_{name}": everywhere for name in info}}

    def _check_diverged(self, bad, actions):
        if np.any(bad):
            self._elapsed = None
            first = np.flatnonzero(bad)[0]
            raise FloatingPointError(
                f"The simulation of environment(s) {np.flatnonzero(bad).tolist()} diverged: no finite state follows, "
                f"in the first of them, state={self.states[first]} and action={actions[first]}. "
                "Learn nothing from these episodes; call `reset`."
            )


class _Simulator:
    """Steps N states of a MuJoCo model at once."""

    def __init__(self, model, num_substeps, num_envs, num_threads):
        # What `mujoco.rollout` calls the full physics: time, positions and velocities. Other models have more.
        self._size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
        if self._size != 1 + model.nq + model.nv:
            raise ValueError("`env` must have a model whose state is its positions and velocities: no activations")
        self._shape = (num_envs, num_substeps)
        self._models = [model] * num_envs
        self._data = [mujoco.MjData(model) for _ in range(num_threads)]
        self._rollout = Rollout(nthread=num_threads if num_threads > 1 else 0)
        # Just under the duration of a step: whoever was stopped by a warning is behind it.
        self._duration = (num_substeps - 0.5) * model.opt.timestep

    def step(self, states, actions):
        """Returns the next states `[N, S]`, and which of them no warning of MuJoCo has held up."""
        initial = np.concatenate([np.zeros((len(states), 1)), states], 1)
        controls = np.repeat(actions[:, np.newaxis], self._shape[1], 1)
        visited = np.empty((*self._shape, self._size))
        outputs = {"nstep": self._shape[1], "state": visited}
        self._rollout.rollout(self._models, self._data, initial, controls, skip_checks=True, **outputs)
        return visited[:, -1, 1:], visited[:, -1, 0] > self._duration

    def close(self):
        self._rollout.close()


def batched_reacher(num_envs, render_mode=None, **kwargs):
    """`ml3_tf/ReacherGoal-v0`, N at once."""
    return BatchedGoalEnv(ReacherGoalEnv(render_mode), num_envs, **kwargs)


def batched_fingertip_reacher(num_envs, render_mode=None, **kwargs):
    """`ml3_tf/ReacherFingertipGoal-v0`, N at once."""
    return BatchedGoalEnv(ReacherFingertipGoalEnv(render_mode), num_envs, **kwargs)


def batched_ant(num_envs, render_mode=None, **kwargs):
    """`ml3_tf/AntGoal-v0`, N at once."""
    return BatchedGoalEnv(AntGoalEnv(render_mode), num_envs, **kwargs)


def _worthwhile_threads(env, num_envs):
    work = num_envs * env.num_substeps * env.model.nv
    return min(len(os.sched_getaffinity(0)), max(1, work // THREAD_WORK))


def _consecutive(seed, number):
    return [None if seed is None else seed + i for i in range(number)]
