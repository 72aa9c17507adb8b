"""Meta-learn a loss that drives a weak car up its hill, in a model, and train fresh policies with it in the real
environment (ML3, section 4.2 and figure 6, a and b).

    python recipes/mountain_car.py                             one seed, about six minutes with the tuning
    python recipes/mountain_car.py --seeds 10 --jobs 2         the reported run
    python recipes/mountain_car.py --setting paper             the paper's own setting alone

The car is too weak for the hill on its right: it has to swing to the left first, away from the goal. The *shaped* task
loss of meta-training knows this. It wants the first 14 steps near a place high on the left slope, and the rest at the
goal (position 0.5 m, velocity 1.0375 m/s, to be reached within 35 steps of 0.1 s). The learned loss keeps the
knowledge. At meta-test a fresh policy takes gradient steps with the learned loss alone, one rollout in the environment
each, without task loss, reward, or model (Algorithm 5).

Methods:
    shaped: the loss learned with the shaped task loss.
    unshaped: the same, but the task loss is the distance to the goal throughout.
    paper_setting: the shaped loss in the setting of the paper and its public reference: linear policies of two layers
        (200 units), force clipped, raw inputs, one inner step of rate 1e-3, Adam at 1e-3, 300 outer steps; the loss
        sees the final distance instead of the final error.
    task_sgd, task_adam, task_adamw, task_muon: no learned loss, but the shaped task loss itself, with its weights at
        the beginning of meta-training or at the end. These optimizers descend it through the true model, for fresh
        policies of the same form. Each has the rate that ends nearest to the goal after 10 updates from 40 other random
        starts; all have the weights with which the best of them ends nearest.
    ilqr: control-limited iLQR with the true model, from zero force. It plans each trajectory anew.

A policy of the first two is a network of one tanh layer (64 units), whose output is squashed, `0.25 N tanh(z)`. Each
outer step trains 24 policies for 20 steps; phi moves after each. Policies live for 20 to 60 steps, then fresh ones and
other starts take their place: a loss that only sees the first 20 steps of a policy may drive it away from the goal
later. States that an inner step visits count as data, as in the environment, so that meta-training teaches what
meta-test does. For each time step the learned loss sees force, state, and where the rollout ended, as its last state
minus the goal. After 30 % of meta-training the end of a rollout begins to count in the task loss, and starts are drawn
from a wider range. Settings were chosen with seeds of 100 and more.

Expected result, ten seeds: after 10 updates all policies of `shaped` end at the goal (strict), from the paper's start
and from random ones, and after 30 updates they are still there; after 100 it is 93 % of them. The policies of
`unshaped` get there on three seeds, those of `paper_setting` on none. No optimizer brings a policy there in 10 updates
from the paper's start: the task loss itself first leads away from the goal. At the best of 30 updates Adam has 72 %
there, but passes by; Muon has 37 % there after 30 updates, and 1 % after 100.

Metrics (`summary.json`, one value per seed; METHOD is one of the above), in the environment, after 10 updates, which
are the horizon of meta-test:
    final_distance_METHOD: distance of the last state to the goal (position in m, velocity in m/s), median over 20
        fresh policies from the paper's start, at rest at -0.55 m.
    reach_rate_METHOD: share of them that reach the goal's position.
    strict_rate_METHOD: share of them whose final distance is below 0.1.
    final_distance_METHOD_30, final_distance_METHOD_100, strict_rate_METHOD_30, strict_rate_METHOD_100: the same after
        three and ten times as many updates.
    best_final_distance_METHOD, best_final_distance_METHOD_30, best_final_distance_METHOD_100, best_strict_rate_METHOD,
        best_strict_rate_METHOD_30, best_strict_rate_METHOD_100: the best of these up to then.
    random_start_...: each of them from starts at rest between -0.6 and -0.4 m (those of Gymnasium's MountainCar),
        another for each policy.
    ilqr_iterations, ilqr_model_calls: its cost from the paper's start: iterations, and evaluated steps of the model.
    ilqr_weightings: share of 36 weightings of its cost (force, distance along the way, distance at the end) with which
        it ends within 0.1 of the goal.
    "costs", beside the metrics: core-minutes, and samples (steps of the car's equations, in the car or in the model),
        of meta-training, and of training one policy from the paper's start until it ends as near to the goal as the
        best optimizer on the task loss (for the other starts) ever brings it, see `parts/costs.py`. After 10 updates
        that optimizer is still on its way, farther from the goal than a fresh policy.

Departures from the paper: policies are fresh in every outer step and at test (the reference trains and tests one fixed
policy); inner gradients do not flow through the model, which is not there at test (in the reference they do); the
improved setting changes policy, scales, penalty and end of the task loss as said; iLQR, which the paper says fails
here, does not. The paper names neither weights nor scales.

Files: `summary.json`, `history.csv`, `figure.png`, `car.gif`, and the shaped loss of the first seed in `meta_loss/`.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

import ml3_tf
from ml3_tf.envs import mountain_car
from parts.experiment import Metrics, Result, fill_in, run_seeds, training_folder, write_history, write_summary
from parts.mountain_car.baselines import (
    BASELINES,
    TUNED_SETTINGS,
    count_costs,
    train_baseline,
    train_baselines,
    tune,
)
from parts.mountain_car.figure import draw_figure, write_animation
from parts.mountain_car.report import STARTS, compute_metrics, history_rows, print_report
from parts.mountain_car.settings import PAPER, LossSettings
from parts.mountain_car.task import ILQR_GRID, draw_starts, plan, scores
from parts.mountain_car.training import Trained, make_env, meta_test, meta_train
from parts.settings import RecipeSettings, recorded_command, run_command
from parts.tuned_optimizers import ADAPTIVE_RATES, OPTIMIZERS, SGD_RATES


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanSettings(RecipeSettings):
    """The settings of iLQR."""

    num_policies: int = 20
    """Fresh policies for each kind of start; iLQR plans for as many random starts."""
    num_weightings: int = len(ILQR_GRID)
    """Weightings of the cost of iLQR that are tried, at most 36."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(PlanSettings):
    """Settings of this recipe."""

    setting: Literal["improved", "paper"] = "improved"
    """The methods to start from: `improved` for all of them, `paper` for the setting of the paper alone."""
    methods: tuple[Literal["shaped", "unshaped", "paper_setting"], ...] = ("shaped", "unshaped", "paper_setting")
    """The losses to be learned."""
    improved: LossSettings = LossSettings()
    """Settings of `shaped` and `unshaped`."""
    paper: LossSettings = PAPER
    """Settings of `paper_setting`."""
    test_steps: int = 100
    """Updates of a policy at meta-test."""
    reported_step: int = 10
    """The horizon of meta-test: updates after which the metrics are measured; fewer than the inner steps."""
    num_tuning_policies: int = 40
    """Policies and other starts with which the optimizers of the task loss are tuned."""
    sgd_rates: tuple[float, ...] = SGD_RATES
    """Where the search for the rate of SGD begins, see `tune_optimizers`."""
    adaptive_rates: tuple[float, ...] = ADAPTIVE_RATES
    """The same for all other optimizers."""
    optimizer_rates: tuple[float, ...] | None = None
    """Rates of `task_sgd`, `task_adam`, `task_adamw` and `task_muon`. None: tune them."""
    best_optimizer: str | None = None
    """The one of these that ends nearest to the goal, without `task_`. None: found as the rates are."""
    task_loss_stage: float | None = None
    """The share of meta-training at which the task loss has the weights of these. None: found as the rates are."""

    preset_field = "setting"

    @classmethod
    def presets(cls) -> Mapping[str, "Settings"]:
        return {"improved": cls(), "paper": cls(setting="paper", methods=("paper_setting",))}

    def smoke(self) -> "Settings":
        return self.replace(
            methods=tuple(name for name in self.methods if name != "unshaped"),
            improved=self.improved.smoke(),
            paper=self.paper.smoke(),
            test_steps=3,
            reported_step=2,
            num_policies=3,
            num_weightings=2,
            num_tuning_policies=3,
            sgd_rates=self.sgd_rates[:1],
            adaptive_rates=self.adaptive_rates[:1],
        )

    def loss_settings(self, method: str) -> LossSettings:
        """Returns the settings of one of the losses."""
        if method == "paper_setting":
            return self.paper
        return dataclasses.replace(self.improved, shaped=method == "shaped")


