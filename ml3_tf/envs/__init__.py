"""Gymnasium environments whose tasks are a start and a goal: importing this module registers them.

| id | state | action | goal | distance |
|---|---|---|---|---|
| `ml3_tf/MountainCarGoal-v0` | 2 | 1 | position and velocity | of the state to the goal |
"""

try:
    import gymnasium
except ImportError as error:
    raise ImportError("`ml3_tf.envs` needs gymnasium and mujoco: pip install 'ml3_tf[rl]'") from error

# The modules are named, not imported: MuJoCo is loaded when an environment that needs it is made.
_ENVIRONMENTS = {
    "ml3_tf/MountainCarGoal-v0": ("mountain_car:MountainCarGoalEnv", 35),
}

for _name, (_entry_point, _horizon) in _ENVIRONMENTS.items():
    if _name not in gymnasium.registry:
        gymnasium.register(_name, f"{__name__}.{_entry_point}", max_episode_steps=_horizon)
