from __future__ import annotations

import time
from collections import OrderedDict, namedtuple
from decimal import Decimal
from typing import Any

import pytest

from pyceleryc.utils.saferepr import saferepr

Point = namedtuple('Point', 'x y')


class Secret(dict[str, Any]):
    def __repr__(self) -> str:
        return '<secret>'


class Broken:
    def __repr__(self) -> str:
        raise ValueError('no repr')


@pytest.mark.parametrize(('value', 'text'), [
    ((2, 2), '(2, 2)'), ((2,), '(2,)'), ((), '()'), ([], '[]'), ({}, '{}'), (set(), 'set()'),
    ({1}, '{1}'), (frozenset({1}), 'frozenset({1})'), (None, 'None'), (1.5, '1.5'),
    ({'a': [1, (2,)]}, "{'a': [1, (2,)]}"), (['it\'s'], "['it\\'s']"), ('a"b', "'a\"b'"),
    (b'ab', "b'ab'"), (Decimal('1.5'), "Decimal('1.5')"), ('line\nline', "'line\\nline'"),
    (Point(1, 2), '(1, 2)'), (OrderedDict(a=1), "{'a': 1}"), (Secret(a=1), '<secret>'),
    ('é☃', "'é☃'"), ({(1, 2): {3}}, '{(1, 2): {3}}'),
])
def test_looks_like_repr(value: Any, text: str) -> None:
    assert saferepr(value) == text
    assert saferepr(value, 1024) == text


def test_levels() -> None:
    assert saferepr([[[[1]]]]) == '[[[[...]]]]'
    assert saferepr([1, [2], {'a': 1}, (3,)], maxlevels=1) == '[1, [...], {...}, (...)]'
    assert saferepr({'a': {'b': {'c': {'d': 1}}}}) == "{'a': {'b': {'c': {...}}}}"


def test_cycles() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    assert saferepr(loop) == f'[1, <Recursion on list with id={id(loop)}>]'
    shared = [1]
    assert saferepr([shared, shared]) == '[[1], [1]]'


def test_broken_repr() -> None:
    text = saferepr([Broken(), 1])
    assert text.startswith('[<Unrepresentable') and 'ValueError' in text and text.endswith('1]')


@pytest.mark.parametrize('value', [
    'a' * 5000, ['a' * 5000, 1], list(range(5000)), {str(i): i for i in range(5000)},
    b'a' * 5000, ([1, [2] * 5000],), [['a' * 5000] * 3] * 3,
])
@pytest.mark.parametrize('maxlen', [1, 20, 1024])
def test_length_is_bounded_and_brackets_are_closed(value: Any, maxlen: int) -> None:
    text = saferepr(value, maxlen)
    assert len(text) <= maxlen + 40 and '...' in text
    assert text.count('[') == text.count(']') and text.count('(') == text.count(')')


def test_exact_cuts() -> None:
    assert saferepr('a' * 9, 5) == "'aaa...'"
    assert saferepr(12345678, 5) == '12345...'
    assert saferepr([1, 2, 3, 4, 5, 6], 9) == '[1, 2, 3, ...]'


def test_huge_values_are_not_walked() -> None:
    huge = [list(range(1000))] * 100000
    started = time.thread_time()
    saferepr(huge, 1024)
    assert time.thread_time() - started < 0.5  # of the processor: all of them take half a minute
