"""Learn a loss that finds the frequency of a sine, shaped by the true frequency (ML3, section 4.2, figure 5a, b).

    python recipes/shaped_sine.py                          one seed, about three minutes on a busy core
    python recipes/shaped_sine.py --seeds 10               the reported run, half an hour; --jobs 2 takes two cores

A learner with one weight, f(x) = sin(omega x), starts at omega = 0.1. It takes ten full-batch SGD steps of rate 1.0 on
64 points of y = sin(nu x), nu and x in [-5, 5]. The squared error has many local minima in omega. While a loss is
learned, the true nu is known, and the extra term of eq. 9 shapes the loss: L_extra = (omega_new - nu)^2. When the loss
is used, it sees predictions and points alone. Compared on 100 frequencies per seed that it was not learned on:

shaped: a per-set loss. A network of (y_pred, y, x) gives learned features of each point, and their mean over the 64
    points is scored. Meta-trained with the extra term alone (beta 0, gamma 1), as in the public reference.
unshaped: the same network and training, with the squared error on 64 other points of the sine as task loss.
per_point: the loss of the paper and of its reference, which scores each point by itself; shaped, and trained alike.
shaped_without_x: the shaped per-set loss of (y_pred, y), the inputs that the text of the paper names.
noise_trained: the shaped per-set loss, meta-trained on y with normal noise of standard deviation 0.1.
mse: gradient descent on the squared error at the same rate.
mse_tuned: the same at the rate that recovers most of 200 other frequencies.
mse_adam, mse_adamw, mse_muon: the same with these optimizers of Keras, tuned alike. Grids of rates grow until the best
    lies inside. (A weight that is no matrix Muon leaves to AdamW, with other momenta.)

A frequency counts as recovered where |omega - nu| <= 0.1.

Expected result (10 seeds): the shaped loss recovers 98 % of the frequencies or more on all seeds, MSE at its best rate
a seventh. Tuned Adam, AdamW and Muon are slower at first, and end in the nearest local minimum, too: 16 % after 30
steps, and no more after 100. Losses per set recover somewhat more than losses per point, also beyond the frequencies of
meta-training. The shaping matters most: unshaped losses recover no more than a tuned MSE. Without x little is learned,
probably because a prediction no longer tells its x once omega has moved. Noise on y, which the losses have not seen,
misleads them; learned on noise, they recover most frequencies. Time does not pay for the loss, since MSE comes to its
own 13 % in fewer core-minutes, but not beyond.

The settings were chosen on seeds 100 to 112; the scale of the inputs after one of the seeds 0 to 3 had failed without.

Departures from the paper: its text names the inputs (y_pred, y), its reference also gives x, as is done here. Batches
of 32 sines (the reference has 4), fresh points for each, cosine decay of the outer rate, a clipped outer gradient, and
wider smooth networks that start near zero. As in the reference, the loss moves after each inner step (unroll 1).

Metrics (`summary.json`, one value per seed), for each METHOD of the ten above:
    recovered_METHOD: share of the 100 frequencies in [-5, 5] recovered after ten steps.
    recovered_METHOD_30: the same after 30 steps, three times as many as in meta-training.
    recovered_METHOD_100: the same after 100 steps.
    best_recovered_METHOD: the most at any of the 100 steps.
    recovered_METHOD_beyond: the same as the first for |nu| in [5, 7], beyond all frequencies of meta-training.
    recovered_METHOD_noise: the same as the first with normal noise of standard deviation 0.1 on y.
    frequency_error_METHOD: mean of |omega - nu| (radian per unit of x) over the 100 frequencies after ten steps.
    test_mse_METHOD: mean squared error on 64 unseen points of each sine after ten steps.

"costs" of the summary: see `parts/costs.py`; the errors are shares of frequencies not recovered, the baseline is the
best optimizer by the tuning.

Files: `summary.json` (tuned rates are in "config"), `history.csv`, `figure.png`, `landscape.gif` (the shaped loss
over omega while it is learned), and the learned shaped loss of the first seed in `meta_loss/`.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

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
from parts.settings import RecipeSettings, recorded_command, run_command
from parts.shaped_sine.figures import KeptLandscapes, draw_figure, landscape, write_animation
from parts.shaped_sine.losses import METHODS, build_loss
from parts.shaped_sine.meta_testing import TUNED, build_baselines, count_costs, score, tune
from parts.shaped_sine.report import history_rows, print_report
from parts.shaped_sine.tasks import INNER_RATE, INNER_STEPS, build_learner, frequency_tasks, task_seed

NUM_EPOCHS = 20  # points of the meta-training curve, and frames of the animation


@dataclasses.dataclass(frozen=True)
class Settings(RecipeSettings):
    hidden_units: tuple[int, ...] = (64, 64)
    """Widths of the network of a point."""
    score_units: tuple[int, ...] = (64,)
    """Widths of the network behind the mean over points."""
    input_scale: float = 0.5
    """Divisor of every input. Without it, some seeds stay for hundreds of steps with a loss without direction."""
    rate_of_loss: float = 10.0
    """First value of the learned rate: a step has to cross up to 5, and the loss starts near zero."""
    output_stddev: float = 0.1
    """Spread of the loss's first output weights."""
    num_tasks: int = 32
    """Number of sines in an outer step."""
    outer_steps: int = 1000
    """Number of outer steps; in each, learners take ten inner steps, and the loss moves after each of these."""
    outer_rate: float = 2e-3
    """First rate of the outer Adam."""
    clip_norm: float = 0.5
    """Largest norm of the outer gradient."""
    jit_compile: bool = True
    """Whether to compile meta-training with XLA."""
    test_steps: int = 100
    """Number of gradient steps at meta-test."""
    num_test_tasks: int = 100
    """Number of test frequencies."""
    num_tuning_tasks: int = 200
    """Number of frequencies that the rate of MSE is tuned on."""
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
    """The grid for the rate of MSE, with all optimizers; it grows at its ends."""
    optimizer_rates: tuple[float, ...] | None = None
    """Rates of SGD, Adam, AdamW and Muon at which MSE recovers most frequencies. None: tune them."""
    best_optimizer: str | None = None
    """The best of them, by the tuning."""

    def smoke(self) -> "Settings":
        return self.replace(
            hidden_units=(8, 8), score_units=(8,), outer_steps=2, num_tasks=4, rates=(3e-3,), jit_compile=False
        )


