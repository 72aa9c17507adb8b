"""Tests of `ml3_tf.rl.dynamics_refit`: what is collected and when, and what is not learned from."""

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf.envs  # noqa: F401 - registers the environments
from ml3_tf import LossInputs, MetaLoss, MetaTrainer
from ml3_tf.envs.pointmass import pointmass_step
from ml3_tf.rl.checked_env import RolloutError
from ml3_tf.rl.demonstrations import DemonstrationTrainer
from ml3_tf.rl.dynamics import DynamicsEnsemble
from ml3_tf.rl.dynamics_refit import DynamicsRefit, ReplayBuffer
from ml3_tf.rl.loss_inputs import observation_and_goal
from ml3_tf.rl.model_based import ModelBasedTrainer
from ml3_tf.rl.policies import MLPPolicy
from ml3_tf.rl.rollouts import Trajectory

NUM_TASKS, HORIZON = 8, 5
INPUTS = LossInputs(observation_and_goal, {"action": 2, "state": 4, "goal": 2})
STARTS = np.random.default_rng(0).uniform(-1, 1, (NUM_TASKS, 1, 4)).astype("float32")
GOALS = np.random.default_rng(1).uniform(-1, 1, (NUM_TASKS, 1, 2)).astype("float32")


def make_env(number=NUM_TASKS):
    return gymnasium.make_vec("ml3_tf/PointmassGoal-v0", num_envs=number, vectorization_mode="sync")


def make_tasks(number=NUM_TASKS):
    part = STARTS[:number], GOALS[:number]
    return tf.data.Dataset.from_tensors({"support": part, "query": part}).repeat()


def final_distance(trajectory):
    return tf.norm(trajectory.observations[..., -1, :2] - trajectory.goal, axis=-1)


def make_dynamics():
    dynamics = DynamicsEnsemble(4, 2, num_members=2, hidden_units=(8,), seed=0)
    dynamics.compile(keras.optimizers.Adam(1e-2))
    return dynamics


def make_trainer(dynamics, inner_steps=1, trainer_class=ModelBasedTrainer, **compile_arguments):
    keras.utils.set_random_seed(0)
    trainer = trainer_class(
        lambda: MLPPolicy(4, 2, hidden_units=(4,), action_limit=1.0),
        MetaLoss.mlp((6,), features=INPUTS),
        dynamics=dynamics.next_states,
        horizon=HORIZON,
        loss_inputs=INPUTS,
        inner_steps=inner_steps,
        unroll=1,
        seed=0,
    )
    inner_optimizer = keras.optimizers.SGD(0.5)
    task_loss = final_distance if trainer_class is ModelBasedTrainer else "mse"
    arguments = {"inner_optimizer": inner_optimizer, "jit_compile": False, **compile_arguments}
    trainer.compile(keras.optimizers.Adam(1e-3), task_loss, **arguments)
    return trainer


def make_refit(dynamics, env=None, tasks=None, **arguments):
    defaults = {"every": 2, "exploration": 2, "epochs": 2, "seed": 0}
    return DynamicsRefit(dynamics, env or make_env(), tasks or make_tasks(), **{**defaults, **arguments})


@pytest.fixture(scope="module")
def run():
    """Two epochs of three iterations, a refit after every second, and what the replay held after each iteration."""
    dynamics, sizes = make_dynamics(), []
    trainer, refit = make_trainer(dynamics, inner_steps=2), make_refit(dynamics)
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: sizes.append(refit.replay.size))
    history = trainer.fit(make_tasks(), steps_per_epoch=3, epochs=2, callbacks=[refit, watch], verbose=0).history
    return trainer, refit, sizes, history


def test_it_collects_and_refits_every_so_many_iterations(run):
    _, refit, sizes, history = run
    episode = 7 * HORIZON  # one of eight is held out
    assert sizes == [2 * episode, 3 * episode, 3 * episode, 4 * episode, 4 * episode, 5 * episode]
    assert refit.held_out.size == 5 * HORIZON
    assert len(refit.scores) == 4
    expected = [refit.scores[1].log_likelihood, refit.scores[3].log_likelihood]
    np.testing.assert_allclose(history["dynamics_log_likelihood"], expected)


