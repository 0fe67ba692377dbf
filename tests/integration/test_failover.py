"""Several broker URLs: publishers and workers go to the next one when theirs is gone."""
from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from brokers import free_port
from fleet import ours
from relay import Relay

from pyceleryc import Celery
from pyceleryc.app.drivers import failover
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.worker.brokers import Brokers

pytestmark = pytest.mark.long


@pytest.fixture
def relay(amqp_url: str) -> Iterator[Relay]:
    made = Relay(amqp_url)
    made.open()
    yield made
    made.cut()


@pytest.mark.limit(120)
def test_worker_and_client_go_on_with_the_next_broker(
    relay: Relay, amqp_url: str, redis_url: str, unique: Callable[[str], str],
) -> None:
    """The first broker is one that is not there, the second is cut off while the worker runs."""
    side, queue = ours(), unique('failover')
    nobody = f'amqp://guest:secret@127.0.0.1:{free_port()}//'
    env = side.env(f'{nobody};{relay.url};{amqp_url}', redis_url, queue)
    with side.worker(env) as worker:
        assert side.client('result = tasks.add.delay(1, 2).get(timeout=30)', env) == 3
        assert relay.accepted > 0
        relay.cut()
        assert side.client('result = tasks.add.delay(2, 2).get(timeout=30)', env) == 4
        # The chain's second task is published by the worker's child.
        assert side.client('result = (tasks.add.s(2, 2) | tasks.add.s(1)).delay().get(timeout=30)', env) == 5
        # Others may be at the same broker.
        found = side.client('result = [name for reply in tasks.app.control.ping(timeout=3) for name in reply]', env)
        text = worker.text()
    assert [name for name in found if worker.log.stem[-8:] in name]
    assert f'Connected to amqp://guest:**@127.0.0.1:{relay.port}//' in text
    assert text.count('Will try the next broker: ') >= 2
    assert 'secret' not in text
    side.client(f'tasks.app.amqp.producer.remove({queue!r}, 5.0)\nresult = None', side.env(amqp_url, None, queue))


@pytest.mark.limit(120)
def test_both_lists_may_be_lists(relay: Relay, amqp_url: str, unique: Callable[[str], str]) -> None:
    app = Celery('failover', set_as_current=False)
    app.conf.update(broker_url=[relay.url, amqp_url], task_default_queue=unique('failover'),
                    broker_failover_strategy='shuffle', broker_transport_options={'publish_timeout': 1})
    task = app.task(name='t.add', shared=False)(lambda x: x)
    task.delay(1)
    app.amqp.producer.flush(10)
    relay.cut()
    time.sleep(0.2)  # by now the end of the connection is there to be seen
    task.apply_async((2,), retry_policy={'max_retries': 20, 'interval_start': 0.05, 'interval_step': 0})
    assert app.amqp.producer.size(app.conf.task_default_queue, 5)[0] == 2
    app.amqp.producer.remove(app.conf.task_default_queue, 5)
    app.close()


def test_what_the_first_broker_has_not_confirmed_is_kept_for_it(
    relay: Relay, amqp_url: str, unique: Callable[[str], str],
) -> None:
    app = Celery('failover', broker=f'{relay.url};{amqp_url}', set_as_current=False)
    app.conf.update(task_default_queue=unique('failover'), broker_transport_options={'publish_timeout': 1})
    task = app.task(name='t.add', shared=False)(lambda x: x)
    task.delay(0)
    app.amqp.producer.flush(10)
    relay.hold()
    for number in range(5):
        task.delay(number)
    assert app.amqp.producer.unconfirmed() == 5
    relay.cut()
    task.apply_async((5,), retry_policy={'max_retries': 20, 'interval_start': 0.05, 'interval_step': 0})
    relay.open()
    app.amqp.publisher.flush(10)
    core, seen = app.amqp.producer, set()
    while (message := core.get(app.conf.task_default_queue, 5)) is not None:
        seen.add(json.loads(message[0])[0][0])
    assert seen == set(range(6))
    core.remove(app.conf.task_default_queue, 5)
    app.close()


def test_strategies() -> None:
    assert list(itertools.islice(failover(['a', 'b', 'c'], None), 4)) == ['b', 'c', 'a', 'b']
    assert set(itertools.islice(failover(['a', 'b'], 'shuffle'), 20)) == {'a', 'b'}
    given = failover(['a', 'b', 'c'], lambda servers: itertools.cycle(reversed(servers)))
    assert list(itertools.islice(given, 3)) == ['b', 'a', 'c']
    with pytest.raises(ImproperlyConfigured, match="'nearest' is unknown: use one of round-robin, shuffle"):
        failover(['a'], 'nearest')


def test_other_brokers_stay_with_the_first(caplog: pytest.LogCaptureFixture) -> None:
    app: Any = Celery('failover', broker='redis://:secret@h1/0;amqp://h2//', set_as_current=False)
    brokers = Brokers(app)
    assert brokers.next() is None
    assert brokers.url == 'redis://:secret@h1/0'
    assert 'uses redis://:**@h1:6379/0 only' in caplog.text
    assert json.dumps(brokers.core_config()['host']) == '"h1"'
