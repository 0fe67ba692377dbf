"""The step that obeys remote control."""
from __future__ import annotations

from typing import Any

from pyceleryc import bootsteps
from pyceleryc.worker.consumer.tasks import Tasks

__all__ = ('Control',)


class Control(bootsteps.StartStopStep):
    """The mailbox; it is open until the last task has ended."""

    requires = (Tasks,)
    conditional = True
    late = True
    uses_connection = True

    def include_if(self, c: Any) -> bool:
        return bool(c.app.conf.worker_enable_remote_control)

    def start(self, c: Any) -> None:
        if c.connection is not None:
            c.machine.pidbox.open(c.connection.default_channel)

    def stop(self, c: Any) -> None:
        c.machine.pidbox.close()
