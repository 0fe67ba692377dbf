"""Every exception and warning of the public API (FEATURES 2.5)."""
from __future__ import annotations

import importlib
from datetime import datetime
from types import TracebackType
from typing import Any

from kombu.exceptions import OperationalError

from pyceleryc._billiard import (
    SoftTimeLimitExceeded,
    Terminated,
    TimeLimitExceeded,
    WorkerLostError,
)

__all__ = (
    'reraise',
    'CeleryWarning', 'AlwaysEagerIgnored', 'DuplicateNodenameWarning', 'FixupWarning',
    'NotConfigured', 'SecurityWarning',
    'CeleryError', 'ImproperlyConfigured', 'SecurityError', 'OperationalError',
    'TaskPredicate', 'Ignore', 'Reject', 'Retry', 'RetryTaskError',
    'TaskError', 'QueueNotFound', 'IncompleteStream', 'NotRegistered', 'AlreadyRegistered',
    'TimeoutError', 'MaxRetriesExceededError', 'TaskRevokedError', 'InvalidTaskError',
    'ChordError',
    'BackendError', 'BackendGetMetaError', 'BackendStoreError',
    'SoftTimeLimitExceeded', 'TimeLimitExceeded', 'WorkerLostError', 'Terminated',
    'CPendingDeprecationWarning', 'CDeprecationWarning',
    'WorkerShutdown', 'WorkerTerminate', 'SystemTerminate',
    'CeleryCommandException',
)

UNREGISTERED_FMT = "Task of kind {0} never registered, please make sure it's imported."


def reraise(
    tp: type[BaseException], value: BaseException, tb: TracebackType | None = None,
) -> None:
    """Raise *value* again with traceback *tb* (the type is kept for old callers)."""
    raise value if value.__traceback__ is tb else value.with_traceback(tb)


def _safe_repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:
        return f'<unprintable {type(value).__name__}>'


# -- warnings -----------------------------------------------------------------

class CeleryWarning(UserWarning):
    """Base of all warnings."""


class AlwaysEagerIgnored(CeleryWarning):
    """``send_task`` ignores the ``task_always_eager`` setting."""


class DuplicateNodenameWarning(CeleryWarning):
    """Several workers answer to the same node name."""


class FixupWarning(CeleryWarning):
    """A fixup (such as Django's) cannot be applied."""


class NotConfigured(CeleryWarning):
    """No configuration was found; defaults are used."""


class SecurityWarning(CeleryWarning):
    """A setting or environment is a possible security problem."""


class CPendingDeprecationWarning(PendingDeprecationWarning):
    """Something will be deprecated."""


class CDeprecationWarning(DeprecationWarning):
    """Something is deprecated."""


# -- errors -------------------------------------------------------------------

class CeleryError(Exception):
    """Base of the library's own errors."""


class ImproperlyConfigured(CeleryError):
    """The configuration is missing, contradictory or misspelled."""


class SecurityError(CeleryError):
    """Something would be unsafe to do."""


# -- predicates: not errors, they tell the tracer what to do ----------------------

class TaskPredicate(CeleryError):
    """Base of the exceptions by which a task steers its outcome (T-257)."""


class Ignore(TaskPredicate):
    """Acknowledge the message and store nothing (T-250)."""


class Reject(TaskPredicate):
    """Reject the message; with *requeue* the broker delivers it again (T-252)."""

    def __init__(self, reason: object = None, requeue: bool = False) -> None:
        self.reason = reason
        self.requeue = requeue
        super().__init__(reason, requeue)

    def __repr__(self) -> str:
        return f'reject requeue={self.requeue}: {self.reason}'


class Retry(TaskPredicate):
    """The task is to be run again (T-256).

    :param message: text shown instead of the generated one.
    :param exc: the cause; an exception, or its repr as a string.
    :param when: seconds until, or the datetime of, the next run.
    :param is_eager: the task ran eagerly.
    :param sig: signature of the next run; None if raised by hand.
    """

    def __init__(
        self, message: str | None = None, exc: BaseException | str | None = None,
        when: float | datetime | None = None, is_eager: bool = False, sig: Any = None,
        **kwargs: Any,
    ) -> None:
        given_text = isinstance(exc, str)
        self.message = message
        self.exc: BaseException | None = None if given_text else exc  # type: ignore[assignment]
        self.excs: str | None = exc if given_text else None  # type: ignore[assignment]
        if self.exc is not None:
            self.excs = _safe_repr(self.exc)
        self.when = when
        self.is_eager = is_eager
        self.sig = sig
        super().__init__(message, exc, when, **kwargs)

    def humanize(self) -> str:
        """Return ``in 3s`` or ``at 2020-01-01 00:00:00``."""
        if isinstance(self.when, (int, float)):
            return f'in {self.when}s'
        return f'at {self.when}'

    def __str__(self) -> str:
        if self.message:
            return self.message
        cause = f': {self.excs}' if self.excs else ''
        return f'Retry {self.humanize()}{cause}'

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.exc or self.excs, self.when)


RetryTaskError = Retry


# -- task errors ------------------------------------------------------------------

class TaskError(CeleryError):
    """Base of the errors about tasks."""


class QueueNotFound(KeyError, TaskError):
    """A queue is unknown and may not be created."""


class IncompleteStream(TaskError):
    """A stream ended before its end marker."""


class NotRegistered(KeyError, TaskError):
    """No task of that name is registered."""

    def __repr__(self) -> str:
        return UNREGISTERED_FMT.format(str(self))


class AlreadyRegistered(TaskError):
    """A task of that name is registered already."""


class TimeoutError(TaskError):  # the public name
    """The operation did not end within its timeout."""


class MaxRetriesExceededError(TaskError):
    """The task was retried ``max_retries`` times.

    :param task_args: the task's positional arguments.
    :param task_kwargs: the task's keyword arguments.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_args = kwargs.pop('task_args', [])
        self.task_kwargs = kwargs.pop('task_kwargs', {})
        super().__init__(*args, **kwargs)


class TaskRevokedError(TaskError):
    """The task was revoked; the argument is the reason (T-225)."""


class InvalidTaskError(TaskError):
    """The message or the task class is malformed."""


class ChordError(TaskError):
    """A member of the chord's header failed, or the join did."""


# -- result backends ----------------------------------------------------------------

class BackendError(Exception):
    """The result backend failed."""


class BackendGetMetaError(BackendError):
    """Reading a result failed.  *task_id* tells which."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_id = kwargs.get('task_id', '')
        super().__init__(*args)

    def __repr__(self) -> str:
        return f'{super().__repr__()} task_id:{self.task_id}'


class BackendStoreError(BackendError):
    """Writing a result failed.  *state* and *task_id* tell which."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state = kwargs.get('state', '')
        self.task_id = kwargs.get('task_id', '')
        super().__init__(*args)

    def __repr__(self) -> str:
        return f'{super().__repr__()} state:{self.state} task_id:{self.task_id}'


# -- leaving the worker ---------------------------------------------------------------

class WorkerTerminate(SystemExit):
    """The worker is to end at once."""


SystemTerminate = WorkerTerminate


class WorkerShutdown(SystemExit):
    """The worker is to end after its running tasks."""


def __getattr__(name: str) -> Any:
    # Loaded on demand: the base class is click's, which a publisher never needs.
    if name == 'CeleryCommandException':
        return importlib.import_module('pyceleryc._cli_error').CeleryCommandException
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