def test_the_transitions_are_real_and_start_where_the_tasks_do(run):
    states, actions, next_states = run[1].replay.transitions()
    np.testing.assert_allclose(next_states, pointmass_step(states, actions), atol=1e-5)
    starts = states.reshape(5, 7, HORIZON, 4)[:, :, 0]
    np.testing.assert_allclose(starts, np.stack([STARTS[:7, 0]] * 5), atol=1e-6)


def test_the_last_inner_policies_are_rolled_out(run):
    """The last refit was after the last iteration: its episodes are those of the policies that are still kept."""
    trainer, refit, _, _ = run
    parameters, (starts, goals) = trainer.last_policies()
    np.testing.assert_array_equal(goals, GOALS)
    actions = refit.replay.transitions()[1].reshape(5, 7, HORIZON, 2)[-1]
    expected = trainer.inner_loop.predict(parameters, starts)[:7]
    np.testing.assert_allclose(actions[:, :1], expected, atol=1e-5)


def test_refits_make_the_model_better(run):
    scores = run[1].scores
    assert scores[-1].log_likelihood > scores[0].log_likelihood
    assert np.linalg.norm(scores[-1].step_error) < np.linalg.norm(scores[0].step_error)


def test_fewer_environments_than_tasks_take_the_first_of_them():
    dynamics = make_dynamics()
    refit = make_refit(dynamics, env=make_env(3), exploration=1)
    make_trainer(dynamics).fit(make_tasks(), steps_per_epoch=1, callbacks=[refit], verbose=0)
    starts = refit.replay.transitions()[0].reshape(3, HORIZON, 4)[:, 0]
    np.testing.assert_allclose(starts, STARTS[:3, 0], atol=1e-6)


@pytest.mark.parametrize("arguments", [{"jit_compile": True}, {"steps_per_execution": 2}], ids=["xla", "many steps"])
def test_the_meta_step_sees_the_refitted_model(arguments):
    """Its compiled form reads the weights of the model at each call."""
    dynamics = make_dynamics()
    trainer, refit = make_trainer(dynamics, **arguments), make_refit(dynamics, epochs=10)
    losses = trainer.fit(make_tasks(), steps_per_epoch=2, epochs=2, callbacks=[refit], verbose=0).history["loss"]
    assert len(refit.scores) == 3
    for constant in (dynamics.change_mean, dynamics.change_std):
        constant.assign(0 * constant)  # nothing moves any more
    with pytest.warns(UserWarning, match="The meta-gradient was zero"):
        stays = trainer.fit(make_tasks(), steps_per_epoch=2, verbose=0).history["loss"]
    np.testing.assert_allclose(stays, np.linalg.norm(STARTS[..., :2] - GOALS, axis=-1).mean(), rtol=1e-5)
    assert abs(losses[-1] - stays[0]) > 1e-3


class Failing:
    """A vector of environments whose simulator diverges from some episode on."""

    def __init__(self, first):
        self.env, self.first, self.episodes = make_env(), first, 0

    def __getattr__(self, name):
        return getattr(self.env, name)

    def reset(self, **arguments):
        self.episodes += 1
        return self.env.reset(**arguments)

    def step(self, actions):
        observations, *rest = self.env.step(actions)
        return (observations * np.nan if self.episodes >= self.first else observations), *rest


def test_nothing_is_learned_from_a_diverged_simulator_and_training_goes_on():
    dynamics = make_dynamics()
    refit, trainer = make_refit(dynamics, env=Failing(first=3)), make_trainer(dynamics)
    with pytest.warns(
        UserWarning, match="not refitted to a diverged simulation. .*, step 1: observations are not finite"
    ):
        history = trainer.fit(make_tasks(), steps_per_epoch=3, callbacks=[refit], verbose=0).history
    assert refit.replay.size == 2 * 7 * HORIZON
    assert len(refit.scores) == 1
    assert np.isfinite(history["loss"]).all()


