"""`recipes/reacher_model_free.py` at toy size, and the parts that its figures rest on."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import reacher_model_free
import tensorflow as tf
from PIL import Image

import ml3_tf
from ml3_tf.envs import reacher
from ml3_tf.rl import Adaptation, Trajectory
from parts.model_free import measures
from parts.model_free.baselines import train_goal_conditioned
from parts.model_free.experiment import meta_train
from parts.model_free.extra_loss import make_extra_loss
from parts.model_free.figure import draw_figure
from parts.model_free.meta_testing import draw_test_tasks
from parts.reacher_model_free import figure, task

ROOT = Path(__file__).parents[2]
MOTORS = "usual", "varied", "reversed", "weak", "strong"
PREFIXES = "", "shifted_", "reversed_", "weak_", "strong_", "long_", "noisy_"
COMMAND = "python recipes/reacher_model_free.py --losses learned_rewards --policy-layers 1 2 --smoke"
SETTINGS = reacher_model_free.Settings(losses=("learned_rewards",), policy_layers=(1, 2))


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reacher_model_free")
    return folder, reacher_model_free.main(SETTINGS, smoke=True, output_dir=folder)


def test_it_writes_what_a_recipe_writes(run):
    folder, metrics = run
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["command"] == COMMAND
    assert summary["metrics"] == metrics
    assert summary["config"]["losses"] == {  # how they differ: a change of it is a new run
        "learned": {},
        "learned_rewards": {"layout": "rewards", "motors": "varied"},
    }
    assert all(len(values) == 1 and np.isfinite(values).all() for values in metrics.values())
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert {row["method"] for row in rows} == {"learned", "learned_rewards", "ppo", "paper_ppo"}
    assert {row["tasks"] for row in rows} == {*PREFIXES}
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    with Image.open(folder / "before_and_after.gif") as animation:
        assert animation.n_frames > 1
        captions = np.asarray(animation.convert("L"))[5:30]
        assert all(np.any(half[:, :80] < 50) for half in np.split(captions, 2, axis=1))
    assert ml3_tf.load_meta_loss(folder / "meta_loss").features == task.LAYOUTS["arm"].features


def test_an_interrupted_run_resumes_with_the_same_numbers(run, monkeypatch):
    folder, metrics = run
    for name in ("run_seed", "run_tuning"):
        monkeypatch.setattr(reacher_model_free, name, None)  # nothing is left to run
    assert reacher_model_free.main(SETTINGS, smoke=True, output_dir=folder) == metrics


def test_every_metric_is_explained(run):
    explained = reacher_model_free.__doc__
    for name in run[1]:
        prefix = next((prefix for prefix in PREFIXES[1:] if name.startswith(prefix)), "")
        assert f"\n    {prefix}METRIC: " in explained or not prefix
        pattern = name.removeprefix(prefix).replace("layers_1_", "layers_D_").replace("layers_2_", "layers_D_")
        if f"{pattern}:" not in explained and f"{pattern}," not in explained:
            names = sorted((*task.VARIANTS, "ppo", "paper_ppo", "goal_conditioned"), key=len, reverse=True)
            method = next(m for m in names if pattern.endswith(m))
            assert f"\n    {pattern.removesuffix(method)}METHOD: " in explained, name
            assert f"\n    {method}: " in explained


def test_meta_training_is_deterministic(run, tmp_path):
    """That of the guide, too."""
    settings = SETTINGS.smoke().loss_settings("learned")
    kept = ml3_tf.load_meta_loss(run[0] / "seeds" / "meta_loss_0")
    guide = train_goal_conditioned(task.EXPERIMENT, settings, seed=0)
    again = meta_train(task.EXPERIMENT, settings, 0, tmp_path, verbose=0, guide=guide)
    assert again.samples + settings.goal_conditioned_samples == run[1]["meta_train_env_steps_learned"][0]
    for pair in zip(kept.network.get_weights(), again.meta_loss.network.get_weights()):
        np.testing.assert_array_equal(*pair)


def test_a_policy_without_layers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`policy_layers` must be numbers of hidden layers"):
        reacher_model_free.main(reacher_model_free.Settings(policy_layers=(0,)), output_dir=tmp_path)


def test_the_simulation_is_the_environment():
    env = gymnasium.make("ml3_tf/ReacherFingertipGoal-v0")
    generator = np.random.default_rng(0)
    tasks = {name: values[0, 0] for name, values in task.draw_tasks(generator, 1).items()}
    start = {"state": tasks["state"][:4].astype(float), "goal": tasks["goal"].astype(float)}
    observation, _ = env.reset(options=start)
    state, goal = tf.constant(tasks["state"]), tf.constant(tasks["goal"])
    for _ in range(task.HORIZON):
        np.testing.assert_allclose(task.observe(state, goal), observation, atol=2e-4)
        action = generator.uniform(-1.5, 1.5, 2).astype(np.float32)
        state = task.SIMULATOR.step(state, tf.constant(action))
        observation, reward, *_ = env.step(action)
        np.testing.assert_allclose(task.SIMULATOR.reward(state, action, goal), reward, atol=2e-4)


def test_motors_have_gains():
    """And no observation tells; the gains of the environment's motors are 1."""
    drawn = {name: task.draw_tasks(np.random.default_rng(0), 200, motors=name)["state"][..., 4:6] for name in MOTORS}
    assert (drawn["usual"] == 1).all() and (drawn["strong"] == 1.5).all()
    assert (drawn["reversed"].min(-1) == -1).all() and (np.abs(drawn["reversed"]) == 1).all()
    for name, low, high in (("varied", 0.5, 1.0), ("weak", 0.3, 0.5)):
        sizes = np.abs(drawn[name])
        assert low <= sizes.min() < sizes.max() <= high
    assert (drawn["varied"] > 0).mean() == pytest.approx(0.5, 0.2) and (drawn["weak"] > 0).all()
    joints, goal = [0.3, 1.0, 0.5, -0.2], tf.constant([0.1, 0.1])
    usual, turned, strong = (arm(joints, gains=gains) for gains in ([1.0, 1.0], [-1.0, -1.0], [1.5, 1.5]))
    action = np.float32([0.4, -0.7])
    np.testing.assert_array_equal(task.step(usual, action)[:4], task.step(turned, -action)[:4])
    as_strong = task.step(arm(joints, gains=[3.0, 3.0]), [0.5, -0.5])
    np.testing.assert_allclose(task.step(strong, 3 * action)[:4], as_strong[:4], rtol=1e-5)
    np.testing.assert_array_equal(task.observe(usual, goal), task.observe(turned, goal))


