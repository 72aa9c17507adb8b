"""The tasks of the benchmark."""

from ml3_tf.bench.task import Task
from ml3_tf.bench.tasks.images import CLOTHES, DIGITS_8, DIGITS_28
from ml3_tf.bench.tasks.mnist1d import MNIST1D
from ml3_tf.bench.tasks.policies import ARM_FAR, ARM_NEAR, POINTMASS
from ml3_tf.bench.tasks.sines import SINES
from ml3_tf.bench.tasks.tabular import TABLES_OF_CLASSES, TABLES_OF_NUMBERS
from ml3_tf.bench.tasks.torques import TORQUES

TASKS: dict[str, Task] = {
    "sines": SINES,
    "tables_of_numbers": TABLES_OF_NUMBERS,
    "torques": TORQUES,
    "tables_of_classes": TABLES_OF_CLASSES,
    "digits_8x8": DIGITS_8,
    "digits_28x28": DIGITS_28,
    "fashion": CLOTHES,
    "mnist1d": MNIST1D,
    "pointmass": POINTMASS,
    "arm_near": ARM_NEAR,
    "arm_far": ARM_FAR,
}
"""Name for `--tasks` -> task."""
