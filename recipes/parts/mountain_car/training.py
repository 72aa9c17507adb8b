"""Meta-training and meta-test of the recipe `mountain_car.py`."""

from pathlib import Path

import gymnasium
import keras
import numpy as np

import ml3_tf
from ml3_tf.envs import mountain_car
from ml3_tf.rl import ModelBasedTrainer, meta_test_in_env
from parts.mountain_car.settings import LossSettings
from parts.mountain_car.task import HORIZON, LAYOUTS, TaskLoss, build_policy, draw_outer_steps

NUM_EPOCHS = 20


def build_inner_optimizer(settings: LossSettings) -> keras.optimizers.Optimizer:
    """Builds the optimizer of the policies."""
    return keras.optimizers.SGD(settings.inner_rate, clipnorm=settings.inner_clipnorm)


def meta_train(settings: LossSettings, seed: int, folder: Path, *, verbose: int) -> tuple[ml3_tf.MetaLoss, list[float]]:
    """Returns the learned loss, and the task loss for each epoch of meta-training."""
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
    history = trainer.fit(
        draw_outer_steps(settings, seed),
        steps_per_epoch=steps // num_epochs,
        epochs=num_epochs,
        callbacks=[progress],
        verbose=verbose,
        resume=folder,
    )
    return meta_loss, history.history["loss"]


def meta_test(
    meta_loss: ml3_tf.MetaLoss, settings: LossSettings, starts: np.ndarray, seed: int, *, num_steps: int
) -> np.ndarray:
    """Trains N fresh policies in the real environment, by Algorithm 5.

    Args:
        meta_loss: The learned loss.
        settings: The settings that it was learned with.
        starts: `[N, 2]`.
        seed: Seed of the run. The policies are not among those of meta-training.
        num_steps: Number of updates of each policy.

    Returns:
        States `[num_steps + 1, N, T + 1, 2]`.
    """
    env = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=len(starts), vectorization_mode="sync")
    env.set_attr("task", [{"state": start} for start in starts])
    return meta_test_in_env(
        lambda: build_policy(settings),
        meta_loss,
        build_inner_optimizer(settings),
        env,
        num_steps=num_steps,
        horizon=HORIZON,
        loss_inputs=LAYOUTS[settings.layout],
        seed=10_000 + seed,
    ).observations
