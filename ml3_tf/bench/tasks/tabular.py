"""Ten tables: of the thirty of `adapt.py`, every third of regression and every third of classification."""

import functools

import keras
import numpy as np

from ml3_tf.bench.tables import CLASSIFICATION, REGRESSION, draw_parts
from ml3_tf.bench.task import Kind, Problems, Task, stack_problems

TABLES: dict[Kind, tuple[str, ...]] = {"regression": REGRESSION[::3], "classification": CLASSIFICATION[::3]}
NUM_FEATURES = 64  # at most; the others are zero, so that all tables share what is compiled
NUM_OUTPUTS: dict[Kind, int] = {"regression": 1, "classification": 2}


def build_model(kind: Kind) -> keras.Model:
    """Returns a network with one hidden layer of 64 units."""
    layers = keras.layers
    activation = None if kind == "regression" else "softmax"
    return keras.Sequential(
        [
            keras.Input((NUM_FEATURES,)),
            layers.Dense(64, "relu"),
            layers.Dense(NUM_OUTPUTS[kind], activation, name="output"),
        ]
    )


def draw_tables(kind: Kind, seed: int) -> Problems:
    """Divides each table anew: 70 % of at most 1,000 rows train, 30 % score."""
    pad = lambda x: np.pad(x, [(0, 0), (0, NUM_FEATURES - x.shape[1])])
    parts = [draw_parts(name, "clean", seed) for name in TABLES[kind]]
    trained = [part.train.join(part.meta) for part in parts]
    return stack_problems(
        [(pad(rows.x), rows.y) for rows in trained], [(pad(part.test.x), part.test.y) for part in parts]
    )


TABLES_OF_NUMBERS, TABLES_OF_CLASSES = (
    Task(
        tuple(f"table_{name}" for name in TABLES[kind]),
        kind,
        functools.partial(build_model, kind),
        functools.partial(draw_tables, kind),
        num_steps=200,
        batch_size=32,
    )
    for kind in TABLES
)
