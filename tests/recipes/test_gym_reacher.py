"""`recipes/gym_reacher.py` at toy size: tasks that are seeds, and a policy for all goals that is fine-tuned."""

import csv
import json
from pathlib import Path

import gym_reacher
import gymnasium
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf
from ml3_tf.rl import GaussianPolicy
from parts.gym_reacher import task
from parts.model_free import baselines
from parts.model_free.experiment import as_one_task, count_tasks
from parts.model_free.figure import draw_figure

ROOT = Path(__file__).parents[2]
COMMAND = "python recipes/gym_reacher.py --policy-layers 1 --smoke"
SETTINGS = gym_reacher.Settings(policy_layers=(1,))
METHODS = "learned", "ppo", "paper_ppo", "fine_tuned"

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gym_reacher")
    return folder, gym_reacher.main(SETTINGS, smoke=True, output_dir=folder)


def test_it_writes_what_a_recipe_writes(run):
    folder, metrics = run
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["command"] == COMMAND
    assert summary["metrics"] == metrics
    assert all(len(values) == 1 and np.isfinite(values).all() for values in metrics.values())
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert {(row["tasks"], row["method"]) for row in rows} == {("", method) for method in METHODS}
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert ml3_tf.load_meta_loss(folder / "meta_loss").features == task.LOSS_INPUTS.features


def test_an_interrupted_run_resumes_with_the_same_numbers(run, monkeypatch):
    folder, metrics = run
    for name in ("run_seed", "run_tuning"):
        monkeypatch.setattr(gym_reacher, name, None)  # nothing is left to run
    assert gym_reacher.main(SETTINGS, smoke=True, output_dir=folder) == metrics


def test_every_metric_is_explained(run):
    explained = gym_reacher.__doc__
    for name in run[1]:
        if f"{name}:" not in explained and f"{name}," not in explained:
            names = sorted((*task.VARIANTS, *METHODS, "goal_conditioned"), key=len, reverse=True)
            method = next(m for m in names if name.endswith(m))
            assert f"\n    {name.removesuffix(method)}METHOD: " in explained, name
            assert f"\n    {method}: " in explained


def test_the_samples_of_the_guide_count(run):
    """One outer step: 2 tasks x 3 rollouts x 50 steps; two of them, and what the guide had."""
    assert run[1]["meta_train_env_steps_learned"] == [2 * 2 * 3 * 50 + 400]


def test_a_task_is_the_seed_of_a_reset():
    """It determines the place to reach and the start; another seed has another place."""
    tasks = task.draw_tasks(np.random.default_rng(0), 3, episodes=2)
    assert tasks["seed"].shape == (3, 2) and (tasks["seed"][:, :1] == tasks["seed"]).all()
    vector, alone = task.simulator(6), gymnasium.make("Reacher-v5")
    observations, _ = vector.reset(seed=tasks["seed"].ravel().tolist())
    for observation, seed in zip(observations, tasks["seed"].ravel()):
        np.testing.assert_array_equal(observation, alone.reset(seed=int(seed))[0])
    targets = np.unique(observations[:, 4:6], axis=0)
    assert len(targets) == 3 and np.linalg.norm(targets, axis=1).max() <= 0.2


def test_seeds_are_tasks_of_one_policy_or_of_many():
    tasks = task.draw_tasks(np.random.default_rng(0), 4)
    assert count_tasks(tasks) == 4
    one = as_one_task(tasks)
    assert one["seed"].shape == (1, 4) and (one["seed"][0] == tasks["seed"][:, 0]).all()
    assert as_one_task({"state": np.zeros((4, 2, 3))})["state"].shape == (1, 4, 3)


def test_the_policy_for_all_goals_is_where_fine_tuning_starts(monkeypatch):
    """Before its first update it returns what the policy for all goals returns."""
    model = GaussianPolicy(10, 2, hidden_units=(8, 8), std=task.POLICY_STD, std_mode="fixed", output_initializer="ones")
    learner = ml3_tf.Learner(model)
    guide = baselines.GoalConditioned(task.EXPERIMENT, learner, learner.copies(model, 1))
    observations = tf.random.stateless_normal((2, 3, 10), (0, 1))
    np.testing.assert_allclose(guide(observations), model(tf.reshape(observations, (6, 10))).numpy().reshape(2, 3, 4))
    tasks, settings = task.draw_tasks(np.random.default_rng(0), 2), SETTINGS.smoke()
    setting = {"rate": 1e-3, "episodes": 2, "samples": 100, "value_rate": 3e-3}
    tuned = baselines.train_by_ppo(task.EXPERIMENT, settings, tasks, seed=0, pretrained=guide.model, **setting)
    returns = baselines.guide_returns(task.EXPERIMENT, guide, tasks)
    np.testing.assert_allclose(tuned.deterministic_returns[0], returns, rtol=1e-5)
    assert np.abs(tuned.deterministic_returns[1] - returns).min() > 1e-4  # it learned
    assert tuned.samples[:, 0].tolist() == [0, 100]


def test_fine_tuning_has_the_samples_of_the_learned_loss():
    settings = gym_reacher.Settings(test_updates=30)
    assert settings.fine_tuning == (settings.fine_tuning_rate, settings.fine_tuning_episodes, 30 * 50)


def test_a_return_without_a_unit_has_none_on_its_axis():
    curve = {"samples": [0, 50, 100], "returns": [-10.0, -5.0, -4.0]}
    curves = dict.fromkeys((*METHODS, "learned_alone"), curve)
    result = {"meta_train": {"learned": [], "learned_alone": []}, "curves": curves, "layers": {"2": curve}}
    drawn = draw_figure([{**result, "goal_conditioned": {"": -3.0}}], task.EXPERIMENT)
    assert drawn.axes[0].get_ylabel() == "return" and len(drawn.axes[0].lines) == 6
    del curves["fine_tuned"]  # other recipes have no such method
    assert len(draw_figure([{**result, "goal_conditioned": {"": -3.0}}], task.EXPERIMENT).axes[0].lines) == 5
