"""Tests of `ml3_tf.envs.ant`: the ant against that of gymnasium, its start, its columns and its goals."""

from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest

from ml3_tf.envs import ant
from ml3_tf.envs.ant import AntGoalEnv

PUBLISHED = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "ant.xml"
# Hip and ankle of each leg have the same sign here; in the published model the ankles of legs 1 and 2 have the other.
SIGNS = np.array([1, 1, 1, -1, 1, -1, 1, 1])


@pytest.fixture(scope="module")
def env():
    return AntGoalEnv()


def test_ant_moves_as_the_published_one(env):
    published = mujoco.MjModel.from_xml_path(str(PUBLISHED))
    published.opt.integrator, published.opt.timestep = env.model.opt.integrator, env.model.opt.timestep
    theirs = mujoco.MjData(published)
    env.reset(seed=0)
    theirs.qpos[:], theirs.qvel[:] = env.data.qpos, env.data.qvel
    theirs.qpos[7:] *= SIGNS
    generator = np.random.default_rng(0)
    contacts = 0
    for _ in range(20):
        action = generator.uniform(-0.1, 0.1, 8)  # with more it jumps
        env.step(action)
        theirs.ctrl[:] = np.roll(action * SIGNS, 2)  # its first motors are those of the last leg
        theirs.qacc_warmstart[:] = 0
        mujoco.mj_step(published, theirs, ant.NUM_SUBSTEPS)
        state = np.concatenate([theirs.qpos, theirs.qvel])
        state[ant.JOINTS] *= SIGNS
        state[ant.JOINT_VELOCITY] *= SIGNS
        np.testing.assert_allclose(env.state, state, atol=1e-6)
        contacts += env.data.ncon
    assert contacts >= 20 and np.ptp(env.state[ant.JOINTS][::2]) > 0.2  # it moved, on the floor
    np.testing.assert_allclose(np.sum(env.model.body_mass), np.sum(published.body_mass), rtol=1e-12)


def test_model_file_holds_the_constants(env):
    assert env.model.opt.timestep * ant.NUM_SUBSTEPS == pytest.approx(ant.TIME_STEP)
    np.testing.assert_array_equal(env.model.geom("lower_leg0").size[0], ant.RADIUS)
    assert env.model.geom("lower_leg0").size[1] == pytest.approx(ant.LOWER_LEG / 2)  # MuJoCo: half the length
    names = [env.model.joint(i).name for i in env.model.actuator_trnid[:, 0]]
    assert names == [f"{name}{leg}" for leg in range(4) for name in ("hip", "ankle")]


def test_legs_are_in_the_order_of_the_table(env):
    env.reset(seed=0)
    mujoco.mj_kinematics(env.model, env.data)
    feet = np.sign([env.data.site(f"foot{leg}").xpos[:2] for leg in range(4)])
    np.testing.assert_array_equal(feet, [[1, 1], [-1, 1], [-1, -1], [1, -1]])  # front left, back left, ...


def test_ant_starts_with_a_foot_on_the_floor_and_stands(env):
    for seed in range(5):
        env.reset(seed=seed)
        np.testing.assert_allclose(env.state[ant.JOINTS], ant.STANCE, atol=ant.STANCE_NOISE)
        np.testing.assert_array_equal(env.state[15:], 0)
        mujoco.mj_kinematics(env.model, env.data)
        feet = [env.data.site(f"foot{leg}").xpos[2] for leg in range(4)]
        assert min(feet) == pytest.approx(ant.RADIUS)
    for _ in range(100):
        env.step(np.zeros(8))
    assert 0.3 < env.state[2] < 0.65 and np.hypot(*env.state[:2]) < 0.2
    assert np.max(np.abs(env.state[15:])) < 0.1


def test_drawn_goals_lie_all_around_on_a_circle(env):
    goals = np.array([env.reset(seed=seed)[1]["goal"] for seed in range(100)])
    np.testing.assert_allclose(np.hypot(*goals.T), ant.GOAL_RADIUS, rtol=1e-6)
    assert len({tuple(quadrant) for quadrant in np.sign(goals)}) == 4


def test_observation_is_the_state_and_the_way_to_the_goal(env):
    env.reset(seed=0, options={"goal": [-1.0, 0.5]})
    for _ in range(20):
        observation, reward, _, _, info = env.step(env.action_space.sample())
    np.testing.assert_allclose(observation[:29], env.state, rtol=1e-6)
    np.testing.assert_allclose(observation[29:], [-1.0, 0.5] - env.state[:2], rtol=1e-6)
    assert reward == -info["distance"] == pytest.approx(-np.hypot(*observation[29:]))
    np.testing.assert_allclose(np.linalg.norm(observation[ant.ORIENTATION]), 1, rtol=1e-6)


def test_return_is_the_metric_of_the_paper_less_a_constant(env):
    _, info = env.reset(seed=3)
    distances = [info["distance"]]
    rewards = []
    for _ in range(30):
        _, reward, _, _, info = env.step(env.action_space.sample())
        distances.append(info["distance"])
        rewards.append(reward)
    metric = np.sum(distances[0] - np.array(distances[1:]))
    assert sum(rewards) == pytest.approx(metric - 30 * ant.GOAL_RADIUS)


def test_ant_at_full_torque_stays_within_half_of_its_bounds():
    env = AntGoalEnv()
    generator = np.random.default_rng(0)
    for seed in range(3):
        env.reset(seed=seed)
        for _ in range(100):
            observation, *_ = env.step(np.sign(generator.normal(size=8)))
            within = np.abs(observation) / env.observation_space.high
            assert np.max(np.delete(within, range(3, 7))) < 0.6 and np.max(within) <= 1


def state(**columns):
    values = np.array([0, 0, 0.6, 1, 0, 0, 0, *ant.STANCE, *np.zeros(14)])
    for column, value in columns.items():
        values[int(column[1:])] = value
    return values


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"state": np.zeros(30)}, r"`state` must have the shape \(29,\). Received: shape \(30,\)"),
        ({"state": state(c3=0.5)}, r"`state` must have a unit quaternion in columns 3 to 6: .* \[0.5, .* norm 0.500"),
        ({"state": state(c2=0.1)}, "`state` must lie between"),
        ({"state": state(c20=np.nan)}, "`state` must be finite"),
        ({"goal": [5.1, 0.0]}, "`goal` must lie between .* Goals beyond these limits cannot be reached"),
        ({"goal": [1.0, 0.0, 0.0]}, r"`goal` must have the shape \(2,\). Received: shape \(3,\)"),
    ],
    ids=["state-width", "quaternion", "within-the-floor", "nan-state", "goal-outside", "goal-width"],
)
def test_an_invalid_task_is_refused(env, options, words):
    with pytest.raises(ValueError, match=words):
        env.reset(options=options)


def test_frame_shows_where_the_ant_is():
    env = AntGoalEnv(render_mode="rgb_array")
    env.reset(options={"state": state(c0=-1.5, c1=1.5), "goal": [2.0, -2.0]})
    frame = env.render()
    rows, columns = np.nonzero(np.all(frame == (0, 114, 178), -1))
    assert np.mean(rows) == pytest.approx(frame.shape[0] / 4, abs=4)  # up is positive
    assert np.mean(columns) == pytest.approx(frame.shape[1] / 4, abs=4)
