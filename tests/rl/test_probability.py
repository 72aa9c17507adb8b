"""Tests of `ml3_tf.rl._probability`: TensorFlow Probability is asked for when a distribution is."""

import sys

import pytest

from ml3_tf.rl._probability import import_distributions


def test_the_distributions_are_those_of_tensorflow_probability():
    distribution = import_distributions().Normal(0.0, 2.0)
    assert float(distribution.stddev()) == 2.0


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_probability", None)
    with pytest.raises(ImportError, match=r"pip install 'ml3_tf\[rl\]'"):
        import_distributions()
