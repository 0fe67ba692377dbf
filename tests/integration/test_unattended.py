"""What the broker has not confirmed is sent again although the program does not call us any more (D16)."""
from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import wait_until
from embedding import embedded, remove_names, take_names
from relay import Relay

from pyceleryc import Celery, _core

#: Seconds; far above what it takes.
SOON = 30.0


@pytest.fixture(params=['amqp', 'redis'])
def relay(request: Any, amqp_url: str, redis_url: str) -> Iterator[Relay]:
    made = Relay({'amqp': amqp_url, 'redis': redis_url}[request.param])
    made.open()
    yield made
    made.cut()


@pytest.fixture
def apps(relay: Any, unique: Callable[[str], str]) -> Iterator[tuple[Any, Any]]:
    """One by the relay, one past it, on the same queue."""
    made = []
    for url in (relay.url, relay.direct):
        app = Celery('unattended', broker=url, set_as_current=False)
        app.conf.task_default_queue = made[0].conf.task_default_queue if made else unique('unattended')
        app.task(name='t.add', shared=False)(lambda x: x)
        made.append(app)
    yield made[0], made[1]
    made[1].amqp.producer.remove(made[1].conf.task_default_queue, None)
    for app in made:
        app.close()


def size(app: Any) -> int:
    return app.amqp.producer.size(app.conf.task_default_queue, None)[0]


def threads() -> int:
    return len(list(Path('/proc/self/task').iterdir()))


def leave_one_unconfirmed(app: Any, relay: Relay) -> None:
    app.tasks['t.add'].delay(1)
    app.amqp.producer.flush(None)
    relay.hold()
    app.tasks['t.add'].delay(2)
    assert app.amqp.producer.unconfirmed() == 1


def test_sent_again(apps: Any, relay: Relay) -> None:
    app, direct = apps
    leave_one_unconfirmed(app, relay)
    relay.cut()
    time.sleep(0.3)  # there is no broker for a while
    assert size(direct) == 1 and app.amqp.producer.unconfirmed() == 1
    relay.open()
    wait_until(lambda: size(direct) == 2 and app.amqp.producer.unconfirmed() == 0)


def test_its_thread_ends_when_all_is_confirmed(apps: Any) -> None:
    app, _ = apps
    app.amqp.producer.connect(None)  # starts two threads of the relay
    before = threads()
    app.tasks['t.add'].delay(1)
    assert threads() == before + 1
    wait_until(lambda: app.amqp.producer.unconfirmed() == 0 and threads() == before)


def test_fork(apps: Any, relay: Relay) -> None:
    """The thread is not there during a fork, nor in the child; both sides go on."""
    app, direct = apps
    leave_one_unconfirmed(app, relay)
    with_it = threads()
    app.amqp.publisher.pause()
    assert threads() == with_it - 1
    app.amqp.publisher.resume()
    assert threads() == with_it
    child = os.fork()
    if child == 0:
        direct.tasks['t.add'].delay(3)
        direct.amqp.producer.flush(None)
        os._exit(threads())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (1, 2)  # the second: it has a thread of its own
    assert size(direct) == 2
    relay.cut()
    relay.open()
    wait_until(lambda: size(direct) == 3 and app.amqp.producer.unconfirmed() == 0)


def wait_for_more(sent: list[int], wanted: int) -> None:
    wait_until(lambda: len(sent) >= min(wanted, 150))


def test_busy_program(apps: Any, relay: Relay) -> None:
    """Many threads publish and fork while connections break: nothing is lost."""
    app, direct = apps
    sent = []

    def publish() -> None:
        for number in range(50):
            app.tasks['t.add'].delay(number)
            sent.append(number)
            time.sleep(0.01)

    app.tasks['t.add'].delay(0)  # connected: from now on a lost connection is waited for
    publishers = [threading.Thread(target=publish) for _ in range(3)]
    for thread in publishers:
        thread.start()
    for _ in range(5):
        child = os.fork()
        if child == 0:
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        relay.cut()
        time.sleep(0.05)
        before = len(sent)
        relay.open()
        wait_for_more(sent, before + 10)
    for thread in publishers:
        thread.join(SOON)
    wait_until(lambda: app.amqp.producer.unconfirmed() == 0)
    assert len(sent) == 150 and size(direct) >= 151


def test_producer_that_ends_in_the_child(apps: Any) -> None:
    """Its thread is the parent's, and was: a producer that nobody told of the fork."""
    config = apps[0].amqp.publisher.config
    producer = _core.Producer(config)
    producer.publish('', apps[0].conf.task_default_queue, b'', {}, {}, False, None, None)
    child = os.fork()
    if child == 0:
        del producer
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    producer.close(None)


def test_what_the_broker_refuses_is_logged(amqp_url: str, unique: Callable[[str], str], caplog: pytest.LogCaptureFixture) -> None:
    """A message for an exchange that is not there, one for a queue that is not: the next use of the publisher tells."""
    app = Celery('unattended', broker=amqp_url, set_as_current=False)
    producer = app.amqp.producer
    try:
        producer.publish('no-such-exchange', 'k', b'', {}, {}, False, None, None)
        producer.publish('', unique('no-such-queue'), b'', {}, {}, True, None, None)
        wait_until(lambda: producer.unconfirmed() == 0 and len(caplog.records) == 2)
        refused, returned = caplog.records
        assert refused.levelname == 'ERROR' and "no exchange 'no-such-exchange'" in refused.getMessage()
        assert returned.levelname == 'WARNING' and 'NO_ROUTE' in returned.getMessage()
        with pytest.raises(_core.CoreError, match='no-such-exchange'):
            producer.flush(None)
    finally:
        app.close()


@pytest.mark.filterwarnings('error::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize('waits', [False, True], ids=['at once', 'waits'])  # and so the refusal is there before the task ends
@pytest.mark.parametrize('acks_late', [False, True])
@pytest.mark.parametrize('pool', ['solo', 'asyncio'])
def test_what_a_task_has_sent_in_vain_is_logged(
        amqp_url: str, unique: Callable[[str], str], caplog: pytest.LogCaptureFixture, pool: str, acks_late: bool, waits: bool) -> None:
    app = Celery('unattended', broker=amqp_url, set_as_current=False)
    queue = unique('unattended')
    take_names(app, queue)

    def body() -> None:
        app.send_task('t.nothing', exchange='no-such-exchange', routing_key='k')
        wait_until(lambda: not waits or app.amqp.producer.unconfirmed() == 0)

    async def coroutine() -> None:
        body()

    send = app.task(acks_late=acks_late, shared=False)(coroutine if pool == 'asyncio' else body)

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if 'no-such-exchange' in record.getMessage()]

    try:
        with embedded(app, pool=pool):
            send.delay()
            wait_until(lambda: told() != [])
        assert len(told()) == 1 and told()[0].startswith('A message was refused and is lost: ')
    finally:
        app.close()
        remove_names(amqp_url, queue)
