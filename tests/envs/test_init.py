"""Tests of `ml3_tf.envs`: public names."""

import gymnasium
import pytest

import ml3_tf.envs


@pytest.mark.parametrize("name", ml3_tf.envs.__all__)
def test_public_names_are_there(name):
    assert getattr(ml3_tf.envs, name).__doc__
    assert name in dir(ml3_tf.envs)


def test_public_modules_have_the_constants_that_they_name():
    for module in (ml3_tf.envs.ant, ml3_tf.envs.mountain_car, ml3_tf.envs.pointmass, ml3_tf.envs.reacher):
        assert module.__all__ and all(hasattr(module, name) for name in module.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'ml3_tf.envs' has no attribute 'walker'"):
        _ = ml3_tf.envs.walker


def test_all_environments_are_registered():
    classes = {gymnasium.make(name).unwrapped.__class__ for name in gymnasium.registry if name.startswith("ml3_tf/")}
    assert classes == {
        ml3_tf.envs.AntGoalEnv,
        ml3_tf.envs.MountainCarGoalEnv,
        ml3_tf.envs.PointmassGoalEnv,
        ml3_tf.envs.ReacherFingertipGoalEnv,
        ml3_tf.envs.ReacherGoalEnv,
    }
