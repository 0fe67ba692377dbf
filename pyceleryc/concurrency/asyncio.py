"""The pool ``asyncio``."""
from __future__ import annotations

from typing import Any

from pyceleryc.concurrency.base import BasePool

__all__ = ('TaskPool',)

#: Tasks under way at once, unless somebody says how many.
DEFAULT_LIMIT = 100


class TaskPool(BasePool):
    """One event loop, in a thread of the worker (see `pyceleryc.concurrency.eventloop`)."""

    core_name = 'asyncio'

    @classmethod
    def choose_limit(cls, conf: Any, wanted: int | None) -> int:
        return wanted or conf.worker_concurrency or DEFAULT_LIMIT
