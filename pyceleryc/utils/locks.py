"""Locks that a forked child finds free, whatever the parent's other threads were doing."""
from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakSet

__all__ = ('new_rlock',)

_made: WeakSet[Any] = WeakSet()


def new_rlock() -> Any:
    """Make a ``threading.RLock``. What it guards must be sound between any two lines: the child goes on with it as it is."""
    lock = threading.RLock()
    _made.add(lock)
    return lock


def _free() -> None:
    # The threads that held them are not here. Private, but what the standard library does for its own.
    for lock in list(_made):
        lock._at_fork_reinit()


os.register_at_fork(after_in_child=_free)
