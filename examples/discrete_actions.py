"""Learn a loss that trains policies over discrete actions, in gymnasium's `CartPole-v1`, and compare it with PPO.

A cart is pushed to the left or to the right at each step, and has to keep its pole upright. The reward is 1 for each
step until the pole falls or the cart leaves the track, for at most 100 steps. A task is the length of the pole; in the
test they are longer than all that the loss was learned with, in 154,000 environment steps. There the loss sees the
observations of a policy, the log-probabilities of its actions and the actions that it took, and no reward.

Command: python examples/discrete_actions.py
Time: about a minute on two CPU cores.

Expected output, the number of steps that the pole stays up, mean over 16 new policies that take their most likely
action:

    learned loss     after     0 environment steps     37.5
    learned loss     after   232 environment steps     84.9
    learned loss     after   681 environment steps    100.0
    PPO              after     0 environment steps     36.7
    PPO              after   161 environment steps     28.8
    PPO              after   359 environment steps     53.4
    PPO              after  4072 environment steps     97.6
"""

import gymnasium
import keras
import numpy as np
import tensorflow as tf

import ml3_tf
from ml3_tf.baselines import PPOSettings, ppo
from ml3_tf.rl import (
    CategoricalPolicy,
    ModelFreeTrainer,
    OnPolicySettings,
    PolicyGradient,
    meta_test_on_policy,
    observation_and_action,
)

NUM_TASKS = 16  # policies that learn at the same time, each with a pole of its own
HORIZON = 100  # steps of 0.02 s
INNER_STEPS = 10  # episodes in the life of a policy
OUTER_STEPS = 15  # batches of new policies, with which the loss is learned
INNER_RATE = 1e-2  # of the Adam that trains the policies
PPO_UPDATES = 60
PPO_RATE = 1e-3  # the best of seven from 1e-4 to 1e-1, on poles as in meta-training
TRAIN_LENGTHS = 0.6, 1.4  # of the poles, m
TEST_LENGTHS = 1.4, 2.0
LOSS_INPUTS = ml3_tf.LossInputs(observation_and_action, {"log_probabilities": 2, "observation": 4, "action": 2})


class CartPoleTask(gymnasium.Wrapper):
    """Starts an episode with a pole of the length of its task (m)."""

    task = {"state": np.array([1.0])}

    def reset(self, *, seed=None, options=None):
        cart, [length] = self.unwrapped, self.task["state"]
        cart.length, cart.polemass_length = length / 2, cart.masspole * length / 2
        return self.env.reset(seed=seed, options=options)


def make_env():
    return gymnasium.vector.SyncVectorEnv([lambda: CartPoleTask(gymnasium.make("CartPole-v1"))] * NUM_TASKS)


def build_policy():
    return CategoricalPolicy(4, 2, hidden_units=(32,))


def draw_tasks(seed, lengths, number=1):
    """Returns poles, one for each of `number` batches of tasks."""
    return {"state": np.random.default_rng(seed).uniform(*lengths, (number, NUM_TASKS, 1, 1))}


def learn_loss(env, num_outer_steps):
    trainer = ModelFreeTrainer(
        build_policy,
        ml3_tf.MetaLoss.mlp((64, 64), features=LOSS_INPUTS),
        simulator=env,
        horizon=HORIZON,
        loss_inputs=LOSS_INPUTS,
        inner_steps=INNER_STEPS,
        batch_size=HORIZON // 5,
        seed=0,
    )
    trainer.compile(
        keras.optimizers.Adam(3e-3, global_clipnorm=1.0),  # moves the learned loss
        PolicyGradient(discount=0.95, gae_lambda=0.9, clip_range=0.2),  # the task loss
        keras.optimizers.Adam(INNER_RATE),  # moves the policies
        outer_epochs=2,
        outer_batch_size=4,
    )
    tasks = tf.data.Dataset.from_tensor_slices(draw_tasks(0, TRAIN_LENGTHS, num_outer_steps))
    trainer.fit(tasks, verbose=2)
    return trainer.meta_loss


def main(num_outer_steps=OUTER_STEPS):
    keras.utils.set_random_seed(0)
    env = make_env()
    env.reset(seed=0)  # determines the starts
    meta_loss = learn_loss(env, num_outer_steps)
    tasks = {name: batches[0] for name, batches in draw_tasks(1, TEST_LENGTHS).items()}
    settings = OnPolicySettings(num_updates=INNER_STEPS, horizon=HORIZON, batch_size=HORIZON // 5)
    adam = keras.optimizers.Adam(INNER_RATE)
    learned = meta_test_on_policy(
        build_policy, meta_loss, adam, env, tasks, settings=settings, loss_inputs=LOSS_INPUTS, seed=1
    )
    adam = keras.optimizers.Adam(PPO_RATE)
    settings = PPOSettings(num_updates=PPO_UPDATES, horizon=HORIZON, batch_size=HORIZON // 5, optimizer=adam)
    results = {"learned loss": learned, "PPO": ppo(build_policy, env, tasks, settings=settings, seed=1)}
    for name, result in results.items():
        for update in sorted({0, INNER_STEPS // 2, INNER_STEPS, len(result.returns) - 1}):
            samples, value = result.samples[update].mean(), result.deterministic_returns[update].mean()
            print(f"{name:16} after {samples:5.0f} environment steps {value:8.1f}")
    return results


if __name__ == "__main__":
    main()
