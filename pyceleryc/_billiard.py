"""Exceptions of the process pool, which the world knows as ``billiard.exceptions``.

Stored results name that module (PROTOCOL 3.5.1), so the classes carry it as
``__module__`` although billiard need not be installed.  Pickling therefore
cannot use the ordinary "module plus name" reference: it would find nothing, or
the classes of a real billiard.  The metaclass below pickles a class through
:func:`pool_exception` instead, except where these classes do serve as
``billiard.exceptions``; then the pickle is readable by Celery too.
"""
from __future__ import annotations

import copyreg
import sys
from typing import Any

MODULE_NAME = 'billiard.exceptions'
#: The release of billiard whose names these are.
VERSION = (4, 3, 2, '')
__version__ = '4.3.2'


class _PoolExceptionType(type):
    """Metaclass: shows ``billiard.exceptions`` as the module of its classes."""

    def __new__(mcs, name: str, bases: tuple[type, ...], ns: dict[str, Any]) -> _PoolExceptionType:
        return super().__new__(mcs, name, bases, {**ns, '__module__': MODULE_NAME})


class SoftTimeLimitExceeded(Exception, metaclass=_PoolExceptionType):
    """The soft time limit of the task passed; raised inside the task."""

    def __str__(self) -> str:
        return f'SoftTimeLimitExceeded{self.args!r}'


class TimeLimitExceeded(Exception, metaclass=_PoolExceptionType):
    """The hard time limit passed and the process was killed."""

    def __str__(self) -> str:
        return f'TimeLimitExceeded{self.args!r}'


class WorkerLostError(Exception, metaclass=_PoolExceptionType):
    """The process that ran the task ended before the task did."""


class Terminated(Exception, metaclass=_PoolExceptionType):
    """The task was terminated by a user's request."""


EXPORTS: dict[str, type[Exception]] = {
    cls.__name__: cls
    for cls in (SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError, Terminated)
}


def pool_exception(name: str) -> type[Exception]:
    """Return the pool exception class called *name*; KeyError if there is none."""
    return EXPORTS[name]


def _reduce_class(cls: type) -> str | tuple[Any, ...]:
    served = getattr(sys.modules.get(MODULE_NAME), cls.__name__, None)
    if served is cls or EXPORTS.get(cls.__name__) is not cls:
        return cls.__qualname__
    return pool_exception, (cls.__name__,)


copyreg.pickle(_PoolExceptionType, _reduce_class)
