"""Time to import ml3_tf, and time of one call of `load_meta_loss`.

    python benchmarks/loading.py

The import is timed after those of Keras and TensorFlow. The loss is two layers of 40. The first load of a process also
starts TensorFlow's runtime. So all times come from fresh processes, one after the other. Wall time and CPU time differ
on a busy machine.
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import tyro

import ml3_tf

LOAD = """
import sys, time
import keras, tensorflow

def measure(function):
    start = time.perf_counter(), time.process_time()
    function()
    print(time.perf_counter() - start[0], time.process_time() - start[1])

measure(lambda: __import__("ml3_tf"))
import ml3_tf
measure(lambda: __import__("ml3_tf.saving"))
for _ in range(2):
    measure(lambda: ml3_tf.load_meta_loss(sys.argv[1]))
"""


LABELS = ("import ml3_tf", "import ml3_tf.saving", "first load of a process", "second load")


def main(num_processes: int = 10) -> None:
    """Prints the median and the largest time.

    Args:
        num_processes: Number of fresh processes.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = ml3_tf.MetaLoss.mlp((40, 40)).export(Path(temporary) / "loss")
        command = [sys.executable, "-c", LOAD, str(folder)]
        outputs = [
            subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(num_processes)
        ]
    runs = [[[1e3 * float(word) for word in line.split()] for line in output.splitlines()] for output in outputs]
    for label, times in zip(LABELS, zip(*runs, strict=True), strict=True):
        wall, cpu = zip(*times, strict=True)
        print(
            f"{label:24} median {statistics.median(wall):5.1f} ms, largest {max(wall):5.1f} ms; "
            f"CPU {statistics.median(cpu):5.1f} ms, largest {max(cpu):5.1f} ms"
        )


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
