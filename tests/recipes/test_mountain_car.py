"""`recipes/mountain_car.py` at toy size, and what its committed results promise."""

import csv
import dataclasses
import json
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
from ml3_tf.rl import rollout_model
from parts.mountain_car import figure, task, training
from parts.mountain_car.settings import LossSettings

ROOT = Path(__file__).parents[2]
METHODS = ("shaped", "unshaped", "paper_setting", "ilqr")
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
    assert len(rows) == 2 * 4 * 3  # starts, rollouts, policies
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
        pattern = name
        for method in METHODS:
            pattern = pattern.replace(f"_{method}", "_METHOD") if name.endswith(f"_{method}") else pattern
        assert pattern in mountain_car.__doc__, name
    for method in METHODS:
        assert f"\n    {method}: " in mountain_car.__doc__


def test_an_improved_loss_is_learned_in_a_few_steps(tmp_path):
    settings = LossSettings().smoke()
    losses = [training.meta_train(settings, 0, tmp_path / str(n), verbose=0) for n in range(2)]
    assert losses[0][1] == losses[1][1]  # the same seed gives the same numbers
    for pair in zip(*(loss.network.get_weights() for loss, _ in losses)):
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


def test_ilqr_reaches_the_goal():
    assert task.scores(task.plan(np.array([[-0.55, 0.0]])).states)["strict_rate"] == 1


@pytest.mark.skipif(not RESULTS.is_file(), reason="no committed results")
def test_the_results_hold_what_is_promised():
    metrics = {name: np.array(values) for name, values in json.loads(RESULTS.read_text())["metrics"].items()}
    assert (metrics["reach_rate_shaped"] >= 0.95).all()
    assert np.sum(metrics["strict_rate_shaped"] >= 0.9) >= 9
    assert np.median(metrics["strict_rate_shaped"]) >= 0.95
    assert np.sum(metrics["random_start_strict_rate_shaped"] >= 0.8) >= 9
    assert np.sum(metrics["later_strict_rate_shaped"] >= metrics["strict_rate_shaped"]) >= 9
    assert (metrics["final_distance_shaped"] < metrics["final_distance_paper_setting"]).all()
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
