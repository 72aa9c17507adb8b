"""The problem of the recipe `reacher_demonstrations.py`: targets, experts, policies and scores."""

from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import keras
import numpy as np
import tensorflow as tf

from ml3_tf.baselines import ILQRResult, ilqr
from ml3_tf.envs import reacher
from ml3_tf.rl import Squash, rollout_env

HORIZON = 65
REST = np.array([0.0, 1.2])  # rad, the pose about which targets and starts lie
REACH = 1.2  # rad, the largest change of a joint between the rest pose and a target
MIN_CHANGE = 0.5  # rad, the smallest change of a joint between the rest pose and a training target
START_SPREAD = 0.3  # rad, of the starts about the rest pose
STATE_SCALE = [0.5, 0.5, 2.5, 2.5]  # rad, rad/s
# Of the squared error of the angles, the squared velocities and the squared torques; then of those of the last state.
EXPERT_WEIGHTS = {"angle": 1.0, "speed": 5e-3, "torque": 3e-2, "final_angle": 30.0, "final_speed": 0.3}
REACHED = 0.1  # rad

Experts = dict[str, np.ndarray]
"""Demonstrations, float32: "targets" `[4, 2]`, "states" `[4, D, T, 4]` and "torques" `[4, D, T, 2]`."""


def draw_targets(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws training targets `[4, 2]`, one in each quadrant about the rest pose, and test ones `[number, 2]` (rad)."""
    generator = np.random.default_rng([seed, 0])
    signs = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    train = REST + signs * generator.uniform(MIN_CHANGE, REACH, signs.shape)
    return train, REST + generator.uniform(-REACH, REACH, (number, 2))


def draw_starts(seed: Sequence[int], number: int) -> np.ndarray:
    """Draws starts `[number, 4]` at rest."""
    angles = REST + np.random.default_rng(seed).uniform(-START_SPREAD, START_SPREAD, (number, 2))
    return np.concatenate([angles, np.zeros((number, 2))], -1)


def plan(starts: np.ndarray, targets: np.ndarray) -> ILQRResult:
    """Runs iLQR with the true model, from zero torque, for each start `[N, 4]` and its target `[N, 2]`."""
    weights, targets = EXPERT_WEIGHTS, tf.constant(targets, tf.float64)

    def squares(values: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(values**2, -1)

    def running_cost(states: tf.Tensor, torques: tf.Tensor) -> tf.Tensor:
        cost = weights["angle"] * squares(states[..., :2] - targets[:, tf.newaxis])
        return cost + weights["speed"] * squares(states[..., 2:]) + weights["torque"] * squares(torques)

    def final_cost(states: tf.Tensor) -> tf.Tensor:
        error, velocity = states[:, :2] - targets, states[:, 2:]
        return weights["final_angle"] * squares(error) + weights["final_speed"] * squares(velocity)

    return ilqr(
        reacher.reacher_step,
        running_cost=running_cost,
        final_cost=final_cost,
        initial_states=starts,
        controls=np.zeros((len(starts), HORIZON, 2)),
        lower=-reacher.MAX_TORQUE,
        upper=reacher.MAX_TORQUE,
        tolerance=1e-6,
    )


def demonstrate(plans: ILQRResult, pushes: float, seed: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns states `[N, T, 4]` and torques `[N, T, 2]` of experts that random torques push off their course.

    An expert answers with the feedback gains that come with its plan. The torques are its answers alone.
    """
    generator = np.random.default_rng(seed)
    state, states, torques = plans.states[:, 0], [], []
    for step in range(HORIZON):
        away = (state - plans.states[:, step])[..., np.newaxis]
        torque = plans.controls[:, step] + (plans.gains[:, step] @ away)[..., 0]
        states.append(state)
        torques.append(np.clip(torque, -reacher.MAX_TORQUE, reacher.MAX_TORQUE))
        state = reacher.reacher_step(state, torques[-1] + pushes * generator.normal(size=torque.shape)).numpy()
    return np.stack(states, 1), np.stack(torques, 1)


def make_experts(seed: int, *, demonstrations: int, pushes: float) -> Experts:
    """Makes demonstrations for the four training targets of a seed."""
    targets = draw_targets(seed, 0)[0]
    starts = draw_starts([seed, 1], len(targets) * demonstrations)
    plans = plan(starts, np.repeat(targets, demonstrations, 0))
    states, torques = demonstrate(plans, pushes, [seed, 2])
    shape = len(targets), demonstrations, HORIZON, -1
    experts = {"targets": targets, "states": states.reshape(shape), "torques": torques.reshape(shape)}
    return {name: array.astype(np.float32) for name, array in experts.items()}


def draw_outer_steps(experts: Experts, seed: int, *, num_tasks: int, outer_steps: int) -> tf.data.Dataset:
    """Returns the dataset of meta-training: goals in turn, and for each a demonstration, drawn anew each time.

    A policy starts where its demonstration starts.
    """
    targets = experts["targets"]
    which = np.arange(num_tasks) % len(targets)

    def draw() -> Iterator[dict[str, Any]]:
        generator = np.random.default_rng([seed, 3])
        for _ in range(outer_steps):
            demonstration = generator.integers(experts["states"].shape[1], size=num_tasks)
            states, torques = (experts[name][which, demonstration] for name in ("states", "torques"))
            yield {"support": (states[:, :1], targets[which][:, np.newaxis]), "query": (states, torques)}

    spec = lambda *shape: tf.TensorSpec((num_tasks, *shape))
    signature = {"support": (spec(1, 4), spec(1, 2)), "query": (spec(HORIZON, 4), spec(HORIZON, 2))}
    return tf.data.Dataset.from_generator(draw, output_signature=signature).prefetch(1)


def build_policy(units: int, *, sees_goal: bool = False) -> keras.Model:
    """Builds a policy, from states `[B, 4]`, with the goal beside them `[B, 6]`, to torques `[B, 2]`."""
    layers = keras.layers
    center, scale = np.concatenate([REST, [0.0, 0.0]]), np.array(STATE_SCALE)
    if sees_goal:
        center, scale = np.concatenate([center, REST]), np.concatenate([scale, STATE_SCALE[:2]])
    small = keras.initializers.VarianceScaling(0.01, "fan_avg", "uniform")  # a fresh policy hardly moves
    return keras.Sequential(
        [
            keras.Input((len(scale),)),
            layers.Rescaling((1 / scale).tolist(), (-center / scale).tolist()),
            layers.Dense(units, "tanh"),
            layers.Dense(2, kernel_initializer=small),
            Squash(reacher.MAX_TORQUE),
        ]
    )


def make_env(starts: np.ndarray, targets: np.ndarray) -> gymnasium.vector.VectorEnv:
    """Returns a vector of real environments, one for each task."""
    env = gymnasium.make_vec("ml3_tf/ReacherGoal-v0", num_envs=len(starts), vectorization_mode="sync")
    env.set_attr("task", [{"state": start, "goal": target} for start, target in zip(starts, targets)])
    return env


def roll_out(policy: keras.Model, starts: np.ndarray, targets: np.ndarray, *, sees_goal: bool = False) -> np.ndarray:
    """Rolls a policy out in the real environments: states `[N, T + 1, 4]`."""
    goals = targets.astype(np.float32)
    act = lambda states: policy(np.concatenate([states, goals], -1) if sees_goal else states)
    return rollout_env(act, make_env(starts, targets), horizon=HORIZON).observations


def final_distances(states: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns the final distances (rad) of rollouts `[..., N, T + 1, 4]`, `[..., N]`."""
    return np.linalg.norm(states[..., -1, :2] - targets, axis=-1)


def scores(states: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Returns the metrics of rollouts `[N, T + 1, 4]` to targets `[N, 2]`."""
    distances = final_distances(states, targets)
    away = np.linalg.norm(reacher.fingertip(states[:, -1, :2]) - reacher.fingertip(targets), axis=-1)
    return {
        "final_distance": float(np.mean(distances)),
        "fingertip_distance": float(np.mean(away)),
        "reached": float(np.mean(distances < REACHED)),
    }
