"""Tests of `ml3_tf.envs`: public names, and what importing it loads."""

import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

import ml3_tf.envs

ROOT = Path(__file__).resolve().parents[2]


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


def test_registering_loads_no_simulator():
    code = "import sys, ml3_tf.envs; assert 'gymnasium' in sys.modules; assert 'mujoco' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=300)
