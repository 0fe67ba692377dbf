"""The pool ``threads``."""
from __future__ import annotations

from pyceleryc.concurrency.base import BasePool

__all__ = ('TaskPool',)


class TaskPool(BasePool):
    """Threads of the worker."""

    core_name = 'threads'
