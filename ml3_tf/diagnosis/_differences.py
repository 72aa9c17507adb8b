"""A derivative beside finite differences: does it agree, and can one tell?"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

Verdict: TypeAlias = Literal["agrees", "differs", "zero", "unsettled"]

STEPS = 1e-4, 1e-5, 1e-6, 1e-7  # tried in this order, until one agrees
RIGHT = 1e-4  # a relative error up to this; smooth functions in float64 come below 1e-6
ROUNDING = 1e-14  # of float64, after many sums
SETTLED = 0.1  # two steps settle it whose differences are apart by less, as a share of them and of the error


class Comparison(NamedTuple):
    """How a derivative compares with finite differences.

    Attributes:
        verdict: "agrees"; "differs"; "zero": both are, as far as rounding lets one see; "unsettled": the differences
            depend on their step, as they do where a function has kinks.
        error: The distance of the two, as a share of the larger one.
        size: The size of the finite difference.
    """

    verdict: Verdict
    error: float
    size: float


def compare(claimed: np.ndarray | float, difference: Callable[[float], np.ndarray | float], scale: float) -> Comparison:
    """Compares a derivative with central differences of several steps.

    A kink within a step spoils it, and rounding a short one. So a derivative is right if it agrees at one of the steps,
    and wrong only if two steps agree with each other.

    Args:
        claimed: The derivative along a direction, a number or an array.
        difference: Function of a step `h` that returns `(f(h) - f(-h)) / 2h`, of the same shape.
        scale: The size of `f`, which says how fine its rounding is.

    Returns:
        A `Comparison`.

    Example:

    >>> import math
    >>> compare(1.0, lambda h: (math.sin(h) - math.sin(-h)) / (2 * h), 1.0).verdict
    'agrees'
    >>> compare(0.9, lambda h: (math.sin(h) - math.sin(-h)) / (2 * h), 1.0).verdict
    'differs'
    """
    length = lambda values: float(np.linalg.norm(np.ravel(np.asarray(values, dtype="float64"))))
    size, seen = length(claimed), []
    for step in STEPS:
        found = np.asarray(difference(step), dtype="float64")
        if not np.isfinite(found).all():
            continue
        rounding, distance = ROUNDING * scale / step, length(found - claimed)
        largest = max(size, length(found))
        if largest > rounding and distance <= RIGHT * largest + rounding:
            return Comparison("agrees", distance / largest, length(found))
        seen.append((found, distance, largest, rounding))
    if seen and all(largest <= rounding for _, _, largest, rounding in seen[:1]):
        return Comparison("zero", 0.0, 0.0)
    for (first, distance, largest, _), (second, *_, rounding) in zip(seen, seen[1:]):
        if length(first - second) <= SETTLED * min(distance, max(length(first), length(second))) + rounding:
            return Comparison("differs", distance / largest, length(first))
    return Comparison("unsettled", float("nan"), float("nan"))


def worst(comparisons: list[Comparison]) -> Comparison:
    """Returns the comparison that tells most: one that differs, then one that agrees, the larger error first."""
    order: list[Verdict] = ["differs", "agrees", "unsettled", "zero"]
    return min(comparisons, key=lambda c: (order.index(c.verdict), -c.error))
