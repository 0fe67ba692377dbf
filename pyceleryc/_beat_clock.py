"""Waiting that can be ended from a signal handler, and noticing that the clock was set."""
from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

__all__ = ('Bell', 'ClockWatch')

#: Seconds by which the clock must be off to count as set; NTP corrects less by slewing.
STEP = 1.0


class Bell:
    """A pipe: whoever waits for it returns at once when it rings, also if it rang before."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def ring(self) -> None:
        """Ring; safe in signal handlers and any thread."""
        try:
            os.write(self._write, b'.')
        except BlockingIOError:
            # Full: it has been ringing for long.
            return

    def wait(self, timeout: float) -> bool:
        """Wait for the bell, *timeout* seconds at most; tell whether it rang."""
        poll = select.poll()  # select() knows descriptors below 1024 only
        poll.register(self._read, select.POLLIN)
        return bool(poll.poll(max(timeout, 0) * 1000))

    def close(self) -> None:
        """Give the pipe back."""
        for fd in (self._read, self._write):
            os.close(fd)


class ClockWatch:
    """Compares the wall clock with one that nobody sets.

    :param wall: returns the timestamp now, *monotonic*: seconds since some start.
    """

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def step(self) -> float:
        """Return by how many seconds the clock was set since the last call; 0.0 if it was not."""
        offset = self._wall() - self._monotonic()
        moved = offset - self._offset
        # Slow drift is taken over, it is never a step.
        self._offset = offset
        return moved if abs(moved) >= STEP else 0.0
