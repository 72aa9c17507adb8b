"""Tests of `ml3_tf.rl.returns`: sums and advantages by hand."""

import numpy as np
import tensorflow as tf

from ml3_tf.rl.returns import discounted_sums, generalized_advantages, normalize, normalize_columns

GENERATOR = np.random.default_rng(0)


def test_discounted_sums_by_hand():
    np.testing.assert_allclose(discounted_sums([[1.0, 2.0, 4.0]], 0.5), [[3.0, 4.0, 4.0]])
    np.testing.assert_allclose(discounted_sums([1.0, 2.0, 4.0], 0.0), [1.0, 2.0, 4.0])
    np.testing.assert_allclose(discounted_sums([1.0, 2.0, 4.0], 1.0), [7.0, 6.0, 4.0])


def test_advantages_by_hand():
    """gamma = 1/2, lambda = 1/2. Errors: 1 + 1/2 * 4 - 2 = 1; 2 + 1/2 * 6 - 4 = 1; 3 + 1/2 * 2 - 6 = -2."""
    advantages = generalized_advantages([1.0, 2.0, 3.0], [2.0, 4.0, 6.0, 2.0], discount=0.5, gae_lambda=0.5)
    np.testing.assert_allclose(advantages, [1 + 1 / 4 - 2 / 16, 1 - 2 / 4, -2])


def test_advantages_end_with_the_episode():
    """The same, but the episode ends after its second step: its error is 2 - 4 = -2, and there is no third."""
    advantages = generalized_advantages(
        [1.0, 2.0, 3.0], [2.0, 4.0, 6.0, 2.0], discount=0.5, gae_lambda=0.5, mask=[1.0, 1.0, 0.0]
    )
    np.testing.assert_allclose(advantages, [1 - 2 / 4, -2, 0])


def test_the_limits_of_lambda():
    rewards, values = GENERATOR.normal(size=(2, 6)), GENERATOR.normal(size=(2, 7))
    errors = rewards + 0.9 * values[:, 1:] - values[:, :-1]
    np.testing.assert_allclose(generalized_advantages(rewards, values, discount=0.9, gae_lambda=0.0), errors)
    values[:, -1] = 0
    to_go = discounted_sums(rewards, 0.9) - values[:, :-1]
    received = generalized_advantages(rewards, values, discount=0.9, gae_lambda=1.0)
    np.testing.assert_allclose(received, to_go, atol=1e-12)


def test_each_task_is_normalized_by_its_own_experience():
    values, mask = GENERATOR.normal([[[3.0]], [[-7.0]]], 2.0, (2, 3, 4)), np.ones((2, 3, 4))
    mask[0, 1, 2:] = 0
    received = normalize(tf.constant(values), tf.constant(mask)).numpy()
    for task in range(2):
        happened = values[task][mask[task] == 1]
        np.testing.assert_allclose(received[task], mask[task] * (values[task] - happened.mean()) / happened.std())


def test_constant_values_become_0():
    np.testing.assert_array_equal(normalize(tf.fill((1, 2, 3), 0.5), tf.ones((1, 2, 3))), np.zeros((1, 2, 3)))


def test_columns_are_normalized_by_the_rows_that_count():
    columns, weights = GENERATOR.normal(3.0, 2.0, (8, 2)), np.ones((8, 1))
    columns[:, 1], weights[5:] = -0.3, 0
    received = normalize_columns(tf.constant(columns), tf.constant(weights))
    expected = (columns[:, 0] - columns[:5, 0].mean()) / columns[:5, 0].std()
    np.testing.assert_allclose(received, np.stack([expected, np.zeros(8)], -1))
