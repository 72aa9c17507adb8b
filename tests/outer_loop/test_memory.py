"""Tests of `ml3_tf.outer_loop._memory`: how much a step needs, counted by hand, and the warning."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf import EvolutionStrategies, MetaLoss, MetaTrainer, sine_tasks
from ml3_tf.outer_loop import _memory

layers = keras.layers
MIB = 2**20


def test_live_bytes_are_those_between_first_and_last_use():
    """x, exp(x), its double, and their sum at most: 4 KiB; an alias takes none, and what is done is given back."""
    spec = tf.TensorSpec((256,))

    def function(x):
        first = tf.exp(x)
        second = tf.reshape(first * 2.0, [16, 16])
        return tf.exp(tf.exp(tf.exp(first + tf.reshape(second, [256]))))

    assert 4096 <= _memory.live_bytes(function, spec) <= 4096 + 64  # and a constant or two
    assert _memory.live_bytes(lambda x: tf.reshape(x, [16, 16]), spec) <= 1024 + 64


def make_trainer(**arguments):
    wide = keras.Sequential([keras.Input((1,)), layers.Dense(1000), layers.Dense(1000), layers.Dense(1)])
    trainer = MetaTrainer(wide, MetaLoss.mlp((5,)), seed=0, **arguments)
    trainer.compile(jit_compile=False)
    return trainer


def test_carries_that_are_kept_count(monkeypatch):
    """A learner has 4 MiB; two of them, kept at each of 99 steps, or at every tenth and ten between."""
    monkeypatch.setattr(_memory.os, "cpu_count", lambda: 1)
    batch = next(iter(sine_tasks(num_tasks=2, num_support=4, num_query=4)))
    size = 2 * 4 * (1000 + 1000 + 1000 * 1000 + 1000 + 1000 + 1) / MIB
    one, all_kept, few_kept = (
        make_trainer(inner_steps=steps, recompute=recompute).estimate_memory(batch) / MIB
        for steps, recompute in ((1, 1), (100, 1), (100, 10))
    )
    assert 3 * size < one < 20 * size
    np.testing.assert_allclose(all_kept - one, 99 * size, rtol=1e-3)
    np.testing.assert_allclose(few_kept - one, 20 * size, rtol=1e-3)


def test_evolution_strategies_keep_nothing_but_take_pairs(monkeypatch):
    monkeypatch.setattr(_memory.os, "cpu_count", lambda: 1)
    batch = next(iter(sine_tasks(num_tasks=2, num_support=4, num_query=4)))
    short, long = (make_trainer(inner_steps=n, estimator=EvolutionStrategies()) for n in (1, 100))
    assert short.estimate_memory(batch) == long.estimate_memory(batch)
    assert long.estimate_memory(batch) < make_trainer(inner_steps=100, recompute=1).estimate_memory(batch) / 3


def test_an_estimate_draws_nothing():
    """Training after it is what it would have been."""
    batch = next(iter(sine_tasks(num_tasks=2, num_support=4, num_query=4)))
    starts = []
    for estimates in (False, True):
        trainer = make_trainer(inner_steps=2, estimator=EvolutionStrategies())
        if estimates:
            trainer.estimate_memory(batch)
        starts.append(trainer.draw_lives(2, batch)[0])
    tf.nest.map_structure(np.testing.assert_array_equal, *starts)


def test_too_little_memory_is_told(monkeypatch):
    monkeypatch.setattr(_memory, "available_bytes", lambda: 3 * MIB)
    monkeypatch.setattr(_memory.tf.config, "list_logical_devices", lambda kind: [])
    with pytest.warns(UserWarning, match=r"needs about \d+ MiB, and this machine has 3 MiB left. Take fewer tasks"):
        make_trainer().estimate_memory(next(iter(sine_tasks(num_tasks=2))))


@pytest.mark.skipif(not _memory.Path("/proc/meminfo").is_file(), reason="this machine does not tell")
def test_what_is_left_is_read():
    assert 16 * MIB < _memory.available_bytes() < 2**50
