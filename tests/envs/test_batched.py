"""Tests of `ml3_tf.envs.batched`: many environments at once give the same numbers as one after the other."""

import gymnasium
import numpy as np
import pytest

from ml3_tf.envs import AntGoalEnv, BatchedGoalEnv
from ml3_tf.envs.goal_reaching_env import MAX_NUMBER
from ml3_tf.rl.checked_env import RolloutError
from ml3_tf.rl.rollouts import rollout_env

NAMES = ["ReacherGoal", "ReacherFingertipGoal", "AntGoal"]
in_each_environment = pytest.mark.parametrize("name", NAMES)


def make(name="ReacherFingertipGoal", num_envs=5, mode="vector_entry_point", **kwargs):
    return gymnasium.make_vec(f"ml3_tf/{name}-v0", num_envs=num_envs, vectorization_mode=mode, **kwargs)


@pytest.fixture
def envs():
    envs = make()
    yield envs
    envs.close()


def assert_same(batched, single):
    """Compares two results of `reset` or `step`."""
    assert batched[-1].keys() == single[-1].keys()
    pairs = [*zip(batched[:-1], single[:-1]), *((batched[-1][key], single[-1][key]) for key in single[-1])]
    for mine, theirs in pairs:
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("num_threads", [1, 3])
@in_each_environment
def test_steps_are_those_of_single_environments(name, num_threads):
    """Compares 200 random steps, starts of episodes among them, to the last bit."""
    batched, single = make(name, num_threads=num_threads), make(name, mode="sync")
    assert_same(batched.reset(seed=3), single.reset(seed=3))
    generator = np.random.default_rng(0)
    for _ in range(200):
        actions = generator.uniform(-1.5, 1.5, batched.action_space.shape)  # a third of them beyond the limits
        assert_same(batched.step(actions), single.step(actions))
    np.testing.assert_array_equal(batched.states, single.get_attr("state"))
    batched.close()


@in_each_environment
def test_spaces_are_those_of_a_vector_of_single_environments(name):
    batched, single = make(name), make(name, mode="sync")
    for attribute in ("single_observation_space", "observation_space", "single_action_space", "action_space"):
        assert getattr(batched, attribute) == getattr(single, attribute)
    assert batched.metadata == single.metadata
    assert batched.num_envs == single.num_envs == 5


def test_batched_form_is_the_default_of_make_vec():
    assert type(gymnasium.make_vec("ml3_tf/AntGoal-v0", num_envs=2)).__name__ == "BatchedGoalEnv"


@in_each_environment
def test_each_environment_has_its_own_task(name):
    other = make(name, num_envs=2)
    other.reset(seed=7)
    tasks = [{"state": s, "goal": g} for s, g in zip(other.get_attr("state"), other.get_attr("goal"))]
    envs = make(name, num_envs=2)
    envs.set_attr("task", tasks)
    assert envs.get_attr("task") == tuple(tasks)
    observations, info = envs.reset(seed=1)
    np.testing.assert_array_equal(envs.states, other.states)
    np.testing.assert_allclose(info["goal"], other.goals, rtol=1e-6)
    np.testing.assert_array_equal(observations, other.reset(seed=7)[0])


def test_options_replace_parts_of_the_tasks_of_all(envs):
    envs.set_attr("task", {"goal": [0.1, 0.0]})
    _, info = envs.reset(seed=0, options={"state": np.zeros(4)})
    np.testing.assert_array_equal(envs.states, np.zeros((5, 4)))
    np.testing.assert_allclose(info["goal"], [[0.1, 0.0]] * 5)


def test_seeds_reproduce_and_differ(envs):
    first = envs.reset(seed=4)[0]
    assert len(np.unique(first[:, 0])) == 5
    following = envs.reset()[0]  # the random streams go on
    assert np.all(following[:, 0] != first[:, 0])
    np.testing.assert_array_equal(envs.reset(seed=[4, 5, 6, 7, 8])[0], first)


def test_a_rollout_is_that_in_single_environments(envs):
    def policy(observations):
        return np.tanh(10 * observations[:, 4:6])

    single = make(mode="sync")
    results = [rollout_env(policy, vector, horizon=65, seed=0) for vector in (envs, single)]
    for mine, theirs in zip(*results):
        np.testing.assert_array_equal(mine, theirs)


def test_an_episode_ends_after_its_steps_and_the_next_one_starts(envs):
    envs = make(num_envs=2, max_episode_steps=3)
    envs.reset(seed=0)
    ends = []
    for _ in range(8):
        _, rewards, terminated, truncated, _ = envs.step(np.ones((2, 2)))
        assert not np.any(terminated)
        ends.append((truncated.tolist(), bool(np.all(rewards == 0))))
    going, over, anew = ([False] * 2, False), ([True] * 2, False), ([False] * 2, True)
    assert ends == [going, going, over, anew, going, going, over, anew]


def test_frames_are_those_of_single_environments():
    batched, single = (make("AntGoal", 2, mode, render_mode="rgb_array") for mode in ("vector_entry_point", "sync"))
    for envs in (batched, single):
        envs.reset(seed=0)
        envs.step(np.ones((2, 8)))
    np.testing.assert_array_equal(batched.render(), single.render())
    assert make().render() is None


