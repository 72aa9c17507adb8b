"""`recipes/mountain_car.py` at toy size, and what its committed results promise."""

import csv
import json
from pathlib import Path

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

ROOT = Path(__file__).parents[2]

import mountain_car
from parts.mountain_car import figure as mountain_car_figure
from parts.mountain_car import task as mountain_car_task
from PIL import Image

import ml3_tf
from ml3_tf.rl.rollouts import rollout_model

METHODS = ("shaped", "unshaped", "paper_setting", "ilqr")
RESULTS = ROOT / "results" / "mountain_car" / "summary.json"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mountain_car")
    return folder, mountain_car.main(setting="paper", smoke=True, output_dir=folder)


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
    assert 20 < Image.open(folder / "car.gif").n_frames <= mountain_car_task.HORIZON + 1  # equal frames are one
    loss = ml3_tf.load_meta_loss(folder / "meta_loss")
    assert loss.features == mountain_car_task.LAYOUTS["final_distance"][1]


def test_an_interrupted_run_resumes_with_the_same_numbers(run, monkeypatch):
    folder, metrics = run
    monkeypatch.setattr(mountain_car, "run_seed", None)  # nothing is left to run
    assert mountain_car.main(setting="paper", smoke=True, output_dir=folder) == metrics


def test_every_metric_is_explained(run):
    for name in run[1]:
        pattern = name
        for method in METHODS:
            pattern = pattern.replace(f"_{method}", "_METHOD") if name.endswith(f"_{method}") else pattern
        assert pattern in mountain_car.__doc__, name
    for method in METHODS:
        assert f"\n    {method}: " in mountain_car.__doc__


def test_an_improved_loss_is_learned_in_a_few_steps():
    config = {**mountain_car.METHODS["shaped"], "outer_steps": 2, "inner_steps": 2, "num_tasks": 2, "smoke": True}
    losses = [mountain_car.meta_train(config, seed=0, verbose=0) for _ in range(2)]
    assert losses[0][1] == losses[1][1]  # the same seed gives the same numbers
    for pair in zip(*(loss.network.get_weights() for loss, _ in losses)):
        np.testing.assert_array_equal(*pair)


def rollout(force, config, progress=0.0):
    task_loss = mountain_car_task.TaskLoss({**mountain_car.METHODS["shaped"], **config})
    task_loss.set_progress(progress)
    starts = tf.constant([[[-0.55, 0.0]]])
    goal = tf.constant([[mountain_car_task.GOAL]])
    policy = lambda states: tf.fill([1, 1, 1], force)
    trajectory = rollout_model(
        policy, mountain_car_task.mountain_car_step, starts, horizon=mountain_car_task.HORIZON, goal=goal
    )
    return trajectory, float(task_loss(trajectory)[0, 0])


def test_the_shaped_cost_is_that_of_the_paper():
    """Norms over the first 15 states and the others, as computed by hand with NumPy: 1.45 + 7.18, 1.66 + 6.71."""
    plain = {"saturation_weight": 0.0, "shaping_weight": 1.0}
    np.testing.assert_allclose(rollout(-0.25, plain)[1], 1.45 + 7.18, atol=0.02)
    np.testing.assert_allclose(rollout(0.0, plain)[1], 1.66 + 6.71, atol=0.02)
    trajectory, cost = rollout(0.0, {**plain, "shaped": False})
    distances = trajectory.observations[0, 0].numpy() - mountain_car_task.GOAL
    np.testing.assert_allclose(cost, np.linalg.norm(distances), rtol=1e-5)


def test_the_end_counts_late():
    config = {"path_weight": [1.0, 0.0], "end_weight": [0.0, 2.0], "saturation_weight": 0.0}
    trajectory, cost = rollout(0.0, config, progress=1.0)
    distance = np.linalg.norm(trajectory.observations[0, 0, -1].numpy() - mountain_car_task.GOAL)
    np.testing.assert_allclose(cost, 2.0 * np.log(np.hypot(distance, mountain_car_task.END_WIDTH)), rtol=1e-5)


