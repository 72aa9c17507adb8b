"""What the recipe `mountain_car.py` is about: its policies, task losses and starts, and iLQR as its baseline."""

import itertools

import keras
import numpy as np
import tensorflow as tf

from ml3_tf.baselines._ilqr import ilqr
from ml3_tf.envs.mountain_car import GOAL, INTERMEDIATE_GOAL, MAX_FORCE, MAX_POSITION, START, mountain_car_step

HORIZON = 35
SHAPED_STEPS = 15  # states that belong to the intermediate goal, the first one included
CHANGE = (0.3, 0.45)  # between these shares of meta-training the weights and starts go from begin to end
STRICT_DISTANCE = 0.1
END_WIDTH = 0.1  # final distances below it count little more
RANDOM_STARTS = (-0.6, -0.4)
RANDOM_CENTRE = -0.5  # m, of the wider starts of meta-training
ILQR_WEIGHTS = (1e-2, 0.1, 10.0)  # of the squared force, of the squared distance along the way, and at the end
ILQR_GRID = list(itertools.product((1e-4, 1e-2, 1.0), (0.0, 0.1, 1.0), (1.0, 10.0, 100.0, 1000.0)))


def build_policy(config):
    """From states `[B, 2]` to forces `[B, 1]`."""
    layers, scale = keras.layers, [1 / scale for scale in config["policy_scale"]]
    if config["policy"] == "linear":
        clip = layers.Activation(lambda force: keras.ops.clip(force, -MAX_FORCE, MAX_FORCE))
        dense = [layers.Dense(config["policy_units"], use_bias=False), layers.Dense(1, use_bias=False)]
        return keras.Sequential([keras.Input((2,)), *dense, clip])
    small = keras.initializers.VarianceScaling(0.01, "fan_avg", "uniform")  # a fresh policy hardly pushes
    return keras.Sequential(
        [
            keras.Input((2,)),
            layers.Rescaling(scale, offset=[-RANDOM_CENTRE * scale[0], 0.0]),
            layers.Dense(config["policy_units"], "tanh"),
            layers.Dense(1, "tanh", kernel_initializer=small),
            layers.Rescaling(MAX_FORCE),
        ]
    )


def final_error(trajectory):
    """What the learned loss sees beside each force: the state, and the rollout's last state minus the goal."""
    states = trajectory.observations[..., :-1, :]
    error = trajectory.observations[..., -1:, :] - trajectory.goal[..., tf.newaxis, :]
    return tf.concat([states, tf.broadcast_to(error, states.shape)], -1)


def final_distance(trajectory):
    """The same in the public reference: the norm of that error.

    It has no sign: it does not tell a car that arrives too fast from one that arrives too slowly, and some losses of
    the improved setting then leave policies beside the goal.
    """
    seen = final_error(trajectory)
    return tf.concat([seen[..., :2], tf.norm(seen[..., 2:], axis=-1, keepdims=True)], -1)


LAYOUTS = {  # name -> (inputs of the loss, their widths)
    "final_error": (final_error, {"force": 1, "state": 2, "final_error": 2}),
    "final_distance": (final_distance, {"force": 1, "state": 2, "final_distance": 1}),
}


class TaskLoss:
    """The cost of each episode in meta-training, with weights that change in its course."""

    def __init__(self, config):
        self.config = config
        self.path_weight, self.end_weight = (tf.Variable(0.0, trainable=False) for _ in range(2))
        self.set_progress(0.0)

    def set_progress(self, done):
        change = share_of_change(done)
        for name in ("path_weight", "end_weight"):
            first, last = self.config[name]
            getattr(self, name).assign(first + (last - first) * change)

    def __call__(self, trajectory):
        states, goal = trajectory.observations, trajectory.goal[..., tf.newaxis, :]
        begin = SHAPED_STEPS if self.config["shaped"] else 0
        cost = self.path_weight * norm(states[..., begin:, :] - goal)
        if self.config["shaped"]:
            cost += self.config["shaping_weight"] * self.path_weight * norm(states[..., :begin, :] - INTERMEDIATE_GOAL)
        # A logarithm: the last tenths count, and an episode that ends far away does not drown the others.
        end = tf.reduce_sum(tf.square(states[..., -1, :] - trajectory.goal), -1)
        cost += self.end_weight * 0.5 * tf.math.log(end + END_WIDTH**2)
        saturation = tf.reduce_mean((trajectory.actions / MAX_FORCE) ** 4, [-2, -1])
        return cost + self.config["saturation_weight"] * saturation


def norm(values):
    """Frobenius norm over time and state, with a slope at zero."""
    return tf.sqrt(tf.reduce_sum(tf.square(values), [-2, -1]) + 1e-8)


def share_of_change(done):
    """How far weights and starts have changed when this share of meta-training is done: a ramp from 0 to 1."""
    begin, end = CHANGE
    return min(max((done - begin) / (end - begin), 0.0), 1.0)


def start_tasks(config, seed):
    """Starts and goals of the outer steps; the range of the starts widens in the course of meta-training."""
    first, last = config["start_spread"]

    def draw():
        generator = np.random.default_rng(seed)
        for step in range(config["outer_steps"]):
            change = share_of_change(step / config["outer_steps"]) if last > first else 0.0
            position, velocity = generator.uniform(-1.0, 1.0, (2, config["num_tasks"], 1, 1))
            position = START[0] + change * (RANDOM_CENTRE - START[0]) + (first + change * (last - first)) * position
            part = (
                np.concatenate([position, config["speed_spread"] * velocity], -1),
                np.full((*position.shape[:2], 2), GOAL),
            )
            yield {"support": part, "query": part}

    spec = tf.TensorSpec((config["num_tasks"], 1, 2))
    tasks = tf.data.Dataset.from_generator(draw, output_signature={"support": (spec,) * 2, "query": (spec,) * 2})
    return tasks.prefetch(1)


def starts_of(kind, seed, number):
    """Starts `[number, 2]` at rest: the paper's, or random ones."""
    positions = np.full(number, START[0])
    if kind == "random":
        positions = np.random.default_rng([seed, 1]).uniform(*RANDOM_STARTS, number)
    return np.stack([positions, np.zeros(number)], 1)


def plan(starts, weights=ILQR_WEIGHTS):
    """iLQR with the true model, from zero force, for all starts at once."""
    goal, (control, path, end) = tf.constant(GOAL, tf.float64), weights
    squared_distance = lambda states: tf.reduce_sum((states - goal) ** 2, -1)
    return ilqr(
        mountain_car_step,
        running_cost=lambda states, forces: control * tf.reduce_sum(forces**2, -1) + path * squared_distance(states),
        final_cost=lambda states: end * squared_distance(states),
        initial_states=starts,
        controls=np.zeros((len(starts), HORIZON, 1)),
        lower=-MAX_FORCE,
        upper=MAX_FORCE,
    )


def scores(states):
    """The three metrics of rollouts `[N, T + 1, 2]`."""
    distances = np.linalg.norm(states[:, -1] - GOAL, axis=-1)
    return {
        "final_distance": float(np.median(distances)),
        "reach_rate": float(np.mean(states[..., 0].max(axis=1) >= MAX_POSITION - 1e-6)),
        "strict_rate": float(np.mean(distances < STRICT_DISTANCE)),
    }
