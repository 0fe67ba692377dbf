"""Locks that a forked child finds free, whatever the parent's other threads were doing."""
from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload
from weakref import WeakSet

__all__ = ('new_rlock', 'shared_property')

T = TypeVar('T')

_made: WeakSet[Any] = WeakSet()


def new_rlock() -> Any:
    """Make a ``threading.RLock``. What it guards must be sound between any two lines: the child goes on with it as it is."""
    lock = threading.RLock()
    _made.add(lock)
    return lock


class shared_property(Generic[T]):  # noqa: N801  used like property
    """Like ``functools.cached_property``, but threads that come together make the value once.

    (That of Python 3.12 makes it twice: with two publishers, one is forgotten with what it has not sent.)
    """

    def __init__(self, func: Callable[[Any], T]) -> None:
        self.func = func
        self.name = func.__name__
        self.lock = new_rlock()
        self.__doc__ = func.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, obj: None, owner: type | None = None) -> shared_property[T]: ...

    @overload
    def __get__(self, obj: object, owner: type | None = None) -> T: ...

    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        if obj is None:
            return self
        # Once it is there, it is found before this is asked.
        with self.lock:
            values = obj.__dict__
            if self.name not in values:
                values[self.name] = self.func(obj)
            return values[self.name]


def _free() -> None:
    # The threads that held them are not here. Private, but what the standard library does for its own.
    for lock in list(_made):
        lock._at_fork_reinit()


os.register_at_fork(after_in_child=_free)
