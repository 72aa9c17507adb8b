"""ReacherGoal: a planar arm of two links, driven by torques, in MuJoCo and as differentiable TensorFlow.

ML3 names the states, the torques and the kind of goals (appendices B and C); its public reference, the time step of
0.01 s and the horizon of 65 steps. The arm itself is ours: `assets/reacher.xml`.
"""

from pathlib import Path

import gymnasium
import numpy as np
import tensorflow as tf

from ml3_tf.envs import drawing
from ml3_tf.envs.goal_env import GoalEnv
from ml3_tf.envs.mujoco_env import MujocoGoalEnv

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


def reacher_step(states, actions, action_clip=tf.clip_by_value):
    """The state one step later: the equations of the MuJoCo model, differentiable.

    `v' = v + dt (M(q) + dt D)^-1 (tau - c(q, v) - D v)`, `q' = q + v' dt`, for the inertia M (links and motors), the
    Coriolis and centrifugal torques c and the damping D, whose next value is used, as in MuJoCo's `implicitfast`.

    Args:
        states: `[..., 4]`, joint angles (rad) and velocities (rad/s).
        actions: `[..., 2]`, torques (N m).
        action_clip: Function `(values, low, high) -> values` that limits the torques. By default what exceeds the limit
            has no gradient; see `ml3_tf.envs.mountain_car.mountain_car_step` for the choices.

    Returns:
        `[..., 4]`.

    Example:

    >>> print(reacher_step(tf.zeros(4), tf.constant([1.0, 0.0])).numpy().round(3))
    [ 0.005 -0.005  0.455 -0.514]
    """
    elbow, velocity = states[..., 1], states[..., 2:]
    upper, lower = LENGTHS
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


def fingertip(joints):
    """Position of the fingertip.

    Args:
        joints: `[..., 2]`, angles of shoulder and elbow (rad).

    Returns:
        `[..., 2]`, NumPy, m.

    Example:

    >>> print(fingertip([0.0, np.pi / 2]).round(3))
    [0.1  0.11]
    """
    angles = np.cumsum(joints, -1)  # of the links
    return np.stack([np.sum(np.cos(angles) * LENGTHS, -1), np.sum(np.sin(angles) * LENGTHS, -1)], -1)


class ReacherGoalEnv(MujocoGoalEnv):
    """An arm has to take a pose: the form for model-based learning.

    | column | state | unit | from | to |
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
    options the arm rests, and its angles and the goal are drawn uniformly from `[-pi, pi]`. No joint has limits, so
    each goal can be reached. A step lasts 0.01 s, an episode 65 steps.

    Example:

    >>> import gymnasium, ml3_tf.envs
    >>> env = gymnasium.make("ml3_tf/ReacherGoal-v0")
    >>> state, info = env.reset(options={"state": [0.0, 0.5, 0.0, 0.0], "goal": [1.0, -0.5]})
    >>> state, reward, terminated, truncated, info = env.step([1.0, -1.0])
    """

    metadata = {**GoalEnv.metadata, "render_fps": round(1 / TIME_STEP)}
    goal_limits = np.full(2, np.pi)
    observation_limits = np.array([MAX_ANGLE, MAX_ANGLE, MAX_SPEED, MAX_SPEED])

    def __init__(self, render_mode=None):
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

    def draw_state(self):
        return np.concatenate([self.np_random.uniform(-np.pi, np.pi, 2), np.zeros(2)])

    def draw_goal(self):
        return self.np_random.uniform(-self.goal_limits, self.goal_limits)

    def distance(self, state, goal):
        return np.linalg.norm(state[..., :2] - goal, axis=-1)

    def target(self, goal):
        """Where the fingertip should be, `[..., 2]`, m."""
        return fingertip(goal)

    def info(self, state, goal):
        away = np.linalg.norm(fingertip(state[..., :2]) - self.target(goal), axis=-1)
        return {**super().info(state, goal), "fingertip_distance": away}

    def draw_frame(self, state, goal):
        canvas = drawing.Canvas(x_range=(-0.24, 0.24), y_range=(-0.24, 0.24))
        canvas.circle(*self.target(goal), 0.01, drawing.GOAL)
        shoulder, elbow = state[:2]
        tip = fingertip([shoulder, elbow])
        bend = LENGTHS[0] * np.array([np.cos(shoulder), np.sin(shoulder)])
        canvas.line(*zip([0.0, 0.0], bend, tip), drawing.AGENT, width=9)
        for point in ([0.0, 0.0], bend, tip):
            canvas.circle(*point, 0.008, drawing.INK)
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

    ML3 counts 11 columns and names "angles, fingertip-goal direction, goal xy, fingertip velocity"; which is which is
    our choice. Options set `state`, the 4 columns of `ReacherGoalEnv`, and `goal`: the place, within the ring that the
    fingertip can reach, 0.01 to 0.21 m from the shoulder. Without options the arm rests at random angles, and the goal
    is drawn as the place of the fingertip at others. Distance in m; a step lasts 0.01 s, an episode 65 steps.

    Example:

    >>> import gymnasium, ml3_tf.envs
    >>> env = gymnasium.make("ml3_tf/ReacherFingertipGoal-v0")
    >>> observation, info = env.reset(options={"goal": [0.1, -0.1]})
    >>> observation.shape
    (11,)
    """

    goal_limits = np.full(2, sum(LENGTHS))
    observation_limits = np.concatenate([np.ones(4), np.full(3, 2 * sum(LENGTHS)), goal_limits, np.full(2, 40.0)])

    def draw_goal(self):
        return fingertip(self.np_random.uniform(-np.pi, np.pi, 2))

    def check_goal(self, goal):
        goal = super().check_goal(goal)
        nearest, farthest = abs(LENGTHS[0] - LENGTHS[1]), sum(LENGTHS)
        if not nearest <= np.linalg.norm(goal) <= farthest:
            raise ValueError(
                f"`goal` must lie {nearest:.2f} to {farthest:.2f} m from the shoulder: the fingertip reaches no other "
                f"place. Received: goal={goal.tolist()}, {np.linalg.norm(goal):.3f} m away"
            )
        return goal

    def target(self, goal):
        return goal

    def distance(self, state, goal):
        return np.linalg.norm(fingertip(state[..., :2]) - goal, axis=-1)

    def info(self, state, goal):
        info = GoalEnv.info(self, state, goal)
        return {**info, "fingertip_distance": info["distance"]}

    def observation(self, state, goal):
        joints, velocity = state[..., :2], state[..., 2:]
        to_goal = goal - fingertip(joints)
        distance = np.linalg.norm(to_goal, axis=-1, keepdims=True)
        angles = np.cumsum(joints, -1)
        speeds = LENGTHS * np.cumsum(velocity, -1)  # of the end of each link about its start
        tip_velocity = np.stack([np.sum(-np.sin(angles) * speeds, -1), np.sum(np.cos(angles) * speeds, -1)], -1)
        parts = [np.cos(joints), np.sin(joints), to_goal, distance, goal, tip_velocity]
        return np.concatenate(parts, -1).astype(np.float32)
