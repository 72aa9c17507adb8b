"""`recipes/reacher_model_based.py` at toy size, and what its committed results promise."""

import csv
import json
import re
from pathlib import Path

import gymnasium
import keras
import numpy as np
import pytest
import reacher_model_based as recipe
import tensorflow as tf

import ml3_tf
from ml3_tf.envs import reacher_step
from ml3_tf.rl import Trajectory, rollout_model
from parts.goal_reaching.meta_testing import METHODS
from parts.reacher_model_based import figure, task

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "reacher_model_based" / "summary.json"


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reacher_model_based")
    return folder, recipe.main(smoke=True, output_dir=folder)


def test_it_writes_what_a_recipe_writes(run):
    folder, metrics = run
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["recipe"] == "reacher_model_based"
    assert summary["command"] == "python recipes/reacher_model_based.py --smoke"
    assert summary["metrics"] == metrics
    assert all(len(values) == 1 and np.isfinite(values).all() for values in metrics.values())
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert len(rows) == 2 * 10 * 3 * 2  # sides, methods, rollouts, policies
    assert summary["costs"]["samples"]["meta_train"] == [(4 + 1) * 2 * task.HORIZON]  # random and refit, two episodes
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert ml3_tf.load_meta_loss(folder / "meta_loss").features == recipe.LOSS_INPUTS.features


def test_an_interrupted_run_resumes_with_the_same_numbers(run, monkeypatch):
    folder, metrics = run
    for name in ("run_seed", "run_tuning"):
        monkeypatch.setattr(recipe, name, None)  # nothing is left to run
    assert recipe.main(smoke=True, output_dir=folder) == metrics


def test_every_metric_is_explained(run):
    for name in run[1]:
        pattern = re.sub("_2$", "_50", name.removeprefix("trained_side_"))  # a smoke run ends after two updates
        pattern = re.sub(rf"(distance|speed)_({'|'.join(METHODS)})(?=$|_50)", r"\1_METHOD", pattern)
        assert re.search(rf"\n    [^:\n]*\b{pattern}\b[^:\n]*: ", recipe.__doc__), name
    for method in METHODS:
        assert re.search(rf"\n    [^:\n]*\b{method}\b[^:\n]*: ", recipe.__doc__), method
    assert "\n    trained_side_...: " in recipe.__doc__


def test_tasks_lie_on_their_sides_and_start_at_rest():
    for side, sign in (("trained", 1), ("untrained", -1)):
        starts, goals = task.tasks_on_side(side)(np.random.default_rng(0), 100)
        assert starts.shape == (100, 4) and goals.shape == (100, 2)
        assert (sign * goals > 0).all() and (sign * starts[:, :2] > 0).all()
        assert (np.abs(goals) <= np.pi).all()
        np.testing.assert_array_equal(starts[:, 2:], 0)


def test_goals_that_cannot_be_reached_are_told_from_those_that_can():
    """1 N m turns an elbow of at least 0.008 kg m^2 by less than 1 N m (0.1 s)^2 / 0.008 kg m^2 in 0.1 s."""
    starts, goals = task.tasks_on_side("untrained")(np.random.default_rng(0), 4)
    assert task.is_reachable(starts, goals).all()
    far = starts[:1, :2] + [[0.0, 3.0]]
    assert not task.is_reachable(starts[:1], far, horizon=10).any()
    assert task.is_reachable(starts[:1], starts[:1, :2], horizon=10).all()  # it is there


def test_goals_of_meta_test_are_reachable_ones(monkeypatch):
    reachable = np.array([False, True, False, True])
    monkeypatch.setattr(task, "is_reachable", lambda starts, goals: reachable)
    starts, goals = task.reachable_tasks("trained")(np.random.default_rng(0), 2)
    drawn = task.tasks_on_side("trained")(np.random.default_rng(0), 4)
    np.testing.assert_array_equal(starts, drawn[0][reachable])
    np.testing.assert_array_equal(goals, drawn[1][reachable])
    reachable[1] = False
    with pytest.raises(RuntimeError, match="Of 4 goals 1 can be reached in time; 2 are needed"):
        task.reachable_tasks("trained")(np.random.default_rng(0), 2)


def test_the_loss_sees_what_is_left_to_the_goal():
    states = np.random.default_rng(0).normal(size=(1, 1, 4, 4)).astype("float32")
    goal = np.array([[[0.3, 0.4]]], "float32")
    inputs = recipe.LOSS_INPUTS(Trajectory(tf.constant(states), None, None, tf.constant(goal), None))
    expected = [[*(goal[0, 0] - state[:2]), *state[2:]] for state in states[0, 0, :3]]
    np.testing.assert_allclose(inputs[0, 0], expected, rtol=1e-6)


