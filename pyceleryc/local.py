"""Proxies: objects that stand for another one found, or made, at the time of use."""
from __future__ import annotations

import importlib
import operator
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyceleryc.utils.locks import new_rlock

__all__ = ('Proxy', 'PromiseProxy', 'try_import', 'maybe_evaluate')


def try_import(module: str, default: Any = None) -> Any:
    """Import *module*; return *default* if that module itself cannot be imported."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return default


class _Forwarded(str):
    """A string for the class, the target's attribute for an instance.

    ``Proxy.__module__`` must stay a string (pickle and repr read it), while
    ``proxy.__module__`` must be that of the target (T-035).
    """

    attribute: str

    def __new__(cls, attribute: str, value: str) -> _Forwarded:
        self = super().__new__(cls, value)
        self.attribute = attribute
        return self

    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        if obj is None:
            return str(self)
        return getattr(obj._get_current_object(), self.attribute)


class Proxy:
    """Stands for whatever ``local(*args, **kwargs)`` returns when it is used.

    :param local: callable that finds the object; RuntimeError means "unbound".
    :param name: ``__name__`` of the proxy; that of the object if not given.
    """

    __slots__ = ('__local', '__args', '__kwargs', '__label', '__text')

    def __init__(
        self, local: Callable[..., Any], args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None, name: str | None = None,
        __doc__: str | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, '_Proxy__local', local)
        put(self, '_Proxy__args', tuple(args or ()))
        put(self, '_Proxy__kwargs', dict(kwargs or {}))
        put(self, '_Proxy__label', name)
        put(self, '_Proxy__text', __doc__)

    def _get_current_object(self) -> Any:
        """Return the object itself, for instance to compare it by identity."""
        return self.__local(*self.__args, **self.__kwargs)

    @property
    def __name__(self) -> Any:
        return self.__label or self._get_current_object().__name__

    @property
    def __class__(self) -> Any:
        return self._get_current_object().__class__

    @__class__.setter
    def __class__(self, value: type) -> None:
        self._get_current_object().__class__ = value

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        try:
            return self._get_current_object().__dict__
        except RuntimeError:
            raise AttributeError('__dict__') from None

    def __repr__(self) -> str:
        try:
            return repr(self._get_current_object())
        except RuntimeError:
            return f'<{type(self).__name__} unbound>'

    def __bool__(self) -> bool:
        try:
            return bool(self._get_current_object())
        except RuntimeError:
            return False

    def __dir__(self) -> list[str]:
        try:
            return dir(self._get_current_object())
        except RuntimeError:
            return []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get_current_object(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._get_current_object(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._get_current_object(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._get_current_object()(*args, **kwargs)

    def __enter__(self) -> Any:
        return self._get_current_object().__enter__()

    def __exit__(self, *exc_info: Any) -> Any:
        return self._get_current_object().__exit__(*exc_info)

    def __reduce__(self) -> Any:
        return self._get_current_object().__reduce__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._get_current_object().__reduce_ex__(protocol)

    def __eq__(self, other: object) -> Any:
        return self._get_current_object() == other

    def __ne__(self, other: object) -> Any:
        return self._get_current_object() != other

    def __hash__(self) -> int:
        return hash(self._get_current_object())


def _forward(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Proxy, *args: Any) -> Any:
        return function(self._get_current_object(), *args)
    return method


def _forward_reflected(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Proxy, other: Any) -> Any:
        return function(other, self._get_current_object())
    return method


_ARITHMETIC = (
    'add', 'sub', 'mul', 'truediv', 'floordiv', 'mod', 'pow', 'matmul',
    'lshift', 'rshift', 'and', 'or', 'xor',
)
_FORWARDED: dict[str, Callable[..., Any]] = {
    'str': str, 'bytes': bytes, 'format': format, 'iter': iter, 'len': len,
    'reversed': reversed, 'int': int, 'float': float, 'complex': complex, 'round': round,
    'divmod': divmod, 'abs': abs,
    'index': operator.index, 'neg': operator.neg, 'pos': operator.pos, 'invert': operator.invert,
    'lt': operator.lt, 'le': operator.le, 'gt': operator.gt, 'ge': operator.ge,
    'contains': operator.contains, 'getitem': operator.getitem,
    'setitem': operator.setitem, 'delitem': operator.delitem,
}


def _binary(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(operator, f'__{name}__')
    return function


def _install_operators() -> None:
    for name, function in _FORWARDED.items():
        setattr(Proxy, f'__{name}__', _forward(function))
    setattr(Proxy, '__rdivmod__', _forward_reflected(divmod))
    for name in _ARITHMETIC:
        setattr(Proxy, f'__{name}__', _forward(_binary(name)))
        setattr(Proxy, f'__r{name}__', _forward_reflected(_binary(name)))
        # "p += x" rebinds p to the result, like "p = p + x".
        setattr(Proxy, f'__i{name}__', _forward(_binary(f'i{name}')))
    setattr(Proxy, '__module__', _Forwarded('__module__', __name__))


_install_operators()


class _ProxyDoc(str):
    """``__doc__`` of the class, of the proxy if it was given one, or of the target."""

    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        if obj is None:
            return str(self)
        own = object.__getattribute__(obj, '_Proxy__text')
        return own if own is not None else obj._get_current_object().__doc__


setattr(Proxy, '__doc__', _ProxyDoc(Proxy.__doc__))


#: In place of the object that a promise has not made yet.
_PENDING = object()


class PromiseProxy(Proxy):
    """A proxy whose callable is called once, at the first use (T-024).

    Threads that come together at the first use wait for one evaluation.
    """

    __slots__ = ('__lock', '__pending', '__thing', '__weakref__')

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        object.__setattr__(self, '_PromiseProxy__thing', _PENDING)
        object.__setattr__(self, '_PromiseProxy__lock', new_rlock())
        object.__setattr__(self, '_PromiseProxy__pending', deque())

    def _get_current_object(self) -> Any:
        thing = self.__thing
        return self.__evaluate__() if thing is _PENDING else thing

    def __getattr__(self, name: str) -> Any:
        # The way of every "task.apply_async": kept as short as can be.
        thing = self.__thing
        return getattr(self.__evaluate__() if thing is _PENDING else thing, name)

    @property
    def delay(self) -> Any:
        """That of the object: "task.delay" is too frequent for a failed lookup before each."""
        thing = self.__thing
        return (self.__evaluate__() if thing is _PENDING else thing).delay

    def __then__(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call ``fun(*args, **kwargs)`` after the evaluation, or now if it is done."""
        with self.__lock:
            if self.__thing is _PENDING:
                self.__pending.append((fun, args, kwargs))
                return
        fun(*args, **kwargs)

    def __evaluated__(self) -> bool:
        """Tell whether the object exists."""
        return self.__thing is not _PENDING

    def __maybe_evaluate__(self) -> Any:
        """Return the object, making it if necessary."""
        return self._get_current_object()

    def __evaluate__(self) -> Any:
        """Make the object, release the callable, run what waited by ``__then__``."""
        with self.__lock:
            if self.__thing is not _PENDING:
                return self.__thing
            thing = Proxy._get_current_object(self)
            object.__setattr__(self, '_PromiseProxy__thing', thing)
            for name in ('local', 'args', 'kwargs'):
                object.__setattr__(self, f'_Proxy__{name}', None)
            while self.__pending:
                fun, args, kwargs = self.__pending.popleft()
                fun(*args, **kwargs)
            return thing


setattr(PromiseProxy, '__module__', _Forwarded('__module__', __name__))
setattr(PromiseProxy, '__doc__', _ProxyDoc(PromiseProxy.__doc__))


def maybe_evaluate(obj: Any) -> Any:
    """Return what *obj* promises, or *obj* itself if it is no promise."""
    # type(), because isinstance() asks the proxy for __class__, which evaluates it.
    if issubclass(type(obj), PromiseProxy):
        return type(obj).__maybe_evaluate__(obj)
    return obj