# Errors


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"num_envs": 0}, "`num_envs` must be an integer of at least 1. Received: num_envs=0"),
        ({"num_envs": 2.0}, "`num_envs` must be an integer of at least 1. Received: num_envs=2.0"),
        ({"num_threads": 0}, "`num_threads` must be an integer of at least 1. Received: num_threads=0"),
        (
            {"max_episode_steps": 0},
            "`max_episode_steps` must be an integer of at least 1. Received: max_episode_steps=0",
        ),
        ({"render_mode": "human"}, "`render_mode` must be 'rgb_array' or None"),
    ],
    ids=["zero", "fraction", "no-thread", "no-step", "render-mode"],
)
def test_invalid_arguments_are_refused(kwargs, words):
    with pytest.raises(ValueError, match=words):
        make(**kwargs)


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (np.zeros((5, 3)), r"`actions` must have the shape \(5, 2\). Received: shape \(5, 3\)"),
        (np.zeros((4, 2)), r"`actions` must have the shape \(5, 2\). Received: shape \(4, 2\)"),
        (np.full((5, 2), np.nan), "`actions` must be finite"),
    ],
    ids=["width", "number", "nan"],
)
def test_invalid_actions_are_refused(envs, actions, words):
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=words):
        envs.step(actions)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"goal": [0.3, 0.0]}, "`goal` must lie between"),
        ({"goal": [0.15, 0.15]}, "`goal` must lie 0.01 to 0.21 m from the shoulder"),
        ({"state": np.zeros(3)}, r"`state` must have the shape \(4,\)"),
        ({"target": [0.1, 0.0]}, r"`options` must hold 'state', 'goal' or nothing. Received: \['target'\]"),
    ],
    ids=["outside", "out-of-reach", "width", "key"],
)
def test_invalid_tasks_are_refused(envs, task, words):
    envs.set_attr("task", [{}, {}, {}, {}, task])
    with pytest.raises(ValueError, match=words):
        envs.reset(seed=0)


def test_invalid_attributes_and_seeds_are_refused(envs):
    with pytest.raises(ValueError, match="a task for each of 5 environments"):
        envs.set_attr("task", [{}])
    with pytest.raises(ValueError, match="`name` must be 'task': .* Received: name='gravity'"):
        envs.set_attr("gravity", 1.0)
    with pytest.raises(ValueError, match=r"`name` must be one of \['goal', 'state', 'task'\]. Received: name='envs'"):
        envs.get_attr("envs")
    with pytest.raises(ValueError, match="`seed` must hold a seed for each of 5 environments"):
        envs.reset(seed=[1, 2])


def test_step_before_reset_is_refused(envs):
    with pytest.raises(RuntimeError, match="`step` was called before `reset`"):
        envs.step(np.zeros((5, 2)))


@pytest.mark.parametrize("velocity", [1e12, np.nan], ids=["huge", "nan"])
@pytest.mark.parametrize("num_threads", [1, 2])
@in_each_environment
def test_diverged_environments_are_named_and_a_reset_repairs_all(name, num_threads, velocity, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    envs = make(name, num_threads=num_threads)
    actions = np.ones(envs.action_space.shape)
    envs.reset(seed=0)
    first = [envs.step(actions)[0] for _ in range(5)]
    envs.states[[1, 3], -1] = velocity
    with pytest.raises(
        FloatingPointError, match=r"environment\(s\) \[1, 3\] diverged\. In the first .* not finite after"
    ):
        envs.step(actions)
    with pytest.raises(RuntimeError, match="`step` was called before `reset`, or after a simulation diverged"):
        envs.step(actions)
    envs.reset(seed=0)  # nothing of it is left in the simulator
    np.testing.assert_array_equal([envs.step(actions)[0] for _ in range(5)], first)
    assert not list(tmp_path.iterdir())  # MuJoCo would write a log file


def test_a_simulation_that_diverges_by_itself_is_reported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = AntGoalEnv()
    env.model.opt.iterations = 1  # too few to solve for the forces of contact
    envs = BatchedGoalEnv(env, num_envs=8)
    envs.reset(seed=0)
    generator = np.random.default_rng(0)
    with pytest.raises(FloatingPointError, match=r"environment\(s\) \[\d"):
        for _ in range(1000):
            observations, *_ = envs.step(generator.uniform(-1, 1, (8, 8)))
            assert np.max(np.abs(observations)) <= MAX_NUMBER


def test_a_simulation_that_diverges_within_a_rollout_is_reported(tmp_path, monkeypatch):
    """The error comes at the step that diverged: the rollout returns nothing."""
    monkeypatch.chdir(tmp_path)
    envs = make("AntGoal")
    steps = iter(range(100))

    def policy(observations):
        if next(steps) == 7:
            envs.states[2, 20] = np.inf
        return np.zeros((5, 8))

    with pytest.raises(RolloutError, match=r"seed=0, step 8: .* environment\(s\) \[2\] diverged"):
        rollout_env(policy, envs, horizon=100, seed=0)
    assert next(steps) == 8