def test_the_task_loss_is_that_of_its_definition():
    states = np.zeros((1, 1, 3, 4), "float32")
    states[0, 0, 1:] = [[0.3, 0.4, 0.0, 0.0], [0.6, 0.8, 3.0, 4.0]]
    trajectory = Trajectory(states, np.full((1, 1, 2, 2), 0.5, "float32"), None, np.zeros((1, 1, 2), "float32"), None)
    weights = {"path_weight": 2.0, "end_weight": 3.0, "speed_weight": 0.1, "saturation_weight": 4.0}
    expected = 2.0 * (0.5 + 1.0) / 2 + 3.0 * 1.0 + 0.1 * 5.0 + 4.0 * 0.5**4
    np.testing.assert_allclose(task.task_loss(trajectory, recipe.Settings(**weights)), [[expected]], rtol=1e-4)


def test_the_figure_of_a_loss_shows_the_torques_it_prefers():
    """A loss of the distance to the torque that is half the angle left prefers that torque."""

    class HalfTheAngle(ml3_tf.MetaLoss):
        def call(self, y_true, y_pred):
            return tf.reduce_sum((y_pred - 0.5 * y_true[:, :2]) ** 2, -1)

    loss = HalfTheAngle(recipe.build_loss(recipe.Settings()).network, features=recipe.LOSS_INPUTS.features)
    axes = figure.draw_loss(loss).axes
    shoulder = np.asarray(axes[0].images[0].get_array())
    expected = np.clip(0.5 * np.linspace(-np.pi, np.pi, shoulder.shape[1]), -1, 1)
    np.testing.assert_allclose(shoulder, np.broadcast_to(expected, shoulder.shape), atol=0.03)
    assert [line.get_label() for line in axes[2].lines] == ["-2 rad left", "0 rad left", "2 rad left"]


def test_the_final_speed_is_that_of_the_last_step():
    paths = np.zeros((2, 4, 2))
    paths[0, -1] = [0.03, 0.04]  # in a step of 0.01 s
    np.testing.assert_allclose(recipe.final_speed(paths), (5.0 + 0.0) / 2)


def test_in_the_figure_paths_count_from_their_goals():
    names = [prefix + method for prefix in recipe.EXPERIMENT.test_tasks for method in METHODS]
    results = {
        "metrics": {},
        "paths": {name: [[[1.0, 2.0], [3.0, 4.0]]] for name in names},
        "goals": {prefix: [[3.0, 3.0]] for prefix in recipe.EXPERIMENT.test_tasks},
    }
    seen = recipe.with_paths_from_goals(results)
    assert all(seen["paths"][name] == [[[-2.0, -1.0], [0.0, 1.0]]] for name in names)
    assert all(goals == [[0.0, 0.0]] for goals in seen["goals"].values())


def test_a_fresh_policy_hardly_moves_the_arm():
    policy = task.build_policy(recipe.Settings().policy_units)
    starts = tf.constant(task.tasks_on_side("trained")(np.random.default_rng(0), 5)[0], tf.float32)
    states = rollout_model(policy, reacher_step, starts, horizon=task.HORIZON).observations.numpy()
    assert np.abs(states[:, -1, :2] - states[:, 0, :2]).max() < 1.5


@pytest.mark.skipif(not RESULTS.is_file(), reason="no committed results")
def test_the_results_hold_what_is_promised():
    metrics = {name: np.array(values) for name, values in json.loads(RESULTS.read_text())["metrics"].items()}
    for prefix in ("", "trained_side_"):
        names = ("learned", "same_rate", "tuned", "tuned_squared")
        distances = {method: metrics[f"{prefix}final_distance_{method}"] for method in names}
        learned = distances.pop("learned")
        assert len(learned) == 10
        assert learned.mean() <= 0.5 * distances["same_rate"].mean()
        assert all((learned < others).all() for others in distances.values())


@pytest.mark.skipif(not (ROOT / "savedmodels" / "reacher_model_based").is_dir(), reason="no shipped loss")
def test_the_shipped_loss_trains_a_fresh_policy_in_plain_keras():
    """Algorithm 5 as its model card says: no trainer, model, reward or task loss."""
    keras.utils.set_random_seed(0)
    settings, start, goal, distances = recipe.Settings(), np.array([1.0, 0.5, 0.0, 0.0]), np.array([2.0, 2.0]), []
    policy = task.build_policy(settings.policy_units)
    optimizer = keras.optimizers.SGD(settings.inner_rate, clipnorm=settings.inner_clipnorm)
    policy.compile(optimizer, loss=ml3_tf.load_meta_loss("reacher_model_based"))
    env = gymnasium.make("ml3_tf/ReacherGoal-v0")
    for _ in range(settings.reported_step + 1):
        state, info = env.reset(options={"state": start, "goal": goal})
        states = []
        for _ in range(task.HORIZON):
            states.append(state)
            state, _, _, _, info = env.step(policy(state[np.newaxis])[0].numpy())
        states = np.stack(states)
        distances.append(info["distance"])
        policy.train_on_batch(states, np.column_stack([goal - states[:, :2], states[:, 2:]]))
    assert distances[0] > 1
    assert distances[-1] < 0.3
