"""What the recipes share that reach goals through a learned model of the dynamics (ML3, section 4.1).

A recipe describes its problem as an `Experiment`; `meta_train`, `meta_test` and `tune` do the rest.
"""

from collections.abc import Callable
from typing import NamedTuple

import gymnasium
import keras
import numpy as np
import tensorflow as tf

import ml3_tf.envs  # noqa: F401 - registers the environments
from ml3_tf.baselines._model_gradient import train_in_model
from ml3_tf.rl.dynamics import DynamicsEnsemble
from ml3_tf.rl.dynamics_refit import DynamicsRefit
from ml3_tf.rl.model_based import ModelBasedTrainer, meta_test_in_env

NUM_EPOCHS = 10
TUNING_SEED = 1000  # of the dynamics, goals and policies that the baseline's rate is chosen with
# Of the baselines. Six a decade: near its best rate, twice the rate may leave a multiple of the distance.
RATES = [float(f"{rate:.2g}") for rate in np.logspace(-4, 2, 37)]


class Experiment(NamedTuple):
    """A system that has to reach goals.

    Args:
        env: Name of the environment; its states begin with what a goal names, in the same units.
        horizon: T, the number of steps of a rollout.
        build_policy: Function `config -> keras.Model`, from states `[B, S]` to actions `[B, A]`.
        build_loss: Function `config -> MetaLoss`.
        loss_inputs: Function `(trajectory, config) -> [..., T, width]`, what the loss sees beside each action.
        task_loss: Function `(trajectory, config) -> [N, B]`, the cost of each episode.
        train_tasks: Function `(generator, number) -> (starts [number, S], goals [number, G])` of meta-training.
        test_tasks: Prefix of the metrics -> a function like `train_tasks`. The first is what rates are tuned for.
        dynamics: Arguments of `DynamicsEnsemble`.
        other_costs: Name of a further, tuned baseline -> what it descends in place of the task loss.
    """

    env: str
    horizon: int
    build_policy: Callable
    build_loss: Callable
    loss_inputs: Callable
    task_loss: Callable
    train_tasks: Callable
    test_tasks: dict
    dynamics: dict
    other_costs: dict = {}

    @property
    def baselines(self):
        """Name -> what it descends, a function `(trajectory, config) -> [N, B]`."""
        return {"same_rate": self.task_loss, "tuned": self.task_loss, **self.other_costs}

    @property
    def methods(self):
        return ("learned", *self.baselines)


def reaching_cost(trajectory, config, action_limit):
    """A task loss: the way to the goal, its end, the speed there, and forces near their limit.

    The end counts by the logarithm of the distance: the last tenths count, and an episode that ends far away does not
    drown the others.

    Args:
        trajectory: `Trajectory`; its states are the coordinates of a goal, then their velocities.
        config: `path_weight`, `end_weight`, `end_width` (a distance), `speed_weight`, `saturation_weight`.
        action_limit: Limit of the actions.

    Returns:
        `[N, B]`.
    """
    size = trajectory.goal.shape[-1]
    away = trajectory.observations[..., 1:, :size] - trajectory.goal[..., tf.newaxis, :]
    squares = tf.reduce_sum(tf.square(away), -1)
    speeds = tf.reduce_sum(tf.square(trajectory.observations[..., -1, size:]), -1)
    cost = config["path_weight"] * tf.reduce_mean(tf.sqrt(squares + config["end_width"] ** 2), -1)
    cost += config["end_weight"] * 0.5 * tf.math.log(squares[..., -1] + config["end_width"] ** 2)
    cost += config["speed_weight"] * speeds
    return cost + config["saturation_weight"] * tf.reduce_mean((trajectory.actions / action_limit) ** 4, [-2, -1])


def squared_final_distance(trajectory, config):
    """A plainer cost, `[N, B]`."""
    last = trajectory.observations[..., -1, : trajectory.goal.shape[-1]]
    return tf.reduce_sum(tf.square(last - trajectory.goal), -1)


def inner_optimizer(config, rate=None, clipnorm=None):
    return keras.optimizers.SGD(config["inner_rate"] if rate is None else rate, clipnorm=clipnorm)


def meta_train(experiment, config, seed, verbose):
    """Algorithm 3 of ML3.

    Returns:
        `(meta_loss, dynamics, history)`: the learned loss, the `DynamicsEnsemble` as it is at the end, and the values
        of each epoch.
    """
    keras.utils.set_random_seed(seed)
    dynamics = DynamicsEnsemble(**experiment.dynamics, seed=seed)
    dynamics.compile(keras.optimizers.Adam(config["dynamics_rate"]))
    meta_loss, tasks = experiment.build_loss(config), drawn_tasks(experiment, config, seed)
    trainer = _build_trainer(experiment, config, meta_loss, dynamics, seed)
    refit = DynamicsRefit(
        dynamics,
        make_env(experiment, config["num_refit_episodes"]),
        tasks,
        every=config["refit_every"],
        exploration=config["exploration"],
        epochs=config["dynamics_epochs"],
        batch_size=config["dynamics_batch"],
        seed=seed,
    )
    epochs = min(NUM_EPOCHS, config["outer_steps"])
    steps_per_epoch = config["outer_steps"] // epochs
    history = trainer.fit(tasks, steps_per_epoch=steps_per_epoch, epochs=epochs, callbacks=[refit], verbose=verbose)
    return meta_loss, dynamics, history.history


