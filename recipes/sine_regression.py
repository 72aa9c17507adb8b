"""Meta-learn a loss for sine regression, and train fresh regressors with it (ML3, section 4.1, figure 2, top).

    python recipes/sine_regression.py                          one seed, about two minutes
    python recipes/sine_regression.py --seeds 10 --jobs 2      the reported run
    python recipes/sine_regression.py --setting paper --seeds 10 --output-dir results/sine_regression_paper

The learned loss is compared on 10 unseen sines per seed (amplitude .2 to 5, phase -pi to pi, x in [-5, 5]), on points
that no regressor was trained on, with gradient descent on the mean squared error (MSE): at the same rate, which is
the comparison of the paper, and at the best rate of a grid, tuned on 200 other sines. All methods start from the same
fresh regressors, two ReLU layers of 40, and take full-batch SGD steps on 100 points.

Two settings:

`improved` (default): each outer step draws 16 sines from the distribution of the test tasks (never the test tasks
    themselves), trains 16 fresh regressors for 100 steps, and differentiates the error on other points through all of
    them. The loss is the paper's network of two layers of 40 with SiLU; it starts near zero and learns its own rate.
`paper`: one training sine, y = sin(x - pi), x in [-2, 2]; one inner step; the same points for both losses; ReLU and a
    softplus output, as in the public reference; Adam at 1e-3, 500 outer steps.

Departures from the paper in both settings, where it is silent or its reference errs: every outer step starts from
fresh parameters and fresh points (the reference trains on 11 initializations), and test points are apart from
training points.

Metrics (`summary.json`, one value per seed; MSE on unseen points, mean over the 10 test sines):
    test_mse_learned, test_mse_same_rate, test_mse_tuned: after 100 gradient steps.
    test_mse_learned_1000, test_mse_same_rate_1000, test_mse_tuned_1000: after 1,000 steps, ten times the steps that
        the loss was trained for.
    test_mse_tuned_for_1000: the same for the rate that is best after 1,000 steps.
    train_mse_learned, train_mse_same_rate: on training sines, after one gradient step.

    The tuned rates stand in "config", as tuned_rate and tuned_rate_at_end.

Files: `summary.json`, `history.csv`, `figure.png`, and the learned loss of the first seed in `meta_loss/`.
"""

import math
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import tyro
from experiment import command_line, export_loss_of, print_table, run_seeds, write_history, write_summary

import ml3_tf
from ml3_tf.inspection.learning_curves import plot_meta_learning

SETTINGS = {
    "improved": {
        "train_tasks": {"num_tasks": 16, "num_query": 100},  # the distribution of the test tasks
        "meta_loss": {"activation": "silu", "learning_rate": 50.0},
        "output_stddev": 1e-4,  # start from a loss that moves nobody: a random one diverges within 100 steps
        "inner_steps": 100,
        "outer_steps": 600,
        "outer_rate": 3e-3,
        "cosine_decay": True,
        "clip_norm": 0.5,
    },
    "paper": {
        "train_tasks": {"num_tasks": 1, "amplitude": 1.0, "phase": math.pi, "x_range": [-2.0, 2.0]},
        "meta_loss": {"activation": "relu", "output_activation": "softplus"},
        "output_stddev": None,
        "inner_steps": 1,
        "outer_steps": 500,
        "outer_rate": 1e-3,
        "cosine_decay": False,
        "clip_norm": None,
    },
}
INNER_RATE = 1e-3
RATES = [1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 3e-2, 5e-2, 7e-2, 1e-1]  # the grid for MSE
NUM_TEST_TASKS = 10
NUM_TUNING_TASKS = 200
TEST_STEPS = 1000
REPORTED_STEP = 100
BASELINES = ("same_rate", "tuned")
NUM_EPOCHS = 20  # points of the meta-training curve


def build_regressor():
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((1,)), layers.Dense(40, activation="relu"), layers.Dense(40, activation="relu"), layers.Dense(1)]
    )


