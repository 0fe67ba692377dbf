from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pyceleryc import _state


class App:
    def __init__(self, main: str) -> None:
        self.main = main


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    names = ('default_app', '_last_app', '_default_app_factory')
    saved = {name: getattr(_state, name) for name in names}
    current = _state._tls.current_app
    for name in names:
        setattr(_state, name, None)
    _state._tls.current_app = None
    yield
    for name, value in saved.items():
        setattr(_state, name, value)
    _state._tls.current_app = current


def in_thread(function: Any) -> Any:
    answer: list[Any] = []
    thread = threading.Thread(target=lambda: answer.append(function()))
    thread.start()
    thread.join()
    return answer[0]


def test_default_app_is_made_on_demand() -> None:
    _state.set_default_app_factory(lambda: App('default'))
    assert _state.current_app.main == 'default'
    assert _state.get_current_app() is _state.get_current_app() is _state.default_app


def test_current_app_of_threads() -> None:
    first, second = App('first'), App('second')
    _state._set_current_app(first)
    assert in_thread(lambda: _state.current_app.main) == 'first'
    _state.set_default_app(second)
    assert in_thread(lambda: _state.current_app.main) == 'second'
    assert _state.current_app.main == 'first'
    assert _state.app_or_default(second) is second
    assert _state.app_or_default() is first


def test_apps_are_held_weakly() -> None:
    app = App('held weakly')
    _state._register_app(app)
    assert app in _state._get_active_apps()
    del app
    assert 'held weakly' not in [app.main for app in _state._get_active_apps()]


def test_current_task() -> None:
    assert not _state.current_task and _state.current_task == None
    outer = SimpleNamespace(name='outer', request=SimpleNamespace(called_directly=False))
    inner = SimpleNamespace(name='inner', request=SimpleNamespace(called_directly=True))
    _state.push_current_task(outer)
    _state.push_current_task(inner)
    assert _state.current_task.name == 'inner'
    assert _state.get_current_worker_task() is outer
    assert in_thread(_state.get_current_task) is None
    assert _state.pop_current_task() is inner
    assert _state.pop_current_task() is outer
    assert _state.get_current_worker_task() is None


def test_coroutines_see_their_own_task() -> None:
    async def run(name: str) -> list[str]:
        _state.push_current_task(name)
        seen = []
        for _ in range(3):
            await asyncio.sleep(0)
            seen.append(_state.get_current_task())
        _state.pop_current_task()
        return seen

    async def both() -> Any:
        return await asyncio.gather(run('a'), run('b'))

    assert asyncio.run(both()) == [['a'] * 3, ['b'] * 3]


def test_finalizers_are_called_once_each() -> None:
    seen: list[Any] = []
    others = _state._on_app_finalizers[:]  # shared tasks of other tests
    _state._on_app_finalizers.clear()
    try:
        callback = _state.connect_on_app_finalize(seen.append)
        _state.connect_on_app_finalize(callback)
        _state._announce_app_finalized('app')
    finally:
        _state._on_app_finalizers[:] = others
    assert seen == ['app']


def test_trace_forbids_the_implicit_app() -> None:
    _state._set_current_app(app := App('x'))
    _state.enable_trace()
    try:
        with pytest.raises(RuntimeError, match='must be passed'):
            _state.app_or_default()
    finally:
        _state.disable_trace()
    assert _state.app_or_default() is app


def test_join_will_block() -> None:
    assert not _state.task_join_will_block()
    _state._set_task_join_will_block(True)
    assert _state.task_join_will_block()
    _state._set_task_join_will_block(False)