def _build_trainer(experiment, config, meta_loss, dynamics, seed):
    trainer = ModelBasedTrainer(
        lambda: experiment.build_policy(config),
        meta_loss,
        dynamics.next_states,
        experiment.horizon,
        lambda trajectory: experiment.loss_inputs(trajectory, config),
        inner_steps=config["inner_steps"],
        unroll=config["unroll"],
        seed=seed,
    )
    updates = config["outer_steps"] * config["inner_steps"] // config["unroll"]
    rate = keras.optimizers.schedules.CosineDecay(config["outer_rate"], updates)
    trainer.compile(
        keras.optimizers.Adam(rate, global_clipnorm=config["outer_clipnorm"]),
        lambda trajectory: experiment.task_loss(trajectory, config),
        inner_optimizer(config, clipnorm=config["inner_clipnorm"]),
        jit_compile=not config["smoke"],  # compiling takes longer than a few steps
    )
    return trainer


def drawn_tasks(experiment, config, seed):
    """Starts and goals of the outer steps, drawn anew for each."""

    def draw():
        generator = np.random.default_rng(seed)
        while True:
            starts, goals = experiment.train_tasks(generator, config["num_tasks"])
            part = starts[:, np.newaxis].astype(np.float32), goals[:, np.newaxis].astype(np.float32)
            yield {"support": part, "query": part}

    [starts, goals] = experiment.train_tasks(np.random.default_rng(0), config["num_tasks"])
    specs = tuple(tf.TensorSpec((len(part), 1, part.shape[-1])) for part in (starts, goals))
    return tf.data.Dataset.from_generator(draw, output_signature={"support": specs, "query": specs}).prefetch(1)


def make_env(experiment, number):
    return gymnasium.make_vec(experiment.env, num_envs=number, vectorization_mode="sync")


def meta_test(experiment, config, method, meta_loss, dynamics, starts, goals, seed, rates=None):
    """Trains N fresh policies, each for a goal of its own, and rolls them out in the real environment.

    Args:
        experiment: `Experiment`.
        config: Settings.
        method: "learned" trains with the learned loss in the environment alone (Algorithm 5), a baseline with the
            gradient of its cost through the learned dynamics.
        meta_loss: The learned loss, for "learned".
        dynamics: The learned dynamics, for a baseline.
        starts: `[N, S]`.
        goals: `[N, G]`.
        seed: Seed of the policies: the same for all methods, and not one that meta-training has drawn.
        rates: Optional `[N]`, learning rates of the baseline's policies.

    Returns:
        States `[updates + 1, N, T + 1, S]`.
    """
    env = make_env(experiment, len(starts))
    env.set_attr("task", [{"state": start, "goal": goal} for start, goal in zip(starts, goals)])
    policy = lambda: experiment.build_policy(config)
    common = {"env": env, "steps": config["test_steps"], "horizon": experiment.horizon, "seed": 10_000 + seed}
    if method == "learned":
        optimizer = inner_optimizer(config, clipnorm=config["inner_clipnorm"])
        loss_inputs = lambda trajectory: experiment.loss_inputs(trajectory, config)
        return meta_test_in_env(policy, meta_loss, optimizer, loss_inputs=loss_inputs, **common).observations
    rate, clipnorm = config.get(method, (config["inner_rate"], config["inner_clipnorm"]))
    cost = lambda trajectory: experiment.baselines[method](trajectory, config)
    optimizer = inner_optimizer(config, rate, clipnorm)
    return train_in_model(policy, cost, optimizer, dynamics.next_states, learning_rates=rates, **common).observations


def draw_tests(experiment, seed, number):
    """The goals of meta-test: prefix -> `(starts [number, S], goals [number, G])`."""
    generator = np.random.default_rng([seed, 1])
    return {prefix: draw(generator, number) for prefix, draw in experiment.test_tasks.items()}


def final_distances(states, goals):
    """Distance of the last state to the goal, `[updates + 1, N]`."""
    return np.linalg.norm(states[:, :, -1, : goals.shape[-1]] - goals, axis=-1)


def tune(experiment, config, dynamics):
    """The rates of the baselines, with the clipping of the learned loss or none, that end nearest to other goals.

    Args:
        experiment: `Experiment`.
        config: Settings.
        dynamics: `DynamicsEnsemble` that was learned with `TUNING_SEED`.

    Returns:
        `{"tuned": (rate, clipnorm), ..., "distances": {"tuned": clipnorm -> mean final distance at each rate, ...}}`.
    """
    draw = next(iter(experiment.test_tasks.values()))
    starts, goals = draw(np.random.default_rng([TUNING_SEED, 2]), config["num_tuning_goals"])
    clipnorms, chosen, distances = (config["inner_clipnorm"], None), {}, {}
    clipnorms = clipnorms[:1] if config["smoke"] else clipnorms
    for method in [name for name in experiment.baselines if name != "same_rate"]:
        arguments = experiment, config, method, dynamics, starts, goals
        grid = np.array([distances_at_rates(*arguments, clipnorm) for clipnorm in clipnorms])
        best = np.unravel_index(grid.argmin(), grid.shape)
        chosen[method] = RATES[best[1]], clipnorms[best[0]]
        distances[method] = {str(clipnorm): values.tolist() for clipnorm, values in zip(clipnorms, grid)}
    return {**chosen, "distances": distances}


def distances_at_rates(experiment, config, method, dynamics, starts, goals, clipnorm):
    """Mean final distance of a baseline after the reported update, `[rates]`; one run tries them all."""
    starts, goals = (np.repeat(values, len(RATES), axis=0) for values in (starts, goals))
    settings = {**config, method: (0.0, clipnorm), "test_steps": config["reported_step"]}
    rates = np.tile(RATES, len(goals) // len(RATES))
    states = meta_test(experiment, settings, method, None, dynamics, starts, goals, TUNING_SEED, rates)
    return final_distances(states, goals)[-1].reshape(-1, len(RATES)).mean(0)
