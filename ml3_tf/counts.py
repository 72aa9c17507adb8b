"""Numbers of things: tasks, steps, episodes."""

from numbers import Integral


def check_counts(**counts):
    """Refuses what is no number of things.

    Raises:
        ValueError: A value that is no integer, or below 1.

    Example:

    >>> check_counts(horizon=65, steps=0)
    Traceback (most recent call last):
    ValueError: `steps` must be an integer, at least 1. Received: steps=0
    """
    for name, count in counts.items():
        if not isinstance(count, Integral) or count < 1:
            raise ValueError(f"`{name}` must be an integer, at least 1. Received: {name}={count!r}")