def arm(joints, gains=(1.0, 1.0), lengths=reacher.LENGTHS, errors=0.0):
    return tf.constant([*joints, *gains, *lengths, errors], tf.float32)


def test_the_link_of_a_long_arm_is_longer():
    lengths = task.draw_tasks(np.random.default_rng(0), 20, long=True)["state"][:, 0, 6:8]
    upper, lower = reacher.LENGTHS
    expected = {(round(task.LONGER * upper, 4), lower), (upper, round(task.LONGER * lower, 4))}
    assert {tuple(pair) for pair in lengths.round(4).astype(float).round(4)} == expected
    straight = arm([0.0, 0.0, 1.0, 0.0], lengths=(0.2, 0.1))
    np.testing.assert_allclose(task.fingertip(straight), [0.3, 0.0])
    np.testing.assert_allclose(task.observe(straight, tf.zeros(2))[9:], [0.0, 0.3], atol=1e-6)
    moved = reacher.reacher_step(straight[:4], tf.constant([0.5, 0.2]), lengths=(0.2, 0.1))
    np.testing.assert_allclose(task.step(straight, tf.constant([0.5, 0.2]))[:4], moved)


def test_sensors_have_errors_that_nothing_tells_in_advance():
    states = task.draw_tasks(np.random.default_rng(0), 2000, noisy=True)["state"][:, 0]
    assert (states[:, 8] == 1).all()
    seen = task.with_sensor_errors(tf.constant(states))
    errors = (seen - states).numpy()[:, :4] / task.SENSOR_ERRORS
    assert np.abs(errors).max() <= 1.01 and np.abs(errors.mean(0)).max() < 0.05
    np.testing.assert_allclose(errors.std(0), 3**-0.5, rtol=0.05)  # uniform
    assert np.abs(np.corrcoef(errors.T) - np.eye(4)).max() < 0.1
    close = task.with_sensor_errors(tf.constant(np.nextafter(states, 9)))
    assert np.abs(np.corrcoef(errors[:, 0], (close - states)[:, 0])[0, 1]) < 0.1
    np.testing.assert_array_equal(seen[:, 4:], states[:, 4:])
    usual = tf.constant(task.draw_tasks(np.random.default_rng(0), 5)["state"])
    np.testing.assert_array_equal(task.with_sensor_errors(usual), usual)


