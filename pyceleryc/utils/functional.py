"""Iteration, lazy values and the shape of functions."""
from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from inspect import Parameter
from itertools import islice
from numbers import Number
from typing import Any, TypeVar

from kombu.utils.functional import (
    LRUCache,
    dictfilter,
    is_list,
    lazy,
    maybe_evaluate,
    maybe_list,
    memoize,
)

__all__ = (
    'LRUCache', 'is_list', 'maybe_list', 'memoize', 'mlazy', 'noop', 'first', 'firstmethod',
    'chunks', 'padlist', 'mattrgetter', 'uniq', 'regen', 'dictfilter', 'lazy', 'maybe_evaluate',
    'head_from_fun', 'maybe', 'fun_accepts_kwargs', 'fun_takes_argument', 'arity_greater',
    'lookahead', 'pass1', 'evaluate_promises', 'seq_concat_item', 'seq_concat_seq',
    'is_numeric_value', 'DummyContext',
)

T = TypeVar('T')


class DummyContext:
    """A context manager that does nothing."""

    def __enter__(self) -> DummyContext:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return None


class mlazy(lazy):  # the public name
    """A lazy value that is computed once."""

    evaluated = False
    _value: Any = None

    def evaluate(self) -> Any:
        """Return the value, computing it the first time."""
        if not self.evaluated:
            self._value = super().evaluate()
            self.evaluated = True
        return self._value


def noop(*args: Any, **kwargs: Any) -> None:
    """Take any arguments and do nothing."""
    return None


def pass1(arg: T, *args: Any, **kwargs: Any) -> T:
    """Return the first argument."""
    return arg


def evaluate_promises(it: Iterable[Any]) -> Iterator[Any]:
    """Yield the items, lazy ones evaluated."""
    for value in it:
        yield value.evaluate() if isinstance(value, lazy) else value


def first(predicate: Callable[[Any], Any] | None, it: Iterable[Any]) -> Any:
    """Return the first item for which *predicate* (default: is not None) holds, or None."""
    test = predicate or (lambda item: item is not None)
    return next((item for item in evaluate_promises(it) if test(item)), None)


