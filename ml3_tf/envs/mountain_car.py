"""MountainCarGoal: a car too weak for its hill, as a gymnasium environment and as differentiable TensorFlow.

Section 4.2 of ML3; the constants and the order of the limits are those of its public reference.
"""

import gymnasium
import numpy as np
import tensorflow as tf

from ml3_tf.envs import drawing
from ml3_tf.envs.goal_env import GoalEnv

MASS = 0.2  # kg
GRAVITY = 9.8  # m/s^2
FRICTION = 0.3  # 1/s
TIME_STEP = 0.1  # s
MAX_FORCE = 0.25  # N
MAX_SPEED = 1.5  # m/s
MIN_POSITION = -1.2  # m
MAX_POSITION = 0.5  # m

START = (-0.55, 0.0)
GOAL = (0.5, 1.0375)
# On the way to it: a place high on the opposite slope, where the car has to turn.
INTERMEDIATE_GOAL = (-0.947, -0.0055)


def mountain_car_step(states, actions, action_clip=tf.clip_by_value, state_clip=tf.clip_by_value):
    """The state one step later: the equations of `MountainCarGoalEnv`, differentiable.

    `v' = v + (u / m - g m cos 3x - k v) dt`, `x' = x + v' dt`, then the limits. A car at the left wall stops.

    What exceeds a limit has no gradient by default, which is the truth but no help: a policy that asks for more than
    `MAX_FORCE` learns nothing. Squash its output (`MAX_FORCE * tanh`), or hand over `straight_through_clip`, which lets
    gradients pass. ML3's public reference does the latter for the state alone.

    Args:
        states: `[..., 2]`, position (m) and velocity (m/s).
        actions: `[..., 1]`, force (N).
        action_clip: Function `(values, low, high) -> values` that limits the force.
        state_clip: The same for velocity and position.

    Returns:
        `[..., 2]`.

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


def straight_through_clip(values, low, high):
    """`tf.clip_by_value` whose gradient is 1 everywhere."""
    return values + tf.stop_gradient(tf.clip_by_value(values, low, high) - values)


class MountainCarGoalEnv(GoalEnv):
    """A car in a valley has to swing to the left to get up the hill on the right.

    | column | state | unit | from | to |
    |---|---|---|---|---|
    | 0 | position along the track, whose height is `sin 3x` | m | -1.2 | 0.5 |
    | 1 | velocity | m/s | -1.5 | 1.5 |

    | column | action | unit | from | to |
    |---|---|---|---|---|
    | 0 | force | N | -0.25 | 0.25 |

    A goal is a state; the distance to it is Euclidean, over both columns. Without options an episode starts at rest in
    the valley, at -0.55 m, with the goal of ML3: the right end at 1.0375 m/s. A step lasts 0.1 s, an episode 35 steps.

    Example:

    >>> import gymnasium, ml3_tf.envs
    >>> env = gymnasium.make("ml3_tf/MountainCarGoal-v0")
    >>> state, info = env.reset(options={"state": [-0.5, 0.0]})
    >>> state, reward, terminated, truncated, info = env.step([0.25])
    """

    metadata = {**GoalEnv.metadata, "render_fps": round(1 / TIME_STEP)}

    def __init__(self, render_mode=None):
        limits = np.array([[MIN_POSITION, -MAX_SPEED], [MAX_POSITION, MAX_SPEED]])
        states = gymnasium.spaces.Box(*limits, dtype=np.float64)
        super().__init__(states, states, gymnasium.spaces.Box(-MAX_FORCE, MAX_FORCE, (1,)), render_mode=render_mode)

    def draw_state(self):
        return np.array(START)

    def draw_goal(self):
        return np.array(GOAL)

    def next_state(self, action):
        position, velocity = self.state
        acceleration = action[0] / MASS - GRAVITY * MASS * np.cos(3.0 * position) - FRICTION * velocity
        velocity += acceleration * TIME_STEP
        position += velocity * TIME_STEP
        velocity = np.clip(velocity, -MAX_SPEED, MAX_SPEED)
        position = np.clip(position, MIN_POSITION, MAX_POSITION)
        if position <= MIN_POSITION and velocity < 0.0:
            velocity = 0.0
        return np.array([position, velocity])

    def distance(self, state, goal):
        return np.linalg.norm(state - goal, axis=-1)

    def draw_frame(self, state, goal):
        canvas = drawing.Canvas(x_range=(-1.3, 0.7), y_range=(-1.25, 1.45))
        track = np.linspace(MIN_POSITION, MAX_POSITION, 100)
        canvas.line(track, np.sin(3 * track), drawing.INK)
        canvas.circle(goal[0], np.sin(3 * goal[0]), 0.05, drawing.GOAL)
        canvas.circle(state[0], np.sin(3 * state[0]) + 0.07, 0.07, drawing.AGENT)
        return canvas.image()
