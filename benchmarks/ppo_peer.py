"""The peer of `ppo.py`, which starts it: PPO of stable-baselines3, in a process without TensorFlow.

PyTorch and TensorFlow, each with CUDA, may crash in one process. So the environments stay in that of `ppo.py`, and
this one calls them over a connection.
"""

import math
import os
import sys
from multiprocessing.connection import Client

import gymnasium
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv


class RemoteEnv(gymnasium.Env):
    """Environment number `index` of `ppo.py`: 11 observations, 2 actions."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (11,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))

    def __init__(self, connection, index):
        self.connection, self.index = connection, index

    def reset(self, *, seed=None, options=None):
        return self._call("reset")

    def step(self, action):
        return self._call("step", action)

    def _call(self, name, argument=None):
        self.connection.send((self.index, name, argument))
        return self.connection.recv()


def learn(connection, num_envs, horizon, rate, discount, std, updates, seed):
    """Returns the mean return of the episodes of each update, of one task."""
    model = PPO(
        "MlpPolicy",
        DummyVecEnv([lambda index=index: RemoteEnv(connection, index) for index in range(num_envs)]),
        learning_rate=rate,
        n_steps=horizon,
        batch_size=horizon,
        gamma=discount,
        gae_lambda=discount,
        policy_kwargs={"log_std_init": math.log(std)},
        seed=seed,
        device="cpu",
    )
    model.policy.log_std.requires_grad_(False)
    curve = []
    for _ in range(updates):
        model.learn(horizon * num_envs, reset_num_timesteps=False)
        curve.append(float(model.rollout_buffer.rewards.sum(0).mean()))
    return curve


if __name__ == "__main__":
    with Client(sys.argv[1], authkey=bytes.fromhex(os.environ["ML3_TF_PEER_KEY"])) as connection:
        while (settings := connection.recv()) is not None:
            connection.send((None, "curve", learn(connection, **settings)))
