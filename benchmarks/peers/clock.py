"""When calls end, and when there are enough of them."""

import statistics
import time
from collections.abc import Callable
from typing import TypeAlias

MIN_SECONDS, MIN_CALLS = 3.0, 3


class Clock:
    """Keeps the time at the end of each call. It starts when it is made.

    The first call traces and compiles. Enough calls have ended when those after the first are at least `MIN_CALLS`, and
    take at least `MIN_SECONDS` together.
    """

    def __init__(self) -> None:
        self.times: list[float] = [time.perf_counter()]

    def tick(self) -> bool:
        """Marks the end of a call, and returns whether there are enough."""
        self.times.append(time.perf_counter())
        return len(self.times) >= MIN_CALLS + 2 and self.times[-1] - self.times[1] >= MIN_SECONDS

    @property
    def seconds(self) -> list[float]:
        """The seconds of each call."""
        return [end - start for start, end in zip(self.times, self.times[1:])]


Run: TypeAlias = Callable[[Clock], float]


def repeat(step: Callable[[], float]) -> Run:
    """Returns a `Run` of calls of a function that takes one outer step and returns its task loss."""

    def run(clock: Clock) -> float:
        losses, enough = [], False
        while not enough:
            losses.append(step())
            enough = clock.tick()
        return statistics.fmean(losses)

    return run
