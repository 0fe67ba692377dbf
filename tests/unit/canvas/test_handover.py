"""The short way of a chain's next link: the same message as the long way, and only where it may be taken."""
from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from pyceleryc import Celery, chain, signals, signature
from pyceleryc._state import _task_stack
from pyceleryc.app import trace
from pyceleryc.app.task import Context
from pyceleryc.app.trace import Hooks
from pyceleryc.canvas.handover import hand_over


@pytest.fixture
def app() -> Any:
    with Celery('handover', broker='memory://', backend='cache+memory://', set_as_current=False,
                task_default_queue=f'test-{uuid.uuid4()}') as app:
        app.task(name='x.add', shared=False)(lambda x, y: x + y)
        yield app


def take(app: Any) -> Any:
    message = app.amqp.producer.get(app.conf.task_default_queue, 1)
    return None if message is None else (json.loads(message[0]), *message[1:])


def finish(app: Any, message: Any, value: Any) -> Context:
    """What the worker does when the task of the message has returned the value."""
    (args, kwargs, embed), headers, _, info = message
    task = app.tasks[headers['task']]
    context = Context({**headers, **embed, 'args': args, 'kwargs': kwargs, 'delivery_info': info,
                       'is_eager': False, 'called_directly': False})
    _task_stack.push(task)
    task.request_stack.push(context)
    try:
        Hooks(app, 'me@here').succeed(task, context, value)
    finally:
        task.request_stack.pop()
        _task_stack.pop()
    return context


def without_tag(message: Any) -> Any:
    body, headers, properties, info = message
    return body, headers, properties, {**info, 'delivery_tag': None}


@pytest.mark.parametrize('second', [
    {'args': [2]}, {'args': [2, 3], 'immutable': True}, {'kwargs': {'y': 'ä'}}])
def test_same_message_as_the_long_way(app: Any, monkeypatch: Any, second: Any) -> None:
    add = app.tasks['x.add']
    chain(add.s(1, 1), signature({'task': 'x.add', **second}, app=app), add.s(4), add.s(5)).apply_async()
    first = take(app)
    short = finish(app, first, 2)
    quick = take(app)
    taken = []
    monkeypatch.setattr(trace, 'hand_over', lambda *args: taken.append(args) or False)
    long = finish(app, first, 2)
    slow = take(app)
    assert without_tag(quick) == without_tag(slow)
    assert len(quick[0][2]['chain']) == 2 and quick[1]['parent_id'] == first[1]['id'] == quick[1]['root_id']
    assert [child.id for child in short.children] == [child.id for child in long.children] == [quick[1]['id']]
    assert len(taken) == 1


def test_the_end_of_a_chain_sends_nothing(app: Any) -> None:
    app.tasks['x.add'].delay(1, 1)
    assert not finish(app, take(app), 2).children
    assert take(app) is None


def test_links_and_chain(app: Any) -> None:
    add = app.tasks['x.add']
    chain(add.s(1, 1).set(link=add.s(10)), add.s(2)).apply_async()
    finish(app, take(app), 2)
    assert [take(app)[0][0] for _ in range(2)] == [[2, 10], [2, 2]]
    assert take(app) is None


class TestLongWay:
    """hand_over refuses, and has sent nothing."""

    @pytest.fixture
    def link(self, app: Any) -> dict[str, Any]:
        app.tasks['x.add'].delay(1, 1)  # declares the queue
        assert take(app)
        return {'task': 'x.add', 'args': [2], 'kwargs': {}, 'immutable': False, 'subtask_type': None,
                'options': {'task_id': 'i', 'reply_to': 'r'}}

    def refused(self, app: Any, link: dict[str, Any], **request: Any) -> bool:
        task = app.tasks['x.add']
        _task_stack.push(task)
        task.request_stack.push(Context(id='p', root_id='p', called_directly=False, **request))
        try:
            sent = hand_over(app, link, 1, [])
        finally:
            task.request_stack.pop()
            _task_stack.pop()
        assert (take(app) is not None) is sent
        return not sent

    def test_not_for_a_plain_link(self, app: Any, link: Any) -> None:
        assert not self.refused(app, link)

    @pytest.mark.parametrize('change', [
        {'task': 'x.unknown'}, {'task': None}, {'subtask_type': 'group'}, {'options': None},
        {'options': {'task_id': 'i'}}, {'options': {'task_id': 'i', 'reply_to': 'r', 'queue': 'q'}}])
    def test_signature(self, app: Any, link: Any, change: Any) -> None:
        assert self.refused(app, {**link, **change})

    def test_stamped_request(self, app: Any, link: Any) -> None:
        assert self.refused(app, link, stamped_headers=['a'], stamps={'a': 1})

    def test_priority_is_inherited(self, app: Any, link: Any) -> None:
        app.conf.task_inherit_parent_priority = True
        assert self.refused(app, link)

    def test_somebody_listens(self, app: Any, link: Any) -> None:
        def see(**_: Any) -> None:
            """Listens."""

        signals.before_task_publish.connect(see)
        try:
            assert self.refused(app, link)
        finally:
            signals.before_task_publish.disconnect(see)

    def test_wrong_arguments_are_not_sent(self, app: Any, link: Any) -> None:
        with pytest.raises(TypeError):
            self.refused(app, {**link, 'args': [1, 2, 3]})
        assert take(app) is None
