"""Learn a loss for your own tables: one that wrong entries in the target do not mislead.

Some rows of your tables were checked by hand, the others hold wrong targets here and there. You need no rule that finds
them: the loss learns from the checked rows how to treat the others.

The table is scikit-learn's diabetes data, 442 patients with 10 measurements. Each task takes one measurement as the
target and the others as inputs, and replaces 30 % of the targets to train on by numbers that are too high. The task
loss sees the correct targets, of other patients. The test is on new patients, and on a new target: the progression of
the disease. The usual losses are tuned on the same tasks that the learned loss comes from.

Command: python examples/own_tables.py
Time: about 40 seconds on two CPU cores.

Expected output, the error on correct targets (root mean square, in standard deviations of the target), for 20 new
regressors:

    loss, SGD rate                 after 40 steps   after 160 steps
    learned, 0.01                            0.79              0.87
    mse, 0.003 (tuned)                       1.09              1.22
    mae, 0.03 (tuned)                        0.94              1.02
    huber, 0.03 (tuned)                      0.98              1.07
"""

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_diabetes

import ml3_tf

INNER_STEPS = 40  # gradient steps in the life of a regressor, all differentiated through
OUTER_STEPS = 150  # steps of the learned loss
INNER_RATE = 0.01  # of the SGD that trains the regressors with the learned loss
TUNED_RATES = (0.003, 0.01, 0.03, 0.1, 0.3)  # the usual losses try each of them
TEST_STEPS = 160
SHARE_WRONG = 0.3


def load_table():
    """Returns all columns with mean 0 and standard deviation 1, the target last: `[442, 11]`."""
    inputs, target = load_diabetes(return_X_y=True)
    table = np.column_stack([inputs, target])
    return ((table - table.mean(axis=0)) / table.std(axis=0)).astype("float32")


def build_regressor():
    layers = keras.layers
    return keras.Sequential([keras.Input((10,)), layers.Dense(32, "relu"), layers.Dense(1)])


def draw_tasks(table, targets, num_tasks, generator):
    """Returns tasks: each takes one of the columns `targets` as its target, and 100 rows to train on."""
    xs, ys, correct_ys = [], [], []
    for _ in range(num_tasks):
        rows, target = generator.permutation(table)[:200], generator.choice(targets)
        y, x = rows[:, [target]], np.delete(rows, target, axis=1)
        if target < 10:
            x[:, -1] = 0.0  # the progression of the disease stays unknown in meta-training
        wrong = generator.random((200, 1)) < SHARE_WRONG
        xs.append(x)
        correct_ys.append(y)
        ys.append(np.where(wrong, generator.normal(3.0, 1.0, (200, 1)), y))
    xs, ys, correct_ys = (np.array(values, "float32") for values in (xs, ys, correct_ys))
    return {"support": (xs[:, :100], ys[:, :100]), "query": (xs[:, 100:], correct_ys[:, 100:])}


def learn_loss(table, num_outer_steps):
    def generate():
        generator = np.random.default_rng(0)
        while True:
            yield draw_tasks(table, range(10), 16, generator)

    spec = tf.nest.map_structure(lambda values: tf.TensorSpec(values.shape, values.dtype), next(generate()))
    tasks = tf.data.Dataset.from_generator(generate, output_signature=spec).prefetch(2)
    meta_loss = ml3_tf.MetaLoss.mlp(
        learning_rate=20.0,  # a learned factor of the loss, and so of the regressor's steps; this is its start
        output_initializer=keras.initializers.RandomNormal(stddev=1e-4),  # start with near-zero gradients
    )
    trainer = ml3_tf.MetaTrainer(build_regressor, meta_loss, inner_steps=INNER_STEPS, seed=0)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, num_outer_steps)
    trainer.compile(
        optimizer=keras.optimizers.Adam(rate, global_clipnorm=0.5),  # moves the learned loss
        loss="mse",  # the task loss, on correct targets
        inner_optimizer=keras.optimizers.SGD(INNER_RATE),  # moves the regressors
    )
    steps_per_epoch = min(50, num_outer_steps)
    trainer.fit(tasks, steps_per_epoch=steps_per_epoch, epochs=num_outer_steps // steps_per_epoch, verbose=2)
    return meta_loss


def measure(learner, loss, rate, table, targets, seed):
    """Returns the error before the first step and after each, root mean square over 20 new regressors."""
    tasks = draw_tasks(table, targets, 20, np.random.default_rng(seed))
    optimizer = keras.optimizers.SGD(rate)
    errors = ml3_tf.meta_test(learner, loss, optimizer, tasks, num_steps=TEST_STEPS, seed=0)
    return np.sqrt(np.nan_to_num(errors, nan=np.inf).mean(axis=1))


def main(num_outer_steps=OUTER_STEPS):
    keras.utils.set_random_seed(0)
    table = load_table()
    old_rows, new_rows = table[:221], table[221:]
    meta_loss = learn_loss(old_rows, num_outer_steps)
    learner = ml3_tf.Learner(build_regressor)  # one for all rates: it is compiled once
    methods = {f"learned, {INNER_RATE}": (meta_loss, INNER_RATE)}
    for loss in ("mse", "mae", "huber"):
        rate = min(TUNED_RATES, key=lambda rate: measure(learner, loss, rate, old_rows, range(10), seed=1)[INNER_STEPS])
        methods[f"{loss}, {rate} (tuned)"] = loss, rate
    print(f"{'loss, SGD rate':30} after {INNER_STEPS} steps   after {TEST_STEPS} steps")
    curves = {name: measure(learner, *method, new_rows, [10], seed=2) for name, method in methods.items()}
    for name, curve in curves.items():
        print(f"{name:30} {curve[INNER_STEPS]:14.2f} {curve[TEST_STEPS]:17.2f}")
    return curves


if __name__ == "__main__":
    main()
