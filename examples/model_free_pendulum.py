"""Learn a loss that trains policies from experience alone, in gymnasium's `Pendulum-v1`, and compare it with PPO.

A pendulum stands nearly upright and has to be kept there. The loss is learned by the policy gradient: neither the
environment nor its reward is differentiated. That takes 132,000 environment steps. At the test the loss sees the
observations and the actions of a policy's own episodes, and no reward.

Command: python examples/model_free_pendulum.py
Time: about a minute on two CPU cores.

Expected output, the sum of rewards of an episode (0 is best), mean over 16 new policies without their noise:

    learned loss     after     0 environment steps   -168.7
    learned loss     after   250 environment steps    -26.2
    learned loss     after   500 environment steps     -0.9
    PPO              after     0 environment steps   -168.7
    PPO              after   250 environment steps   -195.3
    PPO              after   500 environment steps   -190.8
    PPO              after  3000 environment steps    -77.5
"""

import gymnasium
import keras
import numpy as np
import tensorflow as tf

import ml3_tf
from ml3_tf.baselines import PPOSettings, ppo
from ml3_tf.rl import (
    GaussianPolicy,
    ModelFreeTrainer,
    OnPolicySettings,
    PolicyGradient,
    meta_test_on_policy,
    observation_and_action,
)

NUM_TASKS = 16  # policies that learn at the same time, each from episodes of its own
HORIZON = 50  # steps of 0.05 s
INNER_STEPS = 10  # episodes in the life of a policy
OUTER_STEPS = 15  # batches of new policies, with which the loss is learned
INNER_RATE = 1e-2  # of the Adam that trains the policies
PPO_UPDATES = 60
PPO_RATE = 3e-3  # the best of 1e-3, 3e-3 and 1e-2
LOSS_INPUTS = ml3_tf.LossInputs(observation_and_action, {"mean_and_std": 2, "observation": 3, "action": 1})


class StartingPendulum(gymnasium.Wrapper):
    """Starts an episode in the state of its task: the angle (rad, 0 is upright) and the angular velocity (rad/s)."""

    task = {"state": np.zeros(2)}

    def reset(self, *, seed=None, options=None):
        _, info = self.env.reset(seed=seed, options=options)
        angle, velocity = self.unwrapped.state = np.array(self.task["state"])
        return np.array([np.cos(angle), np.sin(angle), velocity], np.float32), info


def make_env():
    make = lambda: StartingPendulum(gymnasium.make("Pendulum-v1", disable_env_checker=True))
    return gymnasium.vector.SyncVectorEnv([make] * NUM_TASKS)


def build_policy():
    return GaussianPolicy(3, 1, hidden_units=(32,), action_limit=2.0, std=0.5, std_mode="fixed")


def draw_tasks(seeds):
    """Returns where the episodes start, one for each task, and a goal of width 0: `Pendulum-v1` has none."""
    limits = tf.constant([0.3, 0.3])
    starts = tf.random.stateless_uniform((NUM_TASKS, 1, 2), seeds, -limits, limits)
    return {"state": starts, "goal": tf.zeros((NUM_TASKS, 1, 0))}


def learn_loss(env, num_outer_steps):
    meta_loss = ml3_tf.MetaLoss.mlp((64, 64), features=LOSS_INPUTS)
    trainer = ModelFreeTrainer(
        build_policy,
        meta_loss,
        simulator=env,
        horizon=HORIZON,
        loss_inputs=LOSS_INPUTS,
        inner_steps=INNER_STEPS,
        batch_size=10,
        seed=0,
    )
    trainer.compile(
        keras.optimizers.Adam(3e-3, global_clipnorm=1.0),  # moves the learned loss
        PolicyGradient(discount=0.95, gae_lambda=0.9, clip_range=0.2),  # the task loss
        keras.optimizers.Adam(INNER_RATE),  # moves the policies
        outer_epochs=2,
        outer_batch_size=4,
    )
    tasks = tf.data.Dataset.counter().map(lambda i: draw_tasks(tf.stack([i, 0])))
    steps_per_epoch = min(5, num_outer_steps)
    trainer.fit(tasks, steps_per_epoch=steps_per_epoch, epochs=num_outer_steps // steps_per_epoch, verbose=2)
    return meta_loss


def main(num_outer_steps=OUTER_STEPS):
    keras.utils.set_random_seed(0)
    env, tasks = make_env(), draw_tasks([0, 1])
    meta_loss = learn_loss(env, num_outer_steps)
    settings = OnPolicySettings(num_updates=INNER_STEPS, horizon=HORIZON, batch_size=10)
    adam = keras.optimizers.Adam(INNER_RATE)
    learned = meta_test_on_policy(
        build_policy, meta_loss, adam, env, tasks, settings=settings, loss_inputs=LOSS_INPUTS, seed=1
    )
    adam = keras.optimizers.Adam(PPO_RATE)
    settings = PPOSettings(num_updates=PPO_UPDATES, horizon=HORIZON, batch_size=10, optimizer=adam, discount=0.95)
    results = {"learned loss": learned, "PPO": ppo(build_policy, env, tasks, settings=settings, seed=1)}
    for name, result in results.items():
        for update in sorted({0, INNER_STEPS // 2, INNER_STEPS, len(result.returns) - 1}):
            samples, value = result.samples[update].mean(), result.deterministic_returns[update].mean()
            print(f"{name:16} after {samples:5.0f} environment steps {value:8.1f}")
    return results


if __name__ == "__main__":
    main()
