"""Tests of `ml3_tf.rl.dynamics`: calibration on held-out data, rollouts, saving, and the words of each error."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf.baselines import ilqr
from ml3_tf.envs.mountain_car import MountainCarGoalEnv
from ml3_tf.rl.dynamics import DynamicsEnsemble, EnsembleDense


def transitions(num_episodes, seed):
    """States, actions and next states of the mountain car under forces that change every seventh step."""
    env, generator = MountainCarGoalEnv(), np.random.default_rng(seed)
    data = []
    for _ in range(num_episodes):
        env.reset(options={"state": generator.uniform([-0.9, -0.5], [0.0, 0.5])})
        for t in range(35):
            if t % 7 == 0:
                action = generator.uniform(-0.25, 0.25, 1)
            state = env.state
            env.step(action)
            data.append((state, action, env.state))
    return [np.array(values, np.float32) for values in zip(*data)]


def fitted(data, epochs=40, **kwargs):
    model = DynamicsEnsemble(data[0].shape[-1], data[1].shape[-1], seed=0, **kwargs)
    model.adapt(*data)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, epochs * len(data[0]) // 64)))
    keras.utils.set_random_seed(0)
    model.fit(data[:2], data[2], epochs=epochs, batch_size=64, verbose=0)
    return model


@pytest.fixture(scope="module")
def training_data():
    return transitions(30, seed=0)


@pytest.fixture(scope="module")
def car(training_data):
    return fitted(training_data)


@pytest.fixture(scope="module")
def held_out():
    return transitions(15, seed=1)


@pytest.fixture
def small():
    return DynamicsEnsemble(state_size=3, action_size=2, num_members=4, hidden_units=(5,), angles=(1,), seed=0)


def test_held_out_likelihood_beats_a_constant_variance(car, training_data, held_out):
    """The rival has the same means, and the variance of its errors on the training data, which is its best fit."""
    errors = [states[2] - car.next_states(*states[:2]).numpy() for states in (training_data, held_out)]
    variance = np.var(errors[0], 0)
    rival = -0.5 * np.mean(np.sum(errors[1] ** 2 / variance + np.log(2 * np.pi * variance), -1))
    assert car.score(*held_out).log_likelihood > rival + 0.5


def test_step_error_is_a_small_part_of_the_change(car, held_out):
    states, actions, next_states = held_out
    score = car.score(*held_out)
    error = np.sqrt(np.mean((car.next_states(states, actions) - next_states) ** 2, 0))
    np.testing.assert_allclose(score.step_error, error, rtol=1e-4)
    assert np.all(score.step_error < 0.15 * np.sqrt(np.mean((next_states - states) ** 2, 0)))  # of predicting no change


def test_noise_that_differs_from_state_to_state_is_learned():
    generator = np.random.default_rng(0)
    states = generator.uniform(-1, 1, (3000, 1)).astype(np.float32)
    noise = np.where(states < 0, 0.3, 0.03).astype(np.float32)
    data = states, 0 * states, states + 0.5 + noise * generator.normal(size=states.shape).astype(np.float32)
    model = fitted(data, epochs=15, hidden_units=(20,))
    points = np.array([[-0.5], [0.5]], np.float32)
    np.testing.assert_allclose(model.distribution(points, 0 * points).stddev()[:, 0], [0.3, 0.03], rtol=0.25)
    np.testing.assert_allclose(model.next_states(points, 0 * points), points + 0.5, atol=0.05)


def test_members_agree_where_there_was_data(car, held_out):
    # As far again as the data lie from the middle, and further.
    signs = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], np.float32)
    corners = [-0.4, 0.0] + signs * [2.0, 3.0]
    elsewhere = np.mean(car.disagreement(corners.astype(np.float32), signs[:, :1]), 0)
    assert np.all(elsewhere > 5 * car.score(*held_out).disagreement)


def test_distribution_is_the_mixture_of_the_members(small):
    generator = np.random.default_rng(0)
    states, actions = generator.normal(size=(6, 3)).astype("f"), generator.normal(size=(6, 2)).astype("f")
    small.adapt(states, actions, states + generator.normal(size=(6, 3)))
    members, mixture = small.members(states, actions), small.distribution(states, actions)
    means = members.mean().numpy()
    assert means.shape == (6, 4, 3)
    np.testing.assert_allclose(small.next_states(states, actions), np.mean(means, 1), rtol=1e-5)
    np.testing.assert_allclose(mixture.mean(), np.mean(means, 1), rtol=1e-5)
    np.testing.assert_allclose(small.disagreement(states, actions), np.std(means, 1), rtol=1e-4, atol=1e-6)
    densities = np.exp(members.log_prob(tf.zeros((6, 1, 3))))
    np.testing.assert_allclose(mixture.log_prob(tf.zeros((6, 3))), np.log(np.mean(densities, 1)), rtol=1e-4)


def test_loss_is_the_negative_log_likelihood_of_the_members(small):
    generator = np.random.default_rng(0)
    states, actions, noise = (generator.normal(size=(8, width)).astype("f") for width in (3, 2, 3))
    small.adapt(states, actions, states + noise)
    small.compile()
    log_densities = small.members(states, actions).log_prob((states + noise)[:, None])
    loss = small.evaluate((states, actions), states + noise, verbose=0)
    assert loss == pytest.approx(-np.mean(log_densities), rel=1e-5)
    weights = np.array([0.0] * 4 + [2.0] * 4, np.float32)
    weighted = small.evaluate((states, actions), states + noise, sample_weight=weights, verbose=0)
    assert weighted == pytest.approx(-np.mean(log_densities[4:]), rel=1e-5)


def test_inputs_and_changes_are_normalized(small):
    generator = np.random.default_rng(0)
    states, actions = generator.normal(5.0, 3.0, (500, 3)), generator.normal(-2.0, 0.1, (500, 2))
    states[:, 2] = 7.0
    small.adapt(states, actions, states + [1.0, 2.0, 0.0] * generator.normal(size=(500, 3)))
    inputs = np.stack([states[:, 0], states[:, 2], np.cos(states[:, 1]), np.sin(states[:, 1])], -1)
    np.testing.assert_allclose(small.input_mean[:4], np.mean(inputs, 0), rtol=1e-4)
    np.testing.assert_allclose(small.input_std[:4], [np.std(inputs[:, 0]), 1.0, *np.std(inputs[:, 2:], 0)], rtol=1e-4)
    np.testing.assert_allclose(small.input_std[4:], 0.1, rtol=0.1)
    np.testing.assert_allclose(small.change_std, [1.0, 2.0, 1.0], rtol=0.1)
    assert float(small.change_mean[2]) == 0.0


def test_a_full_turn_of_an_angle_changes_nothing(small):
    states, actions = tf.constant([[0.3, 1.0, -0.2]]), tf.constant([[0.1, 0.2]])
    turn = tf.constant([[0.0, 2 * np.pi, 0.0]])
    change = small.next_states(states, actions) - states
    np.testing.assert_allclose(small.next_states(states + turn, actions) - states - turn, change, atol=1e-5)


def test_members_start_apart_and_a_seed_repeats_them(small):
    states, actions = tf.ones((1, 3)), tf.ones((1, 2))
    means = small.members(states, actions).mean().numpy()[0]
    assert len(np.unique(means[:, 0])) == 4
    again = DynamicsEnsemble.from_config(small.get_config())
    np.testing.assert_array_equal(again.members(states, actions).mean()[0], means)


def test_initial_weights_have_the_variance_of_glorot():
    layer = EnsembleDense(200, seed=0)
    layer.build((6, None, 100))
    assert np.var(layer.kernel) == pytest.approx(2 / 300, rel=0.05)


def test_leading_axes_are_free(small):
    states, actions = tf.random.stateless_normal((2, 5, 3), (0, 1)), tf.random.stateless_normal((2, 5, 2), (0, 2))
    expected = small.next_states(tf.reshape(states, (10, 3)), tf.reshape(actions, (10, 2)))
    np.testing.assert_allclose(small.next_states(states, actions), tf.reshape(expected, (2, 5, 3)), atol=1e-6)


def second_derivative(small, horizon=6):
    """Of the last state of a rollout in a `tf.while_loop` with respect to a constant action."""
    with tf.GradientTape() as outer:
        action = tf.constant([[0.1, -0.2]])
        outer.watch(action)
        with tf.GradientTape() as tape:
            tape.watch(action)
            (state,) = tf.while_loop(
                lambda state: True,
                lambda state: (small.next_states(state, action),),
                (tf.constant([[0.1, 0.2, 0.3]]),),
                maximum_iterations=horizon,
            )
            cost = tf.reduce_sum(state**2)
        gradient = tape.gradient(cost, action)
    return outer.gradient(gradient, action)


def test_rollouts_can_be_differentiated_twice_and_compiled(small):
    expected = second_derivative(small)
    assert np.max(np.abs(expected)) > 1e-4
    compiled = tf.function(second_derivative, jit_compile=True)(small)
    np.testing.assert_allclose(compiled, expected, rtol=1e-3, atol=1e-6)


def test_trajectories_can_be_optimized_in_the_model(car):
    result = ilqr(
        car.next_states,
        running_cost=lambda states, controls: 0.01 * tf.reduce_sum(controls**2, -1),
        final_cost=lambda states: tf.reduce_sum((states - tf.constant([-0.3, 0.0])) ** 2, -1),
        initial_states=np.array([[-0.55, 0.0]], np.float32),
        controls=np.zeros((1, 15, 1), np.float32),
        lower=-0.25,
        upper=0.25,
        max_iterations=30,
        tolerance=1e-4,
    )
    env = MountainCarGoalEnv()
    env.reset()
    for control in result.controls[0]:
        env.step(control)
    assert abs(env.state[0] + 0.3) < 0.1


def test_saved_model_is_the_same_model(car, held_out, tmp_path):
    car.save(tmp_path / "car.keras")
    loaded = keras.models.load_model(tmp_path / "car.keras")
    for one, other in zip(loaded.score(*held_out), car.score(*held_out)):
        np.testing.assert_array_equal(one, other)
    loaded.fit(held_out[:2], held_out[2], epochs=1, verbose=0)  # compiled, and measured: it can go on learning


def test_fit_before_adapt_is_refused(small):
    small.compile()
    states, actions = np.zeros((4, 3), "float32"), np.zeros((4, 2), "float32")
    for train in (small.fit, small.train_on_batch):
        with pytest.raises(RuntimeError, match=r"trained before .* Call `adapt\(states, actions, next_states\)` first"):
            train((states, actions), states)
    small.adapt(states, actions, states)
    assert np.isfinite(small.train_on_batch((states, actions), states))


def test_an_error_names_the_extra_that_training_needs(small, monkeypatch):
    states, actions = np.zeros((4, 3), "float32"), np.zeros((4, 2), "float32")
    small.adapt(states, actions, states)
    monkeypatch.setitem(sys.modules, "tensorflow_probability", None)  # importing it raises ImportError
    with pytest.raises(ImportError, match=r"pip install 'ml3_tf\[rl\]'"):
        small.distribution(states, actions)
    assert small.next_states(states, actions).shape == (4, 3)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((4, 2), (4, 2), (4, 3)), r"`states` must have 3 columns. Received: shape \(4, 2\)"),
        (((4, 3), (4, 1), (4, 3)), r"`actions` must have 2 columns. Received: shape \(4, 1\)"),
        (((4, 3), (4, 2), (4, 4)), r"`next_states` must have 3 columns. Received: shape \(4, 4\)"),
    ],
    ids=["states", "actions", "next-states"],
)
def test_other_widths_are_refused(small, shapes, words):
    with pytest.raises(ValueError, match=words):
        small.adapt(*map(np.zeros, shapes))


def test_call_with_other_widths_is_refused(small):
    with pytest.raises(ValueError, match=r"`states` must have 3 columns. Received: shape \(4, 2\)"):
        small.next_states(tf.zeros((4, 2)), tf.zeros((4, 2)))


def test_transitions_that_are_not_finite_are_refused(small):
    next_states = np.zeros((4, 3))
    next_states[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"`next_states` must be finite. Received: 1 value\(s\) that are not"):
        small.adapt(np.zeros((4, 3)), np.zeros((4, 2)), next_states)
    assert float(small.adapted.value) == 0.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"state_size": 0}, "`state_size` must be an integer of at least 1. Received: state_size=0"),
        ({"num_members": 1.5}, "`num_members` must be an integer of at least 1. Received: num_members=1.5"),
        ({"angles": (2,)}, r"`angles` must hold columns of the state, between 0 and 1. Received: angles=\(2,\)"),
    ],
    ids=["state-size", "members", "angles"],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        DynamicsEnsemble(**{"state_size": 2, "action_size": 1, **arguments})
