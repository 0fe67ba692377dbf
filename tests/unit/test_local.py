from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Awaitable, Iterator
from typing import Any

import pytest

from pyceleryc.local import PromiseProxy, Proxy, maybe_evaluate, try_import


def test_proxy_is_what_it_stands_for() -> None:
    box: dict[str, Any] = {'it': [1]}
    proxy: Any = Proxy(lambda: box['it'])
    proxy.append(2)
    assert isinstance(proxy, list) and type(proxy) is Proxy
    assert (proxy, len(proxy), proxy[0], 2 in proxy) == ([1, 2], 2, 1, True)
    assert proxy + [3] == [1, 2, 3] and [0] + proxy == [0, 1, 2]
    assert repr(proxy) == '[1, 2]' and list(reversed(proxy)) == [2, 1]
    box['it'] = 'other'
    assert str(proxy) == 'other' and proxy.upper() == 'OTHER'
    assert pickle.loads(pickle.dumps(proxy)) == 'other'
    assert copy.copy(proxy) == 'other'


def test_proxy_of_numbers() -> None:
    five: Any = Proxy(lambda: 5)
    assert (five / 2, 12 - five, -five, divmod(five, 2), 2 ** five) == (2.5, 7, -5, (2, 1), 32)
    assert five > 4 and five <= 5 and hash(five) == hash(5) and int(five) == 5
    assert ['a'] * five == ['a'] * 5 and range(9)[five] == 5
    five += 1
    assert five == 6


def test_proxy_of_a_function_has_its_metadata() -> None:
    def target(a: int) -> int:
        """Text."""
        return a

    target.__module__ = 'somewhere'
    proxy: Any = Proxy(lambda: target)
    assert proxy(3) == 3
    assert (proxy.__module__, proxy.__name__, proxy.__doc__) == ('somewhere', 'target', 'Text.')
    assert proxy.__annotations__ == target.__annotations__
    assert Proxy.__module__ == 'pyceleryc.local'
    assert Proxy(lambda: target, name='given').__name__ == 'given'


def test_proxy_is_not_taken_for_something_to_await_or_exhaust() -> None:
    proxy: Any = Proxy(lambda: [1])
    assert not isinstance(proxy, Awaitable) and not isinstance(proxy, Iterator)


def test_unbound_proxy() -> None:
    def unbound() -> Any:
        raise RuntimeError('nothing here')

    proxy = Proxy(unbound)
    assert repr(proxy) == '<Proxy unbound>' and not proxy and dir(proxy) == []
    with pytest.raises(RuntimeError):
        proxy.anything


def test_attributes_are_set_on_the_target() -> None:
    class Target:
        pass

    target = Target()
    proxy: Any = Proxy(lambda: target)
    proxy.a = 1
    assert target.__dict__ == {'a': 1} == proxy.__dict__
    del proxy.a
    assert not hasattr(target, 'a')


def test_promise_is_evaluated_once_by_many_threads() -> None:
    calls: list[int] = []
    gate = threading.Barrier(8)

    def make() -> list[int]:
        calls.append(1)
        return [1]

    proxy: Any = PromiseProxy(make)

    def use() -> None:
        gate.wait()
        assert proxy[0] == 1

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]


def test_promise_tells_when_it_is_kept() -> None:
    seen: list[str] = []
    proxy: Any = PromiseProxy(lambda: {'a': 1})
    proxy.__then__(seen.append, 'before')
    assert not proxy.__evaluated__() and seen == []
    assert maybe_evaluate(proxy) is maybe_evaluate(proxy)
    proxy.__then__(seen.append, 'after')
    assert proxy.__evaluated__() and seen == ['before', 'after']
    assert maybe_evaluate(3) == 3


def test_delay_of_a_promise_is_that_of_its_object() -> None:
    class Thing:
        def delay(self) -> str:
            return 'mine'

    proxy: Any = PromiseProxy(Thing)
    assert not proxy.__evaluated__() and proxy.delay() == 'mine' and proxy.__evaluated__()
    proxy.delay = lambda: 'another'
    assert proxy.delay() == 'another' and vars(proxy._get_current_object()).keys() == {'delay'}
    del proxy.delay
    assert proxy.delay() == 'mine'
    without: Any = PromiseProxy(lambda: 5)
    assert not hasattr(without, 'delay')
    with pytest.raises(AttributeError, match="'int' object has no attribute 'delay'"):
        without.delay  # noqa: B018


def test_promise_that_failed_is_tried_again() -> None:
    answers: list[Any] = [ValueError('not yet'), 'ready']

    def make() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    proxy = PromiseProxy(make)
    with pytest.raises(ValueError):
        proxy.__evaluate__()
    assert proxy == 'ready'


def test_try_import() -> None:
    assert try_import('json').__name__ == 'json'
    assert try_import('no_such_module_at_all', 'default') == 'default'
