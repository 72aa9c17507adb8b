"""Learn a loss for sine regression, and train fresh regressors with it (ML3, section 4.1, figure 2, top).

    python recipes/sine_regression.py                          one seed, about a minute and a half
    python recipes/sine_regression.py --seeds 10 --jobs 2      the reported run
    python recipes/sine_regression.py --setting paper --seeds 10 --output-dir runs/sine_regression_paper

A regressor has two ReLU layers of 40 and takes full-batch SGD steps on 100 points of a sine (amplitude 0.2 to 5, phase
-pi to pi, x in [-5, 5]). The learned loss is compared with the mean squared error (MSE) on 10 unseen sines per seed, at
points that the regressors were not trained on. All methods start from the same fresh regressors:

learned: the learned loss.
same_rate: MSE at the same rate. This is the comparison of the paper.
tuned: MSE at the best rate of a grid, tuned on 200 other sines.
sgd, adam, adamw, muon: MSE with these optimizers, each at the rate that is best after 100 steps on these 200 sines.

Two settings:

`improved` (default): each outer step draws 16 sines from the distribution of the test sines (never these themselves)
    and trains 16 fresh regressors for 100 steps. It differentiates the error on other points through all of them. The
    loss is the paper's network, two layers of 40, with SiLU. It starts near zero and learns its own rate.
`paper`: one training sine, y = sin(x - pi), x in [-2, 2]; one inner step; the same points for both losses; ReLU and a
    softplus output, as in the public reference; Adam at 1e-3, 500 outer steps.

Expected result (10 seeds): after 100 steps the learned loss has a third of the error of MSE at the same rate, and 0.9
times that of MSE at its best rate, with less on 6 seeds. In the setting of the paper it has two thirds of the error at
the same rate. Tuned, Adam, AdamW and Muon on MSE are far ahead in both, with 0.06, 0.07 and 0.09: a loss that was
learned for SGD never pays for itself. Through 100 steps the meta-gradient explodes at times, which a warning tells:
more outer steps made it worse, 600 left one seed of ten untrained. `sine_lives.py` learns without that.

Departures from the paper in both settings, where it is silent or its reference errs: every outer step starts from
fresh parameters and fresh points (the reference trains on 11 initializations), and test points differ from training
points.

Metrics (`summary.json`, one value per seed; MSE on unseen points, mean over the 10 test sines, no unit):
    test_mse_METHOD: after 100 gradient steps, the number that the loss was trained for; METHOD is one of the above.
    test_mse_METHOD_300, test_mse_METHOD_1000: after 300 and 1,000 steps, three and ten times as many.
    best_test_mse_METHOD, best_test_mse_METHOD_300, best_test_mse_METHOD_1000: the least error up to then.
    test_mse_tuned_for_1000: after 1,000 steps, at the rate that is best after 1,000 steps.
    train_mse_learned, train_mse_same_rate: on training sines, after one gradient step.
    "costs", beside the metrics: core-minutes of meta-training, and of training one regressor until its error is that of
        the best optimizer (on the 200 sines) after 100 steps, see `parts/costs.py`.

Files: `summary.json` (the tuned rates are in "config"), `history.csv`, `figure.png`, and the learned loss of the first
seed in `meta_loss/`.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import keras
import tensorflow as tf

import ml3_tf
from ml3_tf.inspection import explain
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
from parts.settings import RecipeSettings, recorded_command, run_command
from parts.sine_regression.methods import (
    TUNED_SETTINGS,
    build_methods,
    compute_metrics,
    count_costs,
    learning_curve,
    tune,
)
from parts.sine_regression.regressor import build_regressor
from parts.sine_regression.report import draw_figure, history_rows, print_report
from parts.sine_regression.tasks import draw_tasks, task_seed
from parts.tuned_optimizers import ADAPTIVE_RATES, SGD_RATES

NUM_EPOCHS = 20  # points of the meta-training curve


@dataclasses.dataclass(frozen=True)
class Settings(RecipeSettings):
    """The defaults are the improved setting."""

    setting: Literal["improved", "paper"] = "improved"
    """Where the other settings start from: `improved`, or `paper` for the setting of the paper."""
    num_tasks: int = 16
    """Number of sines in an outer step."""
    num_query: int | None = 100
    """Number of points for the task loss, apart from those of training. None: the same points."""
    amplitude: tuple[float, float] = (0.2, 5.0)
    """Range of the amplitude in meta-training; by default that of the test sines, as the next two."""
    phase: tuple[float, float] = (-math.pi, math.pi)
    """Range of the phase in meta-training, rad."""
    x_range: tuple[float, float] = (-5.0, 5.0)
    """Range of x in meta-training."""
    activation: str = "silu"
    """Activation of the loss's network."""
    output_activation: str | None = None
    """Activation of the loss's output."""
    learned_rate: float | None = 50.0
    """First value of the rate that the loss learns. None: no learned rate."""
    output_stddev: float | None = 1e-4
    """Spread of the loss's first output weights: a random loss diverges within 100 steps. None: Glorot's."""
    inner_steps: int = 100
    """Number of gradient steps in meta-training."""
    inner_rate: float = 1e-3
    """Rate of SGD for the learned loss, and for MSE at the same rate."""
    outer_steps: int = 300
    """Number of outer steps."""
    outer_rate: float = 3e-3
    """Rate of the outer Adam."""
    cosine_decay: bool = True
    """Whether the outer rate decays."""
    clip_norm: float | None = 0.5
    """Largest norm of the outer gradient."""
    rates: tuple[float, ...] = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 3e-2, 5e-2, 7e-2, 1e-1)
    """The grid for the rate of SGD on MSE."""
    sgd_rates: tuple[float, ...] = SGD_RATES
    """Where the search for the rate of `sgd` begins."""
    adaptive_rates: tuple[float, ...] = ADAPTIVE_RATES
    """Where the search for the rates of `adam`, `adamw` and `muon` begins."""
    num_tuning_tasks: int = 200
    """Number of sines that MSE is tuned on."""
    num_test_tasks: int = 10
    """Number of test sines."""
    test_steps: int = 1000
    """Number of gradient steps at meta-test."""
    reported_step: int = 100
    """The step that is reported beside the last."""
    jit_compile: bool = True
    """Whether to compile meta-training and meta-test with XLA. Compiling takes longer than a few steps."""
    tuned_rate: float | None = None
    """Rate that is best for MSE after the reported step. None: tune it."""
    tuned_rate_at_end: float | None = None
    """Rate that is best for MSE after the last step. None: tune it."""
    optimizer_rates: tuple[float, ...] | None = None
    """Rates of `sgd`, `adam`, `adamw` and `muon` that are best for MSE after the reported step. None: tune them."""
    best_optimizer: str | None = None
    """The one of these that is best then, on the same sines. None: found as the rates are."""

    preset_field = "setting"

    @classmethod
    def presets(cls) -> Mapping[str, "Settings"]:
        paper = cls(
            setting="paper",
            num_tasks=1,
            num_query=None,
            amplitude=(1.0, 1.0),
            phase=(math.pi, math.pi),
            x_range=(-2.0, 2.0),
            activation="relu",
            output_activation="softplus",
            learned_rate=None,
            output_stddev=None,
            inner_steps=1,
            outer_steps=500,
            outer_rate=1e-3,
            cosine_decay=False,
            clip_norm=None,
        )
        return {"improved": cls(), "paper": paper}

    def smoke(self) -> "Settings":
        return self.replace(
            inner_steps=min(self.inner_steps, 5),
            outer_steps=4,
            test_steps=20,
            reported_step=10,
            jit_compile=False,
            sgd_rates=self.sgd_rates[:1],
            adaptive_rates=self.adaptive_rates[:1],
        )


