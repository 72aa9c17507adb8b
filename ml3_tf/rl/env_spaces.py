"""The form that environments must have to be rolled out, and the lines of code that give it to others.

Shape letters: N environments, A action.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ml3_tf.arguments import TensorLike
from ml3_tf.rl.action_distributions import ActionDistribution, CategoricalActions, GaussianActions

if TYPE_CHECKING:
    import gymnasium


def env_name(env: Any) -> str:
    """Returns the registered name of an environment, or the name of its class."""
    return env.spec.id if getattr(env, "spec", None) else type(env).__name__


def check_vector(env: Any, name: str = "env") -> None:
    """Raises `ValueError`, with the remedy, unless `env` is a vector that rollouts can learn from.

    Args:
        env: Expected: an open `gymnasium.vector.VectorEnv` that starts the next episode a step after the end of one,
            whose observations are vectors, and whose actions are vectors or choices.
        name: Name of the argument in errors.
    """
    if not hasattr(env, "num_envs"):
        or_simulator = "a `Simulator` or " if name == "simulator" else ""
        received = f"{env_name(env)}, a single one. {vector_lines(env)}" if hasattr(env, "reset") else repr(env)
        raise ValueError(
            f"`{name}` must be {or_simulator}a vector of environments, one for each episode that is rolled out at "
            f"once. Received: {received}"
        )
    vector = getattr(env, "unwrapped", env)  # wrappers have a `closed` of their own
    if getattr(vector, "closed", False):
        raise ValueError(
            f"`{name}` must be open: expected a vector that was made anew. Received: {env_name(env)}, closed"
        )
    mode = env.metadata.get("autoreset_mode")
    if getattr(mode, "name", None) in ("SAME_STEP", "DISABLED"):
        raise ValueError(
            f"`{name}` must start the next episode in the step after the end of one, as gymnasium does by default: "
            "else it hides the last observation, or takes no further step. "
            f"Received: autoreset_mode={mode}. {vector_lines(env)}"
        )
    if getattr(vector, "shared_memory", True) is False:
        raise ValueError(
            f"`{name}` must be made with `shared_memory=True`, gymnasium's default: without it a `reset` does not undo "
            "the end of an episode, and the first step after it is lost. "
            f"Received: {env_name(env)}, shared_memory=False"
        )
    shape = env.single_observation_space.shape
    if shape is None or len(shape) != 1:
        flat = vector_lines(env, "gymnasium.wrappers.FlattenObservation({0})")
        raise ValueError(
            f"`{name}` must have observations that are vectors. Received: {env.single_observation_space}. {flat}"
        )
    _check_action_space(env, name)


def check_distribution(distribution: ActionDistribution, env: gymnasium.vector.VectorEnv) -> None:
    """Raises `ValueError`, with a policy that fits, if a policy acts in another way than the environments expect."""
    space: Any = env.single_action_space
    discrete = is_discrete(env)
    width = int(space.n) if discrete else space.shape[0]
    expected = CategoricalActions(width) if discrete else GaussianActions(width)
    if distribution != expected:
        observations: Any = env.single_observation_space
        built = f"{'Categorical' if discrete else 'Gaussian'}Policy({observations.shape[0]}, {width})"
        raise ValueError(
            f"The policy must act as the environments expect, by {expected}. Received: {distribution}, for "
            f"{env_name(env)} with the action space {space}. Build the policy by\n    policy = lambda: {built}"
        )


def is_discrete(env: gymnasium.vector.VectorEnv) -> bool:
    """Returns whether an action of each environment is one choice out of some."""
    from gymnasium.spaces import Discrete

    return isinstance(env.single_action_space, Discrete)


def as_actions(actions: TensorLike, env: gymnasium.vector.VectorEnv) -> np.ndarray:
    """Returns the actions of a policy in the form that trajectories hold: `[N, A]`; discrete ones are one-hot.

    Args:
        actions: `[N, A]`. Discrete ones may also be integers `[N]`, those of the environments' `Discrete` space.
        env: `gymnasium.vector.VectorEnv` of N environments.

    Raises:
        ValueError: Another shape, or rows that are not one-hot; not for NaN, which `CheckedEnv.step` refuses.

    Example:

    >>> import gymnasium
    >>> as_actions(np.array([1, 0]), gymnasium.make_vec("CartPole-v1", num_envs=2)).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    received: np.ndarray = np.asarray(actions)
    space: Any = env.single_action_space
    if not is_discrete(env):
        if received.shape != (expected := (env.num_envs, *space.shape)):
            raise ValueError(
                f"`policy` must return actions of shape {expected} for {env_name(env)}. Received: shape "
                f"{received.shape}. Pass `policy.mean` for the actions of a `GaussianPolicy`."
            )
        return received
    rows = np.eye(space.n, dtype=np.float32)
    if received.shape == (env.num_envs,) and received.dtype.kind in "iu":
        chosen = received - space.start
        if np.all((chosen >= 0) & (chosen < space.n)):
            return rows[chosen]
    elif received.shape == (env.num_envs, space.n):
        if np.all((received == rows[np.argmax(received, 1)]) | np.isnan(received)):
            return received
    raise ValueError(
        f"`policy` must return choices for {env_name(env)}, whose action space is {space}: integers of shape "
        f"{(env.num_envs,)}, or one-hot rows of shape {(env.num_envs, int(space.n))}. Received: shape "
        f"{received.shape}, dtype {received.dtype}. Pass `policy.mode` for the actions of a `CategoricalPolicy`."
    )


def as_env_actions(actions: np.ndarray, env: gymnasium.vector.VectorEnv) -> np.ndarray:
    """Returns actions in the form that the environments take: integers `[N]` if they are discrete.

    Args:
        actions: `[N, A]`, as `as_actions` returns them.
        env: `gymnasium.vector.VectorEnv` of N environments.
    """
    space: Any = env.single_action_space
    return np.argmax(actions, 1) + space.start if is_discrete(env) else actions


def vector_lines(env: Any, wrapped: str = "{0}") -> str:
    """Returns the two lines of code that make a vector of environments, as the end of an error.

    Args:
        env: The environment, single or a vector, that was received.
        wrapped: The code of a wrapper, with `{0}` in place of the environment.
    """
    made = f'gymnasium.make("{env.spec.id}")' if getattr(env, "spec", None) else f"{type(env).__name__}(...)"
    vector = f"gymnasium.vector.SyncVectorEnv([make] * {getattr(env, 'num_envs', 'N')})"
    return f"Make it by\n    make = lambda: {wrapped.format(made)}\n    env = {vector}"


def _check_action_space(env: Any, name: str) -> None:
    from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

    space: Any = env.single_action_space
    if isinstance(space, Discrete) or (isinstance(space, Box) and len(space.shape) == 1):
        return
    function, flat = "function", "space"  # those that the reader has to write
    if isinstance(space, Box):
        function, flat = f"lambda a: a.reshape({space.shape})", "gymnasium.spaces.flatten_space({0}.action_space)"
    elif isinstance(space, (MultiDiscrete, MultiBinary)) and len(space.shape) == 1:
        sizes = [2] * space.shape[0] if isinstance(space, MultiBinary) else space.nvec.tolist()
        function = f"lambda a: np.array(np.unravel_index(a, {sizes}))"
        flat = f"gymnasium.spaces.Discrete({int(np.prod(sizes))})"
    lines = vector_lines(env, f"gymnasium.wrappers.TransformAction({{0}}, {function}, {flat})")
    raise ValueError(
        f"`{name}` must have actions that are vectors, `Box` of shape (A,), or choices, `Discrete`. Received: {space}. "
        f"{lines}"
    )