def run_ilqr(seed: int, settings: PlanSettings, output_dir: Path, verbose: int) -> Result:
    """Plans from the starts of one seed by iLQR."""
    numbers = {"nominal": 1, "random": settings.num_policies}
    plans = {kind: plan(draw_starts(kind, seed, number)) for kind, number in numbers.items()}
    metrics = {}
    for kind, prefix in STARTS.items():
        metrics |= _named(scores(plans[kind].states), prefix, "ilqr")
    nominal = plans["nominal"]
    metrics |= {"ilqr_iterations": int(nominal.iterations[0]), "ilqr_model_calls": int(nominal.model_calls[0])}
    return {"metrics": metrics, "path": nominal.states[0].tolist()}


def run_weightings(_: str, settings: PlanSettings, output_dir: Path, verbose: int) -> Result:
    """Measures the share of weightings with which iLQR ends at the goal from the paper's start."""
    grid = ILQR_GRID[: settings.num_weightings]
    rates = [scores(plan(draw_starts("nominal", 0, 1), weights).states)["strict_rate"] for weights in grid]
    return {"share": float(np.mean(rates))}


def run_seed(seed: int, settings: Settings, output_dir: Path, verbose: int) -> Result:
    """Learns each loss, and trains fresh policies with it in the environment, and with the task loss."""
    starts = np.concatenate([draw_starts(kind, seed, settings.num_policies) for kind in STARTS])
    trained, states = {}, {}
    for name in settings.methods:
        loss_settings, folder = settings.loss_settings(name), training_folder(seed, output_dir) / name
        trained[name] = meta_train(loss_settings, seed, folder, verbose=verbose)
        trained[name].meta_loss.export(_loss_folder(output_dir, name, seed))
        states[name] = meta_test(
            trained[name].meta_loss, loss_settings, make_env(starts), seed, num_steps=settings.test_steps
        )
    states |= train_baselines(settings, starts, seed)
    results = {"metrics": {}, "distances": {}, "paths": {}}
    results["meta_train"] = {name: each.task_losses for name, each in trained.items()}
    for name, rollouts in states.items():
        add_method(results, name, rollouts, settings)
    results["costs"] = measure_costs(trained[settings.methods[0]], results["distances"], settings, seed)
    return results


