"""Time from the call of `load_meta_loss` to the loss, after the imports.

    python benchmarks/loading.py

The loss is two layers of 40. The first load of a process also starts TensorFlow's runtime; it is timed in fresh
processes, one after the other. Time of the clock and of the CPU: they differ on a busy machine.
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
import ml3_tf, keras, tensorflow
for _ in range(2):
    start = time.perf_counter(), time.process_time()
    ml3_tf.load_meta_loss(sys.argv[1])
    print(time.perf_counter() - start[0], time.process_time() - start[1])
"""


def main(processes: int = 10):
    """Prints the median and the largest time.

    Args:
        processes: Number of fresh processes.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = ml3_tf.MetaLoss.mlp((40, 40)).export(Path(folder) / "loss")
        command = [sys.executable, "-c", LOAD, str(path)]
        outputs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(processes)]
    loads = [[[1e3 * float(word) for word in line.split()] for line in output.splitlines()] for output in outputs]
    for label, times in zip(("first load of a process", "second load"), zip(*loads, strict=True), strict=True):
        wall, cpu = zip(*times, strict=True)
        print(
            f"{label:24} median {statistics.median(wall):5.1f} ms, largest {max(wall):5.1f} ms; "
            f"CPU {statistics.median(cpu):5.1f} ms, largest {max(cpu):5.1f} ms"
        )


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
