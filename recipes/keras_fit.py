"""Use learned losses in plain Keras: `compile(loss=...)`, `fit`, callbacks, and no other code in the loop.

    python recipes/keras_fit.py                   one seed, about a minute, and the tuning of the optimizers, four
    python recipes/keras_fit.py --seeds 10        the reported run

Copy from this recipe: `train_classifier` and `train_regressor` are complete. The paper has no such experiment. It shows
how well the shipped losses train models on batches and data that they were not learned with:

digits: a convolutional network (ReLU, 3x3 filters, max pooling) learns scikit-learn's ten digits in batches of 32 with
    the loss "digits", which was learned on 4s and 7s with LeNets. 800 images to train, 400 to validate, 597 to test. At
    most 30 epochs.
diabetes: a regressor of two layers of 40 predicts the progression of diabetes after a year from ten measurements
    (scikit-learn's 442 patients, divided 6:2:2, standardized) in batches of 32 with the loss "sine", which was learned
    on sine curves. At most 100 epochs.

Each learned loss is used with the plain SGD that it was learned for, and compared with the usual loss, cross-entropy or
mean squared error (MSE): `same_rate` with the same SGD; `sgd`, `adam`, `adamw` and `muon` with these optimizers of
Keras, each at its best rate. Rates are tuned once, with seeds that are not reported, for the best validation value and
not for speed; their grids grow until the best rate lies inside. Early stopping ends a run whose metric on the
validation data no longer improves, and keeps the best weights. It watches a *metric*, never the loss: a learned loss
has a scale of its own.

Expected result (10 seeds): the learned losses are better than the usual ones at the same rate, on 8 seeds for the
digits and on 8 for the patients. They come close to the usual ones with tuned optimizers, but are not better: test
accuracy 0.963, cross-entropy 0.969 with SGD, 0.965 with AdamW and 0.977 with Muon; RMSE 58.9, MSE 58.3, 58.8 and 58.1.
The tuning has two seeds only: on the digits it takes SGD for the best optimizer, and the figure shows that one.

Metrics (`summary.json`, one value per seed; METHOD is `learned`, or one of the five above):
    digits_accuracy_METHOD: share of correct classes on the test images, at the best epoch.
    digits_accuracy_METHOD_1: share of correct classes on the validation images, after one epoch.
    digits_accuracy_METHOD_last: the same after the last epoch.
    digits_epochs_METHOD: epochs until 90 % of the validation images are right; 30 if never.
    diabetes_rmse_METHOD: root mean squared error on the test patients at the best epoch, in points of the score of
        progression, which ranges from 25 to 346.
    diabetes_r2_METHOD: share of the variance of the test patients' scores that is explained, 1 at best.
    diabetes_epochs_METHOD: epoch with the least MSE on the validation patients.
    diabetes_mse_METHOD_best: MSE on the validation patients at the best epoch, the variance of training patients as 1.
    diabetes_mse_METHOD_last: the same after the last epoch.

Files: `summary.json` (tuned rates and best optimizers are in "config"), `history.csv`, `figure.png`, and Keras's own
log of each run in `logs/`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

import ml3_tf
from parts.digits.images import SIZE
from parts.experiment import Metrics, Result, Seed, fill_in, run_seeds, save_figure, write_history, write_summary
from parts.keras_fit.data import load_diabetes, load_digits
from parts.keras_fit.report import (
    METRIC,
    best_error,
    draw_figure,
    history_rows,
    measure_diabetes,
    measure_digits,
    print_report,
)
from parts.settings import RecipeSettings, recorded_command, run_command
from parts.tuned_optimizers import build_optimizers, tune_optimizers

BATCH_SIZE = 32
TUNED = ("digits_rates", "digits_best_optimizer", "diabetes_rates", "diabetes_best_optimizer")


@dataclasses.dataclass(frozen=True)
class TaskSettings:
    """The settings of one data set."""

    epochs: int
    """Largest number of epochs."""
    rate: float
    """Rate of SGD that the learned loss was learned for."""
    sgd_rates: tuple[float, ...]
    """Where the search for the rate of SGD begins, with the usual loss."""
    adaptive_rates: tuple[float, ...]
    """The same for Adam, AdamW and Muon."""


@dataclasses.dataclass(frozen=True)
class Settings(RecipeSettings):
    digits: TaskSettings = TaskSettings(
        epochs=30, rate=7e-2, sgd_rates=(1e-1, 2e-1, 3e-1, 5e-1), adaptive_rates=(1e-3, 2e-3, 5e-3, 1e-2)
    )
    """The digits; batches of 32 take a little less than the 0.1 of `digits.py`, chosen on validation images."""
    diabetes: TaskSettings = TaskSettings(
        epochs=100, rate=1e-3, sgd_rates=(1e-3, 3e-3, 1e-2, 3e-2), adaptive_rates=(5e-4, 1e-3, 2e-3, 5e-3)
    )
    """The patients."""
    tuning_seeds: tuple[int, ...] = (100, 101)
    """Seeds that the optimizers are tuned with."""
    digits_rates: tuple[float, ...] | None = None
    """Rates of SGD, Adam, AdamW and Muon that are best for cross-entropy. None: tune them."""
    digits_best_optimizer: str | None = None
    """The best of them, by the tuning."""
    diabetes_rates: tuple[float, ...] | None = None
    """Rates of SGD, Adam, AdamW and Muon that are best for MSE. None: tune them."""
    diabetes_best_optimizer: str | None = None
    """The best of them, by the tuning."""

    @property
    def tasks(self) -> dict[str, TaskSettings]:
        return {"digits": self.digits, "diabetes": self.diabetes}

    def smoke(self) -> "Settings":
        digits, diabetes = (
            dataclasses.replace(task, epochs=1, sgd_rates=task.sgd_rates[:1], adaptive_rates=task.adaptive_rates[:1])
            for task in (self.digits, self.diabetes)
        )
        return self.replace(digits=digits, diabetes=diabetes, tuning_seeds=(100,))


def train_classifier(
    loss: Any, optimizer: Any, data: Mapping[str, Any], epochs: int, log: Path, verbose: int
) -> tuple[keras.Model, dict[str, list[float]]]:
    """Trains a classifier of the ten digits; `loss` is a learned loss or any other."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax", name="output"),
        ]
    )
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    history = model.fit(
        *data["train"],
        batch_size=BATCH_SIZE,
        epochs=epochs,
        validation_data=data["validation"],
        callbacks=[
            keras.callbacks.EarlyStopping("val_accuracy", mode="max", patience=10, restore_best_weights=True),
            keras.callbacks.CSVLogger(log),
        ],
        verbose=verbose,
    )
    return model, history.history


