"""Runs of meta-training that are interrupted; also a program that is killed: `python resumed_runs.py FOLDER KIND`."""

import json
import sys

import gymnasium
import keras
import numpy as np
import tensorflow as tf

import ml3_tf
import ml3_tf.envs
from ml3_tf.rl import (
    DynamicsEnsemble,
    DynamicsRefit,
    GaussianPolicy,
    MLPPolicy,
    ModelBasedTrainer,
    ModelFreeTrainer,
    PolicyGradient,
    Simulator,
    observation_and_action,
    observation_and_goal,
)

layers, callbacks, optimizers = keras.layers, keras.callbacks, keras.optimizers


def make_trainer(*, seed=0, unroll=2, steps_per_execution=1, inner_optimizer="sgd", dropout=0.0, **arguments):
    keras.utils.set_random_seed(0)
    build = lambda: keras.Sequential(
        [keras.Input((1,)), layers.Dense(6, "tanh"), layers.Dropout(dropout), layers.Dense(1)]
    )
    trainer = ml3_tf.MetaTrainer(build, ml3_tf.MetaLoss.mlp((6,)), inner_steps=4, unroll=unroll, seed=seed, **arguments)
    rate = optimizers.schedules.CosineDecay(1e-2, 50) if dropout else 1e-2
    trainer.compile(
        optimizers.Adam(rate),
        inner_optimizer=inner_optimizer,
        metrics=["mae"] if dropout else None,
        steps_per_execution=steps_per_execution,
        jit_compile=False,
    )
    return trainer


def sines(seed=1):
    return ml3_tf.sine_tasks(3, num_support=5, seed=seed)


def shuffled():
    return sines().take(5).cache().shuffle(5, seed=2)


def unseeded():
    """Batches of random order, read in one run after the other."""
    return sines().take(5).cache().shuffle(5)


def generated():
    return tf.data.Dataset.from_generator(lambda: iter(sines()), output_signature=sines().element_spec).prefetch(1)


def starts_and_goals():
    part = tf.constant([[[-0.5, 0.0]]] * 4), tf.constant([[[0.5, 1.0]]] * 4)
    return tf.data.Dataset.from_tensors({"support": part, "query": part}).repeat()


def make_model_based():
    """A trainer through a model that is refitted, and the callback that does so."""
    keras.utils.set_random_seed(0)
    dynamics = DynamicsEnsemble(2, 1, hidden_units=(6,), seed=0)
    dynamics.compile("adam")
    inputs = ml3_tf.LossInputs(observation_and_goal, {"action": 1, "observation": 2, "goal": 2})
    trainer = ModelBasedTrainer(
        lambda: MLPPolicy(2, 1, hidden_units=(6,), action_limit=0.25),
        ml3_tf.MetaLoss.mlp((6,), features=inputs),
        dynamics=dynamics.next_states,
        horizon=4,
        loss_inputs=inputs,
        seed=0,
    )
    final_distance = lambda trajectory: tf.norm(trajectory.observations[..., -1, :] - trajectory.goal, axis=-1)
    trainer.compile(optimizers.Adam(1e-2), cost=final_distance, jit_compile=False)
    env = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=4, vectorization_mode="sync")
    return trainer, [DynamicsRefit(dynamics, env, starts_and_goals(), every=3, epochs=1, seed=0)]


def make_model_free(*, real=False):
    keras.utils.set_random_seed(0)
    walk = Simulator(lambda s, a: s + 0.1 * a, lambda s, a, goal: -tf.norm(s - goal, axis=-1))
    env = gymnasium.make_vec("ml3_tf/MountainCarGoal-v0", num_envs=4, vectorization_mode="sync") if real else walk
    width = 1 if real else 2
    widths = {"mean_and_std": 2 * width, "observation": 2, "action": width}
    inputs = ml3_tf.LossInputs(observation_and_action, widths)
    trainer = ModelFreeTrainer(
        lambda: GaussianPolicy(2, width, hidden_units=(6,), std=0.5),
        ml3_tf.MetaLoss.mlp((6,), features=inputs),
        simulator=env,
        horizon=4,
        loss_inputs=inputs,
        batch_size=4,
        seed=0,
    )
    policy_gradient = PolicyGradient(discount=0.9, clip_range=0.2)
    trainer.compile(optimizers.Adam(1e-2), policy_gradient, outer_epochs=2, outer_batch_size=1, jit_compile=False)
    return trainer, []


