"""PointmassGoal: a mass on a plane that is pushed to a goal, as an environment and as differentiable TensorFlow.

Section 4.1 and appendix B of ML3 give the state (position, velocity) and the action (acceleration). The numbers are
ours.
"""
# pyright: reportArgumentType=false
# (TensorFlow's stubs do not know `values[..., 0]`.)

from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf

from ml3_tf.envs import drawing
from ml3_tf.envs.goal_reaching_env import GoalReachingEnv
from ml3_tf.envs.mountain_car import Clip

__all__ = [
    "MAX_ACCELERATION",
    "MAX_GOAL",
    "MAX_POSITION",
    "MAX_SPEED",
    "TIME_STEP",
    "PointmassGoalEnv",
    "pointmass_step",
]

TIME_STEP = 0.1  # s
MAX_ACCELERATION = 1.0  # m/s^2, along each axis
# A mass that rests at the origin can move 1.56 m, and rest there, within the 25 steps of an episode.
MAX_GOAL = 1.5  # m, along each axis
# No episode of 25 steps from the origin meets these limits; they keep longer ones bounded.
MAX_POSITION = 4.0  # m
MAX_SPEED = 4.0  # m/s, along each axis


def pointmass_step(
    states: tf.Tensor,
    actions: tf.Tensor,
    *,
    action_clip: Clip = tf.clip_by_value,
    state_clip: Clip = tf.clip_by_value,
) -> tf.Tensor:
    """Returns the state one step later: the equations of `PointmassGoalEnv`, differentiable.

    `v' = v + a dt`, `x' = x + v' dt`, then the limits. By default a value beyond a limit has no gradient; see
    `mountain_car_step` for the choices.

    Args:
        states: `[..., 4]`, position (m) and velocity (m/s).
        actions: `[..., 2]`, acceleration (m/s^2).
        action_clip: Function `(values, low, high) -> values` that limits the acceleration.
        state_clip: Function of the same form that limits velocity and position.

    Returns:
        `[..., 4]`, position (m) and velocity (m/s).

    Example:

    >>> print(pointmass_step(tf.constant([0.0, 0.0, 1.0, 0.0]), tf.constant([0.0, 1.0])).numpy().round(3))
    [0.1  0.01 1.   0.1 ]
    """
    velocity = states[..., 2:] + action_clip(actions, -MAX_ACCELERATION, MAX_ACCELERATION) * TIME_STEP
    position = states[..., :2] + velocity * TIME_STEP
    velocity = state_clip(velocity, -MAX_SPEED, MAX_SPEED)
    position = state_clip(position, -MAX_POSITION, MAX_POSITION)
    return tf.concat([position, velocity], -1)


class PointmassGoalEnv(GoalReachingEnv):
    """A mass slides on a plane without friction.

    | column | state and observation | unit | from | to |
    |---|---|---|---|---|
    | 0, 1 | position | m | -4 | 4 |
    | 2, 3 | velocity | m/s | -4 | 4 |

    | column | action | unit | from | to |
    |---|---|---|---|---|
    | 0, 1 | acceleration | m/s^2 | -1 | 1 |

    | column | goal | unit | from | to |
    |---|---|---|---|---|
    | 0, 1 | position | m | -1.5 | 1.5 |

    The distance is that of the position to the goal, in m. Without options an episode starts at rest at the origin, and
    the goal is drawn uniformly. A step lasts 0.1 s, an episode 25 steps.

    Example:

    >>> import gymnasium, ml3_tf.envs
    >>> env = gymnasium.make("ml3_tf/PointmassGoal-v0")
    >>> observation, info = env.reset(options={"goal": [-1.0, 0.5]})
    >>> observation, reward, terminated, truncated, info = env.step([-1.0, 0.5])
    """

    metadata: dict[str, Any] = {**GoalReachingEnv.metadata, "render_fps": round(1 / TIME_STEP)}

    def __init__(self, render_mode: str | None = None) -> None:
        limits = np.array([MAX_POSITION, MAX_POSITION, MAX_SPEED, MAX_SPEED])
        super().__init__(
            state_space=gymnasium.spaces.Box(-limits, limits, dtype=np.float64),
            goal_space=gymnasium.spaces.Box(-MAX_GOAL, MAX_GOAL, (2,), np.float64),
            action_space=gymnasium.spaces.Box(-MAX_ACCELERATION, MAX_ACCELERATION, (2,)),
            render_mode=render_mode,
        )

    def draw_state(self) -> np.ndarray:
        return np.zeros(4)

    def draw_goal(self) -> np.ndarray:
        return self.np_random.uniform(-MAX_GOAL, MAX_GOAL, 2)

    def next_state(self, action: np.ndarray) -> np.ndarray:
        velocity = self.state[2:] + action * TIME_STEP
        position = self.state[:2] + velocity * TIME_STEP
        velocity = np.clip(velocity, -MAX_SPEED, MAX_SPEED)
        return np.concatenate([np.clip(position, -MAX_POSITION, MAX_POSITION), velocity])

    def distance(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return np.linalg.norm(state[..., :2] - goal, axis=-1)

    def draw_frame(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        canvas = drawing.Canvas(x_range=(-1.8, 1.8), y_range=(-1.8, 1.8))
        canvas.circle(goal[0], goal[1], radius=0.07, color=drawing.GOAL)
        position = state[:2]
        ahead = position + 0.3 * state[2:]
        canvas.line([position[0], ahead[0]], [position[1], ahead[1]], color=drawing.INK)
        canvas.circle(position[0], position[1], radius=0.07, color=drawing.AGENT)
        return canvas.image()
