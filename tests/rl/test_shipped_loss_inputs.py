"""Tests of `ml3_tf.rl.shipped_loss_inputs`: they fit the shipped losses, and tell what they say."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf
from ml3_tf.envs import reacher
from ml3_tf.rl import Trajectory, get_loss_inputs, shipped_loss_inputs
from ml3_tf.rl.shipped_loss_inputs import LOWER_ARM, UPPER_ARM

OBSERVATIONS = {
    "mountain_car": (2, 1, 2),  # widths of observation, action and goal
    "pointmass": (4, 2, 2),
    "reacher_model_based": (4, 2, 2),
    "reacher_demonstrations": (4, 2, 2),
    "reacher_model_free": (11, 2, 2),
    "reacher_model_free_rewards": (11, 2, 2),
    "ant_model_free": (31, 8, 2),
}


def trajectory(name, horizon=3):
    observation, action, goal = OBSERVATIONS[name]
    draw = lambda *shape: tf.constant(np.random.default_rng(0).normal(size=shape), tf.float32)
    shape = (2, 1, horizon)
    return Trajectory(
        draw(2, 1, horizon + 1, observation), draw(*shape, action), draw(*shape), draw(2, 1, goal), tf.ones(shape)
    )


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_they_fit_the_shipped_loss(name):
    inputs, loss = get_loss_inputs(name), ml3_tf.load_meta_loss(name)
    assert inputs.name == name
    assert dict(inputs.features) == loss.features
    assert (inputs.scale and [float(scale) for scale in inputs.scale]) == loss.input_scale
    seen = inputs(trajectory(name))
    num_columns = OBSERVATIONS[name][1] if loss.mode == "per_output" else 1  # of each feature, for its width
    assert seen.shape == (2, 1, 3, num_columns * sum(list(inputs.features.values())[1:]))
    assert np.isfinite(seen).all()


def test_every_shipped_loss_of_policies_has_its_inputs():
    data_sets = {
        "sine",
        "shaped_sine",
        "digits",
        "label_free",
        "noisy_labels",
        "inverse_dynamics_reacher",
        "inverse_dynamics_sawyer",
    }
    shipped = {path.name for path in ml3_tf.saving.catalog.SHIPPED.iterdir() if path.is_dir()}
    assert shipped - data_sets == set(OBSERVATIONS)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="name of a shipped loss of policies, .*'pointmass'.* Received: 'sine'"):
        get_loss_inputs("sine")


def test_the_arm_is_that_of_the_environment():
    assert (UPPER_ARM, LOWER_ARM) == tuple(reacher.LENGTHS)
    own = shipped_loss_inputs
    assert (own.LINK_MASS, own.MOTOR_INERTIA, own.JOINT_DAMPING) == (reacher.MASS, reacher.ARMATURE, reacher.DAMPING)
    assert (own.TIME_STEP, own.MAX_TORQUE) == (reacher.TIME_STEP, reacher.MAX_TORQUE)


def test_the_motor_torques_are_those_that_moved_the_arm():
    env, generator = gymnasium.make("ml3_tf/ReacherFingertipGoal-v0").unwrapped, np.random.default_rng(0)
    observations = [env.reset(options={"state": [3.0, -2.0, 0.0, 0.0]})[0]]  # it turns beyond pi
    actions = generator.uniform(-1.0, 1.0, (65, 2)) + [0.3, -0.3]
    for action in actions:
        observations.append(env.step(action)[0])
    seen = shipped_loss_inputs.motor_torques(Trajectory(tf.constant(observations), None, None, None, None))
    np.testing.assert_allclose(seen, np.clip(actions, -1.0, 1.0), atol=5e-3)  # the angles are of single precision


def test_a_moment_is_the_torque_that_a_force_takes():
    """J^T v, with the Jacobian of the fingertip by finite differences, in the frame of the upper arm."""
    angles, way = np.array([0.7, -1.1]), np.array([0.05, 0.12])
    fingertip = lambda q: np.array(
        [
            UPPER_ARM * np.cos(q[0]) + LOWER_ARM * np.cos(q.sum()),
            UPPER_ARM * np.sin(q[0]) + LOWER_ARM * np.sin(q.sum()),
        ]
    )
    jacobian = np.stack([(fingertip(angles + d) - fingertip(angles - d)) / 2e-6 for d in 1e-6 * np.eye(2)], 1)
    seen = [*np.cos(angles), *np.sin(angles), *way, np.linalg.norm(way), 0, 0, 0, 0]
    observations = tf.constant([[seen, seen]], tf.float32)
    episode = Trajectory(observations, tf.zeros((1, 1, 2)), tf.zeros((1, 1)), tf.zeros((1, 2)), tf.ones((1, 1)))
    features = get_loss_inputs("reacher_model_free")(episode).numpy()[0, 0]
    np.testing.assert_allclose(features[5:7], jacobian.T @ way, rtol=1e-4)


def test_the_moments_are_seen_as_actions():
    """Those of motors with half the gain, one of them reversed, are twice as large; the columns before stay."""
    generator = np.random.default_rng(0)
    gains = np.array([0.5, -0.5])
    env = gymnasium.make("ml3_tf/ReacherFingertipGoal-v0").unwrapped
    observations = [env.reset(options={"state": [0.5, 1.0, 0.0, 0.0], "goal": [0.1, 0.1]})[0]]
    actions = generator.uniform(-1.0, 1.0, (65, 2)).astype("float32")
    for action in actions:
        observations.append(env.step(gains * action)[0])
    parts = [np.array(observations, "float32"), actions, np.zeros(65, "float32"), np.zeros(2, "float32")]
    episode = Trajectory(*(tf.constant(part[np.newaxis, np.newaxis]) for part in parts), tf.ones((1, 1, 65)))
    seen = get_loss_inputs("reacher_model_free_rewards")(episode).numpy()[0, 0]
    np.testing.assert_array_equal(seen[:, :13], get_loss_inputs("reacher_model_free")(episode)[0, 0])
    np.testing.assert_allclose(seen[:, 15:17], np.tile(gains, (65, 1)), atol=2e-3)
    per_gain = gains / (gains**2 + shipped_loss_inputs.LEAST_GAIN**2)
    np.testing.assert_allclose(seen[:, 17:], seen[:, [5, 6, 9, 10]] * np.tile(per_gain, 2), rtol=0.02, atol=1e-5)
