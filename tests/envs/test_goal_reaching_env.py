"""Tests of `ml3_tf.envs.goal_reaching_env`: the behavior that all environments share, and the words of each error."""

import math

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import ml3_tf.envs  # noqa: F401 - registers the environments

# Steps of an episode; widths of observation, state, action and goal.
ENVIRONMENTS = {
    "MountainCarGoal": (35, 2, 2, 1, 2),
    "PointmassGoal": (25, 4, 4, 2, 2),
    "ReacherGoal": (65, 4, 4, 2, 2),
    "ReacherFingertipGoal": (65, 11, 4, 2, 2),
    "AntGoal": (100, 31, 29, 8, 2),
}
in_each_environment = pytest.mark.parametrize("name", ENVIRONMENTS)


def make(name, **kwargs):
    return gymnasium.make(f"ml3_tf/{name}-v0", **kwargs)


@pytest.fixture
def env():
    return make("PointmassGoal").unwrapped


@pytest.mark.filterwarnings("error")
@in_each_environment
def test_gymnasium_finds_nothing_wrong(name):
    check_env(make(name, render_mode="rgb_array").unwrapped)


@in_each_environment
def test_widths_are_those_of_the_tables(name):
    env = make(name).unwrapped
    spaces = (env.observation_space, env.state_space, env.action_space, env.goal_space)
    assert [space.shape for space in spaces] == [(width,) for width in ENVIRONMENTS[name][1:]]


@in_each_environment
def test_episodes_are_of_one_length_and_stay_in_their_spaces(name):
    env = make(name)
    env.action_space.seed(0)
    env.reset(seed=0)
    horizon = ENVIRONMENTS[name][0]
    for t in range(1, horizon + 1):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert (terminated, truncated) == (False, t == horizon)
        assert observation in env.observation_space
        assert reward == -info["distance"] < 0


@in_each_environment
def test_task_is_a_state_and_a_goal(name):
    env = make(name).unwrapped
    env.reset(seed=1)
    task = {"state": env.state, "goal": env.goal}
    assert task["state"] in env.state_space and task["goal"] in env.goal_space
    env.reset(seed=2)
    observation, info = env.reset(options=task)
    np.testing.assert_array_equal(env.state, task["state"])
    np.testing.assert_allclose(info["goal"], task["goal"], rtol=1e-6)
    np.testing.assert_array_equal(observation, make(name).reset(options=task)[0])


@in_each_environment
def test_same_task_and_actions_give_the_same_trajectory(name):
    def trajectory():
        env = make(name)
        observations = [env.reset(seed=5)[0]]
        env.action_space.seed(0)
        return [*observations, *(env.step(env.action_space.sample())[0] for _ in range(20))]

    np.testing.assert_array_equal(trajectory(), trajectory())


@in_each_environment
def test_actions_beyond_their_limits_are_clipped(name):
    env = make(name).unwrapped
    ends = []
    for factor in (1.0, 7.0):
        env.reset(seed=0)
        ends.append(env.step(factor * env.action_space.high)[0])
    np.testing.assert_array_equal(*ends)


@in_each_environment
def test_frames_show_the_agent_move(name):
    env = make(name, render_mode="rgb_array")
    env.reset(seed=0)
    frames = [env.render()]
    for _ in range(10):
        env.step(env.action_space.high)
    frames.append(env.render())
    assert frames[0].dtype == np.uint8 and frames[0].shape == frames[1].shape
    assert frames[0].ndim == 3 and np.any(frames[0] != frames[1])


@in_each_environment
def test_each_environment_of_a_vector_has_its_own_task(name):
    tasks = []
    for seed in (1, 2):
        env = make(name).unwrapped
        env.reset(seed=seed)
        tasks.append({"state": env.state, "goal": env.goal})
    envs = gymnasium.make_vec(f"ml3_tf/{name}-v0", 2, vectorization_mode="sync")
    envs.set_attr("task", tasks)
    observations, info = envs.reset()
    np.testing.assert_array_equal(observations, [make(name).reset(options=task)[0] for task in tasks])
    np.testing.assert_allclose(info["goal"], [task["goal"] for task in tasks], rtol=1e-6)


