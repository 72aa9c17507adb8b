"""Meta-learn a loss from experts that reach four targets, and train policies with it for targets that no expert has
shown (ML3, section 4.2 and figure 6, c and d).

    python recipes/reacher_demonstrations.py                       one seed: five minutes, and ten to tune baselines
    python recipes/reacher_demonstrations.py --seeds 10 --jobs 2   the reported run
    python recipes/reacher_demonstrations.py --demonstrations 1 --seeds 10 --output-dir runs/single_demonstration

A planar arm of two links has to take a pose (two joint angles, rad) within 65 steps of 0.01 s, driven by torques of at
most 1 N m. iLQR with the true model makes expert trajectories for four training targets, one in each quadrant about the
rest pose. The task loss of meta-training is that of behavior cloning: the difference between the torques of the new
policy and the expert's, in the states of the expert. The learned loss does not see the expert. It sees the states,
torques and goal of the policy's own rollout, and where that ended; one network scores either joint. At meta-test it
trains a fresh policy for each of 20 unseen targets, one gradient step after each rollout in the real environment,
without expert, reward, or model (Algorithm 5).

A policy sees the state alone. It is a network of one tanh layer (64 units), squashed to 1 N m. Each outer step trains
16 fresh policies, four for each target, for 20 steps, and differentiates through all of them. There are 16
demonstrations of each target, from starts within 0.3 rad (each joint) of the rest pose. Random torques push the arm
off its course, and the expert answers with the feedback gains of iLQR. The third command has the paper's form: one
undisturbed demonstration of each target. Test targets are uniform within 1.2 rad (each joint) of the rest pose,
training targets between 0.5 and 1.2. All can be reached: iLQR ends within 0.01 rad of each (`ilqr`).

Methods:
    learned: the learned loss.
    cloning: behavior cloning on all demonstrations of the training targets, which is the paper's baseline: one policy,
        which sees the state alone and so cannot know the target.
    goal_cloning: the same, but the policy sees the goal beside the state. It needs no training at meta-test, but an
        architecture that takes a goal.
    taught: policies that see the state alone learn as those of `learned` do, but from the squared difference to the
        torques of the policy of `goal_cloning` in the same states.
    nearest: the distance between a target and the nearest training target, where a perfect clone of its expert would
        go.
    ilqr: iLQR with the true model, the expert itself, which no other method has at test.

Without an expert there is no task loss to descend "at the same rate". Rate and epochs of clones and the rate of
`taught` are those that end nearest on two seeds of their own, 1000 and 1001 ("config", grids in `seeds/tuning/`). The
learned loss is tuned for its own kind of policy alone.

Metrics (`summary.json`, one value per seed; METHOD is one of the above), in the real environment, for `learned` and
`taught` after 20 updates:
    final_distance_METHOD: distance of the last state's angles to the target, rad, mean over 20 unseen targets.
    fingertip_distance_METHOD: the same for the place of the fingertip, m.
    reached_METHOD: share of them that end within 0.1 rad.
    trained_final_distance_METHOD, trained_fingertip_distance_METHOD, trained_reached_METHOD: for the training targets.
    later_final_distance_METHOD: `final_distance` after 40 updates, twice as many as were trained for (`learned`,
        `taught`).
    linear_final_distance_METHOD, deep_final_distance_METHOD, trigonometric_final_distance_METHOD,
        without_velocity_final_distance_METHOD, muscles_final_distance_METHOD: of other policies (`build_other_policy`),
        over ten of the targets; `goal_cloning` clones the experts anew, tuned for that policy.
    heavy_final_distance_METHOD, weak_final_distance_METHOD, long_final_distance_METHOD, stiff_final_distance_METHOD,
        sprung_final_distance_METHOD: of other arms (`ARMS`), with losses and clone as they are.
    imitation_error_METHOD: mean squared difference to the experts' torques, (N m)^2: of `learned` at the end of
        meta-training, of `cloning` and `goal_cloning` on all demonstrations.

Expected result, ten seeds: 0.07 rad (0.035 after 40 updates; the worst seed 0.095), where cloning has 0.92, `taught`
0.21 and the nearest training target 0.60. A clone that sees the goal is nearer, at once (0.025), on other arms, too. So
it is, cloned anew, for other policies, but for one that sees sines and cosines, where the loss has 0.09 and the clone
0.50 (rates down to 3e-5 and 120 epochs were no better for it), and one without velocities (0.15 and 0.18).

Departures from the paper, which names little: one network for both joints; several disturbed demonstrations instead of
one; fresh policies in each outer step; the loss also sees where a rollout ended; more baselines, policies and arms.

Files: `summary.json`, `history.csv`, `figure.png`, `seeds/experts_SEED.npz`, and the first seed's loss in `meta_loss/`.
"""

import dataclasses
import functools
from pathlib import Path