def test_the_loss_sees_states_and_how_the_rollout_ended():
    trajectory, _ = rollout(0.25, {})
    seen = mountain_car_task.final_error(trajectory)[0, 0].numpy()
    states = trajectory.observations[0, 0].numpy()
    assert seen.shape == (mountain_car_task.HORIZON, 4)
    np.testing.assert_array_equal(seen[:, :2], states[:-1])
    error = states[-1] - mountain_car_task.GOAL
    np.testing.assert_allclose(seen[:, 2:], [error] * len(seen), rtol=1e-6)
    seen = mountain_car_task.final_distance(trajectory)[0, 0].numpy()
    np.testing.assert_array_equal(seen[:, :2], states[:-1])
    np.testing.assert_allclose(seen[:, 2:], [[np.linalg.norm(error)]] * len(seen), rtol=1e-6)


def test_what_the_loss_prefers_is_drawn():
    loss = ml3_tf.MetaLoss.mlp((4,), features=mountain_car_task.LAYOUTS["final_error"][1])
    figure = mountain_car_figure.draw_loss(loss)
    assert len(figure.axes) == 4  # three ends of a rollout and the scale


def test_scores_are_those_of_their_definitions():
    states = np.full((3, 4, 2), -0.55)
    states[0, 2:] = [[0.5, 1.2], [0.5, 1.1]]  # reaches the flag and ends .0625 too fast
    states[1, 2:] = [[0.5, 1.5], [0.5, 1.5]]
    metrics = mountain_car_task.scores(states)
    np.testing.assert_allclose(metrics["reach_rate"], 2 / 3)
    np.testing.assert_allclose(metrics["strict_rate"], 1 / 3)
    np.testing.assert_allclose(metrics["final_distance"], 1.5 - 1.0375)


def test_ilqr_reaches_the_goal():
    assert mountain_car_task.scores(mountain_car_task.plan(np.array([[-0.55, 0.0]])).states)["strict_rate"] == 1


@pytest.mark.skipif(not RESULTS.is_file(), reason="no committed results")
def test_the_results_hold_what_is_promised():
    metrics = {name: np.array(values) for name, values in json.loads(RESULTS.read_text())["metrics"].items()}
    assert (metrics["reach_rate_shaped"] >= 0.95).all()
    assert np.sum(metrics["strict_rate_shaped"] >= 0.9) >= 9
    assert np.median(metrics["strict_rate_shaped"]) >= 0.95
    assert np.sum(metrics["random_start_strict_rate_shaped"] >= 0.8) >= 9
    for other in ("unshaped", "paper_setting"):
        assert (metrics["final_distance_shaped"] < metrics[f"final_distance_{other}"]).all()


@pytest.mark.skipif(not (ROOT / "savedmodels" / "mountain_car").is_dir(), reason="no shipped loss")
def test_the_shipped_loss_drives_a_fresh_policy_in_plain_keras():
    """Algorithm 5 as its model card says: no trainer, model, reward or task loss."""
    keras.utils.set_random_seed(0)
    policy = mountain_car_task.build_policy(mountain_car.METHODS["shaped"])
    policy.compile(keras.optimizers.SGD(1.0, clipnorm=0.5), loss=ml3_tf.load_meta_loss("mountain_car"))
    env, distances = gymnasium.make("ml3_tf/MountainCarGoal-v0"), []
    for _ in range(11):
        state, info = env.reset()
        states = []
        for _ in range(mountain_car_task.HORIZON):
            states.append(state)
            state, _, _, _, info = env.step(policy(state[np.newaxis])[0].numpy())
        distances.append(info["distance"])
        error = np.tile(state - info["goal"], (len(states), 1))
        policy.train_on_batch(np.stack(states), np.hstack([states, error]))
    assert distances[0] > 1
    assert distances[10] < mountain_car_task.STRICT_DISTANCE
