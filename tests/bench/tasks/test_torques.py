"""Tests of the torques of the arm, against the equations of motion of `ml3_tf.envs.reacher`."""

import numpy as np
import pytest

from ml3_tf.bench.tasks import torques


def test_the_arm_is_that_of_the_environment_where_there_is_no_gravity_and_no_damping(monkeypatch):
    reacher = pytest.importorskip("ml3_tf.envs").reacher
    monkeypatch.setattr(torques, "GRAVITY", 0.0)
    monkeypatch.setattr(reacher, "DAMPING", 0.0)
    monkeypatch.setattr(reacher, "MAX_TORQUE", 1e3)
    generator = np.random.default_rng(0)
    angle, velocity, acceleration = generator.normal(size=(3, 7, 2))
    torque = torques.inverse_dynamics(angle, velocity, acceleration)
    moved = reacher.reacher_step(np.concatenate([angle, velocity], axis=1), torque).numpy()
    np.testing.assert_allclose((moved[:, 2:] - velocity) / reacher.TIME_STEP, acceleration, rtol=1e-6)


def test_gravity_is_the_slope_of_the_height():
    def potential(angle):
        bend = -torques.LENGTHS[0] * np.cos(angle[0])
        upper = bend / 2
        lower = bend - torques.LENGTHS[1] / 2 * np.cos(angle.sum())
        return torques.MASS * torques.GRAVITY * (upper + lower)

    angle, step = np.array([0.4, -1.1]), 1e-6
    slopes = [(potential(angle + step * e) - potential(angle - step * e)) / (2 * step) for e in np.eye(2)]
    np.testing.assert_allclose(torques.inverse_dynamics(angle, np.zeros(2), np.zeros(2)), slopes, rtol=1e-6)


def test_velocity_and_acceleration_are_the_slopes_of_a_motion():
    angle, velocity, acceleration = torques.draw_motion(np.random.default_rng(1))
    step = torques.DURATION / (torques.NUM_TIMES - 1)
    for values, slopes in ((angle, velocity), (velocity, acceleration)):
        found = (values[2:] - values[:-2]) / (2 * step)
        assert np.abs(found - slopes[1:-1]).max() < 0.05 * np.abs(slopes).max()
