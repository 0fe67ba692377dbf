"""``app.add_periodic_task``: entries of the beat schedule made in code."""
from __future__ import annotations

import logging
from collections import deque
from typing import Any

from pyceleryc.canvas import Signature

__all__ = ('Periodic',)

logger = logging.getLogger('celery.app.base')


class Periodic:
    """The part of :class:`~pyceleryc.app.base.Celery` about periodic tasks."""

    configured: bool
    conf: Any
    signature: Any
    _pending_periodic_tasks: deque[Any]

    def add_periodic_task(
        self, schedule: Any, sig: Any, args: Any = (), kwargs: Any = (),
        name: str | None = None, **opts: Any,
    ) -> str:
        """Let beat send *sig* on *schedule*.

        :param schedule: seconds, a timedelta or a schedule such as ``crontab(...)``.
        :param sig: a signature, or the name of a task.
        :param name: name of the entry; default: the call as text.
        :returns: the name.
        """
        if isinstance(sig, Signature):
            sig = sig.clone(args, dict(kwargs or {}))
        else:
            sig = self.signature(sig.name if hasattr(sig, 'name') else sig, args, kwargs)
        entry = {
            'schedule': schedule,
            'task': sig.name,
            'args': sig.args,
            'kwargs': sig.kwargs,
            'options': {**sig.options, **opts},
        }
        key = name or repr(sig)
        if self.configured:
            self._add_periodic_task(key, entry, name)
        else:
            self._pending_periodic_tasks.append((key, entry, name))
        return key

    def _add_periodic_task(self, key: str, entry: dict[str, Any], name: str | None) -> None:
        schedule = self.conf.beat_schedule
        if name is None and key in schedule:
            logger.warning(
                'The periodic task %r replaces another one of the same call: give both a name',
                key)
        schedule[key] = entry
