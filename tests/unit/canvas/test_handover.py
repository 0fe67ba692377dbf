"""The short way of a chain's next link: the same message as the long way, and only where it may be taken."""
from __future__ import annotations

import json
import re
import uuid
from typing import Any

import pytest
from embedding import embedded
from kombu.exceptions import EncodeError

from pyceleryc import Celery, chain, group, signals, signature
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
    monkeypatch.setattr(trace, 'hand_over', lambda *args: taken.append(args))
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


EMBED = {'callbacks': None, 'errbacks': None, 'chain': [], 'chord': None}


class TestLongWay:
    """hand_over refuses, and has sent nothing."""

    @pytest.fixture
    def link(self, app: Any) -> dict[str, Any]:
        app.tasks['x.add'].delay(1, 1)  # declares the queue
        assert take(app)
        return {'task': 'x.add', 'args': [2], 'kwargs': {}, 'immutable': False, 'subtask_type': None,
                'options': {'task_id': 'i', 'reply_to': 'r'}}

    def refused(self, app: Any, link: dict[str, Any]) -> bool:
        sent = hand_over(app, link, 1, EMBED, 'p', 'p')
        assert (take(app) is not None) is (sent is not None)
        return sent is None

    def test_not_for_a_plain_link(self, app: Any, link: Any) -> None:
        assert not self.refused(app, link)

    @pytest.mark.parametrize('change', [
        {'task': 'x.unknown'}, {'task': None}, {'subtask_type': 'group'}, {'options': None},
        {'options': {'task_id': 'i'}}, {'options': {'task_id': 'i', 'reply_to': 'r', 'queue': 'q'}}])
    def test_signature(self, app: Any, link: Any, change: Any) -> None:
        assert self.refused(app, {**link, **change})

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


class Worker:
    """Runs a workflow in a worker; the core hands links over, unless a setting or a receiver is in the way.

    ``x.see`` notes its request and ``x.add`` does not look at its own.
    """

    def __init__(self, app: Any, monkeypatch: Any) -> None:
        self.app, self.seen, self.handed = app, [], []
        original = Hooks.hand_over

        def noted(hooks: Any, *args: Any) -> Any:
            children = original(hooks, *args)
            self.handed.append((args[1]['task'], children))
            return children

        monkeypatch.setattr(Hooks, 'hand_over', noted)

        @app.task(name='x.see', bind=True, shared=False)
        def see(task: Any, *args: Any, **kwargs: Any) -> Any:
            self.seen.append({name: value for name, value in vars(task.request).items() if name[0] != '_'})
            return kwargs.get('value')

    def run(self, *steps: Any, **options: Any) -> Any:
        with embedded(self.app, pool='solo'):
            result = chain(*steps).apply_async(**options)
            result.get(timeout=10, propagate=False)
        return result


@pytest.fixture
def worker(app: Any, monkeypatch: Any) -> Worker:
    return Worker(app, monkeypatch)


def alike(requests: list[dict[str, Any]]) -> str:
    """Without what differs from one run to the next."""
    text = json.dumps([{**request, 'delivery_info': None} for request in requests], sort_keys=True, default=str)
    ids: dict[str, str] = {}
    return re.sub(r'[0-9a-f-]{36}', lambda found: ids.setdefault(found[0], f'id{len(ids)}'), text)


