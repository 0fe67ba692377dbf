"""Tasks: calling, arguments, requests, retry, replace (FEATURES 1.4..1.10, 1.20)."""
from __future__ import annotations

import pickle
import uuid
from typing import Any

import pytest

from pyceleryc import Celery, Task, group
from pyceleryc.app.task import Context
from pyceleryc.exceptions import (
    Ignore,
    ImproperlyConfigured,
    MaxRetriesExceededError,
    Reject,
    Retry,
)


@pytest.fixture
def app() -> Any:
    with Celery('t', broker='memory://', set_as_current=False,
                task_default_queue=f'test-{uuid.uuid4()}') as app:
        yield app


@pytest.fixture
def add(app: Any) -> Any:
    @app.task(name='add')
    def add(x: int, y: int) -> int:
        return x + y
    return add


def next_message(app: Any, queue: str | None = None) -> Any:
    return app.amqp.producer.get(queue or app.conf.task_default_queue, 1)


class TestArguments:
    @pytest.mark.parametrize(('args', 'kwargs', 'text'), [
        ((8,), {}, r"add\(\) missing 1 required positional argument: 'y'"),
        ((1,), {'z': 1}, r"add\(\) got an unexpected keyword argument 'z'"),
        ((1, 2, 3), {}, r'add\(\) takes 2 positional arguments but 3 were given'),
    ])
    def test_wording(self, app: Any, add: Any, args: Any, kwargs: Any, text: str) -> None:
        for _ in range(3):
            with pytest.raises(TypeError, match=text):
                add.apply_async(args, kwargs)
            add.delay(1, 2)

    def test_bound(self, app: Any) -> None:
        task = app.task(name='bound', bind=True)(lambda self, x: x)
        task.delay(1)
        with pytest.raises(TypeError):
            task.delay()

    def test_off(self, app: Any) -> None:
        loose = app.task(name='loose', typing=False)(lambda x: x)
        loose.delay()
        loose.delay(1, 2, 3)
        assert Celery(strict_typing=False, set_as_current=False).task(
            lambda: None).typing is False

    def test_shape(self, add: Any) -> None:
        for _ in range(2):
            with pytest.raises(TypeError, match='list or tuple'):
                add.apply_async('ab')
            add.delay(1, 1)

    def test_class_tasks_are_not_checked(self, app: Any) -> None:
        class Plain(Task):
            name = 'plain'

            def run(self, x: int) -> int:
                return x

        assert app.register_task(Plain()).delay(1, 2, 3).id


class TestOptions:
    def test_attributes_are_defaults(self, app: Any) -> None:
        queue = f'test-{uuid.uuid4()}'
        task = app.task(name='opt', queue=queue, priority=3, time_limit=9, serializer='pickle',
                        ignore_result=True)(lambda: None)
        for _ in range(2):
            task.delay()
            _, headers, properties, _ = next_message(app, queue)
            assert properties['priority'] == 3 and headers['timelimit'] == [9, None]
            assert properties['content_type'] == 'application/x-python-serialize'
            assert headers['ignore_result'] is True
        task.apply_async(priority=5)
        assert next_message(app, queue)[2]['priority'] == 5

    def test_limits(self, app: Any) -> None:
        task = app.task(name='lim', time_limit=1, soft_time_limit=2)(lambda: None)
        with pytest.raises(ValueError, match='soft_time_limit'):
            task.delay()

    def test_shadow_name(self, app: Any) -> None:
        class Shadowed(Task):
            def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str:
                return f'shadow{args[0]}'

        task = app.task(name='sh', base=Shadowed)(lambda x: x)
        for i in range(2):
            task.delay(i)
            assert next_message(app)[1]['shadow'] == f'shadow{i}'

    def test_no_app_yet(self) -> None:
        assert Task.max_retries == 3 and Task.default_retry_delay == 180
        assert Task.typing is None and Task.throws == ()


class TestRequest:
    def test_defaults(self, add: Any) -> None:
        request = add.request
        assert request.id is None and request.called_directly and request.retries == 0
        with pytest.raises(AttributeError):
            request.nope
        assert request.get('nope', 3) == 3

    def test_stack(self, app: Any) -> None:
        @app.task(name='outer', bind=True)
        def outer(self: Any, depth: int) -> Any:
            assert self.request.args == (depth,)
            return [depth, *(self(depth - 1) if depth else [])]

        assert outer(2) == [2, 1, 0] and outer.request.args is None

    def test_custom_headers(self) -> None:
        message = {'lang': 'py', 'task': 't', 'id': '1', 'argsrepr': '()', 'stamps': {},
                   'timelimit': [3, 2], 'x': 1}
        context = Context(message)
        assert context.headers == {'x': 1} and context.x == 1
        assert (context.time_limit, context.soft_time_limit) == (3, 2)
        assert Context({'id': 1}).headers is None
        assert '{0.id} {0.args!r}'.format(Context(id=1, args=[2])) == '1 [2]'

    def test_signature_of_a_run(self, app: Any, add: Any) -> None:
        add.push_request(
            id='I', retries=2, args=(5, 6), kwargs={}, timelimit=[9, 8], root_id='R',
            delivery_info={'exchange': '', 'routing_key': 'q9', 'priority': 3}, group='G',
            headers={'h': 1, 'x-death': [1], 'x-first-death-queue': 'q'}, callbacks=[{'task': 'x'}],
            stamps={'a': 1}, stamped_headers=['a'], chain=[{'task': 'y'}], reply_to='rt')
        try:
            options = add.signature_from_request().options
        finally:
            add.pop_request()
        assert options['queue'] == 'q9' and options['priority'] == 3
        assert options['headers'] == {'h': 1} and options['link'] == [{'task': 'x'}]
        assert (options['time_limit'], options['soft_time_limit']) == (9, 8)
        assert options['a'] == 1 and options['stamped_headers'] == ['a']
        assert options['chain'] == [{'task': 'y'}] and options['group_id'] == 'G'


