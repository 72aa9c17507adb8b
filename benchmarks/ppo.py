"""Compares the learning curves of our PPO and of stable-baselines3: a check of the baseline, not of its speed.

    pip install '.[bench,rl]'
    python benchmarks/ppo.py

Each run learns one task of `ml3_tf/ReacherFingertipGoal-v0` from scratch. The seed draws its arm and its goal, which
are the same for both. The settings are those of the recipe `reacher_model_free`:

| setting | value |
|---|---|
| episodes of an update | 4 of 65 steps |
| mini-batch | 65 time steps |
| epochs | 10 |
| optimizer | Adam, rate 3e-3, gradient norms clipped at 0.5 |
| gamma, lambda | 0.9 |
| clip range | 0.2 |
| policy and value | two tanh layers of 64 units |
| standard deviation | 0.5, fixed |

Some differences are by design:

| | here | stable-baselines3 |
|---|---|---|
| initial weights | Glorot | orthogonal |
| gradient norm | of each variable | of all variables together |
| optimizers | one of the policy, one of the value | one |
| advantages are normalized over | an update | a mini-batch |

On the 10 tasks both rise alike; stable-baselines3 2.9.2 is a little slower on the way. The standard deviation over
tasks is 1.4 m at the end.

| environment steps | ml3_tf (m) | stable-baselines3 (m) |
|---|---|---|
| 0 | -9.9 | -10.1 |
| 8,060 | -2.8 | -3.1 |
| 20,540 | -2.3 | -2.2 |

The benchmark prints the mean return of the noisy policies and its standard deviation over tasks, by environment steps.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import gymnasium
import keras
import numpy as np
import tyro

import ml3_tf.envs  # noqa: F401 - registers the environments
from ml3_tf.baselines import PPOSettings, ppo
from ml3_tf.rl import GaussianPolicy

NAME, HORIZON, EPISODES, RATE, DISCOUNT, STD = "ml3_tf/ReacherFingertipGoal-v0", 65, 4, 3e-3, 0.9, 0.5
KEY = secrets.token_bytes(16)  # only the peer may connect


def draw_task(seed: int) -> dict[str, np.ndarray]:
    """Returns `{"state": [4], "goal": [2]}`."""
    env: Any = gymnasium.make(NAME).unwrapped
    env.reset(seed=seed)
    return {"state": env.state, "goal": env.goal}


def run_ours(seeds: Sequence[int], num_updates: int) -> np.ndarray:
    """Returns `[seeds, num_updates]`, the mean return of the episodes of each update."""
    drawn = [draw_task(seed) for seed in seeds]
    tasks = {name: np.stack([[task[name]] * EPISODES for task in drawn]) for name in ("state", "goal")}
    envs = gymnasium.make_vec(NAME, num_envs=len(drawn) * EPISODES, vectorization_mode="vector_entry_point")
    settings = PPOSettings(
        num_updates=num_updates,
        horizon=HORIZON,
        batch_size=HORIZON,
        deterministic=False,
        optimizer=keras.optimizers.Adam(RATE, clipnorm=0.5),
        discount=DISCOUNT,
        gae_lambda=DISCOUNT,
    )
    policy = lambda: GaussianPolicy(11, 2, hidden_units=(64, 64), std=STD, std_mode="fixed")
    result = ppo(policy, envs, tasks, settings=settings, seed=seeds[0])
    envs.close()
    return result.returns[:num_updates].T


def run_stable_baselines(seeds: Sequence[int], num_updates: int) -> np.ndarray:
    """Returns `[seeds, num_updates]`. The environments run here, the peer in its own process (`ppo_peer.py`)."""
    envs: list[Any] = [gymnasium.make(NAME) for _ in range(EPISODES)]
    settings = {"num_envs": EPISODES, "horizon": HORIZON, "rate": RATE, "discount": DISCOUNT, "std": STD}
    curves = []
    with Listener(authkey=KEY) as listener:
        command = [sys.executable, str(Path(__file__).with_name("ppo_peer.py")), listener.address]
        key = {"ML3_TF_PEER_KEY": KEY.hex()}
        peer = subprocess.Popen(command, env={**os.environ, **key})
        with listener.accept() as connection:
            for seed in seeds:
                for env in envs:
                    env.unwrapped.task = draw_task(seed)
                connection.send({**settings, "num_updates": num_updates, "seed": seed})
                curves.append(_serve(connection, envs))
            connection.send(None)
        peer.wait()
    return np.array(curves)


def _serve(connection: Connection, envs: Sequence[gymnasium.Env]) -> list[float]:
    """Answers the peer's calls of its environments, until the peer sends a curve, which is returned."""
    while True:
        index, name, argument = connection.recv()
        if name == "curve":
            return argument
        connection.send(envs[index].reset() if name == "reset" else envs[index].step(argument))


def main(num_tasks: int = 10, num_updates: int = 80) -> None:
    """Prints the curves side by side.

    Args:
        num_tasks: Number of tasks.
        num_updates: Number of updates, 260 environment steps each.
    """
    seeds = list(range(num_tasks))
    ours = run_ours(seeds, num_updates)
    theirs = run_stable_baselines(seeds, num_updates)
    print(f"{'steps':>7}  {'ml3_tf':>16}  {'stable-baselines3':>18}   mean return (m), {num_tasks} tasks")
    for update in np.unique(np.linspace(0, num_updates - 1, 11).astype(int)):
        cells = [f"{curves[:, update].mean():8.2f} ± {curves[:, update].std():5.2f}" for curves in (ours, theirs)]
        print(f"{update * HORIZON * EPISODES:7,}  {cells[0]:>16}  {cells[1]:>18}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