def frequency_loss(parameters: ml3_tf.Parameters, batch: Mapping[str, Any]) -> tf.Tensor:
    """Returns L_extra of eq. 9 for each task: (omega_new - nu)^2."""
    return tf.square(parameters.trainable[0] - batch["frequency"])


def meta_train(
    name: str, settings: Settings, seed: int, folder: Path, verbose: int
) -> tuple[ml3_tf.MetaLoss, list[float], list[Any], float]:
    """Returns the learned loss, the task loss of each epoch, the landscapes between epochs `[., nu, omega]`, and the
    core-minutes."""
    keras.utils.set_random_seed(seed)
    meta_loss, method = build_loss(name, settings), METHODS[name]
    trainer = ml3_tf.MetaTrainer(build_learner, meta_loss, inner_steps=INNER_STEPS, unroll=1, seed=seed)
    steps = settings.outer_steps
    steps_per_epoch = max(steps // NUM_EPOCHS, 1)
    schedule = keras.optimizers.schedules.CosineDecay(settings.outer_rate, steps * INNER_STEPS)
    trainer.compile(
        optimizer=keras.optimizers.Adam(schedule, global_clipnorm=settings.clip_norm),
        loss="mse",
        extra_loss=frequency_loss,
        beta=0.0 if method.shaped else 1.0,  # the weights of eq. 9
        gamma=1.0 if method.shaped else 0.0,
        inner_optimizer=keras.optimizers.SGD(INNER_RATE),
        jit_compile=settings.jit_compile,
        steps_per_execution=min(steps_per_epoch, 10),
    )
    landscapes, cost = KeptLandscapes(meta_loss), CoreMinutes()
    history = trainer.fit(
        frequency_tasks(settings.num_tasks, seed=task_seed("train", seed), with_x=method.with_x, noise=method.noise),
        steps_per_epoch=steps_per_epoch,
        epochs=steps // steps_per_epoch,
        callbacks=[landscapes, cost],
        verbose=verbose,
        resume=folder / name,
    )
    return meta_loss, history.history["loss"], landscapes.values, cost.total


def run_seed(seed: int, settings: Settings, output_dir: Path, verbose: int) -> Result:
    metrics, meta_train_curves, meta_test_curves, landscapes, costs = {}, {}, {}, {}, {}
    folder = training_folder(seed, output_dir)
    for name, method in METHODS.items():
        if verbose:
            print(f"{name.replace('_', ' ')} loss", flush=True)
        loss, meta_train_curves[name], landscapes[name], costs[name] = meta_train(name, settings, seed, folder, verbose)
        sgd = keras.optimizers.SGD(INNER_RATE)
        scores, meta_test_curves[name] = score(name, loss, sgd, method.with_x, seed, settings)
        metrics |= scores
        if name == "shaped":
            loss.export(seed_loss_folder(seed, output_dir))
    for name, optimizer in build_baselines(settings).items():
        scores, meta_test_curves[name] = score(name, "mse", optimizer, False, seed, settings)
        metrics |= scores
        landscapes[name] = [landscape("mse")]
    return {
        "metrics": metrics,
        "costs": {"core_minutes": count_costs(costs["shaped"], meta_test_curves, settings, seed, output_dir)},
        "meta_train": meta_train_curves,
        "meta_test": meta_test_curves,
        "landscapes": {name: values if name == "shaped" else values[-1:] for name, values in landscapes.items()},
    }


def main(
    settings: Settings = Settings(),
    *,
    seeds: int = 1,
    first_seed: int = 0,
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("runs/shaped_sine"),
) -> Metrics:
    """Learns shaped and unshaped losses for the frequency of a sine and compares them on unseen frequencies.

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
    settings = fill_in(tune, TUNED, settings, output_dir)
    numbers = range(first_seed, first_seed + seeds)
    results = run_seeds(run_seed, numbers, settings, output_dir, jobs=jobs)
    metrics = write_summary("shaped_sine", command, numbers, results, settings, output_dir)
    write_history(history_rows(numbers, results), output_dir)
    figure_path = save_figure(draw_figure(results, INNER_STEPS), output_dir)
    animation_path = Path(output_dir) / "landscape.gif"
    write_animation(results[0]["landscapes"]["shaped"], animation_path)
    loss_path = export_seed_loss(first_seed, output_dir)
    print_report(metrics, INNER_STEPS, settings.test_steps)
    print(
        f"\nFigure: {figure_path}\nLandscape while it is learned: {animation_path}\nLearned loss: {loss_path}\n\n"
        "Use it in any Keras model of a sine, with targets (y, x):\n\n"
        f'    import keras, ml3_tf\n    loss = ml3_tf.load_meta_loss("{loss_path}")\n'
        f"    model.compile(optimizer=keras.optimizers.SGD({INNER_RATE}), loss=loss)"
    )
    return metrics


if __name__ == "__main__":
    run_command(main, description=__doc__)
