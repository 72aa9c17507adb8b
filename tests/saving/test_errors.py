"""Tests of `ml3_tf.saving.errors`: one base class to catch, which is a ValueError."""

import pytest

import ml3_tf
from ml3_tf.saving import errors


@pytest.mark.parametrize("name", ["UnsafeArtifactError", "CorruptArtifactError", "ArtifactVersionError"])
def test_refusals_share_a_base_class_that_is_a_value_error(name):
    assert issubclass(getattr(errors, name), errors.ArtifactError)
    assert issubclass(errors.ArtifactError, ValueError)
    assert ml3_tf.saving.errors is errors
