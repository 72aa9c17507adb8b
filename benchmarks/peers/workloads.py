"""The workloads: their tasks, and the sizes that all frameworks share.

| | tasks | examples of a task | learner | learned loss | task loss |
|---|---|---|---|---|---|
| `dense` | 16 | 100 points of a sine | two tanh layers of 40 | per sample | squared error |
| `lenet` | 4 | 64 images of 28x28 pixels | LeNet-5 of the recipe `digits`, 10 classes | per output | cross-entropy |
| `attention` | 8 | 20 sequences of 8 numbers | 8 units, attention with 2 heads of 4 | per sample | squared error |
| `gru` | 8 | 20 sequences of 8 numbers | GRU of 8 units | per sample | squared error |
| `lstm` | 4 | 20 sequences of 200 numbers | LSTM of 16 units | per sample | squared error |

The learned loss has two SiLU layers of 40. Learners take steps of SGD, and Adam moves the loss. The time of a step does
not depend on the values: every outer step sees the same tasks, on which the learners are trained and scored.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

INNER_RATE, OUTER_RATE, ADAM_EPSILON = 1e-3, 1e-3, 1e-7
LOSS_UNITS = 40
SIZE, NUM_CLASSES = 28, 10  # pixels to a side of an image, and outputs of LeNet
LENGTH, LONG_LENGTH = 8, 200  # of a sequence, short and long

Arrays = tuple[np.ndarray, np.ndarray]


def draw_sines(generator: np.random.Generator) -> Arrays:
    """Returns inputs and targets of sine curves, each `[16, 100, 1]`."""
    x = generator.uniform(-5, 5, (16, 100, 1))
    amplitude, phase = generator.uniform(0.2, 5, (16, 1, 1)), generator.uniform(-np.pi, np.pi, (16, 1, 1))
    return x, amplitude * np.sin(x - phase)


def draw_images(generator: np.random.Generator) -> Arrays:
    """Returns random images `[4, 64, SIZE, SIZE, 1]` and one-hot classes `[4, 64, NUM_CLASSES]`."""
    classes = generator.integers(NUM_CLASSES, size=(4, 64))
    return generator.uniform(size=(4, 64, SIZE, SIZE, 1)), np.eye(NUM_CLASSES)[classes]


def draw_sequences(generator: np.random.Generator, num_tasks: int = 8, length: int = LENGTH) -> Arrays:
    """Returns sequences `[num_tasks, 20, length, 1]` of random numbers, and their sums `[num_tasks, 20, 1]`."""
    x = generator.normal(size=(num_tasks, 20, length, 1))
    return x, x.sum(axis=2)


class Workload(NamedTuple):
    """Tasks, and how many inner steps are taken on them.

    Attributes:
        draw: Function of a generator that returns the arrays `(x, y)`, each `[N, B, ...]`.
        inner_steps: The numbers of inner steps to measure.
        classifies: Whether the learner's outputs are probabilities of classes.
    """

    draw: Callable[[np.random.Generator], Arrays]
    inner_steps: tuple[int, ...]
    classifies: bool = False

    def tasks(self) -> Arrays:
        """Returns the tasks in float32, the same in every framework."""
        x, y = self.draw(np.random.default_rng(0))
        return x.astype("float32"), y.astype("float32")


WORKLOADS = {
    "dense": Workload(draw_sines, (1, 3, 10, 30, 100, 300)),
    "lenet": Workload(draw_images, (5, 20), classifies=True),
    "attention": Workload(draw_sequences, (5, 20)),
    "gru": Workload(draw_sequences, (5, 20)),
    "lstm": Workload(functools.partial(draw_sequences, num_tasks=4, length=LONG_LENGTH), (5,)),
}
