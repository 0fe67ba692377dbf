from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from pyceleryc.app.annotations import MapAnnotation, prepare, resolve_all

ADD = SimpleNamespace(name='tasks.add')
MUL = SimpleNamespace(name='tasks.mul')


class Everything:
    def annotate(self, task: Any) -> Any:
        return {'seen': task.name}

    def annotate_any(self) -> Any:
        return None


def resolved(setting: Any, task: Any) -> list[Any]:
    return list(resolve_all(prepare(setting), task))


def test_map() -> None:
    setting = {'tasks.add': {'rate_limit': '10/s'}, '*': {'ignore_result': True}}
    assert resolved(setting, ADD) == [{'rate_limit': '10/s'}, {'ignore_result': True}]
    assert resolved(setting, MUL) == [{'ignore_result': True}]
    assert MapAnnotation({}).annotate_any() is None and MapAnnotation({}).annotate(ADD) is None


@pytest.mark.parametrize('setting', [
    Everything(), [Everything()], f'{__name__}:Everything', (f'{__name__}.Everything',),
    [{'tasks.other': {'a': 1}}, Everything()],
])
def test_objects_names_and_lists(setting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(Everything=Everything))
    assert resolved(setting, ADD) == [{'seen': 'tasks.add'}]


def test_nothing() -> None:
    assert prepare(None) == () and resolved(None, ADD) == []
    assert resolved([], ADD) == []