class TestRetry:
    @pytest.fixture
    def task(self, app: Any) -> Any:
        task = app.task(name='again', bind=True, max_retries=2)(lambda self, x: x)
        task.push_request(
            id='RID', args=(1,), kwargs={}, called_directly=False, retries=0, root_id='RID',
            delivery_info={'exchange': '', 'routing_key': app.conf.task_default_queue})
        yield task
        task.pop_request()

    def test_sends_again(self, app: Any, task: Any) -> None:
        with pytest.raises(Retry) as caught:
            task.retry(countdown=5, exc=KeyError('k'))
        assert caught.value.when == 5 and caught.value.excs == "KeyError('k')"
        _, headers, _, _ = next_message(app)
        assert (headers['id'], headers['retries']) == ('RID', 1) and headers['eta']

    def test_without_throw(self, task: Any) -> None:
        retry = task.retry(throw=False)
        assert isinstance(retry, Retry) and retry.when == 180 and retry.sig.id == 'RID'

    def test_given_up(self, task: Any) -> None:
        task.request.retries = 2
        with pytest.raises(MaxRetriesExceededError, match=r"Can't retry again\[RID\]") as caught:
            task.retry()
        assert caught.value.task_args == (1,)
        with pytest.raises(ValueError, match='mine') as other:
            try:
                raise KeyError('current')
            except KeyError:
                task.retry(exc=ValueError('mine'))
        assert isinstance(other.value.__cause__, KeyError)
        with pytest.raises(Retry):
            task.retry(max_retries=5)

    def test_broker_down(self, app: Any, task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise OSError('down')

        app.send_task = fail
        with pytest.raises(Reject) as caught:
            task.retry()
        assert caught.value.requeue is False

    def test_called_as_a_function(self, app: Any) -> None:
        @app.task(name='direct', bind=True)
        def direct(self: Any, fail: bool) -> None:
            if not fail:
                self.retry()
            try:
                raise ValueError('v')
            except ValueError as exc:
                self.retry(exc=exc)

        with pytest.raises(ValueError, match='v'):
            direct(True)
        with pytest.raises(Retry, match='can be retried'):
            direct(False)

    def test_eager(self, app: Any) -> None:
        runs = []

        @app.task(name='eager', bind=True, max_retries=3)
        def eager(self: Any) -> str:
            runs.append(self.request.retries)
            if self.request.retries < 2:
                raise self.retry()
            return 'done'

        result = eager.apply()
        assert (result.state, result.get(), runs) == ('SUCCESS', 'done', [0, 1, 2])


class TestReplace:
    def test_takes_the_place(self, app: Any, add: Any) -> None:
        task = app.task(name='rep', bind=True)(lambda self: None)
        task.push_request(
            id='ID', args=(), kwargs={}, called_directly=False, root_id='ROOT', group='G',
            group_index=2, callbacks=[add.s(1)], chain=[add.s(3), add.s(2)])
        try:
            with pytest.raises(Ignore):
                task.replace(add.s(1, 1))
            with pytest.raises(ImproperlyConfigured):
                task.replace(add.s().set(chord={}))
        finally:
            task.pop_request()
        body, headers, _, _ = next_message(app)
        assert (headers['id'], headers['root_id'], headers['group']) == ('ID', 'ROOT', 'G')
        assert (headers['group_index'], headers['replaced_task_nesting']) == (2, 1)
        assert b'"chain": [{"task": "add", "args": [3]' in body


class TestEager:
    def test_apply(self, add: Any) -> None:
        result = add.apply((1, 2), task_id='X')
        assert (result.id, result.get(), result.state) == ('X', 3, 'SUCCESS')

    def test_failure(self, add: Any) -> None:
        assert add.apply((1, 'a')).state == 'FAILURE'
        with pytest.raises(TypeError):
            add.apply((1, 'a'), throw=True)

    def test_always(self, app: Any, add: Any) -> None:
        app.conf.task_always_eager = True
        echo = app.task(name='echo')(lambda *a, **k: [a, k])
        assert echo.delay((1, 2), x={1: 2}).get() == [([1, 2],), {'x': {'1': 2}}]
        assert group(add.s(1, 1), add.s(2, 2)).apply_async().get() == [2, 4]
        assert (add.s(1, 1) | add.s(2)).apply_async().get() == 4

    def test_request(self, app: Any) -> None:
        task = app.task(name='r', bind=True)(lambda self: dict(vars(self.request)))
        request = task.apply(task_id='T', headers={'a': 1}, priority=3, routing_key='z').get()
        assert request['is_eager'] and not request['called_directly']
        assert request['delivery_info'] == {
            'is_eager': True, 'exchange': None, 'routing_key': 'z', 'priority': 3}
        assert request['headers'] == {'a': 1} and request['root_id'] == 'T'


def test_pickle() -> None:
    app = Celery('p', broker='memory://')
    task = app.task(name='pickled')(test_pickle)
    assert pickle.loads(pickle.dumps(task)) is task._get_current_object()
    app.close()


def test_extras(app: Any, add: Any) -> None:
    assert add.get_logger().name == 'add'
    assert add.AsyncResult('ID').id == 'ID' and add.AsyncResult('ID').app is app
    with pytest.raises(ValueError, match='not member'):
        add.add_to_chord(add.s(1))
    with pytest.raises(NotImplementedError):
        Task().run()
