"""Learn a loss for classification on some classes, then train classifiers of other classes with it.

The data are scikit-learn's 1,797 scans of handwritten digits. The loss is learned on the digits 0 to 4, whose labels
are shuffled in each task, and tested on the digits 5 to 9. It is a "per_output" loss: one network scores each class
by itself, so it can also train a classifier with more classes, or fewer.

Command: python examples/classification.py
Time: about half a minute on two CPU cores.

Expected output, the share of right answers on unseen images, mean over 20 new classifiers of the digits 5 to 9:

    loss, SGD rate                 after 20 steps   after 100 steps
    learned, 0.05                           91.4%             94.0%
    cross-entropy, 0.05                     67.4%             91.6%
    cross-entropy, 1.0 (tuned)              91.6%             94.4%
"""

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import ml3_tf

INNER_STEPS = 20  # gradient steps in the life of a classifier, all differentiated through
OUTER_STEPS = 150  # steps of the learned loss
INNER_RATE = 0.05  # of the SGD that trains the classifiers with the learned loss
TUNED_RATES = (0.1, 0.2, 0.5, 1.0, 2.0)  # cross-entropy tries each of them
TEST_STEPS = 100
PER_CLASS = 16  # images of a class to train on, and as many to test on
OLD_DIGITS, NEW_DIGITS = range(5), range(5, 10)


def build_classifier():
    layers = keras.layers
    return keras.Sequential([keras.Input((64,)), layers.Dense(32, "tanh"), layers.Dense(5, "softmax")])


def draw_tasks(digits, num_tasks, generator):
    """Returns tasks, each with labels and images of its own: arrays `[num_tasks, images, ...]`."""
    images, labels = load_digits(return_X_y=True)
    x = []
    for _ in range(num_tasks):
        rows = [generator.permutation(np.flatnonzero(labels == digit)) for digit in generator.permutation(digits)]
        x.append(images[np.stack([r[: 2 * PER_CLASS] for r in rows], axis=1)].reshape(-1, 64) / 16)
    x, y = np.array(x, "float32"), np.tile(np.eye(5, dtype="float32"), (num_tasks, 2 * PER_CLASS, 1))
    half = 5 * PER_CLASS
    return {"support": (x[:, :half], y[:, :half]), "query": (x[:, half:], y[:, half:])}


def learn_loss(num_outer_steps):
    def generate():
        generator = np.random.default_rng(0)
        while True:
            yield draw_tasks(OLD_DIGITS, 8, generator)

    spec = tf.nest.map_structure(lambda values: tf.TensorSpec(values.shape, values.dtype), next(generate()))
    tasks = tf.data.Dataset.from_generator(generate, output_signature=spec).prefetch(2)
    meta_loss = ml3_tf.MetaLoss.mlp(
        mode="per_output",
        learning_rate=100.0,  # a learned factor of the loss, and so of the classifier's steps; this is its start
        output_initializer=keras.initializers.RandomNormal(stddev=1e-4),  # start with near-zero gradients
    )
    trainer = ml3_tf.MetaTrainer(build_classifier, meta_loss, inner_steps=INNER_STEPS, seed=0)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, num_outer_steps)
    trainer.compile(
        optimizer=keras.optimizers.Adam(rate, global_clipnorm=0.5),  # moves the learned loss
        loss="categorical_crossentropy",  # the task loss, on images that the classifiers were not trained on
        inner_optimizer=keras.optimizers.SGD(INNER_RATE),  # moves the classifiers
        metrics=["categorical_accuracy"],
    )
    steps_per_epoch = min(50, num_outer_steps)
    trainer.fit(tasks, steps_per_epoch=steps_per_epoch, epochs=num_outer_steps // steps_per_epoch, verbose=2)
    return meta_loss


def is_wrong(y_true, y_pred):
    return 1 - keras.metrics.categorical_accuracy(y_true, y_pred)


def measure(learner, loss, rate, digits, seed):
    """Returns the share of right answers before the first step and after each, mean over 20 new classifiers."""
    tasks = draw_tasks(digits, 20, np.random.default_rng(seed))
    optimizer, settings = keras.optimizers.SGD(rate), {"num_steps": TEST_STEPS, "seed": 0}
    return 1 - ml3_tf.meta_test(learner, loss, optimizer, tasks, task_loss=is_wrong, **settings).mean(axis=1)


def main(num_outer_steps=OUTER_STEPS):
    keras.utils.set_random_seed(0)
    meta_loss, usual = learn_loss(num_outer_steps), "categorical_crossentropy"
    learner = ml3_tf.Learner(build_classifier)  # one for all rates: it is compiled once
    tuned_rate = max(TUNED_RATES, key=lambda rate: measure(learner, usual, rate, OLD_DIGITS, seed=1)[INNER_STEPS])
    curves = {
        f"learned, {INNER_RATE}": measure(learner, meta_loss, INNER_RATE, NEW_DIGITS, seed=2),
        f"cross-entropy, {INNER_RATE}": measure(learner, usual, INNER_RATE, NEW_DIGITS, seed=2),
        f"cross-entropy, {tuned_rate} (tuned)": measure(learner, usual, tuned_rate, NEW_DIGITS, seed=2),
    }
    print(f"{'loss, SGD rate':30} after {INNER_STEPS} steps   after {TEST_STEPS} steps")
    for name, curve in curves.items():
        print(f"{name:30} {curve[INNER_STEPS]:14.1%} {curve[TEST_STEPS]:17.1%}")
    return curves


if __name__ == "__main__":
    main()
