"""Tests of `ml3_tf.errors`: one base class to catch, which is a ValueError."""

import pytest

import ml3_tf
from ml3_tf import errors


@pytest.mark.parametrize("name", ["UnsafeArtefactError", "CorruptArtefactError", "ArtefactVersionError"])
def test_refusals_share_a_base_class_that_is_a_value_error(name):
    assert issubclass(getattr(errors, name), errors.ArtefactError)
    assert issubclass(errors.ArtefactError, ValueError)
    assert ml3_tf.errors is errors
