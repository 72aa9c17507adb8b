"""Tests of `ml3_tf.rl.returns`: sums and advantages by hand."""

import numpy as np
import tensorflow as tf

from ml3_tf.rl.returns import discounted_sums, generalized_advantages, normalized

GENERATOR = np.random.default_rng(0)


def test_sums_of_what_is_to_come():
    np.testing.assert_allclose(discounted_sums([[1.0, 2.0, 4.0]], 0.5), [[3.0, 4.0, 4.0]])
    np.testing.assert_allclose(discounted_sums([1.0, 2.0, 4.0], 0.0), [1.0, 2.0, 4.0])
    np.testing.assert_allclose(discounted_sums([1.0, 2.0, 4.0], 1.0), [7.0, 6.0, 4.0])


def test_advantages_by_hand():
    """gamma = 1/2, lambda = 1/2. Errors: 1 + 1/2 * 4 - 2 = 1; 2 + 1/2 * 6 - 4 = 1; 3 + 1/2 * 2 - 6 = -2."""
    advantages = generalized_advantages([1.0, 2.0, 3.0], [2.0, 4.0, 6.0, 2.0], 0.5, 0.5)
    np.testing.assert_allclose(advantages, [1 + 1 / 4 - 2 / 16, 1 - 2 / 4, -2])


def test_advantages_end_with_the_episode():
    """The same, but the episode ends after its second step: its error is 2 - 4 = -2, and there is no third."""
    advantages = generalized_advantages([1.0, 2.0, 3.0], [2.0, 4.0, 6.0, 2.0], 0.5, 0.5, mask=[1.0, 1.0, 0.0])
    np.testing.assert_allclose(advantages, [1 - 2 / 4, -2, 0])


def test_the_limits_of_lambda():
    rewards, values = GENERATOR.normal(size=(2, 6)), GENERATOR.normal(size=(2, 7))
    errors = rewards + 0.9 * values[:, 1:] - values[:, :-1]
    np.testing.assert_allclose(generalized_advantages(rewards, values, 0.9, 0.0), errors)
    values[:, -1] = 0
    to_go = discounted_sums(rewards, 0.9) - values[:, :-1]
    np.testing.assert_allclose(generalized_advantages(rewards, values, 0.9, 1.0), to_go, atol=1e-12)


def test_each_task_is_normalised_by_what_happened_in_it():
    values, mask = GENERATOR.normal([[[3.0]], [[-7.0]]], 2.0, (2, 3, 4)), np.ones((2, 3, 4))
    mask[0, 1, 2:] = 0
    received = normalized(tf.constant(values), tf.constant(mask)).numpy()
    for task in range(2):
        happened = values[task][mask[task] == 1]
        np.testing.assert_allclose(received[task], mask[task] * (values[task] - happened.mean()) / happened.std())


def test_values_that_never_vary_become_0():
    np.testing.assert_array_equal(normalized(tf.fill((1, 2, 3), 0.5), tf.ones((1, 2, 3))), np.zeros((1, 2, 3)))
