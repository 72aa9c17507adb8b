"""The peer of `ppo.py`, which starts it: PPO of stable-baselines3, in a process without TensorFlow.

PyTorch and TensorFlow, each with CUDA, may crash in one process. So the environments stay in the process of `ppo.py`,
and this process calls them over a connection.
"""

import math
import os
import sys
from multiprocessing.connection import Client, Connection
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv


class RemoteEnv(gymnasium.Env):
    """Calls environment number `index` of `ppo.py`: 11 observations, 2 actions."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (11,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))

    def __init__(self, connection: Connection, index: int) -> None:
        self.connection, self.index = connection, index

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return self._call("reset")

    def step(self, action: np.ndarray) -> Any:
        return self._call("step", action)

    def _call(self, name: str, argument: np.ndarray | None = None) -> Any:
        self.connection.send((self.index, name, argument))
        return self.connection.recv()


def learn(
    connection: Connection,
    *,
    num_envs: int,
    horizon: int,
    rate: float,
    discount: float,
    std: float,
    num_updates: int,
    seed: int,
) -> list[float]:
    """Learns one task. Returns the mean return of the episodes of each update."""
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
    for _ in range(num_updates):
        model.learn(horizon * num_envs, reset_num_timesteps=False)
        curve.append(float(model.rollout_buffer.rewards.sum(0).mean()))
    return curve


if __name__ == "__main__":
    with Client(sys.argv[1], authkey=bytes.fromhex(os.environ["ML3_TF_PEER_KEY"])) as connection:
        while (settings := connection.recv()) is not None:
            connection.send((None, "curve", learn(connection, **settings)))
