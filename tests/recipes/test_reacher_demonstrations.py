"""`recipes/reacher_demonstrations.py` at toy size, and what its committed results promise."""

import csv
import json
from pathlib import Path

import gymnasium
import keras
import numpy as np
import pytest
import reacher_demonstrations as recipe
import tensorflow as tf

import ml3_tf
from ml3_tf.rl import Trajectory
from parts.reacher_demonstrations import figure, task
from parts.reacher_demonstrations.baselines import taught_by
from parts.reacher_demonstrations.morphology import ARMS, POLICIES, build_other_policy, make_other_env
from parts.reacher_demonstrations.report import METHODS

ROOT = Path(__file__).parents[2]
SMOKE = recipe.Settings().smoke()
RESULTS = ROOT / "results" / "reacher_demonstrations" / "summary.json"
SHIPPED = ROOT / "savedmodels" / "reacher_demonstrations"


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reacher_demonstrations")
    return folder, recipe.main(smoke=True, output_dir=folder)


def test_it_writes_what_a_recipe_writes(run):
    folder, metrics = run
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["recipe"] == "reacher_demonstrations"
    assert summary["command"] == "python recipes/reacher_demonstrations.py --smoke"
    assert summary["metrics"] == metrics
    assert all(summary["config"][name] is not None for name in ("cloning", "goal_cloning", "taught", "other_cloning"))
    assert all(len(values) == 1 and np.isfinite(values).all() for values in metrics.values())
    rows = list(csv.DictReader((folder / "history.csv").open()))
    num_targets = SMOKE.num_targets + 4
    assert len(rows) == num_targets * (2 * (SMOKE.test_steps + 1) + 4)
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert ml3_tf.load_meta_loss(folder / "meta_loss").features == recipe.LOSS_INPUTS.features


def test_the_experts_are_kept_with_the_run(run):
    experts = np.load(run[0] / "seeds" / "experts_0.npz")
    number = SMOKE.demonstrations
    assert experts["targets"].shape == (4, 2)
    assert experts["states"].shape == (4, number, task.HORIZON, 4)
    assert experts["torques"].shape == (4, number, task.HORIZON, 2)
    away = np.linalg.norm(experts["states"][..., -1, :2] - experts["targets"][:, np.newaxis], axis=-1)
    assert away.max() < 0.1


def test_an_interrupted_run_resumes_with_the_same_numbers(run, monkeypatch):
    folder, metrics = run
    monkeypatch.setattr(recipe, "run_seed", None)  # nothing is left to run
    assert recipe.main(smoke=True, output_dir=folder) == metrics


def test_every_metric_is_explained(run):
    for name in run[1]:
        method = max((m for m in METHODS if name.endswith(f"_{m}")), key=len)
        pattern = name.removesuffix(method) + "METHOD"
        assert any(f"{before}{pattern}" in recipe.__doc__ for before in ("    ", ", ")), name
        assert f"\n    {method}: " in recipe.__doc__


def test_no_demonstrations_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`demonstrations` must be at least 1, for each target. Received: 0"):
        recipe.main(recipe.Settings(demonstrations=0), output_dir=tmp_path)


def test_training_targets_surround_the_rest_pose():
    trained, unseen = task.draw_targets(0, 200)
    quadrants = np.sign(trained - task.REST)
    assert len(np.unique(quadrants, axis=0)) == 4
    assert np.abs(trained - task.REST).min() > task.MIN_CHANGE
    assert np.abs(np.concatenate([trained, unseen]) - task.REST).max() < task.REACH
    np.testing.assert_array_equal(trained, task.draw_targets(0, 0)[0])  # the same, however many are tested
    assert np.all(trained != task.draw_targets(1, 0)[0])


def test_the_loss_sees_the_way_to_the_goal_and_where_the_rollout_ended():
    states = np.arange(12.0, dtype="float32").reshape(1, 3, 4)
    goal = np.array([[10.0, 20.0]], "float32")
    rewards = np.zeros((1, 2), "float32")
    trajectory = Trajectory(*map(tf.constant, (states, np.zeros((1, 2, 2), "float32"), rewards, goal, rewards)))
    expected = [[10, 19, 2, 3, 2, 11, -1, 1], [6, 15, 6, 7, 2, 11, -1, 1]]
    inputs = recipe.LOSS_INPUTS
    np.testing.assert_array_equal(inputs(trajectory)[0], expected)
    assert sum(inputs.features.values()) == len(inputs.scale) == 1 + len(expected[0]) / 2


def test_a_policy_may_see_the_goal():
    for sees_goal, width in ((False, 4), (True, 6)):
        policy = task.build_policy(8, sees_goal=sees_goal)
        assert policy.input_shape == (None, width)
        assert np.abs(policy(1e3 * np.ones((1, width)))).max() <= 1.0


