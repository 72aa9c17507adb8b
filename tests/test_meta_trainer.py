"""Tests of `ml3_tf.meta_trainer`: Algorithm 1 as `fit`."""

import inspect
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from ml3_tf import Learner, MetaLoss, MetaTrainer, meta_test, sine_tasks

layers, optimizers = keras.layers, keras.optimizers


def build_learner():
    return keras.Sequential([keras.Input((1,)), layers.Dense(8, activation="tanh"), layers.Dense(1)])


def make_trainer(meta_loss=None, seed=0, **arguments):
    keras.utils.set_random_seed(seed)
    steps = {name: arguments.pop(name) for name in ("inner_steps", "unroll", "lives", "start") if name in arguments}
    trainer = MetaTrainer(build_learner, meta_loss or MetaLoss.mlp((10,)), seed=seed, **steps)
    defaults = {"optimizer": optimizers.Adam(0.01), "loss": "mse", "inner_optimizer": optimizers.SGD(0.1)}
    trainer.compile(**{**defaults, "jit_compile": False, **arguments})
    return trainer


def make_tasks(num_batches=None, **arguments):
    dataset = sine_tasks(**{"num_tasks": 2, "num_support": 10, "num_query": 10, "seed": 1, **arguments})
    return dataset if num_batches is None else dataset.take(num_batches)


def phi_of(trainer):
    return np.concatenate([variable.numpy().ravel() for variable in trainer.meta_loss.trainable_variables])


# What a step does


def test_one_step_is_algorithm_1():
    """One step of `fit`, written out for one task with Keras's own model and two tapes."""
    trainer = make_trainer(optimizer=optimizers.SGD(0.5))
    data = next(iter(make_tasks(num_tasks=1)))
    theta = trainer.learner.draw(1).trainable  # what the trainer draws next is what a twin draws first
    trainer = make_trainer(optimizer=optimizers.SGD(0.5))
    phi = trainer.meta_loss.trainable_variables
    before = phi_of(trainer)

    model = build_learner()
    (x, y), (x_query, y_query) = (tuple(t[0] for t in data[part]) for part in ("support", "query"))
    with tf.GradientTape() as outer:
        weights = [values[0] for values in theta]
        with tf.GradientTape() as inner:
            inner.watch(weights)
            loss = tf.reduce_mean(trainer.meta_loss.call(y, model.stateless_call(weights, [], x)[0]))
        weights = [w - 0.1 * g for w, g in zip(weights, inner.gradient(loss, weights))]
        task_loss = tf.reduce_mean(tf.square(model.stateless_call(weights, [], x_query)[0] - y_query))
    gradient = np.concatenate([np.ravel(g) for g in outer.gradient(task_loss, phi)])

    history = trainer.fit(tf.data.Dataset.from_tensors(data), verbose=0).history
    np.testing.assert_allclose(history["loss"], [task_loss], rtol=1e-5)
    np.testing.assert_allclose(history["meta_gradient_norm"], [np.linalg.norm(gradient)], rtol=1e-4)
    np.testing.assert_allclose(phi_of(trainer), before - 0.5 * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("inner_steps", "unroll", "outer_steps"), [(1, None, 1), (6, None, 1), (6, 2, 3), (6, 1, 6)])
def test_phi_moves_after_every_unroll(inner_steps, unroll, outer_steps):
    trainer = make_trainer(inner_steps=inner_steps, unroll=unroll)
    trainer.fit(make_tasks(2), verbose=0)
    assert int(trainer.optimizer.iterations) == 2 * outer_steps


def test_theta_lives_on_between_updates_of_phi():
    """With an outer rate of 0, scores after 1, 2 and 3 steps average to the reported loss."""
    frozen = optimizers.SGD(0.0)
    data = tf.data.Dataset.from_tensors(next(iter(make_tasks())))
    reported = make_trainer(inner_steps=3, unroll=1, optimizer=frozen).fit(data, verbose=0).history["loss"]
    each = [make_trainer(inner_steps=n, optimizer=optimizers.SGD(0.0)).fit(data, verbose=0) for n in range(1, 4)]
    np.testing.assert_allclose(reported, np.mean([history.history["loss"] for history in each]), rtol=1e-4)


