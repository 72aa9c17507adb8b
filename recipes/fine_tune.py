"""Learn a loss for fine-tuning one pretrained Keras model on five images of a class (beyond ML3).

    python recipes/fine_tune.py                    one seed, about six minutes of one core, and three to tune once
    python recipes/fine_tune.py --seeds 10         the reported run

A convolutional network learns eight classes, four digits of MNIST and four kinds of clothes of Fashion-MNIST. It is
fine-tuned on five new classes at a time, with five images of each: all its layers are frozen but the last hidden one,
which starts from its pretrained weights, and the head, which is new and starts at zero. The frozen layers give the same
features in every step, so they are computed once. (A test checks that `fit` of the whole model with frozen layers does
the same.) Three groups of classes, each in the order of the data sets, share no class:

pretraining: 0, 1, 2, 3, T-shirt, trouser, pullover, dress.
meta-training: 4, 5, 6, coat, sandal, shirt. A loss is learned for fine-tuning from these weights (`start=`): it starts
    as cross-entropy plus a network at zero, which reads one logit and its target. Each outer step fine-tunes on eight
    tasks for 100 steps, and moves the loss by the cross-entropy of 15 other images of each class.
test: 7, 8, 9, sneaker, bag, boot. 60 tasks of five of these classes, scored on 15 other images of each class.

All methods start from the same weights and take full-batch steps. Each chooses what its grid holds, and the number of
steps up to 300, on 50 tasks of the classes of meta-training with images that were kept out of it. It chooses once for
accuracy and once for cross-entropy, for each seed:

learned: the learned loss with AdamW and the weight decay that it was learned with; chooses the rate.
same_rate: cross-entropy with the AdamW that the loss was learned with; chooses the number of steps alone.
adam: cross-entropy with Adam; chooses the rate.
sgd, adamw, muon: cross-entropy with these optimizers; each chooses the rate and the weight decay. Muon leaves the head
    and the biases to its AdamW.
smoothing: cross-entropy with label smoothing and the AdamW of `learned`; chooses the rate and the smoothing.

The same choices are then scored from *other weights*: the same network, pretrained with another seed.

Expected result (10 seeds): a lower cross-entropy than all others, a higher accuracy than all but label smoothing. The
numbers in brackets say on how many seeds the learned loss is better:

    learned: cross-entropy 0.629, accuracy 0.789.
    same_rate: 0.675 (10), 0.781 (8).
    adam: 0.796 (10), 0.750 (10).
    adamw: 0.660 (8), 0.777 (9).
    smoothing: 0.643 (8), 0.795 (3).

At the choice for accuracy, the learned loss still has a cross-entropy of 0.629; label smoothing has 0.687 (10), AdamW
0.703 (9). In the first 30 steps AdamW at its best rate is faster. The loss is not tied to the weights: from others it
has 0.632 and 0.789, and AdamW has 0.656 (8) and 0.774 (9). The gradient that it adds is larger for logits above zero
than for those below, by about the same amount at all distances: this draws logits together (panel d).

Departures from the paper: all of it; ML3 fine-tunes nothing. The head of zeros is that of Kolesnikov et al. (2020, Big
Transfer), AdamW is that of Loshchilov and Hutter (2019), and label smoothing that of Szegedy et al. (2016). The
settings were chosen on the tuning tasks of seed 100. Tried there, too, one run each: Adam instead of AdamW in
meta-training (much better than cross-entropy with Adam, but a higher cross-entropy than AdamW); a loss that reads all
logits together (no gain over label smoothing); a rate of 3e-3, and with Adam 200 steps (the meta-gradient explodes);
with Adam, a penalty on the squares of logits instead of a learned loss (near label smoothing).

Limits: label smoothing has no grid for the weight decay, and mostly chooses 0.2 for accuracy, the end of its grid.
AdamW chooses 0.01 for cross-entropy, the end of its grid; at 0.03 it is not better on seeds 100 to 102. The smoothing
that the loss may learn stays at zero.

Metrics (`summary.json`, one value per seed; METHOD is one of the above; all on unseen images, mean over test tasks):
    accuracy_METHOD: share of correct classes, at the choice for accuracy.
    cross_entropy_METHOD: cross-entropy (nats), at the choice for cross-entropy.
    cross_entropy_when_accurate_METHOD: cross-entropy (nats) at the choice for accuracy: one model for both.
    accuracy_METHOD_STEPS, cross_entropy_METHOD_STEPS: the same two after 10, 30, 100, 300 or 1,000 steps (STEPS)
        instead of the number that was chosen; 100, 300 and 1,000 are 1, 3 and 10 times the steps of meta-training.
    best_accuracy_METHOD_STEPS, best_cross_entropy_METHOD_STEPS: the best of each up to then.
    other_weights_...: each of them for fine-tuning from other weights, up to 300 steps.
    "costs", beside the metrics: core-minutes of meta-training, and of fine-tuning on one task until the cross-entropy
        is that of the best optimizer (on tuning tasks of seed 100) after 100 steps, see `parts/costs.py`.

Files: `summary.json` (the choices of each seed, and the best optimizer, are in "config"), `history.csv`, `figure.png`,
and the learned loss of the first seed in `meta_loss/`.
"""

