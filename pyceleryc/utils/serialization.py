"""Exceptions as data, and values that JSON can carry (T-240..T-244)."""
from __future__ import annotations

import datetime
import sys
from base64 import b64decode as _b64decode
from base64 import b64encode as _b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Real
from typing import Any, NoReturn

from kombu.serialization import pickle
from kombu.utils.encoding import bytes_to_str, safe_repr, str_to_bytes

__all__ = (
    'UnpickleableExceptionWrapper', 'subclass_exception', 'find_pickleable_exception',
    'create_exception_cls', 'get_pickleable_exception', 'get_pickleable_etype',
    'get_pickled_exception', 'strtobool', 'jsonify', 'ensure_serializable', 'itermro',
    'raise_with_context', 'b64encode', 'b64decode',
)

#: Classes too general to stand for an exception that cannot be pickled.
unwanted_base_classes = (Exception, BaseException, object)

STRTOBOOL_DEFAULT_TABLE = {
    'false': False, 'no': False, '0': False, 'off': False,
    'true': True, 'yes': True, '1': True, 'on': True,
}


def subclass_exception(name: str, parent: Any, module: str) -> Any:
    """Make an exception class called *name*, as if it came from *module*."""
    bases = parent if isinstance(parent, tuple) else (parent,)
    return type(name, bases, {'__module__': module})


def create_exception_cls(name: str, module: str, parent: Any = None) -> Any:
    """Make an exception class that stands for one that cannot be imported (T-243)."""
    return subclass_exception(name, parent or Exception, module)


def itermro(cls: type, stop: Iterable[type]) -> Iterator[type]:
    """Yield the classes of the MRO of *cls* up to the first of *stop*."""
    stops = tuple(stop)
    for node in cls.mro():
        if node in stops:
            return
        yield node


def find_pickleable_exception(
    exc: BaseException, loads: Callable[..., Any] = pickle.loads,
    dumps: Callable[..., Any] = pickle.dumps,
) -> BaseException | None:
    """Return *exc*, or one of its nearest base class, that survives pickling; or None."""
    args = getattr(exc, 'args', ())
    for cls in itermro(type(exc), unwanted_base_classes):
        try:
            candidate: BaseException = exc if cls is type(exc) else cls(*args)
            loads(dumps(candidate))
        except Exception:
            # Whatever fails, in the constructor or in pickle: try the next base.
            continue
        return candidate
    return None


def get_pickleable_etype(
    cls: type, loads: Callable[..., Any] = pickle.loads,
    dumps: Callable[..., Any] = pickle.dumps,
) -> type:
    """Return the first class in the MRO of *cls* that can be pickled."""
    for node in cls.mro():
        try:
            loads(dumps(node))
        except Exception:
            continue
        return node
    return Exception


