"""Use learned losses in plain Keras: `compile(loss=...)`, `fit`, callbacks, and no other code in the loop.

    python recipes/keras_fit.py                   one seed, about half a minute
    python recipes/keras_fit.py --seeds 10        the reported run

This is the page to copy from: `train_classifier` and `train_regressor` are all that there is to it. The paper has no
such experiment; it asks what the shipped losses are worth to someone who takes them off the shelf, on models, batches
and data that they were not learned with.

`digits`: a convolutional network (ReLU, 3x3 filters, max pooling) learns scikit-learn's ten digits in batches of 32
    with the loss "digits", which was learned on 4s and 7s with LeNets. 800 images to train, 400 to validate, 597 to
    test. At most 30 epochs.
`diabetes`: a regressor of two layers of 40 predicts the progression of diabetes after a year from ten measurements
    (scikit-learn's 442 patients, divided 6:2:2, standardized) in batches of 32 with the loss "sine", which was learned
    on sine curves. At most 100 epochs.

Each is compared with the usual loss, cross-entropy or mean squared error (MSE), at the same rate and at the best rate
of a grid, tuned once with seeds that are not reported, for the best validation value and not for speed. All use plain
SGD. Early stopping ends a run whose metric on the validation data no longer improves, and keeps the best weights. It
watches a *metric*, never the loss: a learned loss has a scale of its own.

Metrics (`summary.json`, one value per seed; METHOD is `learned`, `same_rate` or `tuned`):
    digits_accuracy_METHOD: share of correct classes on the test images, at the best epoch.
    digits_accuracy_METHOD_1: share of correct classes on the validation images, after one epoch.
    digits_epochs_METHOD: epochs until 90 % of the validation images are right; 30 if never.
    diabetes_rmse_METHOD: root mean squared error on the test patients at the best epoch, in points of the score of
        progression, which ranges from 25 to 346.
    diabetes_r2_METHOD: share of the variance of the test patients' scores that is explained, 1 at best.
    diabetes_epochs_METHOD: epoch with the least MSE on the validation patients.

    The tuned rates stand in "config", as digits_tuned_rate and diabetes_tuned_rate.

Files: `summary.json`, `history.csv`, `figure.png`, and Keras's own log of each run in `logs/`.
"""

from pathlib import Path

import keras
import numpy as np
import tyro
from digit_images import SIZE, load_images, one_hot
from experiment import command_line, print_table, run_seeds, write_history, write_summary
from matplotlib.figure import Figure

import ml3_tf
from ml3_tf.inspection.learning_curves import NAMED_COLORS, plot_learning_curve
from ml3_tf.inspection.style import LINE_STYLES, TEXT_SIZE, style_axes

RATES = {"digits": 5e-2, "diabetes": 1e-3}  # those that the losses were learned for: 5e-3 per class, and 1e-3
GRIDS = {
    "digits": [5e-2, 1e-1, 2e-1, 3e-1, 5e-1, 7e-1, 1.0],
    "diabetes": [1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
}
EPOCHS = {"digits": 30, "diabetes": 100}
USUAL_LOSS = {"digits": "categorical_crossentropy", "diabetes": "mse"}
LEARNED_LOSS = {"digits": "digits", "diabetes": "sine"}
METRIC = {"digits": "val_accuracy", "diabetes": "val_mse"}
METHODS = ("learned", "same_rate", "tuned")
BATCH_SIZE = 32
TUNING_SEEDS = (100, 101)


def train_classifier(loss, rate, data, epochs, log, verbose):
    """Trains a classifier of the ten digits; `loss` is a learned one or any other."""
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
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(rate), loss=loss, metrics=["accuracy"])
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


