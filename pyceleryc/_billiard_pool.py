"""``billiard.pool`` where billiard is absent: the two functions that instrumentation wraps, to flush at a process's end.

A process of our pool is not made of this class, it is C.  When it ends it calls what is in these places (D18).
"""
from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ('Worker', 'process_ends')

logger = logging.getLogger('celery.concurrency')


class Worker:
    """Stands for a process of the pool."""

    def __init__(self, exitcode: int = 0) -> None:
        self.exitcode = exitcode

    def workloop(self, debug: Any = None, now: Callable[[], float] = time.monotonic, pid: int | None = None) -> int:
        """The life of a process: it is over when this is called."""
        return self.exitcode

    def _do_exit(self, pid: int, exitcode: int | None, exc: BaseException | None = None) -> None:
        """The process ends after this."""
        self.exitcode = exitcode or 0


_OWN = {'workloop': Worker.workloop, '_do_exit': Worker._do_exit}


def process_ends(exitcode: int) -> None:
    """In a process of the pool that is about to end: call the functions that somebody has wrapped."""
    cls = getattr(sys.modules.get('billiard.pool'), 'Worker', None)
    if cls is None:
        return
    for name, arguments in (('workloop', ()), ('_do_exit', (os.getpid(), exitcode))):
        function = getattr(cls, name, None)
        if function is None or function is _OWN[name] or getattr(function, '__module__', None) == 'billiard.pool':
            continue
        try:
            # With the real billiard the function inside finds no such process and raises; it was
            # called for what is around it.
            function(Worker(exitcode), *arguments)
        except (Exception, SystemExit) as exc:
            logger.debug('%s of billiard.pool.Worker, wrapped by %s: %r', name, function.__module__, exc)
