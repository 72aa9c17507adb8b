"""Learn losses for the inverse dynamics of robot arms, shaped by the inertia matrix (ML3, figure 5, c and d).

    python recipes/inverse_dynamics.py --robot reacher                one seed: TIME
    python recipes/inverse_dynamics.py --robot sawyer                 one seed: TIME
    python recipes/inverse_dynamics.py --robot sawyer --seeds 10      the reported run

A learner maps angles, velocities and accelerations of the joints (q, qd, qdd) to torques, tau = M(q) qdd + F(q, qd).
One network predicts a Cholesky factor of the inertia matrix M, another the bias force F
(`parts/inverse_dynamics/learner.py`). Two losses are learned for each of two optimizers, SGD and Adam. They differ in
the task loss, which only meta-training knows (eq. 9)::

    unshaped    (tau - tau_theta_new)^2
    shaped      beta (tau - tau_theta_new)^2 + gamma ||M(q) - M_theta_new(q)||^2

None sees an inertia matrix when it is used: it scores the pair (predicted torque, true torque) of each joint. They are
compared with the mean squared error (MSE) of the torque, on trajectories never trained on, after as many steps as
meta-training takes, and after three and ten times as many. All methods start from the same fresh learners and take
full-batch steps:

shaped_sgd, unshaped_sgd, shaped_adam, unshaped_adam: the learned losses with the optimizer that they were learned for.
same_rate_sgd, same_rate_adam: MSE with the same optimizer at the same rate.
sgd, adam, adamw, muon: MSE with these optimizers of Keras, each at the rate that is best after the steps of
    meta-training on 30 other tasks, in a grid that grows until the best rate lies inside.

Robots: `reacher`, two rods in a vertical plane; `sawyer`, seven joints, 17 kg (`parts/inverse_dynamics/robots/`,
NOTICE). MuJoCo gives torques and inertia matrices. Motions are sums of three sines of 0.2 to 1.5 Hz for each joint,
4 s, 8 points, within the limits of angle, velocity and torque; the Sawyer stays within 0.7 rad of a working posture. A
task: train on 8 motions (reacher) or 16 (Sawyer), and be scored on 8 others. Learners and losses work in standard units
of a robot's motions ("scales" in "config").

Expected result (10 seeds): EXPECTED

Metrics (`summary.json`, one value per seed; means over test tasks, 50 and 10; METHOD is one of the above, STEPS is 100,
300 or 1000):
    torque_rmse_METHOD_STEPS: root mean squared error of the torque on new motions, over all joints, N m.
    best_torque_rmse_METHOD_STEPS: the least of it up to that step.
    torque_share_METHOD_STEPS: the same as a share of each joint's standard deviation, so that small joints count too.
    inertia_error_METHOD_STEPS: ||M - M_theta|| / ||M||, Frobenius norms, on new motions.

"costs" of the summary: see `parts/costs.py`; a use learns the dynamics of one robot, by `shaped_adam` or by the best
optimizer of the tuning.

Departures from the paper, which gives no settings here: no friction; M and F are separate networks (in Deep Lagrangian
Networks F follows from M); test motions are not those of training; Adam; tuned baselines. phi moves after every inner
step, as the paper prefers. beta, gamma, the range of motions and all else were chosen on seeds 100 to 103. The plane of
the reacher was chosen too: in a horizontal one, without gravity, the losses for SGD did equally well (6 seeds). On the
reacher, 10 test tasks per seed were too few to tell shaped from unshaped (8 of 10 seeds), hence 50 (10 of 10).

Files: `summary.json` (the tuned rates and the best optimizer are in "config"), `history.csv`, `figure.png`, and the
loss `shaped_adam` of the first seed in `meta_loss/`.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

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
from parts.inverse_dynamics.learner import build_learner, inertia_loss
from parts.inverse_dynamics.meta_testing import (
    INNER_OPTIMIZERS,
    REPORTED,
    TUNED,
    build_inner_optimizer,
    meta_test,
    tune,
)
from parts.inverse_dynamics.report import compute_metrics, draw_figure, history_rows, print_report
from parts.inverse_dynamics.tasks import make_tasks, measured_scales
from parts.settings import RecipeSettings, recorded_command, run_command

NUM_EPOCHS = 8


@dataclasses.dataclass(frozen=True)
class Settings(RecipeSettings):
    """The defaults are those of the reacher."""

    robot: Literal["reacher", "sawyer"] = "reacher"
    """The robot arm; the other settings start from those of this arm."""
    support_motions: int = 8
    """Number of motions that a learner trains on."""
    query_motions: int = 8
    """Number of motions that it is scored on."""
    duration: float = 4.0
    """Duration of a motion, s."""
    points_per_motion: int = 8
    """Number of points of a motion."""
    num_train_tasks: int = 256
    """Number of tasks of meta-training."""
    num_tuning_tasks: int = 30
    """Number of tasks that the optimizers on MSE are tuned on."""
    num_test_tasks: int = 50
    """Number of test tasks."""
    inner_steps: int = 200
    """Number of gradient steps of a learner in meta-training."""
    inner_rates: tuple[float, float] = (1e-2, 1e-2)
    """Rates of SGD and Adam for the learned losses, and for MSE at the same rate."""
    unroll: int = 1
    """phi moves after so many inner steps."""
    outer_tasks: int = 8
    """Number of learners at a time in meta-training."""
    outer_lives: tuple[int, int] = (4, 4)
    """Number of times that learners start anew in meta-training, with SGD and with Adam."""
    outer_rate: float = 3e-3
    """First rate of the outer Adam."""
    clip_norm: float = 0.5
    """Largest norm of the outer gradient."""
    beta: float = 1.0
    """Weight of the torque in the shaped task loss, eq. 9."""
    gamma: float = 10.0
    """Weight of the inertia matrix in the shaped task loss, eq. 9."""
    inertia_every: int = 4
    """The inertia matrix is compared on every so many query points."""
    learned_rate: float = 10.0
    """First value of the rate that a loss for SGD learns. The steps of Adam do not depend on it."""
    output_stddev: float = 1e-3
    """Spread of the first output weights of a loss."""
    jit_compile: bool = True
    """Whether to compile meta-training and meta-test with XLA."""
    test_steps: int = 2000
    """Number of gradient steps at meta-test."""
    sgd_rates: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    """The grid for the rate of SGD on MSE; it grows at its ends."""
    adaptive_rates: tuple[float, ...] = (0.005, 0.01, 0.02, 0.04)
    """The same for Adam, AdamW and Muon."""
    optimizer_rates: tuple[float, ...] | None = None
    """Rates of SGD, Adam, AdamW and Muon that are best for MSE. None: tune them."""
    best_optimizer: str | None = None
    """The best of them, by the tuning."""

    preset_field = "robot"

    @classmethod
    def presets(cls) -> Mapping[str, "Settings"]:
        sawyer = cls(
            robot="sawyer",
            support_motions=16,
            outer_tasks=4,
            inner_steps=100,
            outer_lives=(8, 24),
            test_steps=1000,
            num_test_tasks=10,
        )
        return {"reacher": cls(), "sawyer": sawyer}

    def smoke(self) -> "Settings":
        return self.replace(
            num_train_tasks=8,
            num_test_tasks=2,
            num_tuning_tasks=2,
            inner_steps=4,
            outer_lives=(2, 2),
            outer_tasks=2,
            jit_compile=False,
            test_steps=40,
            sgd_rates=self.sgd_rates[:1],
            adaptive_rates=self.adaptive_rates[:1],
        )


def meta_train(
    settings: Settings, shaped: bool, optimizer: str, seed: int, folder: Path, verbose: int
) -> tuple[ml3_tf.MetaLoss, list[float], float]:
    """Returns the learned loss, the task loss for each epoch of meta-training, and the core-minutes."""
    keras.utils.set_random_seed(seed)
    meta_loss = ml3_tf.MetaLoss.mlp(
        (40, 40),
        mode="per_output",
        features={"torque": 1, "target": 1},
        learning_rate=settings.learned_rate if optimizer == "sgd" else None,
        output_initializer=keras.initializers.RandomNormal(stddev=settings.output_stddev),
        name=f"inverse_dynamics_{settings.robot}",
    )
    scales, lives = measured_scales(settings), settings.outer_lives[INNER_OPTIMIZERS.index(optimizer)]
    learner, (steps, unroll) = functools.partial(build_learner, scales), (settings.inner_steps, settings.unroll)
    trainer = ml3_tf.MetaTrainer(learner, meta_loss, inner_steps=steps, unroll=unroll, seed=seed)
    trainer.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(settings.outer_rate, lives * steps // unroll),
            global_clipnorm=settings.clip_norm,
        ),
        loss="mse",
        inner_optimizer=build_inner_optimizer(optimizer, settings),
        extra_loss=inertia_loss(trainer.learner, scales, settings.inertia_every) if shaped else None,
        beta=settings.beta if shaped else 1.0,
        gamma=settings.gamma,
        jit_compile=settings.jit_compile,
    )
    tasks, num_tasks = make_tasks(settings, "train", seed, settings.num_train_tasks), settings.num_train_tasks
    dataset = tf.data.Dataset.from_tensor_slices(tasks).shuffle(num_tasks, seed=seed).repeat()
    epochs, cost = min(NUM_EPOCHS, lives), CoreMinutes()
    history = trainer.fit(
        dataset.batch(settings.outer_tasks, drop_remainder=True),
        steps_per_epoch=lives // epochs,
        epochs=epochs,
        callbacks=[cost],
        verbose=verbose,
        resume=folder,
    )
    return meta_loss, history.history["loss"], cost.total


def run_seed(seed: int, settings: Settings, output_dir: Path, verbose: int) -> Result:
    losses, meta_train_curves, costs = {}, {}, {}
    for optimizer in INNER_OPTIMIZERS:
        for kind in ("shaped", "unshaped"):
            name = f"{kind}_{optimizer}"
            if verbose:
                print(f"{kind} loss for {optimizer}", flush=True)
            losses[name], meta_train_curves[name], costs[name] = meta_train(
                settings, kind == "shaped", optimizer, seed, training_folder(seed, output_dir) / name, verbose
            )
    losses[REPORTED].export(seed_loss_folder(seed, output_dir))
    curves, core_minutes = meta_test(losses, costs[REPORTED], settings, seed)
    return {
        "metrics": compute_metrics(curves, settings),
        "costs": {"core_minutes": core_minutes},
        "meta_train": meta_train_curves,
        "meta_test": curves,
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
    """Learns losses for inverse dynamics, with and without the inertia matrix, and compares them.

    Args:
        settings: The settings.
        seeds: Number of seeds.
        first_seed: The first seed.
        smoke: Run a few steps only, to see that everything works.
        jobs: Number of processes; each takes seeds of its own.
        output_dir: Folder for the results, by default runs/inverse_dynamics_ROBOT. An interrupted run resumes.

    Returns:
        The metrics, name -> one value for each seed.
    """
    command = recorded_command(main, settings, seeds=seeds, first_seed=first_seed, smoke=smoke)
    settings = settings.smoke() if smoke else settings
    output_dir = Path(f"runs/inverse_dynamics_{settings.robot}") if output_dir is None else output_dir
    settings = fill_in(tune, TUNED, settings, output_dir)
    numbers = range(first_seed, first_seed + seeds)
    results = run_seeds(run_seed, numbers, settings, output_dir, jobs=jobs)
    scales = {"scales": measured_scales(settings)._asdict()}
    metrics = write_summary("inverse_dynamics", command, numbers, results, settings, output_dir, further_config=scales)
    write_history(history_rows(numbers, results), output_dir)
    figure_path = save_figure(draw_figure(results, settings), output_dir)
    print_report(metrics, settings)
    print(f"Figure: {figure_path}\nLearned loss (shaped, for Adam): {export_seed_loss(first_seed, output_dir)}")
    return metrics


if __name__ == "__main__":
    run_command(main, description=__doc__)
