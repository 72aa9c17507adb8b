"""`recipes/pointmass.py` at toy size, what it shares with others, and what its committed results promise."""

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import keras
import numpy as np
import pointmass
import pytest
import tensorflow as tf

import ml3_tf
from ml3_tf.envs.pointmass import MAX_GOAL, pointmass_step
from ml3_tf.rl import Trajectory
from parts.costs import UpdateClock
from parts.goal_reaching import measures, meta_testing
from parts.goal_reaching.experiment import meta_train
from parts.goal_reaching.meta_testing import BASELINES, METHODS
from parts.pointmass import figure, task

ROOT = Path(__file__).parents[2]
EXPERIMENT = pointmass.EXPERIMENT
RESULTS = ROOT / "results" / "pointmass" / "summary.json"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pointmass")
    return folder, pointmass.main(smoke=True, output_dir=folder)


def test_it_writes_what_a_recipe_writes(run):
    folder, metrics = run
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["recipe"] == "pointmass"
    assert summary["command"] == "python recipes/pointmass.py --smoke"
    assert summary["metrics"] == metrics
    assert all(len(values) == 1 and np.isfinite(values).all() for values in metrics.values())
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert len(rows) == 2 * 10 * 3 * 2  # sides, methods, rollouts, policies
    assert summary["costs"]["samples"]["meta_train"] == [(4 + 1) * 2 * task.HORIZON]  # random and refit, two episodes
    assert summary["costs"]["samples"]["baseline"] == [0]
    assert summary["config"]["best_baseline"] in BASELINES
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert ml3_tf.load_meta_loss(folder / "meta_loss").features == task.LAYOUTS["absolute"].features


def test_an_interrupted_run_resumes_with_the_same_numbers(run, monkeypatch):
    folder, metrics = run
    for name in ("run_seed", "run_tuning"):
        monkeypatch.setattr(pointmass, name, None)  # nothing is left to run
    assert pointmass.main(smoke=True, output_dir=folder) == metrics


def test_every_metric_is_explained(run):
    for name in run[1]:
        pattern = re.sub("_2$", "_50", name.removeprefix("trained_side_"))  # a smoke run ends after two updates
        pattern = re.sub(rf"distance_({'|'.join(METHODS)})(?=$|_50)", "distance_METHOD", pattern)
        assert re.search(rf"\n    [^:\n]*\b{pattern}\b[^:\n]*: ", pointmass.__doc__), name
    for method in METHODS:
        assert re.search(rf"\n    [^:\n]*\b{method}\b[^:\n]*: ", pointmass.__doc__), method
    assert "trained_side_" in pointmass.__doc__


def test_the_same_seed_gives_the_same_loss(run, tmp_path):
    kept = ml3_tf.load_meta_loss(run[0] / "seeds" / "meta_loss_0")
    again = meta_train(EXPERIMENT, pointmass.Settings().smoke(), 0, tmp_path, verbose=0)
    for pair in zip(kept.network.get_weights(), again.meta_loss.network.get_weights()):
        np.testing.assert_array_equal(*pair)


def test_goals_and_starts_lie_on_their_sides():
    generator = np.random.default_rng(0)
    starts, goals = task.train_tasks(generator, 200)
    assert (starts[:, 0] >= 0).all() and (goals[:, 0] >= 0).all()
    assert np.abs(goals - starts[:, :2]).max() <= MAX_GOAL
    assert (goals[:, 0] < starts[:, 0]).mean() > 0.3  # ways to the left are among them
    for prefix, side in (("", -1), ("trained_side_", 1)):
        starts, goals = EXPERIMENT.test_tasks[prefix](generator, 50)
        assert (side * goals[:, 0] >= 0).all()
        np.testing.assert_array_equal(starts, 0)


def test_what_the_losses_see():
    """Moved as a whole, start and goal give the same relative inputs; the absolute ones are states and goals."""
    states = np.random.default_rng(0).normal(size=(1, 1, 4, 4)).astype("float32")
    move = np.array([0.5, -2.0, 0.0, 0.0], "float32")
    goal = np.array([[[0.3, 0.4]]], "float32")
    trajectory = Trajectory(tf.constant(states), None, None, tf.constant(goal), None)
    moved = trajectory._replace(observations=states + move, goal=goal + move[:2])
    inputs = {
        layout: [task.LAYOUTS[layout](each).numpy() for each in (trajectory, moved)]
        for layout in ("relative", "absolute")
    }
    np.testing.assert_allclose(*inputs["relative"], atol=1e-6)
    np.testing.assert_allclose(
        inputs["relative"][0][0, 0, 0], [*(goal[0, 0] - states[0, 0, 0, :2]), *states[0, 0, 0, 2:]]
    )
    np.testing.assert_allclose(inputs["absolute"][0][0, 0, 0], [*states[0, 0, 0], *goal[0, 0]])