def test_a_simulator_that_always_diverges_is_an_error():
    dynamics = make_dynamics()
    refit = make_refit(dynamics, env=Failing(first=1))
    with pytest.raises(RolloutError, match="nothing to fit the dynamics to"), pytest.warns(UserWarning):
        make_trainer(dynamics).fit(make_tasks(), steps_per_epoch=1, callbacks=[refit], verbose=0)


def test_what_lies_behind_the_end_of_an_episode_is_not_kept():
    replay = ReplayBuffer()
    states, actions = np.arange(8.0).reshape(2, 4, 1), np.zeros((2, 3, 1))
    trajectory = Trajectory(states, actions, None, None, np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    replay.add(trajectory)
    replay.add(trajectory, np.array([False, True]))
    states, _, next_states = replay.transitions()
    np.testing.assert_array_equal(states[:, 0], [0, 1, 4, 4])
    np.testing.assert_array_equal(next_states[:, 0], [1, 2, 5, 5])


def test_it_serves_demonstrations():
    """Episodes start where the policies do, and go to their goals: the query of a batch is the expert's."""
    dynamics = make_dynamics()
    expert = np.full((NUM_TASKS, 3, 4), 7.0, "float32"), np.full((NUM_TASKS, 3, 2), 9.0, "float32")
    tasks = tf.data.Dataset.from_tensors({"support": (STARTS, GOALS), "query": expert}).repeat()
    trainer = make_trainer(dynamics, trainer_class=DemonstrationTrainer)
    refit = make_refit(dynamics, tasks=tasks, every=1, exploration=1)
    trainer.fit(tasks, steps_per_epoch=1, callbacks=[refit], verbose=0)
    starts = refit.replay.transitions()[0].reshape(2, 7, HORIZON, 4)[:, :, 0]
    np.testing.assert_allclose(starts, np.stack([STARTS[:7, 0]] * 2), atol=1e-6)
    np.testing.assert_array_equal(trainer.last_policies()[1][1], GOALS)
    np.testing.assert_array_equal([env.unwrapped.goal for env in refit.env.envs], GOALS[:, 0])


def test_what_does_not_fit_is_refused():
    dynamics = make_dynamics()
    with pytest.raises(ValueError, match="`every` must be an integer of at least 1. Received: every=0"):
        make_refit(dynamics, every=0)
    with pytest.raises(
        ValueError, match="as many tasks in an outer step as environments. Received: 2 tasks, num_envs=8"
    ):
        refit = make_refit(dynamics, tasks=make_tasks(2))
        make_trainer(dynamics).fit(make_tasks(2), steps_per_epoch=1, callbacks=[refit], verbose=0)
    learner = lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    trainer = MetaTrainer(learner, MetaLoss.mlp((3,)))
    trainer.compile(jit_compile=False)
    with pytest.raises(ValueError, match="rolls out the policies of .*Received: MetaTrainer"):
        trainer.fit(ml3_tf.sine_tasks(), steps_per_epoch=1, callbacks=[make_refit(dynamics)], verbose=0)
    with pytest.raises(RuntimeError, match="`fit` has not taken a step"):
        make_trainer(dynamics).last_policies()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("CartPole-v1", r"continuous actions with finite limits.* Received: CartPole-v1 .*Discrete\(2\). .*ModelFree"),
        ("Pendulum-v1", r"attribute `task` at `reset`.* Received: Pendulum-v1, without it"),
    ],
)
def test_environments_of_another_kind_are_refused(name, words):
    dynamics, env = make_dynamics(), gymnasium.make_vec(name, num_envs=2, vectorization_mode="sync")
    with pytest.raises(ValueError, match=words):
        make_trainer(dynamics).fit(make_tasks(), steps_per_epoch=1, callbacks=[make_refit(dynamics, env)], verbose=0)


def test_a_single_environment_is_refused():
    with pytest.raises(ValueError, match="`env` must be a vector of environments.* Received: Pendulum-v1"):
        make_refit(make_dynamics(), gymnasium.make("Pendulum-v1"))
