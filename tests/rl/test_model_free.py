"""Tests of `ml3_tf.rl.model_free`: Algorithm 4."""

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf.envs  # noqa: F401 - registers the environments
from comparisons import assert_same_step
from ml3_tf import LossInputs, MetaLoss
from ml3_tf.envs.pointmass import pointmass_step
from ml3_tf.rl.action_distributions import CategoricalActions, gaussian_log_prob
from ml3_tf.rl.checked_env import RolloutError
from ml3_tf.rl.loss_inputs import mini_batches, observation_and_action, with_return
from ml3_tf.rl.model_free import ModelFreeTrainer
from ml3_tf.rl.policies import CategoricalPolicy, GaussianPolicy, MLPPolicy
from ml3_tf.rl.policy_gradient import PolicyGradient
from ml3_tf.rl.simulators import Simulator, as_tasks

INPUTS = LossInputs(observation_and_action, {"mean_and_std": 4, "state": 4, "action": 2})
TASKS = {
    "state": np.zeros((2, 2, 4), "float32"),
    "goal": np.random.default_rng(0).uniform(-1, 1, (2, 2, 2)).astype("float32"),
}
POINTMASS = Simulator(pointmass_step, lambda s, a, goal: -tf.norm(s[..., :2] - goal, axis=-1))
HORIZON = 5
PAPER = {"baseline": None, "reward_to_go": False, "normalize": False}


def build_policy(**arguments):
    return GaussianPolicy(4, 2, **{"hidden_units": (4,), "std": 0.5, **arguments})


def make_trainer(simulator=POINTMASS, loss=None, policy=build_policy, **arguments):
    keras.utils.set_random_seed(0)
    compile_arguments = {"optimizer": keras.optimizers.SGD(0.5), "inner_optimizer": keras.optimizers.SGD(0.3)}
    names = ("optimizer", "inner_optimizer", "extra_loss", "gamma", "jit_compile", "outer_epochs", "outer_batch_size")
    compile_arguments |= {name: arguments.pop(name) for name in names if name in arguments}
    arguments = {"simulator": simulator, "horizon": HORIZON, "loss_inputs": INPUTS, "seed": 0, **arguments}
    trainer = ModelFreeTrainer(policy, MetaLoss.mlp((6,), features=arguments["loss_inputs"]), **arguments)
    trainer.compile(loss=loss, **{"jit_compile": False, **compile_arguments})
    return trainer


CHOICE_INPUTS = LossInputs(observation_and_action, {"log_probabilities": 2, "observation": 4, "action": 2})
SEEDS = as_tasks({"seed": np.arange(4).reshape(2, 2)})


def make_cart_trainer(env, **arguments):
    policy = lambda: CategoricalPolicy(4, 2, hidden_units=(4,), output_initializer="he_normal")
    return make_trainer(env, policy=policy, horizon=8, loss_inputs=CHOICE_INPUTS, **arguments)


def dataset(count=1):
    return tf.data.Dataset.from_tensors(tf.nest.map_structure(tf.constant, TASKS)).repeat(count)


def phi_of(trainer):
    return [variable.numpy() for variable in trainer.meta_loss.trainable_variables]


@pytest.fixture
def envs():
    vector = gymnasium.make_vec("ml3_tf/PointmassGoal-v0", num_envs=4, vectorization_mode="sync")
    yield vector
    vector.close()


