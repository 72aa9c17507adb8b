"""What the recipe `reacher_demonstrations.py` is about: targets, experts, policies, and what the learned loss sees."""

import gymnasium
import keras
import numpy as np
import tensorflow as tf

import ml3_tf.envs  # noqa: F401 - registers the environment
from ml3_tf.baselines._ilqr import ilqr
from ml3_tf.envs.reacher import MAX_TORQUE, fingertip, reacher_step
from ml3_tf.rl.policies import Squash
from ml3_tf.rl.rollouts import rollout_env

HORIZON = 65
REST = np.array([0.0, 1.2])  # rad, the pose about which targets and starts lie
REACH = 1.2  # rad, the largest change of a joint between the rest pose and a target
MIN_CHANGE = 0.5  # rad, the smallest change of a joint between the rest pose and a training target
START_SPREAD = 0.3  # rad, of the starts about the rest pose
STATE_SCALE = [0.5, 0.5, 2.5, 2.5]  # rad, rad/s
FEATURES = {"torque": 2, "to_goal": 2, "velocity": 2, "elbow": 1, "final_error": 2}
INPUT_SCALE = [1.0, 1.0, 1.0, 1.0, 5.0, 5.0, 1.0, 1.0, 1.0]
# Of the squared error of the angles, the squared velocities and the squared torques; then of those of the last state.
EXPERT_WEIGHTS = {"angle": 1.0, "speed": 5e-3, "torque": 3e-2, "final_angle": 30.0, "final_speed": 0.3}
PUSHES = 0.3  # N m, standard deviation of the random torques that push an expert off its course
REACHED = 0.1  # rad


def draw_targets(seed, number):
    """Training targets `[4, 2]`, one in each quadrant about the rest pose, and test targets `[number, 2]`, rad."""
    generator = np.random.default_rng([seed, 0])
    signs = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    train = REST + signs * generator.uniform(MIN_CHANGE, REACH, signs.shape)
    return train, REST + generator.uniform(-REACH, REACH, (number, 2))


def draw_starts(seed, number):
    """Starts `[number, 4]` at rest."""
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
        error, velocity = states[:, :2] - targets, states[:, 2:]
        return weights["final_angle"] * squares(error) + weights["final_speed"] * squares(velocity)

    torques = np.zeros((len(starts), HORIZON, 2))
    return ilqr(reacher_step, running_cost, final_cost, starts, torques, -MAX_TORQUE, MAX_TORQUE, tolerance=1e-6)


def demonstrate(plans, pushes, seed):
    """States `[N, T, 4]` and torques `[N, T, 2]` of experts that random torques push off their course.

    An expert answers with the feedback gains that come with its plan. The torques are its answers alone.
    """
    generator = np.random.default_rng(seed)
    state, states, torques = plans.states[:, 0], [], []
    for step in range(HORIZON):
        away = (state - plans.states[:, step])[..., np.newaxis]
        torque = plans.controls[:, step] + (plans.gains[:, step] @ away)[..., 0]
        states.append(state)
        torques.append(np.clip(torque, -MAX_TORQUE, MAX_TORQUE))
        state = reacher_step(state, torques[-1] + pushes * generator.normal(size=torque.shape)).numpy()
    return np.stack(states, 1), np.stack(torques, 1)


def make_experts(seed, config):
    """Demonstrations for the four training targets of a seed.

    Returns:
        Dictionary of `targets` `[4, 2]`, `states` `[4, D, T, 4]` and `torques` `[4, D, T, 2]`, float32.
    """
    targets, number = draw_targets(seed, 0)[0], config["demonstrations"]
    plans = plan(draw_starts([seed, 1], len(targets) * number), np.repeat(targets, number, 0))
    states, torques = demonstrate(plans, config["pushes"], [seed, 2])
    shape = len(targets), number, HORIZON, -1
    experts = {"targets": targets, "states": states.reshape(shape), "torques": torques.reshape(shape)}
    return {name: array.astype(np.float32) for name, array in experts.items()}


def demonstration_tasks(experts, config, seed):
    """The outer steps' tasks: goals in turn, for each a demonstration drawn anew; a policy starts where it starts."""
    targets, number = experts["targets"], config["num_tasks"]
    which = np.arange(number) % len(targets)

    def draw():
        generator = np.random.default_rng([seed, 3])
        for _ in range(config["outer_steps"]):
            demonstration = generator.integers(experts["states"].shape[1], size=number)
            states, torques = (experts[name][which, demonstration] for name in ("states", "torques"))
            yield {"support": (states[:, :1], targets[which][:, np.newaxis]), "query": (states, torques)}

    spec = lambda *shape: tf.TensorSpec((number, *shape))
    signature = {"support": (spec(1, 4), spec(1, 2)), "query": (spec(HORIZON, 4), spec(HORIZON, 2))}
    return tf.data.Dataset.from_generator(draw, output_signature=signature).prefetch(1)


def build_policy(config, sees_goal=False):
    """From states `[B, 4]`, with the goal beside them `[B, 6]`, to torques `[B, 2]`."""
    layers = keras.layers
    center, scale = np.concatenate([REST, [0.0, 0.0]]), np.array(STATE_SCALE)
    if sees_goal:
        center, scale = np.concatenate([center, REST]), np.concatenate([scale, STATE_SCALE[:2]])
    small = keras.initializers.VarianceScaling(0.01, "fan_avg", "uniform")  # a fresh policy hardly moves
    return keras.Sequential(
        [
            keras.Input((len(scale),)),
            layers.Rescaling((1 / scale).tolist(), (-center / scale).tolist()),
            layers.Dense(config["policy_units"], "tanh"),
            layers.Dense(2, kernel_initializer=small),
            Squash(MAX_TORQUE),
        ]
    )


def loss_inputs(trajectory):
    """What the learned loss sees beside each torque; nothing of it depends on where the shoulder points.

    The way to the goal and the velocity; the angle of the elbow, which the inertia depends on; and how far from the
    goal, and in which direction, the rollout ended.
    """
    states, goal = trajectory.observations[..., :-1, :], trajectory.goal[..., tf.newaxis, :]
    final_error = tf.broadcast_to(goal - trajectory.observations[..., -1:, :2], [*states.shape[:-1], 2])
    return tf.concat([goal - states[..., :2], states[..., 2:], states[..., 1:2], final_error], -1)


def make_env(starts, targets):
    """A vector of real environments, one for each task."""
    env = gymnasium.make_vec("ml3_tf/ReacherGoal-v0", num_envs=len(starts), vectorization_mode="sync")
    env.set_attr("task", [{"state": start, "goal": target} for start, target in zip(starts, targets)])
    return env


def roll_out(policy, starts, targets, sees_goal=False):
    """States `[N, T + 1, 4]` of a policy in the real environments."""
    goals = targets.astype(np.float32)
    act = lambda states: policy(np.concatenate([states, goals], -1) if sees_goal else states)
    return rollout_env(act, make_env(starts, targets), HORIZON).observations


def final_distances(states, targets):
    """Of rollouts `[..., N, T + 1, 4]`: `[..., N]`, rad."""
    return np.linalg.norm(states[..., -1, :2] - targets, axis=-1)


def scores(states, targets):
    """The metrics of rollouts `[N, T + 1, 4]` to targets `[N, 2]`."""
    distances = final_distances(states, targets)
    away = np.linalg.norm(fingertip(states[:, -1, :2]) - fingertip(targets), axis=-1)
    return {
        "final_distance": float(np.mean(distances)),
        "fingertip_distance": float(np.mean(away)),
        "reached": float(np.mean(distances < REACHED)),
    }
