"""AntGoal: a walker on four legs that has to get to a goal, in MuJoCo.

Appendix C of ML3 gives the states and the circle of goals. The ant is that of gymnasium's `Ant-v5`, written anew in
`assets/ant.xml`. It is simulated with `implicitfast` in place of RK4, which takes a quarter of the time. The radius of
the circle and the length of an episode are ours.
"""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled names have no stubs.)

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike

from ml3_tf.envs import drawing
from ml3_tf.envs.goal_reaching_env import GoalReachingEnv
from ml3_tf.envs.mujoco_env import MujocoGoalEnv
from ml3_tf.extras import needed_for

with needed_for("The ant", "mujoco", extra="rl"):
    import mujoco

__all__ = [
    "GOAL_RADIUS",
    "JOINTS",
    "JOINT_VELOCITY",
    "LOWER_LEG",
    "MAX_GOAL",
    "MODEL",
    "NUM_SUBSTEPS",
    "ORIENTATION",
    "POSITION",
    "RADIUS",
    "SPIN",
    "STANCE",
    "STANCE_NOISE",
    "TIME_STEP",
    "VELOCITY",
    "AntGoalEnv",
]

MODEL = Path(__file__).with_name("assets") / "ant.xml"
TIME_STEP = 0.05  # s, of the environment
NUM_SUBSTEPS = 5  # of the simulator, 0.01 s each, as in Ant-v5
GOAL_RADIUS = 2.0  # m, of the circle that goals are drawn from
MAX_GOAL = 5.0  # m, along each axis, of goals that are set
STANCE: np.ndarray = np.array([0.0, 1.0] * 4)  # rad, hip and ankle of each leg
STANCE_NOISE = 0.1  # rad, either way
LOWER_LEG: float = 0.4 * np.sqrt(2.0)  # m, length
RADIUS = 0.08  # m, of the legs
# Columns of a state.
POSITION: slice = slice(0, 3)
ORIENTATION: slice = slice(3, 7)
JOINTS: slice = slice(7, 15)
VELOCITY: slice = slice(15, 18)
SPIN: slice = slice(18, 21)
JOINT_VELOCITY: slice = slice(21, 29)
_STATE_WIDTHS = 3, 4, 8, 3, 3, 8
_START_LOW = np.repeat([-20.0, -1.0, -np.pi / 2, -50.0, -50.0, -50.0], _STATE_WIDTHS)
_START_LOW[2] = 0.2  # m: deeper, the torso would start within the floor
# An ant at full torque stays within half of these limits; they keep the spaces bounded.
_OBSERVATION_LIMITS = np.repeat([100.0, 1.0, np.pi, 100.0, 100.0, 100.0, 105.0], (*_STATE_WIDTHS, 2))


