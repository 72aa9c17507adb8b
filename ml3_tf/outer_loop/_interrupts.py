"""SIGTERM and Ctrl-C, put off until a step is over and saved."""

import os
import signal
import sys
import threading
from typing import Any, Self

GRACE = 8.0  # s that a step has to end after SIGTERM


class Interrupts:
    """Notes SIGTERM and Ctrl-C in the place of dying from them, for the time of a `with` block.

    Only the main thread can do so; in another one, signals act as ever. A second Ctrl-C acts at once. A step that runs
    in compiled code lets no handler of Python run: if it is not over `GRACE` seconds after SIGTERM, the process ends
    without a further save.

    Args:
        advice: What is printed when the process leaves.
    """

    def __init__(self, advice: str) -> None:
        self.advice: str = advice
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            # The system writes the number of a signal here, also while compiled code runs.
            self._previous_writer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
            self._is_over = threading.Event()
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._previous:
            return
        self._is_over.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_writer, warn_on_full_buffer=False)
        os.close(self._writer)  # ends the watcher's reading
        self._watcher.join()
        os.close(self._reader)
        self._previous = {}

    def leave(self) -> None:
        """Ends the run, once it is saved: raises what the signal raises in a program that does not catch it."""
        print(self.advice, file=sys.stderr, flush=True)
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + int(self.received or 0))

    def _note(self, number: int, _: Any) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def _watch(self) -> None:
        while received := os.read(self._reader, 1):
            if self._previous_writer != -1:
                os.write(self._previous_writer, received)
            if received[0] == signal.SIGTERM and not self._is_over.wait(GRACE):
                print(f"The step took too long to save it. {self.advice}", file=sys.stderr, flush=True)
                os._exit(128 + signal.SIGTERM)
