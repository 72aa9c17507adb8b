"""Tests of `ml3_tf.envs.reacher`: both environments of the arm, and that MuJoCo and TensorFlow are equal."""

import mujoco
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.envs import reacher
from ml3_tf.envs.reacher import ReacherFingertipGoalEnv, ReacherGoalEnv, fingertip, reacher_step


@pytest.fixture
def env():
    return ReacherGoalEnv()


def test_model_file_holds_the_constants(env):
    model = env.model
    assert model.opt.timestep == reacher.TIME_STEP
    np.testing.assert_array_equal(model.dof_armature, reacher.ARMATURE)
    np.testing.assert_array_equal(model.dof_damping, reacher.DAMPING)
    np.testing.assert_array_equal(model.actuator_ctrlrange, [[-reacher.MAX_TORQUE, reacher.MAX_TORQUE]] * 2)
    np.testing.assert_array_equal(model.body_mass[1:], reacher.MASS)
    np.testing.assert_allclose(model.body_ipos[1:, 0], np.divide(reacher.LENGTHS, 2))
    np.testing.assert_allclose(model.body_inertia[1:, 2], np.square(reacher.LENGTHS) / 12, rtol=1e-12)  # uniform rods


def test_tensorflow_form_equals_mujoco_over_1000_random_steps(env):
    generator = np.random.default_rng(0)
    step = tf.function(reacher_step)
    fastest = 0.0
    for n in range(1000):
        if n % 65 == 0:
            env.reset(options={"state": generator.uniform(-1, 1, 4) * [np.pi, np.pi, 10, 10]})
            states = tf.constant([env.state])
        # Half of the episodes at random, half at full torque, where the arm is fastest.
        action = generator.uniform(-1.5, 1.5, 2) if n < 500 else [1.0, -1.0]
        env.step(action)
        states = step(states, tf.constant([action], tf.float64))
        np.testing.assert_allclose(states[0], env.state, rtol=0, atol=1e-10)
        fastest = max(fastest, np.max(np.abs(env.state)))
    assert 20 < fastest < reacher.MAX_SPEED / 2


def test_an_arm_with_longer_links_is_that_of_mujoco(env):
    lengths = np.array([0.13, 0.15])
    model, generator = env.model, np.random.default_rng(0)
    model.body_pos[2, 0] = lengths[0]
    model.body_ipos[1:, 0] = lengths / 2
    model.body_inertia[1:, 1:] = np.square(lengths)[:, np.newaxis] / 12
    mujoco.mj_setConst(model, env.data)
    env.reset(options={"state": [0.3, -1.0, 4.0, -5.0]})
    states = tf.constant([env.state])
    for action in generator.uniform(-1, 1, (65, 2)):
        env.step(action)
        states = reacher_step(states, tf.constant([action]), lengths=tuple(lengths))
        np.testing.assert_allclose(states[0], env.state, rtol=0, atol=1e-10)


def test_jacobian_equals_finite_differences():
    point = tf.constant([0.3, -1.2, 4.0, -7.0, 0.4, -0.2], tf.float64)

    def step(point):
        return reacher_step(point[..., :4], point[..., 4:])

    with tf.GradientTape() as tape:
        tape.watch(point)
        result = step(point)
    ahead, behind = (step(point + s * 1e-6 * tf.eye(6, dtype=tf.float64)) for s in (1, -1))
    np.testing.assert_allclose(tape.jacobian(result, point), tf.transpose(ahead - behind) / 2e-6, atol=1e-7)


def test_fingertip_is_that_of_mujoco(env):
    for seed in range(5):
        env.reset(seed=seed)
        mujoco.mj_kinematics(env.model, env.data)
        np.testing.assert_allclose(fingertip(env.state[:2]), env.data.site("fingertip").xpos[:2], atol=1e-12)


def test_distances_are_those_of_angles_and_fingertip(env):
    _, info = env.reset(options={"state": [0.0, 0.0, 0.0, 0.0], "goal": [np.pi / 2, 0.0]})
    assert info["distance"] == pytest.approx(np.pi / 2)
    assert info["fingertip_distance"] == pytest.approx(0.21 * np.sqrt(2))


def test_columns_of_the_fingertip_form():
    env = ReacherFingertipGoalEnv()
    state = np.array([0.4, -1.1, 2.0, -3.0])
    observation, info = env.reset(options={"state": state, "goal": [0.05, -0.1]})
    to_goal = np.array([0.05, -0.1]) - fingertip(state[:2])
    velocity = (fingertip(state[:2] + 1e-6 * state[2:]) - fingertip(state[:2] - 1e-6 * state[2:])) / 2e-6
    np.testing.assert_allclose(observation[:4], [*np.cos(state[:2]), *np.sin(state[:2])], rtol=1e-6)
    np.testing.assert_allclose(observation[4:7], [*to_goal, np.hypot(*to_goal)], rtol=1e-5)
    np.testing.assert_allclose(observation[7:9], [0.05, -0.1], rtol=1e-6)
    np.testing.assert_allclose(observation[9:], velocity, rtol=1e-5)
    assert info["distance"] == info["fingertip_distance"] == pytest.approx(np.hypot(*to_goal))


def test_fingertip_goals_are_drawn_within_reach():
    env = ReacherFingertipGoalEnv()
    away = [np.linalg.norm(env.reset(seed=seed)[1]["goal"]) for seed in range(200)]
    assert 0.01 <= min(away) < 0.05 and 0.2 < max(away) <= 0.21 + 1e-6


@pytest.mark.parametrize("goal", [[0.15, 0.15], [0.005, 0.0]], ids=["too-far", "too-near"])
def test_fingertip_goal_out_of_reach_is_refused(goal):
    words = r"`goal` must lie 0.01 to 0.21 m from the shoulder: .* Received: goal=\[0.*\], 0.\d+ m away"
    with pytest.raises(ValueError, match=words):
        ReacherFingertipGoalEnv().reset(options={"goal": goal})


def test_a_goal_beyond_the_limits_is_refused(env):
    with pytest.raises(ValueError, match="`goal` must lie between .* Goals beyond these limits cannot be reached"):
        env.reset(options={"goal": [4.0, 0.0]})


def test_diverged_simulation_is_reported_and_a_reset_repairs_it(env, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log file
    env.reset(seed=0)
    env.data.qvel[0] = 1e12
    with pytest.raises(FloatingPointError, match="The simulation diverged: .* call `reset`"):
        env.step([0.0, 0.0])
    env.reset(options={"state": np.zeros(4)})
    state, *_ = env.step([0.0, 0.0])
    np.testing.assert_array_equal(state, np.zeros(4))
