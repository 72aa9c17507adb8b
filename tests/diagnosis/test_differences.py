"""Tests of `ml3_tf.diagnosis._differences`: derivatives that are right, wrong, zero, or that nobody can tell."""

import math

import numpy as np
import pytest

from ml3_tf.diagnosis._differences import Comparison, compare, worst


def central(function):
    return lambda step: (function(step) - function(-step)) / (2 * step)


@pytest.mark.parametrize(("claimed", "verdict"), [(1.0, "agrees"), (1.001, "differs"), (0.0, "differs")])
def test_a_derivative_is_right_or_wrong(claimed, verdict):
    found = compare(claimed, central(math.sin), 1.0)
    assert found.verdict == verdict
    assert found.error == pytest.approx(abs(claimed - 1.0) / max(claimed, 1.0), abs=1e-8)


def test_arrays_are_compared_by_their_length():
    gradient = central(lambda h: np.array([math.sin(h), 2 * h]))
    assert compare(np.array([1.0, 2.0]), gradient, 1.0).verdict == "agrees"
    assert compare(np.array([2.0, 1.0]), gradient, 1.0).verdict == "differs"


def test_zero_is_found_through_rounding():
    noise = np.random.default_rng(0)
    found = compare(0.0, central(lambda h: 5.0 + 1e-15 * noise.normal()), 5.0)
    assert found == Comparison("zero", 0.0, 0.0)


def test_a_kink_within_the_long_steps_is_no_fault():
    """The function bends at 3e-6: only the steps below see its slope at 0."""
    kinked = central(lambda h: h + 40 * max(0.0, h - 3e-6))
    assert compare(1.0, kinked, 1e-5).verdict == "agrees"


def test_a_jump_leaves_it_open():
    jump = central(lambda h: math.sin(h) + 1.0 * (h > 1e-9))
    found = compare(0.5, jump, 1.0)
    assert found.verdict == "unsettled" and math.isnan(found.error)


def test_tiny_differences_do_not_accuse_a_huge_derivative():
    """In a chaotic chain, each step sees something else."""
    assert compare(1e14, central(lambda h: math.sin(1e14 * h)), 1.0).verdict == "unsettled"


def test_differences_that_are_not_finite_say_nothing():
    assert compare(1.0, lambda step: math.nan, 1.0).verdict == "unsettled"


def test_the_worst_is_the_one_that_differs_most():
    agrees, differs = Comparison("agrees", 1e-9, 1.0), Comparison("differs", 0.1, 1.0)
    zero = Comparison("zero", 0.0, 0.0)
    assert worst([zero, agrees, differs, differs._replace(error=0.2)]).error == 0.2
    assert worst([zero, agrees]) == agrees