def meta_train(config, seed, verbose):
    """Returns the learned loss, and the task loss for each epoch of meta-training."""
    keras.utils.set_random_seed(seed)
    initializer = "glorot_uniform"
    if config["output_stddev"] is not None:
        initializer = keras.initializers.RandomNormal(stddev=config["output_stddev"])
    meta_loss = ml3_tf.MetaLoss.mlp((40, 40), output_initializer=initializer, name="sine", **config["meta_loss"])
    trainer = ml3_tf.MetaTrainer(build_regressor, meta_loss, inner_steps=config["inner_steps"], seed=seed)
    rate, steps = config["outer_rate"], config["outer_steps"]
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps) if config["cosine_decay"] else rate
    steps_per_epoch = max(steps // NUM_EPOCHS, 1)
    trainer.compile(
        optimizer=keras.optimizers.Adam(schedule, global_clipnorm=config["clip_norm"]),
        loss="mse",
        inner_optimizer=keras.optimizers.SGD(INNER_RATE),
        steps_per_execution=min(steps_per_epoch, 10),
    )
    history = trainer.fit(
        ml3_tf.sine_tasks(**config["train_tasks"], seed=task_seed("train", seed)),
        steps_per_epoch=steps_per_epoch,
        epochs=steps // steps_per_epoch,
        verbose=verbose,
    )
    return meta_loss, history.history["loss"]


def task_seed(purpose, seed):
    """Training, tuning and test tasks come from streams of their own."""
    return 3 * seed + ["train", "tune", "test"].index(purpose)


def test_curve(loss, rate, tasks, steps, seed):
    """Task loss `[steps + 1, N]` of fresh regressors; every method takes this path."""
    return ml3_tf.meta_test(build_regressor, loss, keras.optimizers.SGD(rate), tasks, steps=steps, seed=seed)


def tune_rates(_, config, output_dir, verbose):
    """The rates of the grid that are best for MSE after the reported step and at the end, on sines of their own.

    They are the same for all seeds: near the edge of divergence, a rate tuned on few sines fails on the next.
    """
    tasks = next(iter(ml3_tf.sine_tasks(NUM_TUNING_TASKS, num_query=100, seed=task_seed("tune", 0))))
    curves = [test_curve("mse", rate, tasks, config["test_steps"], 0).mean(axis=1) for rate in RATES]
    scores = np.nan_to_num(np.array(curves), nan=np.inf)
    best = [RATES[scores[:, step].argmin()] for step in (config["reported_step"], config["test_steps"])]
    return {"tuned_rate": best[0], "tuned_rate_at_end": best[1]}


def run_seed(seed, config, output_dir, verbose):
    meta_loss, meta_train_curve = meta_train(config, seed, verbose)
    meta_loss.export(output_dir / "seeds" / f"meta_loss_{seed}")

    steps, reported = config["test_steps"], config["reported_step"]
    tasks = next(iter(ml3_tf.sine_tasks(NUM_TEST_TASKS, num_query=100, seed=task_seed("test", seed))))
    methods = {
        "learned": (meta_loss, INNER_RATE),
        "same rate": ("mse", INNER_RATE),
        "tuned": ("mse", config["tuned_rate"]),
    }
    curves = {name: test_curve(*method, tasks, steps, seed).mean(axis=1) for name, method in methods.items()}
    tuned_for_all = test_curve("mse", config["tuned_rate_at_end"], tasks, steps, seed).mean(axis=1)[-1]

    # Tasks of the training distribution; as many as the spread of one-step losses needs.
    train_tasks = {**config["train_tasks"], "num_tasks": 20, "seed": task_seed("train", seed)}
    train_tasks = next(iter(ml3_tf.sine_tasks(**train_tasks)))
    on_train = {
        name: test_curve(*methods[name], train_tasks, config["inner_steps"], seed).mean(axis=1)
        for name in ("learned", "same rate")
    }

    metrics = {f"test_mse_{_key(name)}": float(curve[reported]) for name, curve in curves.items()}
    metrics |= {f"test_mse_{_key(name)}_{steps}": float(curve[steps]) for name, curve in curves.items()}
    metrics[f"test_mse_tuned_for_{steps}"] = float(tuned_for_all)
    metrics |= {f"train_mse_{_key(name)}": float(curve[1]) for name, curve in on_train.items()}
    return {
        "metrics": metrics,
        "meta_train": {"learned": meta_train_curve, "same rate": [float(on_train["same rate"][-1])] * 2},
        "meta_test": {name: curve.tolist() for name, curve in curves.items()},
    }


def _key(name):
    return name.replace(" ", "_")


def draw_figure(results, config):
    """The four panels of figure 2 of the paper."""
    outer = config["outer_steps"]
    num_epochs = len(results[0]["meta_train"]["learned"])
    learned_steps = (np.arange(num_epochs) + 1) * outer / num_epochs
    meta_train = {
        "learned": (learned_steps, [result["meta_train"]["learned"] for result in results]),
        "same rate": ([0, outer], [result["meta_train"]["same rate"] for result in results]),
    }
    steps = np.arange(1, config["test_steps"] + 1)  # step 0, the same for all, has no place on a logarithmic axis
    meta_test = {
        name: (steps, [result["meta_test"][name][1:] for result in results]) for name in results[0]["meta_test"]
    }
    train_tasks = {**config["train_tasks"], "num_tasks": 1 if config["inner_steps"] == 1 else 5}
    train = next(iter(ml3_tf.sine_tasks(**train_tasks, seed=0)))["support"]
    test = next(iter(ml3_tf.sine_tasks(NUM_TEST_TASKS, seed=task_seed("test", 0))))["support"]
    figure = plot_meta_learning(train, test, meta_train, meta_test)
    figure.axes[3].set_xscale("log")
    figure.axes[3].axvline(config["inner_steps"], color="0.5", linewidth=1, linestyle=":")
    return figure


def main(
    seeds: int = 1,
    first_seed: int = 0,
    setting: Literal["improved", "paper"] = "improved",
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("results/sine_regression"),
):
    """Meta-learns a loss for sine regression and compares it on unseen sines.

    Args:
        seeds: Number of seeds.
        first_seed: The first seed.
        setting: `improved`, or `paper` for the setting of the paper.
        smoke: Run a few steps only, to see that everything works.
        jobs: Number of processes; each takes seeds of its own.
        output_dir: Where results go. An interrupted run resumes from it.

    Returns:
        The metrics, name -> one value per seed.
    """
    command = command_line(main, locals())
    config = {"setting": setting, **SETTINGS[setting], "test_steps": TEST_STEPS, "reported_step": REPORTED_STEP}
    if smoke:
        inner_steps = min(config["inner_steps"], 5)
        config |= {"inner_steps": inner_steps, "outer_steps": 4, "test_steps": 20, "reported_step": 10, "smoke": True}
    numbers = range(first_seed, first_seed + seeds)
    [tuned] = run_seeds(tune_rates, ["tuning"], config, output_dir)
    config |= {name: tuned[name] for name in ("tuned_rate", "tuned_rate_at_end")}
    results = run_seeds(run_seed, numbers, config, output_dir, jobs)
    metrics = write_summary("sine_regression", command, numbers, results, config, output_dir)
    write_history(
        [
            {"seed": seed, "phase": phase, "method": name, "step": step, "mse": value}
            for seed, result in zip(numbers, results)
            for phase in ("meta_train", "meta_test")
            for name, curve in result[phase].items()
            for step, value in enumerate(curve)
        ],
        output_dir,
    )
    figure_path = Path(output_dir) / "figure.png"
    draw_figure(results, config).savefig(figure_path)
    loss_path = export_loss_of(first_seed, output_dir)

    reported, steps = config["reported_step"], config["test_steps"]
    after = {reported: f"after {reported} steps", steps: f"after {steps} steps"}
    print_table(
        metrics,
        [
            (f"learned loss, {after[reported]}", "test_mse_learned"),
            (f"MSE at the same rate, {after[reported]}", "test_mse_same_rate"),
            (f"MSE at its best rate, {after[reported]}", "test_mse_tuned"),
            (f"learned loss, {after[steps]}", f"test_mse_learned_{steps}"),
            (f"MSE at the same rate, {after[steps]}", f"test_mse_same_rate_{steps}"),
            (f"MSE at its best rate for this, {after[steps]}", f"test_mse_tuned_for_{steps}"),
        ],
    )
    share = {name: np.mean(metrics["test_mse_learned"]) / np.mean(metrics[f"test_mse_{name}"]) for name in BASELINES}
    print(
        f"\nError {after[reported]}, as a share of the same rate's: {share['same_rate']:.2f}, of the best rate's: "
        f"{share['tuned']:.2f}"
        f"\nFigure: {figure_path}\nLearned loss: {loss_path}\n\nUse it in any Keras model:\n"
        f'\n    import keras, ml3_tf\n    loss = ml3_tf.load_meta_loss("{loss_path}")\n'
        f"    model.compile(optimizer=keras.optimizers.SGD({INNER_RATE}), loss=loss)"
    )
    return metrics


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
