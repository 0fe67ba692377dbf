"""Formatting of text for people: logs, banners and the command line."""
from __future__ import annotations

import builtins
import io
import re
from collections.abc import Callable, Mapping
from re import Pattern
from textwrap import fill
from typing import Any

__all__ = (
    'abbr', 'abbrtask', 'dedent', 'dedent_initial', 'ensure_newlines', 'ensure_sep',
    'fill_paragraphs', 'indent', 'join', 'match_case', 'pluralize', 'pretty',
    'remove_repeating', 'remove_repeating_from_task', 'simple_format', 'str_to_list',
    'truncate', 'WhateverIO',
)

UNKNOWN_SIMPLE_FORMAT_KEY = (
    'Unknown format %{0} in string {1!r}.\n'
    "Write '%%{0}' for a literal percent sign; if you did, the value may have been "
    'expanded twice.'
)
RE_FORMAT = re.compile(r'%(\w)')


def str_to_list(s: Any) -> Any:
    """Split a string at commas; anything else is returned as it is."""
    return s.split(',') if isinstance(s, str) else s


def dedent_initial(s: str, n: int = 4) -> str:
    """Remove *n* spaces at the start, if they are there."""
    return s[n:] if s.startswith(' ' * n) else s


def dedent(s: str, sep: str = '\n') -> str:
    """Remove the usual indentation of four spaces from every line."""
    return sep.join(dedent_initial(line) for line in s.splitlines())


def ensure_sep(sep: str, s: str, n: int = 2) -> str:
    """Return *s* ending in at least *n* times *sep*."""
    return s + sep * (n - s.count(sep))


def ensure_newlines(s: str, n: int = 2) -> str:
    """Return *s* with at least *n* newlines."""
    return ensure_sep('\n', s, n)


def fill_paragraphs(s: str, width: int, sep: str = '\n') -> str:
    """Wrap each line of *s* to *width* columns."""
    return sep.join(fill(line, width) for line in s.split(sep))


def indent(t: str, indent: int = 0, sep: str = '\n') -> str:
    """Indent every line by *indent* spaces."""
    return sep.join(' ' * indent + line for line in t.split(sep))


def join(l: list[str], sep: str = '\n') -> str:  # the public name
    """Join the strings that are not empty."""
    return sep.join(item for item in l if item)


def abbr(S: str | None, max: int, ellipsis: str | bool | None = '...') -> str:
    """Shorten *S* to *max* characters, ending in *ellipsis*; None gives ``???``."""
    if S is None:
        return '???'
    if len(S) <= max:
        return S
    if not ellipsis:
        return S[:max]
    mark = str(ellipsis)
    return S[:max - len(mark)] + mark


def abbrtask(S: str | None, max: int) -> str:
    """Shorten a dotted task name, the module part first: ``proj[.]add``."""
    if S is None:
        return '???'
    if len(S) <= max:
        return S
    module, _, name = S.rpartition('.')
    room = builtins.max(0, max - len(name) - 3)
    return f"{module[:room]}[.]{name}"


def truncate(s: str, maxlen: int = 128, suffix: str = '...') -> str:
    """Cut *s* at a word end so that about *maxlen* characters remain, and add *suffix*."""
    if not maxlen or len(s) < maxlen:
        return s
    return s[:maxlen].rsplit(' ', 1)[0] + suffix


def pluralize(n: float, text: str, suffix: str = 's') -> str:
    """Return *text* with *suffix* unless *n* is one."""
    return text if n == 1 else text + suffix


def pretty(
    value: Any, width: int = 80, nl_width: int = 80, sep: str = '\n', **kw: Any,
) -> str:
    """Format *value* over several lines; a mapping starts on its own line."""
    from pprint import pformat  # for reports: programs that send tasks go without

    if isinstance(value, dict):
        return sep + pformat(value, 4, nl_width)
    return pformat(value, width=width, **kw)


def match_case(s: str, other: str) -> str:
    """Return *s* in the case (upper or lower) of *other*."""
    return s.upper() if other.isupper() else s.lower()


def simple_format(
    s: str | None, keys: Mapping[str, str | Callable[[], str]],
    pattern: Pattern[str] = RE_FORMAT, expand: str = r'\1',
) -> str | None:
    """Replace ``%x`` by ``keys['x']``, which may be a callable.

    :raises ValueError: a key is not known.
    """
    if not s:
        return s

    def resolve(match: re.Match[str]) -> str:
        key = match.expand(expand)
        try:
            found = keys[key]
        except KeyError:
            raise ValueError(UNKNOWN_SIMPLE_FORMAT_KEY.format(key, s)) from None
        return found() if callable(found) else found

    return pattern.sub(resolve, s)


def remove_repeating(substr: str, s: str) -> str:
    """Remove every occurrence of *substr* but the first."""
    head, found, tail = s.partition(substr)
    return head + found + tail.replace(substr, '')


def remove_repeating_from_task(task_name: str, s: str) -> str:
    """Name the module of *task_name* only once in *s*."""
    module = str(task_name).rpartition('.')[0]
    return remove_repeating(module + '.', s) if module else s


class WhateverIO(io.StringIO):
    """A text buffer that takes bytes too."""

    def __init__(self, v: bytes | str | None = None, *a: Any, **kw: Any) -> None:
        text = v.decode() if isinstance(v, bytes) else v or ''
        super().__init__(text, *a, **kw)

    def write(self, data: Any) -> int:
        return super().write(data.decode() if isinstance(data, bytes) else data)
