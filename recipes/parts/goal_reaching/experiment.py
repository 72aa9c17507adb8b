"""The experiments that reach goals through a learned model of the dynamics, and their meta-training.

ML3, section 4.1. A recipe describes its problem as an `Experiment`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import keras
import numpy as np
import tensorflow as tf

import ml3_tf
import ml3_tf.envs  # noqa: F401 - registers the environments
from ml3_tf.rl import DynamicsEnsemble, DynamicsRefit, ModelBasedTrainer, Trajectory
from parts.costs import CoreMinutes
from parts.goal_reaching.settings import GoalReachingSettings

NUM_EPOCHS = 10

Tasks = tuple[np.ndarray, np.ndarray]  # starts [N, S] and goals [N, G]
DrawTasks = Callable[[np.random.Generator, int], Tasks]
Cost = Callable[[Trajectory, Any], tf.Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A system that has to reach goals.

    Args:
        name: Name of the recipe, and of its learned loss.
        env: Name of the environment; its states begin with the coordinates that a goal has, in the same units.
        horizon: T, the number of steps of a rollout.
        build_policy: Function of the settings that builds the Keras model of a policy, `[B, S] -> [B, A]`.
        build_loss: Function of the settings that builds the `MetaLoss` to be learned.
        loss_inputs: Function of the settings that returns the `LossInputs`.
        build_dynamics: Function of a seed that builds the `DynamicsEnsemble`.
        task_loss: Function `(trajectory, settings)` that returns the cost of each episode, `[N, B]`.
        train_tasks: Function `(generator, number)` that draws starts `[number, S]` and goals `[number, G]` for
            meta-training.
        test_tasks: Prefix of metrics -> function like `train_tasks`. Rates are tuned for the first.
        titles: Prefix of metrics -> description of its goals, for table and figure.
        unit: Unit of a distance.
        axis_labels: Labels of the two coordinates of a goal.
        trained_range: Optional range of the first coordinate in which meta-training takes place, for the figure.
    """

    name: str
    env: str
    horizon: int
    build_policy: Callable[[Any], keras.Model]
    build_loss: Callable[[Any], ml3_tf.MetaLoss]
    loss_inputs: Callable[[Any], ml3_tf.LossInputs]
    build_dynamics: Callable[[int], DynamicsEnsemble]
    task_loss: Cost
    train_tasks: DrawTasks
    test_tasks: Mapping[str, DrawTasks]
    titles: Mapping[str, str]
    unit: str
    axis_labels: tuple[str, str]
    trained_range: tuple[float, float] | None = None


class Trained(NamedTuple):
    """The result of meta-training.

    Attributes:
        meta_loss: The learned loss.
        dynamics: The `DynamicsEnsemble` as it is at the end.
        history: Name of a metric -> its value for each epoch.
        costs: Its core-minutes and samples, see `parts/costs.py`: steps of the real system, which the dynamics learned
            from or were scored by.
    """

    meta_loss: ml3_tf.MetaLoss
    dynamics: DynamicsEnsemble
    history: dict[str, list[float]]
    costs: dict[str, float]


def meta_train(
    experiment: Experiment, settings: GoalReachingSettings, seed: int, folder: Path, *, verbose: int
) -> Trained:
    """Learns a loss by Algorithm 3 of ML3."""
    keras.utils.set_random_seed(seed)
    dynamics = experiment.build_dynamics(seed)
    dynamics.compile(keras.optimizers.Adam(settings.dynamics_rate))
    meta_loss, tasks = experiment.build_loss(settings), draw_outer_steps(experiment, settings, seed)
    trainer = _build_trainer(experiment, settings, meta_loss, dynamics, seed)
    refit = DynamicsRefit(
        dynamics,
        make_env(experiment, settings.num_refit_episodes),
        tasks,
        every=settings.refit_every,
        exploration=settings.exploration,
        epochs=settings.dynamics_epochs,
        batch_size=settings.dynamics_batch,
        seed=seed,
    )
    epochs = min(NUM_EPOCHS, settings.outer_steps)
    steps_per_epoch = settings.outer_steps // epochs
    core_minutes = CoreMinutes()
    history = trainer.fit(
        tasks,
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
        callbacks=[refit, core_minutes],
        verbose=verbose,
        resume=folder,
    )
    costs = {"core_minutes": core_minutes.total, "samples": refit.replay.size + refit.held_out.size}
    return Trained(meta_loss, dynamics, history.history, costs)


def _build_trainer(
    experiment: Experiment,
    settings: GoalReachingSettings,
    meta_loss: ml3_tf.MetaLoss,
    dynamics: DynamicsEnsemble,
    seed: int,
) -> ModelBasedTrainer:
    trainer = ModelBasedTrainer(
        lambda: experiment.build_policy(settings),
        meta_loss,
        dynamics=dynamics.next_states,
        horizon=experiment.horizon,
        loss_inputs=experiment.loss_inputs(settings),
        inner_steps=settings.inner_steps,
        unroll=settings.unroll,
        lives=settings.lives,
        seed=seed,
    )
    num_updates = settings.outer_steps * settings.inner_steps // settings.unroll
    rate = keras.optimizers.schedules.CosineDecay(settings.outer_rate, num_updates)
    trainer.compile(
        keras.optimizers.Adam(rate, global_clipnorm=settings.outer_clipnorm),
        lambda trajectory: experiment.task_loss(trajectory, settings),
        keras.optimizers.SGD(settings.inner_rate, clipnorm=settings.inner_clipnorm),
        jit_compile=settings.jit_compile,
    )
    return trainer


def draw_outer_steps(experiment: Experiment, settings: GoalReachingSettings, seed: int) -> tf.data.Dataset:
    """Returns the dataset of meta-training: starts and goals are drawn anew for each outer step."""

    def draw() -> Any:
        generator = np.random.default_rng(seed)
        while True:
            starts, goals = experiment.train_tasks(generator, settings.num_tasks)
            part = starts[:, np.newaxis].astype(np.float32), goals[:, np.newaxis].astype(np.float32)
            yield {"support": part, "query": part}

    examples = experiment.train_tasks(np.random.default_rng(0), settings.num_tasks)
    specs = tuple(tf.TensorSpec((len(part), 1, part.shape[-1])) for part in examples)
    return tf.data.Dataset.from_generator(draw, output_signature={"support": specs, "query": specs}).prefetch(1)


def make_env(experiment: Experiment, number: int, tasks: Tasks | None = None) -> gymnasium.vector.VectorEnv:
    """Returns a vector of real environments, perhaps one for each of the given tasks."""
    env = gymnasium.make_vec(experiment.env, num_envs=number, vectorization_mode="sync")
    if tasks is not None:
        env.set_attr("task", [{"state": start, "goal": goal} for start, goal in zip(*tasks)])
    return env
