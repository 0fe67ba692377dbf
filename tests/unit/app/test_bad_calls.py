"""Calls that cannot be meant: an error that names task and argument, and nothing is sent."""
from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kombu import Queue
from kombu.exceptions import EncodeError, SerializerNotInstalled

from pyceleryc import Celery, chain, chord, group, signature
from pyceleryc.exceptions import QueueNotFound

THING = object()


@pytest.fixture
def app() -> Iterator[Any]:
    with Celery('x', broker='memory://', backend='memory://', set_as_current=False,
                task_default_queue=f'test-{uuid.uuid4()}') as app:
        app.task(name='t.add', shared=False)(lambda x=0, y=0: x)
        app.task(name='t.sum', shared=False)(sum)
        app.tasks['t.add'].delay()
        assert app.amqp.producer.get(app.conf.task_default_queue, 1)
        yield app


def refuse(app: Any, function: Callable[[], Any], kind: type[Exception], *words: str) -> None:
    with pytest.raises(kind) as found:
        function()
    for word in words:
        assert word in str(found.value)
    assert app.amqp.producer.size(app.conf.task_default_queue, 1)[0] == 0
    assert found.type is kind


@pytest.mark.parametrize('send', [
    lambda add, total: add.delay(1, THING),
    lambda add, total: add.apply_async((1,), {'y': THING}, priority=3),
    lambda add, total: add.apply_async((1, THING), headers={"a": 1}),
    lambda add, total: add.app.send_task('t.add', (1, THING)),
    lambda add, total: group(add.s(1), add.s(1, THING)).apply_async(),
    lambda add, total: group(add.s(1), add.s(1, THING).set(priority=1)).apply_async(),
    lambda add, total: group(add.s(1), add.s(1, THING).set(headers={'a': 1})).apply_async(),
    lambda add, total: chord([add.s(1), add.s(1, THING)])(total.s()),
    lambda add, total: chain(add.s(1, THING), add.s(2)).apply_async(),
    lambda add, total: add.app.send_many([add.s(1), add.s(1, THING)]),
], ids=['delay', 'option', 'headers', 'send_task', 'group', 'group-option', 'group-headers', 'chord', 'chain', 'send_many'])
def test_argument_that_cannot_be_serialized(app: Any, send: Callable[[Any, Any], Any]) -> None:
    refuse(app, lambda: send(app.tasks['t.add'], app.tasks['t.sum']), EncodeError, "task 't.add': argument", 'object')


def test_the_argument_is_named(app: Any) -> None:
    add = app.tasks['t.add']
    refuse(app, lambda: add.delay(1, THING), EncodeError, 'argument 1 ')
    refuse(app, lambda: add.delay(1, y=THING), EncodeError, "argument 'y' ")


def test_links_and_bodies(app: Any) -> None:
    add, total = app.tasks['t.add'], app.tasks['t.sum']
    refuse(app, lambda: add.apply_async((1,), link=add.s(THING)), EncodeError, "task 't.add'")
    refuse(app, lambda: chain(add.s(1), add.s(THING)).apply_async(), EncodeError, "task 't.add'")
    refuse(app, lambda: chord([add.s(1), add.s(2)])(total.s(THING)), EncodeError, "'t.sum'", 'argument 0')


