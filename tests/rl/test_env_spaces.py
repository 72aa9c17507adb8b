"""Tests of `ml3_tf.rl.env_spaces`: environments of every kind are rolled out, or by the lines that an error names."""

import re

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ml3_tf.rl.action_distributions import CategoricalActions, GaussianActions
from ml3_tf.rl.env_spaces import as_actions, as_env_actions, check_distribution, check_vector, is_discrete
from ml3_tf.rl.rollouts import rollout_env

BOX = spaces.Box(-1, 1, (2,))


class Shaped(gymnasium.Env):
    """Takes the actions of a space and observes samples of another."""

    def __init__(self, action_space=BOX, observation_space=BOX):
        self.action_space, self.observation_space = action_space, observation_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        return self.observation_space.sample(), 1.0, False, False, {}


def register(**arguments):
    """Registers such an environment under one name, which the lines of errors name."""
    gymnasium.registry.pop("Shaped-v0", None)
    gymnasium.register("Shaped-v0", entry_point=lambda: Shaped(**arguments))


def run_lines(error):
    """Runs the two lines that an error names, and returns the vector that they make."""
    lines = re.findall(r"^    (\w+ = .*)$", str(error.value), re.MULTILINE)
    assert len(lines) == 2
    names = {"gymnasium": gymnasium, "np": np, "N": 2}
    exec("\n".join(lines), names)
    return names["env"]


def roll_out(env):
    """Takes the same action in each step, whatever its kind."""
    space = env.single_action_space
    zeros = np.zeros((env.num_envs, *space.shape), "float32")
    action = zeros.astype(int) + space.start if is_discrete(env) else zeros
    return rollout_env(lambda observations: action, env, horizon=3, seed=0)


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync", "async"])
def test_every_vector_of_cart_poles_is_rolled_out(mode):
    env = gymnasium.make_vec("CartPole-v1", num_envs=3, vectorization_mode=mode)
    trajectory = rollout_env(lambda observations: np.ones(3, int), env, horizon=20, seed=0)
    env.close()
    np.testing.assert_array_equal(trajectory.actions, np.broadcast_to([0.0, 1.0], (3, 20, 2)))
    num_steps = trajectory.mask.sum(1)
    assert (num_steps > 5).all() and (num_steps < 15).all()  # a cart that is always pushed loses its pole
    np.testing.assert_array_equal(trajectory.rewards.sum(1), num_steps)


@pytest.mark.parametrize("name", ["Pendulum-v1", "Reacher-v5", "CartPole-v1"])
def test_a_single_environment_is_refused_with_the_lines_that_make_a_vector(name):
    with pytest.raises(
        ValueError, match=f"`env` must be a vector.* Received: {name}, a single one. Make it by"
    ) as error:
        check_vector(gymnasium.make(name))
    env = run_lines(error)
    assert env.num_envs == 2 and roll_out(env).mask.all()


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3),
        spaces.Box(0, 1, (2, 3)),
        spaces.Box(0, 1, ()),
        spaces.Tuple((spaces.Discrete(2), BOX)),
        spaces.Dict(observation=BOX, desired_goal=BOX),
    ],
    ids=str,
)
def test_other_observations_are_refused_with_the_lines_that_flatten_them(space):
    register(observation_space=space)
    with pytest.raises(ValueError, match="`env` must have observations that are vectors. Received: ") as error:
        check_vector(gymnasium.make_vec("Shaped-v0", num_envs=2))
    trajectory = roll_out(run_lines(error))
    assert trajectory.observations.shape == (2, 4, spaces.flatdim(space))


@pytest.mark.parametrize(
    ("space", "width"),
    [(spaces.MultiDiscrete([3, 2]), 6), (spaces.MultiBinary(3), 8), (spaces.Box(-1, 1, (2, 2)), 4)],
    ids=str,
)
def test_other_actions_are_refused_with_the_lines_that_flatten_them(space, width):
    register(action_space=space)
    words = r"`env` must have actions that are vectors, .*Discrete`. Received: "
    with pytest.raises(ValueError, match=words) as error:
        check_vector(gymnasium.make_vec("Shaped-v0", num_envs=2))
    assert roll_out(run_lines(error)).actions.shape == (2, 3, width)


