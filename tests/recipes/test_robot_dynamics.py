"""The robots of the inverse dynamics recipe: their models, their motions, and eq. 10 of ML3."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

pytest.importorskip("mujoco")

import mujoco

from parts.inverse_dynamics.robot_dynamics import FOLDER, Motion, Robot

NAMES = ["reacher", "sawyer"]
TIMES = np.linspace(0.0, 4.0, 50)


@pytest.fixture(params=NAMES)
def robot(request):
    return Robot(request.param)


def draw(robot, seed=0):
    return robot.draw_motion(np.random.default_rng(seed), TIMES)


def test_these_are_all_robots():
    assert Robot.names() == NAMES


@pytest.mark.parametrize("name", ["panda", "", "../robots/reacher"])
def test_an_unknown_robot_is_refused(name):
    with pytest.raises(ValueError, match=r"Unknown robot. Expected `name` to be one of \['reacher', 'sawyer'\]"):
        Robot(name)


@pytest.mark.parametrize("name, joints, mass", [("reacher", 2, 2.0), ("sawyer", 7, 17.0863)])
def test_number_of_joints_and_total_mass(name, joints, mass):
    robot = Robot(name)
    assert robot.num_joints == joints
    assert robot.model.body_mass.sum() == pytest.approx(mass, abs=1e-12)
    assert robot.model.nmesh == robot.model.ngeom == 0


def test_inertia_is_symmetric_and_positive_definite(robot):
    inertia = robot.dynamics(draw(robot)).inertia
    np.testing.assert_allclose(inertia, inertia.transpose(0, 2, 1), rtol=0, atol=1e-12)
    assert np.linalg.eigvalsh(inertia).min() > 0


def test_inertia_times_acceleration_and_bias_is_the_torque(robot):
    motion = draw(robot)
    dynamics = robot.dynamics(motion)
    torque = np.einsum("tij,tj->ti", dynamics.inertia, motion.acceleration) + dynamics.bias
    np.testing.assert_allclose(torque, dynamics.torque, rtol=0, atol=1e-10)
    assert np.abs(dynamics.torque).max() > 0.1


def test_the_reacher_is_that_of_the_closed_form():
    """Two uniform rods in a plane, e.g. Siciliano et al., Robotics, section 7.3.2, without motors."""
    robot = Robot("reacher")
    motion = draw(robot)
    dynamics = robot.dynamics(motion)
    mass, length, inertia = 1.0, 0.5, 1.0 * 0.5**2 / 12
    c, s = np.cos(motion.angle[:, 1]), np.sin(motion.angle[:, 1])
    first = 2 * inertia + (1.5 + c) * mass * length**2
    mixed = inertia + (0.25 + 0.5 * c) * mass * length**2
    last = np.full_like(c, inertia + 0.25 * mass * length**2)
    np.testing.assert_allclose(dynamics.inertia.reshape(-1, 4).T, [first, mixed, mixed, last], rtol=0, atol=1e-10)
    h, (v1, v2) = -0.5 * mass * length**2 * s, motion.velocity.T
    weight = 9.81 * mass * length
    inner, outer = weight * np.cos(motion.angle[:, 0]), weight / 2 * np.cos(motion.angle.sum(axis=1))
    bias = [h * (2 * v1 * v2 + v2**2) + 1.5 * inner + outer, -h * v1**2 + outer]
    np.testing.assert_allclose(dynamics.bias.T, bias, rtol=0, atol=1e-10)


def sawyer_as_urdf():
    """Returns the same numbers in the manufacturer's format, which MuJoCo reads by other code."""
    parts, parent = ['<link name="base"/>'], "base"
    for body in ET.parse(FOLDER / "sawyer.xml").getroot().iter("body"):
        inertial, name = body.find("inertial"), body.get("name")
        inertia = zip(("ixx", "iyy", "izz", "ixy", "ixz", "iyz"), inertial.get("fullinertia").split())
        parts.append(
            f'<link name="{name}"><inertial><origin rpy="0 0 0" xyz="{inertial.get("pos")}"/><mass value='
            f'"{inertial.get("mass")}"/><inertia {" ".join(f"{key}={value!r}" for key, value in inertia)}/></inertial>'
            f'</link><joint name="{name}_joint" type="revolute"><origin rpy="{body.get("euler", "0 0 0")}" '
            f'xyz="{body.get("pos")}"/><parent link="{parent}"/><child link="{name}"/><axis xyz="0 0 1"/>'
            '<limit effort="1" lower="-9" upper="9" velocity="1"/></joint>'
        )
        parent = name
    return f'<robot name="sawyer">{"".join(parts)}</robot>'.replace("'", '"')


