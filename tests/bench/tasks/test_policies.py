"""Tests of the tasks of policies: they learn as in the real environments, and gradients flow through the equations."""

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

import ml3_tf
import ml3_tf.envs
from ml3_tf.bench.task import measure
from ml3_tf.bench.tasks import policies
from ml3_tf.bench.tasks.policies import ARM_FAR, ARM_NEAR, POINTMASS, FinalDistance, SquaredFinalDistance
from ml3_tf.bench.training import Training
from ml3_tf.rl import get_loss_inputs, meta_test_in_env


def test_a_learned_loss_trains_policies_as_its_meta_test_in_the_real_environment_does():
    training = Training(POINTMASS, ml3_tf.load_meta_loss("pointmass"), "SGD", jit_compile=False)
    scores = training.run([0.1], seed=3, num_steps=3)[:, 0, 0]
    (starts, ways), *_ = policies.draw_pointmass(3)
    env = gymnasium.make_vec("ml3_tf/PointmassGoal-v0", num_envs=len(ways), vectorization_mode="sync")
    env.set_attr("task", [{"state": start[0], "goal": way[0]} for start, way in zip(starts, ways, strict=True)])
    states = meta_test_in_env(
        POINTMASS.build,
        ml3_tf.load_meta_loss("pointmass"),
        keras.optimizers.SGD(0.1),
        env,
        num_steps=3,
        horizon=25,
        loss_inputs=get_loss_inputs("pointmass"),
        seed=3,
    ).observations
    ends = states[:, :, -1:, :2]
    expected = np.mean([[measure("pointmass", *pair) for pair in zip(ways, end)] for end in ends], axis=1)
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    assert scores[-1] > scores[0]


@pytest.mark.parametrize("loss", [FinalDistance(), SquaredFinalDistance()])
def test_the_rivals_descend_the_final_distance_through_the_true_equations(loss):
    training = Training(ARM_NEAR, loss, "SGD", jit_compile=False)
    starts, ways = (tf.constant(part) for part in policies.draw_near_poses(0).support)
    parameters = training._learner.draw(len(starts), seed=0)
    with tf.GradientTape() as tape:
        tape.watch(parameters.trainable)
        covered = ARM_NEAR.predict(training._loop.predict, parameters, starts)
        distances = tf.norm(covered - ways, axis=-1)
        total = tf.reduce_sum(distances if isinstance(loss, FinalDistance) else distances**2)
    gradients = tape.gradient(total, parameters.trainable)
    start = training._loop.start(len(starts), parameters)
    start.slots[training._rate_slot] = tf.fill([len(starts)], 0.01)
    step = training._loop.step(start, lambda p: training._examples(p, (starts, ways)))
    for before, after, gradient in zip(parameters.trainable, step.parameters.trainable, gradients, strict=True):
        np.testing.assert_allclose((before - after) / 0.01, gradient, rtol=2e-2, atol=2e-3)


def test_no_gradient_of_a_learned_loss_flows_through_the_equations():
    training = Training(POINTMASS, ml3_tf.load_meta_loss("pointmass"), "SGD", jit_compile=False)
    rows = tuple(tf.constant(part) for part in policies.draw_pointmass(0).support)
    parameters = training._learner.draw(len(rows[0]), seed=0)
    with tf.GradientTape() as tape:
        tape.watch(parameters.trainable)
        examples = training._examples(parameters, rows)
    assert [tuple(part.shape) for part in examples] == [(10, 25, 4), (10, 25, 6), (10, 25)]
    assert tape.gradient(examples, parameters.trainable) == [None] * len(parameters.trainable)


def test_the_score_is_the_share_of_the_way():
    way = np.array([[3.0, 4.0]])
    shares = [measure("arm", way, share * way) for share in (0.0, 0.5, 1.0, 1.5, -1.0)]
    assert shares == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert measure("arm", way, way * np.nan) == 0


def test_the_arm_starts_at_rest_and_its_goals_are_near_or_far():
    for task, low, high in ((ARM_NEAR, -1.5, 2.7), (ARM_FAR, -np.pi, 0.0)):
        starts, ways = task.draw(0).support
        assert not starts[..., 2:].any() and starts.shape == (10, 1, 4)
        goals = starts[..., :2] + ways
        assert low <= goals.min() and goals.max() <= high
