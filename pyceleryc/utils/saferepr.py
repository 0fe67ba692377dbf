"""A repr that is bounded in length and depth and never fails (T-123).

Used for the ``argsrepr`` and ``kwargsrepr`` headers and for log lines, where the
value may be huge, cyclic or have a broken ``__repr__``.
"""
from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

__all__ = ('saferepr',)

ELLIPSIS = '...'
#: What the brackets of each container are, when it is not empty.
_BRACKETS: dict[type, Any] = {list: '[]', tuple: '()', set: '{}', frozenset: ('frozenset({', '})'), dict: '{}'}
#: A subclass with a repr of its own keeps it (it may hide secrets), except these.
_PLAIN_REPRS: frozenset[Any] = frozenset(
    [cls.__repr__ for cls in (*_BRACKETS, str)] + [OrderedDict.__repr__, defaultdict.__repr__],
)
_CONTROL = {code: repr(chr(code))[1:-1] for code in (*range(32), 127)}
_CONTROL[ord("'")] = "\\'"


class _Full(Exception):  # control flow, not an error
    """The length limit is reached."""


class _Writer:
    """Collects pieces of text up to *maxlen* characters."""

    def __init__(self, maxlen: int | None, maxlevels: int, seen: set[int]) -> None:
        self.room = maxlen
        self.maxlevels = maxlevels
        self.seen = seen
        self.parts: list[str] = []

    def put(self, text: str) -> None:
        """Add *text*; raise _Full when no room is left for all of it."""
        if self.room is not None:
            if len(text) > self.room:
                self.parts.append(text[:self.room] + ELLIPSIS)
                self.room = 0
                raise _Full
            self.room -= len(text)
        self.parts.append(text)

    def quoted(self, text: str, prefix: str = '') -> None:
        """Add *text* in quotes; the closing one is always written."""
        self.parts.append(f"{prefix}'")
        if self.room is not None:
            self.room = max(0, self.room - 2)
        try:
            self.put(text)
        finally:
            self.parts.append("'")

    def value(self, obj: Any, level: int) -> None:
        """Add the repr of *obj*, which is nested in *level* containers."""
        kind = type(obj)
        if isinstance(obj, str) and kind.__repr__ in _PLAIN_REPRS:
            self.quoted(self._clip(obj).translate(_CONTROL))
        elif kind is bytes:
            self.quoted(_bytes_text(self._clip(obj)), 'b')
        else:
            base = _container_of(obj)
            if base is None or not obj:
                self.put(_repr(obj) if base is not tuple else '()')
            else:
                self.container(obj, base, level)

    def _clip(self, text: Any) -> Any:
        # One more than fits, so that put() still notices that something is missing.
        return text if self.room is None else text[:self.room + 1]

    def container(self, obj: Any, base: type, level: int) -> None:
        """Add a container that is not empty."""
        opening, closing = _BRACKETS[base]
        if id(obj) in self.seen:
            self.put(f'<Recursion on {type(obj).__name__} with id={id(obj)}>')
            return
        if level >= self.maxlevels:
            self.put(opening + ELLIPSIS + closing)
            return
        self.seen.add(id(obj))
        self.put(opening)
        try:
            self.items(obj, base, level + 1)
        finally:
            self.seen.discard(id(obj))
            self.parts.append(',)' if base is tuple and len(obj) == 1 else closing)

    def items(self, obj: Any, base: type, level: int) -> None:
        """Add what is between the brackets."""
        first = True
        for item in _copy_items(obj, base):
            if not first:
                self._separator()
            first = False
            if base is dict:
                self.value(item[0], level)
                self.put(': ')
                item = item[1]
            self.value(item, level)

    def _separator(self) -> None:
        if self.room is not None and self.room <= 2:
            self.parts.append(', ' + ELLIPSIS)
            self.room = 0
            raise _Full
        self.put(', ')


def _container_of(obj: Any) -> type | None:
    for base in _BRACKETS:
        if isinstance(obj, base):
            plain = type(obj).__repr__ in _PLAIN_REPRS or hasattr(obj, '_fields')
            return base if plain else None
    return None


def _copy_items(obj: Any, base: Any) -> Iterable[Any]:
    # The builtin's own iteration: a subclass may have overridden it.
    return dict.items(obj) if base is dict else base.__iter__(obj)


def _bytes_text(data: bytes) -> str:
    return repr(b'"' + data)[3:-1]


def _is_simple(obj: Any) -> bool:
    kind = type(obj)
    if kind is str:
        return len(obj) < 128 and obj.isprintable() and "'" not in obj and '\\' not in obj
    return kind in (float, bool, type(None)) or (kind is int and -(1 << 64) < obj < 1 << 64)


def _simple_repr(obj: Any) -> str | None:
    """Return repr() of a flat tuple, list or dict of plain values: nearly all arguments."""
    kind = type(obj)
    if kind is dict:
        simple = len(obj) < 64 and all(map(_is_simple, obj)) and all(map(_is_simple, obj.values()))
    elif kind is tuple or kind is list:
        simple = len(obj) < 64 and all(map(_is_simple, obj))
    else:
        return None
    return repr(obj) if simple else None


def _repr(obj: Any) -> str:
    try:
        return repr(obj)
    except Exception as exc:
        return f'<Unrepresentable {type(obj)!r}{id(obj):#x}: {type(exc).__name__}>'


def saferepr(
    o: Any, maxlen: int | None = None, maxlevels: int = 3, seen: set[int] | None = None,
) -> str:
    """Return a repr of *o* for display.

    :param maxlen: stop after about so many characters and mark the cut by ``...``;
        brackets and quotes are closed.  None means no limit.
    :param maxlevels: how many containers may be nested before ``[...]`` is written.
    :param seen: ids of containers that count as being shown already.
    """
    text = _simple_repr(o)
    if text is not None and (maxlen is None or len(text) <= maxlen):
        return text
    writer = _Writer(maxlen, maxlevels, set() if seen is None else seen)
    try:
        with suppress(_Full):
            writer.value(o, 0)
    except RuntimeError:
        # A container that another thread changes while it is read.
        return _repr(o)[:maxlen]
    return ''.join(writer.parts)