def test_actions_of_several_parts_need_a_function_of_the_reader():
    register(action_space=spaces.Dict(a=spaces.Discrete(2)))
    with pytest.raises(ValueError, match=r"TransformAction\(gymnasium.make\(\"Shaped-v0\"\), function, space\)"):
        check_vector(gymnasium.make_vec("Shaped-v0", num_envs=2))


@pytest.mark.parametrize("mode", ["SAME_STEP", "DISABLED"])
def test_other_modes_of_starting_the_next_episode_are_refused(mode):
    mode = gymnasium.vector.AutoresetMode[mode]
    env = gymnasium.make_vec(
        "CartPole-v1", num_envs=2, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}
    )
    with pytest.raises(
        ValueError, match=f"`env` must start the next episode.* Received: autoreset_mode={mode}"
    ) as error:
        check_vector(env)
    check_vector(run_lines(error))


def test_a_closed_vector_is_refused():
    env = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    env.close()
    with pytest.raises(ValueError, match="`env` must be open: .* Received: CartPole-v1, closed"):
        check_vector(env)


def test_something_else_is_refused():
    with pytest.raises(ValueError, match="`simulator` must be a `Simulator` or a vector of environments.* Received: 3"):
        check_vector(3, "simulator")


def test_a_vector_that_takes_one_seed_is_refused_with_the_lines_of_one_that_takes_many():
    env = gymnasium.make_vec("CartPole-v1", num_envs=2)
    with pytest.raises(ValueError, match="`env` must take a seed for each .* Received: CartPoleVectorEnv") as error:
        rollout_env(lambda observations: np.ones(2, int), env, horizon=2, seed=[1, 2])
    rollout_env(lambda observations: np.ones(2, int), run_lines(error), horizon=2, seed=[1, 2])


def test_the_policy_that_fits_is_named():
    cart, reacher = (gymnasium.make_vec(name, num_envs=2) for name in ("CartPole-v1", "Reacher-v5"))
    check_distribution(CategoricalActions(2), cart)
    check_distribution(GaussianActions(2), reacher)
    words = (
        r"Received: GaussianActions\(size=2\), for CartPole-v1 .* by\n    policy = lambda: CategoricalPolicy\(4, 2\)"
    )
    with pytest.raises(ValueError, match=words):
        check_distribution(GaussianActions(2), cart)
    words = (
        r"Received: CategoricalActions\(size=2\), for Reacher-v5 .* by\n    policy = lambda: GaussianPolicy\(10, 2\)"
    )
    with pytest.raises(ValueError, match=words):
        check_distribution(CategoricalActions(2), reacher)


def test_choices_of_a_space_that_starts_elsewhere():
    env = gymnasium.vector.SyncVectorEnv([lambda: Shaped(spaces.Discrete(3, start=5))] * 2)
    actions = as_actions([5, 7], env)
    np.testing.assert_array_equal(actions, [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(as_env_actions(actions, env), [5, 7])
    np.testing.assert_array_equal(as_actions(actions, env), actions)


@pytest.mark.parametrize(
    "actions",
    [[0, 2], [-1, 0], [0.0, 1.0], [[0], [1]], [[-0.7, -0.7], [-0.1, -2.3]], [[1, 1], [0, 1]]],
    ids=["beyond", "below", "floats", "columns", "log-probabilities", "two-at-once"],
)
def test_other_choices_are_refused(actions):
    env = gymnasium.make_vec("CartPole-v1", num_envs=2)
    words = r"Discrete\(2\): integers of shape \(2,\), or one-hot rows of shape \(2, 2\).* Pass `policy.mode`"
    with pytest.raises(ValueError, match=words):
        as_actions(actions, env)


def test_workers_that_do_not_share_their_memory_are_refused():
    """gymnasium's worker then starts an episode that a reset has started once more, and a step is lost."""
    make = lambda: gymnasium.make("CartPole-v1")
    env = gymnasium.vector.AsyncVectorEnv([make] * 2, shared_memory=False, context="spawn")
    with pytest.raises(ValueError, match="must be made with `shared_memory=True`.* Received: AsyncVectorEnv, shared"):
        check_vector(env)
    env.close()


def test_a_wrapper_of_a_closed_vector_is_refused():
    vector = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(vector)
    env.close()
    with pytest.raises(ValueError, match="`env` must be open"):
        check_vector(env)
