"""Messages, queues and sending, over the in-memory broker of the core."""
from __future__ import annotations

import json
import os
import pickle
import uuid
import zlib
from datetime import datetime, timedelta, timezone
from typing import Any

import kombu
import pytest
from kombu import Exchange, Queue
from kombu.exceptions import EncodeError, OperationalError, SerializerNotInstalled

from pyceleryc import Celery, signals
from pyceleryc.app.drivers import broker_config, broker_urls, queue_config
from pyceleryc.app.publisher import RetryPolicy


class Box:
    """An app with a queue of its own, and the messages in it."""

    def __init__(self, **settings: Any) -> None:
        self.queue = f'test-{uuid.uuid4()}'
        settings.setdefault('task_default_queue', self.queue)
        self.app = Celery('box', broker='memory://', set_as_current=False, **settings)
        self.add = self.app.task(name='box.add')(self._add)

    @staticmethod
    def _add(x: Any, y: Any) -> Any:
        return x + y

    def get(self, queue: str | None = None) -> Any:
        return self.app.amqp.producer.get(queue or self.queue, 1)

    def headers(self) -> dict[str, Any]:
        return self.get()[1]  # type: ignore[no-any-return]


@pytest.fixture
def box() -> Any:
    return Box()


class TestMessages:
    def test_first_and_later_messages_are_alike(self, box: Any) -> None:
        results = [box.add.delay(2, i) for i in range(3)]
        assert box.add._shortcut is not None
        for i, result in enumerate(results):
            body, headers, properties, info = box.get()
            assert json.loads(body) == [[2, i], {}, {
                'callbacks': None, 'errbacks': None, 'chain': None, 'chord': None}]
            assert headers['id'] == headers['root_id'] == result.id
            assert headers['task'] == 'box.add' and headers['parent_id'] is None
            assert headers['argsrepr'] == f'(2, {i})' and headers['kwargsrepr'] == '{}'
            assert headers['timelimit'] == [None, None] and headers['ignore_result'] is False
            assert list(headers) == HEADERS
            assert properties['correlation_id'] == result.id
            assert properties['reply_to'] == box.app.thread_oid
            assert (properties['delivery_mode'], properties['priority']) == (2, 0)
            assert (info['exchange'], info['routing_key']) == ('', box.queue)

    def test_same_headers_by_both_ways(self, box: Any) -> None:
        box.add.delay(1, 2)
        box.add.delay(1, 2)
        long, short = box.get(), box.get()
        for headers in (long[1], short[1]):
            del headers['id'], headers['root_id']
        assert list(long[1].items()) == list(short[1].items()) and long[0] == short[0]

    def test_options(self, box: Any) -> None:
        box.add.apply_async(
            (1,), {'y': 2}, task_id='my-id', link=box.add.s(16), link_error=[box.add.si(0, 0)],
            shadow='dark', headers={'x-foo': '1'}, priority=5, time_limit=9, soft_time_limit=8,
            argsrepr='<a>', kwargsrepr='<k>', ignore_result=True, delivery_mode='transient')
        body, headers, properties, _ = box.get()
        embed = json.loads(body)[2]
        assert [each['args'] for each in embed['callbacks']] == [[16]]
        assert embed['errbacks'][0]['immutable'] is True
        assert (headers['id'], headers['shadow'], headers['x-foo']) == ('my-id', 'dark', '1')
        assert headers['timelimit'] == [9, 8] and headers['ignore_result'] is True
        assert (headers['argsrepr'], headers['kwargsrepr']) == ('<a>', '<k>')
        assert (properties['priority'], properties['delivery_mode']) == (5, 1)

    def test_eta(self, box: Any) -> None:
        start = datetime.now(timezone.utc)
        box.add.apply_async((1, 2), countdown=3)
        eta = datetime.fromisoformat(box.headers()['eta'])
        assert timedelta(seconds=3) <= eta - start < timedelta(seconds=6)
        box.add.apply_async((1, 2), eta=datetime(2030, 1, 1))
        assert box.headers()['eta'] == '2030-01-01T00:00:00'
        with pytest.raises(ValueError, match='out of range'):
            box.add.apply_async((1, 2), countdown=-2 ** 33)

    def test_expires(self, box: Any, caplog: pytest.LogCaptureFixture) -> None:
        box.add.apply_async((1, 2), expires=60)
        _, headers, properties, _ = box.get()
        assert properties['expiration'] == '60000' and headers['expires'].endswith('+00:00')
        box.add.apply_async((1, 2), expires=datetime.now(timezone.utc) - timedelta(hours=1))
        assert 'expired' in caplog.text

    def test_serializer_and_compression(self, box: Any) -> None:
        box.add.apply_async((1, 2), serializer='pickle', compression='zlib')
        body, headers, properties, _ = box.get()
        assert pickle.loads(zlib.decompress(body))[0] == (1, 2)
        assert headers['compression'] == 'application/x-gzip'
        assert properties['content_type'] == 'application/x-python-serialize'
        with pytest.raises(SerializerNotInstalled):
            box.add.apply_async((1, 2), serializer='nope')

    @pytest.mark.parametrize('times', [1, 3])
    def test_not_json(self, box: Any, times: int) -> None:
        for _ in range(times - 1):
            box.add.delay(1, 1)
        with pytest.raises(EncodeError, match='not JSON serializable'):
            box.add.delay(object(), 1)

    def test_protocol_1(self) -> None:
        box = Box(task_protocol=1)
        result = box.add.delay(1, 2)
        body, headers, _, _ = box.get()
        fields = json.loads(body)
        assert headers == {} and fields['id'] == result.id and fields['args'] == [1, 2]
        assert fields['utc'] is True and fields['timelimit'] == [None, None]

    def test_send_task(self, box: Any) -> None:
        result = box.app.send_task('not.here', [1], {'a': 2}, priority=3)
        body, headers, _, _ = box.get()
        assert headers['task'] == 'not.here' and headers['id'] == result.id
        assert json.loads(body)[:2] == [[1], {'a': 2}]
        with pytest.raises(TypeError, match='list or tuple'):
            box.app.send_task('x', args='ab')
        with pytest.raises(TypeError, match='mapping'):
            box.app.send_task('x', kwargs=[1])

    def test_inside_a_task(self, box: Any) -> None:
        sent = []

        @box.app.task(name='box.parent', bind=True)
        def parent(self: Any) -> Any:
            sent.extend([box.add.delay(1, 1), box.add.delay(2, 2), box.add.delay(3, 3)])
            return self.request.children

        from pyceleryc._state import pop_current_task, push_current_task
        push_current_task(parent)
        parent.push_request(id='P', root_id='R', called_directly=False)
        try:
            assert parent.run() == sent
        finally:
            parent.pop_request()
            pop_current_task()
        for _ in sent:
            headers = box.headers()
            assert (headers['root_id'], headers['parent_id']) == ('R', 'P')


