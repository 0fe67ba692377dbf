"""The pool ``solo``."""
from __future__ import annotations

from pyceleryc.concurrency.base import BasePool

__all__ = ('TaskPool',)


class TaskPool(BasePool):
    """One task at a time, in the thread of the worker itself."""

    core_name = 'solo'
