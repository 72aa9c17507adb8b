"""ml3_tf: `MetaTrainer.fit`."""

from typing import Any

import keras
import tensorflow as tf

import ml3_tf
from peers.clock import Clock, Run
from peers.workloads import INNER_RATE, LENGTH, LONG_LENGTH, LOSS_UNITS, NUM_CLASSES, OUTER_RATE, SIZE, WORKLOADS

layers = keras.layers


def build_dense() -> keras.Model:
    return keras.Sequential(
        [keras.Input((1,)), layers.Dense(40, activation="tanh"), layers.Dense(40, activation="tanh"), layers.Dense(1)]
    )


def build_lenet() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 1)),
            layers.Conv2D(6, 5, padding="same", activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(120, activation="tanh"),
            layers.Dense(84, activation="tanh"),
            layers.Dense(NUM_CLASSES, activation="softmax"),
        ]
    )


def build_gru() -> keras.Model:
    return keras.Sequential([keras.Input((LENGTH, 1)), layers.GRU(8), layers.Dense(1)])


def build_lstm() -> keras.Model:
    return keras.Sequential([keras.Input((LONG_LENGTH, 1)), layers.LSTM(16), layers.Dense(1)])


def build_attention() -> keras.Model:
    inputs = keras.Input((LENGTH, 1))
    x = layers.Dense(8)(inputs)
    x = layers.MultiHeadAttention(num_heads=2, key_dim=4)(x, x)
    return keras.Model(inputs, layers.Dense(1)(layers.Flatten()(x)))


LEARNERS = {
    "dense": build_dense,
    "lenet": build_lenet,
    "attention": build_attention,
    "gru": build_gru,
    "lstm": build_lstm,
}


class Ticks(keras.callbacks.Callback):
    """Marks the end of each compiled call, and ends `fit` when there are enough."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.model.stop_training = self.clock.tick()


def make_trainer(
    workload: str,
    num_steps: int,
    *,
    jit_compile: bool,
    steps_per_call: int = 1,
    optimizer: keras.optimizers.Optimizer | None = None,
) -> ml3_tf.MetaTrainer:
    """Compiles a trainer; see `prepare` for the arguments. The outer optimizer is Adam unless one is given."""
    mode = "per_output" if WORKLOADS[workload].classifies else "per_sample"
    meta_loss = ml3_tf.MetaLoss.mlp((LOSS_UNITS, LOSS_UNITS), mode=mode)
    trainer = ml3_tf.MetaTrainer(LEARNERS[workload], meta_loss, inner_steps=num_steps, seed=0)
    trainer.compile(
        optimizer=optimizer or keras.optimizers.Adam(OUTER_RATE),
        loss="categorical_crossentropy" if WORKLOADS[workload].classifies else "mse",
        inner_optimizer=keras.optimizers.SGD(INNER_RATE),
        jit_compile=jit_compile,
        steps_per_execution=steps_per_call,
    )
    return trainer


def make_batch(workload: str) -> dict[str, Any]:
    """Returns the tasks, which are trained and scored on the same examples."""
    part = WORKLOADS[workload].tasks()
    return {"support": part, "query": part}


def prepare(workload: str, num_steps: int, *, jit_compile: bool, steps_per_call: int) -> Run:
    """Compiles a trainer.

    Args:
        workload: Name of the workload.
        num_steps: Number of inner steps, all differentiated through.
        jit_compile: Whether to compile with XLA.
        steps_per_call: Number of outer steps in one compiled call.

    Returns:
        A `Run`.
    """
    trainer = make_trainer(workload, num_steps, jit_compile=jit_compile, steps_per_call=steps_per_call)
    return run_of(trainer, workload)


def run_of(trainer: ml3_tf.MetaTrainer, workload: str) -> Run:
    """Returns the `Run` of a trainer."""
    tasks = tf.data.Dataset.from_tensors(make_batch(workload)).repeat()

    def run(clock: Clock) -> float:
        history = trainer.fit(tasks, steps_per_epoch=10**6, callbacks=[Ticks(clock)], verbose=0)
        return history.history["loss"][0]

    return run