def test_the_cost_is_that_of_its_definition():
    states = np.zeros((1, 1, 3, 4), "float32")
    states[0, 0, 1:] = [[0.3, 0.4, 0.0, 0.0], [0.6, 0.8, 3.0, 4.0]]
    trajectory = Trajectory(states, np.full((1, 1, 2, 2), 0.5, "float32"), None, np.zeros((1, 1, 2), "float32"), None)
    weights = {"path_weight": 2.0, "end_weight": 3.0, "end_width": 0.0, "speed_weight": 0.1, "saturation_weight": 4.0}
    cost = EXPERIMENT.task_loss(trajectory, pointmass.Settings(**weights))
    expected = 2.0 * (0.5 + 1.0) / 2 + 3.0 * np.log(1.0) + 0.1 * 25.0 + 4.0 * 0.5**4
    np.testing.assert_allclose(cost, [[expected]], rtol=1e-6)


def test_tuning_takes_the_rate_and_the_clipping_that_end_nearest(monkeypatch):
    ends = {None: [0.5, 0.2, 0.4], 0.5: [0.6, 0.3, 0.1]}
    asked = []

    def distances_at_rates(experiment, settings, method, dynamics, tasks, clipnorm):
        asked.append((method, clipnorm, len(tasks[1])))
        return ends[clipnorm] if method == "tuned" else ends[None]

    def train(experiment, settings, method, dynamics, env, optimizer, *, num_steps, seed):
        """All policies end beside their goals, nearest at a rate of 0.05."""
        assert type(optimizer).__name__.lower() == method.removesuffix("_squared") and num_steps == 5
        offset = 0.3 - (method == "adamw_squared") * 0.25 + abs(np.log(float(optimizer.learning_rate) / 0.05))
        last = np.array([task["goal"] for task in env.get_attr("task")]) + [offset, 0.0]
        return np.broadcast_to(last[np.newaxis, :, np.newaxis], (num_steps + 1, len(last), 3, 2))

    monkeypatch.setattr(meta_testing, "RATES", [1e-3, 0.01, 0.1])
    monkeypatch.setattr(meta_testing, "distances_at_rates", distances_at_rates)
    monkeypatch.setattr(meta_testing, "_train_baseline", train)
    tuned = meta_testing.tune(EXPERIMENT, pointmass.Settings(), dynamics=None)
    assert tuned["tuned"] == (0.1, 0.5)
    assert tuned["tuned_squared"][0] == 0.01
    assert set(asked) == {(name, clip, 50) for name in ("tuned", "tuned_squared") for clip in (None, 0.5)}
    assert tuned["distances"]["tuned"]["None"] == ends[None]
    assert tuned["optimizer_rates"] == tuned["optimizer_rates_squared"] == [0.05] * 3
    assert tuned["best_baseline"] == "adamw_squared" and set(tuned["nearest"]) == set(BASELINES)


def test_each_baseline_has_its_own_optimizer_and_rate():
    settings = pointmass.Settings(
        tuned=(0.1, 0.5),
        tuned_squared=(0.2, None),
        optimizer_rates=(0.3, 0.4, 0.5),
        optimizer_rates_squared=(0.6, 0.7, 0.8),
    )
    built = {name: meta_testing.build_optimizer(name, settings) for name in METHODS}
    rates = {name: round(float(optimizer.learning_rate), 6) for name, optimizer in built.items()}
    assert rates == {
        **{"learned": 0.1, "same_rate": 0.1, "tuned": 0.1, "adam": 0.3, "adamw": 0.4, "muon": 0.5},
        **{"tuned_squared": 0.2, "adam_squared": 0.6, "adamw_squared": 0.7, "muon_squared": 0.8},
    }
    assert [built[name].clipnorm for name in ("learned", "same_rate", "tuned", "tuned_squared")] == [0.5] * 3 + [None]
    assert type(built["muon_squared"]).__name__ == "Muon"


def test_last_and_best_at_once_three_and_ten_times_the_horizon():
    distances = np.linspace(10.0, 0.0, 51)[:, np.newaxis] + [-1.0, 1.0]
    distances[[3, 12]] = [[0.5, 1.5], [0.0, 1.0]]
    found = measures.compute_metrics("side_", "adam", distances, pointmass.Settings())
    curve = np.linspace(10.0, 0.0, 51)
    expected = {
        **{"initial_distance": 10.0, "later_final_distance_adam": curve[20]},
        **{"final_distance_adam": curve[5], "best_final_distance_adam": 1.0},
        **{"final_distance_adam_15": curve[15], "best_final_distance_adam_15": 0.5},
        **{"final_distance_adam_50": 0.0, "best_final_distance_adam_50": 0.0},
    }
    assert found == {f"side_{name}": pytest.approx(value) for name, value in expected.items()}


