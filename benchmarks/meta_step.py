"""Time of one outer step of meta-training, through `MetaTrainer.fit`.

    python benchmarks/meta_step.py

The workload: 16 tasks, 3 inner SGD steps differentiated through, 100 points a task, learner and loss two layers of 40,
Adam outside, fresh learners for every step. For each way to compile it prints the time from `fit` to the end of the
first call (tracing and compilation), and the median time of an outer step over the calls that follow. Peers that are
installed (`pip install .[bench]`) are timed in the same run.
"""

import statistics
import time

import keras
import tyro
from peers import PEERS

import ml3_tf


def build_learner():
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((1,)), layers.Dense(40, activation="tanh"), layers.Dense(40, activation="tanh"), layers.Dense(1)]
    )


class CallTimes(keras.callbacks.Callback):
    """Seconds of each compiled call."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_train_batch_begin(self, batch, logs=None):
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


def measure(jit_compile, steps_per_call, num_calls):
    """Returns seconds to the end of the first call, and milliseconds per outer step after it."""
    trainer = ml3_tf.MetaTrainer(build_learner, ml3_tf.MetaLoss.mlp((40, 40)), inner_steps=3, seed=0)
    trainer.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss="mse",
        inner_optimizer=keras.optimizers.SGD(1e-3),
        jit_compile=jit_compile,
        steps_per_execution=steps_per_call,
    )
    times = CallTimes()
    tasks = ml3_tf.sine_tasks(num_tasks=16, num_support=100, seed=0)
    start = time.perf_counter()
    trainer.fit(tasks, steps_per_epoch=steps_per_call * (num_calls + 1), callbacks=[times], verbose=0)
    to_first = time.perf_counter() - start - sum(times.seconds[1:])
    return to_first, 1000 * statistics.median(times.seconds[1:]) / steps_per_call


def measure_peer(make_step, num_steps):
    """The same for a peer: seconds to the end of its first step, and milliseconds per step after it."""
    start = time.perf_counter()
    step = make_step()
    step()
    to_first = time.perf_counter() - start
    seconds = []
    for _ in range(num_steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return to_first, 1000 * statistics.median(seconds)


def main(num_calls: int = 10):
    """Prints a table of the ways to compile.

    Args:
        num_calls: Number of timed calls.
    """
    print(f"{'':34}  first call (s)  outer step (ms)")
    for jit_compile, steps_per_call in ((True, 100), (True, 1), (False, 100), (False, 1)):
        calls = num_calls if steps_per_call > 1 else 20 * num_calls
        to_first, per_step = measure(jit_compile, steps_per_call, calls)
        name = f"{'XLA' if jit_compile else 'no XLA'}, {steps_per_call} outer step(s) a call"
        print(f"{name:34}  {to_first:14.1f}  {per_step:15.2f}", flush=True)
    for name, make_step in PEERS.items():
        try:
            to_first, per_step = measure_peer(make_step, 20 * num_calls)
        except ImportError as error:
            print(f"{name:34}  not installed ({error.name})")
            continue
        print(f"{name:34}  {to_first:14.1f}  {per_step:15.2f}", flush=True)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