@pytest.mark.parametrize(
    "unroll, batch_size", [(1, None), (2, None), (2, 5)], ids=["one-step", "two-steps", "mini-batches"]
)
def test_one_outer_step_is_algorithm_4(unroll, batch_size):
    """Written out task by task with Keras's own model and two tapes; the paper's form of eq. 8, nothing left out."""
    twin = make_trainer()  # draws what the trainer will draw
    theta, tasks = twin.learner.draw(2), as_tasks(TASKS)
    trainer = make_trainer(loss=PolicyGradient(**PAPER), inner_steps=unroll, unroll=unroll, batch_size=batch_size)
    phi, before = trainer.meta_loss.trainable_variables, phi_of(trainer)
    model = build_policy()
    with tf.GradientTape() as outer:
        trajectory = twin.sampler(theta, tasks, twin.sampler.noise(tasks, twin.seeds))
        for _ in range(unroll):
            for x, y, _ in mini_batches(trajectory, INPUTS, batch_size=batch_size, seeds=twin.seeds):
                moved = []
                for task in range(2):
                    weights = [values[task] for values in theta.trainable]
                    with tf.GradientTape() as inner:
                        inner.watch(weights)
                        outputs = model.stateless_call(weights, [], x[task])[0]
                        loss = tf.reduce_mean(trainer.meta_loss.call(y[task], outputs))
                    moved.append([w - 0.3 * g for w, g in zip(weights, inner.gradient(loss, weights))])
                theta = theta._replace(trainable=[tf.stack(values) for values in zip(*moved)])
            with outer.stop_recording():
                trajectory = twin.sampler(theta, tasks, twin.sampler.noise(tasks, twin.seeds))
        surrogates = []
        for task in range(2):
            for episode in range(2):
                states, actions = trajectory.observations[task, episode, :-1], trajectory.actions[task, episode]
                outputs = model.stateless_call([values[task] for values in theta.trainable], [], states)[0]
                returned = tf.reduce_sum(trajectory.rewards[task, episode])
                surrogates.append(-returned * tf.reduce_sum(gaussian_log_prob(outputs, actions)))
        cost = tf.reduce_mean(surrogates)
    gradients = outer.gradient(cost, phi)
    history = trainer.fit(dataset(), verbose=0).history
    np.testing.assert_allclose(history["loss"], [cost], rtol=1e-5)
    np.testing.assert_allclose(history["return"], [np.mean(np.sum(trajectory.rewards, -1))], rtol=1e-5)
    assert history["samples"] == [(unroll + 1) * 2 * 2 * HORIZON]
    expected = [start - 0.5 * gradient for start, gradient in zip(before, gradients)]
    assert_same_step(phi_of(trainer), expected, before, rtol=1e-3)


def test_it_learns_a_loss_that_brings_policies_to_their_goals():
    """In a world where the action is the velocity, and the policy does not see the goal that the loss sees."""
    keras.utils.set_random_seed(0)
    walk = Simulator(
        step=lambda states, actions: states + 0.2 * tf.clip_by_value(actions, -1.0, 1.0),
        reward=lambda states, actions, goal: -tf.abs(states - goal)[..., 0],
        observation=lambda states, goal: tf.concat([states, goal], -1),
    )
    inputs = LossInputs(observation_and_action, {"mean_and_std": 2, "state": 2, "action": 1})
    policy = lambda: GaussianPolicy(2, 1, hidden_units=(8,), std=0.5, std_mode="fixed")
    trainer = ModelFreeTrainer(
        policy,
        MetaLoss.mlp((20,), features=inputs),
        simulator=walk,
        horizon=10,
        loss_inputs=inputs,
        inner_steps=3,
        seed=0,
    )
    optimizers = keras.optimizers.Adam(0.02), keras.optimizers.SGD(0.3)
    trainer.compile(optimizers[0], PolicyGradient(), optimizers[1], extra_loss=trainer.action_excess, jit_compile=False)
    generator = np.random.default_rng(0)
    goals = np.repeat(generator.choice([-1.0, 1.0], (40, 8, 1, 1)), 4, 2).astype("float32")
    tasks = tf.data.Dataset.from_tensor_slices({"state": np.zeros_like(goals), "goal": goals})
    returns = trainer.fit(tasks, epochs=2, verbose=0).history["return"]
    assert returns[1] > -6.5  # who stays has -10, who goes straight there -2.5


def test_several_outer_steps_share_the_rollouts():
    """Against the same steps taken one by one: batches of one task, two passes, from the policies that acted."""
    twin = make_trainer(loss=PolicyGradient(clip_range=0.2), outer_epochs=2, outer_batch_size=1)
    tasks = as_tasks(TASKS)
    start = twin.inner_loop.start(2)
    trajectory = twin.sampler(start.parameters, tasks, twin.sampler.noise(tasks, twin.seeds))
    support = mini_batches(trajectory, INPUTS, batch_size=None, seeds=twin.seeds)
    moved = twin._take_steps(start, support)
    trajectory = twin.sampler(moved.parameters, tasks, twin.sampler.noise(tasks, twin.seeds))
    query = twin.query(trajectory, moved.parameters)
    order = np.argsort(keras.random.uniform((2, 2), seed=twin.seeds)).ravel()
    for task in order:
        batch = tf.nest.map_structure(lambda values, n=task: values[n : n + 1], (start, support, query))
        batch = batch[0], {"support": batch[1], "query": batch[2], "tasks": tasks}
        twin.apply_meta_gradient(*twin.meta_gradient(*batch))
    trainer = make_trainer(loss=PolicyGradient(clip_range=0.2), outer_epochs=2, outer_batch_size=1)
    before = phi_of(trainer)
    history = trainer.fit(dataset(), verbose=0).history
    assert history["samples"] == [2 * 2 * 2 * HORIZON]  # more steps, no more samples
    assert int(trainer.optimizer.iterations) == 4
    assert_same_step(phi_of(trainer), phi_of(twin), before)


