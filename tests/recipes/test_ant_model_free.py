"""`recipes/ant_model_free.py` at toy size, and the symmetry that its guide rests on."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import ant_model_free
import gymnasium
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf
from parts.ant_model_free import figure, task
from parts.model_free.experiment import meta_train
from parts.model_free.extra_loss import make_extra_loss
from parts.model_free.figure import pushes

ROOT = Path(__file__).parents[2]
COMMAND = "python recipes/ant_model_free.py --losses learned_alone --policy-layers 1 --smoke"
SETTINGS = ant_model_free.Settings(losses=("learned_alone",), policy_layers=(1,))


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ant_model_free")
    return folder, ant_model_free.main(SETTINGS, smoke=True, output_dir=folder)


def test_it_writes_what_a_recipe_writes(run):
    folder, metrics = run
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["command"] == COMMAND
    assert summary["metrics"] == metrics
    assert all(len(values) == 1 and np.isfinite(values).all() for values in metrics.values())
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert {(row["tasks"], row["method"]) for row in rows} == {
        (prefix, method) for prefix in ("", "shifted_") for method in ("learned", "learned_alone", "ppo", "paper_ppo")
    }
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "before_and_after.gif").read_bytes().startswith(b"GIF")
    assert ml3_tf.load_meta_loss(folder / "meta_loss").features == task.LOSS_INPUTS.features


def test_an_interrupted_run_resumes_with_the_same_numbers(run, monkeypatch):
    folder, metrics = run
    for name in ("run_seed", "run_tuning"):
        monkeypatch.setattr(ant_model_free, name, None)  # nothing is left to run
    assert ant_model_free.main(SETTINGS, smoke=True, output_dir=folder) == metrics


def test_every_metric_is_explained(run):
    explained = ant_model_free.__doc__
    for name in run[1]:
        pattern = name.removeprefix("shifted_").replace("layers_1_", "layers_D_").replace("layers_2_", "layers_D_")
        if f"{pattern}:" not in explained and f"{pattern}," not in explained:
            method = next(
                m for m in ("goal_conditioned", "paper_ppo", "ppo", "learned_alone", "learned") if pattern.endswith(m)
            )
            assert f"\n    {pattern.removesuffix(method)}METHOD: " in explained, name
            assert f"\n    {method}: " in explained


def test_the_samples_of_the_guide_count(run):
    """One outer step: 2 tasks x 3 rollouts x 100 steps; two of them, and what the guide had."""
    assert run[1]["meta_train_env_steps_learned"] == [2 * 2 * 3 * 100 + 800]
    assert run[1]["meta_train_env_steps_learned_alone"] == [2 * 2 * 3 * 100]  # it had none


def test_a_policy_without_layers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`policy_layers` must be numbers of hidden layers"):
        ant_model_free.main(ant_model_free.Settings(policy_layers=(0,)), output_dir=tmp_path)


@pytest.mark.parametrize("number", range(4))
def test_the_ant_walks_alike_in_each_of_four_directions(number):
    """Two ants a quarter turn (or more) apart, whose actions are turned likewise, stay so to the last digit."""
    generator = np.random.default_rng(number)
    start = task.draw_tasks(generator, 1, arc=(number * np.pi / 2 - 0.7, number * np.pi / 2 + 0.7))
    state, goal = (start[name][0, 0] for name in ("state", "goal"))
    front = task.QUARTER_TURNS[number].astype(float) @ np.concatenate([state, goal - state[:2]])
    envs = gymnasium.make_vec("ml3_tf/AntGoal-v0", num_envs=2, vectorization_mode="vector_entry_point")
    tasks = [{"state": state, "goal": goal}, {"state": front[:29], "goal": front[:2] + front[29:]}]
    envs.set_attr("task", tasks)
    observations, _ = envs.reset()
    for _ in range(40):
        turned, turn_back = task.turned_to_front(tf.constant(observations[:1]))
        np.testing.assert_allclose(turned[0], observations[1], atol=1e-5)
        wanted = generator.uniform(-1.0, 1.0, 8).astype("float32")
        observations, *_ = envs.step(np.stack([turn_back(tf.constant(wanted[np.newaxis]))[0], wanted]))
    envs.close()
    assert np.abs(observations[0, :2]).max() > 0.05  # they walked


def test_tasks_are_those_of_the_environment():
    tasks = task.draw_tasks(np.random.default_rng(0), 3, episodes=2, radius=3.0)
    np.testing.assert_allclose(np.linalg.norm(tasks["goal"], axis=-1), 3.0)
    env = gymnasium.make("ml3_tf/AntGoal-v0")
    for n in range(3):
        env.reset(options={name: values[n, 1] for name, values in tasks.items()})  # accepted
        np.testing.assert_array_equal(tasks["state"][n, 0], tasks["state"][n, 1])


def test_a_guide_pulls_the_means_towards_its_own(tmp_path):
    """With a loss that has just been drawn, the pull on phi is that of the gap between means."""
    settings = SETTINGS.smoke().replace(outer_steps=1)
    far, near = (
        meta_train(
            task.EXPERIMENT,
            settings,
            0,
            tmp_path / str(action),
            verbose=0,
            guide=lambda x, a=action: tf.fill([*x.shape[:2], 16], a),
        )
        for action in (0.9, 0.0)
    )
    networks = far.meta_loss.network, near.meta_loss.network
    weights = [np.concatenate([w.ravel() for w in network.get_weights()]) for network in networks]
    assert np.abs(weights[0] - weights[1]).max() > 1e-4


def with_layout(loss_class):
    """A loss of the features of the recipe, of a class whose `call` reads no network."""
    features = task.LOSS_INPUTS.features
    return loss_class(ml3_tf.MetaLoss.mlp((4,), features=features).network, features=features)


@pytest.mark.parametrize(("pull", "lacking"), [(1.0, 1.0), (0.0, 2.0)], ids=["right slopes", "no slopes"])
def test_a_guide_asks_for_means_and_for_slopes(pull, lacking):
    """All means are 0.5 from those of the guide; a loss that is half the squared gap has the right slopes already."""

    class Gap(ml3_tf.MetaLoss):
        def call(self, y_true, y_pred):
            return pull * 0.5 * tf.reduce_sum(tf.square(y_pred[..., :8] - 0.3), -1)

    trainer = SimpleNamespace(
        action_size=8,
        action_excess=lambda parameters, data: tf.zeros(2),
        inner_loop=SimpleNamespace(predict=lambda parameters, x: tf.fill([*x.shape[:2], 16], 0.8)),
        meta_loss=with_layout(Gap),
    )
    x, y, weight = tf.zeros((2, 5, 31)), tf.zeros((2, 5, 39)), tf.ones((2, 5))
    settings = ant_model_free.Settings(excess_weight=1.0, guide_weight=10.0, guide_limit=1.0)
    guide = lambda x: tf.fill([*x.shape[:2], 16], 0.3)
    extra_loss = make_extra_loss(trainer, settings, guide, task.EXPERIMENT.for_robots)
    data = {"tasks": {"state": tf.zeros((2, 1, 29))}, "query": (x, None, weight), "support": [(x, y, weight)] * 2}
    losses = extra_loss(None, data)
    np.testing.assert_allclose(losses, [10.0 * 0.25 * lacking] * 2, rtol=1e-5)


def test_where_the_loss_pushes_is_drawn():
    loss = ml3_tf.MetaLoss.mlp((4,), features=task.LOSS_INPUTS)
    assert [len(ax.lines) for ax in figure.draw_loss(loss).axes] == [4, 4]


def test_pushes_are_slopes_of_the_loss():
    """Of a loss that is the squared way of the mean to ten times the height: the same for all actions."""

    class Follows(ml3_tf.MetaLoss):
        def call(self, y_true, y_pred):
            return tf.reduce_sum(tf.square(y_pred[..., :8] - 10.0 * y_true[..., 2:3]), -1)

    observations = np.zeros((2, 31), np.float32)
    observations[:, 2] = 0.1, 0.3
    received = pushes(with_layout(Follows), task.LOSS_INPUTS, tf.constant(observations), 0.2)
    np.testing.assert_allclose(received, np.repeat([[2.0], [6.0]], 8, 1), rtol=1e-5)


def test_the_committed_results_hold_what_is_promised():
    metrics = json.loads((ROOT / "results" / "ant_model_free" / "summary.json").read_text())["metrics"]
    assert min(metrics["sample_ratio_to_paper_ppo"]) >= 5 and min(metrics["samples_to_level_learned"]) > 0
    assert np.all(np.array(metrics["final_return_learned"]) > metrics["final_return_paper_ppo"])
    card = (ROOT / "savedmodels" / "ant_model_free" / "README.md").read_text()
    # What does not hold is said: the guide ends ahead, and far goals of one seed are better left to PPO.
    assert np.mean(metrics["final_return_goal_conditioned"]) > np.mean(metrics["final_return_learned"])
    assert "ends ahead (-46 m)" in card
    behind = np.array(metrics["shifted_final_return_learned"]) < metrics["shifted_final_return_paper_ppo"]
    assert behind.sum() == 1 and "two seeds end ahead of PPO, one (-168 m) behind" in card
