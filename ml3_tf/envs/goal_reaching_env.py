"""The base class of the environments: a task is a start and a goal, and every number is checked."""

from collections.abc import Mapping
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Space
from numpy.typing import ArrayLike

# Far beyond every position and velocity of a sound simulation. MuJoCo warns of accelerations above 1e10. Within a step
# of 0.01 s they lead to velocities far above this number, so this check finds such a simulation some steps earlier.
MAX_NUMBER = 1e4


class GoalReachingEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """Base class of environments whose task is an initial state and a goal.

    `reset(options={"state": ..., "goal": ...})` sets the task; the parts that you leave out are drawn. The attribute
    `task` holds the defaults of `options`. A vector environment passes the same options to all of its environments. To
    give each its own task, set `task` before `reset`: `envs.set_attr("task", [{"state": ..., "goal": ...}, ...])`.

    No state ends an episode, so all trajectories of a horizon have the same length. `info` holds `goal` and `distance`;
    the reward is `-distance`. Actions beyond their limits are clipped. A subclass gives the spaces and the methods that
    raise `NotImplementedError` here. The functions of states and goals (`distance`, `observation`, `info`) take any
    leading axes, because `BatchedGoalEnv` calls them for many environments at once.

    Args:
        state_space: The states that an episode can start in.
        goal_space: The goals that can be reached.
        action_space: The actions. A step clips others to it.
        observation_space: The observations. `None`: the states, as float32.
        render_mode: `"rgb_array"` or `None`.

    Raises:
        ValueError: In `reset` and `step`: a state, goal or action has the wrong width, is not finite, or (states and
            goals) lies beyond its limits.
        FloatingPointError: In `step`: the simulation diverged. Do not learn from the episode.
        RuntimeError: In `step`: `reset` was not called before.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        *,
        state_space: Box,
        goal_space: Box,
        action_space: Box,
        observation_space: Box | None = None,
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"`render_mode` must be 'rgb_array' or None. Received: render_mode={render_mode!r}")
        self.state_space = state_space
        self.goal_space = goal_space
        self.action_space: Space[np.ndarray] = action_space
        self.action_size: int = action_space.shape[0]
        self._action_limits = action_space.low, action_space.high
        self._finite_actions = Box(-np.inf, np.inf, action_space.shape, np.float64)
        self.observation_space: Space[np.ndarray] = observation_space or Box(
            state_space.low.astype(np.float32), state_space.high.astype(np.float32)
        )
        self.render_mode: str | None = render_mode
        self.task: dict[str, Any] = {}
        self.state: np.ndarray = np.full(state_space.shape, np.nan)
        self.goal: np.ndarray = np.full(goal_space.shape, np.nan)
        self._needs_reset = True

    def draw_state(self) -> np.ndarray:
        """Returns a start `[S]` for an episode whose task has no state."""
        raise NotImplementedError

    def draw_goal(self) -> np.ndarray:
        """Returns a goal `[G]` for an episode whose task has no goal."""
        raise NotImplementedError

    def next_state(self, action: np.ndarray) -> np.ndarray:
        """Returns the state `[S]` one step after `state`, for an action `[A]` within its limits."""
        raise NotImplementedError

    def distance(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Returns the distance `[...]` of states `[..., S]` to goals `[..., G]`."""
        raise NotImplementedError

    def draw_frame(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Returns an image `[height, width, 3]`, uint8, of one state `[S]` and goal `[G]`."""
        raise NotImplementedError

    def observation(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Returns the observations `[..., O]`, float32, of states `[..., S]` and goals `[..., G]`."""
        return state.astype(np.float32)

    def info(self, state: np.ndarray, goal: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the `info` of `reset` and `step`, for states `[..., S]` and goals `[..., G]`."""
        return {"goal": goal.astype(np.float32), "distance": self.distance(state, goal)}

    def check_state(self, state: ArrayLike) -> np.ndarray:
        """Returns the state as an array; raises `ValueError` if no episode can start in it."""
        return checked("state", state, self.state_space)

    def check_goal(self, goal: ArrayLike) -> np.ndarray:
        """Returns the goal as an array; raises `ValueError` if it cannot be reached."""
        return checked("goal", goal, self.goal_space, "Goals beyond these limits cannot be reached.")

    def clip_actions(self, actions: np.ndarray) -> np.ndarray:
        """Returns actions `[..., A]`, clipped to their limits."""
        return np.clip(actions, *self._action_limits)

    def start(self, state: np.ndarray) -> None:
        """Puts the simulation into a state."""
        self.state = state

    def choose_task(self, task: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Returns state and goal of an episode: those of `task`, checked; the parts that it leaves out are drawn."""
        if not task.keys() <= {"state", "goal"}:
            raise ValueError(f"`options` must hold 'state', 'goal' or nothing. Received: {sorted(task)}")
        state, goal = task.get("state"), task.get("goal")
        goal = self.draw_goal() if goal is None else self.check_goal(goal)
        return self.draw_state() if state is None else self.check_state(state), goal

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; see `GoalReachingEnv` for `options`."""
        super().reset(seed=seed)
        state, self.goal = self.choose_task({**self.task, **(options or {})})
        self.start(state)
        self._needs_reset = False
        return self.observation(self.state, self.goal), self.info(self.state, self.goal)

    def step(self, action: ArrayLike) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        """Takes one step; returns observation, reward, `False`, `False` and info."""
        if self._needs_reset:
            raise RuntimeError(
                "`step` was called before `reset`, or after the simulation diverged. Call `reset` first."
            )
        action = checked("action", action, self._finite_actions)
        state = self.next_state(self.clip_actions(action))
        if diverged(state):
            self._needs_reset = True
            raise FloatingPointError(
                f"The simulation diverged: the next state is not finite after state={self.state} and action={action}. "
                "Do not learn from this episode; call `reset`."
            )
        self.state = state
        info = self.info(state, self.goal)
        return self.observation(state, self.goal), -info["distance"], False, False, info

    def render(self) -> np.ndarray | None:
        """Returns an image `[height, width, 3]`, uint8, of the present state."""
        if self.render_mode is None:
            gymnasium.logger.warn("Nothing is drawn: make the environment with render_mode='rgb_array'.")
            return None
        return self.draw_frame(self.state, self.goal)


def diverged(states: np.ndarray) -> np.ndarray:
    """Says which of the states `[..., S]` are not finite, or far beyond all limits: `[...]`, bool."""
    return ~np.all(np.abs(states) <= MAX_NUMBER, axis=-1)  # a comparison with NaN is false


def checked(name: str, value: ArrayLike, space: Box, remedy: str = "") -> np.ndarray:
    """Returns a value as a float64 array if it lies in a space.

    Args:
        name: Name of the value in errors.
        value: The value to check.
        space: Where it must lie.
        remedy: A sentence for the error about a value beyond the limits.

    Raises:
        ValueError: The value has another shape, is not finite, or lies beyond the limits of the space.
    """
    array = np.asarray(value, np.float64)
    if array.shape != space.shape:
        raise ValueError(f"`{name}` must have the shape {space.shape}. Received: shape {array.shape}, {name}={value}")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"`{name}` must be finite. Received: {name}={value}")
    if np.any(array < space.low) or np.any(array > space.high):
        limits = f"{space.low.tolist()} and {space.high.tolist()}"
        raise ValueError(f"`{name}` must lie between {limits}. {remedy} Received: {name}={value}".replace("  ", " "))
    return array
