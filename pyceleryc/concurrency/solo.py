"""The pool ``solo``."""
from __future__ import annotations

from typing import Any

from pyceleryc.concurrency.base import BasePool

__all__ = ('TaskPool',)


class TaskPool(BasePool):
    """One task at a time, in the thread of the worker itself."""

    core_name = 'solo'

    @classmethod
    def choose_limit(cls, conf: Any, wanted: int | None) -> int:
        return 1
