"""Tests of `ml3_tf.inspection`: public names."""

import pytest

from ml3_tf import inspection


@pytest.mark.parametrize("name", inspection.__all__)
def test_public_names_are_there(name):
    assert getattr(inspection, name) is not None
    assert name in dir(inspection)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'ml3_tf.inspection' has no attribute 'plot_loss'"):
        _ = inspection.plot_loss
