"""The step of the queues of tasks."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyceleryc import bootsteps
from pyceleryc.worker.consumer.mingle import Mingle

__all__ = ('Tasks', 'TaskConsumer')


class TaskConsumer:
    """``c.task_consumer``: the queues that the machine consumes from."""

    def __init__(self, c: Any) -> None:
        self._consumer = c

    @property
    def queues(self) -> list[Any]:
        """The queues."""
        return list(self._consumer.machine.queues)

    def consuming_from(self, queue: Any) -> bool:
        """Is this one of them?"""
        return getattr(queue, 'name', queue) in {own.name for own in self.queues}

    def add_queue(self, queue: Any) -> None:
        """Consume from *queue*, too."""
        self._consumer.app.amqp.queues.select_add(queue)
        self._consumer.add_task_queue(queue.name)

    def cancel_by_queue(self, queue: Any) -> None:
        """Do not consume from it any more."""
        self._consumer.cancel_task_queue(queue)


class Tasks(bootsteps.StartStopStep):
    """``c.task_consumer`` and ``c.strategies``; the machine consumes from the moment it is connected."""

    requires = (Mingle,)

    def create(self, c: Any) -> None:
        c.task_consumer = TaskConsumer(c)

    def info(self, c: Any) -> dict[str, Any]:
        return {'prefetch_count': c.machine.prefetch}