def test_options_replace_parts_of_the_task(env):
    env.task = {"state": np.ones(4), "goal": np.ones(2)}
    env.reset(options={"goal": np.zeros(2)})
    np.testing.assert_array_equal(env.state, np.ones(4))
    np.testing.assert_array_equal(env.goal, np.zeros(2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"state": [0.0]}, r"`state` must have the shape \(4,\). Received: shape \(1,\), state=\[0.0\]"),
        ({"goal": [[0.0, 0.0]]}, r"`goal` must have the shape \(2,\). Received: shape \(1, 2\)"),
        ({"state": [0.0, math.nan, 0.0, 0.0]}, r"`state` must be finite. Received: state=\[0.0, nan, 0.0, 0.0\]"),
        ({"goal": [math.inf, 0.0]}, r"`goal` must be finite. Received: goal=\[inf, 0.0\]"),
        (
            {"state": [5.0, 0.0, 0.0, 0.0]},
            r"`state` must lie between \[-4.0, .* and \[4.0, .*\]. Received: state=\[5.0",
        ),
        (
            {"goal": [0.0, 2.0]},
            r"`goal` must lie between .* Goals beyond these limits cannot be reached. Received: goal=\[0",
        ),
        ({"goals": [0.0, 0.0]}, r"`options` must hold 'state', 'goal' or nothing. Received: \['goals'\]"),
    ],
    ids=["state-width", "goal-width", "nan-state", "inf-goal", "state-outside", "goal-outside", "unknown-key"],
)
def test_an_invalid_task_is_refused(env, options, words):
    with pytest.raises(ValueError, match=words):
        env.reset(options=options)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ([0.1], r"`action` must have the shape \(2,\). Received: shape \(1,\)"),
        ([0.1, math.nan], r"`action` must be finite. Received: action=\[0.1, nan\]"),
    ],
    ids=["width", "nan"],
)
def test_an_invalid_action_is_refused(env, action, words):
    env.reset()
    with pytest.raises(ValueError, match=words):
        env.step(action)


def test_refused_task_leaves_the_episode_as_it_was(env):
    env.reset(options={"state": np.ones(4), "goal": np.ones(2)})
    with pytest.raises(ValueError, match="`state` must be finite"):
        env.reset(options={"state": np.full(4, np.nan), "goal": np.zeros(2)})
    np.testing.assert_array_equal(env.state, np.ones(4))
    np.testing.assert_array_equal(env.goal, np.ones(2))


def test_simulation_that_diverges_ends_the_episode_with_an_error(env, monkeypatch):
    env.reset()
    with monkeypatch.context() as patch:
        patch.setattr(env, "next_state", lambda action: np.array([0.0, np.inf, 0.0, 0.0]))
        with pytest.raises(
            FloatingPointError, match=r"diverged: the next state is not finite after state=\[0.* Do not learn from this"
        ):
            env.step([0.0, 0.0])
    with pytest.raises(RuntimeError, match="`step` was called before `reset`, or after the simulation diverged"):
        env.step([0.0, 0.0])
    env.reset()
    env.step([0.0, 0.0])


def test_step_before_reset_is_refused(env):
    with pytest.raises(RuntimeError, match="`step` was called before `reset`"):
        env.step([0.0, 0.0])


def test_unknown_render_mode_is_refused():
    with pytest.raises(ValueError, match="`render_mode` must be 'rgb_array' or None. Received: render_mode='human'"):
        type(make("PointmassGoal").unwrapped)(render_mode="human")


def test_rendering_without_a_mode_warns(env):
    env.reset()
    with pytest.warns(UserWarning, match="make the environment with render_mode='rgb_array'"):
        assert env.render() is None