def test_it_learns_a_loss_that_trains_better():
    meta_loss = MetaLoss.mlp((16,), learning_rate=1.0)
    trainer = make_trainer(meta_loss, inner_steps=5, steps_per_execution=20, jit_compile=True)
    tasks = next(iter(make_tasks(num_tasks=10, seed=99)))
    before = meta_test(build_learner, meta_loss, optimizers.SGD(0.1), tasks, num_steps=5, seed=3)[-1].mean()
    trainer.fit(make_tasks(num_tasks=4), steps_per_epoch=100, epochs=1, verbose=0)
    after = meta_test(build_learner, meta_loss, optimizers.SGD(0.1), tasks, num_steps=5, seed=3)[-1].mean()
    assert after < 0.9 * before


def test_the_learned_rate_is_trained():
    trainer = make_trainer(MetaLoss.mlp((10,), learning_rate=0.5))
    trainer.fit(make_tasks(3), verbose=0)
    assert float(trainer.meta_loss.learned_rate.log_rate) != pytest.approx(np.log(0.5))


def test_the_learner_is_not_part_of_the_trainer():
    trainer = make_trainer()
    assert [v.path for v in trainer.trainable_variables] == [v.path for v in trainer.meta_loss.trainable_variables]


@pytest.mark.parametrize(
    "arguments",
    [
        {"run_eagerly": True},
        {"jit_compile": True},
        {"steps_per_execution": 3},
        {"steps_per_execution": 3, "jit_compile": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("unroll", [None, 1])
def test_every_way_to_run_gives_the_same_loss(arguments, unroll):
    plain, other = make_trainer(inner_steps=2, unroll=unroll), make_trainer(inner_steps=2, unroll=unroll, **arguments)
    for trainer in (plain, other):
        trainer.fit(make_tasks(), steps_per_epoch=3, verbose=0)
    np.testing.assert_allclose(phi_of(other), phi_of(plain), rtol=1e-3, atol=1e-5)


def test_the_same_seed_gives_the_same_weights():
    trainers = [make_trainer(seed=seed) for seed in (4, 4, 5)]
    for trainer in trainers:
        trainer.fit(make_tasks(3), verbose=0)
    np.testing.assert_array_equal(phi_of(trainers[0]), phi_of(trainers[1]))
    assert not np.allclose(phi_of(trainers[0]), phi_of(trainers[2]))


@pytest.mark.parametrize("clip", [{"clipnorm": 1e-3}, {"global_clipnorm": 1e-3}, {"clipvalue": 1e-3}], ids=str)
def test_the_outer_gradient_is_clipped_by_the_optimizer(clip):
    trainer = make_trainer(optimizer=optimizers.SGD(1.0, **clip))
    before = phi_of(trainer)
    history = trainer.fit(make_tasks(1), verbose=0).history
    assert history["meta_gradient_norm"][0] > 0.01
    assert np.linalg.norm(phi_of(trainer) - before) < 1e-3 * np.sqrt(len(before))


# Keras around it


def test_metrics_validation_and_callbacks():
    seen = []
    trainer = make_trainer(metrics=["mae", keras.metrics.RootMeanSquaredError()])
    history = trainer.fit(
        make_tasks(),
        steps_per_epoch=2,
        epochs=2,
        validation_data=make_tasks(seed=7),
        validation_steps=2,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(sorted(logs)))],
        verbose=0,
    ).history
    names = ["loss", "mean_absolute_error", "meta_gradient_norm", "root_mean_squared_error"]
    validation = [f"val_{name}" for name in names if name != "meta_gradient_norm"]
    assert seen == [sorted(names + validation)] * 2
    assert sorted(history) == sorted(names + validation)
    assert history["mean_absolute_error"][0] < history["root_mean_squared_error"][0]


def test_evaluate_scores_the_loss_and_leaves_it_alone():
    trainer = make_trainer(inner_steps=3)
    before = phi_of(trainer)
    data = next(iter(make_tasks()))
    loss = trainer.evaluate(tf.data.Dataset.from_tensors(data), verbose=0, return_dict=True)
    twin = make_trainer(inner_steps=3)
    expected = meta_test(build_learner, twin.meta_loss, optimizers.SGD(0.1), data, num_steps=3, seed=0)[-1].mean()
    np.testing.assert_allclose(loss["loss"], expected, rtol=1e-4)
    np.testing.assert_array_equal(phi_of(trainer), before)


def test_validation_does_not_change_training():
    plain, validated = make_trainer(), make_trainer()
    plain.fit(make_tasks(), steps_per_epoch=2, epochs=2, verbose=0)
    validated.fit(
        make_tasks(), steps_per_epoch=2, epochs=2, verbose=0, validation_data=make_tasks(seed=7), validation_steps=1
    )
    np.testing.assert_array_equal(phi_of(plain), phi_of(validated))


def test_sample_weights_of_tasks_count():
    """Examples of weight 0 do not count, neither to the learner nor to the score."""
    data = next(iter(make_tasks()))
    keep = np.array([[1.0] * 5 + [0.0] * 5] * 2, "float32")
    broken = {part: (x, tf.where(keep[..., None] > 0, y, 1e3), keep) for part, (x, y) in data.items()}
    halved = {part: (x[:, :5], y[:, :5], keep[:, :5] / 2) for part, (x, y) in data.items()}
    trainers = make_trainer(), make_trainer()
    for trainer, tasks in zip(trainers, (broken, halved)):
        trainer.fit(tf.data.Dataset.from_tensors(tasks), verbose=0)
    np.testing.assert_allclose(phi_of(trainers[0]), phi_of(trainers[1]), rtol=1e-3, atol=1e-5)


def squared_norm_beside_a_secret(parameters, data):
    """An extra loss that looks at the learners' parameters and at a part of the tasks that no learner sees."""
    return tf.reduce_sum(tf.square(parameters.trainable[0]), axis=[1, 2]) * data["secret"]


def make_tasks_with_a_secret(secret):
    return make_tasks(1).map(lambda tasks: {**tasks, "secret": tf.constant(secret)})


def test_the_task_loss_is_shaped_by_eq_9():
    """beta L_T + gamma L_extra; each part of it measured alone."""

    def loss_of(**arguments):
        trainer = make_trainer(**arguments)
        return trainer.evaluate(make_tasks_with_a_secret([2.0, 3.0]), verbose=0, return_dict=True)["loss"]

    plain = loss_of()
    extra = loss_of(extra_loss=squared_norm_beside_a_secret, beta=0.0)
    both = loss_of(extra_loss=squared_norm_beside_a_secret, beta=0.5, gamma=0.25)
    assert extra > 0
    np.testing.assert_allclose(both, 0.5 * plain + 0.25 * extra, rtol=1e-5)
    trainer = make_trainer(extra_loss=squared_norm_beside_a_secret, beta=0.0)
    theta = trainer._evaluated_learner.draw(2)
    learners = trainer.inner_loop.start(2, theta)
    data = next(iter(make_tasks_with_a_secret([2.0, 3.0])))
    learners = trainer.inner_loop.run(learners, lambda parameters, _: trainer.support(parameters, data), 1)
    loss = tf.reduce_mean(trainer._score(learners, data, 1))
    norms = (learners.parameters.trainable[0].numpy() ** 2).sum(axis=(1, 2))
    np.testing.assert_allclose(loss, (norms @ [2.0, 3.0]) / 2, rtol=1e-5)


def test_an_extra_loss_alone_moves_phi():
    trainer = make_trainer(extra_loss=squared_norm_beside_a_secret, beta=0.0)
    before = phi_of(trainer)
    trainer.fit(make_tasks_with_a_secret([1.0, 1.0]), verbose=0)
    assert not np.array_equal(before, phi_of(trainer))


@pytest.mark.parametrize("arguments", [{"beta": 0.0}, {"beta": -1.0}, {"gamma": float("nan"), "extra_loss": len}])
def test_weights_of_a_shaped_task_loss_are_checked(arguments):
    with pytest.raises(ValueError, match="beta \\* loss"):
        make_trainer(**arguments)


def test_an_extra_loss_gives_one_value_for_each_task():
    trainer = make_trainer(extra_loss=lambda parameters, data: tf.reduce_sum(parameters.trainable[0]))
    with pytest.raises(ValueError, match=r"one value for each task, shape \(2,\)"):
        trainer.fit(make_tasks(1), verbose=0)


def test_weights_are_saved_and_restored(tmp_path):
    trainer, other = (
        make_trainer(MetaLoss.mlp((10,), learning_rate=0.5)),
        make_trainer(MetaLoss.mlp((10,), learning_rate=0.5), seed=1),
    )
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "phi.weights.h5", save_weights_only=True)
    trainer.fit(make_tasks(2), verbose=0, callbacks=[checkpoint])
    other.load_weights(tmp_path / "phi.weights.h5")
    np.testing.assert_array_equal(phi_of(trainer), phi_of(other))


