"""Tests of `ml3_tf.saving.errors`: one public base class to catch, which is a `ValueError`."""

import pytest

from ml3_tf import saving
from ml3_tf.saving import errors


@pytest.mark.parametrize("name", ["UnsafeArtifactError", "CorruptArtifactError", "ArtifactVersionError"])
def test_refusals_share_a_base_class_that_is_a_value_error(name):
    assert issubclass(getattr(saving, name), saving.ArtifactError)
    assert issubclass(saving.ArtifactError, ValueError)
    assert getattr(errors, name) is getattr(saving, name)
