"""Gymnasium environments whose tasks are a start and a goal. Importing this package registers them.

| id | observation | action | goal | steps |
|---|---|---|---|---|
| `ml3_tf/MountainCarGoal-v0` | 2: position (m), velocity (m/s) | 1: force (N) | position (m), velocity (m/s) | 35 |
| `ml3_tf/PointmassGoal-v0` | 4: position (m), velocity (m/s) | 2: acceleration (m/s^2) | position (m) | 25 |
| `ml3_tf/ReacherGoal-v0` | 4: angles (rad), velocities (rad/s) | 2: torques (N m) | angles (rad) | 65 |
| `ml3_tf/ReacherFingertipGoal-v0` | 11: angles, goal, fingertip | 2: torques (N m) | place of the fingertip (m) | 65 |
| `ml3_tf/AntGoal-v0` | 31: torso, joints, way to the goal | 8: torques (150 N m) | place of the torso (m) | 100 |

The docstring of each class has the units of all columns. MuJoCo simulates the reachers and the ant. These have a form
that steps many environments at once, `BatchedGoalEnv`, which `gymnasium.make_vec(name, num_envs=N)` makes by default.

The modules `mountain_car`, `pointmass`, `reacher` and `ant` are public too: each holds the constants of its
environment, such as `mountain_car.GOAL` and `reacher.TIME_STEP`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ml3_tf.extras import needed_for

with needed_for("`ml3_tf.envs`", "gymnasium", extra="rl"):
    import gymnasium

if TYPE_CHECKING:
    from ml3_tf.envs import ant, mountain_car, pointmass, reacher
    from ml3_tf.envs.ant import AntGoalEnv
    from ml3_tf.envs.batched import BatchedGoalEnv
    from ml3_tf.envs.goal_reaching_env import GoalReachingEnv
    from ml3_tf.envs.mountain_car import MountainCarGoalEnv, mountain_car_step, straight_through_clip
    from ml3_tf.envs.mujoco_env import MujocoGoalEnv
    from ml3_tf.envs.pointmass import PointmassGoalEnv, pointmass_step
    from ml3_tf.envs.reacher import ReacherFingertipGoalEnv, ReacherGoalEnv, fingertip, reacher_step

__all__ = [
    "AntGoalEnv",
    "BatchedGoalEnv",
    "GoalReachingEnv",
    "MountainCarGoalEnv",
    "MujocoGoalEnv",
    "PointmassGoalEnv",
    "ReacherFingertipGoalEnv",
    "ReacherGoalEnv",
    "ant",
    "fingertip",
    "mountain_car",
    "mountain_car_step",
    "pointmass",
    "pointmass_step",
    "reacher",
    "reacher_step",
    "straight_through_clip",
]

# Where each public name is. MuJoCo is loaded when a name or an environment that needs it is asked for.
_MODULES = {
    "AntGoalEnv": "ant",
    "BatchedGoalEnv": "batched",
    "GoalReachingEnv": "goal_reaching_env",
    "MountainCarGoalEnv": "mountain_car",
    "MujocoGoalEnv": "mujoco_env",
    "PointmassGoalEnv": "pointmass",
    "ReacherFingertipGoalEnv": "reacher",
    "ReacherGoalEnv": "reacher",
    "fingertip": "reacher",
    "mountain_car_step": "mountain_car",
    "pointmass_step": "pointmass",
    "reacher_step": "reacher",
    "straight_through_clip": "mountain_car",
}

# Steps of an episode, the class, and the function that makes many in one simulator.
_ENVIRONMENTS = {
    "ml3_tf/MountainCarGoal-v0": (35, "mountain_car:MountainCarGoalEnv", None),
    "ml3_tf/PointmassGoal-v0": (25, "pointmass:PointmassGoalEnv", None),
    "ml3_tf/ReacherGoal-v0": (65, "reacher:ReacherGoalEnv", "batched:batched_reacher"),
    "ml3_tf/ReacherFingertipGoal-v0": (65, "reacher:ReacherFingertipGoalEnv", "batched:batched_fingertip_reacher"),
    "ml3_tf/AntGoal-v0": (100, "ant:AntGoalEnv", "batched:batched_ant"),
}

for _name, (_num_steps, _single, _batched) in _ENVIRONMENTS.items():
    if _name not in gymnasium.registry:
        gymnasium.register(
            _name,
            entry_point=f"{__name__}.{_single}",
            vector_entry_point=_batched and f"{__name__}.{_batched}",
            max_episode_steps=_num_steps,
        )


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module = importlib.import_module(f"{__name__}.{_MODULES.get(name, name)}")
    value = getattr(module, name) if name in _MODULES else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