@pytest.mark.parametrize('value', [2, 'ä"}]\\', [1.5, {'a': None}], {'chain': [{}], 'chord': None}], ids=str)
def test_the_core_sends_what_python_sends(worker: Worker, value: Any) -> None:
    same, see = worker.app.task(name='x.same', shared=False)(lambda x, *_: x), worker.app.tasks['x.see']
    steps = [same.s(value), see.s({'b': '"}, {'}), same.si(value, value), see.s(value=value), same.s()]
    short = worker.run(*steps)
    assert [task for task, _ in worker.handed] == ['x.see', 'x.see']
    quick, worker.seen = worker.seen, []

    def listen(**_: Any) -> None:
        """Wants to be told of each success, so Python sends all links."""

    signals.task_success.connect(listen)
    try:
        long = worker.run(*steps)
    finally:
        signals.task_success.disconnect(listen)
    assert len(worker.handed) == 2 and len(quick) == 2
    assert alike(quick) == alike(worker.seen)
    assert short.get() == long.get() == value
    assert [len(request['chain']) for request in quick] == [3, 1]
    # each knows its predecessor and what it has sent
    for result in (short, long):
        while result.parent:
            (child,) = result.parent.children
            assert child == result and result.backend.get_task_meta(result.id)['parent_id'] == result.parent.id
            result = result.parent


def test_children_of_a_task_without_trail(worker: Worker) -> None:
    quiet = worker.app.task(name='x.quiet', shared=False, trail=False)(lambda x: x)
    result = worker.run(quiet.s(1), worker.app.tasks['x.add'].s(2))
    assert result.get() == 3 and result.parent.children == []
    assert worker.handed == [('x.add', '[]')]


def test_results_that_are_ignored(worker: Worker) -> None:
    silent = worker.app.task(name='x.silent', shared=False, ignore_result=True)(lambda x: x)
    result = worker.run(silent.s(1), worker.app.tasks['x.add'].s(2))
    assert result.get() == 3 and result.parent.state == 'PENDING'
    assert len(worker.handed) == 1


def test_wrong_arguments_of_a_link(worker: Worker) -> None:
    """As on the long way: the task whose link cannot be sent has failed."""
    add = worker.app.tasks['x.add']
    with embedded(worker.app, pool='solo'):
        first = chain(add.s(1, 1), signature({'task': 'x.add', 'args': [1, 2]}, app=worker.app)).apply_async().parent
        with pytest.raises(TypeError):
            first.get(timeout=10)
    assert worker.handed == []


class TestPythonSends:
    """The core leaves the links to Python."""

    def check(self, worker: Worker, result: Any) -> None:
        assert result.get(timeout=10) == 6
        assert worker.handed == []

    def test_stamps(self, worker: Worker) -> None:
        add, see = worker.app.tasks['x.add'], worker.app.tasks['x.see']
        workflow = chain(add.s(1, 2), see.s(value=3), add.s(3))
        workflow.stamp(mark='here')
        with embedded(worker.app, pool='solo'):
            self.check(worker, workflow.apply_async())
        (request,) = worker.seen
        assert request['stamps'] == {'mark': 'here'}

    def test_task_that_looks_at_its_request(self, worker: Worker) -> None:
        see, add = worker.app.tasks['x.see'], worker.app.tasks['x.add']
        self.check(worker, worker.run(see.s(value=3), see.s(value=3), add.s(3)))

    def test_link_with_options(self, worker: Worker) -> None:
        add = worker.app.tasks['x.add']
        with embedded(worker.app, pool='solo'):
            result = chain(add.s(1, 2), add.s(3).set(priority=3)).apply_async()
            assert result.get(timeout=10) == 6
        assert worker.handed == [('x.add', None)]

    def test_a_group_in_between(self, worker: Worker) -> None:
        add = worker.app.tasks['x.add']
        with embedded(worker.app, pool='solo'):
            result = chain(add.s(1, 2), group(add.s(1), add.s(2))).apply_async()
            assert result.get(timeout=10) == [4, 5]
        assert worker.handed == [('celery.group', None)]

    def test_value_that_is_no_json(self, worker: Worker) -> None:
        odd = worker.app.task(name='x.odd', shared=False)(lambda: object())
        with embedded(worker.app, pool='solo'):
            first = chain(odd.s(), worker.app.tasks['x.see'].si()).apply_async().parent
            with pytest.raises(EncodeError):
                first.get(timeout=10)
        assert worker.handed == []
