"""PointmassGoal: a mass on a plane that is pushed to a goal, as an environment and as differentiable TensorFlow.

Section 4.1 and appendix B of ML3, which name the state (position, velocity) and the action (acceleration); the numbers
are ours.
"""

import gymnasium
import numpy as np
import tensorflow as tf

from ml3_tf.envs import drawing
from ml3_tf.envs.goal_env import GoalEnv

TIME_STEP = 0.1  # s
MAX_ACCELERATION = 1.0  # m/s^2, along each axis
# A mass that rests at the origin gets 1.56 m far, and comes to rest there, within the 25 steps of an episode.
MAX_GOAL = 1.5  # m, along each axis
# Walls and speeds that no episode of 25 steps from the origin meets; they keep longer ones bounded.
MAX_POSITION = 4.0  # m
MAX_SPEED = 4.0  # m/s, along each axis


def pointmass_step(states, actions, action_clip=tf.clip_by_value, state_clip=tf.clip_by_value):
    """The state one step later: the equations of `PointmassGoalEnv`, differentiable.

    `v' = v + a dt`, `x' = x + v' dt`, then the limits. What exceeds a limit has no gradient by default; see
    `ml3_tf.envs.mountain_car.mountain_car_step` for the choices.

    Args:
        states: `[..., 4]`, position (m) and velocity (m/s).
        actions: `[..., 2]`, acceleration (m/s^2).
        action_clip: Function `(values, low, high) -> values` that limits the acceleration.
        state_clip: The same for velocity and position.

    Returns:
        `[..., 4]`.

    Example:

    >>> print(pointmass_step(tf.constant([0.0, 0.0, 1.0, 0.0]), tf.constant([0.0, 1.0])).numpy().round(3))
    [0.1  0.01 1.   0.1 ]
    """
    velocity = states[..., 2:] + action_clip(actions, -MAX_ACCELERATION, MAX_ACCELERATION) * TIME_STEP
    position = states[..., :2] + velocity * TIME_STEP
    velocity = state_clip(velocity, -MAX_SPEED, MAX_SPEED)
    position = state_clip(position, -MAX_POSITION, MAX_POSITION)
    return tf.concat([position, velocity], -1)


class PointmassGoalEnv(GoalEnv):
    """A mass slides on a plane without friction.

    | column | state | unit | from | to |
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
    >>> state, info = env.reset(options={"goal": [-1.0, 0.5]})
    >>> state, reward, terminated, truncated, info = env.step([-1.0, 0.5])
    """

    metadata = {**GoalEnv.metadata, "render_fps": round(1 / TIME_STEP)}

    def __init__(self, render_mode=None):
        limits = np.array([MAX_POSITION, MAX_POSITION, MAX_SPEED, MAX_SPEED])
        super().__init__(
            state_space=gymnasium.spaces.Box(-limits, limits, dtype=np.float64),
            goal_space=gymnasium.spaces.Box(-MAX_GOAL, MAX_GOAL, (2,), np.float64),
            action_space=gymnasium.spaces.Box(-MAX_ACCELERATION, MAX_ACCELERATION, (2,)),
            render_mode=render_mode,
        )

    def draw_state(self):
        return np.zeros(4)

    def draw_goal(self):
        return self.np_random.uniform(-MAX_GOAL, MAX_GOAL, 2)

    def next_state(self, action):
        velocity = self.state[2:] + action * TIME_STEP
        position = self.state[:2] + velocity * TIME_STEP
        velocity = np.clip(velocity, -MAX_SPEED, MAX_SPEED)
        return np.concatenate([np.clip(position, -MAX_POSITION, MAX_POSITION), velocity])

    def distance(self, state, goal):
        return np.linalg.norm(state[..., :2] - goal, axis=-1)

    def draw_frame(self, state, goal):
        canvas = drawing.Canvas(x_range=(-1.8, 1.8), y_range=(-1.8, 1.8))
        canvas.circle(*goal, 0.07, drawing.GOAL)
        ahead = state[:2] + 0.3 * state[2:]
        canvas.line(*zip(state[:2], ahead), drawing.INK)
        canvas.circle(*state[:2], 0.07, drawing.AGENT)
        return canvas.image()
