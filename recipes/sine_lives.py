"""Learn a loss for sine regressors that live for a thousand steps, with SGD or Adam (beyond ML3).

    python recipes/sine_lives.py                               one seed with SGD, about three minutes
    python recipes/sine_lives.py --optimizer adam              the same with Adam inside
    python recipes/sine_lives.py --seeds 10 --output-dir results/sine_lives_sgd

The regressors and sines are those of `sine_regression.py`, whose loss is learned on lives of 100 steps and loses its
lead after that. A meta-gradient through longer lives explodes, and one through parts of them is short-sighted. So the
loss is learned by evolution strategies over whole lives of 1,000 steps:

1. The loss starts as the mean squared error (MSE) plus a small network at zero, at the rate that is best for MSE after
   1,000 steps.
2. Each outer step trains 16 pairs of regressors on 16 sines. The losses of a pair are perturbed by plus and minus the
   same noise. What counts is the logarithm of the error, mean over 100, 300, 500, 600, ... 1,000 steps.
3. The rate of the learned loss is tuned as that of MSE is: on 200 other sines, the mean error after 1,000 steps. The
   logarithm above hardly minds that one sine in a hundred diverges; a practitioner does.

All methods start from the same fresh regressors, on 10 unseen sines per seed, and are measured on points that they were
not trained on:

learned: the learned loss.
tuned: MSE at the rate that is best after 1,000 steps on 200 other sines.
best: MSE at the rate that is best after as many steps as are reported, another for each column.
sgd, adam, adamw, muon: MSE with these optimizers of Keras, each at the rate that is best for the life of meta-training,
    in a grid that grows until the best rate lies inside.

Expected result (10 seeds, SGD): up to 1,000 steps level with `best`, after 3,000 an error of 0.012, where `best` has
0.018, ahead on 8 seeds. At these rates a regressor may jump up, and come back: two seeds have one at 1,000 steps, so
the mean is 0.090 (`best`: 0.067), without them 0.046; an earlier run, which differs by rounding, had 0.045. Tuned Adam,
AdamW and Muon are far ahead (0.007 to 0.010). With Adam there is no sure gain: 0.0045 after 1,000 steps, `best` 0.0076,
AdamW 0.0068; ahead of them on 5 and 6 seeds. After 10,000 steps it has 0.0043, and they 0.0012 and 0.0011.

Departures from the paper: all of it; the paper's regressors take one step in meta-training, with the gradient. The
settings were chosen on 120 sines of other seeds.

Metrics (`summary.json`, one value per seed):
    test_mse_METHOD_STEPS: MSE on unseen points, mean over the 10 test sines, after 100, 300, 1000, 3000 or 10000
        gradient steps, METHOD being one of the above.
    best_test_mse_METHOD_STEPS: the least such mean up to that step; all but `best` have one.
    learned_rate: rate of the optimizer that is best for the learned loss.

"costs" of the summary: see `parts/costs.py`; the baseline is the best optimizer by the tuning, the horizon a life.

Files: `summary.json` (tuned rates and the best optimizer are in "config"), `history.csv`, `figure.png`, and the learned
loss of the first seed in `meta_loss/`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

import ml3_tf
from parts.costs import CoreMinutes, core_minutes_per_step, count_core_minutes
from parts.experiment import (
    Metrics,
    Result,
    Seed,
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
from parts.sine_lives.report import draw_figure, history_rows, print_report
from parts.sine_regression.regressor import build_regressor, train_regressors
from parts.sine_regression.tasks import draw_tasks, task_seed
from parts.tuned_optimizers import build_optimizers, tune_optimizers

TUNED = ("tuned_rates", "optimizer_rates", "best_optimizer")
NUM_EPOCHS = 20  # points of the meta-training curve


@dataclasses.dataclass(frozen=True)
class Settings(RecipeSettings):
    """The defaults are those of SGD."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    """The optimizer of the regressors."""
    hidden_units: tuple[int, ...] = (16,)
    """Widths of the hidden layers of the loss's network."""
    num_tasks: int = 16
    """Number of sines in an outer step."""
    ages: tuple[int, ...] = (100, 300, 500, 600, 700, 800, 900, 1000)
    """Numbers of steps after which the error counts. The last is the length of a life."""
    outer_steps: int = 200
    """Number of outer steps."""
    outer_rate: float = 1e-2
    """First rate of the outer Adam; it decays to zero."""
    stddev: float = 0.02
    """Standard deviation of the perturbations of the loss."""
    rates: tuple[float, ...] = (1e-2, 2e-2, 3e-2, 4e-2, 5e-2, 6e-2)
    """The grid for the rate of MSE."""
    learned_rates: tuple[float, ...] = (0.6, 0.7, 0.8, 0.9, 1.0)
    """The grid for the rate of the learned loss, as shares of the rate that it was learned at."""
    num_tuning_tasks: int = 200
    """Number of sines that rates are tuned on."""
    num_test_tasks: int = 10
    """Number of test sines."""
    sgd_rates: tuple[float, ...] = (1e-2, 2e-2, 5e-2)
    """Where the search for the rate of SGD begins."""
    adaptive_rates: tuple[float, ...] = (2e-3, 5e-3, 1e-2)
    """The same for Adam, AdamW and Muon."""
    reported_steps: tuple[int, ...] = (100, 300, 1000, 3000, 10_000)
    """Numbers of gradient steps at meta-test that are reported. The last is the number of steps taken."""
    jit_compile: bool = True
    """Whether to compile with XLA."""
    tuned_rates: tuple[float, ...] | None = None
    """The rate that is best for MSE after each of the reported steps. None: tune it."""
    optimizer_rates: tuple[float, ...] | None = None
    """Rates of SGD, Adam, AdamW and Muon that are best for MSE after a life. None: tune them."""
    best_optimizer: str | None = None
    """The best of them, by the tuning."""

    preset_field = "optimizer"

    @classmethod
    def presets(cls) -> Mapping[str, "Settings"]:
        rates = 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 3e-2, 5e-2
        # Adam ends at errors a tenth as large, which the perturbations of SGD's loss would drown.
        adam = cls(optimizer="adam", stddev=4e-3, outer_rate=2e-3, rates=rates)
        return {"sgd": cls(), "adam": adam}

    def smoke(self) -> "Settings":
        return self.replace(
            num_tasks=4,
            ages=(2, 6),
            outer_steps=2,
            num_tuning_tasks=4,
            rates=self.rates[:2],
            learned_rates=self.learned_rates[-2:],
            sgd_rates=self.sgd_rates[:1],
            adaptive_rates=self.adaptive_rates[:1],
            reported_steps=(2, 6, 18),
            jit_compile=False,
        )

    @property
    def life(self) -> int:
        """Number of steps of a life."""
        return self.ages[-1]

    @property
    def inner_rate(self) -> float:
        """The rate that is best for MSE after a life, at which the loss is learned."""
        return dict(zip(self.reported_steps, self.tuned_rates, strict=True))[self.life]

    def build_optimizer(self, rate: float) -> keras.optimizers.Optimizer:
        return {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[self.optimizer](rate)


def meta_train(
    meta_loss: ml3_tf.MetaLoss, settings: Settings, seed: int, folder: Path, callbacks: Any, verbose: int
) -> list[float]:
    """Learns the loss; returns the mean logarithm of the error of each epoch."""
    trainer = ml3_tf.MetaTrainer(
        build_regressor,
        meta_loss,
        inner_steps=settings.life,
        estimator=ml3_tf.EvolutionStrategies(settings.stddev),
        seed=seed,
    )
    steps = settings.outer_steps
    trainer.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(settings.outer_rate, steps)),
        loss=ml3_tf.TaskLoss("mse", at=settings.ages, logarithm=True),
        inner_optimizer=settings.build_optimizer(settings.inner_rate),
        jit_compile=settings.jit_compile,
    )
    tasks = ml3_tf.sine_tasks(settings.num_tasks, num_query=100, seed=task_seed("train", seed))
    steps_per_epoch = max(steps // NUM_EPOCHS, 1)
    epochs = steps // steps_per_epoch
    history = trainer.fit(
        tasks, steps_per_epoch=steps_per_epoch, epochs=epochs, callbacks=callbacks, verbose=verbose, resume=folder
    )
    return history.history["loss"]


def learning_curve(
    loss: Any, optimizer: keras.optimizers.Optimizer, tasks: Any, settings: Settings, seed: int, *, num_steps: int
) -> np.ndarray:
    """Returns the error of fresh regressors before the first step and after each, mean over tasks."""
    return train_regressors(loss, optimizer, tasks, num_steps, seed=seed, jit_compile=settings.jit_compile)


def tuning_curves(loss: Any, rates: Sequence[float], settings: Settings, num_steps: int) -> np.ndarray:
    """Returns the error on the tuning sines for each rate, `[rate, step]`; a diverged regressor counts as infinity."""
    tasks, build = draw_tasks("tune", 0, settings.num_tuning_tasks), settings.build_optimizer
    curves = [learning_curve(loss, build(rate), tasks, settings, 0, num_steps=num_steps) for rate in rates]
    return np.nan_to_num(np.array(curves), nan=np.inf)


def tune(_: Seed, settings: Settings, output_dir: Path, verbose: int) -> Result:
    """Returns the rates that are best for MSE, the same for all seeds: of the recipe's optimizer after each of the
    reported steps, and of all optimizers after a life."""
    curves = tuning_curves("mse", settings.rates, settings, settings.reported_steps[-1])
    scores = curves[:, list(settings.reported_steps)]
    tasks = draw_tasks("tune", 0, settings.num_tuning_tasks)
    optimizers = tune_optimizers(
        lambda optimizer: learning_curve("mse", optimizer, tasks, settings, 0, num_steps=settings.life)[-1],
        sgd_rates=settings.sgd_rates,
        adaptive_rates=settings.adaptive_rates,
    )
    best = [settings.rates[index] for index in scores.argmin(axis=0)]
    return {**dict(zip(TUNED, (best, optimizers.rates, optimizers.best))), "scores": scores.tolist()}


def compute_metrics(curves: Mapping[str, np.ndarray], settings: Settings) -> dict[str, float]:
    """Returns the error after each of the reported steps, and the least up to it."""
    last = {f"test_mse_{name}_{n}": curve[n] for name, curve in curves.items() for n in settings.reported_steps}
    best = {
        f"best_test_mse_{name}_{n}": np.nanmin(curve[: n + 1])
        for name, curve in curves.items()
        for n in settings.reported_steps
    }
    return {name: float(value) for name, value in {**last, **best}.items()}


def run_seed(seed: int, settings: Settings, output_dir: Path, verbose: int) -> Result:
    keras.utils.set_random_seed(seed)
    meta_loss = ml3_tf.MetaLoss.around(
        "mse", settings.hidden_units, learning_rate=1.0, name=f"sine_lives_{settings.optimizer}"
    )
    cost = CoreMinutes()
    log_errors = meta_train(meta_loss, settings, seed, training_folder(seed, output_dir), [cost], verbose)
    meta_loss.export(seed_loss_folder(seed, output_dir))
    rates = [settings.inner_rate * share for share in settings.learned_rates]
    learned_rate = rates[int(tuning_curves(meta_loss, rates, settings, settings.life)[:, -1].argmin())]
    meta_train_cost = cost.total  # its own rate is part of what is learned

    tasks, reported = draw_tasks("test", seed, settings.num_test_tasks), settings.reported_steps
    curve = lambda loss, optimizer: learning_curve(loss, optimizer, tasks, settings, seed, num_steps=reported[-1])
    of_mse = {rate: curve("mse", settings.build_optimizer(rate)) for rate in {*settings.tuned_rates}}
    methods = {"learned": (meta_loss, settings.build_optimizer(learned_rate))}
    methods |= {name: ("mse", optimizer) for name, optimizer in build_optimizers(settings.optimizer_rates).items()}
    curves = {name: curve(*method) for name, method in methods.items()} | {"tuned": of_mse[settings.inner_rate]}
    metrics = compute_metrics(curves, settings)
    for steps, rate in zip(reported, settings.tuned_rates, strict=True):
        metrics[f"test_mse_best_{steps}"] = float(of_mse[rate][steps])
    compared = {"learned": "learned", "baseline": settings.best_optimizer}
    per_step = {
        role: core_minutes_per_step(lambda name=name: curve(*methods[name]), reported[-1], settings.num_test_tasks)
        for role, name in compared.items()
    }
    errors = {role: curves[name] for role, name in compared.items()}
    costs = count_core_minutes(meta_train_cost, curves=errors, per_step=per_step, horizon=settings.life)
    return {
        "metrics": {**metrics, "learned_rate": learned_rate},
        "costs": {"core_minutes": costs},
        "meta_train": {"learned": log_errors},
        "meta_test": {name: curve.tolist() for name, curve in curves.items()},
    }


def main(
    settings: Settings = Settings(),
    *,
    seeds: int = 1,
    first_seed: int = 0,
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path | None = None,
) -> Metrics:
    """Learns a loss for lives of a thousand steps and compares it on unseen sines.

    Args:
        settings: The settings.
        seeds: Number of seeds.
        first_seed: The first seed.
        smoke: Run a few steps only, to see that everything works.
        jobs: Number of processes; each takes seeds of its own.
        output_dir: Folder for the results, by default runs/sine_lives_OPTIMIZER. An interrupted run resumes from it.

    Returns:
        The metrics, name -> one value for each seed.
    """
    command = recorded_command(main, settings, seeds=seeds, first_seed=first_seed, smoke=smoke)
    settings = settings.smoke() if smoke else settings
    output_dir = Path(f"runs/sine_lives_{settings.optimizer}") if output_dir is None else output_dir
    settings = fill_in(tune, TUNED, settings, output_dir)
    numbers = range(first_seed, first_seed + seeds)
    results = run_seeds(run_seed, numbers, settings, output_dir, jobs=jobs)
    metrics = write_summary("sine_lives", command, numbers, results, settings, output_dir)
    write_history(history_rows(numbers, results), output_dir)
    figure_path = save_figure(draw_figure(results, settings), output_dir)
    loss_path = export_seed_loss(first_seed, output_dir)
    print_report(metrics, settings)
    print(f"\nFigure: {figure_path}\nLearned loss: {loss_path}")
    return metrics


if __name__ == "__main__":
    run_command(main, description=__doc__)
