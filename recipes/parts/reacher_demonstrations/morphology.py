"""Other policies and other arms for the loss of `reacher_demonstrations.py` as it is.

The clone is made anew for each other policy, and used as it is with each arm.
"""

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import keras
import numpy as np

from ml3_tf.envs import reacher
from ml3_tf.rl import Squash, rollout_env
from parts.reacher_demonstrations.baselines import clone_experts, train_taught
from parts.reacher_demonstrations.settings import BaselineSettings
from parts.reacher_demonstrations.task import (
    HORIZON,
    REST,
    STATE_SCALE,
    Experts,
    build_policy,
    final_distances,
    make_env,
    roll_out,
)

ops, layers = keras.ops, keras.layers
POLICIES = ("linear", "deep", "trigonometric", "without_velocity", "muscles")


def build_other_policy(kind: str, *, sees_goal: bool = False) -> keras.Model:
    """Builds a policy of other inputs, layers or outputs, from states `[B, 4]` to torques `[B, 2]`.

    Args:
        kind: One of `POLICIES`. "linear": without a hidden layer. "deep": three of 32 units. "trigonometric": sees
            sines and cosines of the links' angles and the place of the fingertip in place of the angles.
            "without_velocity": sees the angles alone. "muscles": four outputs, two for each joint, which pull against
            each other.
        sees_goal: The goal lies beside the state, `[B, 6]`, and is seen in the form of the angles.
    """
    inputs = keras.Input((6 if sees_goal else 4,))
    scale = np.array(STATE_SCALE, np.float32)
    angles = (inputs[:, :2] - REST.astype(np.float32)) / scale[:2]
    seen = [angles, inputs[:, 2:4] / scale[2:]]
    seen = [*_directions(inputs[:, :2]), seen[1]] if kind == "trigonometric" else seen
    seen = [angles] if kind == "without_velocity" else seen
    if sees_goal and kind == "trigonometric":
        seen += _directions(inputs[:, 4:])
    elif sees_goal:
        seen += [(inputs[:, 4:] - REST.astype(np.float32)) / scale[:2]]
    hidden = ops.concatenate(seen, -1)
    for units in {"linear": (), "deep": (32, 32, 32)}.get(kind, (64,)):
        hidden = layers.Dense(units, "tanh")(hidden)
    small = keras.initializers.VarianceScaling(0.01, "fan_avg", "uniform")  # a fresh policy hardly moves
    if kind == "muscles":
        pulls = layers.Dense(4, "sigmoid", kernel_initializer=small)(hidden)
        return keras.Model(inputs, reacher.MAX_TORQUE * (pulls[:, :2] - pulls[:, 2:]))
    return keras.Model(inputs, Squash(reacher.MAX_TORQUE)(layers.Dense(2, kernel_initializer=small)(hidden)))


def _directions(angles: Any) -> list[Any]:
    """Cosines and sines of the angles between links and x-axis, and the fingertip as a share of the arm's length."""
    links = ops.stack([angles[:, 0], angles[:, 0] + angles[:, 1]], -1)
    parts = [ops.cos(links), ops.sin(links)]
    lengths = np.array(reacher.LENGTHS, np.float32) / sum(reacher.LENGTHS)
    return [*parts, *(ops.sum(part * lengths, -1, keepdims=True) for part in parts)]


def make_heavy(model: Any) -> None:
    """Twice the mass of each link."""
    model.body_mass[1:] *= 2
    model.body_inertia[1:] *= 2


def make_weak(model: Any) -> None:
    """Motors of 0.6 times the torque that they are asked for."""
    model.actuator_gear[:, 0] *= 0.6


def make_long(model: Any) -> None:
    """Links 1.3 times as long, of the same mass: the inertia of rods grows with the square of their lengths."""
    model.body_pos[2, 0] *= 1.3
    model.body_ipos[1:] *= 1.3
    model.body_inertia[1:, 1:] *= 1.3**2


def make_stiff(model: Any) -> None:
    """Joints of three times the damping."""
    model.dof_damping[:] *= 3


def make_sprung(model: Any) -> None:
    """Springs of 0.3 N m/rad that pull each joint to the rest pose."""
    model.jnt_stiffness[:] = 0.3
    model.qpos_spring[:] = REST


ARMS: dict[str, Callable[[Any], None]] = {
    "heavy": make_heavy,
    "weak": make_weak,
    "long": make_long,
    "stiff": make_stiff,
    "sprung": make_sprung,
}


def make_other_env(arm: str, starts: np.ndarray, targets: np.ndarray) -> gymnasium.vector.VectorEnv:
    """Returns the real environments with another arm in each, one of `ARMS`."""
    env: Any = make_env(starts, targets)
    for single in env.envs:
        ARMS[arm](single.unwrapped.model)
    return env


def score_others(
    learn: Callable[..., np.ndarray],
    experts: Experts,
    settings: BaselineSettings,
    starts: np.ndarray,
    targets: np.ndarray,
    *,
    seed: int,
    test_seed: int,
) -> dict[str, float]:
    """Returns the final distances of all other policies, and of the usual policy with all other arms.

    Args:
        learn: Function of an environment, `num_steps` and `policy` that returns states `[num_steps + 1, N, T + 1, 4]`.
        experts: The demonstrations, which clones are made of.
        settings: The settings; `taught` has the rate of the usual policy.
        starts: `[N, 4]`.
        targets: `[N, 2]`.
        seed: Seed of the cloned policies.
        test_seed: Seed of the policies that are taught.
    """
    clone = lambda build, tuned: clone_experts(
        functools.partial(build, sees_goal=True), experts, seed, sees_goal=True, rate=tuned[0], epochs=tuned[1]
    )
    usual = clone(functools.partial(build_policy, settings.policy_units), settings.goal_cloning)
    number = settings.reported_step
    teach = functools.partial(train_taught, usual, settings, settings.taught, num_steps=number, seed=test_seed)
    learn = functools.partial(learn, num_steps=number)
    ends = {}
    for kind, tuned in zip(POLICIES, settings.other_cloning, strict=True):
        build = functools.partial(build_other_policy, kind)
        ends[f"{kind}_final_distance_learned"] = learn(make_env(starts, targets), policy=build)[-1]
        ends[f"{kind}_final_distance_taught"] = teach(make_env(starts, targets), policy=build)[-1]
        ends[f"{kind}_final_distance_goal_cloning"] = roll_out(clone(build, tuned), starts, targets, sees_goal=True)
    goals = targets.astype(np.float32)
    act = lambda states: usual(np.concatenate([states, goals], -1))
    for arm in ARMS:
        env = functools.partial(make_other_env, arm, starts, targets)
        ends[f"{arm}_final_distance_learned"] = learn(env())[-1]
        ends[f"{arm}_final_distance_taught"] = teach(env())[-1]
        ends[f"{arm}_final_distance_goal_cloning"] = rollout_env(act, env(), horizon=HORIZON).observations
    return {name: float(np.mean(final_distances(states, targets))) for name, states in ends.items()}
