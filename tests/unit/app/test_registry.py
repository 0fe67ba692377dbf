from __future__ import annotations

import pickle

import pytest

from pyceleryc.app.registry import TaskRegistry
from pyceleryc.exceptions import InvalidTaskError, NotRegistered


class Add:
    name: str | None = 'tasks.add'


class Tick:
    name = 'tasks.tick'
    type = 'periodic'


class Nameless:
    name = None


def test_register() -> None:
    tasks = TaskRegistry()
    tasks.register(Add)
    tasks.register(tick := Tick())
    assert isinstance(tasks['tasks.add'], Add) and tasks['tasks.tick'] is tick
    assert set(tasks.regular()) == {'tasks.add'} and set(tasks.periodic()) == {'tasks.tick'}
    tasks.unregister('tasks.add')
    tasks.unregister(tick)
    assert tasks == {}


def test_errors() -> None:
    tasks = TaskRegistry()
    with pytest.raises(NotRegistered):
        tasks['nope']
    with pytest.raises(tasks.NotRegistered):
        tasks.unregister('nope')
    with pytest.raises(InvalidTaskError, match="'Nameless' must specify .name"):
        tasks.register(Nameless())
    assert tasks.get('nope') is None


def test_not_registered_survives_pickle() -> None:
    with pytest.raises(NotRegistered) as caught:
        TaskRegistry()['nope']
    assert pickle.loads(pickle.dumps(caught.value)).args == ('nope',)
