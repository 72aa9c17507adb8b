"""Rigid-body dynamics of robot arms by MuJoCo: exciting trajectories, their torques, and true inertia matrices.

    M(q) qdd + F(q, qd) = tau      (eq. 10 of ML3; F: Coriolis, centrifugal and gravity forces)

Shapes: T times, J joints. Units: angles rad, velocities rad/s, accelerations rad/s^2, torques N m, inertias kg m^2.
"""

from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np

FOLDER = Path(__file__).parent / "robots"
NUM_SINES = 3
FREQUENCIES = (0.2, 1.5)  # Hz
USED_SHARE = 0.9  # of the velocity limits
MAX_DRAWS = 100


class Motion(NamedTuple):
    """A motion of the joints, each `[T, J]`."""

    angle: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray


class Dynamics(NamedTuple):
    """The torque of a motion, `[T, J]`: inertia matrix `[T, J, J]` times acceleration, plus bias force `[T, J]`."""

    torque: np.ndarray
    inertia: np.ndarray
    bias: np.ndarray


class Robot:
    """A robot arm with hinge joints.

    Args:
        name: One of `Robot.names()`.

    Raises:
        ValueError: There is no such robot.

    Example:

    >>> robot = Robot("reacher")
    >>> motion = robot.draw_motion(np.random.default_rng(0), np.linspace(0.0, 2.0, 50))
    >>> robot.dynamics(motion).torque.shape
    (50, 2)
    """

    def __init__(self, name: str) -> None:
        if name not in self.names():
            raise ValueError(f"Unknown robot. Expected `name` to be one of {self.names()}. Received: name={name!r}")
        self.name = name
        self.model = mujoco.MjModel.from_xml_path(str(FOLDER / f"{name}.xml"))
        self._data = mujoco.MjData(self.model)
        self.num_joints = self.model.nv
        self.joint_names = [self.model.joint(i).name for i in range(self.num_joints)]
        self.angle_limits = self.model.jnt_range.copy()  # [J, 2]
        self.velocity_limits = self.model.numeric("velocity_limits").data.copy()  # [J]
        self.torque_limits = self.model.jnt_actfrcrange[:, 1].copy()  # [J]
        self.center = self.model.numeric("center").data.copy()  # [J], motions are drawn within `reach` of it
        self.reach = self.model.numeric("reach").data.copy()  # [J]

    @staticmethod
    def names() -> list[str]:
        """Returns the names of all robots."""
        return sorted(path.stem for path in FOLDER.glob("*.xml"))

    def draw_motion(self, rng: np.random.Generator, times: np.ndarray) -> Motion:
        """Draws a motion, a sum of sines for each joint, that stays within the limits of angle, velocity and torque.

        Args:
            rng: `numpy.random.Generator`.
            times: `[T]`, s.

        Returns:
            `Motion`.

        Raises:
            RuntimeError: No motion within the limits of torque was found.
        """
        for _ in range(MAX_DRAWS):
            motion = self._draw_sines(rng, np.asarray(times))
            if (np.abs(self.dynamics(motion).torque) <= self.torque_limits).all():
                return motion
        raise RuntimeError(f"None of {MAX_DRAWS} motions of the {self.name} stays within {self.torque_limits} N m.")

    def dynamics(self, motion: Motion) -> Dynamics:
        """Returns the `Dynamics` of a motion, by MuJoCo's inverse dynamics.

        Raises:
            ValueError: The motion leaves the limits of angle or velocity, or has other shapes than a `Motion`.
        """
        motion = Motion(*(np.asarray(values, dtype=np.float64) for values in motion))
        self._check(motion)
        return Dynamics(*(np.array(values) for values in zip(*map(self._dynamics_at, *motion))))

    def _dynamics_at(
        self, angle: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Torque, inertia matrix and bias force in one state."""
        data, model = self._data, self.model
        data.qpos[:], data.qvel[:], data.qacc[:] = angle, velocity, acceleration
        mujoco.mj_inverse(model, data)
        inertia = np.empty((self.num_joints, self.num_joints))
        for column, unit in zip(inertia, np.eye(self.num_joints)):
            mujoco.mj_mulM(model, data, column, unit)  # unlike mj_fullM, the same in every version of MuJoCo
        return data.qfrc_inverse.copy(), inertia, data.qfrc_bias.copy()

    def _draw_sines(self, rng: np.random.Generator, times: np.ndarray) -> Motion:
        """Sums of sines whose largest possible angle and velocity are within the limits."""
        shape = (self.num_joints, NUM_SINES)
        omega = 2 * np.pi * rng.uniform(*FREQUENCIES, shape)
        phase = rng.uniform(0, 2 * np.pi, shape)
        amplitude = rng.uniform(0.2, 1, shape)
        largest_velocity = (amplitude * omega).sum(axis=1)
        largest = np.minimum(self.reach / amplitude.sum(axis=1), USED_SHARE * self.velocity_limits / largest_velocity)
        amplitude *= (largest * rng.uniform(0.5, 1, self.num_joints))[:, np.newaxis]
        room = self.reach - amplitude.sum(axis=1)
        center = self.center + rng.uniform(-room, room)
        angles = omega * times[:, np.newaxis, np.newaxis] + phase  # [T, J, sines]
        return Motion(
            center + (amplitude * np.sin(angles)).sum(axis=2),
            (amplitude * omega * np.cos(angles)).sum(axis=2),
            (-amplitude * omega**2 * np.sin(angles)).sum(axis=2),
        )

    def _check(self, motion: Motion) -> None:
        shapes = [values.shape for values in motion]
        if len(set(shapes)) != 1 or len(shapes[0]) != 2 or shapes[0][1] != self.num_joints:
            raise ValueError(
                f"A motion of the {self.name} is three arrays [T, {self.num_joints}]: angle, velocity and acceleration "
                f"of its joints. Received shapes: {shapes}"
            )
        bounds = {
            "angle": (motion.angle, self.angle_limits, "rad"),
            "velocity": (motion.velocity, np.stack([-self.velocity_limits, self.velocity_limits], axis=1), "rad/s"),
        }
        for name, (values, limits, unit) in bounds.items():
            outside = ~((values >= limits[:, 0]) & (values <= limits[:, 1]))  # NaN is outside too
            if outside.any():
                time, joint = np.argwhere(outside)[0]
                raise ValueError(
                    f"The motion leaves the limits of the {self.name}: expected the {name} of joint "
                    f"'{self.joint_names[joint]}' in [{limits[joint][0]:.4f}, {limits[joint][1]:.4f}] {unit}. "
                    f"Received: {values[time, joint]:.4f} at time index {time}. Make it smaller, or move its center."
                )
