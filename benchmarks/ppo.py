"""Learning curves of our PPO and of stable-baselines3's on the same tasks: a check of the baseline, not of its speed.

    pip install '.[bench,rl]'
    python benchmarks/ppo.py

Each run learns one task of `ml3_tf/ReacherFingertipGoal-v0` from scratch: an arm and a goal that the seed draws, the
same for both. Settings are those of the recipe `reacher_model_free`: 4 episodes of 65 steps an update, mini-batches of
65, 10 epochs, Adam at 3e-3, gamma = lambda = .9, clipping at .2, gradient norms at .5; two tanh layers of 64 for
policy and value, a fixed standard deviation of .5. What is left differs by design: stable-baselines3 initializes
layers orthogonally, Keras by Glorot; it clips the norm of all gradients together, we clip each variable's; policy and
value have one optimizer there, two here, and its advantages are normalized by mini-batch, ours by update.

On the 10 tasks both rise alike (ours first): from -9.9 and -10.1 m to -2.8 and -3.1 m within 8,060 steps, and to -2.3
and -2.2 m within 20,540; the standard deviation over tasks is 1.4 m then. Version 2.9.2 of stable-baselines3 is a
little slower on the way.

It prints the mean return of the noisy policies, with the standard deviation over tasks, by environment steps.
"""

import os
import secrets
import subprocess
import sys
from multiprocessing.connection import Listener
from pathlib import Path

import gymnasium
import keras
import numpy as np
import tyro

import ml3_tf.envs  # noqa: F401 - registers the environments
from ml3_tf.baselines._ppo import ppo
from ml3_tf.rl.policies import GaussianPolicy

NAME, HORIZON, EPISODES, RATE, DISCOUNT, STD = "ml3_tf/ReacherFingertipGoal-v0", 65, 4, 3e-3, 0.9, 0.5
KEY = secrets.token_bytes(16)  # only the peer may connect


def draw_task(seed):
    """`{"state": [4], "goal": [2]}`."""
    env = gymnasium.make(NAME).unwrapped
    env.reset(seed=seed)
    return {"state": env.state, "goal": env.goal}


def curves_of_ours(seeds, updates):
    """Returns `[seeds, updates]`, each the mean of an update's episodes."""
    drawn = [draw_task(seed) for seed in seeds]
    tasks = {name: np.stack([[task[name]] * EPISODES for task in drawn]) for name in ("state", "goal")}
    envs = gymnasium.make_vec(NAME, num_envs=len(drawn) * EPISODES, vectorization_mode="vector_entry_point")
    result = ppo(
        lambda: GaussianPolicy(11, 2, (64, 64), std=STD, learn_std=False),
        envs,
        tasks,
        updates,
        HORIZON,
        keras.optimizers.Adam(RATE, clipnorm=0.5),
        discount=DISCOUNT,
        gae_lambda=DISCOUNT,
        batch_size=HORIZON,
        deterministic=False,
        seed=seeds[0],
    )
    envs.close()
    return result.returns[:updates].T


def curves_of_stable_baselines(seeds, updates):
    """Returns `[seeds, updates]`; the environments run here, the peer in a process of its own (`ppo_peer.py`)."""
    envs = [gymnasium.make(NAME) for _ in range(EPISODES)]
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
                connection.send({**settings, "updates": updates, "seed": seed})
                curves.append(_serve(connection, envs))
            connection.send(None)
        peer.wait()
    return np.array(curves)


def _serve(connection, envs):
    """Answers the peer's calls of its environments until it sends a curve."""
    while True:
        index, name, argument = connection.recv()
        if name == "curve":
            return argument
        connection.send(envs[index].reset() if name == "reset" else envs[index].step(argument))


def main(tasks: int = 10, updates: int = 80):
    """Prints the curves side by side.

    Args:
        tasks: Number of tasks.
        updates: Number of updates, 260 environment steps each.
    """
    seeds = list(range(tasks))
    ours = curves_of_ours(seeds, updates)
    theirs = curves_of_stable_baselines(seeds, updates)
    print(f"{'steps':>7}  {'ml3_tf':>16}  {'stable-baselines3':>18}   mean return (m), {tasks} tasks")
    for update in np.unique(np.linspace(0, updates - 1, 11).astype(int)):
        cells = [f"{curves[:, update].mean():8.2f} ± {curves[:, update].std():5.2f}" for curves in (ours, theirs)]
        print(f"{update * HORIZON * EPISODES:7,}  {cells[0]:>16}  {cells[1]:>18}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