@pytest.mark.parametrize(('options', 'kind', 'word'), [
    ({'serializer': 'nope'}, SerializerNotInstalled, "'nope'"),
    ({'compression': 'nope'}, KeyError, "'nope'"),
    ({'priority': 256}, ValueError, 'priority'),
    ({'priority': -1}, ValueError, 'priority'),
    ({'priority': 'high'}, TypeError, 'priority'),
    ({'countdown': 1e300}, OverflowError, 'countdown'),
    ({'countdown': float('inf')}, OverflowError, 'countdown'),
    ({'countdown': float('nan')}, ValueError, 'countdown'),
    ({'countdown': -1e300}, ValueError, 'countdown'),
    ({'countdown': '5'}, TypeError, 'countdown'),
    ({'expires': 1e300}, OverflowError, 'expires'),
    ({'expires': 'tomorrow'}, ValueError, 'expires'),
    ({'expires': [1]}, TypeError, 'expires'),
    ({'eta': 'tomorrow'}, ValueError, 'eta'),
    ({'eta': 5}, TypeError, 'eta'),
    ({'time_limit': 'long'}, TypeError, 'time_limit'),
    ({'soft_time_limit': -1}, ValueError, 'soft_time_limit'),
    ({'delivery_mode': 'paper'}, TypeError, 'delivery_mode'),
    ({'headers': 5}, TypeError, 'headers'),
    ({'retry_policy': 5}, TypeError, 'retry_policy'),
    ({'link': 5}, TypeError, 'link'),
    ({'link_error': [5]}, TypeError, 'link_error'),
    ({'shadow': 5}, TypeError, 'shadow'),
    ({'task_id': 5, 'priority': 1}, TypeError, 'task_id'),
], ids=str)
def test_option(app: Any, options: dict[str, Any], kind: type[Exception], word: str) -> None:
    add = app.tasks['t.add']
    refuse(app, lambda: add.apply_async((1,), **options), kind, "task 't.add'", word)
    if 'task_id' not in options:
        refuse(app, lambda: group(add.s(1), add.s(2).set(**options)).apply_async(), kind, "task 't.add'", word)


@pytest.mark.parametrize(('routes', 'options', 'kind', 'word'), [
    (None, {'queue': 'nope'}, QueueNotFound, "'nope'"),
    ({'t.add': {'queue': 'nix'}}, {}, QueueNotFound, "'nix'"),
    ((lambda *args, **kwargs: 5,), {}, TypeError, 'its route is 5'),
], ids=['queue', 'route', 'router'])
def test_routes(app: Any, routes: Any, options: Any, kind: type[Exception], word: str) -> None:
    queue = app.conf.task_default_queue
    with Celery('y', broker='memory://', set_as_current=False, task_default_queue=queue) as other:
        other.conf.update(task_create_missing_queues=False, task_queues=[Queue(queue)], task_routes=routes)
        add = other.task(name='t.add', shared=False)(lambda x: x)
        refuse(app, lambda: add.apply_async((1,), **options), kind, "task 't.add'", word)
        refuse(app, lambda: group(add.s(1).set(**options), add.s(2).set(**options)).apply_async(), kind, "task 't.add'", word)


@pytest.mark.parametrize(('found', 'kind', 'word'), [
    ({}, TypeError, 'name of a task'),
    ({'task': 5}, TypeError, 'name of a task'),
    ({'task': 't.add', 'args': 5}, TypeError, 'args'),
    ({'task': 't.add', 'kwargs': [1]}, TypeError, 'kwargs'),
    ({'task': 't.add', 'options': 'x'}, TypeError, 'options'),
    ({'task': 't.add', 'subtask_type': 'heap'}, KeyError, "'heap'"),
    ({'task': 'celery.group', 'subtask_type': 'group', 'kwargs': {}}, TypeError, "'celery.group' is no group"),
    ({'task': 'celery.chain', 'subtask_type': 'chain', 'kwargs': 5}, TypeError, "'celery.chain': kwargs"),
], ids=str)
def test_signature_of_a_dict(app: Any, found: Any, kind: type[Exception], word: str) -> None:
    refuse(app, lambda: signature(found, app=app).apply_async(), kind, word)


@pytest.mark.parametrize('backend', [None, 'rpc://'])
def test_chord_on_a_store_that_cannot(backend: str | None) -> None:
    with Celery('x', broker='memory://', backend=backend, set_as_current=False,
                task_default_queue=f'test-{uuid.uuid4()}') as app:
        add = app.task(name='t.add', shared=False)(lambda x=0: x)
        add.delay()
        assert app.amqp.producer.get(app.conf.task_default_queue, 1)
        refuse(app, lambda: chord([add.s(1), add.s(2)])(add.s()), NotImplementedError, 'result')
