"""Learn a loss for regression on sine curves, then train new regressors with it.

Command: python examples/regression.py
Time: about a minute on two CPU cores.

Expected output, the squared error of new regressors on unseen points of 20 unseen sines:

    loss, SGD rate                 after 40 steps   after 200 steps
    learned, 0.001                           1.95              0.49
    squared error, 0.001                     3.46              3.08
    squared error, 0.03 (tuned)              2.42              0.53
"""

import keras
import numpy as np

import ml3_tf

INNER_STEPS = 40  # gradient steps in the life of a regressor, all differentiated through
OUTER_STEPS = 250  # steps of the learned loss
INNER_RATE = 1e-3  # of the SGD that trains the regressors with the learned loss
TUNED_RATES = (0.01, 0.02, 0.03, 0.05, 0.1)  # the squared error tries each of them
TEST_STEPS = 200


def build_regressor():
    layers = keras.layers
    return keras.Sequential([keras.Input((1,)), layers.Dense(40, "relu"), layers.Dense(40, "relu"), layers.Dense(1)])


def learn_loss(num_outer_steps):
    """Meta-training is `fit`: each step trains 16 new regressors on 16 new sines, and moves the learned loss."""
    meta_loss = ml3_tf.MetaLoss.mlp(
        learning_rate=50.0,  # a learned factor of the loss, and so of the regressor's steps; this is its start
        output_initializer=keras.initializers.RandomNormal(stddev=1e-4),  # start with near-zero gradients
    )
    trainer = ml3_tf.MetaTrainer(build_regressor, meta_loss, inner_steps=INNER_STEPS, seed=0)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, num_outer_steps)
    trainer.compile(
        optimizer=keras.optimizers.Adam(rate, global_clipnorm=0.5),  # moves the learned loss
        loss="mse",  # the task loss, on points that the regressors were not trained on
        inner_optimizer=keras.optimizers.SGD(INNER_RATE),  # moves the regressors
    )
    tasks, steps_per_epoch = ml3_tf.sine_tasks(num_tasks=16, num_query=100, seed=0), min(50, num_outer_steps)
    trainer.fit(tasks, steps_per_epoch=steps_per_epoch, epochs=num_outer_steps // steps_per_epoch, verbose=2)
    return meta_loss


def measure(learner, loss, rate, seed):
    """Meta-testing: the error of 20 new regressors before the first step and after each, mean over the sines."""
    tasks = next(iter(ml3_tf.sine_tasks(num_tasks=20, num_query=100, seed=seed)))
    optimizer = keras.optimizers.SGD(rate)
    return ml3_tf.meta_test(learner, loss, optimizer, tasks, num_steps=TEST_STEPS, seed=0).mean(axis=1)


def main(num_outer_steps=OUTER_STEPS):
    keras.utils.set_random_seed(0)
    meta_loss = learn_loss(num_outer_steps)
    learner = ml3_tf.Learner(build_regressor)  # one for all rates: it is compiled once
    errors = [measure(learner, "mse", rate, seed=1)[INNER_STEPS] for rate in TUNED_RATES]
    tuned_rate = TUNED_RATES[np.nan_to_num(errors, nan=np.inf).argmin()]
    curves = {
        f"learned, {INNER_RATE}": measure(learner, meta_loss, INNER_RATE, seed=2),
        f"squared error, {INNER_RATE}": measure(learner, "mse", INNER_RATE, seed=2),
        f"squared error, {tuned_rate} (tuned)": measure(learner, "mse", tuned_rate, seed=2),
    }
    print(f"{'loss, SGD rate':30} after {INNER_STEPS} steps   after {TEST_STEPS} steps")
    for name, curve in curves.items():
        print(f"{name:30} {curve[INNER_STEPS]:14.2f} {curve[TEST_STEPS]:17.2f}")
    return curves


if __name__ == "__main__":
    main()