class AntGoalEnv(MujocoGoalEnv):
    """An ant has to walk to a place.

    | column | observation | unit | from | to |
    |---|---|---|---|---|
    | 0 - 2 | position of the torso: x, y, height | m | -100 | 100 |
    | 3 - 6 | its orientation, a unit quaternion: w, x, y, z | 1 | -1 | 1 |
    | 7 - 14 | angles of hip and ankle of legs 0 to 3: front left, back left, back right, front right | rad | -pi | pi |
    | 15 - 17 | velocity of the torso | m/s | -100 | 100 |
    | 18 - 20 | its angular velocity, about its own axes | rad/s | -100 | 100 |
    | 21 - 28 | velocities of the joints | rad/s | -100 | 100 |
    | 29, 30 | from the torso to the goal: x, y | m | -105 | 105 |

    A state is columns 0 to 28. With the position, the last two columns give the goal. There are no contact forces.

    | column | action | unit | from | to |
    |---|---|---|---|---|
    | 0 - 7 | torque on hip and ankle of each leg, divided by 150 N m | 1 | -1 | 1 |

    | column | goal | unit | from | to |
    |---|---|---|---|---|
    | 0, 1 | position of the torso: x, y | m | -5 | 5 |

    The ant faces along x, and y is on its left. A hip turns its leg by -pi/6 to pi/6 rad, counterclockwise. An ankle
    bends its foot down by pi/6 to 7 pi/18 rad. Without options the ant rests at the origin, its feet on the floor, and
    the goal lies on a circle of 2 m around it. Hips are then within 0.1 rad of 0, ankles within 0.1 rad of 1.

    The distance is that of the torso to the goal along the floor, in m. The metric of ML3 is the sum over time of the
    decrease of the distance since the start. It is the sum of the rewards, `-distance`, plus the first distance times
    the number of steps: a constant, as all drawn goals are equally far. A step lasts 0.05 s, an episode 100 steps. An
    ant that falls continues its episode.

    Raises:
        ValueError: In `reset`, beside the errors of `GoalReachingEnv`: the orientation is not a unit quaternion.

    Example:

    >>> import gymnasium, ml3_tf.envs
    >>> env = gymnasium.make("ml3_tf/AntGoal-v0")
    >>> observation, info = env.reset(options={"goal": [0.0, 2.0]})
    >>> observation.shape
    (31,)
    >>> observation, reward, terminated, truncated, info = env.step([0.5, 0.0] * 4)
    """

    metadata: dict[str, Any] = {**GoalReachingEnv.metadata, "render_fps": round(1 / TIME_STEP)}

    def __init__(self, render_mode: str | None = None) -> None:
        start_high = -_START_LOW
        start_high[2] = 5.0
        limits = _OBSERVATION_LIMITS.astype(np.float32)
        super().__init__(
            MODEL,
            num_substeps=NUM_SUBSTEPS,
            state_space=gymnasium.spaces.Box(_START_LOW, start_high, dtype=np.float64),
            goal_space=gymnasium.spaces.Box(-MAX_GOAL, MAX_GOAL, (2,), np.float64),
            action_space=gymnasium.spaces.Box(-1.0, 1.0, (8,)),
            observation_space=gymnasium.spaces.Box(-limits, limits),
            render_mode=render_mode,
        )

    def draw_state(self) -> np.ndarray:
        state = np.zeros(29)
        state[JOINTS] = STANCE + self.np_random.uniform(-STANCE_NOISE, STANCE_NOISE, 8)
        state[2] = LOWER_LEG * np.sin(np.max(state[JOINTS][1::2])) + RADIUS  # the lowest foot touches the floor
        state[ORIENTATION] = [1.0, 0.0, 0.0, 0.0]
        return state

    def draw_goal(self) -> np.ndarray:
        angle = self.np_random.uniform(-np.pi, np.pi)
        return GOAL_RADIUS * np.array([np.cos(angle), np.sin(angle)])

    def check_state(self, state: ArrayLike) -> np.ndarray:
        state = super().check_state(state)
        norm = np.linalg.norm(state[ORIENTATION])
        if abs(norm - 1.0) > 1e-3:
            raise ValueError(
                f"`state` must have a unit quaternion in columns 3 to 6: its orientation. Received: "
                f"{state[ORIENTATION].tolist()}, of norm {norm:.3f}. Divide it by its norm."
            )
        return state

    def distance(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return np.linalg.norm(state[..., :2] - goal, axis=-1)

    def observation(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return np.concatenate([state, goal - state[..., :2]], -1).astype(np.float32)

    def draw_frame(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        self.data.qpos[:] = state[: self.model.nq]
        mujoco.mj_kinematics(self.model, self.data)
        torso = state[:2]
        canvas = drawing.Canvas(x_range=(-3.0, 3.0), y_range=(-3.0, 3.0))
        canvas.circle(goal[0], goal[1], radius=0.15, color=drawing.GOAL)
        for leg in range(4):
            hip, ankle = (self.data.body(f"{name}_leg{leg}").xpos[:2] for name in ("upper", "lower"))
            foot = self.data.site(f"foot{leg}").xpos[:2]
            points = np.stack([torso, hip, ankle, foot])
            canvas.line(points[:, 0], points[:, 1], color=drawing.AGENT, width=6)
            canvas.circle(foot[0], foot[1], radius=RADIUS, color=drawing.AGENT)
        canvas.circle(torso[0], torso[1], radius=0.25, color=drawing.AGENT)
        front = torso + 0.15 * self.data.body("torso").xmat[[0, 3]]
        canvas.circle(front[0], front[1], radius=0.06, color=drawing.INK)  # shows the heading
        return canvas.image()