def train_regressor(
    loss: Any, optimizer: Any, data: Mapping[str, Any], epochs: int, log: Path, verbose: int
) -> tuple[keras.Model, dict[str, list[float]]]:
    """Trains a regressor of one number; `loss` is a learned loss or any other."""
    layers = keras.layers
    num_features = data["train"][0].shape[1]
    model = keras.Sequential(
        [
            keras.Input((num_features,)),
            layers.Dense(40, activation="relu"),
            layers.Dense(40, activation="relu"),
            layers.Dense(1, name="output"),
        ]
    )
    model.compile(optimizer=optimizer, loss=loss, metrics=["mse"])
    history = model.fit(
        *data["train"],
        batch_size=BATCH_SIZE,
        epochs=epochs,
        validation_data=data["validation"],
        callbacks=[
            keras.callbacks.EarlyStopping("val_mse", mode="min", patience=10, restore_best_weights=True),
            keras.callbacks.CSVLogger(log),
        ],
        verbose=verbose,
    )
    return model, history.history


class Task(NamedTuple):
    """A data set: how to load it, how to train on it, and with which losses."""

    load: Callable[..., dict[str, Any]]
    train: Callable[..., tuple[keras.Model, dict[str, list[float]]]]
    measure: Callable[..., dict[str, float]]
    learned_loss: str
    usual_loss: str


TASKS = {
    "digits": Task(load_digits, train_classifier, measure_digits, "digits", "categorical_crossentropy"),
    "diabetes": Task(load_diabetes, train_regressor, measure_diabetes, "sine", "mse"),
}