def test_the_loss_may_see_how_well_it_went():
    trainer = make_trainer(loss_inputs=with_return(INPUTS, discount=0.9))
    before = phi_of(trainer)[0]
    trainer.fit(dataset(), verbose=0)
    assert np.abs(phi_of(trainer)[0] - before)[-1].max() > 1e-4  # the weights of the return


def test_environments_teach_what_their_simulator_teaches(envs):
    """The rollouts happen in Python then; all else is the same."""
    # Without a fitted baseline, which tells 20 samples' rounding errors apart.
    real, simulated = (make_trainer(sim, PolicyGradient(baseline=None), inner_steps=2) for sim in (envs, POINTMASS))
    before = phi_of(real)
    histories = [trainer.fit(dataset(2), verbose=0).history for trainer in (real, simulated)]
    for name in ("loss", "return", "samples", "meta_gradient_norm"):
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=1e-3, atol=1e-5)
    assert_same_step(phi_of(real), phi_of(simulated), before)
    assert histories[0]["samples_per_second"][0] > 0


def test_seeds_reproduce():
    runs = [make_trainer(seed=seed) for seed in (0, 0, 1)]
    losses = [trainer.fit(dataset(2), verbose=0).history["loss"] for trainer in runs]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_evaluation_moves_nothing_and_costs_no_samples():
    trainer, twin = make_trainer(), make_trainer()
    before = phi_of(trainer)
    logs = trainer.evaluate(dataset(), verbose=0, return_dict=True)
    assert {"loss", "return"} <= set(logs)
    assert trainer.samples == 0
    np.testing.assert_array_equal(before[0], phi_of(trainer)[0])
    assert trainer.fit(dataset(), verbose=0).history["loss"] == twin.fit(dataset(), verbose=0).history["loss"]


def test_the_extra_loss_sees_the_fresh_rollouts():
    """The penalty alone, of policies that want far more than they can."""
    wants = lambda: build_policy(output_initializer=keras.initializers.RandomNormal(stddev=10.0))
    trainer = make_trainer(policy=wants)
    trainer = make_trainer(policy=wants, extra_loss=trainer.action_excess, inner_optimizer=keras.optimizers.SGD(0.0))
    theta = make_trainer(policy=wants).learner.draw(2)
    examples = (tf.random.stateless_normal((2, 6, 4), [0, 1]), None, tf.ones((2, 6)))
    mean = np.abs(trainer.inner_loop.predict(theta, examples[0])[..., :2])
    expected = np.mean(np.maximum(mean - 1, 0) ** 2, (1, 2))
    assert expected.min() > 0
    np.testing.assert_allclose(trainer.action_excess(theta, {"query": examples}), expected, rtol=1e-5)


def test_a_penalty_is_part_of_the_loss():
    trainer = make_trainer(loss=PolicyGradient(**PAPER), extra_loss=lambda parameters, data: tf.constant([1.0, 3.0]))
    plain = make_trainer(loss=PolicyGradient(**PAPER))
    losses = [t.fit(dataset(), verbose=0).history["loss"][0] for t in (trainer, plain)]
    np.testing.assert_allclose(losses[0] - losses[1], 2.0, atol=1e-4)


def test_an_environment_that_raises_leaves_the_loss_alone(envs):
    envs.envs[3].unwrapped.next_state = lambda action: np.full(4, np.nan)
    trainer = make_trainer(envs)
    before = phi_of(trainer)
    with pytest.raises(RolloutError, match="step 1: `step` raised FloatingPointError: The simulation diverged"):
        trainer.fit(dataset(), verbose=0)
    np.testing.assert_array_equal(before[0], phi_of(trainer)[0])


