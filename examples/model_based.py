"""Learn a loss that trains policies, through a model of the dynamics; then train policies without the model.

A mass slides on a plane, and a policy has to bring it to a goal. The loss is learned by differentiating the distance to
the goal through rollouts in the equations of motion, for goals on the right. At the test it sees observations, actions
and the goal; the environment gives no reward and no gradient, and all goals are on the left. The task loss, which it is
compared with, is differentiated through the equations at the test, too.

The equations are known here. Where they are not, use a `ml3_tf.rl.DynamicsEnsemble`, which learns them.

Command: python examples/model_based.py
Time: about half a minute on two CPU cores.

Expected output, the distance to the goal (m) at the end of an episode, mean over 20 new policies:

    loss, SGD rate               after  0 steps   after  5 steps   after 10 steps
    learned, 0.1                           1.22             0.04             0.04
    task loss, 0.1                         1.22             0.44             0.33
    task loss, 0.05 (tuned)                1.22             0.15             0.23
"""

import gymnasium
import keras
import numpy as np
import tensorflow as tf

import ml3_tf
from ml3_tf.baselines import train_in_model
from ml3_tf.envs import pointmass_step
from ml3_tf.rl import ModelBasedTrainer, Squash, meta_test_in_env, observation_and_goal

HORIZON = 25  # steps of 0.1 s
INNER_STEPS = 10  # gradient steps in the life of a policy, one rollout each
OUTER_STEPS = 300  # batches of 16 new policies, with which the loss is learned
INNER_RATE = 0.1
TUNED_RATES = (0.02, 0.05, 0.1, 0.2, 0.5)  # the task loss tries each of them
REPORTED_STEPS = 0, 5, 10
LOSS_INPUTS = ml3_tf.LossInputs(observation_and_goal, {"acceleration": 2, "state": 4, "goal": 2})


def build_policy():
    # Biases that spread out: without them, tanh is nearly linear around the start.
    spread = keras.layers.Dense(64, "tanh", bias_initializer=keras.initializers.RandomUniform(-1.0, 1.0))
    small = keras.layers.Dense(2, kernel_initializer=keras.initializers.VarianceScaling(0.01, "fan_avg", "uniform"))
    return keras.Sequential([keras.Input((4,)), spread, small, Squash(1.0)])


def sgd(rate):
    return keras.optimizers.SGD(rate, clipnorm=0.5)


def task_loss(trajectory):
    """Returns the cost of each episode: the distance on the way and at the end, and the speed at the end."""
    distance = tf.norm(trajectory.observations[..., 1:, :2] - trajectory.goal[..., tf.newaxis, :] + 1e-6, axis=-1)
    speed = tf.reduce_sum(tf.square(trajectory.observations[..., -1, 2:]), -1)
    return 0.5 * tf.reduce_mean(distance, -1) + tf.math.log(distance[..., -1] + 0.1) + 0.1 * speed


def draw_tasks(step):
    """Returns 16 goals on the right, and starts at rest at the origin."""
    goal = tf.random.stateless_uniform((16, 1, 2), tf.stack([step, 0]), [0.2, -1.5], [1.5, 1.5])
    return {"support": (tf.zeros((16, 1, 4)), goal), "query": (tf.zeros((16, 1, 4)), goal)}


def learn_loss(num_outer_steps):
    meta_loss = ml3_tf.MetaLoss.mlp(features=LOSS_INPUTS, learning_rate=1.0)
    trainer = ModelBasedTrainer(
        build_policy,
        meta_loss,
        dynamics=pointmass_step,
        horizon=HORIZON,
        loss_inputs=LOSS_INPUTS,
        inner_steps=INNER_STEPS,
        unroll=1,  # the loss moves after each step of the policies
        seed=0,
    )
    rate = keras.optimizers.schedules.CosineDecay(3e-3, num_outer_steps * INNER_STEPS)
    trainer.compile(keras.optimizers.Adam(rate, clipnorm=1.0), task_loss, inner_optimizer=sgd(INNER_RATE))
    steps_per_epoch = min(100, num_outer_steps)
    tasks = tf.data.Dataset.counter().map(draw_tasks)
    trainer.fit(tasks, steps_per_epoch=steps_per_epoch, epochs=num_outer_steps // steps_per_epoch, verbose=2)
    return meta_loss


def make_env(side):
    """Returns 20 environments with goals 1.2 m away: on the right (`side` 1) or on the left (-1)."""
    env = gymnasium.make_vec("ml3_tf/PointmassGoal-v0", num_envs=20, vectorization_mode="sync")
    angles = np.linspace(-1.3, 1.3, 20)
    env.set_attr("task", [{"goal": 1.2 * np.array([side * np.cos(a), np.sin(a)])} for a in angles])
    return env


def compute_distances(rollouts):
    """Returns the mean distance at the end of the episodes, before the first step and after each."""
    return np.linalg.norm(rollouts.observations[..., -1, :2] - rollouts.goal, axis=-1).mean(axis=1)


def measure_task_loss(rate, side, seed):
    settings = {"num_steps": REPORTED_STEPS[-1], "horizon": HORIZON, "dynamics": pointmass_step, "seed": seed}
    return compute_distances(train_in_model(build_policy, task_loss, sgd(rate), env=make_env(side), **settings))


def main(num_outer_steps=OUTER_STEPS):
    keras.utils.set_random_seed(0)
    meta_loss, env = learn_loss(num_outer_steps), make_env(side=-1)
    settings = {"num_steps": REPORTED_STEPS[-1], "horizon": HORIZON, "loss_inputs": LOSS_INPUTS, "seed": 0}
    learned = meta_test_in_env(build_policy, meta_loss, sgd(INNER_RATE), env, **settings)
    best = min(TUNED_RATES, key=lambda rate: measure_task_loss(rate, side=1, seed=1)[REPORTED_STEPS[1]])
    curves = {
        f"learned, {INNER_RATE}": compute_distances(learned),
        f"task loss, {INNER_RATE}": measure_task_loss(INNER_RATE, side=-1, seed=0),
        f"task loss, {best} (tuned)": measure_task_loss(best, side=-1, seed=0),
    }
    print(f"{'loss, SGD rate':26}", *(f"after {step:2} steps" for step in REPORTED_STEPS), sep="   ")
    for name, curve in curves.items():
        print(f"{name:26}", *(f"{curve[step]:14.2f}" for step in REPORTED_STEPS), sep="   ")
    return curves


if __name__ == "__main__":
    main()
