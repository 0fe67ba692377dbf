"""The step that declares the exchanges of native delayed delivery (PROTOCOL 3.9)."""
from __future__ import annotations

from typing import Any

from pyceleryc import bootsteps
from pyceleryc.app.delayed import declare_delayed, has_quorum_queues
from pyceleryc.worker.consumer.tasks import Tasks

__all__ = ('DelayedDelivery',)


class DelayedDelivery(bootsteps.StartStopStep):
    """With quorum queues: tasks with an ETA are sent to exchanges that delay them; workers declare these.

    Tasks come in time then, whoever sent them. Queues whose exchange is direct cannot be reached that way; for those the
    ETA is waited for by the worker, as always.
    """

    requires = (Tasks,)
    uses_connection = True

    def include_if(self, c: Any) -> bool:
        return bool(c.controller.has_fanout and c.app.conf.worker_detect_quorum_queues and has_quorum_queues(c.app))

    def start(self, c: Any) -> None:
        if c.connection is not None and c.connection.transport.driver_type == 'amqp':
            declare_delayed(c.app, c.connection, c.app.amqp.queues.values())
