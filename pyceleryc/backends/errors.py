"""Exceptions as result documents carry them, and back (T-240..T-244)."""
from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from kombu.exceptions import OperationalError
from kombu.utils.encoding import safe_repr

from pyceleryc._billiard import EXPORTS as POOL_EXCEPTIONS
from pyceleryc._billiard import MODULE_NAME as POOL_MODULE
from pyceleryc.exceptions import ChordError, SecurityError, TaskError
from pyceleryc.utils.serialization import (
    create_exception_cls,
    ensure_serializable,
    get_pickleable_exception,
    get_pickled_exception,
)

__all__ = ('EXCEPTION_ABLE_CODECS', 'Exceptions', 'StoreUnreachable')

#: Serializers that can carry an exception object.
EXCEPTION_ABLE_CODECS = frozenset({'pickle'})
#: Programs of both kinds share stores, so our classes go by the names that all readers know.
_OURS, _PUBLIC = 'pyceleryc.', 'celery.'


class StoreUnreachable(OperationalError):
    """The result store does not answer or refuses us; the same call may succeed later."""


class Exceptions:
    """The part of a backend that converts exceptions."""

    app: Any
    serializer: str
    encode: Any

    def prepare_exception(self, exc: BaseException, serializer: str | None = None) -> Any:
        """Return *exc* as the document can carry it.

        :param serializer: name of the serializer; default: the backend's.
        :returns: the exception or its best picklable replacement for pickle, else the dict
            of PROTOCOL §3.5.1.
        """
        if (serializer or self.serializer) in EXCEPTION_ABLE_CODECS:
            return get_pickleable_exception(exc)
        cls = type(exc)
        return {
            'exc_type': cls.__qualname__,
            'exc_message': ensure_serializable(exc.args, self.encode),
            'exc_module': _public_module(cls.__module__),
        }

    def exception_to_python(self, exc: Any) -> Any:
        """Undo :meth:`prepare_exception`.

        Nothing is imported for it: a class that is not loaded is replaced by a new one with
        the same name.

        :raises SecurityError: the document names something that is no exception class.
        """
        if not exc:
            return None
        if isinstance(exc, BaseException):
            return get_pickled_exception(exc)
        if not isinstance(exc, Mapping) or 'exc_type' not in exc:
            # Somebody stored a state of failure with data of his own.
            return Exception(exc)
        cls = _find_class(exc.get('exc_module'), str(exc['exc_type']))
        return _build(cls, exc.get('exc_message', ''))

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Tell whether the operation that raised *exc* may be done again.

        To be overridden; see the setting ``result_backend_always_retry``.
        """
        return False

    def fail_from_current_stack(self, task_id: str, exc: BaseException | None = None) -> Any:
        """Store the exception that is being handled (or *exc*) as the failure of *task_id*."""
        current = exc if exc is not None else sys.exc_info()[1]
        if current is None:
            raise TaskError('fail_from_current_stack() is for exception handlers: '
                            'there is no exception here, pass one')
        return self.mark_as_failure(task_id, current)  # type: ignore[attr-defined]


def _public_module(name: str) -> str:
    return _PUBLIC + name[len(_OURS):] if name.startswith(_OURS) else name


def _find_class(module: str | None, name: str) -> Any:
    """Return what *name* means in *module*, without importing it; else a new class."""
    if module is None:
        return create_exception_cls(name, __name__)
    if module == POOL_MODULE and name in POOL_EXCEPTIONS:
        return POOL_EXCEPTIONS[name]
    candidates = [module]
    if module.startswith(_PUBLIC):
        candidates.insert(0, _OURS + module[len(_PUBLIC):])
    for candidate in candidates:
        found = _lookup(candidate, name)
        if found is not None:
            return found
    return create_exception_cls(name, module)


def _lookup(module: str, name: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in name.split('.'):
        found = getattr(found, part, None)
    return found


def _build(cls: Any, message: Any) -> BaseException:
    if not isinstance(cls, type) or not issubclass(cls, BaseException):
        raise SecurityError(
            f'The stored result names {cls!r} as its exception class, which is none: it is not '
            'called. Find out who writes to the result store.')
    args = message if isinstance(message, (list, tuple)) else (message,)
    try:
        return cls(*args)
    except Exception:
        # Its constructor wants something else than its .args.
        return Exception(f'{cls}({message})')


def as_chord_error(task_id: Any, exc: Any) -> ChordError:
    """Return the error of a chord whose member *task_id* ended with *exc* (C-030)."""
    return ChordError(f'Dependency {task_id} raised {safe_repr(exc)}')
