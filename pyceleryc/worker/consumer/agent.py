"""The step that runs an agent beside the worker."""
from __future__ import annotations

from typing import Any

from pyceleryc import bootsteps
from pyceleryc.worker.consumer.connection import Connection

__all__ = ('Agent',)


class Agent(bootsteps.StartStopStep):
    """Starts and stops what the setting ``worker_agent`` names: a class that is called with the connection."""

    requires = (Connection,)
    conditional = True

    def include_if(self, c: Any) -> bool:
        return bool(c.app.conf.worker_agent)

    def start(self, c: Any) -> None:
        self.obj = self.instantiate(c.app.conf.worker_agent, c.connection)
        self.obj.start()
