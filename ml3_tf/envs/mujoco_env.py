"""The base class of the environments that MuJoCo simulates."""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled names have no stubs.)

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gymnasium.spaces import Box

from ml3_tf.envs.goal_reaching_env import GoalReachingEnv
from ml3_tf.extras import needed_for

with needed_for("An environment with a simulator", "mujoco", extra="rl"):
    import mujoco


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Keeps MuJoCo from writing its warnings to a file MUJOCO_LOG.TXT in the user's folder.

    A simulation that diverged is told by an error of ours. MuJoCo has one handler for the whole process, so that of the
    user is put back.
    """
    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)


class MujocoGoalEnv(GoalReachingEnv):
    """Base class of goal environments that MuJoCo simulates: a state is all positions, then all velocities.

    A state and an action determine the next state to the last bit, as the solver of contacts starts each step afresh.
    `BatchedGoalEnv` takes the same steps for many environments.

    Args:
        model_file: Path of the MuJoCo model.
        num_substeps: Number of steps of the simulator in one step of the environment.
        state_space: As in `GoalReachingEnv`, as are the others.
        goal_space: The goals that can be reached.
        action_space: The actions.
        observation_space: The observations. `None`: the states, as float32.
        render_mode: `"rgb_array"` or `None`.
    """

    def __init__(
        self,
        model_file: Path,
        *,
        num_substeps: int = 1,
        state_space: Box,
        goal_space: Box,
        action_space: Box,
        observation_space: Box | None = None,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(
            state_space=state_space,
            goal_space=goal_space,
            action_space=action_space,
            observation_space=observation_space,
            render_mode=render_mode,
        )
        self.num_substeps = num_substeps
        self.model: mujoco.MjModel = mujoco.MjModel.from_xml_path(str(model_file))
        self.data: mujoco.MjData = mujoco.MjData(self.model)

    def start(self, state: np.ndarray) -> None:
        """Puts the simulation into a state; nothing of the episode before is left in it."""
        super().start(state)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = np.split(state, [self.model.nq])

    def next_state(self, action: np.ndarray) -> np.ndarray:
        """Returns the state `[S]` one step later; NaN after a warning of MuJoCo, which replaces bad numbers."""
        self.data.ctrl[:] = action
        self.data.qacc_warmstart[:] = 0
        with unlogged():
            mujoco.mj_step(self.model, self.data, self.num_substeps)
        state = np.concatenate([self.data.qpos, self.data.qvel])
        return np.full_like(state, np.nan) if np.any(self.data.warning.number) else state