import gymnasium
import keras
import numpy as np

import ml3_tf
from ml3_tf.envs import reacher
from ml3_tf.rl import DemonstrationTrainer, get_loss_inputs, meta_test_in_env
from parts.experiment import (
    Metrics,
    Result,
    export_seed_loss,
    fill_in,
    run_seeds,
    seed_loss_folder,
    training_folder,
    write_history,
    write_summary,
)
from parts.reacher_demonstrations.baselines import BuildPolicy, run_baselines, tune
from parts.reacher_demonstrations.figure import draw_figure
from parts.reacher_demonstrations.morphology import POLICIES, build_other_policy, score_others
from parts.reacher_demonstrations.report import history_rows, print_report
from parts.reacher_demonstrations.settings import BaselineSettings
from parts.reacher_demonstrations.task import (
    HORIZON,
    Experts,
    build_policy,
    draw_outer_steps,
    draw_starts,
    draw_targets,
    final_distances,
    make_env,
    make_experts,
    scores,
)
from parts.settings import recorded_command, run_command

LOSS_INPUTS = get_loss_inputs("reacher_demonstrations")
NUM_EPOCHS = 20
META_TEST_SEED = 10_000  # and above: of policies that meta-training has not drawn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(BaselineSettings):
    """Settings of this recipe; those of experts and baselines are in `BaselineSettings`."""

    hidden_units: tuple[int, ...] = (40, 40)
    """Widths of the hidden layers of the loss."""
    output_stddev: float = 0.01
    """Standard deviation of the first output weights of the loss. With large ones, the loss makes arms spin."""
    inner_steps: int = 20
    """Steps of a policy in meta-training."""
    inner_rate: float = 2.0
    """Rate of SGD, which trains the policies."""
    num_tasks: int = 16
    """Policies of an outer step."""
    outer_steps: int = 800
    """Outer steps of meta-training."""
    outer_rate: float = 2e-3
    """Initial rate of Adam, which trains the loss; it falls to zero along a cosine."""
    outer_clipnorm: float = 1.0
    """Largest norm of the meta-gradient."""
    test_steps: int = 40
    """Updates of a policy at meta-test."""
    jit_compile: bool = True
    """Whether meta-training is compiled with XLA."""

    def smoke(self) -> "Settings":
        return self.replace(
            inner_steps=2,
            num_tasks=4,
            outer_steps=2,
            demonstrations=2,
            num_targets=3,
            test_steps=3,
            reported_step=2,
            cloning_rates=(1e-2,),
            cloning_passes=(2, 4),
            taught_rates=(1.0,),
            num_tuning_seeds=1,
            jit_compile=False,
        )


def build_inner_optimizer(settings: Settings) -> keras.optimizers.Optimizer:
    """Builds the optimizer of the policies."""
    return keras.optimizers.SGD(settings.inner_rate, clipnorm=settings.inner_clipnorm)


