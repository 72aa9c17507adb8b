"""What the learned losses of the recipes that reach goals by experience alone are compared with: PPO."""

import keras
import numpy as np
import tensorflow as tf
from model_free_reaching import num_episodes, roll_out_by, seed_of_tests
from model_free_reaching_measures import curve_of, final, level_of, samples_to

from ml3_tf.baselines._ppo import ppo
from ml3_tf.learner import Learner
from ml3_tf.rl.simulators import as_tasks

TUNING_SEED = 1000  # of the tasks and policies that PPO is tuned on
PAPER_EPISODES = 20  # of an update, as a reader of the paper might set it


def train_by_ppo(experiment, config, tasks, seed, rate, episodes, samples):
    """An `Adaptation` of fresh policies, one for each task, by PPO with `episodes` an update."""
    evaluation_simulator = experiment.simulator(len(tasks["state"]))
    tasks = {name: np.repeat(values[:, :1], episodes, 1) for name, values in tasks.items()}
    return ppo(
        lambda: experiment.build_policy(config, 2),
        experiment.simulator(num_episodes(tasks)),
        tasks,
        max(1, samples // (experiment.horizon * episodes)),
        experiment.horizon,
        keras.optimizers.Adam(rate, clipnorm=0.5),
        discount=config["discount"],
        gae_lambda=config["gae_lambda"],
        batch_size=config["ppo_batch"],
        epochs=config["ppo_epochs"],
        evaluation_simulator=evaluation_simulator,
        seed=seed_of_tests(seed),
        jit_compile=not config["smoke"],
    )


def train_goal_conditioned(experiment, config, seed, samples):
    """One policy for all goals of meta-training, by PPO, at a rate that falls to a twentieth.

    Returns:
        Function of observations `[..., O]` that returns mean and standard deviation, `[..., 2A]`.
    """
    number, epochs, size = (config[f"goal_conditioned_{name}"] for name in ("tasks", "epochs", "batch"))
    drawn = experiment.draw_tasks(np.random.default_rng(seed), number, **experiment.guide_tasks)
    episodes = {name: np.reshape(values, (1, number, -1)) for name, values in drawn.items()}  # one task of many goals
    updates = max(1, samples // (experiment.horizon * number))
    steps = updates * epochs * (experiment.horizon * number // size)
    schedule = lambda: keras.optimizers.schedules.CosineDecay(config["goal_conditioned_rate"], steps, 0.05)
    build = lambda: experiment.build_policy(config | {"policy_units": config["goal_conditioned_units"]}, 2)
    result = ppo(
        build,
        experiment.simulator(number),
        episodes,
        updates,
        experiment.horizon,
        keras.optimizers.Adam(schedule(), clipnorm=0.5),
        discount=config["goal_conditioned_discount"],
        gae_lambda=config["goal_conditioned_lambda"],
        batch_size=size,
        epochs=epochs,
        deterministic=False,
        seed=20_000 + seed,
        jit_compile=not config["smoke"],
    )
    learner = Learner(build)

    def policy(observations):
        turned, turn_back = experiment.turned(observations)
        flat = tf.reshape(turned, [1, -1, turned.shape[-1]])
        outputs = learner.apply(result.parameters, flat, training=False)[0]
        mean, std = tf.split(tf.reshape(outputs, [*turned.shape[:-1], -1]), 2, -1)
        return tf.concat([turn_back(mean), std], -1)

    return policy


def returns_of_one(experiment, policy, tasks):
    """Deterministic return of one policy in each of N tasks, `[N]`, without any adaptation."""
    episodes = as_tasks({name: np.reshape(values[:, 0], (1, len(values), -1)) for name, values in tasks.items()})
    return np.sum(roll_out_by(experiment, lambda _, x: policy(x), None, episodes).rewards[0], -1)


def tune_ppo(experiment, config, seed=TUNING_SEED):
    """The rate and the number of episodes that take the fewest samples to 80 %, on tasks of their own.

    Returns:
        `{"ppo": [rate, episodes], "paper_ppo": ..., "samples_to_level": {"rate, episodes": samples, ...},
        "final_returns": {...}}`; `paper_ppo` is the best with `PAPER_EPISODES`, or has the same rate if the grid has
        none with so many.
    """
    tasks = experiment.draw_tasks(np.random.default_rng([seed, 2]), config["num_tuning_tasks"])
    curves = {}
    for rate in config["ppo_rates"]:
        for episodes in config["ppo_episodes"]:
            result = train_by_ppo(experiment, config, tasks, seed, rate, episodes, config["ppo_samples"])
            curves[rate, episodes] = curve_of(result)
    level = level_of(curves.values())
    needed = {setting: samples_to(level, *curve) for setting, curve in curves.items()}
    order = lambda setting: (needed[setting] is None, needed[setting] or 0, -final(curves[setting][1]))
    chosen = min(needed, key=order)
    of_paper = [setting for setting in needed if setting[1] == PAPER_EPISODES]
    of_paper = min(of_paper, key=order) if of_paper else (chosen[0], PAPER_EPISODES)
    words = {f"{rate:g}, {episodes}": samples for (rate, episodes), samples in needed.items()}
    finals = {f"{rate:g}, {episodes}": final(curve[1]) for (rate, episodes), curve in curves.items()}
    settings = {"ppo": list(chosen), "paper_ppo": list(of_paper)}
    return {**settings, "samples_to_level": words, "final_returns": finals}
