"""The robots, standard units and tasks of `inverse_dynamics.py`."""

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from parts.inverse_dynamics.learner import Scales, draw_tasks
from parts.inverse_dynamics.robot_dynamics import Robot

if TYPE_CHECKING:
    from inverse_dynamics import Settings

PURPOSES = ("train", "tune", "test")  # tasks of each from a stream of their own


@functools.cache
def load_robot(name: str, duration: float, num_points: int) -> tuple[Robot, np.ndarray, Scales]:
    """Returns a robot, the times of a motion (s), and the standard units of its motions."""
    robot, times = Robot(name), np.linspace(0.0, duration, num_points)
    return robot, times, Scales.measure(robot, times)


def measured_scales(settings: "Settings") -> Scales:
    """Returns the standard units of the robot's motions."""
    return load_robot(settings.robot, settings.duration, settings.points_per_motion)[2]


def make_tasks(settings: "Settings", purpose: str, seed: int, num_tasks: int) -> dict[str, Any]:
    """Draws tasks for training, tuning or testing; see `draw_tasks`."""
    robot, times, scales = load_robot(settings.robot, settings.duration, settings.points_per_motion)
    rng = np.random.default_rng([PURPOSES.index(purpose), seed])
    return draw_tasks(robot, scales, rng, times, num_tasks, settings.support_motions, settings.query_motions)