def test_each_set_of_tasks_differs_in_one_way():
    """In the distributions that `EXPERIMENT` names, and with one policy for a task of the further ones."""
    assert tuple(task.EXPERIMENT.test_tasks) == tuple(task.EXPERIMENT.titles) == PREFIXES
    settings = reacher_model_free.Settings(num_test_tasks=4, num_shifted_tasks=5)
    tests = draw_test_tasks(task.EXPERIMENT, settings, seed=100)
    assert [len(tasks["state"]) for tasks in tests.values()] == [12, 15, 15, 5, 5, 5, 5]
    unusual = {
        prefix: set(np.flatnonzero((tasks["state"][:, 0, 4:] != np.float32(task.USUAL_ARM)).any(0)))
        for prefix, tasks in tests.items()
    }
    assert unusual == {
        "": set(),
        "shifted_": set(),
        "reversed_": {0, 1},
        "weak_": {0, 1},
        "strong_": {0, 1},
        "long_": {2, 3},
        "noisy_": {4},
    }


def test_the_response_is_the_gain_of_the_motors():
    """To rounding for arms like those of meta-training; about so with a longer link, and with noisy sensors."""
    generator = np.random.default_rng(0)
    for prefix, allowed in {"reversed_": 1e-3, "weak_": 1e-3, "strong_": 1e-3, "long_": 0.5, "noisy_": 0.25}.items():
        drawn = task.EXPERIMENT.test_tasks[prefix](generator, 20)
        states, goal = [tf.constant(drawn["state"])], tf.constant(drawn["goal"])
        actions = tf.constant(generator.normal(0.0, 0.8, (20, 1, task.HORIZON, 2)), tf.float32)
        for action in tf.unstack(actions, axis=2):
            states.append(task.step(states[-1], action))
        visited = tf.stack([task.observe(state, goal) for state in states], 2)
        ones = tf.ones((20, 1, task.HORIZON))
        seen = task.LAYOUTS["rewards"](Trajectory(visited, actions, ones, goal, ones))
        gains = tf.broadcast_to(drawn["state"][:, :, tf.newaxis, 4:6], actions.shape)
        np.testing.assert_allclose(seen[..., 15:17], gains, atol=allowed)


@pytest.mark.parametrize("arc", [task.TRAINED_ARC, task.SHIFTED_ARC], ids=["trained", "shifted"])
def test_goals_lie_in_their_arc_and_within_reach(arc):
    low, high = arc
    goals = task.draw_tasks(np.random.default_rng(0), 500, arc=(low, high))["goal"][:, 0]
    directions = (np.arctan2(goals[:, 1], goals[:, 0]) - low) % (2 * np.pi)
    assert (directions <= high - low + 1e-5).all()
    assert np.ptp(directions) > 0.9 * (high - low)
    radii = np.linalg.norm(goals, axis=1)
    assert radii.min() >= 0.01 - 1e-6
    assert radii.max() <= 0.21 + 1e-6


def test_what_the_loss_sees_turns_with_the_arm():
    """Turned as a whole, arm, goal and velocity look the same; the moments are those of the Jacobian."""
    generator = np.random.default_rng(0)
    state, goal = generator.normal(size=4).astype("float32"), np.array([0.1, 0.05], "float32")
    turn = 0.7
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]], "float32")
    seen = [
        _seen(start, aim)
        for start, aim in ((state, goal), (state + np.array([turn, 0, 0, 0], "float32"), rotation @ goal))
    ]
    np.testing.assert_allclose(*seen, atol=1e-5)
    joints = arm(state)
    with tf.GradientTape() as tape:
        tape.watch(joints)
        tip = task.fingertip(joints)
    jacobian = tape.jacobian(tip, joints).numpy()[:, :2]
    np.testing.assert_allclose(seen[0][5:7], jacobian.T @ (goal - tip.numpy()), atol=1e-5)
    np.testing.assert_allclose(seen[0][9:11], jacobian.T @ (jacobian @ state[2:]), atol=1e-5)


