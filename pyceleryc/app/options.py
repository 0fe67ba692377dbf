"""Are the options of a task what they must be?  Asked when it is defined, so that the error comes
where the mistake is and not from a worker, hours later."""
from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from numbers import Real
from typing import Any

from kombu import compression as compressions
from kombu.exceptions import SerializerNotInstalled
from kombu.serialization import registry as serializers

from pyceleryc.exceptions import CeleryWarning
from pyceleryc.utils.time import rate

__all__ = ('check_call', 'check_function', 'check_options', 'check_task', 'warn_of_other')


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_limit(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_rate(value: Any) -> bool:
    if not isinstance(value, str):
        return _is_limit(value)
    try:
        return rate(value) >= 0
    except ValueError:
        return False


def _is_exception(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, BaseException)


def _are_exceptions(value: Any) -> bool:
    return (isinstance(value, Collection) and not isinstance(value, str)
            and all(map(_is_exception, value)))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_time(value: Any) -> bool:
    return isinstance(value, (datetime, str))


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_priority(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _are_signatures(value: Any) -> bool:
    several = value if isinstance(value, (list, tuple)) else [value]
    return all(item is None or isinstance(item, Mapping) for item in several)


_SECONDS = 'a number of seconds'
_LIMIT = 'a number of seconds, not negative; or None'
_EXCEPTIONS = 'a tuple of exception classes'
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    'name': (_is_text, 'a string'),
    'base': (inspect.isclass, 'a class'),
    'max_retries': (_is_number, 'a number, or None for no limit'),
    'default_retry_delay': (_is_number, _SECONDS),
    'rate_limit': (_is_rate, 'a number a second, or text such as "10/s", "10/m" or "10/h"'),
    'time_limit': (_is_limit, _LIMIT),
    'soft_time_limit': (_is_limit, _LIMIT),
    'throws': (lambda value: _is_exception(value) or _are_exceptions(value), _EXCEPTIONS),
    'autoretry_for': (_are_exceptions, _EXCEPTIONS),
    'dont_autoretry_for': (_are_exceptions, _EXCEPTIONS),
    'retry_kwargs': (lambda value: isinstance(value, Mapping), 'a dict of arguments of retry()'),
    'retry_backoff': (lambda value: isinstance(value, (bool, int, float)), 'a bool or a number'),
    'retry_backoff_max': (_is_number, _SECONDS),
    'serializer': (_is_text, 'the name of a serializer'),
    'compression': (_is_text, 'the name of a compression'),
    'priority': (_is_number, 'a number'),
}
_CALL_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    'countdown': (_is_number, _SECONDS),
    'eta': (_is_time, 'a datetime'),
    'expires': (lambda value: _is_number(value) or _is_time(value), 'a number of seconds, or a datetime'),
    'max_retries': _CHECKS['max_retries'],
    'time_limit': _CHECKS['time_limit'],
    'soft_time_limit': _CHECKS['soft_time_limit'],
    'priority': (_is_priority, 'an integer from 0 to 255'),
    'delivery_mode': (lambda value: value in (1, 2, 'transient', 'persistent'), '"transient" (1) or "persistent" (2)'),
    'task_id': (_is_text, 'a text'),
    'shadow': (_is_text, 'a text'),
    'headers': (_is_mapping, 'a dict'),
    'retry_policy': (_is_mapping, 'a dict'),
    'link': (_are_signatures, 'a signature, or a list of them'),
    'link_error': (_are_signatures, 'a signature, or a list of them'),
}


def check_function(fun: Any, options: Mapping[str, Any]) -> None:
    """Check what the decorator is given: the function, and the options.

    :raises TypeError: *fun* is not callable, or an option is of the wrong type.
    :raises ValueError: an option is out of range.
    """
    if not callable(fun):
        name = options.get('name')
        raise TypeError(f'task {name!r}: @task() is for functions and other callables, not {fun!r}')
    check_options(options.get('name') or f'{fun.__module__}.{_name(fun)}', options)


def _name(fun: Any) -> str:
    return str(getattr(fun, '__name__', type(fun).__name__))


def warn_of_other(task: Any, fun: Any) -> Any:
    """Return *task*, which is to be that of *fun*; warn if another one has its name (T-025)."""
    was, now = _where(task), _where(fun)
    if was != now:
        warnings.warn(
            f'task {task.name!r} is registered already, it is {was}: {now} is not used; give it '
            'another name', CeleryWarning, stacklevel=2)
    return task


def _where(fun: Any) -> str:
    return f"{fun.__module__}.{getattr(fun, '__qualname__', _name(fun))}"


def check_task(cls: type) -> None:
    """Check the attributes of a task class, which annotations and settings may have changed."""
    found = {option: getattr(cls, option, None) for option in _CHECKS if option != 'base'}
    # A property has its value only in instances.
    values = {option: value for option, value in found.items() if not hasattr(value, '__get__')}
    check_options(str(found['name'] or cls.__name__), values)


def check_options(task: str, options: Mapping[str, Any]) -> None:
    """Raise an error that names *task* and the option, if one cannot be meant.

    :param options: of the decorator; those that are not known here are the project's own.
    :raises ValueError: a number or text is out of range; TypeError: it is something else.
    """
    _check(task, options, _CHECKS)


def check_call(task: str, **arguments: Any) -> None:
    """The same for arguments of ``apply_async()`` and ``retry()``."""
    _check(task, arguments, _CALL_CHECKS)
    _check_codecs(task, arguments.get('serializer'), arguments.get('compression'))


def _check_codecs(task: str, serializer: str | None, compression: str | None) -> None:
    """Raise kombu's errors, with the name of *task*, unless both are known (or None).

    :raises SerializerNotInstalled: there is no such serializer.
    :raises KeyError: there is no such compression.
    """
    if serializer and serializer not in serializers._encoders:
        raise SerializerNotInstalled(
            f'task {task!r}: there is no serializer {serializer!r}; known: {_names(serializers._encoders)}')
    if compression:
        try:
            compressions.get_encoder(compression)
        except KeyError:
            raise KeyError(
                f'task {task!r}: there is no compression {compression!r}; known: '
                f'{_names(compressions.encoders())}') from None


def _names(known: Iterable[str]) -> str:
    return ', '.join(sorted(known))


def _kind(fits: Callable[[Any], bool], value: Any) -> type[Exception]:
    out_of_range = fits in (_is_limit, _is_rate, _is_priority) and _is_number(value)
    unreadable = fits is _is_rate and isinstance(value, str)
    return ValueError if out_of_range or unreadable else TypeError


def _check(
    task: str, given: Mapping[str, Any],
    checks: Mapping[str, tuple[Callable[[Any], bool], str]],
) -> None:
    for option in given.keys() & checks.keys():
        fits, wanted = checks[option]
        value = given[option]
        if value is not None and not fits(value):
            raise _kind(fits, value)(f'task {task!r}: {option} must be {wanted}; it is {value!r}')
