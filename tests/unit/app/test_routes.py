"""Routing (C-140..C-142)."""
from __future__ import annotations

import re
from typing import Any

import pytest

from pyceleryc import Celery
from pyceleryc.app.routes import MapRoute, expand_router_string, prepare
from pyceleryc.exceptions import QueueNotFound


class ClassRouter:
    def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> Any:
        return {'queue': 'class'} if task == 'by.class' else None


def make_app(**settings: Any) -> Any:
    return Celery('r', broker='memory://', set_as_current=False, **settings)


def queue_of(app: Any, name: str, options: Any = None) -> str:
    return app.amqp.router.route(options or {}, name, (1,), {'k': 2})['queue'].name


@pytest.mark.parametrize('routes', [
    {'feed.*': {'queue': 'feeds'}, 'web.get': 'web'},
    ({'web.get': 'web'}, {'feed.*': 'feeds'}),
    [('feed.*', {'queue': 'feeds'}), (re.compile(r'web\..*'), {'queue': 'web'})],
    ([('feed.*', 'feeds'), ('web.*', 'web')],),
])
def test_maps(routes: Any) -> None:
    app = make_app(task_routes=routes)
    assert queue_of(app, 'feed.update') == 'feeds'
    assert queue_of(app, 'web.get') == 'web'
    assert queue_of(app, 'other') == 'celery'


def test_functions_and_objects() -> None:
    calls = []

    def router(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **kw: Any) -> Any:
        calls.append((name, args, kwargs, task))
        return 'fun' if name == 'by.fun' else None

    app = make_app(task_routes=(router, ClassRouter(), f'{__name__}:ClassRouter'))
    assert queue_of(app, 'by.fun') == 'fun' and calls == [('by.fun', (1,), {'k': 2}, None)]
    assert queue_of(app, 'by.class') == 'class'


def test_first_match_wins_and_plain_names_before_patterns() -> None:
    route = MapRoute({'a.*': 'first', 'a.b': 'exact', 'a.b*': 'never'})
    assert route('a.b') == {'queue': 'exact'} and route('a.bc') == {'queue': 'first'}
    assert route('z') is None


def test_call_options_win() -> None:
    app = make_app(task_routes={'*': {'queue': 'routed', 'priority': 7}})
    options = app.amqp.router.route({'queue': 'mine', 'priority': None}, 'x')
    assert options['queue'].name == 'mine' and options['priority'] == 7


def test_unknown_queue() -> None:
    app = make_app(task_create_missing_queues=False)
    with pytest.raises(QueueNotFound, match='missing from task_queues'):
        app.amqp.router.route({'queue': 'nope'}, 'x')
    assert queue_of(app, 'x') == 'celery'


def test_routes_can_be_changed() -> None:
    app = make_app()
    assert queue_of(app, 'a') == 'celery'
    app.conf.task_routes = {'a': 'later'}
    assert queue_of(app, 'a') == 'later'
    app.conf.update(task_routes={'a': 'last'})
    assert queue_of(app, 'a') == 'last'


def test_prepare_nothing() -> None:
    assert prepare(None) == []
    assert isinstance(expand_router_string(f'{__name__}.ClassRouter'), ClassRouter)
