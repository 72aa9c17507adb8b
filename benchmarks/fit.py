"""Time of a step of Keras's `fit` with a learned loss, and with a loss of Keras.

    python benchmarks/fit.py

The model has about 100,000 weights, and a step takes a batch of 128. All losses train the same model in one process,
in turns, so that a busy machine slows all of them down; the time of a step is the median over the turns. The learned
losses have the paper's two layers of 40. The last row is `AdaptLoss` as it comes, which moves the
loss after every tenth step, by virtual steps on 32 examples; each turn ends with a score on 1,280.
"""

import statistics
import time
from typing import Any

import keras
import numpy as np
import tyro

import ml3_tf

BATCH_SIZE = 128
NUM_CLASSES = 10
LOSSES = {
    "mse": lambda: "mse",
    "categorical_crossentropy": lambda: "categorical_crossentropy",
    "learned, per sample": lambda: ml3_tf.MetaLoss.mlp(features={"y_pred": NUM_CLASSES, "y_true": NUM_CLASSES}),
    "learned, per output": lambda: ml3_tf.MetaLoss.mlp(mode="per_output"),
    "around cross-entropy": lambda: ml3_tf.MetaLoss.around("categorical_crossentropy", mode="per_output"),
}
ADAPTED = "the same, adapted"


def build_model() -> keras.Model:
    """Returns a classifier of 64 numbers with 99,530 weights."""
    layers = keras.layers
    hidden = [layers.Dense(256, "relu") for _ in range(2)]
    return keras.Sequential(
        [keras.Input((64,)), *hidden, layers.Dense(64, "relu"), layers.Dense(NUM_CLASSES, "softmax")]
    )


def compiled(loss: Any, *, jit_compile: bool) -> keras.Model:
    model = build_model()
    model.compile(keras.optimizers.SGD(1e-3), loss=loss, jit_compile=jit_compile)
    return model


def main(num_turns: int = 9, steps_per_turn: int = 300) -> None:
    """Prints milliseconds a step, and how much more than the cheapest loss of Keras.

    Args:
        num_turns: Number of times that each loss has its turn.
        steps_per_turn: Number of steps in a turn.
    """
    generator = np.random.default_rng(0)
    x = generator.normal(size=(BATCH_SIZE * steps_per_turn, 64)).astype("float32")
    y = np.eye(NUM_CLASSES, dtype="float32")[generator.integers(0, NUM_CLASSES, len(x))]
    for jit_compile in (False, True):
        models = {name: compiled(make_loss(), jit_compile=jit_compile) for name, make_loss in LOSSES.items()}
        models[ADAPTED] = compiled([*LOSSES.values()][-1](), jit_compile=jit_compile)
        meta = x[: 10 * BATCH_SIZE], y[: 10 * BATCH_SIZE]
        adapt = ml3_tf.AdaptLoss((x, y), meta, loss="categorical_crossentropy")
        times: dict[str, list[float]] = {name: [] for name in models}
        for turn in range(num_turns + 1):
            for name, model in models.items():
                start = time.perf_counter()
                model.fit(x, y, batch_size=BATCH_SIZE, callbacks=[adapt] if name == ADAPTED else [], verbose=0)
                if turn:  # the first one compiles
                    times[name].append(1e3 * (time.perf_counter() - start) / steps_per_turn)
        medians = {name: statistics.median(values) for name, values in times.items()}
        print(f"jit_compile={jit_compile}, {models['mse'].count_params():,} weights")
        for name, median in medians.items():
            print(f"  {name:26} {median:6.3f} ms a step, {100 * (median / medians['mse'] - 1):+5.1f} %")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
