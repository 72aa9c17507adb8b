"""Tests of `ml3_tf.rl.checked_env`: each fault of an environment is named, and nothing is learned from it."""

import gymnasium
import numpy as np
import pytest

import ml3_tf.envs  # noqa: F401 - registers the environments
from ml3_tf.rl.checked_env import CheckedEnv, RolloutError
from ml3_tf.rl.rollouts import rollout_env


class Walk(gymnasium.Env):
    """A walk on a line, which ends after some steps."""

    observation_space = gymnasium.spaces.Box(-10.0, 10.0, (2,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, length=10):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {"goal": np.ones(1)}

    def step(self, action):
        self.steps += 1
        return np.full(2, self.steps, np.float32), 1.0, self.steps == self.length, False, {}


class Vector(gymnasium.vector.SyncVectorEnv):
    """Two walks, of which the answers of one step go through a function."""

    def __init__(self, spoil, at=2, lengths=(10, 10)):
        super().__init__([lambda n=n: Walk(n) for n in lengths])
        self.spoil, self.at, self.count = spoil, at, 0

    def reset(self, **arguments):
        answer = super().reset(**arguments)
        return self.spoil(*answer) if self.at == 0 else answer

    def step(self, actions):
        self.count += 1
        answer = super().step(actions)
        return self.spoil(*answer) if self.count == self.at else answer


def roll_out(env, horizon=4, action=0.5):
    return rollout_env(lambda observations: np.full((2, 1), action), env, horizon=horizon, seed=7)


def spoil_one(position, value):
    """Returns a function of the five answers that puts a value into one of them, for the second environment."""

    def spoil(*answer):
        values = [np.array(part, np.float64) if i < 2 else part for i, part in enumerate(answer)]
        values[position][1] = value
        return tuple(values)

    return spoil


BROKEN = {
    "four results": (lambda *answer: answer[:4], r"`step` must return .* truncated and info. Received: 4 results"),
    "no tuple": (lambda *answer: None, "`step` must return .* Received: NoneType"),
    "another width": (
        lambda observations, *rest: (observations[:, :1], *rest),
        r"observations must be numbers of the shape of the observation space, \(2, 2\). Received: shape \(2, 1\)",
    ),
    "words": (
        lambda observations, *rest: (observations.astype(str), *rest),
        "observations must be numbers of .* dtype <U",
    ),
    "outside": (
        spoil_one(0, 10.5),
        r"observations are not in the observation space in environment\(s\) \[1\]. Received .*: \[10.5 10.5\]",
    ),
    "rewards in a column": (
        lambda observations, rewards, *rest: (observations, rewards[:, None], *rest),
        r"rewards must be numbers of shape \(2,\). Received: shape \(2, 1\)",
    ),
    "no booleans": (
        lambda observations, rewards, terminated, *rest: (observations, rewards, terminated + 0.5, *rest),
        r"terminated must be booleans of shape \(2,\). Received: shape \(2,\), dtype float64",
    ),
}
DIVERGED = {
    "observation": (spoil_one(0, np.nan), r"observations are not finite in environment\(s\) \[1\]"),
    "infinite reward": (spoil_one(1, np.inf), r"rewards are not finite in environment\(s\) \[1\]. .*first: inf"),
}


@pytest.mark.parametrize("spoil, message", BROKEN.values(), ids=BROKEN)
def test_a_broken_environment_is_named_and_closed(spoil, message):
    env = Vector(spoil)
    with pytest.raises(RolloutError, match=f"Vector, seed=7, step 2: {message}.* Nothing was learned") as caught:
        roll_out(env)
    assert not caught.value.diverged
    assert env.closed


@pytest.mark.parametrize("spoil, message", DIVERGED.values(), ids=DIVERGED)
def test_a_simulation_that_diverges_is_named_and_stays_open(spoil, message):
    env = Vector(spoil)
    with pytest.raises(RolloutError, match=f"seed=7, step 2: {message}.* Bound the actions") as caught:
        roll_out(env)
    assert caught.value.diverged
    assert not env.closed
    assert roll_out(env).mask.all()


def test_an_exception_in_an_episode_is_passed_on():
    def spoil(*answer):
        raise OSError("the cable is loose")

    env = Vector(spoil)
    with pytest.raises(RolloutError, match="step 2: `step` raised OSError: the cable is loose") as caught:
        roll_out(env)
    assert isinstance(caught.value.__cause__, OSError)
    assert env.closed


def test_an_environment_that_cannot_be_closed_still_tells_what_came(monkeypatch):
    env = Vector(lambda *answer: None)
    monkeypatch.setattr(env, "close", lambda: 1 / 0)
    with pytest.raises(RolloutError, match="Received: NoneType"):
        roll_out(env)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda observations, info: observations, r"reset: `reset` must return observations and info. Received: shape"),
        (lambda observations, info: (observations[:1], info), r"reset: observations must be numbers .* \(2, 2\)"),
        (
            lambda observations, info: (observations, {"goal": np.ones(3)}),
            r"`info\['goal'\]` must be numbers of shape \[2, G\]. Received: shape \(3,\)",
        ),
        (lambda observations, info: (observations, {"goal": np.full((2, 1), np.nan)}), r"goals are not finite"),
    ],
)
def test_a_reset_is_checked(spoil, message):
    with pytest.raises(RolloutError, match=message):
        roll_out(Vector(spoil, at=0))


def test_actions_that_are_not_finite_do_not_reach_the_environment():
    env = Vector(None, at=None)
    with pytest.raises(RolloutError, match=r"step 1: actions of the policy are not finite in .* \[0, 1\]") as caught:
        roll_out(env, action=np.nan)
    assert caught.value.diverged
    assert env.count == 0


def test_rounding_at_the_edge_of_the_space_is_no_fault():
    assert roll_out(Vector(spoil_one(0, 10.0001))).mask.all()


def test_what_comes_after_the_end_of_an_episode_is_not_looked_at():
    env = Vector(spoil_one(0, np.nan), at=4, lengths=(10, 2))
    trajectory = roll_out(env, horizon=5)
    np.testing.assert_array_equal(trajectory.mask, [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    np.testing.assert_array_equal(trajectory.observations[1, :, 0], [0, 1, 2, 2, 2, 2])
    np.testing.assert_array_equal(trajectory.rewards[1], [1, 1, 0, 0, 0])


def test_an_environment_that_is_not_a_vector_is_refused():
    with pytest.raises(ValueError, match="must be a vector of environments.* Received: ml3_tf/MountainCarGoal-v0, a s"):
        CheckedEnv(gymnasium.make("ml3_tf/MountainCarGoal-v0"))


def test_a_vector_that_hides_the_last_observation_is_refused():
    mode = gymnasium.vector.AutoresetMode.SAME_STEP
    env = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=2, vector_kwargs={"autoreset_mode": mode})
    with pytest.raises(ValueError, match="it hides the last observation"):
        CheckedEnv(env)


def test_observations_that_are_not_vectors_are_refused():
    class Images(Walk):
        observation_space = gymnasium.spaces.Box(0, 1, (4, 4))

    with pytest.raises(ValueError, match="must have observations that are vectors"):
        CheckedEnv(gymnasium.vector.SyncVectorEnv([Images]))


def test_an_environment_that_is_registered_has_its_name():
    env = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=2, vectorization_mode="sync")
    with pytest.raises(RolloutError, match=r"ml3_tf/MountainCarGoal-v0, seed=7, step 1: actions"):
        roll_out(env, action=np.nan)
