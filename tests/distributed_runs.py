"""Runs of meta-training on several devices, or hosts.

`python distributed_runs.py devices NAMES` makes two devices of the processor and prints, for each of `CASES` that is
named, what one and what two of them learn. `python distributed_runs.py host FOLDER` is one host of TF_CONFIG; without
TF_CONFIG it trains alone.
"""

import json
import os
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import ml3_tf
from ml3_tf.rl import (
    DynamicsEnsemble,
    GaussianPolicy,
    MLPPolicy,
    ModelBasedTrainer,
    ModelFreeTrainer,
    PolicyGradient,
    Simulator,
    observation_and_action,
    observation_and_goal,
)

layers, optimizers = keras.layers, keras.optimizers
NUM_TASKS = 4
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "TF_CPP_MIN_LOG_LEVEL": "3"}


def build_learner():
    return keras.Sequential([keras.Input((1,)), layers.Dense(6, "tanh"), layers.Dense(1)])


def sines():
    return ml3_tf.sine_tasks(NUM_TASKS, num_support=5, seed=1)


def make_trainer(strategy, *, jit_compile=False, loss=None, steps_per_execution=2, loss_seed=0, **arguments):
    keras.utils.set_random_seed(loss_seed)
    loss = ml3_tf.MetaLoss.mlp((6,)) if loss is None else loss()
    trainer = ml3_tf.MetaTrainer(build_learner, loss, inner_steps=4, seed=0, **arguments)
    if strategy is not None:
        trainer.distribute(strategy)
    trainer.compile(
        optimizers.SGD(0.1, global_clipnorm=1.0),
        inner_optimizer=optimizers.SGD(0.01, momentum=0.9),
        metrics=["mae"],
        jit_compile=jit_compile,
        steps_per_execution=steps_per_execution,
    )
    return trainer, sines()


def make_model_based(strategy, *, jit_compile, dynamics_of=lambda model: model.next_states):
    keras.utils.set_random_seed(0)
    inputs = ml3_tf.LossInputs(observation_and_goal, {"action": 1, "observation": 2, "goal": 2})
    trainer = ModelBasedTrainer(
        lambda: MLPPolicy(2, 1, hidden_units=(6,)),
        ml3_tf.MetaLoss.mlp((6,), features=inputs),
        dynamics=dynamics_of(DynamicsEnsemble(2, 1, hidden_units=(6,), seed=0)),
        horizon=4,
        loss_inputs=inputs,
        seed=0,
    )
    if strategy is not None:
        trainer.distribute(strategy)
    final_distance = lambda trajectory: tf.norm(trajectory.observations[..., -1, :] - trajectory.goal, axis=-1)
    trainer.compile(optimizers.SGD(0.1), cost=final_distance, jit_compile=jit_compile)
    part = tf.constant([[[-0.5, 0.0]]] * NUM_TASKS), tf.constant([[[0.5, 1.0]]] * NUM_TASKS)
    return trainer, tf.data.Dataset.from_tensors({"support": part, "query": part}).repeat()


def make_model_free(strategy, *, jit_compile):
    keras.utils.set_random_seed(0)
    inputs = ml3_tf.LossInputs(observation_and_action, {"mean_and_std": 4, "observation": 2, "action": 2})
    trainer = ModelFreeTrainer(
        lambda: GaussianPolicy(2, 2, hidden_units=(6,), std=0.5),
        ml3_tf.MetaLoss.mlp((6,), features=inputs),
        simulator=Simulator(lambda s, a: s + 0.1 * a, lambda s, a, goal: -tf.norm(s - goal, axis=-1)),
        horizon=4,
        loss_inputs=inputs,
        batch_size=4,
        seed=0,
    )
    if strategy is not None:
        trainer.distribute(strategy)
    trainer.compile(optimizers.SGD(0.1), PolicyGradient(discount=0.9), jit_compile=jit_compile)
    task = {"state": tf.constant([[[-0.5, 0.0]] * 2] * 2), "goal": tf.constant([[[0.5, 1.0]] * 2] * 2)}
    return trainer, tf.data.Dataset.from_tensors(task).repeat()


def make_uneven(strategy):
    trainer, _ = make_trainer(strategy)
    return trainer, ml3_tf.sine_tasks(3, num_support=5, seed=1)


def as_function(model):
    return lambda states, actions: model.next_states(states, actions)


# Name -> function of a strategy, or `None`, that returns a trainer and its tasks
CASES = {
    "in graphs": lambda strategy: make_trainer(strategy),
    "by XLA": lambda strategy: make_trainer(strategy, jit_compile=True),
    "lives": lambda strategy: make_trainer(strategy, lives=(4, 12)),
    "learned start by XLA": lambda strategy: make_trainer(strategy, start="learned", unroll=2, jit_compile=True),
    "estimator": lambda strategy: make_trainer(strategy, estimator=ml3_tf.EvolutionStrategies(num_pairs=2)),
    "model-based by XLA": lambda strategy: make_model_based(strategy, jit_compile=True),
    "per set": lambda strategy: make_trainer(strategy, loss=lambda: ml3_tf.MetaLoss.mlp((6,), mode="per_set")),
    "model-free": lambda strategy: make_model_free(strategy, jit_compile=False),
    "model-free by XLA": lambda strategy: make_model_free(strategy, jit_compile=True),
    "an uneven number of tasks": make_uneven,
    "dynamics in a function by XLA": lambda strategy: make_model_based(
        strategy, jit_compile=True, dynamics_of=as_function
    ),
}


def train(trainer, tasks, **arguments):
    """Returns the learned variables, and the curves."""
    arguments = {"steps_per_epoch": 4, "epochs": 2, "verbose": 0, **arguments}
    history = trainer.fit(tasks, validation_data=tasks, validation_steps=2, **arguments).history
    return {"phi": [np.ravel(v).tolist() for v in trainer.trained_variables], "curves": history}


def compare_devices(names):
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for name in names:
        try:
            result = {"one": train(*CASES[name](None)), "two": train(*CASES[name](strategy))}
        except ValueError as error:
            result = {"error": str(error)}
        print(json.dumps({"case": name, **result}), flush=True)


class Tell(keras.callbacks.Callback):
    """Prints a line after each step."""

    def on_train_batch_end(self, batch, logs=None):
        print("step", flush=True)


def train_on_host(folder):
    number, strategy = 0, None
    if "TF_CONFIG" in os.environ:
        number, strategy = json.loads(os.environ["TF_CONFIG"])["task"]["index"], ml3_tf.join_hosts(timeout=120)
    # Each host draws a loss of its own: that of the first one counts.
    trainer, tasks = make_trainer(strategy, loss_seed=number, lives=(4, 12), steps_per_execution=1)
    result = train(trainer, tasks, epochs=4, resume=folder, callbacks=[Tell()])
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    compare_devices(sys.argv[2:]) if sys.argv[1] == "devices" else train_on_host(sys.argv[2])
