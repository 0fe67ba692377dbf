"""A pool that grows with the work and shrinks when there is none (FEATURES 2.10)."""
from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from pyceleryc import bootsteps
from pyceleryc.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from pyceleryc.worker.machine import Machine

__all__ = ('Autoscaler', 'WorkerComponent')

logger = logging.getLogger('celery.worker.autoscale')

#: Seconds between looks at the work.
PERIOD = 1.0
#: Seconds without need of a process after which it goes; environment AUTOSCALE_KEEPALIVE.
KEEPALIVE = 30.0


def autoscale_bounds(value: Any) -> tuple[int, int] | None:
    """Return (most, fewest) of ``--autoscale``: ``"10,3"``, ``"10"`` (the fewest are 0), a pair, or None.

    :raises ImproperlyConfigured: it is something else.
    """
    if value is None:
        return None
    parts = value.split(',') if isinstance(value, str) else [value] if isinstance(value, int) else list(value)
    try:
        high, low = (int(parts[0]), int(parts[1]) if len(parts) > 1 else 0)
    except (ValueError, IndexError) as exc:
        raise ImproperlyConfigured(f'autoscale is two numbers, most and fewest processes, not {value!r}') from exc
    if not 0 <= low <= high or high < 1:
        raise ImproperlyConfigured(f'autoscale: there is no pool of {low} to {high} processes')
    return high, low


class WorkerComponent(bootsteps.Step):
    """``worker.autoscaler``, with ``--autoscale``; the machine has it."""

    label = 'Autoscaler'
    conditional = True
    requires = ('pyceleryc.worker.components:Pool',)

    def __init__(self, w: Any, autoscale: Any = None, **kwargs: Any) -> None:
        self.enabled = bool(autoscale)


class Autoscaler:
    """Keeps the pool of *machine* between *low* and *high* processes.

    A pool has one process at least, so 0 means 1.
    """

    def __init__(self, machine: Machine, high: int, low: int = 0, keepalive: float | None = None) -> None:
        self.machine = machine
        self.high, self.low = high, low
        self.keepalive = float(os.environ.get('AUTOSCALE_KEEPALIVE', KEEPALIVE)) if keepalive is None else keepalive
        self._needed = time.monotonic()

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.machine.concurrency

    def start(self) -> None:
        """Look from time to time, from the loop."""
        self.machine.core.call_later(PERIOD, self._due)

    def _due(self) -> None:
        self.machine.core.call_later(PERIOD, self._due)
        self.scale(time.monotonic())

    def scale(self, now: float) -> None:
        """Adjust the size to the work there is at *now* (monotonic seconds)."""
        numbers = self.machine.core.stats()
        work = numbers['in_pool'] + numbers['ready']
        if work >= self.size:
            self._needed = now
        if work > self.size and self.size < self.high:
            self._resize(min(work, self.high), 'up')
        elif self.size > max(1, self.low) and now - self._needed >= self.keepalive:
            self._resize(max(work, self.low, 1), 'down')

    def _resize(self, size: int, way: str) -> None:
        if size != self.size:
            logger.info('Scaling %s to %d processes.', way, size)
            self.machine.resize(size)

    def update(self, high: int | None = None, low: int | None = None) -> tuple[int, int]:
        """Change the bounds; return them.

        :raises ValueError: *low* is above *high*.
        """
        high = self.high if high is None else high
        low = min(self.low, high) if low is None else low
        if not 0 <= low <= high or high < 1:
            raise ValueError(f'there is no pool of {low} to {high} processes')
        self.high, self.low = high, low
        self._resize(min(max(self.size, low, 1), high), 'within the new bounds,')
        self.machine.update_prefetch()
        return high, low

    def info(self) -> dict[str, Any]:
        """Return what ``inspect stats`` shows."""
        return {'max': self.high, 'min': self.low, 'current': self.size,
                'qty': self.machine.core.stats()['in_pool']}
