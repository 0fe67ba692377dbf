from __future__ import annotations

import pickle
import time
from types import SimpleNamespace
from typing import Any

import pytest

from pyceleryc.utils.collections import (
    AttributeDict,
    ChainMap,
    ConfigurationView,
    DictAttribute,
    LimitedSet,
    force_mapping,
    lpmerge,
)


def test_attribute_dict() -> None:
    data = AttributeDict(a=1)
    data.b = 2
    assert data == {'a': 1, 'b': 2} and data.a == 1
    with pytest.raises(AttributeError, match="'AttributeDict' object has no attribute 'c'"):
        data.c


def test_dict_attribute() -> None:
    obj = SimpleNamespace(a=1)
    view = DictAttribute(obj)
    view['b'] = 2
    assert (view['a'], view.get('c', 3), 'b' in view, 'c' in view) == (1, 3, True, False)
    assert obj.b == 2 and view.b == 2 and view.setdefault('a', 9) == 1
    del view['b']
    with pytest.raises(KeyError):
        view['b']
    assert force_mapping(obj)['a'] == 1 and force_mapping({1: 2}) == {1: 2}


def test_chain_map() -> None:
    chain = ChainMap({'a': 1}, {'a': 2, 'b': 3})
    assert (chain['a'], chain['b'], len(chain), sorted(chain)) == (1, 3, 2, ['a', 'b'])
    seen: list[Any] = []
    chain.bind_to(lambda **changes: seen.append(changes))
    chain.add_defaults({'b': 4, 'c': 5})
    chain['x'] = 1
    chain.update({'y': 2}, z=3)
    assert seen == [{'x': 1}, {'y': 2, 'z': 3}]
    assert (chain['b'], chain['c']) == (4, 5)
    assert chain.changes == {'a': 1, 'x': 1, 'y': 2, 'z': 3}
    copied = chain.copy()
    copied['a'] = 9
    assert chain['a'] == 1 and copied['b'] == 4
    with pytest.raises(KeyError):
        del chain['b']
    with pytest.raises(KeyError):
        chain['nope']


def test_configuration_view() -> None:
    view = ConfigurationView(
        {'NEW_A': 1}, [{'a': 2, 'b': None}], keys=[lambda key: [f'NEW_{key.upper()}']])
    assert (view.a, view['a'], view.get('c', 3), view.first('c', 'b', 'a')) == (1, 1, 3, 1)
    assert 'a' in view and 'c' not in view
    view.c = 5
    assert view.changes == {'NEW_A': 1, 'c': 5}
    view.clear()
    assert view.a == 2
    with pytest.raises(AttributeError):
        view.d
    other = ConfigurationView({'d': 1})
    view.swap_with(other)
    assert view.d == 1 and 'a' not in view


def test_configuration_view_with_prefix() -> None:
    view = ConfigurationView({}, [{'CELERY_BROKER_URL': 'x'}, {'task_y': 1}], prefix='CELERY_')
    assert (view.broker_url, view.CELERY_BROKER_URL, view.task_y) == ('x', 'x', 1)
    view.task_z = 2
    assert view.changes == {'CELERY_TASK_Z': 2} and view.task_z == 2


def test_lpmerge() -> None:
    assert lpmerge({'a': 1}, {'a': None, 'b': 2}) == {'a': 1, 'b': 2}


def test_limited_set_keeps_the_newest() -> None:
    limited = LimitedSet(maxlen=3)
    for item in range(6):
        limited.add(item, now=item)
    assert list(limited) == [3, 4, 5] and len(limited) == 3
    assert 5 in limited and 0 not in limited
    limited.add(3, now=10)
    assert list(limited) == [4, 5, 3] and limited.pop() == 4
    limited.discard(99)
    limited.pop_value(5)
    assert limited.as_dict() == {3: 10} and limited.pop() == 3
    assert limited.pop('empty') == 'empty' and not limited


def test_limited_set_expires_down_to_minlen() -> None:
    limited = LimitedSet(maxlen=10, expires=5, minlen=2)
    for item in range(6):
        limited.add(item, now=1000 + item)
    limited.purge(now=1008)
    assert list(limited) == [4, 5]
    limited.purge(now=9999)
    assert list(limited) == [4, 5]


def test_limited_set_update() -> None:
    now = time.time()
    limited = LimitedSet(maxlen=10, expires=100, data=['a'])
    limited.update({'b': now - 50, 'old': now - 200})
    limited.update(LimitedSet(data={'c': now}))
    assert set(limited) == {'a', 'b', 'c'}
    # A peer that counts from its boot.
    limited.update({'revoked': 12.5})
    assert 'revoked' in limited
    with pytest.raises(ValueError, match='must be a number'):
        limited.update({'x': 'soon'})


def test_limited_set_pickles() -> None:
    limited = LimitedSet(maxlen=5, expires=1e12, data=['a', 'b'], minlen=1)
    again = pickle.loads(pickle.dumps(limited))
    assert again == limited and list(again) == ['a', 'b']
    assert (again.maxlen, again.expires, again.minlen) == (5, 1e12, 1)
    again.add('c')
    assert again.pop() == 'a'


def test_limited_set_refuses() -> None:
    for bad in ({'maxlen': -1}, {'maxlen': 2, 'minlen': 3}, {'expires': -1}):
        with pytest.raises(ValueError):
            LimitedSet(**bad)


def test_limited_set_heap_does_not_grow() -> None:
    limited = LimitedSet(maxlen=10)
    for moment in range(10000):
        limited.add(moment % 5, now=moment)
    assert len(limited) == 5 and len(limited._heap) < 40
