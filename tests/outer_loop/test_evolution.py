"""Tests of `ml3_tf.outer_loop._evolution`: the estimate against its closed form, a known optimum, what has no slope."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf import EvolutionStrategies, MetaLoss, MetaTrainer, TaskLoss

layers, optimizers = keras.layers, keras.optimizers
X, Y, RATE, STEPS = 0.9, -0.4, 0.1, 5


def scaled_square(factor):
    """A learned loss `exp(phi) (y_pred - y)^2 / 2` with one weight, phi = log(factor)."""
    inputs = keras.Input((2,))
    difference = layers.Dense(1, use_bias=False, trainable=False, kernel_initializer=keras.initializers.Ones())
    signs = keras.ops.multiply(inputs, np.array([1.0, -1.0], "float32"))
    return MetaLoss(keras.Model(inputs, keras.ops.square(difference(signs)) / 2), learning_rate=factor)


def build_linear():
    return keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])


def make_trainer(meta_loss, estimator, *, loss="mse", inner_optimizer=None, outer_rate=0.1, **arguments):
    trainer = MetaTrainer(build_linear, meta_loss, estimator=estimator, seed=0, **arguments)
    inner = optimizers.SGD(RATE) if inner_optimizer is None else inner_optimizer
    trainer.compile(optimizers.SGD(outer_rate), loss, inner)
    return trainer


def one_point(num_tasks):
    x, y = np.full((num_tasks, 1, 1), X, "float32"), np.full((num_tasks, 1, 1), Y, "float32")
    return {"support": (x, y), "query": (x, y)}


def task_loss(phi, theta):
    """`(1 - alpha exp(phi) x^2)^(2 K) (theta x - y)^2`, the closed form of K steps."""
    return (1 - RATE * np.exp(phi) * X**2) ** (2 * STEPS) * (theta * X - Y) ** 2


def test_the_estimate_is_that_of_its_closed_form():
    """Members of a pair start alike; each pair has its own start and perturbation."""
    estimator = EvolutionStrategies(stddev=0.1, num_pairs=3)
    trainer = make_trainer(scaled_square(0.7), estimator, inner_steps=STEPS)
    batch = tf.nest.map_structure(tf.constant, one_point(2))
    learners, batch = trainer._start_lives(batch)
    losses, ends = trainer._take_steps(learners, batch)
    [change], theta = learners.perturbation, learners.parameters.trainable[0].numpy()[:, 0, 0]
    assert change.shape == (12,) and len(set(change.numpy())) == 12 and len(set(theta)) == 6
    np.testing.assert_array_equal(change[6:], -change[:6])
    np.testing.assert_array_equal(theta[6:], theta[:6])
    expected = task_loss(np.log(0.7) + change.numpy(), theta)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    [gradient], mean = estimator.estimate(ends.perturbation, losses)
    np.testing.assert_allclose(mean, expected.mean(), rtol=1e-4)
    differences = (expected[:6] - expected[6:]) * change.numpy()[:6] / (2 * 0.1**2)
    np.testing.assert_allclose(gradient, differences.mean(), rtol=1e-3)


def test_many_pairs_estimate_the_derivative():
    estimator = EvolutionStrategies(stddev=0.01, num_pairs=20_000)
    phi = keras.Variable(0.7)
    [change] = estimator.perturb([phi], 20_000, keras.random.SeedGenerator(0))
    [gradient], _ = estimator.estimate(
        [change], tf.cast(task_loss(0.7 + change.numpy().astype(float), 1.3), tf.float32)
    )
    derivative = (task_loss(0.7 + 1e-6, 1.3) - task_loss(0.7 - 1e-6, 1.3)) / 2e-6
    np.testing.assert_allclose(gradient, derivative, rtol=0.03)


@pytest.mark.parametrize("lives", [None, (STEPS, 4 * STEPS)], ids=["whole lives", "parts of lives"])
def test_it_finds_a_known_optimum(lives):
    """One step of length `alpha exp(phi) x^2 = 1` solves the task."""
    meta_loss = scaled_square(3.0)
    trainer = make_trainer(
        meta_loss, EvolutionStrategies(0.1), inner_steps=STEPS, lives=lives, loss=TaskLoss("mse", logarithm=True)
    )
    trainer.compile(optimizers.Adam(0.1), TaskLoss("mse", logarithm=True), optimizers.SGD(RATE))
    tasks = tf.data.Dataset.from_tensors(one_point(16)).repeat()
    trainer.fit(tasks, steps_per_epoch=60, verbose=0)
    rate = float(keras.ops.exp(meta_loss.learned_rate.log_rate))
    np.testing.assert_allclose(RATE * rate * X**2, 1.0, rtol=0.15)


def test_neither_steps_nor_task_loss_need_a_derivative():
    """Lion steps by a sign, and the task loss counts misses."""
    is_missed = lambda y, y_pred: tf.cast(tf.abs(y_pred - y) > 0.05, tf.float32)
    meta_loss = scaled_square(1.0)
    before = float(meta_loss.learned_rate.log_rate)
    sgd = make_trainer(meta_loss, EvolutionStrategies(1.0), loss=is_missed, inner_steps=STEPS)
    history = sgd.fit(tf.data.Dataset.from_tensors(one_point(64)), verbose=0).history
    assert 0 < history["loss"][0] < 1 and float(meta_loss.learned_rate.log_rate) > before  # larger steps miss less
    lion = make_trainer(meta_loss, EvolutionStrategies(), inner_optimizer=optimizers.Lion(0.1))
    with pytest.warns(UserWarning, match="The meta-gradient was zero in all 1 steps"):  # a sign minds no rate
        history = lion.fit(tf.data.Dataset.from_tensors(one_point(2)), verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_a_diverged_pair_is_left_out_and_its_learners_are_replaced():
    estimator = EvolutionStrategies(stddev=1.0)
    losses = tf.constant([1.0, np.nan, 3.0, 0.5, 2.0, np.inf])
    change = tf.constant([[1.0], [2.0], [3.0], [-1.0], [-2.0], [-3.0]])
    [gradient], mean = estimator.estimate([change], losses)
    np.testing.assert_allclose(gradient, [0.25])  # the first pair alone: (1 - 0.5) 1 / 2
    np.testing.assert_allclose(mean, 0.75)
    [gradient], mean = estimator.estimate([change], tf.fill([6], np.nan))
    assert np.isnan(gradient).all() and np.isnan(mean)
    meta_loss = scaled_square(1.0)
    trainer = make_trainer(meta_loss, estimator, inner_steps=STEPS)
    tasks = one_point(1)
    tasks["support"] = tasks["support"][0], tasks["support"][1] * np.nan
    with pytest.raises(FloatingPointError, match="is not finite"):
        trainer.fit(tf.data.Dataset.from_tensors(tasks), verbose=0)


def test_perturbations_are_drawn_apart_from_the_learners():
    """The same numbers in both would tie each perturbation to a start."""
    normal = keras.initializers.VarianceScaling(1.0, "fan_in", "untruncated_normal")
    build = lambda: keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer=normal)])
    trainer = MetaTrainer(build, scaled_square(1.0), estimator=EvolutionStrategies(1.0), seed=0)
    trainer.compile()
    learners, _ = trainer.draw_lives(6, tf.nest.map_structure(tf.constant, one_point(6)))
    assert not np.any(np.isclose(learners.perturbation[0], learners.parameters.trainable[0][:, 0, 0]))


def test_members_of_a_population_live_and_die_in_pairs():
    trainer = make_trainer(scaled_square(1.0), EvolutionStrategies(0.1), inner_steps=2, lives=(2, 50), outer_rate=0.0)
    tasks = tf.data.Dataset.from_tensors(one_point(6)).repeat()
    seen = []
    for _ in range(4):
        trainer.fit(tasks, steps_per_epoch=1, verbose=0)
        learners, _, left = trainer._population.kept.values
        np.testing.assert_array_equal(left[:6], left[6:])
        np.testing.assert_array_equal(learners.age[:6], learners.age[6:])
        np.testing.assert_array_equal(learners.perturbation[0][:6], -learners.perturbation[0][6:])
        seen.append((learners.age.numpy()[:6], learners.perturbation[0].numpy()[:6]))
    for (old_age, old), (age, new) in zip(seen, seen[1:]):
        np.testing.assert_array_equal(old == new, age > old_age)  # one perturbation for a whole life
    assert len(set(seen[-1][0])) > 1


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mode", ["per_sample", "per_output", "per_set"])
def test_each_learner_trains_with_its_own_loss(mode, weighted, make_loss):
    """The steps of a perturbed loss are those of a loss whose weights were moved."""
    meta_loss = make_loss(mode=mode, learning_rate=0.3)
    estimator = EvolutionStrategies(0.1)
    trainer = make_trainer(meta_loss, estimator, inner_steps=3)
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 2, 5, 1)).astype("float32")
    support = (x, y, generator.uniform(size=(2, 5)).astype("float32")) if weighted else (x, y)
    batch = tf.nest.map_structure(tf.constant, {"support": support, "query": (x, y)})
    learners, pairs = trainer._start_lives(batch)
    _, ends = trainer._take_steps(learners, pairs)
    original = [variable.numpy() for variable in meta_loss.trainable_variables]
    for member in range(4):
        one = tf.nest.map_structure(lambda rows, n=member: rows[n : n + 1], (learners._replace(perturbation=()), pairs))
        for variable, value, change in zip(meta_loss.trainable_variables, original, learners.perturbation, strict=True):
            variable.assign(value + change[member].numpy())
        alone = trainer.inner_loop.run(one[0], lambda *_, one=one: one[1]["support"], 3)
        np.testing.assert_allclose(
            ends.parameters.trainable[0][member], alone.parameters.trainable[0][0], rtol=1e-4, atol=1e-6
        )


def test_it_compiles_once():
    """XLA would compile the slope of a mapped loss anew at every step."""
    trainer = make_trainer(MetaLoss.mlp((5,), mode="per_output"), EvolutionStrategies(), inner_steps=3)
    trainer.compile(optimizers.SGD(0.1), "mse", optimizers.SGD(RATE), jit_compile=True)
    take_steps = tf.function(trainer._score_steps.__func__, jit_compile=True, autograph=False)
    batch = tf.nest.map_structure(tf.constant, one_point(2))
    texts = []
    for _ in range(2):
        learners, pairs = trainer._start_lives(batch)
        texts.append(take_steps.experimental_get_compiler_ir(trainer, learners, pairs, num_steps=3)(stage="hlo"))
    assert texts[0] == texts[1]


def test_a_learned_start_has_no_estimate():
    with pytest.raises(ValueError, match="A start can be learned by the meta-gradient alone"):
        MetaTrainer(build_linear, MetaLoss.mlp(), start="learned", estimator=EvolutionStrategies())


@pytest.mark.parametrize("arguments", [{"stddev": 0.0}, {"stddev": np.inf}, {"num_pairs": 0}], ids=str)
def test_wrong_settings_are_refused(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must be"):
        EvolutionStrategies(**arguments)
