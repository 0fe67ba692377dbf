from __future__ import annotations

import json
import pickle
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from pyceleryc.utils import serialization as s


class Plain(Exception):
    pass


class Positional(ValueError):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(a)


class Broken(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError('cannot')


def test_pickleable_exceptions_stay_themselves() -> None:
    exc = Plain('a', 1)
    assert s.get_pickleable_exception(exc) is exc
    assert s.get_pickled_exception(exc) is exc


def test_nearest_base_stands_in() -> None:
    found = s.get_pickleable_exception(Positional(1, 2))
    assert type(found) is ValueError and found.args == (1,)
    assert s.find_pickleable_exception(Broken(1)) is None


def test_wrapper_is_the_last_resort() -> None:
    wrapper = s.get_pickleable_exception(Broken(1, lambda: None))
    assert isinstance(wrapper, s.UnpickleableExceptionWrapper)
    wrapper = pickle.loads(pickle.dumps(wrapper))
    assert wrapper.exc_cls_name == 'Broken' and wrapper.exc_args[0] == 1
    assert wrapper.exc_args[1].startswith('<function') and str(wrapper).startswith('Broken(1, ')
    restored = s.get_pickled_exception(wrapper)
    assert type(restored).__name__ == 'Broken' and type(restored).__module__ == __name__
    assert restored.args == wrapper.exc_args
    assert str(s.UnpickleableExceptionWrapper('m', 'C', [1])) == 'C(1,)'


def test_made_classes() -> None:
    made = s.create_exception_cls('Lost', 'far.away', ValueError)
    assert issubclass(made, ValueError) and repr(made) == "<class 'far.away.Lost'>"
    assert list(s.itermro(Positional, s.unwanted_base_classes)) == [Positional, ValueError]
    assert s.get_pickleable_etype(Positional) is Positional


def test_local_class_cannot_be_pickled() -> None:
    class Hidden(KeyError):
        pass

    assert s.get_pickleable_etype(Hidden) is KeyError


def test_ensure_serializable() -> None:
    assert s.ensure_serializable((1, {2}, 'a'), json.dumps) == (1, '{2}', 'a')


def test_raise_with_context() -> None:
    with pytest.raises(ValueError) as info:
        try:
            raise KeyError('cause')
        except KeyError:
            s.raise_with_context(ValueError('b'))
    assert isinstance(info.value.__cause__, KeyError)
    same = KeyError('same')
    with pytest.raises(KeyError) as again:
        try:
            raise same
        except KeyError:
            s.raise_with_context(same)
    assert again.value is same and same.__cause__ is None


def test_base64() -> None:
    assert s.b64encode('ab') == s.b64encode(b'ab') == 'YWI='
    assert s.b64decode('YWI=') == s.b64decode(b'YWI=') == b'ab'


@pytest.mark.parametrize(('term', 'value'), [
    ('yes', True), ('TRUE', True), ('on', True), ('1', True), ('no', False), ('off', False),
    ('0', False), ('False', False), (True, True), (0, 0), (None, None),
])
def test_strtobool(term: Any, value: Any) -> None:
    assert s.strtobool(term) == value


def test_strtobool_refuses() -> None:
    with pytest.raises(TypeError, match="Cannot coerce 'perhaps'"):
        s.strtobool('perhaps')


def test_jsonify() -> None:
    value = {
        'a': [1, ('x', None)], 'when': datetime(2020, 1, 2, 3, 4, 5, 6789),
        'utc': datetime(2020, 1, 2, tzinfo=timezone.utc), 'day': date(2020, 1, 2),
        'time': time(1, 2), 'delta': timedelta(seconds=3),
    }
    assert s.jsonify(value) == {
        'a': [1, ['x', None]], 'when': '2020-01-02T03:04:05.006', 'utc': '2020-01-02T00:00:00Z',
        'day': '2020-01-02', 'time': '01:02:00', 'delta': '0:00:03',
    }


def test_jsonify_options() -> None:
    assert s.jsonify({'a': 1, '_b': 2}, keyfilter=lambda key: key[0] != '_') == {'a': 1}
    assert s.jsonify([Decimal('1.5')], unknown_type_filter=str) == ['1.5']
    with pytest.raises(ValueError, match=r'parent: d'):
        s.jsonify({'d': Decimal(1)})
