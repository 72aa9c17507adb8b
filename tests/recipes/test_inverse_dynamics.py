"""The inverse dynamics recipe at toy size, and the learner whose inertia matrix it compares with the true one."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("mujoco")

import inverse_dynamics

import ml3_tf
from parts.inverse_dynamics.learner import (
    Scales,
    build_learner,
    draw_points,
    draw_tasks,
    implied_inertia,
    inertia_loss,
    standard_inertia,
)
from parts.inverse_dynamics.meta_testing import METHODS
from parts.inverse_dynamics.report import QUANTITIES, compute_metrics
from parts.inverse_dynamics.robot_dynamics import Robot
from parts.tuned_optimizers import OPTIMIZERS

ROOT = Path(__file__).parents[2]
TIMES = np.linspace(0.0, 4.0, 4)
ROBOTS = ["reacher", "sawyer"]


@pytest.fixture(params=ROBOTS, scope="module")
def setting(request):
    robot = Robot(request.param)
    return robot, Scales.measure(robot, TIMES)


def test_scales_are_those_of_the_motions(setting):
    robot, scales = setting
    x, torque, inertia = draw_points(robot, scales, np.random.default_rng(0), TIMES, 100)
    count = robot.num_joints
    np.testing.assert_allclose(x[:, count:].std(axis=0), 1, atol=0.2)
    np.testing.assert_allclose(torque.mean(axis=0), 0, atol=0.2)
    np.testing.assert_allclose(torque.std(axis=0), 1, atol=0.25)
    np.testing.assert_allclose(np.diagonal(inertia.mean(axis=0)), 1, atol=0.2)
    assert scales == Scales.measure(robot, TIMES)


def test_points_obey_the_equation_of_motion(setting):
    """Eq. 10 in standard units: torque * std + mean = D M' D (qdd * std) + F, with F from MuJoCo."""
    robot, scales = setting
    x, torque, inertia = draw_points(robot, scales, np.random.default_rng(0), TIMES, 1)
    angle, velocity, acceleration = np.split(x.astype("float64"), 3, axis=1)
    motion = (angle, velocity * scales.velocity, acceleration * scales.acceleration)
    root = np.sqrt(scales.inertia)
    inertial = np.einsum("bij,bj->bi", inertia * root[:, np.newaxis] * root, motion[2])
    expected = torque * scales.torque + scales.torque_mean
    np.testing.assert_allclose(inertial + robot.dynamics(motion).bias, expected, rtol=1e-4, atol=1e-4)


def test_a_learner_is_affine_in_the_acceleration_with_a_positive_definite_inertia(setting):
    robot, scales = setting
    model = build_learner(scales)
    x = draw_points(robot, scales, np.random.default_rng(0), TIMES, 1)[0][np.newaxis]
    predict = lambda x: model(x[0])[tf.newaxis]
    inertia = implied_inertia(predict, tf.constant(x), scales).numpy()[0]
    np.testing.assert_allclose(inertia, inertia.transpose(0, 2, 1), atol=2e-4)
    assert np.linalg.eigvalsh(inertia).min() > 0
    root = np.sqrt(scales.inertia)
    acceleration = x[0, :, 2 * robot.num_joints :] * scales.acceleration
    inertial = np.einsum("bij,bj->bi", inertia * root[:, np.newaxis] * root, acceleration) / scales.torque
    at_rest = x * np.repeat([1, 1, 0], robot.num_joints).astype("float32")
    np.testing.assert_allclose(predict(x)[0] - predict(at_rest)[0], inertial, rtol=1e-3, atol=1e-3)


def test_the_inertia_loss_is_zero_for_the_true_matrices_alone(setting):
    robot, scales = setting
    tasks = draw_tasks(robot, scales, np.random.default_rng(0), TIMES, 2, 1, 1)
    learner = ml3_tf.Learner(lambda: build_learner(scales), seed=0)
    parameters = learner.draw(2)
    predict = lambda x: learner.predict(parameters, x)
    own = implied_inertia(predict, tf.constant(tasks["query"][0]), scales)
    extra_loss = inertia_loss(learner, scales, every=2)
    tasks = tf.nest.map_structure(tf.constant, tasks)
    np.testing.assert_allclose(extra_loss(parameters, {**tasks, "inertia": own}), [0, 0], atol=1e-6)
    assert (extra_loss(parameters, tasks).numpy() > 0.01).all()
    squares = ((own - tasks["inertia"]).numpy()[:, ::2] ** 2).sum(axis=(2, 3)).mean(axis=1) / robot.num_joints
    np.testing.assert_allclose(extra_loss(parameters, tasks), squares, rtol=1e-4)


def test_standard_inertia_undoes_its_units():
    scales = Scales([1, 1], [1, 1], [1, 1], [0, 0], [4.0, 9.0])
    np.testing.assert_allclose(standard_inertia(np.array([[4.0, 6.0], [6.0, 9.0]]), scales), np.ones((2, 2)))


def test_tasks_are_drawn_from_different_motions(setting):
    robot, scales = setting
    tasks = draw_tasks(robot, scales, np.random.default_rng(0), TIMES, 2, support_motions=3, query_motions=2)
    count = robot.num_joints
    assert [array.shape for array in tasks["support"]] == [(2, 12, 3 * count), (2, 12, count)]
    assert [array.shape for array in tasks["query"]] == [(2, 8, 3 * count), (2, 8, count)]
    assert tasks["inertia"].shape == (2, 8, count, count)
    points = np.concatenate([tasks["support"][0], tasks["query"][0]], axis=1).reshape(-1, 3 * count)
    assert len(np.unique(points, axis=0)) == len(points)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reacher")
    return folder, inverse_dynamics.main(first_seed=1, smoke=True, output_dir=folder)