import dataclasses
from pathlib import Path

import keras
import numpy as np

import ml3_tf
from parts.costs import CoreMinutes
from parts.experiment import (
    Metrics,
    Result,
    export_seed_loss,
    fill_in,
    run_seeds,
    save_figure,
    seed_loss_folder,
    training_folder,
    write_history,
    write_summary,
)
from parts.fine_tune.candidates import all_candidates, build_optimizer, count_costs, find_best_optimizer
from parts.fine_tune.figure import draw_figure
from parts.fine_tune.methods import compute_metrics, describe, score, tune
from parts.fine_tune.model import CROSS_ENTROPY, added_gradient, build_tail
from parts.fine_tune.report import history_rows, print_report
from parts.fine_tune.tasks import NUM_TUNING_IMAGES, check_classes, draw_tasks, load_classes, meta_train_tasks, prepare
from parts.settings import RecipeSettings, recorded_command, run_command

NUM_EPOCHS = 10  # points of the meta-training curve
OTHER_WEIGHTS = 1000  # added to the seed of pretraining


@dataclasses.dataclass(frozen=True)
class Settings(RecipeSettings):
    data_path: Path | None = None
    """Folder of the files of Fashion-MNIST. None: that of the Debian package, or Keras's cache."""
    pretrain_classes: tuple[int, ...] = (0, 1, 2, 3, 10, 11, 12, 13)
    """Classes of pretraining: digits, and from 10 on the clothes of Fashion-MNIST; in each group by their order."""
    meta_train_classes: tuple[int, ...] = (4, 5, 6, 14, 15, 16)
    """Classes of meta-training and of tuning."""
    test_classes: tuple[int, ...] = (7, 8, 9, 17, 18, 19)
    """Classes of the reported tasks."""
    num_classes: int = 5
    """Number of classes of a task."""
    num_support: int = 5
    """Number of images of a class to train on."""
    num_query: int = 15
    """Number of images of a class to score on."""
    pretrain_epochs: int = 8
    """Number of epochs of pretraining."""
    rate: float = 1e-3
    """Rate of AdamW that the loss is learned at; at 3e-3 the meta-gradient explodes."""
    decay: float = 10.0
    """Weight decay of AdamW that the loss is learned with, the best for cross-entropy on tuning tasks."""
    inner_steps: int = 100
    """Number of steps of fine-tuning in meta-training."""
    hidden_units: tuple[int, ...] = (16,)
    """Widths of the hidden layers of the loss's network."""
    outer_steps: int = 120
    """Number of outer steps."""
    outer_rate: float = 1e-2
    """Largest rate of the outer Adam; it decays to zero."""
    warmup_steps: int = 20
    """Number of outer steps in which the rate rises: a loss that moves at once makes the meta-gradient explode."""
    clip_norm: float = 0.5
    """Largest norm of the outer gradient."""
    num_tasks: int = 8
    """Number of tasks in an outer step."""
    num_tuning_tasks: int = 50
    """Number of tasks that all methods are tuned on."""
    num_test_tasks: int = 60
    """Number of test tasks."""
    test_steps: int = 300
    """Largest number of steps that a method can choose, and the number of steps from other weights."""
    long_steps: int = 1000
    """Number of steps from these weights on test tasks: ten times those of meta-training."""
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    """The grid for the rate of Adam and AdamW."""
    smoothings: tuple[float, ...] = (0.1, 0.2)
    """The grid for label smoothing."""
    decays: tuple[float, ...] = (3.0, 10.0, 30.0)
    """The grid for the weight decay of AdamW."""
    sgd_rates: tuple[float, ...] = (1e-2, 3e-2, 1e-1)
    """The grid for the rate of SGD."""
    sgd_decays: tuple[float, ...] = (0.1, 0.3, 1.0)
    """The grid for the weight decay of SGD; Keras takes it times the rate."""
    muon_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    """The grid for the rate of Muon."""
    muon_decays: tuple[float, ...] = (2.0, 3.0, 5.0)
    """The grid for the weight decay of Muon."""
    tuning_seed: int = 100
    """Seed of the weights and tasks that `best_optimizer` is found on."""
    best_optimizer: str | None = None
    """Which of SGD, Adam, AdamW and Muon is best for cross-entropy. None: find it."""

    @property
    def task_sizes(self) -> tuple[int, int, int]:
        return self.num_classes, self.num_support, self.num_query

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        names = "pretrain_classes", "meta_train_classes", "test_classes"
        return {name: getattr(self, name) for name in names}

    def smoke(self) -> "Settings":
        return self.replace(
            pretrain_epochs=1,
            inner_steps=2,
            outer_steps=2,
            warmup_steps=1,
            num_tasks=2,
            num_tuning_tasks=3,
            num_test_tasks=3,
            test_steps=10,
            long_steps=10,
            rates=self.rates[2:3],
            smoothings=self.smoothings[:1],
            decays=self.decays[:1],
            sgd_rates=self.sgd_rates[:1],
            sgd_decays=self.sgd_decays[:1],
            muon_rates=self.muon_rates[:1],
            muon_decays=self.muon_decays[:1],
        )