def ensure_serializable(items: Iterable[Any], encoder: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Return *items*, those that *encoder* refuses replaced by their repr (T-242)."""
    safe = []
    for item in items:
        try:
            encoder(item)
        except Exception:
            item = safe_repr(item)
        safe.append(item)
    return tuple(safe)


class UnpickleableExceptionWrapper(Exception):  # the public name
    """Stands for an exception that cannot be pickled (T-241).

    :param exc_module: module of the original class.
    :param exc_cls_name: name of the original class.
    :param exc_args: its arguments; those that cannot be pickled become reprs.
    :param text: repr of the original.
    """

    def __init__(
        self, exc_module: str, exc_cls_name: str, exc_args: Iterable[Any],
        text: str | None = None,
    ) -> None:
        self.exc_module = exc_module
        self.exc_cls_name = exc_cls_name
        self.exc_args = ensure_serializable(exc_args, lambda v: pickle.loads(pickle.dumps(v)))
        self.text = text
        super().__init__(exc_module, exc_cls_name, self.exc_args, text)

    def restore(self) -> BaseException:
        """Return an exception of a class made after the original, with its arguments."""
        cls = create_exception_cls(self.exc_cls_name, self.exc_module)
        return cls(*self.exc_args)

    @classmethod
    def from_exception(cls, exc: BaseException) -> UnpickleableExceptionWrapper:
        """Wrap *exc*."""
        return cls(
            type(exc).__module__, type(exc).__name__, getattr(exc, 'args', ()), safe_repr(exc))

    def __str__(self) -> str:
        return self.text or f'{self.exc_cls_name}{self.exc_args!r}'


def get_pickleable_exception(exc: BaseException) -> BaseException:
    """Return *exc* or the best replacement for it that can be pickled (T-241)."""
    return find_pickleable_exception(exc) or UnpickleableExceptionWrapper.from_exception(exc)


def get_pickled_exception(exc: Any) -> Any:
    """Undo :func:`get_pickleable_exception`."""
    return exc.restore() if isinstance(exc, UnpickleableExceptionWrapper) else exc


def raise_with_context(exc: BaseException) -> NoReturn:
    """Raise *exc* from the exception being handled; just raise it if that is the same."""
    current = sys.exc_info()[1]
    if current is None or current is exc:
        raise exc
    raise exc from current


def b64encode(s: bytes | str) -> str:
    """Return *s* in base64, as text."""
    return str(bytes_to_str(_b64encode(str_to_bytes(s))))


def b64decode(s: bytes | str) -> bytes:
    """Return the bytes that the base64 text *s* stands for."""
    return _b64decode(str_to_bytes(s))


def strtobool(term: Any, table: Mapping[str, bool] | None = None) -> Any:
    """Convert ``yes/no/true/false/on/off/1/0``; anything but a string stays as it is.

    :raises TypeError: another string.
    """
    if not isinstance(term, str):
        return term
    try:
        return (table or STRTOBOOL_DEFAULT_TABLE)[term.lower()]
    except KeyError:
        raise TypeError(f'Cannot coerce {term!r} to type bool') from None


# -- JSON ---------------------------------------------------------------------------------

def _time_to_json(value: datetime.datetime | datetime.time) -> str:
    # Milliseconds are what JavaScript's Date reads; "Z" is its name for UTC.
    text = value.isoformat(timespec='milliseconds' if value.microsecond else 'seconds')
    return text[:-6] + 'Z' if text.endswith('+00:00') else text


def _scalar(obj: Any) -> Any:
    if isinstance(obj, (datetime.datetime, datetime.time)):
        return _time_to_json(obj)
    if isinstance(obj, datetime.date):
        return obj.isoformat()
    if isinstance(obj, datetime.timedelta):
        return str(obj)
    return None


def jsonify(
    obj: Any, builtin_types: tuple[type, ...] = (Real, str), key: Any = None,
    keyfilter: Callable[[Any], bool] | None = None,
    unknown_type_filter: Callable[[Any], Any] | None = None,
) -> Any:
    """Return *obj* made of what JSON knows; dates become ISO-8601 strings.

    :param key: where *obj* was found, for the error message.
    :param keyfilter: keep only the dict keys for which this holds.
    :param unknown_type_filter: converts other types.
    :raises ValueError: a type is not known and there is no *unknown_type_filter*.
    """
    if obj is None or isinstance(obj, builtin_types):
        return obj
    filters = {'keyfilter': keyfilter, 'unknown_type_filter': unknown_type_filter}
    if isinstance(obj, Mapping):
        return {
            k: jsonify(v, builtin_types, k, **filters) for k, v in obj.items()
            if keyfilter is None or keyfilter(k)
        }
    if isinstance(obj, (list, tuple)):
        return [jsonify(item, builtin_types, key, **filters) for item in obj]
    text = _scalar(obj)
    if text is not None:
        return text
    if unknown_type_filter is None:
        raise ValueError(f'Unsupported type: {type(obj)!r} {obj!r} (parent: {key})')
    return unknown_type_filter(obj)
