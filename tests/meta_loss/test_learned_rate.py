"""A rate that is learned with the loss."""

import keras
import numpy as np
import pytest

from ml3_tf import LearnedRate


def test_a_learned_rate_multiplies_and_is_learned():
    rate = LearnedRate(0.5)
    np.testing.assert_allclose(rate(np.array([4.0, 2.0])), [2.0, 1.0], rtol=1e-6)
    assert rate.trainable_variables == [rate.log_rate]
    rate.log_rate.assign(0.0)
    np.testing.assert_allclose(rate(np.array([4.0])), [4.0])


def test_it_is_rebuilt_from_its_configuration():
    config = keras.saving.serialize_keras_object(LearnedRate(0.25))
    assert float(keras.saving.deserialize_keras_object(config)(np.ones(()))) == pytest.approx(0.25)


@pytest.mark.parametrize("initial", [0.0, -1.0, float("inf"), float("nan")])
def test_a_rate_is_positive(initial):
    with pytest.raises(ValueError, match="`initial` must be a positive finite number. Received: initial="):
        LearnedRate(initial)
