"""Gymnasium environments whose tasks are a start and a goal: importing this module registers them.

| id | observation | action | goal | steps |
|---|---|---|---|---|
| `ml3_tf/MountainCarGoal-v0` | 2: position, velocity | 1: force | position and velocity | 35 |
| `ml3_tf/PointmassGoal-v0` | 4: position, velocity | 2: acceleration | position | 25 |
| `ml3_tf/ReacherGoal-v0` | 4: angles, velocities | 2: torques | angles | 65 |
| `ml3_tf/ReacherFingertipGoal-v0` | 11: angles, goal, fingertip | 2: torques | place of the fingertip | 65 |
"""

try:
    import gymnasium
except ImportError as error:
    raise ImportError("`ml3_tf.envs` needs gymnasium and mujoco: pip install 'ml3_tf[rl]'") from error

# The modules are named, not imported: MuJoCo is loaded when an environment that needs it is made.
_ENVIRONMENTS = {
    "ml3_tf/MountainCarGoal-v0": ("mountain_car:MountainCarGoalEnv", 35),
    "ml3_tf/PointmassGoal-v0": ("pointmass:PointmassGoalEnv", 25),
    "ml3_tf/ReacherGoal-v0": ("reacher:ReacherGoalEnv", 65),
    "ml3_tf/ReacherFingertipGoal-v0": ("reacher:ReacherFingertipGoalEnv", 65),
}

for _name, (_entry_point, _horizon) in _ENVIRONMENTS.items():
    if _name not in gymnasium.registry:
        gymnasium.register(_name, f"{__name__}.{_entry_point}", max_episode_steps=_horizon)
