"""The methods of `reacher_model_free.py`, from meta-training to PPO."""

import keras
import numpy as np
from reacher_model_free_measures import curve_of, final, level_of, samples_to
from reacher_model_free_task import (
    HORIZON,
    LAYOUTS,
    SHIFTED_ARC,
    SIMULATOR,
    TRAINED_ARC,
    build_policy,
    draw_tasks,
    drawn_tasks,
)

import ml3_tf
from ml3_tf.baselines.ppo import ppo
from ml3_tf.learner import Learner
from ml3_tf.model_free import ModelFreeTrainer
from ml3_tf.on_policy import meta_test_on_policy
from ml3_tf.policy_gradient import PolicyGradient
from ml3_tf.sampling import Sampler, tasks_of

NUM_EPOCHS = 10
ARCS = {"": TRAINED_ARC, "shifted_": SHIFTED_ARC}


def meta_train(config, seed, verbose):
    """Algorithm 4 of ML3; returns the learned loss, the mean returns of each epoch, and the environment steps."""
    keras.utils.set_random_seed(seed)
    loss_inputs, features, scale = LAYOUTS[config["layout"]]
    meta_loss = ml3_tf.MetaLoss.mlp(
        config["hidden_units"], "elu", features=features, input_scale=scale, name="reacher_model_free"
    )
    trainer = ModelFreeTrainer(
        lambda: build_policy(config),
        meta_loss,
        SIMULATOR,
        HORIZON,
        loss_inputs,
        inner_steps=config["inner_steps"],
        batch_size=config["batch_size"],
        seed=seed,
    )
    rate = keras.optimizers.schedules.CosineDecay(config["outer_rate"], config["outer_steps"] * config["inner_steps"])
    trainer.compile(
        keras.optimizers.Adam(rate, global_clipnorm=config["outer_clipnorm"]),
        PolicyGradient(config["discount"], config["gae_lambda"]),
        keras.optimizers.SGD(config["inner_rate"]),
        extra_loss=trainer.action_excess,
        gamma=config["excess_weight"],
        jit_compile=not config["smoke"],  # compiling takes longer than a few steps
        steps_per_execution=5 if config["outer_steps"] % (5 * NUM_EPOCHS) == 0 else 1,
    )
    epochs = min(NUM_EPOCHS, config["outer_steps"])
    steps = config["outer_steps"] // epochs
    history = trainer.fit(drawn_tasks(config, seed), steps_per_epoch=steps, epochs=epochs, verbose=verbose)
    return meta_loss, history.history["return"], trainer.samples


def meta_test(meta_loss, config, tasks, seed, depth=2):
    """Algorithm 5: an `Adaptation` of fresh policies, one for each task."""
    return meta_test_on_policy(
        lambda: build_policy(config, depth),
        meta_loss,
        keras.optimizers.Adam(config["test_rate"]),
        SIMULATOR,
        tasks,
        config["test_updates"],
        HORIZON,
        LAYOUTS[config["layout"]][0],
        config["test_batch_size"],
        seed=_test_seed(seed),
        jit_compile=not config["smoke"],
    )


