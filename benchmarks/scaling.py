"""What it costs to share tasks among devices and hosts: time and bytes of one outer step.

    python benchmarks/scaling.py

Each row is a process, or two, of its own. The devices are parts of one processor, so the time of a step cannot fall
below that of one device: what is above it is the price of sharing. Two hosts are two processes on this machine, which
exchange what their learners became; their time above that of one process, over the bytes they send, is the exchange.
"Joined" counts the bytes that all replicas give for one step, and "formula" is what docs/scaling.md says of them.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time

NUM_STEPS, INNER_STEPS = 30, 10


def train(num_tasks: int, width: int, num_devices: int) -> None:
    """Trains on devices of this processor, or as a host of TF_CONFIG, and prints what a step costs."""
    import keras
    import tensorflow as tf

    import ml3_tf
    from ml3_tf.inner_loop import Replicas

    strategy = None
    if "TF_CONFIG" in os.environ:
        strategy = ml3_tf.join_hosts()
    elif num_devices > 1:
        devices = [tf.config.LogicalDeviceConfiguration()] * num_devices
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(num_devices)])
    joined = []
    join = Replicas._join

    def count_and_join(self: Replicas, results: list) -> object:
        leaves = tf.nest.flatten(results)
        joined.append(self.num_hosts * sum(leaf.dtype.size * leaf.shape.num_elements() for leaf in leaves))
        return join(self, results)

    Replicas._join = count_and_join
    dense = keras.layers.Dense
    build = lambda: keras.Sequential([keras.Input((1,)), dense(width, "tanh"), dense(width, "tanh"), dense(1)])
    trainer = ml3_tf.MetaTrainer(build, ml3_tf.MetaLoss.mlp(), inner_steps=INNER_STEPS, seed=0)
    if strategy is not None:
        trainer.distribute(strategy)
    trainer.compile(keras.optimizers.Adam(1e-3), inner_optimizer=keras.optimizers.SGD(1e-3), jit_compile=False)
    tasks = ml3_tf.sine_tasks(num_tasks, num_support=20, seed=0)
    trainer.fit(tasks, steps_per_epoch=1, verbose=0)
    start = time.perf_counter()
    trainer.fit(tasks, steps_per_epoch=NUM_STEPS, verbose=0)
    milliseconds = 1000 * (time.perf_counter() - start) / NUM_STEPS
    learner, phi = trainer.learner.model.count_params(), sum(v.shape.num_elements() for v in trainer.trained_variables)
    result = {"ms": milliseconds, "joined": max(joined, default=0), "learner": learner, "phi": phi}
    print(json.dumps(result), flush=True)


def measure(num_tasks: int, width: int, *, num_devices: int = 1, num_hosts: int = 1) -> dict[str, float]:
    """Returns what `train` prints on the first host."""
    ports = []
    for _ in range(num_hosts):
        with socket.create_server(("localhost", 0)) as listener:
            ports.append(listener.getsockname()[1])
    workers = [f"localhost:{port}" for port in ports]
    processes = []
    for i in range(num_hosts):
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), "TF_CPP_MIN_LOG_LEVEL": "3"}
        if num_hosts > 1:
            task = {"type": "worker", "index": i}
            environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
        command = [sys.executable, __file__, "--train", *map(str, (num_tasks, width, num_devices))]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        processes.append(subprocess.Popen(command, env=environment, text=True, **streams))
    outputs = [process.communicate()[0] for process in processes]
    return json.loads(outputs[0].splitlines()[-1])


def main() -> None:
    layouts = [(1, 1), (2, 1), (4, 1), (8, 1), (1, 2)]
    print(f"{'tasks':>6} {'weights':>8} {'devices':>8} {'hosts':>6} {'ms a step':>10} {'joined':>12} {'formula':>12}")
    for num_tasks, width in ((16, 40), (64, 300)):
        for num_devices, num_hosts in layouts:
            result = measure(num_tasks, width, num_devices=num_devices, num_hosts=num_hosts)
            count = num_devices * num_hosts
            # Learners with their ages, seeds and slots; of each replica the meta-gradient and the loss.
            formula = 0 if count == 1 else 4 * (num_tasks * result["learner"] + count * result["phi"])
            print(
                f"{num_tasks:6} {result['learner']:8} {num_devices:8} {num_hosts:6} {result['ms']:10.1f} "
                f"{result['joined']:12,} {formula:12,}",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time and bytes of a step on several devices and hosts.")
    parser.add_argument("--train", type=int, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    train(*arguments.train) if arguments.train else main()
