"""`recipes/mountain_car.py` at toy size, and what its committed results promise."""

import csv
import dataclasses
import json
import re
from pathlib import Path

import gymnasium
import keras
import mountain_car
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import ml3_tf
from ml3_tf.envs import mountain_car as env
from ml3_tf.rl import Trajectory, rollout_model
from parts.costs import UpdateClock
from parts.mountain_car import baselines, figure, report, task, training
from parts.mountain_car.baselines import BASELINES
from parts.mountain_car.settings import LossSettings
from parts.tuned_optimizers import OPTIMIZERS

ROOT = Path(__file__).parents[2]
METHODS = ("shaped", "unshaped", "paper_setting", *BASELINES, "ilqr")
PAPER = mountain_car.Settings.presets()["paper"]
RESULTS = ROOT / "results" / "mountain_car" / "summary.json"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mountain_car")
    return folder, mountain_car.main(PAPER, smoke=True, output_dir=folder)


def test_it_writes_what_a_recipe_writes(run):
    folder, metrics = run
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["recipe"] == "mountain_car"
    assert summary["command"] == "python recipes/mountain_car.py --setting paper --smoke"
    assert summary["metrics"] == metrics
    assert all(len(values) == 1 and np.isfinite(values).all() for values in metrics.values())
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert len(rows) == 2 * 5 * 4 * 3  # starts, methods, rollouts, policies
    assert summary["costs"]["samples"]["meta_train"] == [2 * task.HORIZON * 2 * 2 * 2]  # tasks, inner and outer steps
    assert summary["config"]["best_optimizer"] in OPTIMIZERS
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert 20 < Image.open(folder / "car.gif").n_frames <= task.HORIZON + 1  # equal frames are one
    loss = ml3_tf.load_meta_loss(folder / "meta_loss")
    assert loss.features == task.LAYOUTS["final_distance"].features


def test_an_interrupted_run_resumes_with_the_same_numbers(run, monkeypatch):
    folder, metrics = run
    monkeypatch.setattr(mountain_car, "run_seed", None)  # nothing is left to run
    assert mountain_car.main(PAPER, smoke=True, output_dir=folder) == metrics


def test_every_metric_is_explained(run):
    for name in run[1]:
        pattern = re.sub("_3$", "_100", name.removeprefix("random_start_"))  # a smoke run ends after three updates
        pattern = re.sub(rf"_({'|'.join(METHODS)})(?=$|_100)", "_METHOD", pattern)
        assert re.search(rf"\b{pattern}\b", mountain_car.__doc__), name
    for method in METHODS:
        assert re.search(rf"\n    [^:\n]*\b{method}\b[^:\n]*: ", mountain_car.__doc__), method


def test_an_improved_loss_is_learned_in_a_few_steps(tmp_path):
    settings = LossSettings().smoke()
    trained = [training.meta_train(settings, 0, tmp_path / str(n), verbose=0) for n in range(2)]
    assert trained[0].task_losses == trained[1].task_losses  # the same seed gives the same numbers
    for pair in zip(*(each.meta_loss.network.get_weights() for each in trained)):
        np.testing.assert_array_equal(*pair)


def rollout(force, progress=0.0, **changes):
    """A rollout of a constant force, and its cost in the improved setting with some changes."""
    task_loss = task.TaskLoss(dataclasses.replace(LossSettings(), **changes))
    task_loss.set_progress(progress)
    starts, goal = tf.constant([[[-0.55, 0.0]]]), tf.constant([[env.GOAL]])
    policy = lambda states: tf.fill([1, 1, 1], force)
    trajectory = rollout_model(policy, env.mountain_car_step, starts, horizon=task.HORIZON, goal=goal)
    return trajectory, float(task_loss(trajectory)[0, 0])


def test_the_shaped_cost_is_that_of_the_paper():
    """Norms over the first 15 states and the others, as computed by hand with NumPy: 1.45 + 7.18, 1.66 + 6.71."""
    plain = {"saturation_weight": 0.0, "shaping_weight": 1.0}
    np.testing.assert_allclose(rollout(-0.25, **plain)[1], 1.45 + 7.18, atol=0.02)
    np.testing.assert_allclose(rollout(0.0, **plain)[1], 1.66 + 6.71, atol=0.02)
    trajectory, cost = rollout(0.0, **plain, shaped=False)
    distances = trajectory.observations[0, 0].numpy() - env.GOAL
    np.testing.assert_allclose(cost, np.linalg.norm(distances), rtol=1e-5)