def test_it_writes_what_a_recipe_writes(run):
    folder, metrics = run
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary) == {"recipe", "command", "seeds", "metrics", "costs", "config", "versions", "seconds"}
    assert summary["command"] == "python recipes/inverse_dynamics.py --first-seed 1 --smoke"
    assert summary["metrics"] == metrics
    assert {f"{quantity}_{name}_{step}" for quantity in QUANTITIES for name in METHODS for step in (4, 12, 40)} <= set(
        metrics
    )
    assert all(len(values) == 1 and np.isfinite(values).all() for values in metrics.values())
    assert summary["config"]["best_optimizer"] in OPTIMIZERS and len(summary["config"]["optimizer_rates"]) == 4
    assert summary["costs"]["core_minutes"]["meta_train"][0] > 0
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert len(rows) == len(METHODS) * 41
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_methods_start_from_the_same_learners(run):
    rows = csv.DictReader((run[0] / "history.csv").open())
    first = {row["torque_rmse"] for row in rows if row["seed"] == "1" and row["step"] == "0"}
    assert max(map(float, first)) == pytest.approx(min(map(float, first)), rel=1e-5)


def test_the_exported_loss_is_the_shaped_one_of_the_first_seed(run):
    y_true, y_pred = np.random.default_rng(0).normal(size=(2, 5, 3))
    losses = [ml3_tf.load_meta_loss(run[0] / name) for name in ("meta_loss", "seeds/meta_loss_1")]
    values = [float(loss(y_true, y_pred)) for loss in losses]
    assert values[0] == values[1] != float(ml3_tf.load_meta_loss("inverse_dynamics_reacher")(y_true, y_pred))


def test_every_metric_is_explained(run):
    words = inverse_dynamics.__doc__.replace(",", " ").replace(":", " ").split()
    for name in run[1]:
        quantity, method = next(
            (name[: name.index(f"_{key}_")], key) for key in sorted(METHODS, key=len)[::-1] if f"_{key}_" in name
        )
        assert method in words and f"{quantity}_METHOD_STEPS" in words


def test_losses_are_used_with_the_optimizer_that_they_were_learned_with(run):
    facts = ml3_tf.load_meta_loss(run[0] / "meta_loss").facts
    assert facts.optimizer == "Adam"
    assert facts.learning_rates == pytest.approx((inverse_dynamics.Settings().inner_rates[1],) * 2)


def test_an_interrupted_run_resumes_with_the_same_numbers(run, monkeypatch):
    folder, metrics = run
    (folder / "seeds" / "seed_1.json").unlink()
    ran = []
    run_seed = inverse_dynamics.run_seed
    monkeypatch.setattr(inverse_dynamics, "run_seed", lambda seed, *rest: ran.append(seed) or run_seed(seed, *rest))
    assert inverse_dynamics.main(first_seed=1, smoke=True, output_dir=folder) == metrics
    assert ran == [1]


def test_an_unknown_robot_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"Unknown robot. Expected one of \['reacher', 'sawyer'\]. Received: .*'panda'"
    ):
        inverse_dynamics.main(inverse_dynamics.Settings(robot="panda"), smoke=True, output_dir=tmp_path)


def test_last_and_best_at_once_three_and_ten_times_the_horizon():
    settings = inverse_dynamics.Settings(inner_steps=1, test_steps=10)
    curve = lambda errors: {quantity: errors for quantity in QUANTITIES}
    falling = [3.0, 2.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.35]
    metrics = compute_metrics({"adam": curve(falling), "sgd": curve([3.0, 2.0] + [np.nan] * 9)}, settings)
    assert [metrics[f"torque_rmse_adam_{step}"] for step in (1, 3, 10)] == [2.0, 0.9, 0.35]
    assert [metrics[f"best_torque_rmse_adam_{step}"] for step in (1, 3, 10)] == [2.0, 0.9, 0.3]
    assert np.isnan(metrics["torque_rmse_sgd_10"]) and metrics["best_torque_rmse_sgd_10"] == 2.0


def metrics_of(robot):
    summary = json.loads((ROOT / "results" / f"inverse_dynamics_{robot}" / "summary.json").read_text())
    return {name: np.array(values) for name, values in summary["metrics"].items()}


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_results_hold_that_shaping_helps(robot, optimizer):
    metrics = metrics_of(robot)
    shaped, unshaped = (metrics[f"torque_rmse_{name}_{optimizer}_100"] for name in ("shaped", "unshaped"))
    assert np.sum(shaped < unshaped) >= 9
    assert (shaped < metrics[f"torque_rmse_same_rate_{optimizer}_100"]).all()


def test_the_results_hold_what_is_promised_of_tuned_optimizers():
    """On the Sawyer ahead of all of them at the horizon, level with AdamW after ten times as many steps."""
    metrics = metrics_of("sawyer")
    for name in OPTIMIZERS:
        assert np.sum(metrics["torque_rmse_shaped_adam_100"] < metrics[f"torque_rmse_{name}_100"]) >= 9
    late = metrics["torque_rmse_adamw_1000"] / metrics["torque_rmse_shaped_adam_1000"]
    assert 0.95 < late.mean() < 1.05
    metrics = metrics_of("reacher")
    assert metrics["torque_rmse_muon_100"].mean() < metrics["torque_rmse_shaped_adam_100"].mean()
