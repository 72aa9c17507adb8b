"""Meta-train a loss on several hosts, each with its devices: the same program runs on all of them, or alone.

Each host trains the learners of its share of the tasks, and all of them move the loss by the mean of their
meta-gradients. The first host saves the run in a folder that all of them see; if a host fails, all are started again,
and go on from there. `hosts/slurm.sh` starts the program by Slurm, and `hosts/kubernetes.yaml` on Kubernetes.

Command: python examples/several_hosts.py
As two hosts on one machine: see docs/guides/more_machines.md.
Time: half a minute on two CPU cores.

Expected output of the first host, whatever their number; rounding moves the last digits:

    Mean squared error of new learners after 20 steps
        before meta-training    4.86
        after 500 steps         2.69
    The loss is in runs/several_hosts/sine/1
"""

import argparse
import os
from pathlib import Path

import keras

import ml3_tf

INNER_STEPS = 20
STEPS_PER_EPOCH = 100


def build_learner() -> keras.Model:
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(40, "tanh"), keras.layers.Dense(1)])


def main(folder: Path, *, num_epochs: int = 5) -> None:
    # First of all: TensorFlow must know of the other hosts before it does anything else.
    strategy = ml3_tf.join_hosts() if "TF_CONFIG" in os.environ else None
    keras.utils.set_random_seed(0)
    trainer = ml3_tf.MetaTrainer(build_learner, ml3_tf.MetaLoss.mlp(), inner_steps=INNER_STEPS, seed=0)
    if strategy is not None:
        trainer.distribute(strategy)
    trainer.compile(keras.optimizers.Adam(1e-3, global_clipnorm=1.0), "mse", inner_optimizer=keras.optimizers.SGD(1e-2))
    # All hosts read the same tasks, hence the seeds; the numbers of tasks are multiples of the number of devices.
    tasks, new_tasks = ml3_tf.sine_tasks(num_tasks=16, seed=1), ml3_tf.sine_tasks(num_tasks=96, seed=2)
    before = trainer.evaluate(new_tasks, steps=1, verbose=0)
    verbose = 2 if trainer.is_first_host else 0
    trainer.fit(tasks, steps_per_epoch=STEPS_PER_EPOCH, epochs=num_epochs, resume=folder / "run", verbose=verbose)
    after = trainer.evaluate(new_tasks, steps=1, verbose=0)
    if trainer.is_first_host:
        print(f"Mean squared error of new learners after {INNER_STEPS} steps")
        print(f"    before meta-training    {before:.2f}")
        print(f"    after {STEPS_PER_EPOCH * num_epochs} steps         {after:.2f}")
        print(f"The loss is in {trainer.meta_loss.export(folder / 'sine')}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Meta-train a loss on the hosts of TF_CONFIG.")
    parser.add_argument("--folder", type=Path, default=Path("runs/several_hosts"), help="seen by all hosts")
    main(parser.parse_args().folder)