def add_method(results: Result, name: str, states: np.ndarray, settings: Settings) -> None:
    """Adds the metrics, distances and path of one method; `states` are `[updates + 1, policies, T + 1, 2]`."""
    reported = settings.reported_step
    for prefix, part in zip(STARTS.values(), np.split(states, len(STARTS), axis=1)):
        results["metrics"] |= compute_metrics(prefix, name, part, reported)
        distances = np.linalg.norm(part[:, :, -1] - mountain_car.GOAL, axis=-1)
        results["distances"][f"{prefix}{name}"] = distances.tolist()
    results["paths"][name] = states[reported, 0].tolist()  # that of the first policy, whatever it does


def measure_costs(
    trained: Trained, distances: Mapping[str, list], settings: Settings, seed: int
) -> dict[str, dict[str, float | None]]:
    """Returns the costs of the first loss, and of the best optimizer on the task loss, from the paper's start."""
    learned, best = settings.methods[0], settings.best_optimizer
    starts, loss_settings = draw_starts("nominal", seed, settings.num_policies), settings.loss_settings(learned)
    rate = settings.optimizer_rates[list(OPTIMIZERS).index(best)]
    train = {
        "learned": lambda env, steps: meta_test(trained.meta_loss, loss_settings, env, seed, num_steps=steps),
        "baseline": lambda env, steps: train_baseline(
            OPTIMIZERS[best](rate), settings.improved, env, seed, num_steps=steps, stage=settings.task_loss_stage
        ),
    }
    compared = {"learned": np.array(distances[learned]), "baseline": np.array(distances[f"task_{best}"])}
    return count_costs(trained.costs, train, starts, distances=compared)


def _named(metrics: Mapping[str, float], prefix: str, method: str) -> dict[str, float]:
    return {f"{prefix}{name}_{method}": value for name, value in metrics.items()}


def _loss_folder(output_dir: Path, method: str, seed: int) -> Path:
    return output_dir / "seeds" / f"{method}_{seed}" / "mountain_car"


def main(
    settings: Settings = Settings(),
    *,
    seeds: int = 1,
    first_seed: int = 0,
    smoke: bool = False,
    jobs: int = 1,
    output_dir: Path = Path("runs/mountain_car"),
) -> Metrics:
    """Meta-learns losses for the mountain car and trains fresh policies with them.

    Args:
        settings: The settings.
        seeds: Number of seeds.
        first_seed: The first seed.
        smoke: Run a few steps only, to see that everything works.
        jobs: Number of processes; each runs seeds of its own.
        output_dir: Folder of the results. An interrupted run resumes from it.

    Returns:
        The metrics, name -> one value per seed.
    """
    command = recorded_command(main, settings, seeds=seeds, first_seed=first_seed, smoke=smoke)
    settings = settings.smoke() if smoke else settings
    output_dir, numbers, methods = Path(output_dir), range(first_seed, first_seed + seeds), settings.methods
    settings = fill_in(tune, TUNED_SETTINGS, settings, output_dir)
    results = run_seeds(run_seed, numbers, settings, output_dir, jobs=jobs)
    plan_settings = PlanSettings(num_policies=settings.num_policies, num_weightings=settings.num_weightings)
    plan_folder = output_dir / "seeds" / "ilqr"
    planned = run_seeds(run_ilqr, numbers, plan_settings, plan_folder, jobs=jobs)
    [weightings] = run_seeds(run_weightings, ["weightings"], plan_settings, plan_folder)
    for result, plans in zip(results, planned):
        result["metrics"] |= {**plans["metrics"], "ilqr_weightings": weightings["share"]}
    metrics = write_summary("mountain_car", command, numbers, results, settings, output_dir)
    write_history(history_rows(numbers, results), output_dir)
    drawn, reported = (*methods, f"task_{settings.best_optimizer}"), settings.reported_step
    draw_figure(results, planned[0]["path"], drawn, reported_step=reported).savefig(output_dir / "figure.png")
    write_animation(results[0]["paths"][methods[0]], output_dir / "car.gif")
    first_loss = ml3_tf.load_meta_loss(_loss_folder(output_dir, methods[0], first_seed))
    loss_path = first_loss.export(output_dir / "meta_loss")
    print_report(metrics, (*methods, *BASELINES), settings.loss_settings(methods[0]), output_dir, loss_path)
    return metrics


if __name__ == "__main__":
    run_command(main, description=__doc__)