def firstmethod(
    method: str, on_call: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Return a function that calls *method* of each item until one returns not None."""

    def matcher(it: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
        for obj in it:
            bound = getattr(maybe_evaluate(obj), method)
            if on_call is None:
                answer = bound(*args, **kwargs)
            else:
                answer = on_call(bound, *args, **kwargs)
            if answer is not None:
                return answer
        return None

    return matcher


def chunks(it: Iterator[T], n: int) -> Iterator[list[T]]:
    """Yield lists of *n* items; the last may be shorter."""
    iterator = iter(it)
    while part := list(islice(iterator, n)):
        yield part


def padlist(container: Iterable[Any], size: int, default: Any = None) -> list[Any]:
    """Return exactly *size* items, filled up with *default*."""
    items = list(container)[:size]
    return items + [default] * (size - len(items))


def mattrgetter(*attrs: str) -> Callable[[Any], dict[str, Any]]:
    """Like :func:`operator.attrgetter`, but returns a dict; missing ones are None."""
    return lambda obj: {attr: getattr(obj, attr, None) for attr in attrs}


def uniq(it: Iterable[T]) -> Iterator[T]:
    """Yield each distinct item once, in order."""
    return iter(dict.fromkeys(it))


def lookahead(it: Iterable[T]) -> Iterator[tuple[T, T | None]]:
    """Yield pairs of an item and the one after it (None for the last)."""
    iterator = iter(it)
    for current in iterator:
        for upcoming in iterator:
            yield current, upcoming
            current = upcoming
        yield current, None


def maybe(typ: Callable[[Any], T], val: Any) -> T | None:
    """Convert *val* by *typ* unless it is None."""
    return None if val is None else typ(val)


def seq_concat_item(seq: Any, item: Any) -> Any:
    """Return the list or tuple *seq* with *item* appended."""
    return seq + type(seq)([item])


def seq_concat_seq(a: Any, b: Any) -> Any:
    """Return *a* and *b* joined, in the type of *a*."""
    return a + (b if isinstance(b, type(a)) else type(a)(b))


def is_numeric_value(value: object) -> bool:
    """Tell whether *value* is a number and not a bool."""
    return isinstance(value, Number) and not isinstance(value, bool)


# -- a list over an iterator ------------------------------------------------------------

class _regen(list):  # type: ignore[type-arg]  # shown in reprs
    """A list that takes its items from an iterator as far as they are asked for."""

    def __init__(self, it: Iterable[Any]) -> None:
        super().__init__()
        self.__source: Iterator[Any] | None = iter(it)

    def __take(self, count: int | None = None) -> None:
        if self.__source is not None:
            before = len_(self)
            list.extend(self, islice(self.__source, count))
            if count is None or len_(self) - before < count:
                self.__source = None

    @property
    def data(self) -> list[Any]:
        """All items."""
        return list(self)

    def map(self, func: Callable[[Any], Any]) -> None:
        """Apply *func* to every item, to those not yet taken when they are."""
        taken = list_slice(self)
        list.__setitem__(self, slice(None), [func(item) for item in taken])
        if self.__source is not None:
            self.__source = map(func, self.__source)

    def __iter__(self) -> Iterator[Any]:
        index = 0
        while True:
            if index >= len_(self):
                self.__take(1)
                if index >= len_(self):
                    return
            yield list.__getitem__(self, index)
            index += 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int) and index >= 0:
            self.__take(max(0, index + 1 - len_(self)))
        else:
            self.__take()
        return list.__getitem__(self, index)

    def __bool__(self) -> bool:
        if not len_(self):
            self.__take(1)
        return len_(self) > 0

    def __repr__(self) -> str:
        shown = list_slice(self)
        items = [repr(item) for item in shown]
        if self.__source is not None:
            items.append('...')
        return f'<_regen: [{", ".join(items)}]>'

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (self.data,)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return self.__reduce__()

    def __copy__(self) -> list[Any]:
        return self.data

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        # An iterator can be read once only, so the copy shares the items.
        memo[id(self)] = copied = self.data
        return copied


len_ = list.__len__


def list_slice(seq: list[Any]) -> list[Any]:
    """Return the items that *seq* holds already."""
    return list.__getitem__(seq, slice(None))


def _complete_first(name: str) -> Callable[..., Any]:
    inherited = getattr(list, name)

    @functools.wraps(inherited)
    def method(self: Any, *args: Any) -> Any:
        self._regen__take()
        return inherited(self, *args)

    return method


for _name in (
    '__len__', '__eq__', '__ne__', '__lt__', '__le__', '__gt__', '__ge__', '__add__', '__iadd__',
    '__mul__', '__rmul__', '__imul__', '__reversed__', '__setitem__', '__delitem__',
    '__contains__', 'append', 'extend', 'insert', 'pop', 'remove', 'index', 'count', 'reverse',
    'sort', 'copy',
):
    setattr(_regen, _name, _complete_first(_name))
setattr(_regen, '__radd__', lambda self, other: other + list(self))


def regen(it: Any) -> Any:
    """Return *it* if it is a list or tuple, else a list that reads the iterator when used."""
    return it if isinstance(it, (list, tuple)) else _regen(it)


# -- the shape of functions ---------------------------------------------------------------

_STARS: dict[Any, str] = {Parameter.VAR_POSITIONAL: '*', Parameter.VAR_KEYWORD: '**'}
_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def _parameters(fun: Callable[..., Any]) -> list[Parameter]:
    # The function's own parameters, not those of what it wraps: they decide the call.
    return list(inspect.signature(fun, follow_wrapped=False).parameters.values())


def _has_kind(params: list[Parameter], kind: Any) -> bool:
    return any(param.kind is kind for param in params)


def arity_greater(fun: Callable[..., Any], n: int) -> bool:
    """Tell whether *fun* takes more than *n* positional arguments (X20)."""
    params = _parameters(fun)
    count = sum(param.kind in _POSITIONAL for param in params)
    return count > n or _has_kind(params, Parameter.VAR_POSITIONAL)


def fun_takes_argument(name: str, fun: Callable[..., Any], position: int | None = None) -> bool:
    """Tell whether *fun* takes an argument called *name*, or *position* positional ones."""
    params = _parameters(fun)
    if _has_kind(params, Parameter.VAR_KEYWORD) or _has_kind(params, Parameter.VAR_POSITIONAL):
        return True
    if any(param.name == name for param in params):
        return True
    return position is not None and position <= sum(p.kind in _POSITIONAL for p in params)


def fun_accepts_kwargs(fun: Callable[..., Any]) -> bool:
    """Tell whether *fun* takes ``**kwargs``."""
    return _has_kind(_parameters(fun), Parameter.VAR_KEYWORD)


def _head_item(param: Parameter) -> str:
    stars = _STARS.get(param.kind, '')
    # Default values do not matter for the check, only that there is one.
    return f'{stars}{param.name}' + ('' if param.default is Parameter.empty else '=None')


def _head_arguments(params: list[Parameter]) -> str:
    items: list[str] = []
    star_done = slash_open = False
    for param in params:
        if slash_open and param.kind is not Parameter.POSITIONAL_ONLY:
            items.append('/')
        slash_open = param.kind is Parameter.POSITIONAL_ONLY
        if param.kind is Parameter.KEYWORD_ONLY and not star_done:
            items.append('*')
        star_done = star_done or param.kind in (Parameter.VAR_POSITIONAL, Parameter.KEYWORD_ONLY)
        items.append(_head_item(param))
    return ', '.join([*items, '/'] if slash_open else items)


def head_from_fun(fun: Callable[..., Any], bound: bool = False) -> Callable[..., Any]:
    """Return a function with the parameters of *fun* and no body, to check calls (T-110).

    A wrong call raises the TypeError of a plain call, under the function's own name
    (X11).  It is compiled, because binding by ``inspect`` costs ten times as much.

    :param bound: give it a ``self`` that is filled with None.
    """
    target: Any = fun
    if not (inspect.isroutine(fun) or isinstance(fun, partial)):
        target = type(fun).__call__ if not inspect.isclass(fun) else fun
    params = _parameters(target.__func__ if inspect.ismethod(target) else target)
    if target is not fun or inspect.ismethod(target):
        params = params[1:]
    name = getattr(fun, '__name__', type(fun).__name__)
    namespace: dict[str, Any] = {}
    # Compiled with a neutral name (it may be '<lambda>') and renamed afterwards.
    exec(f'def head({_head_arguments(params)}): return 1', namespace)
    head = namespace['head']
    head.__name__ = head.__qualname__ = name
    head.__code__ = head.__code__.replace(co_name=name, co_qualname=name)
    head.__module__ = getattr(fun, '__module__', None) or __name__
    return partial(head, None) if bound else head
