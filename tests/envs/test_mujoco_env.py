"""Tests of `ml3_tf.envs.mujoco_env`: states of the environments that MuJoCo simulates."""

import gymnasium
import mujoco
import numpy as np
import pytest

import ml3_tf.envs  # noqa: F401 - registers the environments
from ml3_tf.envs.mujoco_env import unlogged

in_each_environment = pytest.mark.parametrize("name", ["ReacherGoal", "ReacherFingertipGoal", "AntGoal"])


def make(name):
    env = gymnasium.make(f"ml3_tf/{name}-v0").unwrapped
    env.action_space.seed(0)
    return env


@in_each_environment
def test_a_state_and_an_action_determine_the_next_state(name):
    env, other = make(name), make(name)
    env.reset(seed=0)
    for _ in range(30):
        env.step(env.action_space.sample())  # fills the memory of the solver of contacts, which must not matter
    other.reset(options={"goal": env.goal})
    other.start(env.state)
    action = env.action_space.sample()
    for mine, theirs in zip(env.step(action)[:2], other.step(action)[:2]):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(env.state, other.state)


@in_each_environment
def test_state_is_positions_then_velocities_in_the_simulator(name):
    env = make(name)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    np.testing.assert_array_equal(env.state, [*env.data.qpos, *env.data.qvel])
    assert env.data.time == pytest.approx(env.num_substeps * env.model.opt.timestep)


@in_each_environment
def test_diverged_simulation_is_reported_and_a_reset_repairs_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = make(name)
    first, _ = env.reset(seed=0)
    env.data.qvel[0] = 1e12
    with pytest.raises(FloatingPointError, match="The simulation diverged: the next state is not finite"):
        env.step(env.action_space.sample())
    with pytest.raises(RuntimeError, match="`step` was called before `reset`, or after the simulation diverged"):
        env.step(env.action_space.sample())
    np.testing.assert_array_equal(env.reset(seed=0)[0], first)
    env.step(env.action_space.sample())
    assert not list(tmp_path.iterdir())  # MuJoCo would write a log file


def test_the_users_handler_of_warnings_is_put_back():
    before = mujoco.get_mju_user_warning()
    handler = [].append
    mujoco.set_mju_user_warning(handler)
    try:
        with pytest.raises(ValueError, match="inside"), unlogged():
            assert mujoco.get_mju_user_warning() is not handler
            raise ValueError("inside")
        assert mujoco.get_mju_user_warning() is handler
    finally:
        mujoco.set_mju_user_warning(before)
