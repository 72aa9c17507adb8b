"""The baselines of the recipes that reach goals by experience alone: PPO for each task, for all goals, or for all
goals and then for each task."""

import keras
import numpy as np
import tensorflow as tf

from ml3_tf import Learner, Parameters
from ml3_tf.baselines import PPOSettings, ppo
from ml3_tf.rl import Adaptation, as_tasks
from parts.model_free.experiment import Experiment, Tasks, as_one_task, count_tasks
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
    pretrained: keras.Model | None = None,
    value_rate: float | None = None,
) -> Adaptation:
    """Trains policies, one for each task, by PPO with `episodes` an update: fresh ones, or copies of `pretrained`.

    The value networks are fresh: beside copies they may need a larger rate, `value_rate`. `None`: that of the policies.
    """
    evaluation_simulator = experiment.simulator(count_tasks(tasks))
    tasks = {name: np.repeat(values[:, :1], episodes, 1) for name, values in tasks.items()}
    return ppo(
        (lambda: experiment.build_policy(settings.policy_units, 2)) if pretrained is None else pretrained,
        experiment.simulator(count_episodes(tasks)),
        tasks,
        settings=PPOSettings(
            num_updates=max(1, samples // (experiment.horizon * episodes)),
            horizon=experiment.horizon,
            optimizer=keras.optimizers.Adam(rate, clipnorm=0.5),
            value_optimizer=keras.optimizers.Adam(rate if value_rate is None else value_rate, clipnorm=0.5),
            discount=settings.discount,
            gae_lambda=settings.gae_lambda,
            batch_size=settings.ppo_batch,
            epochs=settings.ppo_epochs,
        ),
        parameters=pretrained,
        evaluation_simulator=evaluation_simulator,
        seed=meta_test_seed(seed),
        jit_compile=settings.jit_compile,
    )


class GoalConditioned:
    """A policy for all goals: observations `[..., O]` -> mean and standard deviation `[..., 2A]`.

    Args:
        experiment: `Experiment`.
        learner: Its architecture.
        parameters: `Parameters` of one task.

    Attributes:
        model: Its network, which expects what `to_guide_frame` returns.
    """

    def __init__(self, experiment: Experiment, learner: Learner, parameters: Parameters) -> None:
        self._experiment, self._learner, self._parameters = experiment, learner, parameters
        self.model = learner.build_model(parameters)

    def __call__(self, observations: tf.Tensor) -> tf.Tensor:
        turned, turn_back = self._experiment.to_guide_frame(observations)
        flat = tf.reshape(turned, [1, -1, turned.shape[-1]])
        outputs = self._learner.predict(self._parameters, flat)
        mean, std = tf.split(tf.reshape(outputs, [*turned.shape[:-1], -1]), 2, -1)
        return tf.concat([turn_back(mean), std], -1)


def train_goal_conditioned(experiment: Experiment, settings: ModelFreeSettings, *, seed: int) -> GoalConditioned:
    """Trains one policy for all goals of meta-training, by PPO, at a rate that falls to a twentieth."""
    number, batch_size = settings.goal_conditioned_tasks, settings.goal_conditioned_batch
    drawn = experiment.guide_tasks(np.random.default_rng(seed), number)
    num_updates = max(1, settings.goal_conditioned_samples // (experiment.horizon * number))
    num_steps = num_updates * settings.goal_conditioned_epochs * (experiment.horizon * number // batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(settings.goal_conditioned_rate, num_steps, 0.05)
    build = lambda: experiment.build_policy(settings.goal_conditioned_units, 2)
    result = ppo(
        build,
        experiment.simulator(number),
        as_one_task(drawn),
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
    return GoalConditioned(experiment, Learner(build), result.parameters)


def guide_returns(experiment: Experiment, guide: GoalConditioned, tasks: Tasks) -> np.ndarray:
    """Returns the deterministic return of one policy in each of N tasks, `[N]`, without any adaptation."""
    episodes = as_tasks(as_one_task(tasks))
    trajectory = roll_out_without_noise(experiment, lambda _, x: guide(x), None, episodes)
    return np.sum(trajectory.rewards[0], -1)