def test_the_end_counts_late():
    changes = {"path_weight": (1.0, 0.0), "end_weight": (0.0, 2.0), "saturation_weight": 0.0}
    trajectory, cost = rollout(0.0, progress=1.0, **changes)
    distance = np.linalg.norm(trajectory.observations[0, 0, -1].numpy() - env.GOAL)
    np.testing.assert_allclose(cost, 2.0 * np.log(np.hypot(distance, task.END_WIDTH)), rtol=1e-5)


def test_the_loss_sees_states_and_how_the_rollout_ended():
    trajectory, _ = rollout(0.25)
    seen = task.LAYOUTS["final_error"](trajectory)[0, 0].numpy()
    states = trajectory.observations[0, 0].numpy()
    assert seen.shape == (task.HORIZON, 4)
    np.testing.assert_array_equal(seen[:, :2], states[:-1])
    error = states[-1] - env.GOAL
    np.testing.assert_allclose(seen[:, 2:], [error] * len(seen), rtol=1e-6)
    seen = task.LAYOUTS["final_distance"](trajectory)[0, 0].numpy()
    np.testing.assert_array_equal(seen[:, :2], states[:-1])
    np.testing.assert_allclose(seen[:, 2:], [[np.linalg.norm(error)]] * len(seen), rtol=1e-6)


def test_what_the_loss_prefers_is_drawn():
    loss = ml3_tf.MetaLoss.mlp((4,), features=task.LAYOUTS["final_error"])
    assert len(figure.draw_loss(loss).axes) == 4  # three ends of a rollout and the scale


def test_scores_are_those_of_their_definitions():
    states = np.full((3, 4, 2), -0.55)
    states[0, 2:] = [[0.5, 1.2], [0.5, 1.1]]  # reaches the flag and ends 0.0625 too fast
    states[1, 2:] = [[0.5, 1.5], [0.5, 1.5]]
    metrics = task.scores(states)
    np.testing.assert_allclose(metrics["reach_rate"], 2 / 3)
    np.testing.assert_allclose(metrics["strict_rate"], 1 / 3)
    np.testing.assert_allclose(metrics["final_distance"], 1.5 - 1.0375)


def test_last_and_best_at_once_three_and_ten_times_the_horizon():
    """Two policies: distance and velocity say how far they end; the first one passes near the goal."""
    errors = np.full((101, 2), 1.0)
    errors[[7, 10, 25, 30, 100], 0] = [0.0, 0.4, 0.05, 0.6, 0.8]
    errors[25, 1] = 0.01
    states = np.zeros((101, 2, 4, 2)) + env.GOAL
    states[..., -1, 1] -= errors
    found = report.compute_metrics("random_start_", "task_adam", states, 10)
    expected = {
        **{"final_distance_task_adam": 0.7, "best_final_distance_task_adam": 0.5},
        **{"final_distance_task_adam_30": 0.8, "best_final_distance_task_adam_30": 0.03},
        **{"final_distance_task_adam_100": 0.9, "best_final_distance_task_adam_100": 0.03},
        **{"strict_rate_task_adam": 0.0, "best_strict_rate_task_adam": 0.5},
        **{"strict_rate_task_adam_30": 0.0, "best_strict_rate_task_adam_30": 1.0},
        **{"strict_rate_task_adam_100": 0.0, "best_strict_rate_task_adam_100": 1.0},
        "reach_rate_task_adam": 1.0,
    }
    assert found == {f"random_start_{name}": pytest.approx(value) for name, value in expected.items()}


def test_a_use_costs_episodes_until_the_policy_is_as_good_as_ever_by_the_best_optimizer(monkeypatch):
    """The baseline has 2, its least, after 2 updates; the learned loss has it after 1."""
    monkeypatch.setattr(UpdateClock, "core_minutes", property(lambda env: env.updates / env.num_envs))
    curves = {"learned": [3, 1, 1, 1], "baseline": [3, 4, 2, 5]}
    distances = {role: np.repeat(np.array(curve)[:, np.newaxis], 4, axis=1) for role, curve in curves.items()}
    train = {
        "learned": lambda env, steps: setattr(env, "updates", 0.2 * steps),
        "baseline": lambda env, steps: setattr(env, "updates", 0.4 * steps),
    }
    meta_trained, starts = {"core_minutes": 3.0, "samples": 400}, task.draw_starts("nominal", 0, 4)
    costs = baselines.count_costs(meta_trained, train, starts, distances=distances)
    assert costs["core_minutes"] == {"meta_train": 3.0, "learned": 0.5, "baseline": 2.0}
    assert costs["samples"] == {"meta_train": 400, "learned": task.HORIZON, "baseline": 2 * task.HORIZON}
    distances["learned"] += 5
    never = baselines.count_costs(meta_trained, train, starts, distances=distances)
    assert never["core_minutes"]["learned"] is None and never["samples"]["learned"] is None