def train_regressor(loss, rate, data, epochs, log, verbose):
    """Trains a regressor of one number; `loss` is a learned one or any other."""
    layers = keras.layers
    num_features = data["train"][0].shape[1]
    model = keras.Sequential(
        [
            keras.Input((num_features,)),
            layers.Dense(40, activation="relu"),
            layers.Dense(40, activation="relu"),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(rate), loss=loss, metrics=["mse"])
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


TRAIN = {"digits": train_classifier, "diabetes": train_regressor}


def load_digits(seed):
    """Images and one-hot targets; the seed divides training from validation, the test images are always the same."""
    train, test = load_images()
    order = np.random.default_rng(seed).permutation(len(train.y))
    x, y = train.x[order], one_hot(train.y[order], range(10))
    return {"train": (x[:800], y[:800]), "validation": (x[800:], y[800:]), "test": (test.x, one_hot(test.y, range(10)))}


def load_diabetes(seed):
    """Ten measurements and a score for each patient, standardized by the training patients."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    parts = np.split(np.random.default_rng(seed).permutation(len(y)), [264, 353])
    mean, deviation = y[parts[0]].mean(), y[parts[0]].std()
    x = (x - x[parts[0]].mean(axis=0)) / x[parts[0]].std(axis=0)
    y = (y - mean) / deviation
    arrays = [(x[part].astype("float32"), y[part, np.newaxis].astype("float32")) for part in parts]
    return {**dict(zip(("train", "validation", "test"), arrays)), "deviation": deviation}


LOAD = {"digits": load_digits, "diabetes": load_diabetes}


def tune_rates(_, config, output_dir, verbose):
    """The rate of each grid at which the usual loss does best on validation data; seeds of its own, so not per seed."""
    tuned = {}
    for task, load in LOAD.items():
        scores = []
        for rate in config["grids"][task]:
            runs = [
                fit(task, "tuned", seed, rate, load(seed), config, output_dir, 0) for seed in config["tuning_seeds"]
            ]
            scores.append(np.mean([best_value(task, history) for _, history in runs]))
        tuned[f"{task}_tuned_rate"] = config["grids"][task][int(np.argmax(scores))]
    return tuned


def best_value(task, history):
    """The best value of the validation metric, higher is better; minus infinity for a run that diverged."""
    values = np.array(history[METRIC[task]])
    values = values if task == "digits" else -values
    return np.max(np.nan_to_num(values, nan=-np.inf))


def fit(task, method, seed, rate, data, config, output_dir, verbose):
    """One run: the methods differ in the loss and the rate alone."""
    loss = ml3_tf.load_meta_loss(LEARNED_LOSS[task]) if method == "learned" else USUAL_LOSS[task]
    keras.utils.set_random_seed(seed)  # the same fresh weights and batches for all methods
    log = output_dir / "logs" / f"{task}_{method}_{rate}_{seed}.csv"
    log.parent.mkdir(parents=True, exist_ok=True)
    return TRAIN[task](loss, rate, data, config["epochs"][task], log, verbose)


def run_seed(seed, config, output_dir, verbose):
    metrics, curves = {}, {}
    for task, load in LOAD.items():
        data = load(seed)
        for method in METHODS:
            rate = config[f"{task}_tuned_rate"] if method == "tuned" else RATES[task]
            model, history = fit(task, method, seed, rate, data, config, output_dir, verbose)
            measure = measure_digits if task == "digits" else measure_diabetes
            values = measure(model, history, data, config["epochs"][task])
            metrics |= {f"{task}_{name.replace('METHOD', method)}": float(value) for name, value in values.items()}
            curves |= {f"{task}_{method}": history[METRIC[task]]}
    return {"metrics": metrics, "curves": curves}


def measure_digits(model, history, data, epochs):
    validation = np.array(history["val_accuracy"])
    reached = np.flatnonzero(validation >= 0.9)
    return {
        "accuracy_METHOD": model.evaluate(*data["test"], verbose=0, return_dict=True)["accuracy"],
        "accuracy_METHOD_1": validation[0],
        "epochs_METHOD": reached[0] + 1 if len(reached) else epochs,
    }


def measure_diabetes(model, history, data, epochs):
    x, y = data["test"]
    mse = model.evaluate(x, y, verbose=0, return_dict=True)["mse"]
    return {
        "rmse_METHOD": np.sqrt(mse) * data["deviation"],
        "r2_METHOD": 1 - mse / y.var(),
        "epochs_METHOD": np.nanargmin(history["val_mse"]) + 1,
    }


def draw_figure(results, config):
    """The validation metric of each epoch; a run that was stopped early keeps its best value to the end."""
    figure = Figure(figsize=(14, 4), dpi=150, layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)
    axes = figure.subplots(1, 2)
    labels = {"digits": "share of errors, best so far", "diabetes": "MSE / variance, best so far"}
    for task, ax in zip(LOAD, axes):
        ax.set_yscale("log")
        usual = {"digits": "cross-entropy", "diabetes": "MSE"}[task]
        for method, style in zip(METHODS, LINE_STYLES):
            curves = [best_so_far(task, result["curves"][f"{task}_{method}"], config) for result in results]
            name = method.replace("_", " ")
            rate = config[f"{task}_tuned_rate"] if method == "tuned" else RATES[task]
            label = f'"{LEARNED_LOSS[task]}", rate {rate}' if method == "learned" else f"{usual}, rate {rate}"
            epochs = np.arange(1, config["epochs"][task] + 1)
            plot_learning_curve(curves, ax, label=label, color=NAMED_COLORS[name], steps=epochs)
            ax.lines[-1].set_linestyle(style)
        ax.set(xlabel="epochs", ylabel=labels[task], title=f"{task}, validation data")
        ax.legend(fontsize=TEXT_SIZE - 1, frameon=False)
    style_axes(axes)
    return figure


def best_so_far(task, values, config):
    values = 1 - np.array(values) if task == "digits" else np.array(values)
    values = np.minimum.accumulate(np.nan_to_num(values, nan=np.inf))
    return np.pad(values, (0, config["epochs"][task] - len(values)), mode="edge")


def main(
    seeds: int = 1,
    first_seed: int = 0,
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("results/keras_fit"),
):
    """Trains ordinary Keras models with learned losses and with the usual ones.

    Args:
        seeds: Number of seeds.
        first_seed: The first seed.
        smoke: Run one epoch only, to see that everything works.
        jobs: Number of processes; each takes seeds of its own.
        output_dir: Where results go. An interrupted run resumes from it.

    Returns:
        The metrics, name -> one value per seed.
    """
    command = command_line(main, locals())
    config = {"epochs": EPOCHS, "grids": GRIDS, "tuning_seeds": list(TUNING_SEEDS), "batch_size": BATCH_SIZE}
    if smoke:
        grids = {task: grid[1:2] for task, grid in GRIDS.items()}
        config |= {"epochs": dict.fromkeys(EPOCHS, 1), "grids": grids, "tuning_seeds": [100], "smoke": True}
    numbers = range(first_seed, first_seed + seeds)
    [tuned] = run_seeds(tune_rates, ["tuning"], config, output_dir)
    config |= {f"{task}_tuned_rate": tuned[f"{task}_tuned_rate"] for task in LOAD}
    results = run_seeds(run_seed, numbers, config, output_dir, jobs)
    metrics = write_summary("keras_fit", command, numbers, results, config, output_dir)
    write_history(
        [
            {"seed": seed, "run": run, "epoch": epoch, "validation_metric": value}
            for seed, result in zip(numbers, results)
            for run, curve in result["curves"].items()
            for epoch, value in enumerate(curve, start=1)
        ],
        output_dir,
    )
    figure_path = Path(output_dir) / "figure.png"
    draw_figure(results, config).savefig(figure_path)
    methods = {"learned": "learned loss", "same_rate": "usual loss, same rate", "tuned": "usual loss, best rate"}
    metric_names = {
        "digits_accuracy_{}": "digits, test accuracy",
        "digits_epochs_{}": "digits, epochs to 90 %",
        "diabetes_rmse_{}": "diabetes, test RMSE",
        "diabetes_epochs_{}": "diabetes, best epoch",
    }
    rows = [(f"{label}, {methods[m]}", name.format(m)) for name, label in metric_names.items() for m in METHODS]
    print_table(metrics, rows)
    print(f"\nFigure: {figure_path}")
    return metrics


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