def test_fit_does_not_warn_about_shuffling():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_trainer().fit(make_tasks(1), verbose=0)


def gru(inputs):
    return layers.GRU(3)(layers.Reshape((4, 1))(inputs))


@pytest.mark.parametrize(
    "layer", [layers.BatchNormalization(), layers.Dropout(0.5), gru], ids=["norm", "dropout", "gru"]
)
def test_learners_with_state_are_trained(layer):
    inputs = keras.Input((1,))
    build = keras.Model(inputs, layers.Dense(1)(layer(layers.Dense(4)(inputs))))
    trainer = MetaTrainer(build, MetaLoss.mlp((5,)), inner_steps=1, seed=0)
    trainer.compile(optimizers.Adam(0.01), "mse", optimizers.Adam(0.01), jit_compile=False)
    before = phi_of(trainer)
    assert np.isfinite(trainer.fit(make_tasks(2), verbose=0).history["loss"]).all()
    assert not np.allclose(phi_of(trainer), before)


@pytest.mark.parametrize("inner_steps", [1, 5])
def test_learners_with_skip_connections_compile_once(inner_steps):
    """XLA cannot compile the second derivative of a batched concatenation: such learners are not batched."""

    def build():
        x = keras.Input((1,))
        hidden = layers.Concatenate()([layers.Dense(4, activation="tanh")(x), x])
        return keras.Model(x, layers.Dense(1)(hidden))

    trainer = MetaTrainer(build, MetaLoss.mlp((4,)), inner_steps=inner_steps, seed=0)
    trainer.compile(inner_optimizer=optimizers.SGD(0.01))
    history = trainer.fit(make_tasks(), steps_per_epoch=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert not trainer.learner.vectorized


class Recursive(MetaTrainer):
    """Rolls the learner out: x depends on its own prediction."""

    def support(self, parameters, batch):
        x, y = batch["support"]
        return x + self.inner_loop.predict(parameters, x), y


class Doubled(MetaTrainer):
    """Scores twice the prediction."""

    def compute_task_loss(self, parameters, batch):
        x, y = batch["query"]
        return tf.reduce_mean(tf.square(y - 2 * self.inner_loop.predict(parameters, x)), [1, 2])


@pytest.mark.parametrize("trainer_class", [Recursive, Doubled])
def test_a_subclass_overrides_one_hook(trainer_class):
    """Training and evaluation call the hook; the values are those of the same steps taken by hand."""
    compile_arguments = optimizers.Adam(0.01), "mse", optimizers.SGD(0.1)
    trainer = trainer_class(build_learner, MetaLoss.mlp((5,)), seed=0)
    plain = MetaTrainer(build_learner, trainer.meta_loss, seed=0)
    for each in (trainer, plain):
        each.compile(*compile_arguments)
    batch = next(iter(make_tasks()))
    dataset = tf.data.Dataset.from_tensors(batch)
    loop, start = trainer.inner_loop, trainer.inner_loop.start(2, Learner(build_learner, seed=0).draw(2))
    end = loop.step(start, lambda parameters: trainer.support(parameters, batch))
    expected = np.mean(trainer.compute_task_loss(end.parameters, batch))
    received = trainer.evaluate(dataset, verbose=0)
    np.testing.assert_allclose(received, expected, rtol=1e-5)
    assert received != plain.evaluate(dataset, verbose=0)
    before = phi_of(trainer)
    history = trainer.fit(dataset.repeat(2), verbose=0).history
    assert np.isfinite(history["loss"]).all() and not np.array_equal(before, phi_of(trainer))


# Learners that live on


def population_of(trainer):
    """The ages of the learners after a step of `fit`, the first input of their tasks, and the steps they have left."""
    learners, batch, left = trainer._population.kept.values
    return learners.age.numpy(), batch["support"][0].numpy()[:, 0, 0], left.numpy()


def test_learners_live_on_with_their_tasks_until_their_lives_end():
    trainer = make_trainer(inner_steps=2, lives=6)
    tasks = iter(sine_tasks(num_tasks=6, num_support=10, num_query=10, seed=1))
    before, ages_seen = None, []
    for _ in range(5):
        batch = next(tasks)
        trainer.fit(tf.data.Dataset.from_tensors(batch), verbose=0)
        ages, inputs, left = population_of(trainer)
        if before is not None:
            is_over = before[2] <= 0
            np.testing.assert_array_equal(ages, np.where(is_over, 2, before[0] + 2))
            np.testing.assert_array_equal(left, np.where(is_over, 4, before[2] - 2))
            np.testing.assert_array_equal(inputs, np.where(is_over, batch["support"][0][:, 0, 0], before[1]))
        before = ages, inputs, left
        ages_seen.append(set(ages))
    assert max(map(len, ages_seen)) > 1  # they do not end their lives together


def test_a_life_of_the_inner_steps_is_that_of_a_fresh_learner():
    plain, living = make_trainer(inner_steps=2), make_trainer(inner_steps=2, lives=2)
    for trainer in (plain, living):
        trainer.fit(make_tasks(3), verbose=0)
    np.testing.assert_array_equal(phi_of(plain), phi_of(living))


def test_a_diverged_learner_is_replaced_and_training_goes_on():
    """Its step is left out, which the warning tells."""
    trainer = make_trainer(inner_steps=2, lives=100)
    batch = next(iter(make_tasks()))
    bad = tf.nest.map_structure(tf.identity, batch)
    bad["support"] = bad["support"][0] * [[[1.0]], [[np.nan]]], bad["support"][1]
    before = phi_of(trainer)
    tasks = tf.data.Dataset.from_tensors(bad).concatenate(tf.data.Dataset.from_tensors(batch))
    with pytest.warns(UserWarning, match="1 of 2 steps of the meta-loss were left out"):
        trainer.fit(tasks, verbose=0)
    assert np.isfinite(phi_of(trainer)).all() and not np.array_equal(phi_of(trainer), before)
    assert population_of(trainer)[0][1] == 2
    trainer = make_trainer(inner_steps=2, lives=100)
    with pytest.raises(FloatingPointError, match=r"The meta-gradient of .* is not finite in 4 step\(s\) in a row"):
        trainer.fit(tf.data.Dataset.from_tensors(bad).repeat(9), verbose=0)


def test_lives_must_fit():
    with pytest.raises(ValueError, match="`lives` must be a number of steps, or two in ascending order"):
        make_trainer(inner_steps=2, lives=1)


# Where learners start


def test_learners_start_from_a_model_whose_frozen_weights_survive():
    """The first layer is frozen, the second fine-tuned: all learners start from its weights, and the model stays."""
    model = keras.Sequential([keras.Input((1,)), layers.Dense(8, activation="tanh", trainable=False), layers.Dense(1)])
    before = model.get_weights()
    trainer = MetaTrainer(model, MetaLoss.mlp((10,)), inner_steps=2, start=model, seed=0)
    trainer.compile(inner_optimizer=optimizers.SGD(0.1))
    start = trainer.draw_learners(3).parameters
    np.testing.assert_array_equal(start.trainable[0], np.stack([before[2]] * 3))
    np.testing.assert_array_equal(start.non_trainable[0], np.stack([before[0]] * 3))
    trainer.fit(make_tasks(2), verbose=0)
    tf.nest.map_structure(np.testing.assert_array_equal, model.get_weights(), before)
    assert trainer.start is model and len(trainer.trainable_variables) == len(trainer.meta_loss.trainable_variables)
    model.layers[1].set_weights([before[2] + 1, before[3]])  # later batches start from what it holds then
    np.testing.assert_array_equal(trainer.draw_learners(3).parameters.trainable[0][0], before[2] + 1)


def test_a_learned_start_is_that_of_maml():
    """One step: d L_T / d theta_0 = sum over tasks of (I - alpha H) grad L_T(theta_1) / N, by finite differences."""
    trainer = MetaTrainer(build_learner, MetaLoss.mlp((10,), learning_rate=0.3), inner_steps=5, start="learned", seed=0)
    trainer.compile(optimizers.SGD(0.1), "mse", optimizers.SGD(0.1))
    start, batch = trainer.start, next(iter(make_tasks()))
    assert len(trainer.trainable_variables) == len(trainer.meta_loss.trainable_variables) + 4
    gradients = trainer._meta_gradient(trainer.draw_learners(2), batch)[0][-4:]
    for variable, gradient in zip(start.trainable_variables, gradients, strict=True):
        origin, direction, losses, h = variable.numpy(), np.sign(gradient), [], 1e-2
        for sign in (1, -1):
            variable.assign(origin + sign * h * direction)
            losses.append(float(trainer._meta_gradient(trainer.draw_learners(2), batch)[1]))
        variable.assign(origin)
        np.testing.assert_allclose(np.abs(gradient).sum(), (losses[0] - losses[1]) / (2 * h), rtol=0.02)


def test_a_learned_start_is_moved_saved_and_used(tmp_path):
    trainer = MetaTrainer(build_learner, MetaLoss.mlp((10,), learning_rate=0.3), inner_steps=2, start="learned", seed=0)
    trainer.compile(optimizers.Adam(0.01), "mse", optimizers.SGD(0.1))
    before = trainer.start.get_weights()
    losses = trainer.fit(make_tasks(20), epochs=2, verbose=0).history["loss"]
    assert losses[1] < losses[0] and not np.array_equal(trainer.start.get_weights()[0], before[0])
    trainer.save_weights(tmp_path / "trainer.weights.h5")
    again = MetaTrainer(build_learner, MetaLoss.mlp((10,), learning_rate=0.3), inner_steps=2, start="learned", seed=1)
    again.compile(optimizers.Adam(0.01), "mse", optimizers.SGD(0.1))
    again.load_weights(tmp_path / "trainer.weights.h5")
    tf.nest.map_structure(np.testing.assert_array_equal, again.start.get_weights(), trainer.start.get_weights())
    arguments = {"num_steps": 2, "parameters": trainer.start}
    meta_test(build_learner, trainer.meta_loss, optimizers.SGD(0.1), next(iter(make_tasks())), **arguments)


def test_an_unknown_start_is_refused():
    with pytest.raises(ValueError, match="`start` must be 'fresh', 'learned' or a Keras model. Received: start='maml'"):
        MetaTrainer(build_learner, MetaLoss.mlp(), start="maml")


def test_later_parts_of_a_life_do_not_move_a_learned_start():
    trainer = MetaTrainer(build_learner, MetaLoss.mlp((10,)), inner_steps=4, unroll=2, start="learned", seed=0)
    trainer.compile(optimizers.SGD(0.1), "mse", optimizers.SGD(0.1))
    batch = next(iter(make_tasks()))
    gradients, _, learners = trainer._meta_gradient(trainer.draw_learners(2), batch)
    assert np.abs(gradients[-1]).sum() > 0
    gradients, _, _ = trainer._meta_gradient(learners, batch)
    assert [np.abs(gradient).sum() for gradient in gradients[-4:]] == [0] * 4


def test_the_way_from_fit_to_the_inner_step_is_short():
    """At most six hops of our own code, so that a reader finds the inner step."""
    frames = []

    class Spy(MetaTrainer):
        def support(self, parameters, batch):
            ours = [frame.frame.f_code for frame in reversed(inspect.stack()) if "/ml3_tf/" in frame.filename]
            # A function inside of another, as a decorator has it, is read with that.
            frames.append([code.co_name for code in ours if "<locals>" not in code.co_qualname])
            return super().support(parameters, batch)

    trainer = Spy(build_learner, MetaLoss.mlp((5,)), seed=0)
    trainer.compile(run_eagerly=True)
    trainer.fit(make_tasks(1), verbose=0)
    way = frames[0][frames[0].index("fit") : frames[0].index("step") + 1]
    way = [name for name in way if name != "train_function"]  # wraps Keras's own, to tell of non-finite gradients
    assert len(way) - 1 <= 6, way


# Errors


@pytest.mark.parametrize(
    ("inner_steps", "unroll", "words"),
    [
        (0, None, "`inner_steps` must be an integer of at least 1. Received: inner_steps=0"),
        (2.5, None, "`inner_steps` must be an integer of at least 1. Received: inner_steps=2.5"),
        (2, 0, "`unroll` must be an integer of at least 1. Received: unroll=0"),
        (3, 2, "`unroll` that divides `inner_steps`. Received: inner_steps=3, unroll=2"),
        (2, 4, "`unroll` that divides `inner_steps`. Received: inner_steps=2, unroll=4"),
    ],
)
def test_step_counts_must_fit(inner_steps, unroll, words):
    with pytest.raises(ValueError, match=words):
        MetaTrainer(build_learner, MetaLoss.mlp(), inner_steps=inner_steps, unroll=unroll)


def test_lion_is_refused():
    with pytest.raises(ValueError, match="Lion cannot be the `inner_optimizer`.* derivative is zero"):
        make_trainer(inner_optimizer="lion")


def test_ambiguous_accuracy_is_refused():
    with pytest.raises(ValueError, match="Which accuracy.*binary_accuracy"):
        make_trainer(metrics=["accuracy"])


def test_malformed_tasks_are_refused():
    with pytest.raises(ValueError, match="Tasks are dictionaries"):
        make_trainer().fit(tf.data.Dataset.from_tensors((np.ones((1, 2, 1)), np.ones((1, 2, 1)))), verbose=0)


@pytest.mark.parametrize("shared", [1.0, np.ones(3, "float32")], ids=["scalar", "vector"])
def test_what_has_no_row_for_each_task_is_refused(shared):
    """Shares of the tasks would see a part of it."""
    with pytest.raises(ValueError, match=r"one row for each of its 2 tasks. Received arrays of shape \((3,)?\)"):
        make_trainer().fit(make_tasks(1).map(lambda tasks: {**tasks, "shared": shared}), verbose=0)


def test_arrays_are_refused():
    with pytest.raises(ValueError, match="`fit` takes a `tf.data.Dataset` of tasks. Received: ndarray"):
        make_trainer().fit(np.ones((2, 1)))