def test_a_baseline_descends_the_task_loss_from_the_policies_of_all_methods():
    settings, starts = LossSettings(), task.draw_starts("nominal", 0, 2)
    loss = ml3_tf.MetaLoss.mlp((4,), features=task.LAYOUTS["final_error"])
    learned = training.meta_test(loss, settings, training.make_env(starts), 0, num_steps=1)
    adam, envs = keras.optimizers.Adam(0.02), training.make_env(starts)
    states = baselines.train_baseline(adam, settings, envs, 0, num_steps=3, stage=1.0)
    np.testing.assert_array_equal(states[0], learned[0])
    cost = task.TaskLoss(settings)
    cost.set_progress(1.0)
    goal = tf.constant([env.GOAL], tf.float32)
    actions = tf.zeros((2, task.HORIZON, 1))  # their part of the cost is small
    first, last = (
        cost(Trajectory(tf.constant(states[n], tf.float32), actions, None, tf.tile(goal, (2, 1)), None)) for n in (0, 3)
    )
    assert (last < first).numpy().all()


def test_rates_and_the_stage_of_the_task_loss_are_tuned(monkeypatch):
    """All policies end beside the goal, nearest at a rate of 0.02, with Muon, and at the end of meta-training."""

    def train(optimizer, settings, envs, seed, *, num_steps, stage):
        assert seed == baselines.TUNING_SEED and num_steps == 10
        offset = 2.0 - stage - (type(optimizer).__name__ == "Muon") * 0.5
        offset += abs(np.log(float(optimizer.learning_rate) / 0.02))
        return np.broadcast_to(np.array(env.GOAL) + [offset, 0.0], (num_steps + 1, envs.num_envs, 2, 2))

    monkeypatch.setattr(baselines, "train_baseline", train)
    found = baselines.tune("tuning", mountain_car.Settings(), None, 0)
    assert found == {"optimizer_rates": (0.02,) * 4, "best_optimizer": "muon", "task_loss_stage": 1.0}


def test_ilqr_reaches_the_goal():
    assert task.scores(task.plan(np.array([[-0.55, 0.0]])).states)["strict_rate"] == 1


@pytest.mark.skipif(not RESULTS.is_file(), reason="no committed results")
def test_the_results_hold_what_is_promised():
    metrics = {name: np.array(values) for name, values in json.loads(RESULTS.read_text())["metrics"].items()}
    assert (metrics["reach_rate_shaped"] >= 0.95).all()
    assert np.sum(metrics["strict_rate_shaped"] >= 0.9) >= 9
    assert np.median(metrics["strict_rate_shaped"]) >= 0.95
    assert np.sum(metrics["random_start_strict_rate_shaped"] >= 0.8) >= 9
    assert np.sum(metrics["strict_rate_shaped_30"] >= metrics["strict_rate_shaped"]) >= 9
    assert (metrics["final_distance_shaped"] < metrics["final_distance_paper_setting"]).all()
    assert metrics["strict_rate_shaped_100"].mean() >= 0.9
    for name in OPTIMIZERS:
        assert not metrics[f"strict_rate_task_{name.lower()}"].any()
        assert metrics[f"strict_rate_task_{name.lower()}_100"].mean() <= 0.05
    assert np.sum(metrics["strict_rate_unshaped"] > 0.1) <= 3 and not metrics["strict_rate_paper_setting"].any()


@pytest.mark.skipif(not (ROOT / "savedmodels" / "mountain_car").is_dir(), reason="no shipped loss")
def test_the_shipped_loss_drives_a_fresh_policy_in_plain_keras():
    """Algorithm 5 as its model card says: no trainer, model, reward or task loss."""
    keras.utils.set_random_seed(0)
    policy = task.build_policy(LossSettings())
    policy.compile(keras.optimizers.SGD(1.0, clipnorm=0.5), loss=ml3_tf.load_meta_loss("mountain_car"))
    car, distances = gymnasium.make("ml3_tf/MountainCarGoal-v0"), []
    for _ in range(11):
        state, info = car.reset()
        states = []
        for _ in range(task.HORIZON):
            states.append(state)
            state, _, _, _, info = car.step(policy(state[np.newaxis])[0].numpy())
        distances.append(info["distance"])
        error = np.tile(state - info["goal"], (len(states), 1))
        policy.train_on_batch(np.stack(states), np.hstack([states, error]))
    assert distances[0] > 1
    assert distances[10] < task.STRICT_DISTANCE
