from __future__ import annotations

import copy
import functools
import json
import pickle
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pyceleryc.utils import functional as f


def test_simple_ones() -> None:
    assert f.maybe_list(None) is None and f.maybe_list('a') == ['a'] and f.maybe_list((1,)) == (1,)
    assert f.first(None, [None, 0, 1]) == 0 and f.first(lambda x: x > 1, [1, 2]) == 2
    assert f.first(lambda x: x > 9, [1]) is None
    assert list(f.chunks(iter(range(5)), 2)) == [[0, 1], [2, 3], [4]]
    assert f.padlist((1, 2), 4, 'x') == [1, 2, 'x', 'x'] and f.padlist('abc', 1) == ['a']
    assert list(f.uniq([1, 2, 1])) == [1, 2]
    assert list(f.lookahead([1, 2, 3])) == [(1, 2), (2, 3), (3, None)]
    assert list(f.lookahead([])) == []
    assert f.mattrgetter('a', 'b')(SimpleNamespace(a=1)) == {'a': 1, 'b': None}
    assert f.dictfilter({'a': None, 'b': 1}) == {'b': 1}
    assert f.noop(1, a=2) is None and f.pass1(1, 2) == 1
    assert f.maybe(int, '3') == 3 and f.maybe(int, None) is None
    assert f.seq_concat_item((1,), 2) == (1, 2) and f.seq_concat_seq([1], (2,)) == [1, 2]
    assert f.is_numeric_value(1.5) and not f.is_numeric_value(True)


def test_firstmethod() -> None:
    class Match:
        def __init__(self, answer: Any) -> None:
            self.answer = answer

        def find(self, extra: int) -> Any:
            return self.answer and self.answer + extra

    find = f.firstmethod('find')
    assert find([Match(None), f.mlazy(Match, 2), Match(3)], 10) == 12
    assert find([], 1) is None


def test_mlazy_evaluates_once() -> None:
    calls: list[int] = []
    value = f.mlazy(lambda: calls.append(1) or 'value')
    assert (value(), value.evaluate(), calls) == ('value', 'value', [1])


def test_memoize() -> None:
    calls: list[int] = []

    @f.memoize(maxsize=2)
    def double(x: int) -> int:
        calls.append(x)
        return 2 * x

    assert [double(1), double(1), double(2)] == [2, 2, 4] and calls == [1, 2]


def counting(log: list[int]) -> Iterator[int]:
    for number in range(5):
        log.append(number)
        yield number


def test_regen_is_lazy() -> None:
    taken: list[int] = []
    items = f.regen(counting(taken))
    assert isinstance(items, list) and taken == []
    assert bool(items) and taken == [0]
    assert items[1] == 1 and taken == [0, 1]
    assert repr(items) == '<_regen: [0, 1, ...]>'
    assert list(items) == list(items) == [0, 1, 2, 3, 4]
    assert items[-1] == 4 and len(items) == 5 and 3 in items
    assert repr(items) == '<_regen: [0, 1, 2, 3, 4]>'


def test_regen_behaves_as_a_list() -> None:
    def new() -> Any:
        return f.regen(iter([1, 2]))

    assert new() == [1, 2] and new() + [3] == [1, 2, 3] and [0] + new() == [0, 1, 2]
    assert json.dumps(new()) == '[1, 2]'
    assert pickle.loads(pickle.dumps(new())) == [1, 2]
    assert copy.copy(new()) == copy.deepcopy(new()) == [1, 2]
    with pytest.raises(IndexError):
        new()[4]
    assert not f.regen(iter([]))
    grown = new()
    grown.append(3)
    assert grown == [1, 2, 3]
    mapped = new()
    mapped.map(lambda x: x * 10)
    assert mapped == [10, 20]
    given = [1]
    assert f.regen(given) is given


def plain(a: int, b: int = 2, *, c: int = 3) -> None: ...


class Callable2:
    def __call__(self, a: int, b: int) -> None: ...

    def method(self, a: int) -> None: ...


def test_arity() -> None:
    assert f.arity_greater(plain, 1) and not f.arity_greater(plain, 2)
    assert f.arity_greater(lambda *args: None, 9)
    assert not f.arity_greater(lambda **kwargs: None, 0)


def test_fun_takes_argument() -> None:
    assert f.fun_takes_argument('b', plain) and not f.fun_takes_argument('z', plain)
    assert f.fun_takes_argument('z', plain, position=2)
    assert not f.fun_takes_argument('z', plain, position=3)
    assert f.fun_takes_argument('z', lambda **kw: None)
    assert f.fun_accepts_kwargs(lambda **kw: None) and not f.fun_accepts_kwargs(plain)


def error_of(function: Any, *args: Any, **kwargs: Any) -> str | None:
    try:
        function(*args, **kwargs)
    except TypeError as exc:
        return str(exc).removeprefix('Callable2.')
    return None


def everything(
    a: int, /, b: int, c: int = 1, *rest: int, d: int, e: int = 2, **kw: int,
) -> None: ...


def keyword_only(a: int, *, b: int) -> None: ...


@pytest.mark.parametrize('function', [plain, everything, keyword_only])
@pytest.mark.parametrize(('args', 'kwargs'), [
    ((), {}), ((1,), {}), ((1, 2), {}), ((1, 2, 3), {}), ((1,), {'z': 1}), ((1, 2), {'d': 1}),
    ((1,), {'b': 2}), ((1,), {'a': 2}), ((1, 2, 3, 4), {'d': 5, 'x': 6}),
])
def test_head_complains_as_the_function_does(function: Any, args: Any, kwargs: Any) -> None:
    head = f.head_from_fun(function)
    assert error_of(head, *args, **kwargs) == error_of(function, *args, **kwargs)


def test_heads_of_other_callables() -> None:
    assert error_of(f.head_from_fun(Callable2().method)) == (
        "method() missing 1 required positional argument: 'a'")
    assert error_of(f.head_from_fun(Callable2()), 1) == (
        "Callable2() missing 1 required positional argument: 'b'")
    assert error_of(f.head_from_fun(functools.partial(plain, 1)), 2) is None
    assert error_of(f.head_from_fun(lambda a: None)) == (
        "<lambda>() missing 1 required positional argument: 'a'")
    bound = f.head_from_fun(Callable2.method, bound=True)
    assert error_of(bound, 1) is None
    assert error_of(bound) == "method() missing 1 required positional argument: 'a'"


def test_head_sees_the_wrapper_that_is_called() -> None:
    @functools.wraps(plain)
    def wrapper(*args: Any, **kwargs: Any) -> None: ...

    assert error_of(f.head_from_fun(wrapper), 1, 2, 3, x=4) is None
