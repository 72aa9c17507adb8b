"""What the environments share that MuJoCo simulates."""

import mujoco
import numpy as np

from ml3_tf.envs.goal_env import GoalEnv


class MujocoGoalEnv(GoalEnv):
    """Base class of goal environments that MuJoCo simulates: a state is all positions, then all velocities.

    A state and an action tell the next state, bit by bit: the solver of contacts starts each step afresh. So does
    `ml3_tf.envs.batched`, which takes the same steps for many environments.

    Args:
        model_file: Path of the MuJoCo model.
        num_substeps: Steps of the simulator in one of the environment.
        **kwargs: Those of `GoalEnv`.
    """

    def __init__(self, model_file, num_substeps=1, **kwargs):
        super().__init__(**kwargs)
        self.num_substeps = num_substeps
        self.model = mujoco.MjModel.from_xml_path(str(model_file))
        self.data = mujoco.MjData(self.model)

    def start(self, state):
        super().start(state)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = np.split(state, [self.model.nq])

    def next_state(self, action):
        self.data.ctrl[:] = action
        self.data.qacc_warmstart[:] = 0
        mujoco.mj_step(self.model, self.data, self.num_substeps)
        state = np.concatenate([self.data.qpos, self.data.qvel])
        # MuJoCo goes on with what it found bad, and only warns.
        return np.full_like(state, np.nan) if np.any(self.data.warning.number) else state
