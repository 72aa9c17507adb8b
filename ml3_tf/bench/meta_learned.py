"""Rivals that are learned themselves, on sines and tables that the benchmark does not report.

The meta-training of each is deterministic. Its weights are kept, so that further runs start at once.
"""

import functools
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ml3_tf.bench.literature import smooth_leaky_relu
from ml3_tf.bench.tables import TUNING_CLASSIFICATION, TUNING_REGRESSION, draw_parts
from ml3_tf.bench.task import Kind
from ml3_tf.bench.tasks.sines import build_regressor
from ml3_tf.bench.tasks.tabular import NUM_FEATURES, build_model
from ml3_tf.datasets import sine_tasks, tasks_from_arrays
from ml3_tf.meta_loss import MetaLoss
from ml3_tf.meta_trainer import MetaTrainer

SEED = 100
HIDDEN_UNITS = (40, 40)
REFERENCE_STEPS = 500  # outer steps of the public reference
ADALFL_STEPS = 2500
SMOKE_STEPS = 5
OTHER_TABLES: dict[Kind, tuple[str, ...]] = {"regression": TUNING_REGRESSION, "classification": TUNING_CLASSIFICATION}


def learn_ml3_reference(kind: Kind, folder: Path, smoke: bool = False) -> MetaLoss:
    """Returns the loss of the public reference of ML3: ReLU layers and a softplus output, one inner step.

    For numbers it is learned on the sine of the paper, as `recipes/sine_regression.py --setting paper` does: SGD at
    1e-3 inside, Adam at 1e-3, 500 outer steps. For classes the reference has no such loss; the same network is
    learned on other tables at a rate of 0.1.
    """
    keras.utils.set_random_seed(SEED)
    steps = SMOKE_STEPS if smoke else REFERENCE_STEPS
    loss = MetaLoss.mlp(
        HIDDEN_UNITS,
        activation="relu",
        output_activation="softplus",
        mode="per_output",
        name="ml3_reference",
    )
    if kind == "regression":
        tasks = sine_tasks(1, amplitude=(1.0, 1.0), phase=(np.pi, np.pi), x_range=(-2.0, 2.0), seed=SEED)
        return _learn(loss, kind, build_regressor, tasks, 1e-3, steps, folder)
    return _learn(loss, kind, functools.partial(build_model, kind), _tables(kind), 0.1, steps, folder)


def learn_adalfl(kind: Kind, folder: Path, smoke: bool = False) -> MetaLoss:
    """Returns the loss network of AdaLFL after its offline step.

    Two layers of 40 smooth leaky ReLUs, applied to each output, and one inner step at 0.01; the loss itself takes 2,500
    steps of Adam at 1e-3. These numbers could not be checked against the paper. It learns a loss for each data set, on
    that set, and goes on to adapt it online. This one is learned on other tables, as a loss that is exported must be,
    and then stays as it is.
    """
    layers, steps = keras.layers, SMOKE_STEPS if smoke else ADALFL_STEPS
    keras.utils.set_random_seed(SEED)
    network = keras.Sequential(
        [
            keras.Input((2,)),
            *(layers.Dense(units, smooth_leaky_relu) for units in HIDDEN_UNITS),
            layers.Dense(1, smooth_leaky_relu),
        ]
    )
    loss = MetaLoss(network, mode="per_output", features={"y_pred": 1, "y_true": 1}, name="adalfl_offline")
    return _learn(loss, kind, functools.partial(build_model, kind), _tables(kind), 0.01, steps, folder)


def _tables(kind: Kind) -> Any:
    """Tasks of the tables that tune `adapt.py`, which the benchmark does not report."""
    pad = lambda x: np.pad(x, [(0, 0), (0, NUM_FEATURES - x.shape[1])])
    rows = [draw_parts(name, "clean", SEED).train for name in OTHER_TABLES[kind]]
    x, y = [pad(part.x) for part in rows], [part.y for part in rows]
    return tasks_from_arrays(x, y, num_tasks=4, num_support=32, num_query=64, seed=SEED)


def _learn(
    loss: MetaLoss, kind: Kind, build: Any, tasks: Any, inner_rate: float, outer_steps: int, folder: Path
) -> MetaLoss:
    """Learns a loss by one inner step of SGD and Adam at 1e-3 outside, or reads its weights."""
    path = folder / f"{kind}_{outer_steps}.npz"
    if path.is_file():
        with np.load(path) as kept:
            loss.network.set_weights([kept[name] for name in sorted(kept.files)])
        return loss
    trainer = MetaTrainer(build, loss, inner_steps=1, seed=SEED)
    trainer.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss="mse" if kind == "regression" else "categorical_crossentropy",
        inner_optimizer=keras.optimizers.SGD(inner_rate),
    )
    trainer.fit(tasks, steps_per_epoch=outer_steps, epochs=1, verbose=0)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{f"{n:02d}": weights for n, weights in enumerate(loss.network.get_weights())})
    return loss