def training_tasks(settings: Settings, seed: int, num_tasks: int) -> tf.data.Dataset:
    """Returns an endless dataset of the sines of meta-training."""
    return ml3_tf.sine_tasks(
        num_tasks,
        num_query=settings.num_query,
        amplitude=settings.amplitude,
        phase=settings.phase,
        x_range=settings.x_range,
        seed=seed,
    )


def meta_train(settings: Settings, seed: int, folder: Path, verbose: int) -> tuple[ml3_tf.MetaLoss, list[float], float]:
    """Returns the learned loss, the task loss for each epoch of meta-training, and its core-minutes."""
    keras.utils.set_random_seed(seed)
    initializer = "glorot_uniform"
    if settings.output_stddev is not None:
        initializer = keras.initializers.RandomNormal(stddev=settings.output_stddev)
    meta_loss = ml3_tf.MetaLoss.mlp(
        (40, 40),
        activation=settings.activation,
        output_activation=settings.output_activation,
        output_initializer=initializer,
        learning_rate=settings.learned_rate,
        name="sine",
    )
    trainer = ml3_tf.MetaTrainer(build_regressor, meta_loss, inner_steps=settings.inner_steps, seed=seed)
    rate, steps = settings.outer_rate, settings.outer_steps
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps) if settings.cosine_decay else rate
    steps_per_epoch = max(steps // NUM_EPOCHS, 1)
    trainer.compile(
        optimizer=keras.optimizers.Adam(schedule, global_clipnorm=settings.clip_norm),
        loss="mse",
        inner_optimizer=keras.optimizers.SGD(settings.inner_rate),
        steps_per_execution=min(steps_per_epoch, 10),
        jit_compile=settings.jit_compile,
    )
    cost = CoreMinutes()
    history = trainer.fit(
        training_tasks(settings, task_seed("train", seed), settings.num_tasks),
        steps_per_epoch=steps_per_epoch,
        epochs=steps // steps_per_epoch,
        callbacks=[cost],
        verbose=verbose,
        resume=folder,
    )
    return meta_loss, history.history["loss"], cost.total


def run_seed(seed: int, settings: Settings, output_dir: Path, verbose: int) -> Result:
    meta_loss, meta_train_curve, cost = meta_train(settings, seed, training_folder(seed, output_dir), verbose)
    meta_loss.export(seed_loss_folder(seed, output_dir))

    tasks, methods = draw_tasks("test", seed, settings.num_test_tasks), build_methods(meta_loss, settings)
    curves = {name: learning_curve(*method, tasks, settings, seed) for name, method in methods.items()}

    # Tasks of the training distribution; as many as the spread of one-step losses needs.
    train_tasks = next(iter(training_tasks(settings, task_seed("train", seed), num_tasks=20)))
    short = settings.replace(test_steps=settings.inner_steps)
    on_train = {name: learning_curve(*methods[name], train_tasks, short, seed) for name in ("learned", "same_rate")}
    return {
        "metrics": compute_metrics(curves, settings)
        | {f"train_mse_{name}": float(curve[1]) for name, curve in on_train.items()},
        "costs": count_costs(cost, methods, curves, tasks, settings),
        "meta_train": {"learned": meta_train_curve, "same_rate": [float(on_train["same_rate"][-1])] * 2},
        "meta_test": {name: curve.tolist() for name, curve in curves.items()},
    }


def main(
    settings: Settings = Settings(),
    *,
    seeds: int = 1,
    first_seed: int = 0,
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("runs/sine_regression"),
) -> Metrics:
    """Learns a loss for sine regression and compares it on unseen sines.

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
    settings = fill_in(tune, TUNED_SETTINGS, settings, output_dir)
    numbers = range(first_seed, first_seed + seeds)
    results = run_seeds(run_seed, numbers, settings, output_dir, jobs=jobs)
    metrics = write_summary("sine_regression", command, numbers, results, settings, output_dir)
    write_history(history_rows(numbers, results), output_dir)
    train = next(iter(training_tasks(settings, seed=0, num_tasks=1 if settings.inner_steps == 1 else 5)))["support"]
    test = next(iter(ml3_tf.sine_tasks(settings.num_test_tasks, seed=task_seed("test", 0))))["support"]
    figure_path = save_figure(draw_figure(results, settings, train, test), output_dir)
    loss_path = export_seed_loss(first_seed, output_dir)
    print_report(metrics, settings)
    print(
        f"\nWhat it has learned, in short: {explain(ml3_tf.load_meta_loss(loss_path), max_terms=1)}"
        f"\nFigure: {figure_path}\nLearned loss: {loss_path}\n\nUse it in any Keras model:\n"
        f'\n    import keras, ml3_tf\n    loss = ml3_tf.load_meta_loss("{loss_path}")\n'
        f"    model.compile(optimizer=keras.optimizers.SGD({settings.inner_rate}), loss=loss)"
    )
    return metrics


if __name__ == "__main__":
    run_command(main, description=__doc__)