def test_a_use_costs_episodes_until_it_is_as_good_as_the_best_baseline(monkeypatch):
    """The baseline has 2 at the horizon of 5 and is there after 4 updates; the learned loss has 2 after 7."""
    asked = []

    def train(_, settings, method, *rest, env, **options):
        assert isinstance(env, UpdateClock) and env.num_envs == 2
        asked.append((method, settings.test_steps))

    monkeypatch.setattr(measures, "meta_test", train)
    monkeypatch.setattr(UpdateClock, "core_minutes", 0.5)
    baseline, learned = [9, 8, 7, 6, 2, 2, 1], [9, 8, 7, 6, 5, 4, 3, 2, 1]
    distances = {"baseline": baseline, "learned": learned}
    distances = {role: np.array(values)[:, np.newaxis] + [-0.5, 0.5] for role, values in distances.items()}
    trained = SimpleNamespace(costs={"core_minutes": 3.0, "samples": 400})
    tasks, settings = (np.zeros((2, 4)), np.zeros((2, 2))), pointmass.Settings(best_baseline="muon")
    costs = measures.count_costs(EXPERIMENT, settings, trained, tasks, distances)
    assert costs["core_minutes"] == {"meta_train": 3.0, "learned": 3.5, "baseline": 2.0}
    assert costs["samples"] == {"meta_train": 400, "learned": 7 * task.HORIZON, "baseline": 0}
    assert asked == [("learned", 10), ("muon", 10)]
    distances["learned"] = distances["learned"][:6]
    never = measures.count_costs(EXPERIMENT, settings, trained, tasks, distances)
    assert never["core_minutes"]["learned"] is None and never["samples"]["learned"] is None


def test_a_rate_that_diverges_is_no_choice(monkeypatch):
    monkeypatch.setattr(meta_testing, "RATES", [1e-4, 0.005, 1e6])
    tasks = EXPERIMENT.test_tasks[""](np.random.default_rng(0), 3)
    settings, exact = pointmass.Settings(reported_step=2), SimpleNamespace(next_states=pointmass_step)
    distances = meta_testing.distances_at_rates(EXPERIMENT, settings, "tuned_squared", exact, tasks, None)
    assert np.isfinite(distances).all()
    assert distances.argmin() == 1


def test_the_figure_of_a_loss_shows_what_it_prefers():
    """Of a loss that knows no more than `|a - (g - x)|^2`, arrows from everywhere to the goal."""

    class Nearest:
        def call(self, y_true, y_pred):
            return np.sum((y_pred - (y_true[:, 4:] - y_true[:, :2])) ** 2, -1)

    axes = figure.draw_loss(Nearest()).axes
    arrows = axes[0].collections[0]
    ways = np.array(figure.GOAL) - np.column_stack([arrows.X, arrows.Y])
    near = np.abs(ways).max(1) < 0.9  # within the limits of the acceleration
    np.testing.assert_allclose(np.column_stack([arrows.U, arrows.V])[near], ways[near], atol=0.06)
    assert len(axes[2].lines) == 3


@pytest.mark.skipif(not RESULTS.is_file(), reason="no committed results")
def test_the_results_hold_what_is_promised():
    metrics = {name: np.array(values) for name, values in json.loads(RESULTS.read_text())["metrics"].items()}
    for prefix in ("", "trained_side_"):
        names = ("learned", "same_rate", "tuned")
        learned, same_rate, tuned = (metrics[f"{prefix}final_distance_{name}"] for name in names)
        assert learned.mean() <= 0.5 * same_rate.mean()
        assert learned.mean() < tuned.mean()


LONG_LIVES = ROOT / "results" / "pointmass_lives" / "summary.json"


@pytest.mark.skipif(not LONG_LIVES.is_file(), reason="no committed results")
def test_a_loss_of_long_lives_holds_the_mass_on_the_trained_side():
    short, long = (json.loads(path.read_text())["metrics"] for path in (RESULTS, LONG_LIVES))
    after_5, after_20 = (f"trained_side_{later}final_distance_learned" for later in ("", "later_"))
    assert np.sum(np.less_equal(long[after_20], long[after_5])) >= 8
    assert np.sum(np.less(long[after_20], short[after_20])) >= 9


@pytest.mark.skipif(not (ROOT / "savedmodels" / "pointmass").is_dir(), reason="no shipped loss")
def test_the_shipped_loss_trains_a_fresh_policy_in_plain_keras():
    """Algorithm 5 as its model card says: no trainer, model, reward or task loss."""
    keras.utils.set_random_seed(0)
    settings, goal, distances = pointmass.Settings(), np.array([-1.0, 0.8]), []
    policy = task.build_policy()
    optimizer = keras.optimizers.SGD(settings.inner_rate, clipnorm=settings.inner_clipnorm)
    policy.compile(optimizer, loss=ml3_tf.load_meta_loss("pointmass"))
    env = gymnasium.make("ml3_tf/PointmassGoal-v0")
    for _ in range(settings.reported_step + 1):
        state, info = env.reset(options={"goal": goal})
        states = []
        for _ in range(task.HORIZON):
            states.append(state)
            state, _, _, _, info = env.step(policy(state[np.newaxis])[0].numpy())
        states = np.stack(states)
        distances.append(info["distance"])
        policy.train_on_batch(states, np.column_stack([states, np.tile(goal, (len(states), 1))]))
    assert distances[0] > 1
    assert distances[-1] < 0.3
