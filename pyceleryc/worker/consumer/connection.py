"""The step that has the connection of the line."""
from __future__ import annotations

from typing import Any

from pyceleryc import bootsteps

__all__ = ('Connection',)


class Connection(bootsteps.Step):
    """``c.connection``, of kombu, while there is one; the tasks come through a connection of the machine's own."""

    def create(self, c: Any) -> None:
        c.connection = None