def tune(_: Seed, settings: Settings, output_dir: Path, verbose: int) -> Result:
    """Returns the rates at which the usual losses do best on validation data; the same for all seeds."""
    found = {}
    for name, task in TASKS.items():
        data = {seed: task.load(seed) for seed in settings.tuning_seeds}

        def measure(optimizer: keras.optimizers.Optimizer, name: str = name, data: Any = data) -> float:
            runs = [
                fit(
                    name,
                    "tuning",
                    seed,
                    type(optimizer).from_config(optimizer.get_config()),
                    data[seed],
                    settings,
                    output_dir,
                    0,
                )
                for seed in settings.tuning_seeds
            ]
            return float(np.mean([best_error(name, history) for _, history in runs]))

        grids = settings.tasks[name]
        tuned = tune_optimizers(measure, sgd_rates=grids.sgd_rates, adaptive_rates=grids.adaptive_rates)
        found |= {f"{name}_rates": tuned.rates, f"{name}_best_optimizer": tuned.best}
    return found


def fit(
    name: str,
    method: str,
    seed: int,
    optimizer: keras.optimizers.Optimizer,
    data: Mapping[str, Any],
    settings: Settings,
    output_dir: Path,
    verbose: int,
) -> tuple[keras.Model, dict[str, list[float]]]:
    """Trains one model; the methods differ in the loss and the optimizer alone."""
    task = TASKS[name]
    loss = ml3_tf.load_meta_loss(task.learned_loss) if method == "learned" else task.usual_loss
    keras.utils.set_random_seed(seed)  # the same fresh weights and batches for all methods
    log = output_dir / "logs" / f"{name}_{method}_{optimizer.name}_{float(optimizer.learning_rate):g}_{seed}.csv"
    log.parent.mkdir(parents=True, exist_ok=True)
    return task.train(loss, optimizer, data, settings.tasks[name].epochs, log, verbose)


def run_seed(seed: int, settings: Settings, output_dir: Path, verbose: int) -> Result:
    metrics, curves = {}, {}
    for name, task in TASKS.items():
        data, task_settings = task.load(seed), settings.tasks[name]
        optimizers = {
            "learned": keras.optimizers.SGD(task_settings.rate),
            "same_rate": keras.optimizers.SGD(task_settings.rate),
            **build_optimizers(getattr(settings, f"{name}_rates")),
        }
        for method, optimizer in optimizers.items():
            model, history = fit(name, method, seed, optimizer, data, settings, output_dir, verbose)
            values = task.measure(model, history, data, task_settings.epochs)
            metrics |= {metric.format(method): float(value) for metric, value in values.items()}
            curves |= {f"{name}_{method}": history[METRIC[name]]}
    return {"metrics": metrics, "curves": curves}


def main(
    settings: Settings = Settings(),
    *,
    seeds: int = 1,
    first_seed: int = 0,
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("runs/keras_fit"),
) -> Metrics:
    """Trains ordinary Keras models with learned losses and with the usual ones.

    Args:
        settings: The settings.
        seeds: Number of seeds.
        first_seed: The first seed.
        smoke: Run one epoch only, to see that everything works.
        jobs: Number of processes; each takes seeds of its own.
        output_dir: Folder for the results. An interrupted run resumes from it.

    Returns:
        The metrics, name -> one value for each seed.
    """
    command = recorded_command(main, settings, seeds=seeds, first_seed=first_seed, smoke=smoke)
    settings = settings.smoke() if smoke else settings
    settings = fill_in(tune, TUNED, settings, output_dir)
    numbers = range(first_seed, first_seed + seeds)
    results = run_seeds(run_seed, numbers, settings, output_dir, jobs=jobs)
    constants = {"batch_size": BATCH_SIZE}
    metrics = write_summary("keras_fit", command, numbers, results, settings, output_dir, further_config=constants)
    write_history(history_rows(numbers, results), output_dir)
    figure = draw_figure(results, settings, {name: task.learned_loss for name, task in TASKS.items()})
    figure_path = save_figure(figure, output_dir)
    print_report(metrics)
    print(f"\nFigure: {figure_path}")
    return metrics


if __name__ == "__main__":
    run_command(main, description=__doc__)
