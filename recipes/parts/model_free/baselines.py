"""The baseline of the recipes that reach goals by experience alone: PPO, for each task or for all goals."""

import keras
import numpy as np
import tensorflow as tf

from ml3_tf import Learner
from ml3_tf.baselines import PPOSettings, ppo
from ml3_tf.rl import Adaptation, as_tasks
from parts.model_free.experiment import Experiment, Guide, Tasks
from parts.model_free.meta_testing import count_episodes, meta_test_seed, roll_out_without_noise
from parts.model_free.settings import ModelFreeSettings, TuningSettings


def train_by_ppo(
    experiment: Experiment,
    settings: TuningSettings,
    tasks: Tasks,
    *,
    seed: int,
    rate: float,
    episodes: int,
    samples: int,
) -> Adaptation:
    """Trains fresh policies, one for each task, by PPO with `episodes` an update."""
    evaluation_simulator = experiment.simulator(len(tasks["state"]))
    tasks = {name: np.repeat(values[:, :1], episodes, 1) for name, values in tasks.items()}
    return ppo(
        lambda: experiment.build_policy(settings.policy_units, 2),
        experiment.simulator(count_episodes(tasks)),
        tasks,
        settings=PPOSettings(
            num_updates=max(1, samples // (experiment.horizon * episodes)),
            horizon=experiment.horizon,
            optimizer=keras.optimizers.Adam(rate, clipnorm=0.5),
            discount=settings.discount,
            gae_lambda=settings.gae_lambda,
            batch_size=settings.ppo_batch,
            epochs=settings.ppo_epochs,
        ),
        evaluation_simulator=evaluation_simulator,
        seed=meta_test_seed(seed),
        jit_compile=settings.jit_compile,
    )


def train_goal_conditioned(experiment: Experiment, settings: ModelFreeSettings, *, seed: int) -> Guide:
    """Trains one policy for all goals of meta-training, by PPO, at a rate that falls to a twentieth.

    Returns:
        Function of observations `[..., O]` that returns mean and standard deviation, `[..., 2A]`.
    """
    number, batch_size = settings.goal_conditioned_tasks, settings.goal_conditioned_batch
    drawn = experiment.guide_tasks(np.random.default_rng(seed), number)
    episodes = {name: np.reshape(values, (1, number, -1)) for name, values in drawn.items()}  # one task of many goals
    num_updates = max(1, settings.goal_conditioned_samples // (experiment.horizon * number))
    num_steps = num_updates * settings.goal_conditioned_epochs * (experiment.horizon * number // batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(settings.goal_conditioned_rate, num_steps, 0.05)
    build = lambda: experiment.build_policy(settings.goal_conditioned_units, 2)
    result = ppo(
        build,
        experiment.simulator(number),
        episodes,
        settings=PPOSettings(
            num_updates=num_updates,
            horizon=experiment.horizon,
            optimizer=keras.optimizers.Adam(schedule, clipnorm=0.5),
            discount=settings.goal_conditioned_discount,
            gae_lambda=settings.goal_conditioned_lambda,
            batch_size=batch_size,
            epochs=settings.goal_conditioned_epochs,
            deterministic=False,
        ),
        seed=20_000 + seed,
        jit_compile=settings.jit_compile,
    )
    return _as_guide(experiment, Learner(build), result)


def _as_guide(experiment: Experiment, learner: Learner, trained: Adaptation) -> Guide:
    def guide(observations: tf.Tensor) -> tf.Tensor:
        turned, turn_back = experiment.to_guide_frame(observations)
        flat = tf.reshape(turned, [1, -1, turned.shape[-1]])
        outputs = learner.predict(trained.parameters, flat)
        mean, std = tf.split(tf.reshape(outputs, [*turned.shape[:-1], -1]), 2, -1)
        return tf.concat([turn_back(mean), std], -1)

    return guide


def guide_returns(experiment: Experiment, guide: Guide, tasks: Tasks) -> np.ndarray:
    """Returns the deterministic return of one policy in each of N tasks, `[N]`, without any adaptation."""
    episodes = as_tasks({name: np.reshape(values[:, 0], (1, len(values), -1)) for name, values in tasks.items()})
    trajectory = roll_out_without_noise(experiment, lambda _, x: guide(x), None, episodes)
    return np.sum(trajectory.rewards[0], -1)