HEADERS = [
    'lang', 'task', 'id', 'shadow', 'eta', 'expires', 'group', 'group_index', 'retries',
    'timelimit', 'root_id', 'parent_id', 'argsrepr', 'kwargsrepr', 'origin', 'ignore_result',
    'replaced_task_nesting', 'stamped_headers', 'stamps',
]


class TestSignals:
    def test_before_may_change_and_after_sees(self, box: Any) -> None:
        box.add.delay(1, 1)
        box.add.delay(1, 1)
        seen: list[Any] = []

        def before(sender: Any, headers: Any, properties: Any, **kw: Any) -> None:
            headers['added'] = 'yes'
            properties['message_id'] = 'm'
            seen.append((sender, kw['routing_key'], kw['declare'][0].name))

        def after(sender: Any, headers: Any, body: Any, **_: Any) -> None:
            seen.append((sender, headers['added'], body[0]))

        signals.before_task_publish.connect(before)
        signals.after_task_publish.connect(after)
        try:
            box.add.delay(5, 6)
        finally:
            signals.before_task_publish.disconnect(before)
            signals.after_task_publish.disconnect(after)
        box.get(), box.get()
        _, headers, properties, _ = box.get()
        assert headers['added'] == 'yes' and properties['message_id'] == 'm'
        assert seen == [('box.add', box.queue, box.queue), ('box.add', 'yes', (5, 6))]
        box.add.delay(7, 8)
        assert 'added' not in box.headers()


