"""The pool ``prefork``."""
from __future__ import annotations

from pyceleryc.concurrency.base import BasePool

__all__ = ('TaskPool',)


class TaskPool(BasePool):
    """Processes, forked from the worker."""

    core_name = 'prefork'
