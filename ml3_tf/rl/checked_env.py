"""Real environments whose every answer is checked, so that nothing is learned from a broken one.

Shape letters: N environments, O observation, A action, G goal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ml3_tf.rl.env_spaces import as_env_actions, check_vector, env_name, vector_lines
from ml3_tf.rl.worker_processes import close_failed, has_workers, watch_workers, worker_failure

if TYPE_CHECKING:
    import gymnasium

SPACE_TOLERANCE = 1e-4  # relative and absolute: environments round


class RolloutError(RuntimeError):
    """A rollout failed, and nothing was learned from it.

    Its message names the environment, the seed, the step and what came.

    Args:
        message: The message.
        diverged: Whether the simulation or the policy diverged, so that a `reset` repairs all. Otherwise the
            environment is at fault, and has been closed.

    Example:

    >>> raise RolloutError("The simulation diverged.", diverged=True)
    Traceback (most recent call last):
    ml3_tf.rl.checked_env.RolloutError: The simulation diverged.
    """

    def __init__(self, message: str, *, diverged: bool = False) -> None:
        super().__init__(message)
        self.diverged: bool = diverged


class CheckedEnv:
    """A vector of environments for one episode in each.

    Values are checked while an episode lasts: a vector starts the next one by itself, and that is not looked at.

    Args:
        env: `gymnasium.vector.VectorEnv` of N environments.
        seed: Seed of the reset, or one for each environment, see `gymnasium.vector.VectorEnv.reset`.

    Raises:
        ValueError: An environment that is not a vector, that starts the next episode within a step, or whose
            observations or actions are not vectors or choices; in `reset`, one that takes a single seed received many.
        RolloutError: In `reset` and `step`: an answer that is not gymnasium's, values that are not finite or not in
            the observation space, actions that are not finite; an exception in `step`; a worker of an
            `AsyncVectorEnv` that raised or died.

    Example:

    >>> import gymnasium, ml3_tf.envs
    >>> cars = CheckedEnv(gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=3, vectorization_mode="sync"))
    >>> observations, goal = cars.reset()
    >>> observations, rewards = cars.step(np.full((3, 1), 0.2))
    >>> observations.shape, rewards.shape, cars.alive.tolist()
    ((3, 2), (3,), [True, True, True])
    """

    def __init__(self, env: gymnasium.vector.VectorEnv, seed: int | Sequence[int] | None = None) -> None:
        check_vector(env)
        watch_workers(env)
        self._env: Any = env
        self._seed = seed
        self._step = 0
        self._last = np.zeros(0)
        self.alive: np.ndarray = np.ones(env.num_envs, bool)

    def reset(self, options: dict[str, Any] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Starts the episodes. Returns observations `[N, O]`, and goals `[N, G]`: `info["goal"]`, if there is one."""
        answer = self._seeded_reset(options)
        if not isinstance(answer, tuple) or len(answer) != 2:
            self._fail(f"`reset` must return observations and info. Received: {_described(answer)}")
        observations, info = answer
        self._step, self.alive = 0, np.ones(self._env.num_envs, bool)
        self._last = self._checked_observations(observations)
        if "goal" not in info:
            return self._last, np.zeros((self._env.num_envs, 0))
        goal = np.asarray(info["goal"])
        if goal.ndim != 2 or len(goal) != self._env.num_envs or goal.dtype.kind not in "fiu":
            self._fail(
                f"`info['goal']` must be numbers of shape [{self._env.num_envs}, G]. Received: {_described(goal)}"
            )
        self._require(np.isfinite(goal).all(1), "goals are not finite", goal)
        return self._last, goal

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes a step.

        Args:
            actions: `[N, A]`, as `as_actions` returns them.

        Returns:
            Observations `[N, O]`, after the end of an episode its last one; rewards `[N]`, then 0. `alive` tells which
            episodes go on.
        """
        self._step += 1
        self._require(np.isfinite(actions).all(1), "actions of the policy are not finite", actions, diverged=True)
        try:
            answer = self._env.step(as_env_actions(actions, self._env))
        except Exception as error:
            # A worker that raised has ended, so that a `reset` does not repair it.
            diverged = isinstance(error, FloatingPointError) and not has_workers(self._env)
            what = worker_failure(self._env, error) or f"raised {type(error).__name__}: {error}"
            self._fail(f"`step` {what}", diverged=diverged, cause=error)
        if not isinstance(answer, tuple) or len(answer) != 5:
            self._fail(
                "`step` must return observations, rewards, terminated, truncated and info. Received: "
                f"{_described(answer)}"
            )
        observations, rewards, terminated, truncated, _ = answer
        observations = self._checked_observations(observations)
        rewards = self._checked_numbers("rewards", rewards, "fiub")
        self._require(np.isfinite(rewards), "rewards are not finite", rewards, diverged=True)
        ended = [self._checked_numbers(*pair, "b") for pair in (("terminated", terminated), ("truncated", truncated))]
        self._last = np.where(self.alive[:, np.newaxis], observations, self._last)
        rewards = np.where(self.alive, rewards, 0)
        self.alive = self.alive & ~(ended[0] | ended[1])
        return self._last, rewards

    def _seeded_reset(self, options: dict[str, Any] | None) -> Any:
        from gymnasium.error import Error

        try:
            return self._env.reset(seed=self._seed, options=options)
        except Exception as error:
            if what := worker_failure(self._env, error):
                self._fail(f"`reset` {what}", cause=error)
            if not isinstance(error, Error) or not isinstance(self._seed, Sequence):
                raise
            raise ValueError(
                "`env` must take a seed for each of its environments; vectors that step all by one function take a "
                f"single one. Received: {type(self._env).__name__}. {vector_lines(self._env)}"
            ) from error

    def _checked_observations(self, received: Any) -> np.ndarray:
        """Returns observations `[N, O]`, float32."""
        space, number = self._env.single_observation_space, self._env.num_envs
        observations, expected = np.asarray(received), (number, *space.shape)
        if observations.shape != expected or observations.dtype.kind not in "fiub":
            self._fail(
                f"observations must be numbers of the shape of the observation space, {expected}. Received: "
                f"{_described(observations)}"
            )
        self._require(np.isfinite(observations).all(1), "observations are not finite", observations, diverged=True)
        if hasattr(space, "low"):
            slack = SPACE_TOLERANCE * (1 + np.abs(observations))
            inside = (observations >= space.low - slack) & (observations <= space.high + slack)
            self._require(inside.all(1), "observations are not in the observation space", observations)
        return observations.astype(np.float32)

    def _checked_numbers(self, name: str, received: Any, kinds: str) -> np.ndarray:
        """Returns values `[N]` of a NumPy dtype of these kinds."""
        values, expected = np.asarray(received), (self._env.num_envs,)
        if values.shape != expected or values.dtype.kind not in kinds:
            what = "booleans" if kinds == "b" else "numbers"
            self._fail(f"{name} must be {what} of shape {expected}. Received: {_described(values)}")
        return values

    def _require(self, right: Any, what: str, values: np.ndarray, *, diverged: bool = False) -> None:
        wrong = np.flatnonzero(~right & self.alive)
        if wrong.size:
            shown = np.array2string(np.asarray(values[wrong[0]]), threshold=8)
            self._fail(f"{what} in environment(s) {wrong.tolist()}. Received in the first: {shown}", diverged=diverged)

    def _fail(self, what: str, *, diverged: bool = False, cause: Exception | None = None) -> NoReturn:
        """Raises a `RolloutError`. An environment at fault is closed, whatever that raises."""
        where = f"{env_name(self._env)}, seed={self._seed}, {f'step {self._step}' if self._step else 'reset'}: {what}"
        advice = (
            "Bound the actions, or shorten the time step of the simulation."
            if diverged
            else "The environment has been closed."
        )
        if not diverged:
            close_failed(self._env)
        error = RolloutError(
            f"{where.removesuffix('.')}. Nothing was learned from these episodes. {advice}", diverged=diverged
        )
        raise error from cause


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"shape {value.shape}, dtype {value.dtype}"
    return f"{len(value)} results" if isinstance(value, tuple) else type(value).__name__
