"""What the recipe `reacher_demonstrations.py` is about: targets, experts, policies, and what the learned loss sees."""

import gymnasium
import numpy as np
import tensorflow as tf

import ml3_tf.envs  # noqa: F401 - registers the environment
from ml3_tf.baselines.ilqr import ilqr
from ml3_tf.envs.reacher import MAX_TORQUE, reacher_step
from ml3_tf.policies import GaussianPolicy
from ml3_tf.rollouts import rollout_env

HORIZON = 65
NUM_TRAIN_TARGETS = 4
REST = np.array([0.0, 1.2])  # rad, the pose about which targets and starts lie
REACH = 1.2  # rad, the largest change of a joint between the rest pose and a target
NEAREST_TRAIN_TARGET = 0.5  # the same for the smallest change of a joint to a training target
START_SPREAD = 0.3  # rad, of the starts about the rest pose
FEATURES = {"action": 2, "to_goal": 2, "velocity": 2, "elbow": 1, "final_error": 2}
STATE_SCALE = [1.0, 1.0, 5.0, 5.0]  # rad, rad/s
# of the squared error of the angles, of the squared velocities, of the squared torques; then those of the last state
EXPERT_WEIGHTS = {"angle": 1.0, "speed": 5e-3, "torque": 3e-2, "final_angle": 30.0, "final_speed": 0.3}


def draw_targets(seed, number):
    """Training targets `[4, 2]`, one in each quadrant about the rest pose, and test targets `[number, 2]` among them."""
    generator = np.random.default_rng([seed, 2])
    signs = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    train = REST + signs * generator.uniform(NEAREST_TRAIN_TARGET, REACH, (NUM_TRAIN_TARGETS, 2))
    return train, REST + generator.uniform(-REACH, REACH, (number, 2))


def draw_starts(seed, number):
    """Starts `[number, 4]`, at rest."""
    angles = REST + np.random.default_rng(seed).uniform(-START_SPREAD, START_SPREAD, (number, 2))
    return np.concatenate([angles, np.zeros((number, 2))], -1)


def plan(starts, targets):
    """iLQR with the true model, from zero torque, for each start `[N, 4]` and its target `[N, 2]`."""
    weights, targets = EXPERT_WEIGHTS, tf.constant(targets, tf.float64)

    def squares(values):
        return tf.reduce_sum(values**2, -1)

    def running_cost(states, torques):
        cost = weights["angle"] * squares(states[..., :2] - targets[:, tf.newaxis])
        return cost + weights["speed"] * squares(states[..., 2:]) + weights["torque"] * squares(torques)

    def final_cost(states):
        return weights["final_angle"] * squares(states[:, :2] - targets) + weights["final_speed"] * squares(states[:, 2:])

    controls = np.zeros((len(starts), HORIZON, 2))
    return ilqr(reacher_step, running_cost, final_cost, starts, controls, -MAX_TORQUE, MAX_TORQUE, tolerance=1e-6)


def demonstrate(plans, noise, seed):
    """States `[N, T, 4]` and actions `[N, T, 2]` of an expert whose arm is pushed off its course by random torques.

    The expert answers with the feedback gains that come with its plan; the actions are its answers, without the pushes.
    """
    generator = np.random.default_rng(seed)
    state, states, actions = plans.states[:, 0], [], []
    for step in range(HORIZON):
        away = (state - plans.states[:, step])[..., np.newaxis]
        action = np.clip(plans.controls[:, step] + (plans.gains[:, step] @ away)[..., 0], -MAX_TORQUE, MAX_TORQUE)
        states.append(state)
        actions.append(action)
        state = reacher_step(state, action + noise * generator.normal(size=action.shape)).numpy()
    return np.stack(states, 1), np.stack(actions, 1)


def build_policy(config, num_goals=0):
    """From states `[B, 4]`, and goals beside them if any, to torques `[B, 2]`."""
    return GaussianPolicy(
        4 + num_goals,
        2,
        hidden_units=config["policy_units"],
        action_limit=MAX_TORQUE,
        state_scale=STATE_SCALE + [1.0] * num_goals,
    )


def loss_inputs(trajectory):
    """What the learned loss sees beside each torque; nothing of it depends on where the shoulder points.

    The way to the goal and the velocity, the angle of the elbow, which the inertia depends on, and how far from the
    goal, and in which direction, the rollout ended.
    """
    states, goal = trajectory.states[..., :-1, :], trajectory.goal[..., tf.newaxis, :]
    final = goal - trajectory.states[..., -1:, :2]
    parts = [goal - states[..., :2], states[..., 2:], states[..., 1:2], tf.broadcast_to(final, [*states.shape[:-1], 2])]
    return tf.concat(parts, -1)


def make_env(starts, targets):
    """A vector of real environments, one for each task."""
    env = gymnasium.make_vec("ml3_tf/ReacherGoal-v0", num_envs=len(starts), vectorization_mode="sync")
    env.set_attr("task", [{"state": start, "goal": target} for start, target in zip(starts, targets)])
    return env


def final_distances(states, targets):
    """`[..., N]` in rad, of rollouts `[..., N, T + 1, 4]`."""
    return np.linalg.norm(states[..., -1, :2] - targets, axis=-1)


def reach(policy, starts, targets):
    """Final distances `[N]` of a policy, a function of states `[N, 4]`, in the real environment."""
    return final_distances(rollout_env(policy, make_env(starts, targets), HORIZON).states, targets)
