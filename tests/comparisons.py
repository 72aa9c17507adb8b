"""Comparisons of floating-point results, with tolerances that follow from the size of the compared steps."""

import numpy as np


def assert_same_step(received, expected, before, rtol=0.01):
    """Asserts that weights took the same step, up to a share of its length, and that they moved at all.

    Rounding grows with the terms that were summed, not with the sum: a component of a step may be all rounding. So the
    difference of all weights together is compared with the length of the step of all.

    Args:
        received: Arrays of the weights after the step.
        expected: Arrays of the weights that are expected.
        before: Arrays of the weights before the step.
        rtol: Largest difference, as a share of the length of the expected step.
    """
    received, expected, before = (
        np.concatenate([np.ravel(part) for part in parts]) for parts in (received, expected, before)
    )
    length = np.linalg.norm(expected - before)
    assert length > 0
    difference = np.linalg.norm(received - expected)
    assert difference <= rtol * length, f"the steps differ by {difference:.3g}, their length is {length:.3g}"