def train_by_ppo(config, tasks, seed, rate, episodes, samples, batch_size=HORIZON, epochs=10, depth=2):
    """An `Adaptation` of fresh policies, one for each task, by PPO with `episodes` an update."""
    tasks = {name: np.repeat(values[:, :1], episodes, 1) for name, values in tasks.items()}
    return ppo(
        lambda: build_policy(config, depth),
        SIMULATOR,
        tasks,
        max(1, samples // (HORIZON * episodes)),
        HORIZON,
        keras.optimizers.Adam(rate, clipnorm=0.5),
        discount=config["discount"],
        gae_lambda=config["gae_lambda"],
        batch_size=batch_size,
        epochs=epochs,
        seed=_test_seed(seed),
        jit_compile=not config["smoke"],
    )


def train_goal_conditioned(config, seed, samples):
    """`Parameters` of one policy for all goals: PPO on as many environment steps as meta-training had, of its tasks."""
    number = config["goal_conditioned_tasks"]
    drawn = draw_tasks(np.random.default_rng(seed), number)
    episodes = {name: np.reshape(values, (1, number, -1)) for name, values in drawn.items()}  # one task of many goals
    result = ppo(
        lambda: build_policy(config),
        SIMULATOR,
        episodes,
        max(1, samples // (HORIZON * number)),
        HORIZON,
        keras.optimizers.Adam(config["goal_conditioned_rate"], clipnorm=0.5),
        discount=config["discount"],
        gae_lambda=config["gae_lambda"],
        batch_size=config["goal_conditioned_batch"],
        epochs=config["goal_conditioned_epochs"],
        deterministic=False,
        seed=20_000 + seed,
        jit_compile=not config["smoke"],
    )
    return result.parameters


def returns_of_one(config, parameters, tasks):
    """Deterministic return of one policy in each of N tasks, `[N]`, without any adaptation."""
    episodes = {name: np.reshape(values[:, 0], (1, len(values), -1)) for name, values in tasks.items()}
    return np.sum(_roll_out_means(config, parameters, episodes).rewards[0], -1)


def joint_angles(config, parameters, tasks):
    """Angles of the joints (rad) as the mean policies of N tasks move them, `[N, T + 1, 2]`."""
    cos_shoulder, cos_elbow, sin_shoulder, sin_elbow = np.moveaxis(
        _roll_out_means(config, parameters, tasks).states[:, 0, :, :4].numpy(), -1, 0
    )
    return np.stack([np.arctan2(sin_shoulder, cos_shoulder), np.arctan2(sin_elbow, cos_elbow)], -1)


def fresh_parameters(config, seed, number):
    """Those that `meta_test` starts from."""
    return Learner(lambda: build_policy(config), _test_seed(seed)).draw(number)


def _roll_out_means(config, parameters, tasks):
    learner = Learner(lambda: build_policy(config))
    sampler = Sampler(lambda values, x: learner.apply(values, x, training=False)[0], SIMULATOR, HORIZON, 2)
    tasks = tasks_of(tasks)
    return sampler(parameters, tasks, sampler.no_noise(tasks))


def _test_seed(seed):
    """Of policies that meta-training has not drawn."""
    return 10_000 + seed


def test_tasks(config, seed):
    """Prefix -> tasks of meta-test, each several times in a row: once for each fresh policy."""
    generator = np.random.default_rng([seed, 1])
    drawn = {prefix: draw_tasks(generator, config["num_test_tasks"], arc=arc) for prefix, arc in ARCS.items()}
    copies = config["num_policies"]
    return {
        prefix: {name: np.repeat(values, copies, 0) for name, values in tasks.items()}
        for prefix, tasks in drawn.items()
    }


def tune_ppo(config, seed):
    """The rate and the number of episodes that take the fewest samples to 80 %, on tasks of their own.

    Returns:
        `{"ppo": [rate, episodes], "samples_to_level": {"rate, episodes": samples, ...}}`.
    """
    tasks = draw_tasks(np.random.default_rng([seed, 2]), config["num_tuning_tasks"])
    curves = {}
    for rate in config["ppo_rates"]:
        for episodes in config["ppo_episodes"]:
            result = train_by_ppo(config, tasks, seed, rate, episodes, config["ppo_samples"])
            curves[rate, episodes] = curve_of(result)
    level = level_of(curves.values())
    needed = {setting: samples_to(level, *curve) for setting, curve in curves.items()}
    chosen = min(
        needed, key=lambda setting: (needed[setting] is None, needed[setting] or 0, -final(curves[setting][1]))
    )
    words = {f"{rate:g}, {episodes}": samples for (rate, episodes), samples in needed.items()}
    finals = {f"{rate:g}, {episodes}": final(curve[1]) for (rate, episodes), curve in curves.items()}
    return {"ppo": list(chosen), "samples_to_level": words, "final_returns": finals}