def test_an_arm_turned_until_its_goal_lies_ahead_moves_alike():
    generator = np.random.default_rng(0)
    drawn = {name: tf.constant(values[:, 0]) for name, values in task.draw_tasks(generator, 5, arc=(1.0, 6.0)).items()}
    direction = tf.atan2(drawn["goal"][:, 1], drawn["goal"][:, 0])
    turn = tf.stack([direction, *[tf.zeros_like(direction)] * 8], -1)
    states, ahead = drawn["state"], drawn["state"] - turn
    goal_ahead = tf.stack([tf.norm(drawn["goal"], axis=-1), tf.zeros_like(direction)], -1)
    for _ in range(20):
        turned, turn_back = task.turned_to_goal(task.observe(states, drawn["goal"]))
        np.testing.assert_allclose(turned, task.observe(ahead, goal_ahead), atol=1e-4)
        wanted = tf.constant(generator.uniform(-1.0, 1.0, (5, 2)), tf.float32)
        states, ahead = task.step(states, turn_back(wanted)), task.step(ahead, wanted)
    assert np.abs(states[:, 2:4]).max() > 0.1  # they moved


@pytest.mark.parametrize(("gains", "lacking"), [([1.0, -0.5], 0.0), ([1.0, 0.5], 2 * 0.5 * 1.2**2)])
def test_the_guide_knows_the_motors(gains, lacking):
    """It wants torques of 0.3 N m; the policies' means are those for an elbow of gain -0.5; their loss is flat."""
    flat = ml3_tf.MetaLoss.mlp((4,), features=task.LAYOUTS["arm"].features)
    flat.network.set_weights([np.zeros_like(values) for values in flat.network.get_weights()])
    means = tf.constant([0.3, -0.6, 0.5, 0.5])
    trainer = SimpleNamespace(
        action_size=2,
        action_excess=lambda parameters, data: tf.zeros(3),
        inner_loop=SimpleNamespace(predict=lambda parameters, x: tf.broadcast_to(means, [*x.shape[:2], 4])),
        meta_loss=flat,
    )
    settings = reacher_model_free.Settings(excess_weight=1.0, guide_weight=1.0, guide_limit=2.0)
    guide = lambda x: tf.fill([*x.shape[:2], 4], 0.3)
    extra_loss = make_extra_loss(trainer, settings, guide, task.for_motors)
    x, y, weight = tf.zeros((3, 5, 11)), tf.zeros((3, 5, 13)), tf.ones((3, 5))
    states = tf.broadcast_to(arm([0.0] * 4, gains=gains), (3, 1, 9))
    data = {"query": (x, None, weight), "support": [(x, y, weight)], "tasks": {"state": states}}
    np.testing.assert_allclose(extra_loss(None, data), [lacking] * 3, rtol=1e-5, atol=1e-7)


def _seen(state, goal):
    observation = task.observe(arm(state), tf.constant(goal))
    trajectory = Trajectory(tf.stack([observation] * 2), tf.zeros((1, 2)), None, None, None)
    return task.LAYOUTS["arm"](trajectory).numpy()[0]


def test_samples_to_a_level_count_from_where_it_is_kept():
    samples = [0, 10, 20, 30]
    assert measures.samples_to(1.0, samples, [0.0, 2.0, 0.0, 1.0]) == 30
    assert measures.samples_to(1.0, samples, [0.0, 1.0, 1.5, 1.0]) == 10
    assert measures.samples_to(1.0, samples, [0.0, 2.0, 2.0, 0.5]) is None
    assert measures.samples_to(1.0, samples, [2.0, 2.0, 2.0, 2.0]) == 0


def test_the_late_rise_is_that_of_the_last_fifth():
    samples, rising = np.arange(0, 1000, 10), np.minimum(np.arange(100.0), 90.0)
    assert measures.late_rise(samples, np.arange(100.0)) == pytest.approx(19.0)  # the last 20 of 100
    assert 0 < measures.late_rise(samples, rising) < 19.0
    assert measures.late_rise(samples, np.minimum(rising, 50.0)) == pytest.approx(0.0, abs=1e-9)
    assert measures.late_rise([0, 10], [-3.0, -1.0]) == pytest.approx(2.0)  # two evaluations at least


