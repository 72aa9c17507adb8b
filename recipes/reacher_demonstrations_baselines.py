"""What the loss of `reacher_demonstrations.py` is measured against: cloned policies, and one as a teacher."""

import keras
import numpy as np
import tensorflow as tf
from reacher_demonstrations_task import (
    HORIZON,
    build_policy,
    draw_starts,
    draw_targets,
    final_distances,
    make_env,
    make_experts,
    roll_out,
)

from ml3_tf.baselines._behavior_cloning import clone
from ml3_tf.rl.model_based import meta_test_in_env

CLONED = {"cloning": False, "goal_cloning": True}  # method -> whether the policy sees the goal
CLONING_RATES = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
CLONING_PASSES = [16, 48, 160, 480]  # over one demonstration of each target; over 16, a sixteenth as often
BATCH_SIZE = 64
TAUGHT_RATES = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
FIRST_TUNING_SEED = 1000


def clone_experts(method, experts, config, rate, epochs, seed, callbacks=()):
    """A policy cloned on all demonstrations, with Adam."""
    keras.utils.set_random_seed(seed)
    policy = build_policy(config, CLONED[method])
    clone(
        policy,
        experts["states"],
        experts["torques"],
        goals_of(experts) if CLONED[method] else None,
        keras.optimizers.Adam(rate),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        callbacks=list(callbacks),
        verbose=0,
    )
    return policy


def imitation_error(policy, experts, sees_goal):
    """Mean squared difference to the experts' torques, (N m)^2."""
    inputs = np.concatenate([experts["states"], goals_of(experts)], -1) if sees_goal else experts["states"]
    torques = policy(inputs.reshape(-1, inputs.shape[-1])).numpy().reshape(experts["torques"].shape)
    return float(np.mean((torques - experts["torques"]) ** 2))


def goals_of(experts):
    """The target of each state of the demonstrations, `[4, D, T, 2]`."""
    return np.broadcast_to(experts["targets"][:, np.newaxis, np.newaxis], (*experts["states"].shape[:-1], 2))


def taught_by(teacher):
    """The loss of actions for which a goal-conditioned policy has others: the squared error, of `[state, goal]`."""

    def loss(y_true, y_pred):
        answers = teacher(tf.reshape(y_true, [-1, y_true.shape[-1]]))
        return tf.reduce_mean(tf.square(y_pred - tf.reshape(answers, tf.shape(y_pred))), -1)

    return loss


def train_taught(teacher, config, rate, starts, targets, steps, seed):
    """States `[steps + 1, N, T + 1, 4]` of policies that learn as with the learned loss, but from a teacher."""
    optimizer = keras.optimizers.SGD(rate, clipnorm=config["inner_clipnorm"])
    env, policy = make_env(starts, targets), lambda: build_policy(config)
    return meta_test_in_env(policy, taught_by(teacher), optimizer, env, steps, HORIZON, seed=seed).observations


def tune(_, config, output_dir, verbose):
    """Rate and epochs of each baseline: the best on other targets, mean final distance over a few other seeds."""
    seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + config["num_tuning_seeds"])
    epochs = [passes // config["demonstrations"] for passes in config["cloning_passes"]]
    tasks = []
    for seed in seeds:
        targets = draw_targets(seed, config["num_targets"])[1]
        tasks.append((seed, make_experts(seed, config), draw_starts([seed, 4], len(targets)), targets))
    grids = {
        method: np.mean(
            [[_curve(method, task, config, rate, epochs) for rate in config["cloning_rates"]] for task in tasks], 0
        )
        for method in CLONED
    }
    best = {method: np.unravel_index(grid.argmin(), grid.shape) for method, grid in grids.items()}
    tuned = {method: [config["cloning_rates"][rate], epochs[number]] for method, (rate, number) in best.items()}
    grids["taught"] = np.mean([_taught_row(task, config, tuned) for task in tasks], 0)
    tuned["taught"] = config["taught_rates"][grids["taught"].argmin()]
    return {"tuned": tuned, "grids": {method: grid.tolist() for method, grid in grids.items()}}


def _curve(method, task, config, rate, epochs):
    """Mean final distance after so many epochs."""
    seed, experts, starts, targets = task
    distances = {}

    def score(epoch, _):
        if epoch + 1 in epochs:
            states = roll_out(callback.model, starts, targets, CLONED[method])
            distances[epoch + 1] = final_distances(states, targets).mean()

    callback = keras.callbacks.LambdaCallback(on_epoch_end=score)
    clone_experts(method, experts, config, rate, max(epochs), seed, [callback])
    return [distances[number] for number in epochs]


def _taught_row(task, config, tuned):
    """Mean final distance for each rate; one that diverges is the worst."""
    seed, experts, starts, targets = task
    teacher = clone_experts("goal_cloning", experts, config, *tuned["goal_cloning"], seed)
    steps, row = config["reported_step"], []
    for rate in config["taught_rates"]:
        states = train_taught(teacher, config, rate, starts, targets, steps, seed)[-1]
        row.append(np.nan_to_num(final_distances(states, targets).mean(), nan=np.inf))
    return row
