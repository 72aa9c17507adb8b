"""ReacherGoal: a planar arm of two links, driven by torques, in MuJoCo and as differentiable TensorFlow.

ML3 gives the states, the torques and the kind of goals (appendices B and C). Its public reference gives the time step
of 0.01 s and the horizon of 65 steps. The arm itself is ours: `assets/reacher.xml`.
"""
# pyright: reportArgumentType=false
# (TensorFlow's stubs do not know `values[..., 0]`.)

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from ml3_tf.envs import drawing
from ml3_tf.envs.goal_reaching_env import GoalReachingEnv
from ml3_tf.envs.mountain_car import Clip
from ml3_tf.envs.mujoco_env import MujocoGoalEnv

__all__ = [
    "ARMATURE",
    "DAMPING",
    "LENGTHS",
    "MASS",
    "MAX_ANGLE",
    "MAX_SPEED",
    "MAX_START_SPEED",
    "MAX_TORQUE",
    "MODEL",
    "TIME_STEP",
    "ReacherFingertipGoalEnv",
    "ReacherGoalEnv",
    "fingertip",
    "reacher_step",
]

MODEL = Path(__file__).with_name("assets") / "reacher.xml"
TIME_STEP = 0.01  # s
MAX_TORQUE = 1.0  # N m
LENGTHS = (0.1, 0.11)  # m, upper arm and forearm: uniform rods
MASS = 1.0  # kg, of each
ARMATURE = 0.004  # kg m^2, inertia of each motor
DAMPING = 0.04  # N m s/rad
MAX_START_SPEED = 10.0  # rad/s
# An arm at full torque stays within a third of these; they keep the spaces bounded.
MAX_ANGLE = 100.0  # rad
MAX_SPEED = 100.0  # rad/s


def reacher_step(
    states: tf.Tensor,
    actions: tf.Tensor,
    *,
    action_clip: Clip = tf.clip_by_value,
    lengths: tuple[Any, Any] = LENGTHS,
) -> tf.Tensor:
    """Returns the state one step later: the equations of the MuJoCo model, differentiable.

    `v' = v + dt (M(q) + dt D)^-1 (tau - c(q, v) - D v)`, `q' = q + v' dt`, for the inertia M (links and motors), the
    Coriolis and centrifugal torques c and the damping D, whose next value is used, as in MuJoCo's `implicitfast`.

    Args:
        states: `[..., 4]`, joint angles (rad) and velocities (rad/s).
        actions: `[..., 2]`, torques (N m).
        action_clip: Function `(values, low, high) -> values` that limits the torques. By default a torque beyond the
            limit has no gradient; see `mountain_car_step` for the choices.
        lengths: Lengths of upper arm and forearm (m), two numbers or tensors `[...]`. By default those of the MuJoCo
            model; with others this is an arm that differs from it, of the same mass.

    Returns:
        `[..., 4]`, joint angles (rad) and velocities (rad/s).

    Example:

    >>> print(reacher_step(tf.zeros(4), tf.constant([1.0, 0.0])).numpy().round(3))
    [ 0.005 -0.005  0.455 -0.514]
    """
    elbow, velocity = states[..., 1], states[..., 2:]
    upper, lower = lengths
    torques = action_clip(actions, -MAX_TORQUE, MAX_TORQUE) - DAMPING * velocity
    coupling = MASS * upper * lower / 2.0  # m l_1 l_2 / 2, for the rod's center of mass
    shoulder_speed, elbow_speed = velocity[..., 0], velocity[..., 1]
    bend = coupling * tf.sin(elbow)
    torque_1 = torques[..., 0] + bend * elbow_speed * (2.0 * shoulder_speed + elbow_speed)
    torque_2 = torques[..., 1] - bend * shoulder_speed**2
    # A uniform rod of length l has the inertia m l^2 / 3 about its end.
    own = ARMATURE + TIME_STEP * DAMPING
    m_22 = MASS * lower**2 / 3.0 + own
    m_12 = MASS * lower**2 / 3.0 + coupling * tf.cos(elbow)
    m_11 = MASS * (upper**2 / 3.0 + lower**2 / 3.0 + upper**2) + 2.0 * coupling * tf.cos(elbow) + own
    determinant = m_11 * m_22 - m_12**2
    acceleration = [m_22 * torque_1 - m_12 * torque_2, m_11 * torque_2 - m_12 * torque_1]
    velocity += TIME_STEP * tf.stack(acceleration, -1) / determinant[..., None]
    return tf.concat([states[..., :2] + TIME_STEP * velocity, velocity], -1)