def test_ratios_of_curves_written_by_hand():
    def adaptation(returns, step):
        column = np.array(returns, float)[:, np.newaxis]
        return Adaptation(column - 1, column, step * np.arange(len(returns))[:, np.newaxis], None)

    adapted = {
        "learned": adaptation([-10.0, -3.0, -3.0, -3.0, -3.0, -3.0], 65),
        "ppo": adaptation([-10.0, -8.0, -6.0, -5.0, -3.0, -2.0, -2.0, -2.0, -2.0, -2.0], 260),
        "paper_ppo": adaptation([-10.0, -9.0, -8.0, -8.0, -8.0, -8.0], 1300),
    }
    metrics = measures.measure(adapted)  # the level is -10 + 0.8 * 8 = -3.6 (PPO ends at -2)
    assert metrics["sample_ratio_to_ppo"] == 4 * 260 / 65
    assert metrics["sample_ratio_to_paper_ppo"] == 5 * 1300 / 65  # never there: all of its samples
    assert metrics["samples_to_level_paper_ppo"] == -1
    assert metrics["on_policy_final_return_learned"] == -4.0
    assert metrics["samples_to_learned_return_ppo"] == 4 * 260  # it passes on the way to its own
    assert metrics["samples_to_ppo_return_learned"] == metrics["samples_to_learned_return_paper_ppo"] == -1
    adapted["learned"] = adaptation([-10.0] * 6, 65)
    assert measures.measure(adapted)["sample_ratio_to_ppo"] == 0.0


def test_every_loss_has_a_curve_and_its_name():
    losses, prefixes = task.VARIANTS, task.EXPERIMENT.test_tasks
    curve = {"samples": [0, 65, 130], "returns": [-10.0, -5.0, -4.0]}
    result = {
        "meta_train": {name: [] for name in losses},
        "curves": {prefix + name: curve for prefix in prefixes for name in (*losses, "ppo", "paper_ppo")},
        "goal_conditioned": dict.fromkeys(prefixes, -3.0),
        "layers": {"2": curve},
    }
    drawn = draw_figure([result], task.EXPERIMENT)
    names = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert set(task.EXPERIMENT.labels.values()) < set(names) and len(names) == len(losses) + 3
    assert all(len(ax.lines) == len(names) for ax in drawn.axes)
    looks = {(line.get_color(), line.get_linestyle()) for line in drawn.axes[0].lines}
    assert len(looks) == len(names)


def test_where_the_loss_pushes_is_drawn():
    loss = ml3_tf.MetaLoss.mlp((4,), features=task.LAYOUTS["arm"])
    assert len(figure.draw_loss(loss).axes) == 4  # three panels and a scale


def test_the_shipped_reward_aware_loss_pushes_as_the_motor_turns():
    """Its figure: the push to a goal ahead and behind, for shoulder and elbow, by the gain that the response tells."""
    drawn = figure.draw_reward_aware_loss(ml3_tf.load_meta_loss("reacher_model_free_rewards"))
    for ax in drawn.axes:
        gains = ax.lines[0].get_xdata()
        ahead, behind = (line.get_ydata() for line in ax.lines)
        usual = np.abs(gains) > 0.5
        assert (np.sign(ahead) == np.sign(gains))[usual].all()
        assert (np.sign(behind) == -np.sign(gains))[usual].all()


def test_the_committed_results_hold_what_is_promised():
    metrics = json.loads((ROOT / "results" / "reacher_model_free" / "summary.json").read_text())["metrics"]
    assert min(metrics["samples_to_level_learned"]) > 0  # all seeds cross
    assert np.median(metrics["sample_ratio_to_ppo"]) >= 5
    assert np.median(metrics["sample_ratio_to_paper_ppo"]) >= 10
    final = {name: np.array(metrics[f"final_return_{name}"]) for name in ("learned", "learned_alone", "ppo")}
    assert (final["learned"] / final["ppo"] < 1.1).all()  # distances: as far from the goal, within a tenth
    assert np.mean(final["learned_alone"]) / np.mean(final["ppo"]) <= 1.05
    for prefix in ("", "reversed_"):  # it notices, on all seeds
        rewards, ppo = (metrics[f"{prefix}final_return_{name}"] for name in ("learned_rewards", "ppo"))
        assert np.mean(rewards) / np.mean(ppo) <= 1.1
        samples, of_ppo = (metrics[f"{prefix}samples_to_level_{name}"] for name in ("learned_rewards", "ppo"))
        assert min(samples) > 0 and (np.divide(samples, of_ppo) <= 0.2).all()
    # What does not hold is said: without a response, motors must not turn the other way round.
    assert np.mean(metrics["reversed_final_return_learned"]) < np.mean(metrics["reversed_initial_return"])
    card = (ROOT / "savedmodels" / "reacher_model_free" / "README.md").read_text()
    assert "by eq. 8 alone" in card and "reversed" in card
