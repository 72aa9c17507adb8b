"""MountainCarGoal: a car too weak for its hill, as a gymnasium environment and as differentiable TensorFlow.

Section 4.2 of ML3; the constants and the order of the limits are those of its public reference.
"""
# pyright: reportArgumentType=false
# (TensorFlow's stubs do not know `values[..., 0]`.)

from collections.abc import Callable
from typing import Any, TypeAlias

import gymnasium
import numpy as np
import tensorflow as tf

from ml3_tf.envs import drawing
from ml3_tf.envs.goal_reaching_env import GoalReachingEnv

__all__ = [
    "FRICTION",
    "GOAL",
    "GRAVITY",
    "INTERMEDIATE_GOAL",
    "MASS",
    "MAX_FORCE",
    "MAX_POSITION",
    "MAX_SPEED",
    "MIN_POSITION",
    "START",
    "TIME_STEP",
    "Clip",
    "MountainCarGoalEnv",
    "mountain_car_step",
    "straight_through_clip",
]

Clip: TypeAlias = Callable[[tf.Tensor, float, float], tf.Tensor]
"""A function `(values, low, high) -> values` that limits values."""

MASS = 0.2  # kg
GRAVITY = 9.8  # m/s^2
FRICTION = 0.3  # 1/s
TIME_STEP = 0.1  # s
MAX_FORCE = 0.25  # N
MAX_SPEED = 1.5  # m/s
MIN_POSITION = -1.2  # m
MAX_POSITION = 0.5  # m

# Position (m) and velocity (m/s).
START = (-0.55, 0.0)
GOAL = (0.5, 1.0375)
# A place high on the opposite slope, where the car has to turn on its way to the goal.
INTERMEDIATE_GOAL = (-0.947, -0.0055)


def mountain_car_step(
    states: tf.Tensor,
    actions: tf.Tensor,
    *,
    action_clip: Clip = tf.clip_by_value,
    state_clip: Clip = tf.clip_by_value,
) -> tf.Tensor:
    """Returns the state one step later: the equations of `MountainCarGoalEnv`, differentiable.

    `v' = v + (u / m - g m cos 3x - k v) dt`, `x' = x + v' dt`, then the limits. A car at the left wall stops.

    By default a value beyond a limit has no gradient. That is exact, but a policy that asks for more than `MAX_FORCE`
    learns nothing. Squash its output (`MAX_FORCE * tanh`), or pass `straight_through_clip`, which lets gradients pass.
    ML3's public reference does the latter for the state alone.

    Args:
        states: `[..., 2]`, position (m) and velocity (m/s).
        actions: `[..., 1]`, force (N).
        action_clip: Function `(values, low, high) -> values` that limits the force.
        state_clip: Function of the same form that limits velocity and position.

    Returns:
        `[..., 2]`, position (m) and velocity (m/s).

    Example:

    >>> states = mountain_car_step(tf.constant([[-0.55, 0.0]]), tf.constant([[0.25]]))
    >>> print(states.numpy().round(3))
    [[-0.536  0.141]]
    """
    position, velocity = states[..., 0], states[..., 1]
    force = action_clip(actions[..., 0], -MAX_FORCE, MAX_FORCE)
    acceleration = force / MASS - GRAVITY * MASS * tf.cos(3.0 * position) - FRICTION * velocity
    velocity += acceleration * TIME_STEP
    position += velocity * TIME_STEP
    velocity = state_clip(velocity, -MAX_SPEED, MAX_SPEED)
    position = state_clip(position, MIN_POSITION, MAX_POSITION)
    stopped = (position <= MIN_POSITION) & (velocity < 0.0)
    return tf.stack([position, tf.where(stopped, tf.zeros_like(velocity), velocity)], -1)


def straight_through_clip(values: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Returns the values of `tf.clip_by_value`, with a gradient of 1 everywhere."""
    return values + tf.stop_gradient(tf.clip_by_value(values, low, high) - values)


class MountainCarGoalEnv(GoalReachingEnv):
    """A car in a valley has to swing to the left to get up the hill on the right.

    | column | state and observation | unit | from | to |
    |---|---|---|---|---|
    | 0 | position along the track, whose height is `sin 3x` | m | -1.2 | 0.5 |
    | 1 | velocity | m/s | -1.5 | 1.5 |

    | column | action | unit | from | to |
    |---|---|---|---|---|
    | 0 | force | N | -0.25 | 0.25 |

    | column | goal | unit | from | to |
    |---|---|---|---|---|
    | 0 | position along the track | m | -1.2 | 0.5 |
    | 1 | velocity | m/s | -1.5 | 1.5 |

    The distance to a goal is Euclidean, over both columns. Without options an episode starts at rest in the valley, at
    -0.55 m, and the goal is that of ML3: the right end at 1.0375 m/s. A step lasts 0.1 s, an episode 35 steps.

    Example:

    >>> import gymnasium, ml3_tf.envs
    >>> env = gymnasium.make("ml3_tf/MountainCarGoal-v0")
    >>> observation, info = env.reset(options={"state": [-0.5, 0.0]})
    >>> observation, reward, terminated, truncated, info = env.step([0.25])
    """

    metadata: dict[str, Any] = {**GoalReachingEnv.metadata, "render_fps": round(1 / TIME_STEP)}

    def __init__(self, render_mode: str | None = None) -> None:
        low, high = np.array([MIN_POSITION, -MAX_SPEED]), np.array([MAX_POSITION, MAX_SPEED])
        states = gymnasium.spaces.Box(low, high, dtype=np.float64)
        super().__init__(
            state_space=states,
            goal_space=states,
            action_space=gymnasium.spaces.Box(-MAX_FORCE, MAX_FORCE, (1,)),
            render_mode=render_mode,
        )

    def draw_state(self) -> np.ndarray:
        return np.array(START)

    def draw_goal(self) -> np.ndarray:
        return np.array(GOAL)

    def next_state(self, action: np.ndarray) -> np.ndarray:
        position, velocity = self.state
        acceleration = action[0] / MASS - GRAVITY * MASS * np.cos(3.0 * position) - FRICTION * velocity
        velocity += acceleration * TIME_STEP
        position += velocity * TIME_STEP
        velocity = np.clip(velocity, -MAX_SPEED, MAX_SPEED)
        position = np.clip(position, MIN_POSITION, MAX_POSITION)
        if position <= MIN_POSITION and velocity < 0.0:
            velocity = 0.0
        return np.array([position, velocity])

    def distance(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return np.linalg.norm(state - goal, axis=-1)

    def draw_frame(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        canvas = drawing.Canvas(x_range=(-1.3, 0.7), y_range=(-1.25, 1.45))
        track = np.linspace(MIN_POSITION, MAX_POSITION, 100)
        canvas.line(track, np.sin(3 * track), color=drawing.INK)
        canvas.circle(goal[0], np.sin(3 * goal[0]), radius=0.05, color=drawing.GOAL)
        canvas.circle(state[0], np.sin(3 * state[0]) + 0.07, radius=0.07, color=drawing.AGENT)
        return canvas.image()
