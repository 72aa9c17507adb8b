"""Gymnasium environments whose tasks are a start and a goal: importing this module registers them.

| id | observation | action | goal | steps |
|---|---|---|---|---|
| `ml3_tf/MountainCarGoal-v0` | 2: position, velocity | 1: force | position and velocity | 35 |
| `ml3_tf/PointmassGoal-v0` | 4: position, velocity | 2: acceleration | position | 25 |
| `ml3_tf/ReacherGoal-v0` | 4: angles, velocities | 2: torques | angles | 65 |
| `ml3_tf/ReacherFingertipGoal-v0` | 11: angles, goal, fingertip | 2: torques | place of the fingertip | 65 |
| `ml3_tf/AntGoal-v0` | 31: torso, joints, way to the goal | 8: torques | place of the torso | 100 |

Those that MuJoCo simulates, the reachers and the ant, have a form that steps many at once (`ml3_tf.envs.batched`):
`gymnasium.make_vec(name, num_envs=N)` takes it unless told otherwise.
"""

try:
    import gymnasium
except ImportError as error:
    raise ImportError("`ml3_tf.envs` needs gymnasium and mujoco: pip install 'ml3_tf[rl]'") from error

# The modules are named, not imported: MuJoCo is loaded when an environment that needs it is made.
_ENVIRONMENTS = {
    "ml3_tf/MountainCarGoal-v0": (35, "mountain_car:MountainCarGoalEnv", None),
    "ml3_tf/PointmassGoal-v0": (25, "pointmass:PointmassGoalEnv", None),
    "ml3_tf/ReacherGoal-v0": (65, "reacher:ReacherGoalEnv", "batched:batched_reacher"),
    "ml3_tf/ReacherFingertipGoal-v0": (65, "reacher:ReacherFingertipGoalEnv", "batched:batched_fingertip_reacher"),
    "ml3_tf/AntGoal-v0": (100, "ant:AntGoalEnv", "batched:batched_ant"),
}

for _name, (_horizon, _single, _batched) in _ENVIRONMENTS.items():
    if _name not in gymnasium.registry:
        gymnasium.register(
            _name,
            entry_point=f"{__name__}.{_single}",
            vector_entry_point=_batched and f"{__name__}.{_batched}",
            max_episode_steps=_horizon,
        )