@pytest.mark.parametrize("kind", POLICIES)
def test_another_policy_gives_torques_in_their_limits(kind):
    for sees_goal, width in ((False, 4), (True, 6)):
        policy = build_other_policy(kind, sees_goal=sees_goal)
        assert policy.input_shape == (None, width)
        torques = policy(10 * np.random.default_rng(0).normal(size=(50, width))).numpy()
        assert torques.shape == (50, 2)
        assert np.abs(torques).max() <= 1.0


def test_a_policy_without_velocity_does_not_see_it():
    policy, states = build_other_policy("without_velocity"), np.ones((1, 4))
    np.testing.assert_array_equal(policy(states), policy(states * [1, 1, 5, 5]))


@pytest.mark.parametrize("arm", ARMS)
def test_another_arm_moves_otherwise(arm):
    starts, targets = np.array([[0.3, 1.0, 1.0, -1.0]]), np.zeros((1, 2))
    steps = []
    for env in (task.make_env(starts, targets), make_other_env(arm, starts, targets)):
        env.reset()
        steps.append(env.step(np.array([[0.5, 0.5]], "float32"))[0])
    assert np.abs(steps[0] - steps[1]).max() > 1e-3


def test_the_loss_of_a_teacher_is_the_squared_difference():
    teacher = lambda rows: rows[:, :2] + rows[:, 4:]
    y_true, y_pred = tf.ones((3, 5, 6)), tf.stack([tf.fill((3, 5), 2.0), tf.fill((3, 5), 5.0)], -1)
    np.testing.assert_allclose(taught_by(teacher)(y_true, y_pred), np.full((3, 5), 4.5))


def test_scores_are_those_of_their_definitions():
    states = np.zeros((2, 3, 4))
    states[0, -1, :2] = [0.3, 0.4]
    metrics = task.scores(states, np.zeros((2, 2)))
    np.testing.assert_allclose(metrics["final_distance"], 0.25)
    assert metrics["reached"] == 0.5
    tip = np.array([0.1 * np.cos(0.3) + 0.11 * np.cos(0.7), 0.1 * np.sin(0.3) + 0.11 * np.sin(0.7)])
    np.testing.assert_allclose(metrics["fingertip_distance"], np.linalg.norm(tip - [0.21, 0.0]) / 2)


@pytest.mark.skipif(not RESULTS.is_file(), reason="no committed results")
def test_the_results_hold_what_is_promised():
    metrics = {name: np.array(values) for name, values in json.loads(RESULTS.read_text())["metrics"].items()}
    learned = metrics["final_distance_learned"]
    assert len(learned) == 10
    assert np.all(learned < metrics["final_distance_cloning"])
    assert np.all(learned < metrics["final_distance_nearest"])
    assert np.all(learned < metrics["final_distance_taught"])
    assert np.all(learned < 0.15)
    assert np.median(metrics["reached_learned"]) >= 0.7
    assert np.all(metrics["final_distance_goal_cloning"] < learned)  # a policy that sees the goal is better still
    assert np.all(metrics["final_distance_ilqr"] < 0.05)  # every target can be reached in time


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="no shipped loss")
def test_the_shipped_loss_brings_a_fresh_policy_to_a_target_in_plain_keras():
    """Algorithm 5 as its model card says: no trainer, model, expert or reward."""
    keras.utils.set_random_seed(0)
    settings = recipe.Settings()
    policy = task.build_policy(settings.policy_units)
    policy.compile(recipe.build_inner_optimizer(settings), loss=ml3_tf.load_meta_loss("reacher_demonstrations"))
    env, goal, distances = gymnasium.make("ml3_tf/ReacherGoal-v0"), np.array([0.6, 0.5]), []
    for _ in range(31):
        state, info = env.reset(options={"state": [*task.REST, 0.0, 0.0], "goal": goal})
        states = []
        for _ in range(task.HORIZON):
            states.append(state)
            state, _, _, _, info = env.step(policy(state[np.newaxis])[0].numpy())
        states, final_error = np.stack(states), goal - state[:2]
        distances.append(info["distance"])
        for_all_steps = [np.tile(row, (len(states), 1)) for row in (final_error, [-1.0, 1.0])]
        seen = [goal - states[:, :2], states[:, 2:], *for_all_steps]
        policy.train_on_batch(states, np.concatenate(seen, 1))
    assert distances[0] > 0.7
    assert distances[30] < 0.2


def test_the_push_of_a_loss_is_its_slope():
    """For the loss `(torque - way)^2 / 2` of the shoulder: the way itself."""

    class HalfSquare(ml3_tf.MetaLoss):
        def call(self, y_true, y_pred):
            return 0.5 * (y_pred[..., 0] - y_true[..., 0]) ** 2

    features = recipe.LOSS_INPUTS.features
    loss = HalfSquare(ml3_tf.MetaLoss.mlp((4,), features=features).network, features=features)
    ways = np.linspace(-1, 1, 5)
    np.testing.assert_allclose(figure.pushes(loss, ways, 0.0, 0.0), ways, atol=1e-6)
    assert len(figure.draw_loss(loss).axes) == 4