def meta_train(
    experts: Experts, settings: Settings, seed: int, folder: Path, *, verbose: int
) -> tuple[ml3_tf.MetaLoss, list[float]]:
    """Returns the learned loss, and the task loss for each epoch of meta-training."""
    keras.utils.set_random_seed(seed)
    meta_loss = ml3_tf.MetaLoss.mlp(
        settings.hidden_units,
        mode="per_output",
        output_initializer=keras.initializers.RandomNormal(stddev=settings.output_stddev),
        features=LOSS_INPUTS,
        name="reacher_demonstrations",
    )
    trainer = DemonstrationTrainer(
        lambda: build_policy(settings.policy_units),
        meta_loss,
        dynamics=reacher.reacher_step,
        horizon=HORIZON,
        loss_inputs=LOSS_INPUTS,
        inner_steps=settings.inner_steps,
        seed=seed,
    )
    steps = settings.outer_steps
    rate = keras.optimizers.schedules.CosineDecay(settings.outer_rate, steps)
    trainer.compile(
        keras.optimizers.Adam(rate, global_clipnorm=settings.outer_clipnorm),
        "mse",
        build_inner_optimizer(settings),
        jit_compile=settings.jit_compile,
        steps_per_execution=5 if steps % (5 * NUM_EPOCHS) == 0 else 1,
    )
    epochs = min(NUM_EPOCHS, steps)
    tasks = draw_outer_steps(experts, seed, num_tasks=settings.num_tasks, outer_steps=steps)
    history = trainer.fit(tasks, steps_per_epoch=steps // epochs, epochs=epochs, verbose=verbose, resume=folder)
    return meta_loss, history.history["loss"]


def meta_test(
    meta_loss: ml3_tf.MetaLoss,
    settings: Settings,
    env: gymnasium.vector.VectorEnv,
    *,
    num_steps: int,
    seed: int,
    policy: BuildPolicy | None = None,
) -> np.ndarray:
    """Trains N fresh policies in the real environment, by Algorithm 5: states `[num_steps + 1, N, T + 1, 4]`."""
    return meta_test_in_env(
        policy or (lambda: build_policy(settings.policy_units)),
        meta_loss,
        build_inner_optimizer(settings),
        env,
        num_steps=num_steps,
        horizon=HORIZON,
        loss_inputs=LOSS_INPUTS,
        seed=seed,
    ).observations


def run_tuning(_: str, settings: BaselineSettings, output_dir: Path, verbose: int) -> Result:
    """Finds rates and epochs of the baselines."""
    return tune(settings, {kind: functools.partial(build_other_policy, kind, sees_goal=True) for kind in POLICIES})


def run_seed(seed: int, settings: Settings, output_dir: Path, verbose: int) -> Result:
    """Learns a loss from the experts of one seed, and tests all methods."""
    experts = make_experts(seed, demonstrations=settings.demonstrations, pushes=settings.pushes)
    np.savez_compressed(output_dir / "seeds" / f"experts_{seed}.npz", **experts)
    meta_loss, curve = meta_train(experts, settings, seed, training_folder(seed, output_dir), verbose=verbose)
    meta_loss.export(seed_loss_folder(seed, output_dir))
    trained, unseen = draw_targets(seed, settings.num_targets)
    targets = np.concatenate([unseen, trained])
    starts, test_seed = draw_starts([seed, 4], len(targets)), META_TEST_SEED + seed
    learn = functools.partial(meta_test, meta_loss, settings, seed=test_seed)
    baselines, errors = run_baselines(
        experts, settings, starts, targets, num_steps=settings.test_steps, seed=seed, test_seed=test_seed
    )
    paths = {"learned": learn(make_env(starts, targets), num_steps=settings.test_steps), **baselines}
    metrics = {f"imitation_error_{name}": error for name, error in {"learned": curve[-1], **errors}.items()}
    for method, states in paths.items():
        reported = states[min(settings.reported_step, len(states) - 1)]
        for prefix, part in (("", slice(len(unseen))), ("trained_", slice(len(unseen), None))):
            values = scores(reported[part], targets[part])
            metrics |= {f"{prefix}{name}_{method}": value for name, value in values.items()}
        if len(states) > 1:
            last = final_distances(states[-1, : len(unseen)], unseen)
            metrics[f"later_final_distance_{method}"] = float(np.mean(last))
    first = slice(min(settings.num_other_targets, len(unseen)))
    metrics |= score_others(learn, experts, settings, starts[first], unseen[first], seed=seed, test_seed=test_seed)
    return {
        "metrics": metrics,
        "meta_train": curve,
        "targets": {"trained": trained.tolist(), "unseen": unseen.tolist()},
        "distances": {method: final_distances(states, targets).tolist() for method, states in paths.items()},
        "paths": paths["learned"][settings.reported_step, ..., :2].tolist(),
    }


def main(
    settings: Settings = Settings(),
    *,
    seeds: int = 1,
    first_seed: int = 0,
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("runs/reacher_demonstrations"),
) -> Metrics:
    """Meta-learns losses from demonstrations, and trains policies with them for other targets.

    Args:
        settings: The settings.
        seeds: Number of seeds.
        first_seed: The first seed.
        smoke: Run a few steps only, to see that everything works.
        jobs: Number of processes; each runs seeds of its own.
        output_dir: Folder of the results. An interrupted run resumes from it.

    Returns:
        The metrics, name -> one value per seed.

    Raises:
        ValueError: There are no demonstrations.
    """
    command = recorded_command(main, settings, seeds=seeds, first_seed=first_seed, smoke=smoke)
    if (number := settings.demonstrations) < 1:
        raise ValueError(f"`demonstrations` must be at least 1, for each target. Received: {number}")
    settings = settings.replace(pushes=0.0) if number == 1 else settings
    settings = settings.smoke() if smoke else settings
    output_dir, numbers = Path(output_dir), range(first_seed, first_seed + seeds)
    names = ("cloning", "goal_cloning", "taught", "other_cloning")
    tuned = fill_in(run_tuning, names, settings.restricted_to(BaselineSettings), output_dir / "seeds" / "tuning")
    settings = settings.replace(**{name: getattr(tuned, name) for name in names})
    results = run_seeds(run_seed, numbers, settings, output_dir, jobs=jobs)
    metrics = write_summary("reacher_demonstrations", command, numbers, results, settings, output_dir)
    write_history(history_rows(numbers, results), output_dir)
    draw_figure(results, settings, num_updates=settings.test_steps).savefig(output_dir / "figure.png")
    loss_path = export_seed_loss(first_seed, output_dir)
    print_report(metrics, settings.inner_rate, settings.inner_clipnorm, output_dir, loss_path)
    return metrics


if __name__ == "__main__":
    run_command(main, description=__doc__)