def meta_train(
    start: keras.Model, features: np.ndarray, settings: Settings, seed: int, folder: Path, verbose: int
) -> tuple[ml3_tf.MetaLoss, list[float], float]:
    """Learns a loss for fine-tuning from `start`; returns it, the task loss of each epoch, and the core-minutes."""
    keras.utils.set_random_seed(seed)
    meta_loss = ml3_tf.MetaLoss.around(CROSS_ENTROPY, settings.hidden_units, mode="per_output", name="fine_tune")
    trainer = ml3_tf.MetaTrainer(
        lambda: build_tail(settings.num_classes), meta_loss, inner_steps=settings.inner_steps, start=start, seed=seed
    )
    schedule = keras.optimizers.schedules.CosineDecay(
        0.1 * settings.outer_rate,
        settings.outer_steps - settings.warmup_steps,
        warmup_target=settings.outer_rate,
        warmup_steps=settings.warmup_steps,
    )
    trainer.compile(
        optimizer=keras.optimizers.Adam(schedule, global_clipnorm=settings.clip_norm),
        loss=CROSS_ENTROPY,
        inner_optimizer=build_optimizer("adamw", settings.rate, settings.decay),
    )
    steps_per_epoch = max(settings.outer_steps // NUM_EPOCHS, 1)
    cost = CoreMinutes()
    history = trainer.fit(
        meta_train_tasks(features, settings.num_tasks, settings.task_sizes, seed),
        steps_per_epoch=steps_per_epoch,
        epochs=settings.outer_steps // steps_per_epoch,
        callbacks=[cost],
        verbose=verbose,
        resume=folder,
    )
    return meta_loss, history.history["loss"], cost.total


def run_seed(seed: int, settings: Settings, output_dir: Path, verbose: int) -> Result:
    images = load_classes(settings.data_path)
    start, features, tuning_tasks = prepare(images, settings, seed, verbose)
    training = features[[*settings.meta_train_classes], :-NUM_TUNING_IMAGES]
    folder = training_folder(seed, output_dir)
    meta_loss, task_losses, cost = meta_train(start, training, settings, seed, folder, verbose)
    meta_loss.export(seed_loss_folder(seed, output_dir))

    grids, sizes = all_candidates(meta_loss, settings), settings.task_sizes
    choices = {name: tune(grid, start, tuning_tasks, settings.test_steps) for name, grid in grids.items()}
    others = prepare(images, settings, seed + OTHER_WEIGHTS, verbose)[:2]
    metrics, curves = {}, {}
    for prefix, (weights, seen), steps in (
        ("", (start, features), settings.long_steps),
        ("other_weights_", others, settings.test_steps),
    ):
        tasks = draw_tasks(seen[[*settings.test_classes]], settings.num_test_tasks, sizes, [seed, 2])
        scored = {name: score(choice, weights, tasks, steps) for name, choice in choices.items()}
        for name, values in scored.items():
            metrics |= compute_metrics(name, choices[name], values, prefix=prefix)
            curves[f"{prefix}{name}"] = {quantity: curve.tolist() for quantity, curve in values.items()}
        if prefix == "":
            costs = count_costs(cost, choices, scored, start, tasks, settings)
    return {
        "metrics": metrics,
        "costs": costs,
        "choices": {name: describe(choice) for name, choice in choices.items()},
        "meta_train": task_losses,
        "meta_test": curves,
        "added": added_gradient(meta_loss, settings.num_classes).tolist(),
    }


def main(
    settings: Settings = Settings(),
    *,
    seeds: int = 1,
    first_seed: int = 0,
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("runs/fine_tune"),
) -> Metrics:
    """Learns a loss for fine-tuning and compares it on unseen classes.

    Args:
        settings: The settings.
        seeds: Number of seeds.
        first_seed: The first seed.
        smoke: Run a few steps only, to see that everything works.
        jobs: Number of processes; each takes seeds of its own.
        output_dir: Folder for the results. An interrupted run resumes from it.

    Returns:
        The metrics, name -> one value for each seed.
    """
    command = recorded_command(main, settings, seeds=seeds, first_seed=first_seed, smoke=smoke)
    check_classes(settings.groups, settings.num_classes)
    images = load_classes(settings.data_path)  # fails before anything is written
    settings = settings.smoke() if smoke else settings
    settings = fill_in(find_best_optimizer, ["best_optimizer"], settings, output_dir)
    numbers = range(first_seed, first_seed + seeds)
    results = run_seeds(run_seed, numbers, settings, output_dir, jobs=jobs)
    choices = {"choices": [result["choices"] for result in results]}
    metrics = write_summary("fine_tune", command, numbers, results, settings, output_dir, further_config=choices)
    write_history(history_rows(numbers, results), output_dir)
    figure_path = save_figure(draw_figure(results, settings, images), output_dir)
    print_report(metrics, settings, figure_path, export_seed_loss(first_seed, output_dir))
    return metrics


if __name__ == "__main__":
    run_command(main, description=__doc__)
