"""Time of one outer step of meta-training, through `MetaTrainer.fit`.

    python benchmarks/meta_step.py

The workload: 16 tasks of 100 points, 3 inner SGD steps that the outer gradient flows through, Adam outside, and fresh
learners for every step. Learner and loss have two layers of 40 units. For each way to compile, the benchmark prints the
time from `fit` to the end of the first call (tracing and compilation), and the median time of an outer step over the
calls that follow. Peers that are installed (`pip install '.[bench]'`) are timed in the same run.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import tyro
from peers import PEERS

import ml3_tf


def build_learner() -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((1,)), layers.Dense(40, activation="tanh"), layers.Dense(40, activation="tanh"), layers.Dense(1)]
    )


class CallTimes(keras.callbacks.Callback):
    """Records the seconds of each compiled call."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def measure(jit_compile: bool, steps_per_call: int, num_calls: int) -> tuple[float, float]:
    """Returns the seconds to the end of the first call, and the milliseconds of an outer step after it."""
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


def measure_peer(make_step: Callable[[], Callable[[], None]], num_steps: int) -> tuple[float, float]:
    """Returns the seconds to the end of a peer's first step, and the milliseconds of a step after it."""
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


def main(num_calls: int = 10) -> None:
    """Prints a table of the ways to compile, and of the peers.

    Args:
        num_calls: Number of timed calls with 100 outer steps; calls with one outer step are 20 times as many.
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
