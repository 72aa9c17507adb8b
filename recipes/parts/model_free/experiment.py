"""The experiments that reach goals by learning from experience alone, and their meta-training.

ML3, section 4.1, and figure 4. A recipe describes its problem as an `Experiment`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import ml3_tf
from ml3_tf.rl import ModelFreeTrainer
from parts.model_free.extra_loss import make_extra_loss
from parts.model_free.settings import ModelFreeSettings

NUM_EPOCHS = 10

Tasks = dict[str, np.ndarray]
"""Where episodes start and their goals: "state" `[N, E, S]` and "goal" `[N, E, G]`; all episodes of a task agree."""
DrawTasks = Callable[[np.random.Generator, int], Tasks]
Guide = Callable[[tf.Tensor], tf.Tensor]
"""A policy for all goals: observations `[..., O]` -> mean and standard deviation `[..., 2A]`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A robot that has to reach goals.

    Args:
        name: Name of the recipe, and of its learned loss.
        env: Name of the environment.
        simulator: Function of a number of episodes that returns their `Simulator` or vector of environments.
        horizon: T, the number of steps of an episode.
        build_policy: Function `(units, depth)` that builds a policy with `depth` hidden layers of so many units, from
            observations to mean and standard deviation.
        train_tasks: Function `(generator, number, episodes, settings)` that draws the tasks of an outer step.
        test_tasks: Prefix of metrics -> function `(generator, number)` that draws tasks of meta-test, of one episode.
        guide_tasks: Function `(generator, number)` that draws the tasks of the goal-conditioned policy.
        titles: Prefix of metrics -> title of its panel in the figure.
        layouts: Name -> `LossInputs`.
        labels: Name of a learned loss other than `learned` -> its label in the figure.
        to_states: Function of observations `[..., O]` that returns the environment's states, for pictures.
        to_guide_frame: Function of observations that uses a symmetry of the robot. It returns them as they would be in
            one of `guide_tasks`, and a function that turns actions back.
        for_robots: Function `(actions [N, B, A], states [N, S])`. The goal-conditioned policy takes `actions`; the
            function returns the actions of robots in these states with the same effect. By default they are the same.
        num_policies: Prefix of metrics -> number of fresh policies for each task, where it is not that of the settings.
    """

    name: str
    env: str
    simulator: Callable[[int], Any]
    horizon: int
    build_policy: Callable[[int, int], keras.Model]
    train_tasks: Callable[[np.random.Generator, int, int, Any], Tasks]
    test_tasks: Mapping[str, DrawTasks]
    guide_tasks: DrawTasks
    titles: Mapping[str, str]
    layouts: Mapping[str, ml3_tf.LossInputs]
    labels: Mapping[str, str]
    to_states: Callable[[np.ndarray], np.ndarray]
    to_guide_frame: Callable[[tf.Tensor], tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]]
    for_robots: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = lambda actions, states: actions
    num_policies: Mapping[str, int] = dataclasses.field(default_factory=dict)


class Learned(NamedTuple):
    """The result of meta-training.

    Attributes:
        meta_loss: The learned loss.
        returns: Mean return of the trained policies for each epoch.
        samples: Number of environment steps.
    """

    meta_loss: ml3_tf.MetaLoss
    returns: list[float]
    samples: int


def meta_train(
    experiment: Experiment,
    settings: ModelFreeSettings,
    seed: int,
    folder: Path,
    *,
    verbose: int,
    guide: Guide | None = None,
) -> Learned:
    """Learns a loss by Algorithm 4 of ML3.

    Args:
        experiment: `Experiment`.
        settings: The settings.
        seed: The seed.
        folder: Where meta-training is saved.
        verbose: As in `fit`.
        guide: Optional policy for all goals, see `train_goal_conditioned`. Its means shape the task loss (eq. 9).
    """
    keras.utils.set_random_seed(seed)
    loss_inputs = experiment.layouts[settings.layout]
    meta_loss = ml3_tf.MetaLoss.mlp(
        settings.hidden_units,
        activation=settings.activation,
        features=loss_inputs,
        output_initializer=keras.initializers.VarianceScaling(settings.output_scale, "fan_avg", "uniform"),
        name=experiment.name,
    )
    trainer = ModelFreeTrainer(
        lambda: experiment.build_policy(settings.policy_units, 2),
        meta_loss,
        simulator=experiment.simulator(settings.num_tasks * settings.episodes),
        horizon=experiment.horizon,
        loss_inputs=loss_inputs,
        inner_steps=settings.inner_steps,
        batch_size=settings.batch_size,
        seed=seed,
    )
    _compile(trainer, experiment, settings, guide)
    epochs = min(NUM_EPOCHS, settings.outer_steps)
    history = trainer.fit(
        draw_outer_steps(experiment, settings, seed),
        steps_per_epoch=settings.outer_steps // epochs,
        epochs=epochs,
        verbose=verbose,
        resume=folder,
    )
    return Learned(meta_loss, history.history["return"], trainer.samples)


def _compile(
    trainer: ModelFreeTrainer, experiment: Experiment, settings: ModelFreeSettings, guide: Guide | None
) -> None:
    outer_steps = settings.outer_steps * settings.inner_steps * settings.outer_epochs
    outer_steps *= settings.num_tasks // settings.outer_batch_size
    num_examples = experiment.horizon * settings.episodes
    trainer.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(settings.outer_rate, outer_steps),
            global_clipnorm=settings.outer_clipnorm,
        ),
        settings.task_loss(),
        build_inner_optimizer(settings.inner_rate, settings.inner_steps, num_examples, settings.batch_size),
        extra_loss=make_extra_loss(trainer, settings, guide, experiment.for_robots),
        outer_epochs=settings.outer_epochs,
        outer_batch_size=settings.outer_batch_size,
        jit_compile=settings.jit_compile,
    )
    # Its parts are compiled. In one graph of all inner steps TensorFlow needs minutes to find its way.
    trainer.run_eagerly = True


def build_inner_optimizer(
    rate: float, num_updates: int, num_examples: int, batch_size: int
) -> keras.optimizers.Optimizer:
    """Builds Adam, at a rate that falls to zero over the life of a policy.

    Args:
        rate: Initial rate.
        num_updates: Number of updates of a policy.
        num_examples: Number of time steps of an update.
        batch_size: Number of time steps in a mini-batch; the rest of an update is left out.
    """
    num_steps = num_updates * (num_examples // batch_size)
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, num_steps))


def draw_outer_steps(experiment: Experiment, settings: ModelFreeSettings, seed: int) -> tf.data.Dataset:
    """Returns the tasks of meta-training, drawn anew for each outer step."""
    draw_batch = lambda generator: experiment.train_tasks(generator, settings.num_tasks, settings.episodes, settings)

    def draw() -> Iterator[Tasks]:
        generator = np.random.default_rng(seed)
        while True:
            yield draw_batch(generator)

    example = draw_batch(np.random.default_rng())
    specs = {name: tf.TensorSpec(values.shape, values.dtype) for name, values in example.items()}
    return tf.data.Dataset.from_generator(draw, output_signature=specs).prefetch(1)