class TestSeams:
    """What was replaced is used, also when it is replaced late (D18)."""

    def test_send_task(self, box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        for _ in range(3):
            box.add.delay(1, 1)
        calls = []
        original = Celery.send_task
        monkeypatch.setattr(Celery, 'send_task', lambda self, name, *args, **kw: (
            calls.append(name), original(self, name, *args, **kw))[1])
        box.add.delay(2, 2)
        assert calls == ['box.add']

    def test_send_task_of_the_instance(self, box: Any) -> None:
        for _ in range(3):
            box.add.delay(1, 1)
        box.app.send_task = lambda name, *args, **kw: 'mine'
        assert box.add.delay(2, 2) == 'mine'

    def test_kombu_publish(self, box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = []
        monkeypatch.setattr(
            kombu.Producer, 'publish', lambda self, body, **kw: calls.append(kw['routing_key']))
        box.add.delay(1, 1)  # kombu does not know our memory:// broker
        assert box.headers()['task'] == 'box.add'
        assert calls == []
        box.app.conf.broker_url = 'amqp://nowhere.invalid//'  # never reached: the function publishes nothing
        box.add.delay(1, 1)
        assert calls == [box.queue]

    def test_options_and_settings_are_noticed(self, box: Any) -> None:
        for _ in range(3):
            box.add.delay(1, 1)
            box.get()
        other = f'{box.queue}-b'
        box.add.queue = other
        box.add.delay(1, 1)
        assert box.get(other) is not None
        box.add.queue = None
        box.app.conf.task_routes = {'box.add': {'priority': 4}}
        box.add.delay(1, 1)
        assert box.get()[2]['priority'] == 4
        box.app.conf.task_protocol = 1
        box.add.delay(1, 1)
        assert box.headers() == {}


class TestDestination:
    @pytest.mark.parametrize(('options', 'expected'), [
        ({}, ('', 'default')),
        ({'queue': 'q1'}, ('', 'q1')),
        ({'routing_key': 'rk'}, ('', 'default')),
        ({'exchange': 'ex'}, ('', 'default')),
        ({'exchange': 'ex', 'routing_key': 'rk'}, ('ex', 'rk')),
        ({'queue': 'q1', 'routing_key': 'rk'}, ('', 'q1')),
        ({'queue': 'q1', 'exchange': 'e', 'routing_key': 'rk'}, ('e', 'rk')),
        ({'exchange': '', 'routing_key': 'foo'}, ('', 'default')),
        ({'exchange': 'ex', 'exchange_type': 'topic'}, ('ex', None)),
        ({'routing_key': 'r', 'exchange_type': 'topic'}, ('default', 'r')),
        ({'queue': Queue('zz', Exchange('zx', 'topic'), routing_key='zr')}, ('zx', 'zr')),
    ])
    def test_as_celery_does(self, options: Any, expected: Any) -> None:
        amqp = Celery(
            broker='memory://', set_as_current=False, task_default_queue='default').amqp
        routed = amqp.router.route(options, 'x')
        found = amqp._destination(
            routed['queue'], routed.get('exchange'), routed.get('routing_key'),
            routed.get('exchange_type'))
        assert found == expected

    def test_topic_queue(self) -> None:
        amqp = Celery(broker='memory://', set_as_current=False, task_queues=[
            Queue('t', Exchange('te', 'topic', delivery_mode=1), routing_key='t.#'),
            Queue('f', Exchange('fe', 'fanout'))], task_default_queue='t').amqp
        queue = amqp.default_queue
        assert amqp._destination(queue, None, None, None) == ('te', 't.#')
        assert amqp._destination(queue, None, 'x.y', None) == ('te', 'x.y')
        assert amqp._delivery_mode(queue, None) == 1
        assert amqp._destination(amqp.queues['f'], None, None, None) == ('fe', 't')


class TestQueues:
    def test_made_on_demand(self) -> None:
        queues = Celery(
            set_as_current=False, task_queue_max_priority=7,
            task_queues={'a': {'exchange': 'ea', 'routing_key': 'k'}, 'b': Queue('bb')}).amqp.queues
        assert (queues['a'].exchange.name, queues['a'].routing_key) == ('ea', 'k')
        assert (queues['bb'].exchange.name, queues['bb'].routing_key) == ('celery', 'celery')
        new = queues['new']
        assert (new.exchange.name, new.exchange.type, new.routing_key) == ('new', 'direct', 'new')
        assert new.queue_arguments == {'x-max-priority': 7} and queues['new'] is new

    def test_selection(self) -> None:
        app = Celery(set_as_current=False)
        queues = app.amqp.queues
        app.select_queues(['a', 'b'])
        assert set(queues.consume_from) == {'a', 'b'}
        queues.deselect('a')
        queues.select_add('c')
        assert set(queues.consume_from) == {'b', 'c'}
        assert '.> b                exchange=b(direct) key=b' in queues.format()

    def test_queue_types(self) -> None:
        queues = Celery(
            set_as_current=False, task_create_missing_queue_type='quorum',
            task_create_missing_queue_exchange_type='topic',
            task_default_queue_type='quorum').amqp.queues
        assert queues['n'].queue_arguments == {'x-queue-type': 'quorum'}
        assert queues['n'].exchange.type == 'topic'
        assert queues['celery'].queue_arguments == {'x-queue-type': 'quorum'}

    def test_for_the_core(self) -> None:
        config = queue_config(Queue(
            'q', Exchange('e', 'topic'), routing_key='k', max_priority=5, message_ttl=1.5))
        assert (config['exchange'], config['exchange_type']) == ('e', 'topic')
        assert config['queue_arguments'] == {'x-max-priority': 5, 'x-message-ttl': 1500}


class TestDrivers:
    def config(self, url: str, **settings: Any) -> Any:
        conf = Celery(set_as_current=False, **settings).conf
        return broker_config(conf, url)

    @pytest.mark.parametrize(('url', 'expected'), [
        ('amqp://', ('127.0.0.1', 5672, '/', 'guest', 'guest')),
        ('amqp://h//', ('h', 5672, '/', 'guest', 'guest')),
        ('pyamqp://u:p%40@h:1234/v', ('h', 1234, 'v', 'u', 'p@')),
        ('amqps://h', ('h', 5671, '/', 'guest', 'guest')),
    ])
    def test_amqp(self, url: str, expected: Any) -> None:
        found = self.config(url)
        assert tuple(
            found[key] for key in ('host', 'port', 'vhost', 'user', 'password')) == expected
        assert found['scheme'] == 'amqp'
        assert (found['ssl'] is not None) == url.startswith('amqps')
        assert (found['confirm'], found['heartbeat'], found['publish_timeout']) == (1, 0.0, 30.0)

    def test_options(self) -> None:
        found = self.config('amqp://', broker_transport_options={
            'confirm_publish': True, 'publish_timeout': 3}, broker_use_ssl={
            'ca_certs': '/ca', 'certfile': '/c', 'keyfile': '/k'})
        assert (found['confirm'], found['publish_timeout'], found['scheme']) == (2, 3.0, 'amqp')
        assert found['ssl'] == {
            'ca_file': '/ca', 'cert_file': '/c', 'key_file': '/k', 'verify': True}

    def test_sqlite_paths(self) -> None:
        assert self.config('sqlite:///rel.db')['vhost'] == 'rel.db'
        assert self.config('sqlite:////abs/x.db')['vhost'] == '/abs/x.db'

    def test_no_driver(self) -> None:
        assert self.config('sqs://') is None
        assert Celery(broker='filesystem://', set_as_current=False).amqp.producer is None

    def test_lists(self) -> None:
        assert broker_urls('a://;b://') == ['a://', 'b://']
        assert broker_urls(None) == ['amqp://'] and broker_urls(['x://']) == ['x://']


class TestPublisher:
    def test_pauses(self) -> None:
        assert list(RetryPolicy().pauses()) == pytest.approx([0, 0.2, 0.4])
        assert list(RetryPolicy(max_retries=0).pauses()) == []
        assert list(RetryPolicy(3, 1, 1, 2).pauses()) == [1, 2, 2]

    def test_dead_broker(self) -> None:
        app = Celery(broker='amqp://guest@127.0.0.1:1//', set_as_current=False)
        for options in ({'retry': False}, {'retry_policy': {'max_retries': 1}}):
            with pytest.raises(OperationalError, match='refused'):
                app.send_task('x', ignore_result=True, **options)

    def test_failover(self) -> None:
        app = Celery(broker='amqp://guest@127.0.0.1:1//;memory://', set_as_current=False)
        app.conf.task_default_queue = f'test-{uuid.uuid4()}'
        app.send_task('x', ignore_result=True)
        assert app.amqp.producer.get(app.conf.task_default_queue, 1) is not None

    def test_forked_child_has_its_own(self, box: Any) -> None:
        for _ in range(3):
            box.add.delay(1, 1)
        parent = box.app.amqp.publisher.current
        oid = box.app.thread_oid
        pid = os.fork()
        if pid == 0:
            fresh = box.app.amqp.publisher.current is None and box.app.thread_oid != oid
            os._exit(0 if fresh else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert box.app.amqp.publisher.current is parent

    def test_kombu_producer_and_connection(self, box: Any) -> None:
        with box.app.connection() as connection:
            box.add.apply_async((1, 2), connection=connection)
            with box.add.get_publisher(connection) as producer:
                box.add.apply_async((3, 4), publisher=producer)
            queue = connection.SimpleQueue(box.queue)
            assert queue.get(timeout=1).headers['argsrepr'] == '(1, 2)'
            assert queue.get(timeout=1).headers['argsrepr'] == '(3, 4)'
            queue.close()
