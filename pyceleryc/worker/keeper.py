"""Results of tasks for which the worker's parent answers: lost, timed out, revoked, unknown.

Their processes are gone, or there never was one, so the parent stores what became of them.  A result store that is away must
neither stop the loop nor cost the result: what cannot be stored now is tried again by timer, in order.
"""
from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pyceleryc.backends.errors import StoreUnreachable

__all__ = ('Keeper', 'rest_after')

logger = logging.getLogger('celery.worker.request')

#: Seconds between two tries, and how many times longer than the last try it is: the loop must not spend its time here.
PAUSE, REST = 1.0, 5
#: Most results that wait; those of a store that is away for long are told in the log.
LIMIT = 10_000


class Keeper:
    """Keeps results until the store takes them.

    :param call_later: of the worker's loop.
    """

    def __init__(self, call_later: Callable[[float, Callable[[], object]], Any]) -> None:
        self._call_later = call_later
        self._waiting: deque[tuple[str | None, Callable[[], object]]] = deque()

    def store(self, task_id: str | None, call: Callable[[], object]) -> None:
        """Store the result of a task: now if that is possible, else when it is.

        :param call: stores it.
        """
        if self._waiting:
            # Behind the others: the store is away, and each try costs time.
            self._wait(task_id, call)
            return
        begin = time.monotonic()
        try:
            call()
        except StoreUnreachable as exc:
            logger.error("Can't store the result of %s now: %s", task_id, exc)
            self._wait(task_id, call)
            self._rest(begin)

    def _wait(self, task_id: str | None, call: Callable[[], object]) -> None:
        if len(self._waiting) >= LIMIT:
            logger.error("Can't store the result of %s: too many wait for the store", task_id)
            return
        self._waiting.append((task_id, call))

    def _rest(self, begin: float) -> None:
        self._call_later(rest_after(begin), self._again)

    def _again(self) -> None:
        begin = time.monotonic()
        if not self._flush():
            self._rest(begin)

    def _flush(self) -> bool:
        """Store what waits; false if the store is still away."""
        while self._waiting:
            task_id, call = self._waiting[0]
            try:
                call()
            except StoreUnreachable:
                return False
            except Exception:
                logger.exception("Can't store the result of %s", task_id)
            self._waiting.popleft()
        return True

    def close(self) -> None:
        """Try a last time, when the worker ends."""
        if not self._flush():
            ids = ', '.join(str(task_id) for task_id, _ in self._waiting)
            logger.error('The result store is still away; these results are lost: %s', ids)


def rest_after(begin: float) -> float:
    """Return the seconds until the next try, after one that began at the monotonic time *begin* and failed."""
    return max(PAUSE, REST * (time.monotonic() - begin))
