"""A pool that grows with the work and shrinks when there is none (FEATURES 2.10)."""
from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from pyceleryc import bootsteps
from pyceleryc.concurrency import get_implementation
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.utils.imports import symbol_by_name

__all__ = ('Autoscaler', 'WorkerComponent')

logger = logging.getLogger('celery.worker.autoscale')

#: Seconds between looks at the work.
PERIOD = 1.0
#: Seconds without need of a process after which it goes.
AUTOSCALE_KEEPALIVE = float(os.environ.get('AUTOSCALE_KEEPALIVE', 30))


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
    """``worker.autoscaler``, with ``--autoscale``: of the class that the setting ``worker_autoscaler`` names."""

    label = 'Autoscaler'
    conditional = True
    requires = ('pyceleryc.worker.components:Pool',)

    def __init__(self, w: Any, autoscale: Any = None, **kwargs: Any) -> None:
        self.enabled = bool(autoscale) and get_implementation(w.pool_name).core_name != 'solo'

    def create(self, w: Any) -> None:
        name = w.app.conf.worker_autoscaler
        try:
            cls = symbol_by_name(name)
        except (ImportError, AttributeError, ValueError) as exc:
            raise ImproperlyConfigured(f'worker_autoscaler: there is no class {name!r}: {exc}') from exc
        if not (isinstance(cls, type) and issubclass(cls, Autoscaler)):
            raise ImproperlyConfigured(
                f'worker_autoscaler: {name!r} is not derived from celery.worker.autoscale.Autoscaler')
        w.autoscaler = cls(w.pool, w.max_concurrency, w.min_concurrency, worker=w)


class Autoscaler:
    """Keeps a pool between two sizes.

    Everything is called in the worker's loop: :meth:`maybe_scale` every second; that of a subclass
    with each message, when it waits for a process, and every :attr:`keepalive` seconds.

    :param pool: what grows and shrinks, ``worker.pool``.
    :param max_concurrency: most processes or threads.
    :param min_concurrency: fewest; a pool has one at least, so 0 means 1.
    :param worker: the WorkController.
    :param keepalive: seconds for which all processes must not have been needed before some go;
        default: the environment's ``AUTOSCALE_KEEPALIVE``, or 30.
    :param mutex: held while the size is looked at and changed; default: a lock of its own.
    """

    #: Seconds that only grow.
    clock = staticmethod(time.monotonic)

    def __init__(
        self, pool: Any, max_concurrency: int, min_concurrency: int = 0, worker: Any = None,
        keepalive: float = AUTOSCALE_KEEPALIVE, mutex: Any = None,
    ) -> None:
        self.pool = pool
        self.mutex = threading.RLock() if mutex is None else mutex
        self.max_concurrency = max_concurrency
        self.min_concurrency = min_concurrency
        self.keepalive = keepalive
        self.worker = worker
        #: When the pool has grown last, or all of it was needed.
        self._last_scale_up = self.clock()

    # -- when ------------------------------------------------------------------------------------

    @property
    def follows_messages(self) -> bool:
        """Is :meth:`maybe_scale` called with each message?"""
        return type(self) is not Autoscaler

    def watch(self) -> None:
        """Look from time to time, from now on."""
        self.worker.timer.call_after((self.keepalive or PERIOD) if self.follows_messages else PERIOD, self._due)

    def _due(self) -> None:
        self.watch()
        self.maybe_scale()

    def follow(self, request: Any) -> None:
        """A message has come; in the loop's next turn it is among those that :attr:`qty` counts."""
        self.worker.timer.call_after(0.0, self.maybe_scale, (request,))

    # -- whether ---------------------------------------------------------------------------------

    @property
    def qty(self) -> int:
        """How many tasks run or wait for a process."""
        return int(self.pool.work)

    @property
    def processes(self) -> int:
        """How many processes or threads there are."""
        return int(self.pool.num_processes)

    def maybe_scale(self, req: Any = None) -> None:
        """Adjust the size to the work there is.

        :param req: the request of the message that has come, if it is called for one.
        """
        with self.mutex:
            if self._maybe_scale(req):
                self.pool.maintain_pool()

    def _maybe_scale(self, req: Any = None) -> bool | None:
        """Decide; to be overridden.  Return whether something was done."""
        work, size = self.qty, self.processes
        if work >= size:
            self._last_scale_up = self.clock()
        if size < min(work, self.max_concurrency):
            self.scale_up(min(work, self.max_concurrency) - size)
            return True
        spare = size - max(work, self.min_concurrency, 1)
        if spare > 0:
            self.scale_down(spare)
            return True
        return None

    # -- how -------------------------------------------------------------------------------------

    def scale_up(self, n: int) -> None:
        """Add *n* processes."""
        self._last_scale_up = self.clock()
        self._grow(n)

    def scale_down(self, n: int) -> None:
        """Remove *n* processes, unless some were added less than :attr:`keepalive` seconds ago."""
        if self.clock() - self._last_scale_up >= self.keepalive:
            self._shrink(n)

    def _grow(self, n: int) -> None:
        logger.info('Scaling up %s processes.', n)
        self.pool.grow(n)

    def _shrink(self, n: int) -> None:
        n = min(n, self.processes - 1)
        if n > 0:
            logger.info('Scaling down %s processes.', n)
            self.pool.shrink(n)

    # -- remote control --------------------------------------------------------------------------

    def update(self, max: int | None = None, min: int | None = None) -> tuple[int, int]:  # noqa: A002
        """Change the bounds; return them.

        :raises ValueError: *min* is above *max*.
        """
        with self.mutex:
            high = self.max_concurrency if max is None else max
            low = (self.min_concurrency if self.min_concurrency < high else high) if min is None else min
            if not 0 <= low <= high or high < 1:
                raise ValueError(f'there is no pool of {low} to {high} processes')
            self.max_concurrency, self.min_concurrency = high, low
            if self.processes > high:
                self._shrink(self.processes - high)
            elif self.processes < low:
                self._grow(low - self.processes)
        self.worker.machine.update_prefetch()
        return high, low

    def info(self) -> dict[str, Any]:
        """Return what ``inspect stats`` shows."""
        return {'max': self.max_concurrency, 'min': self.min_concurrency, 'current': self.processes, 'qty': self.qty}