def test_the_frames_of_the_sawyer_are_those_of_a_urdf():
    robot = Robot("sawyer")
    model = mujoco.MjModel.from_xml_string(sawyer_as_urdf())
    data = mujoco.MjData(model)
    motion = draw(robot)
    for angle, velocity, acceleration, torque in zip(*motion, robot.dynamics(motion).torque):
        data.qpos[:], data.qvel[:], data.qacc[:] = angle, velocity, acceleration
        mujoco.mj_inverse(model, data)
        np.testing.assert_allclose(torque, data.qfrc_inverse, rtol=0, atol=1e-9)


def test_motions_stay_within_the_limits(robot):
    for seed in range(20):
        motion = draw(robot, seed)
        assert (motion.angle >= robot.angle_limits[:, 0]).all() and (motion.angle <= robot.angle_limits[:, 1]).all()
        assert (np.abs(motion.angle - robot.center) <= robot.reach).all()
        assert (np.abs(motion.velocity) <= robot.velocity_limits).all()
        assert (np.abs(robot.dynamics(motion).torque) <= robot.torque_limits).all()


def test_velocity_and_acceleration_are_the_derivatives_of_the_angle(robot):
    times = np.linspace(0.0, 1.0, 2001)
    motion = robot.draw_motion(np.random.default_rng(0), times)
    for values, derivative in (motion[:2], motion[1:]):
        numeric = (values[2:] - values[:-2]) / (times[2:] - times[:-2])[:, np.newaxis]
        np.testing.assert_allclose(numeric, derivative[1:-1], rtol=0, atol=1e-3)


def test_the_same_generator_draws_the_same_motion(robot):
    np.testing.assert_array_equal(draw(robot, 3), draw(robot, 3))
    assert not np.array_equal(draw(robot, 3), draw(robot, 4))


@pytest.mark.parametrize("joint", [0, -1], ids=["first", "last"])
def test_a_motion_outside_the_limits_is_refused(robot, joint):
    motion = draw(robot)
    motion.angle[7, joint] = robot.angle_limits[joint, 1] + 0.1
    words = (
        f"leaves the limits of the {robot.name}: expected the angle of joint '{robot.joint_names[joint]}' in .* rad. "
    )
    with pytest.raises(ValueError, match=words + "Received: .* at time index 7. Make it smaller"):
        robot.dynamics(motion)


@pytest.mark.parametrize("value", [100.0, -100.0, float("nan")], ids=["fast", "backwards", "nan"])
def test_a_motion_that_is_too_fast_is_refused(robot, value):
    motion = draw(robot)
    motion.velocity[0, 0] = value
    with pytest.raises(ValueError, match="expected the velocity of joint .* rad/s. Received"):
        robot.dynamics(motion)


def test_a_motion_of_another_robot_is_refused(robot):
    with pytest.raises(
        ValueError, match=r"three arrays \[T, \d\]: .* Received shapes: \[\(5, 3\), \(5, 3\), \(5, 3\)\]"
    ):
        robot.dynamics(Motion(*np.zeros((3, 5, 3))))


def test_motions_that_need_too_much_torque_are_not_drawn(robot):
    robot.torque_limits[:] = 1e-6
    with pytest.raises(RuntimeError, match="None of 100 motions of the .* stays within"):
        draw(robot)
