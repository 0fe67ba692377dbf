"""The step that sends events."""
from __future__ import annotations

from typing import Any

from pyceleryc import bootsteps
from pyceleryc.worker.consumer.connection import Connection

__all__ = ('Events',)


class Events(bootsteps.StartStopStep):
    """``c.event_dispatcher``; it goes on until the last task has ended."""

    requires = (Connection,)
    late = True
    uses_connection = True

    def start(self, c: Any) -> None:
        if c.connection is not None:
            c.machine.events.open(c.connection.default_channel)
            c.event_dispatcher = c.machine.events.dispatcher

    def shutdown(self, c: Any) -> None:
        """The worker is gone."""
        c.event_dispatcher = None