def fingertip(joints: ArrayLike) -> np.ndarray:
    """Returns the position of the fingertip, computed with NumPy.

    Args:
        joints: `[..., 2]`, angles of shoulder and elbow (rad).

    Returns:
        `[..., 2]`, x and y (m).

    Example:

    >>> print(fingertip([0.0, np.pi / 2]).round(3))
    [0.1  0.11]
    """
    angles = np.cumsum(joints, -1)  # of the links
    return np.stack([np.sum(np.cos(angles) * LENGTHS, -1), np.sum(np.sin(angles) * LENGTHS, -1)], -1)


class ReacherGoalEnv(MujocoGoalEnv):
    """An arm has to take a pose: the form for model-based learning.

    | column | state and observation | unit | from | to |
    |---|---|---|---|---|
    | 0, 1 | angle of shoulder and elbow, not wrapped | rad | -100 | 100 |
    | 2, 3 | their velocities | rad/s | -100 | 100 |

    | column | action | unit | from | to |
    |---|---|---|---|---|
    | 0, 1 | torque on shoulder and elbow | N m | -1 | 1 |

    | column | goal | unit | from | to |
    |---|---|---|---|---|
    | 0, 1 | angle of shoulder and elbow | rad | -pi | pi |

    The distance is that of the angles to the goal, in rad; `info` also holds `fingertip_distance`, in m. Without
    options the arm rests, and its angles and the goal are drawn uniformly from `[-pi, pi]`. The joints have no limits,
    so each goal can be reached. An episode can start within `[-pi, pi]` rad and 10 rad/s. A step lasts 0.01 s, an
    episode 65 steps.

    Example:

    >>> import gymnasium, ml3_tf.envs
    >>> env = gymnasium.make("ml3_tf/ReacherGoal-v0")
    >>> observation, info = env.reset(options={"state": [0.0, 0.5, 0.0, 0.0], "goal": [1.0, -0.5]})
    >>> observation, reward, terminated, truncated, info = env.step([1.0, -1.0])
    """

    metadata: dict[str, Any] = {**GoalReachingEnv.metadata, "render_fps": round(1 / TIME_STEP)}
    goal_limits: np.ndarray = np.full(2, np.pi)
    observation_limits: np.ndarray = np.array([MAX_ANGLE, MAX_ANGLE, MAX_SPEED, MAX_SPEED])

    def __init__(self, render_mode: str | None = None) -> None:
        start_limits = np.array([np.pi, np.pi, MAX_START_SPEED, MAX_START_SPEED])
        limits = self.observation_limits.astype(np.float32)
        super().__init__(
            MODEL,
            state_space=gymnasium.spaces.Box(-start_limits, start_limits, dtype=np.float64),
            goal_space=gymnasium.spaces.Box(-self.goal_limits, self.goal_limits, dtype=np.float64),
            action_space=gymnasium.spaces.Box(-MAX_TORQUE, MAX_TORQUE, (2,)),
            observation_space=gymnasium.spaces.Box(-limits, limits),
            render_mode=render_mode,
        )

    def draw_state(self) -> np.ndarray:
        return np.concatenate([self.np_random.uniform(-np.pi, np.pi, 2), np.zeros(2)])

    def draw_goal(self) -> np.ndarray:
        return self.np_random.uniform(-self.goal_limits, self.goal_limits)

    def distance(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return np.linalg.norm(state[..., :2] - goal, axis=-1)

    def target(self, goal: np.ndarray) -> np.ndarray:
        """Returns the place `[..., 2]` (m) where the fingertip must be, for goals `[..., 2]`."""
        return fingertip(goal)

    def info(self, state: np.ndarray, goal: np.ndarray) -> dict[str, np.ndarray]:
        away = np.linalg.norm(fingertip(state[..., :2]) - self.target(goal), axis=-1)
        return {**super().info(state, goal), "fingertip_distance": away}

    def draw_frame(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        canvas = drawing.Canvas(x_range=(-0.24, 0.24), y_range=(-0.24, 0.24))
        x, y = self.target(goal)
        canvas.circle(x, y, radius=0.01, color=drawing.GOAL)
        bend = LENGTHS[0] * np.array([np.cos(state[0]), np.sin(state[0])])
        points = np.stack([np.zeros(2), bend, fingertip(state[:2])])
        canvas.line(points[:, 0], points[:, 1], color=drawing.AGENT, width=9)
        for x, y in points:
            canvas.circle(x, y, radius=0.008, color=drawing.INK)
        return canvas.image()


class ReacherFingertipGoalEnv(ReacherGoalEnv):
    """An arm has to bring its fingertip to a place: the form for model-free learning, which sees the goal.

    | column | observation | unit | from | to |
    |---|---|---|---|---|
    | 0, 1 | cosine of the angles of shoulder and elbow | 1 | -1 | 1 |
    | 2, 3 | their sines | 1 | -1 | 1 |
    | 4, 5 | from the fingertip to the goal | m | -0.42 | 0.42 |
    | 6 | distance of the fingertip to the goal | m | 0 | 0.42 |
    | 7, 8 | goal | m | -0.21 | 0.21 |
    | 9, 10 | velocity of the fingertip | m/s | -40 | 40 |

    | column | action | unit | from | to |
    |---|---|---|---|---|
    | 0, 1 | torque on shoulder and elbow | N m | -1 | 1 |

    | column | goal | unit | from | to |
    |---|---|---|---|---|
    | 0, 1 | place of the fingertip: x, y; 0.01 to 0.21 m from the shoulder | m | -0.21 | 0.21 |

    ML3 counts 11 columns and names "angles, fingertip-goal direction, goal xy, fingertip velocity"; their order is our
    choice. A state has the four columns of `ReacherGoalEnv`. Without options the arm rests at random angles, and the
    goal is the place of the fingertip at other random angles. The distance is that of the fingertip to the goal, in m.
    A step lasts 0.01 s, an episode 65 steps.

    Example:

    >>> import gymnasium, ml3_tf.envs
    >>> env = gymnasium.make("ml3_tf/ReacherFingertipGoal-v0")
    >>> observation, info = env.reset(options={"goal": [0.1, -0.1]})
    >>> observation.shape
    (11,)
    """

    goal_limits: np.ndarray = np.full(2, sum(LENGTHS))
    observation_limits: np.ndarray = np.concatenate(
        [np.ones(4), np.full(3, 2 * sum(LENGTHS)), goal_limits, np.full(2, 40.0)]
    )

    def draw_goal(self) -> np.ndarray:
        return fingertip(self.np_random.uniform(-np.pi, np.pi, 2))

    def check_goal(self, goal: ArrayLike) -> np.ndarray:
        goal = super().check_goal(goal)
        nearest, farthest = abs(LENGTHS[0] - LENGTHS[1]), sum(LENGTHS)
        if not nearest <= np.linalg.norm(goal) <= farthest:
            raise ValueError(
                f"`goal` must lie {nearest:.2f} to {farthest:.2f} m from the shoulder: the fingertip cannot reach "
                f"other places. Received: goal={goal.tolist()}, {np.linalg.norm(goal):.3f} m away"
            )
        return goal

    def target(self, goal: np.ndarray) -> np.ndarray:
        return goal

    def distance(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return np.linalg.norm(fingertip(state[..., :2]) - goal, axis=-1)

    def info(self, state: np.ndarray, goal: np.ndarray) -> dict[str, np.ndarray]:
        info = GoalReachingEnv.info(self, state, goal)
        return {**info, "fingertip_distance": info["distance"]}

    def observation(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        joints, velocity = state[..., :2], state[..., 2:]
        to_goal = goal - fingertip(joints)
        distance = np.linalg.norm(to_goal, axis=-1, keepdims=True)
        angles = np.cumsum(joints, -1)
        speeds = LENGTHS * np.cumsum(velocity, -1)  # of the end of each link about its start
        tip_velocity = np.stack([np.sum(-np.sin(angles) * speeds, -1), np.sum(np.cos(angles) * speeds, -1)], -1)
        parts = [np.cos(joints), np.sin(joints), to_goal, distance, goal, tip_velocity]
        return np.concatenate(parts, -1).astype(np.float32)
