"""The step that sends heartbeats."""
from __future__ import annotations

from typing import Any

from pyceleryc import bootsteps
from pyceleryc.worker.consumer.events import Events

__all__ = ('Heart',)


class Heart(bootsteps.StartStopStep):
    """``c.heart``: events that say that the worker lives; see ``--heartbeat-interval``, ``--without-heartbeat``.

    The sender of the signal ``heartbeat_sent``.
    """

    requires = (Events,)
    conditional = True
    late = True
    uses_connection = True

    def __init__(self, c: Any, without_heartbeat: bool = False, heartbeat_interval: float | None = None,
                 **kwargs: Any) -> None:
        self.enabled = not without_heartbeat and heartbeat_interval != 0
        c.heart = None

    def start(self, c: Any) -> None:
        if c.connection is not None:
            c.heart = self
            c.machine.events.start_beats(self)

    def stop(self, c: Any) -> None:
        c.heart = None
        c.machine.events.stop_beats()