def episodes():
    task = {"state": tf.constant([[[-0.5, 0.0]] * 2] * 2), "goal": tf.constant([[[0.5, 1.0]] * 2] * 2)}
    return tf.data.Dataset.from_tensors(task).repeat()


def without_callbacks(**arguments):
    return lambda: (make_trainer(**arguments), [])


def with_callback(make_callback, **arguments):
    return lambda: (make_trainer(**arguments), [make_callback()])


ADAM_INSIDE = {"dropout": 0.2, "inner_optimizer": "adam"}
ES = {"estimator": ml3_tf.EvolutionStrategies(num_pairs=2), "unroll": 4}
# Name -> (function that makes trainer and callbacks, and one that makes the dataset; arguments of `fit`)
KINDS = {
    "adam": (without_callbacks(**ADAM_INSIDE), sines, {"steps_per_epoch": 4}),
    "steps_per_execution": (without_callbacks(steps_per_execution=2), sines, {"steps_per_epoch": 4}),
    "lives": (without_callbacks(lives=(4, 12)), sines, {"steps_per_epoch": 4}),
    "estimator": (without_callbacks(lives=(4, 12), **ES), sines, {"steps_per_epoch": 4}),
    "learned_start": (without_callbacks(start="learned"), sines, {"steps_per_epoch": 4}),
    "pass": (without_callbacks(), shuffled, {}),
    "unseeded_pass": (without_callbacks(), unseeded, {}),
    "repeated": (without_callbacks(), shuffled, {"steps_per_epoch": 3}),
    "generated": (without_callbacks(), generated, {"steps_per_epoch": 4}),
    "validation": (without_callbacks(), shuffled, {"validation_data": shuffled, "validation_steps": 3}),
    "early_stopping": (
        with_callback(lambda: callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True)),
        sines,
        {"steps_per_epoch": 4},
    ),
    "plateau": (
        with_callback(lambda: callbacks.ReduceLROnPlateau("loss", patience=1, factor=0.3)),
        sines,
        {"steps_per_epoch": 4},
    ),
    "schedule": (
        with_callback(lambda: callbacks.LearningRateScheduler(lambda _, rate: rate / 2)),
        sines,
        {"steps_per_epoch": 4},
    ),
    "model_based": (make_model_based, starts_and_goals, {"steps_per_epoch": 4}),
    "model_free": (make_model_free, episodes, {"steps_per_epoch": 4}),
    "real_environments": (lambda: make_model_free(real=True), episodes, {"steps_per_epoch": 4}),
}


def run(kind, folder, *further_callbacks, save_freq=1, epochs=3, verbose=0):
    make, tasks, arguments = KINDS[kind]
    trainer, own = make()
    arguments = {name: value() if callable(value) else value for name, value in arguments.items()}
    checkpoint = ml3_tf.Checkpoint(folder, save_freq=save_freq)
    history = trainer.fit(
        tasks(), epochs=epochs, callbacks=[*further_callbacks, *own, checkpoint], verbose=verbose, **arguments
    )
    return trainer, history


def phi_of(trainer):
    return [variable.numpy() for variable in trainer.meta_loss.trainable_variables]


def result_of(trainer, history):
    """All that a run gives, but for times."""
    curves = {name: curve for name, curve in history.history.items() if name != "samples_per_second"}
    state = [np.asarray(value).tolist() for value in tf.nest.flatten(trainer.training_state["optimizer"])]
    return {"phi": [value.tolist() for value in phi_of(trainer)], "optimizer": state, "curves": curves}


class Tell(callbacks.Callback):
    """Prints a line for each step."""

    def on_train_batch_end(self, batch, logs=None):
        print("step", flush=True)


if __name__ == "__main__":
    print(json.dumps(result_of(*run(sys.argv[2], sys.argv[1], Tell()))), flush=True)
