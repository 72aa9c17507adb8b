"""Learn a loss that trains policies, from what an expert did; then train policies for goals that no expert showed.

A mass slides on a plane, and a policy has to bring it to a goal. An expert, a simple controller, shows the way to four
goals. The loss is learned so that policies act like the expert. At the test it needs no expert: it sees a policy's own
observations and actions, and a goal that nobody has shown. The policies do not see their goals: each learns one.

Command: python examples/demonstrations.py
Time: about half a minute on two CPU cores.

Expected output, the distance to the goal (m) at the end of an episode, mean over 20 goals. The clone sees the goal, so
it needs no training for a new one:

    learned loss, after  0 steps   0.70
    learned loss, after 10 steps   0.12
    learned loss, after 20 steps   0.07
    learned loss, after 40 steps   0.05
    goal-conditioned clone         0.02
"""

import gymnasium
import keras
import numpy as np
import tensorflow as tf

import ml3_tf
from ml3_tf.baselines import behavior_cloning
from ml3_tf.envs import pointmass_step
from ml3_tf.rl import DemonstrationTrainer, MLPPolicy, meta_test_in_env, rollout_env, rollout_model

HORIZON = 25  # steps of 0.1 s
INNER_STEPS = 20  # gradient steps in the life of a policy, one rollout each
OUTER_STEPS = 500  # batches of 16 new policies, with which the loss is learned
INNER_RATE = 0.03  # of the Adam that trains the policies
TEST_STEPS = 40
SHOWN_GOALS = np.tile(0.8 * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], "float32"), (4, 1))  # each for four policies


def see(trajectory):
    """Returns the way to the goal (m), the velocity (m/s) and the way that was left at the end (m), `[..., T, 6]`."""
    states, goal = trajectory.observations[..., :-1, :], trajectory.goal[..., tf.newaxis, :]
    way_left = tf.broadcast_to(goal - trajectory.observations[..., -1:, :2], [*states.shape[:-1], 2])
    return tf.concat([goal - states[..., :2], states[..., 2:], way_left], -1)


LOSS_INPUTS = ml3_tf.LossInputs(see, {"acceleration": 2, "way": 2, "velocity": 2, "way_left": 2})


def build_policy():
    return MLPPolicy(4, 2, hidden_units=(32,), action_limit=1.0)


def demonstrate():
    """Returns observations `[16, 50, 4]` and actions `[16, 50, 2]` of an expert that pulls to the goal and brakes."""
    starts = tf.random.stateless_normal((16, 2, 4), [0, 0]) * [0.1, 0.1, 0.2, 0.2]
    goals = tf.constant(SHOWN_GOALS)[:, tf.newaxis]
    expert = lambda states: tf.clip_by_value(2.0 * (goals - states[..., :2]) - 2.0 * states[..., 2:], -1.0, 1.0)
    shown = rollout_model(expert, pointmass_step, starts, horizon=HORIZON)
    return tuple(tf.reshape(v, [16, 2 * HORIZON, -1]) for v in (shown.observations[..., :-1, :], shown.actions))


def learn_loss(num_outer_steps):
    meta_loss = ml3_tf.MetaLoss.mlp(features=LOSS_INPUTS)
    trainer = DemonstrationTrainer(
        build_policy,
        meta_loss,
        dynamics=pointmass_step,
        horizon=HORIZON,
        loss_inputs=LOSS_INPUTS,
        inner_steps=INNER_STEPS,
        seed=0,
    )
    rate = keras.optimizers.schedules.CosineDecay(5e-3, num_outer_steps)
    trainer.compile(
        keras.optimizers.Adam(rate, global_clipnorm=1.0),  # moves the learned loss
        loss="mse",  # the task loss: the squared difference to the expert's actions
        inner_optimizer=keras.optimizers.Adam(INNER_RATE),  # moves the policies
    )
    support = tf.zeros((16, 1, 4)), SHOWN_GOALS[:, np.newaxis]  # starts and goals of rollouts
    tasks = tf.data.Dataset.from_tensors({"support": support, "query": demonstrate()}).repeat()
    steps_per_epoch = min(100, num_outer_steps)
    trainer.fit(tasks, steps_per_epoch=steps_per_epoch, epochs=num_outer_steps // steps_per_epoch, verbose=2)
    return meta_loss


def make_env():
    """Returns 20 environments with goals 0.5 m and 0.9 m away that nobody has shown."""
    env = gymnasium.make_vec("ml3_tf/PointmassGoal-v0", num_envs=20, vectorization_mode="sync")
    angles, radii = np.linspace(0.2, 0.2 + 2 * np.pi, 20, endpoint=False), np.tile([0.5, 0.9], 10)
    env.set_attr("task", [{"goal": r * np.array([np.cos(a), np.sin(a)])} for a, r in zip(angles, radii)])
    return env


def compute_distances(rollouts):
    return np.linalg.norm(rollouts.observations[..., -1, :2] - rollouts.goal, axis=-1).mean(axis=-1)


def clone_expert():
    """Returns the distance of a policy that sees the goal, cloned from the same demonstrations."""
    policy = MLPPolicy(6, 2, hidden_units=(32,), action_limit=1.0)
    goals, optimizer = np.repeat(SHOWN_GOALS[:, np.newaxis], 2 * HORIZON, axis=1), keras.optimizers.Adam(3e-3)
    behavior_cloning(policy, *demonstrate(), goals=goals, optimizer=optimizer, epochs=100, verbose=0)
    env = make_env()
    goals = np.array([task["goal"] for task in env.get_attr("task")], "float32")
    return compute_distances(rollout_env(lambda states: policy(np.hstack([states, goals])), env, horizon=HORIZON))


def main(num_outer_steps=OUTER_STEPS):
    keras.utils.set_random_seed(0)
    meta_loss, adam = learn_loss(num_outer_steps), keras.optimizers.Adam(INNER_RATE)
    settings = {"num_steps": TEST_STEPS, "horizon": HORIZON, "loss_inputs": LOSS_INPUTS, "seed": 0}
    learned = compute_distances(meta_test_in_env(build_policy, meta_loss, adam, make_env(), **settings))
    for step in (0, INNER_STEPS // 2, INNER_STEPS, TEST_STEPS):
        print(f"learned loss, after {step:2} steps   {learned[step]:.2f}")
    cloned = clone_expert()
    print(f"goal-conditioned clone         {cloned:.2f}")
    return learned, cloned


if __name__ == "__main__":
    main()
