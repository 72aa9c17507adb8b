"""Meta-training and meta-test of the recipe `mountain_car.py`."""

from pathlib import Path
from typing import NamedTuple

import gymnasium
import keras
import numpy as np

import ml3_tf
from ml3_tf.envs import mountain_car
from ml3_tf.rl import ModelBasedTrainer, meta_test_in_env
from parts.costs import CoreMinutes
from parts.mountain_car.settings import LossSettings
from parts.mountain_car.task import HORIZON, LAYOUTS, TaskLoss, build_policy, draw_outer_steps

NUM_EPOCHS = 20


def build_inner_optimizer(settings: LossSettings) -> keras.optimizers.Optimizer:
    """Builds the optimizer of the policies."""
    return keras.optimizers.SGD(settings.inner_rate, clipnorm=settings.inner_clipnorm)


class Trained(NamedTuple):
    """The result of meta-training.

    Attributes:
        meta_loss: The learned loss.
        task_losses: The task loss for each epoch.
        costs: Its core-minutes and samples, see `parts/costs.py`: steps of the car's equations.
    """

    meta_loss: ml3_tf.MetaLoss
    task_losses: list[float]
    costs: dict[str, float]


def meta_train(settings: LossSettings, seed: int, folder: Path, *, verbose: int) -> Trained:
    """Learns a loss in the model, by Algorithm 3 of ML3 with the car's equations as the model."""
    keras.utils.set_random_seed(seed)
    loss_inputs = LAYOUTS[settings.layout]
    meta_loss = ml3_tf.MetaLoss.mlp(settings.hidden_units, activation="elu", features=loss_inputs, name="mountain_car")
    trainer = ModelBasedTrainer(
        lambda: build_policy(settings),
        meta_loss,
        dynamics=mountain_car.mountain_car_step,
        horizon=HORIZON,
        loss_inputs=loss_inputs,
        inner_steps=settings.inner_steps,
        unroll=1,
        lives=settings.lives,
        seed=seed,
    )
    task_loss, rate, steps = TaskLoss(settings), settings.outer_rate, settings.outer_steps
    if settings.cosine_decay:
        rate = keras.optimizers.schedules.CosineDecay(rate, steps * settings.inner_steps)
    trainer.compile(
        keras.optimizers.Adam(rate, global_clipnorm=settings.outer_clipnorm),
        task_loss,
        build_inner_optimizer(settings),
        jit_compile=settings.jit_compile,
        steps_per_execution=5 if steps % (5 * NUM_EPOCHS) == 0 else 1,
    )
    num_epochs = min(NUM_EPOCHS, steps)
    progress = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: task_loss.set_progress(epoch / num_epochs)
    )
    core_minutes = CoreMinutes()
    history = trainer.fit(
        draw_outer_steps(settings, seed),
        steps_per_epoch=steps // num_epochs,
        epochs=num_epochs,
        callbacks=[progress, core_minutes],
        verbose=verbose,
        resume=folder,
    )
    # An inner step rolls each policy out before, to learn from, and after, for the task loss.
    samples = 2 * HORIZON * settings.num_tasks * settings.inner_steps * steps
    return Trained(meta_loss, history.history["loss"], {"core_minutes": core_minutes.total, "samples": samples})


def make_env(starts: np.ndarray) -> gymnasium.vector.VectorEnv:
    """Returns an environment for each start `[N, 2]`."""
    env = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=len(starts), vectorization_mode="sync")
    env.set_attr("task", [{"state": start} for start in starts])
    return env


def meta_test_seed(seed: int) -> int:
    """Returns the seed of policies that meta-training has not drawn."""
    return 10_000 + seed


def meta_test(
    meta_loss: ml3_tf.MetaLoss, settings: LossSettings, env: gymnasium.vector.VectorEnv, seed: int, *, num_steps: int
) -> np.ndarray:
    """Trains N fresh policies in the real environment, by Algorithm 5.

    Args:
        meta_loss: The learned loss.
        settings: The settings that it was learned with.
        env: N environments, see `make_env`.
        seed: Seed of the run. The policies are not among those of meta-training.
        num_steps: Number of updates of each policy.

    Returns:
        States `[num_steps + 1, N, T + 1, 2]`.
    """
    return meta_test_in_env(
        lambda: build_policy(settings),
        meta_loss,
        build_inner_optimizer(settings),
        env,
        num_steps=num_steps,
        horizon=HORIZON,
        loss_inputs=LAYOUTS[settings.layout],
        seed=meta_test_seed(seed),
    ).observations
