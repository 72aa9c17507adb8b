"""The arm of `gym_reacher.py`: gymnasium's `Reacher-v5` as it is, and the policies that move it.

A task is the seed of a reset, which draws the place to reach and the start of the arm. Nothing else of the environment
is used: neither its equations nor its reward but for what a step returns.
"""

import functools

import gymnasium
import keras
import numpy as np

from ml3_tf import LossInputs
from ml3_tf.rl import GaussianPolicy, observation_and_action
from parts.model_free.experiment import Experiment, Tasks
from parts.model_free.settings import Variant

ENV = "Reacher-v5"
HORIZON = 50
POLICY_STD = 0.1
# Of cosines and sines, target (m), velocities (rad/s), way from the target to the fingertip (m).
OBSERVATION_SCALE = (1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 5.0, 5.0, 0.1, 0.1)
LOSS_INPUTS = LossInputs(
    observation_and_action,
    {"mean_and_std": 4, "observation": 10, "action": 2},
    (1.0, 1.0, POLICY_STD, POLICY_STD, *OBSERVATION_SCALE, 1.0, 1.0),
)


@functools.cache
def simulator(num_episodes: int) -> gymnasium.vector.VectorEnv:
    """Returns the arms of so many episodes."""
    return gymnasium.make_vec(ENV, num_envs=num_episodes, vectorization_mode="sync")


def draw_tasks(generator: np.random.Generator, number: int, *, episodes: int = 1) -> Tasks:
    """Draws tasks, the seeds of resets: `{"seed": [N, E]}`; all episodes of a task agree."""
    return {"seed": np.repeat(generator.integers(2**31, size=(number, 1)), episodes, 1)}


def build_policy(units: int, depth: int) -> keras.Model:
    """Builds a policy, from observations `[B, 10]` to mean and standard deviation of the actions, `[B, 4]`."""
    return GaussianPolicy(
        10, 2, hidden_units=(units,) * depth, std=POLICY_STD, std_mode="fixed", observation_scale=OBSERVATION_SCALE
    )


VARIANTS = {"learned": Variant(), "learned_alone": Variant({"guide_weight": 0.0})}
EXPERIMENT = Experiment(
    name="gym_reacher",
    env=ENV,
    simulator=simulator,
    horizon=HORIZON,
    build_policy=build_policy,
    train_tasks=lambda generator, number, episodes, settings: draw_tasks(generator, number, episodes=episodes),
    test_tasks={"": draw_tasks},
    guide_tasks=draw_tasks,
    titles={"": "Reacher-v5, unseen seeds"},
    layouts={"observation": LOSS_INPUTS},
    labels={"learned_alone": "loss learned by eq. 8 alone"},
    unit=None,
)
