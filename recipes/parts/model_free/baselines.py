"""The baseline of the recipes that reach goals by experience alone: PPO, for each task or for all goals."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ml3_tf import Learner
from ml3_tf.baselines import PPOSettings, ppo
from ml3_tf.rl import Adaptation, as_tasks
from parts.model_free.experiment import Experiment, Guide, Tasks
from parts.model_free.measures import compute_level, final, make_curve, samples_to
from parts.model_free.meta_testing import count_episodes, meta_test_seed, roll_out_without_noise
from parts.model_free.settings import ModelFreeSettings, TuningSettings

TUNING_SEED = 1000  # of the tasks and policies that PPO is tuned on
PAPER_EPISODES = 20  # of an update, as a reader of the paper might set it


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


def tune_ppo(experiment: Experiment, settings: TuningSettings, *, seed: int = TUNING_SEED) -> dict[str, Any]:
    """Finds the rate and the number of episodes that take the fewest samples to 80 %, on tasks of their own.

    Returns:
        `{"ppo": (rate, episodes), "paper_ppo": ..., "samples_to_level": {"rate, episodes": samples, ...},
        "final_returns": {...}}`; `paper_ppo` is the best with `PAPER_EPISODES`, or has the same rate if the grid has
        none with so many.
    """
    draw = next(iter(experiment.test_tasks.values()))
    tasks = draw(np.random.default_rng([seed, 2]), settings.num_tuning_tasks)
    curves = {}
    for rate in settings.ppo_rates:
        for episodes in settings.ppo_episodes:
            result = train_by_ppo(
                experiment, settings, tasks, seed=seed, rate=rate, episodes=episodes, samples=settings.ppo_samples
            )
            curves[rate, episodes] = make_curve(result)
    level = compute_level(curves.values())
    needed = {setting: samples_to(level, *curve) for setting, curve in curves.items()}
    order = lambda setting: (needed[setting] is None, needed[setting] or 0, -final(curves[setting][1]))
    chosen = min(needed, key=order)
    of_paper = [setting for setting in needed if setting[1] == PAPER_EPISODES]
    of_paper = min(of_paper, key=order) if of_paper else (chosen[0], PAPER_EPISODES)
    words = {f"{rate:g}, {episodes}": samples for (rate, episodes), samples in needed.items()}
    finals = {f"{rate:g}, {episodes}": final(curve[1]) for (rate, episodes), curve in curves.items()}
    return {"ppo": chosen, "paper_ppo": of_paper, "samples_to_level": words, "final_returns": finals}
