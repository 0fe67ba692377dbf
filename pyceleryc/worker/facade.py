"""What bootsteps and remote control commands know as ``worker.timer``, ``.hub`` and ``consumer.qos``; ``.pool`` is in
:mod:`pyceleryc.concurrency`.

The machine does the work; here it has the names of the Extensions guide.  Everything but what is said to be
thread-safe is for the thread in which the worker runs, which is where steps, timers and commands are called.
"""
from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ('Hub', 'QoS', 'Timer', 'TimerEntry')

logger = logging.getLogger('celery.worker.timer')


class TimerEntry:
    """A call that will be made; :meth:`cancel` ends it."""

    def __init__(self, fun: Callable[..., Any], args: Iterable[Any], kwargs: Any, interval: float | None) -> None:
        self.fun, self.args, self.kwargs = fun, tuple(args), dict(kwargs or {})
        #: Seconds between calls; None: there is one only.
        self.interval = interval
        self.canceled = False

    cancelled = property(lambda self: self.canceled)

    def cancel(self) -> None:
        """Do not call (any more).  Thread-safe."""
        self.canceled = True

    def __call__(self) -> Any:
        return self.fun(*self.args, **self.kwargs)


class Timer:
    """Calls functions later, from the worker's loop.  What they raise is logged; SystemExit ends the worker.

    *priority* is accepted, as the guide's examples give it; calls are made in the order of their times.
    """

    Entry = TimerEntry

    def __init__(self, worker: Any) -> None:
        self.worker = worker
        self._early: list[tuple[float, TimerEntry]] = []

    def attach(self) -> None:
        """There is a machine now: plan what was asked for before."""
        early, self._early = self._early, []
        for when, entry in early:
            self._plan(max(0.0, when - time.monotonic()), entry)

    def _plan(self, seconds: float, entry: TimerEntry) -> TimerEntry:
        machine = self.worker.machine
        if machine is None:
            self._early.append((time.monotonic() + seconds, entry))
        else:
            machine.core.call_later(float(seconds), lambda: self._due(entry))
        return entry

    def _due(self, entry: TimerEntry) -> None:
        if entry.canceled:
            return
        try:
            entry()
        except Exception as exc:
            logger.exception('Error in timer: %r', exc)
        if entry.interval is not None and not entry.canceled:
            self._plan(entry.interval, entry)

    def call_after(self, secs: float, fun: Callable[..., Any], args: Iterable[Any] = (), kwargs: Any = None,
                   priority: int = 0) -> TimerEntry:
        """Call once, after so many seconds."""
        return self._plan(secs, self.Entry(fun, args, kwargs, None))

    def call_repeatedly(self, secs: float, fun: Callable[..., Any], args: Iterable[Any] = (), kwargs: Any = None,
                        priority: int = 0) -> TimerEntry:
        """Call every so many seconds."""
        return self._plan(secs, self.Entry(fun, args, kwargs, secs))

    def call_at(self, eta: float, fun: Callable[..., Any], args: Iterable[Any] = (), kwargs: Any = None,
                priority: int = 0) -> TimerEntry:
        """Call once, at a Unix time."""
        return self.call_after(max(0.0, eta - time.time()), fun, args, kwargs)

    def cancel(self, tref: TimerEntry) -> None:
        """The same as ``tref.cancel()``."""
        tref.cancel()


class Hub:
    """The worker's loop."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker

    @property
    def timer(self) -> Timer:
        """The worker's timer."""
        timer: Timer = self.worker.timer
        return timer

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> TimerEntry:
        """Call in the loop's next turn."""
        return self.timer.call_after(0.0, callback, args)

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> TimerEntry:
        """Call after so many seconds."""
        return self.timer.call_after(delay, callback, args)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> TimerEntry:
        """Call at a Unix time."""
        return self.timer.call_at(when, callback, args)

    def call_repeatedly(self, delay: float, callback: Callable[..., Any], *args: Any) -> TimerEntry:
        """Call every so many seconds."""
        return self.timer.call_repeatedly(delay, callback, args)

    def add_reader(self, fds: Any, callback: Callable[..., Any], *args: Any) -> None:
        """Call whenever a descriptor (a number, a file, or some of them) is readable."""
        for fd in _descriptors(fds):
            self._core().add_reader(fd, lambda: callback(*args))

    def remove_reader(self, fds: Any) -> None:
        """End that."""
        for fd in _descriptors(fds):
            self._core().remove_reader(fd)

    remove = remove_reader

    def add_writer(self, fds: Any, callback: Callable[..., Any], *args: Any) -> None:
        """:raises NotImplementedError: always; write from a thread of your own."""
        raise NotImplementedError('The loop of this worker watches for reading only: write in a thread of your own')

    def _core(self) -> Any:
        if self.worker.machine is None:
            raise RuntimeError('The loop is not there yet: add readers in start(), or require '
                               "'celery.worker.components:Pool'")
        return self.worker.machine.core


def _descriptors(fds: Any) -> list[int]:
    return [fd if isinstance(fd, int) else fd.fileno() for fd in (fds if isinstance(fds, (list, tuple, set)) else [fds])]


class QoS:
    """How many messages the worker holds."""

    def __init__(self, machine: Any) -> None:
        self.machine = machine

    @property
    def value(self) -> int:
        """The number; 0: no limit."""
        return int(self.machine.prefetch)

    def set(self, pcount: int) -> int:
        """Hold so many.

        :raises ValueError: less than 0.
        """
        if pcount < 0:
            raise ValueError(f'a worker cannot hold {pcount} messages')
        self.machine.set_prefetch(pcount)
        return pcount

    def increment_eventually(self, n: int = 1) -> int:
        """Hold more."""
        return self.set(self.value + max(n, 0)) if self.value else 0

    def decrement_eventually(self, n: int = 1) -> int:
        """Hold fewer, at least one."""
        return self.set(max(1, self.value - n)) if self.value else 0