def test_nothing_is_learned_from_a_simulator_that_diverges():
    trainer = make_trainer(POINTMASS._replace(reward=lambda s, a, goal: s[..., 0] * np.nan))
    before = phi_of(trainer)
    with pytest.raises(FloatingPointError, match="The meta-gradient of .* is not finite"):
        trainer.fit(dataset(), verbose=0)
    np.testing.assert_array_equal(before[0], phi_of(trainer)[0])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="stochastic policy.*Received: MLPPolicy"):
        make_trainer(policy=lambda: MLPPolicy(4, 2))
    with pytest.raises(ValueError, match="expected a `PolicyGradient`. Received: loss='mse'"):
        make_trainer(loss="mse")
    for name in ("outer_epochs", "outer_batch_size"):
        with pytest.raises(ValueError, match=f"`{name}` must be an integer of at least 1. Received: {name}=0"):
            make_trainer(**{name: 0})
    with pytest.raises(ValueError, match="expected a `clip_range`.* Received: outer_epochs=2, .*clip_range=None"):
        make_trainer(outer_epochs=2)
    with pytest.raises(ValueError, match="must divide the number of tasks, 2. Received: outer_batch_size=3"):
        make_trainer(loss=PolicyGradient(clip_range=0.2), outer_batch_size=3).fit(dataset(), verbose=0)
    with pytest.raises(ValueError, match="Tasks must be a dictionary .*'state'.* Received: .*'query', 'support'"):
        make_trainer().fit(tf.data.Dataset.from_tensors({"support": tf.zeros(3), "query": tf.zeros(3)}), verbose=0)


@pytest.fixture
def carts():
    vector = gymnasium.make_vec("CartPole-v1", num_envs=4, vectorization_mode="sync")
    yield vector
    vector.close()


def test_the_meta_gradient_of_choices_is_that_of_finite_differences(carts, request):
    """In float64, through the step that the learned loss takes with the log-probabilities of one rollout."""
    sampled = make_cart_trainer(carts)
    start = sampled.inner_loop.start(2)
    ahead, support = sampled.learn(start, sampled.collect(start.parameters, SEEDS))
    query = sampled.query(sampled.collect(ahead.parameters, SEEDS), ahead.parameters)
    request.getfixturevalue("float64")
    trainer = make_cart_trainer(carts)
    widened = lambda values: tf.cast(values, tf.float64) if values.dtype.is_floating else values
    data = tf.nest.map_structure(widened, (start, {"support": support, "query": query, "tasks": SEEDS}))
    gradients, loss = trainer.meta_gradient(*data)
    assert loss.dtype == tf.float64
    generator = np.random.default_rng(0)
    for variable, gradient in zip(trainer.meta_loss.trainable_variables, gradients):
        step, ends = 1e-5 * generator.normal(size=variable.shape), []
        for change in (step, -2 * step, step):
            variable.assign_add(change)
            ends.append(float(tf.reduce_mean(trainer.meta_gradient(*data)[1])))
        np.testing.assert_allclose(np.sum(gradient * step), (ends[0] - ends[1]) / 2, rtol=1e-5, atol=1e-14)


def test_choices_are_learned_from_in_environments(carts):
    trainer = make_cart_trainer(carts, inner_steps=2)
    before = phi_of(trainer)
    history = trainer.fit(tf.data.Dataset.from_tensors({"seed": [[0, 1], [2, 3]]}).repeat(2), verbose=0).history
    assert trainer.distribution == CategoricalActions(2)
    assert np.isfinite(history["loss"]).all() and history["samples"] == [2 * 3 * 4 * 8]
    assert all((one != two).any() for one, two in zip(phi_of(trainer), before))
    assert "return" in trainer.evaluate(tf.data.Dataset.from_tensors(SEEDS), verbose=0, return_dict=True)


def test_what_choices_lack_is_refused(carts):
    with pytest.raises(
        ValueError, match=r"`action_excess` is of Gaussian policies. Received: CategoricalActions\(size=2"
    ):
        make_cart_trainer(carts).action_excess(None, {})
    with pytest.raises(ValueError, match=r"Received: GaussianActions\(size=2\), for CartPole-v1"):
        make_trainer(carts)
    with pytest.raises(
        ValueError, match="`simulator` must be a `Simulator` or a vector .* Received: CartPole-v1, a si"
    ):
        make_cart_trainer(gymnasium.make("CartPole-v1"))
