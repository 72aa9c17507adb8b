"""What the environments share: a task is a start and a goal, and what cannot be learned from is refused."""

import gymnasium
import numpy as np

# No position or velocity comes near it. MuJoCo warns of accelerations beyond 1e10: within a step of 0.01 s they lead to
# velocities far beyond this, so that what it finds bad is found here as well, and some steps earlier.
MAX_NUMBER = 1e4


class GoalEnv(gymnasium.Env):
    """Base class of environments whose task is an initial state and a goal.

    `reset(options={"state": ..., "goal": ...})` sets the task; what is left out is drawn. The attribute `task` holds
    the defaults of `options`. A vector environment hands the same options to all; for a task each, set `task` before
    its `reset`: `envs.set_attr("task", [{"state": ..., "goal": ...}, ...])`.

    No state ends an episode: all trajectories of a horizon are equally long. `info` holds `goal` and `distance`, the
    reward is `-distance`. Actions beyond their limits are clipped. A subclass gives the spaces and the methods that
    raise `NotImplementedError` here. What is told about states and goals (`distance`, `observation`, `info`) takes any
    leading axes: `ml3_tf.envs.batched` uses the same lines.

    Args:
        state_space: `gymnasium.spaces.Box` of the states that an episode can start in.
        goal_space: The same of the goals that can be reached.
        action_space: The same of the actions.
        observation_space: The same of the observations. `None`: the states.
        render_mode: `"rgb_array"` or `None`.

    Raises:
        ValueError: In `reset` and `step`: a state, goal or action of another width, not finite or beyond its limits.
        FloatingPointError: In `step`: the simulation diverged. Nothing should be learned from the episode.
        RuntimeError: In `step`: no `reset` came before it.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, state_space, goal_space, action_space, observation_space=None, render_mode=None):
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"`render_mode` must be 'rgb_array' or None. Received: render_mode={render_mode!r}")
        self.state_space = state_space
        self.goal_space = goal_space
        self.action_space = action_space
        self._finite_actions = gymnasium.spaces.Box(-np.inf, np.inf, action_space.shape, np.float64)
        self.observation_space = observation_space or gymnasium.spaces.Box(
            state_space.low.astype(np.float32), state_space.high.astype(np.float32)
        )
        self.render_mode = render_mode
        self.task = {}
        self.state = None
        self.goal = None

    def draw_state(self):
        """A start `[S]` for an episode that names none."""
        raise NotImplementedError

    def draw_goal(self):
        """A goal `[G]` for an episode that names none."""
        raise NotImplementedError

    def next_state(self, action):
        """The state `[S]` one step after `state`, for an action within its limits."""
        raise NotImplementedError

    def distance(self, state, goal):
        """Distance `[...]` of states `[..., S]` to goals `[..., G]`."""
        raise NotImplementedError

    def draw_frame(self, state, goal):
        """An image `[height, width, 3]`, uint8, of one state."""
        raise NotImplementedError

    def observation(self, state, goal):
        """What the policy sees of states `[..., S]` and goals `[..., G]`, `[..., O]`, float32."""
        return state.astype(np.float32)

    def info(self, state, goal):
        """What `reset` and `step` tell beside the observation, of states `[..., S]` and goals `[..., G]`."""
        return {"goal": goal.astype(np.float32), "distance": self.distance(state, goal)}

    def check_state(self, state):
        """Returns the state as an array, or raises a `ValueError` about one that no episode can start in."""
        return checked("state", state, self.state_space)

    def check_goal(self, goal):
        """Returns the goal as an array, or raises a `ValueError` about one that cannot be reached."""
        return checked("goal", goal, self.goal_space, "Outside lies what cannot be reached.")

    def start(self, state):
        """Puts the simulation into a state."""
        self.state = state

    def choose_task(self, task):
        """Returns state and goal of an episode: those of a dict, checked; what it leaves out is drawn."""
        if not task.keys() <= {"state", "goal"}:
            raise ValueError(f"`options` must hold 'state', 'goal' or nothing. Received: {sorted(task)}")
        state, goal = task.get("state"), task.get("goal")
        goal = self.draw_goal() if goal is None else self.check_goal(goal)
        return self.draw_state() if state is None else self.check_state(state), goal

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        state, self.goal = self.choose_task({**self.task, **(options or {})})
        self.start(state)
        return self.observation(self.state, self.goal), self.info(self.state, self.goal)

    def step(self, action):
        if self.state is None:
            raise RuntimeError(
                "`step` was called before `reset`, or after the simulation diverged. Call `reset` first."
            )
        action = checked("action", action, self._finite_actions)
        state = self.next_state(np.clip(action, self.action_space.low, self.action_space.high))
        if diverged(state):
            received, self.state = self.state, None
            raise FloatingPointError(
                f"The simulation diverged: no finite state follows state={received} and action={action}. "
                "Learn nothing from this episode; call `reset`."
            )
        self.state = state
        info = self.info(state, self.goal)
        return self.observation(state, self.goal), -info["distance"], False, False, info

    def render(self):
        if self.render_mode is None:
            gymnasium.logger.warn("Nothing is drawn: make the environment with render_mode='rgb_array'.")
            return None
        return self.draw_frame(self.state, self.goal)


def diverged(states):
    """Which of the states `[..., S]` no simulation should have come to: not finite, or far beyond all limits."""
    return ~np.all(np.abs(states) <= MAX_NUMBER, axis=-1)  # a comparison with NaN is false


def checked(name, value, space, remedy=""):
    """Returns `value` as float64 if it lies in a `gymnasium.spaces.Box`; raises a `ValueError` that names it if not."""
    array = np.asarray(value, np.float64)
    if array.shape != space.shape:
        raise ValueError(f"`{name}` must have the shape {space.shape}. Received: shape {array.shape}, {name}={value}")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"`{name}` must be finite. Received: {name}={value}")
    if np.any(array < space.low) or np.any(array > space.high):
        limits = f"{space.low.tolist()} and {space.high.tolist()}"
        raise ValueError(f"`{name}` must lie between {limits}. {remedy} Received: {name}={value}".replace("  ", " "))
    return array
