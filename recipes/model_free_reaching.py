"""What the recipes share that reach goals by learning from experience alone (ML3, section 4.1, and figure 4).

A recipe describes its problem as an `Experiment`; the functions here learn losses for it, and train policies with them.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

import ml3_tf
from ml3_tf.learner import Learner
from ml3_tf.rl.meta_testing import meta_test_on_policy
from ml3_tf.rl.model_free import ModelFreeTrainer
from ml3_tf.rl.policy_gradient import PolicyGradient
from ml3_tf.rl.simulators import Sampler, as_tasks

NUM_EPOCHS = 10


class Layout(NamedTuple):
    """What a learned loss sees.

    Args:
        inputs: Function of a `Trajectory` that returns what it sees beside the policy's outputs.
        features: Name of each feature -> its width, the policy's outputs first.
        scale: A divisor for each column.
    """

    inputs: Callable
    features: dict
    scale: list


class Experiment(NamedTuple):
    """A robot that has to reach goals.

    Args:
        name: Name of the recipe, and of its learned loss.
        env: Name of the environment.
        simulator: Function of a number of episodes that returns their `Simulator` or vector of environments.
        horizon: T.
        build_policy: Function `(config, depth) -> keras.Model`, from observations to mean and standard deviation.
        draw_tasks: Function `(generator, number, episodes, **options)` that returns `{"state": [N, E, S], "goal":
            [N, E, G]}`; all episodes of a task agree.
        tests: Prefix of the metrics -> options of `draw_tasks` for the tasks of meta-test.
        titles: Prefix -> what its panel of the figure is called.
        layouts: Name -> `Layout`.
        losses: Name of a learned loss -> the settings in which its meta-training differs.
        labels: Name of a learned loss but `learned` -> what it is called in the figure.
        states_of: Function of observations `[..., O]` that returns the environment's states, for pictures.
        guide_tasks: Options of `draw_tasks` for the goal-conditioned policy: where `turned` brings all others.
        turned: Function of observations that returns them as they would be in one of `guide_tasks`, with a function
            that turns actions back: a symmetry of the robot.
        informed: Function `(actions [N, B, A], states [N, S])` that returns what robots in these states of the
            environment have to do where the goal-conditioned policy would take `actions`: by default the same.
    """

    name: str
    env: str
    simulator: Callable
    horizon: int
    build_policy: Callable
    draw_tasks: Callable
    tests: dict
    titles: dict
    layouts: dict
    losses: dict
    labels: dict
    states_of: Callable
    guide_tasks: dict
    turned: Callable
    informed: Callable = lambda actions, states: actions


def meta_train(experiment, config, seed, verbose, guide=None):
    """Algorithm 4 of ML3.

    Args:
        experiment: `Experiment`.
        config: Settings.
        seed: The seed.
        verbose: As in `fit`.
        guide: Optional policy for all goals, see `train_goal_conditioned`. Its means shape the task loss (eq. 9).

    Returns:
        The learned loss, the mean returns of each epoch, and the environment steps.
    """
    keras.utils.set_random_seed(seed)
    layout, num_tasks, episodes = experiment.layouts[config["layout"]], config["num_tasks"], config["episodes"]
    meta_loss = ml3_tf.MetaLoss.mlp(
        config["hidden_units"],
        config["activation"],
        features=layout.features,
        input_scale=layout.scale,
        output_initializer=keras.initializers.VarianceScaling(config["output_scale"], "fan_avg", "uniform"),
        name=experiment.name,
    )
    trainer = ModelFreeTrainer(
        lambda: experiment.build_policy(config, 2),
        meta_loss,
        experiment.simulator(num_tasks * episodes),
        experiment.horizon,
        layout.inputs,
        inner_steps=config["inner_steps"],
        batch_size=config["batch_size"],
        outer_epochs=config["outer_epochs"],
        outer_batch_size=config["outer_batch_size"],
        seed=seed,
    )
    outer_steps = config["outer_steps"] * config["inner_steps"] * config["outer_epochs"]
    outer_steps *= num_tasks // (config["outer_batch_size"] or num_tasks)
    optimizer = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(config["outer_rate"], outer_steps),
        global_clipnorm=config["outer_clipnorm"],
    )
    task_loss = PolicyGradient(
        config["discount"], config["gae_lambda"], baseline=config["baseline"], clip_range=config["clip_range"]
    )
    trainer.compile(
        optimizer,
        task_loss,
        inner_optimizer(
            config["inner_rate"], config["inner_steps"], experiment.horizon * episodes, config["batch_size"]
        ),
        extra_loss=_extra_loss(trainer, config, guide, experiment.informed),
        jit_compile=not config["smoke"],  # compiling takes longer than a few steps
    )
    epochs = min(NUM_EPOCHS, config["outer_steps"])
    history = trainer.fit(
        drawn_tasks(experiment, config, seed),
        steps_per_epoch=config["outer_steps"] // epochs,
        epochs=epochs,
        verbose=verbose,
    )
    return meta_loss, history.history["return"], trainer.samples


def inner_optimizer(rate, num_updates, num_examples, batch_size):
    """Adam, at a rate that falls to zero over the life of a policy: so many updates, from so many time steps each."""
    num_steps = num_updates * (num_examples // batch_size)  # `mini_batches` leaves out what is left over
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, num_steps))


def _extra_loss(trainer, config, guide, informed):
    """Means beyond the limits of the actions; and, with a guide, what is lacking to its means, after a step and ahead.

    What a step does to the means tells little about how good the loss is: early steps count most, and Adam hides how
    long they were. So the slopes that the loss gives to means are compared, too, with those of half the squared gap.
    A guide's means run far beyond the limits of the actions, where nothing tells them apart: they are clipped.
    """
    size, limit = trainer.action_size, config["guide_limit"]

    def extra_loss(parameters, data):
        losses = config["excess_weight"] * trainer.action_excess(parameters, data)
        if guide is None:
            return losses

        def gaps_of(outputs, x):
            wanted = informed(guide(x)[..., :size], data["tasks"]["state"][:, 0])
            return outputs[..., :size] - tf.stop_gradient(tf.clip_by_value(wanted, -limit, limit))

        x, _, sample_weight = data["query"]
        gaps = gaps_of(trainer.inner_loop.predict(parameters, x), x)
        x, y, support_weight = (tf.concat(parts, 1) for parts in zip(*data["support"]))
        outputs = tf.stop_gradient(trainer.inner_loop.predict(parameters, x))
        slope_gaps = slopes(trainer.meta_loss, y, outputs)[..., :size] - gaps_of(outputs, x)
        lacking = _mean_square(gaps, sample_weight) + _mean_square(slope_gaps, support_weight)
        return losses + config["guide_weight"] * lacking

    return extra_loss


def slopes(meta_loss, y_true, outputs):
    """`dM/d output` of each example, `[..., 2A]`: which way a loss pushes, but for the sign."""
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        flat = (tf.reshape(values, [-1, values.shape[-1]]) for values in (y_true, outputs))
        total = tf.reduce_sum(meta_loss.call(*flat))
    return tape.gradient(total, outputs)


def _mean_square(gaps, sample_weight):
    """Of `[N, B, A]`, for each task: the mean over actions, weighted over examples."""
    squares = tf.reduce_mean(tf.square(gaps), -1)
    return tf.reduce_sum(sample_weight * squares, 1) / tf.reduce_sum(sample_weight, 1)


def drawn_tasks(experiment, config, seed):
    """The tasks of meta-training, drawn anew for each outer step."""
    num_tasks, episodes, options = config["num_tasks"], config["episodes"], config["train_tasks"]

    def draw():
        generator = np.random.default_rng(seed)
        while True:
            yield experiment.draw_tasks(generator, num_tasks, episodes, **options)

    specs = {
        name: tf.TensorSpec(values.shape, values.dtype)
        for name, values in experiment.draw_tasks(np.random.default_rng(), num_tasks, episodes, **options).items()
    }
    return tf.data.Dataset.from_generator(draw, output_signature=specs).prefetch(1)


def meta_test(experiment, config, meta_loss, tasks, seed, depth=2):
    """Algorithm 5: an `Adaptation` of fresh policies, one for each task."""
    return meta_test_on_policy(
        lambda: experiment.build_policy(config, depth),
        meta_loss,
        inner_optimizer(config["test_rate"], config["test_updates"], experiment.horizon, config["test_batch_size"]),
        experiment.simulator(num_episodes(tasks)),
        tasks,
        config["test_updates"],
        experiment.horizon,
        experiment.layouts[config["layout"]].inputs,
        config["test_batch_size"],
        seed=seed_of_tests(seed),
        jit_compile=not config["smoke"],
    )


def fresh_parameters(experiment, config, seed, number):
    """Those that `meta_test` starts from."""
    return Learner(lambda: experiment.build_policy(config, 2), seed_of_tests(seed)).draw(number)


def roll_out_means(experiment, config, parameters, tasks):
    """`Trajectory` `[N, E, ...]` of the mean policies with these `Parameters`."""
    learner = Learner(lambda: experiment.build_policy(config, 2))
    predict = lambda values, x: learner.apply(values, x, training=False)[0]
    return roll_out_by(experiment, predict, parameters, as_tasks(tasks))


def roll_out_by(experiment, predict, parameters, tasks):
    """`Trajectory` `[N, E, ...]` of the means that a function `(parameters, observations)` predicts, without noise."""
    simulator = experiment.simulator(num_episodes(tasks))
    size = experiment.build_policy({"policy_units": 1}, 1).output_shape[-1] // 2
    sampler = Sampler(predict, simulator, experiment.horizon, size)
    return sampler(parameters, tasks, sampler.no_noise(tasks))


def num_episodes(tasks):
    """Of all tasks together."""
    return int(np.prod(tasks["state"].shape[:2]))


def seed_of_tests(seed):
    """Of policies that meta-training has not drawn."""
    return 10_000 + seed


def draw_tests(experiment, config, seed):
    """Prefix -> tasks of meta-test, each several times in a row: once for each fresh policy."""
    copies, number = config["num_policies"], config["num_test_tasks"]
    numbers = [number] + [config["num_shifted_tasks"]] * (len(experiment.tests) - 1)
    drawn = {
        prefix: experiment.draw_tasks(np.random.default_rng([seed, 1, order]), numbers[order], **options)
        for order, (prefix, options) in enumerate(experiment.tests.items())
    }
    return {
        prefix: {name: np.repeat(values, copies, 0) for name, values in tasks.items()}
        for prefix, tasks in drawn.items()
    }
