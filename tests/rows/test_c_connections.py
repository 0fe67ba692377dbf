"""Calling guide, connections (FEATURES §1.28)."""

from __future__ import annotations

import os
import threading

import pytest
from celery import Celery, group
from relay import Relay

NUMBERS = [(2, 2), (4, 4), (8, 8), (16, 16)]


@pytest.fixture
def add(box):
    @box.app.task(name="row.add")
    def add(x, y=0):
        return x + y

    return add


def test_c130_settings(box):
    conf = box.app.conf
    assert conf.broker_pool_limit == 10
    assert box.app.pool.limit == 10
    assert Celery("p", broker="memory://", set_as_current=False, broker_pool_limit=3).pool.limit == 3


def test_c130_acquire_timeout(box):
    assert box.app.conf.broker_pool_acquire_timeout is None


@pytest.mark.parametrize("limit", [0, None, 1])
def test_c130_without_pooling(boxes, limit):
    box = boxes(broker_pool_limit=limit)
    for number in range(3):
        box.app.send_task("row.any", (number,))
    assert [message.args for message in box.take_all(3)] == [[0], [1], [2]]


def test_c130_one_connection_for_many_messages(amqp_url, boxes):
    relay = Relay(amqp_url)
    relay.open()
    box = boxes()
    box.app.conf.broker_url = relay.url
    for number in range(20):
        box.app.send_task("row.any", (number,))
    assert [message.args for message in box.take_all(20)] == [[number] for number in range(20)]
    assert relay.accepted == 1
    box.app.close()
    relay.cut()


def test_c131_pool_acquire(box, add):
    with box.app.pool.acquire(block=True) as connection:
        add.apply_async((1,), connection=connection)
        connection.ensure_connection(max_retries=1)
    assert box.take().args == [1]


def test_c132_get_publisher(box, add):
    """X14: the example of the guide."""
    results = []
    with box.app.pool.acquire(block=True) as connection:
        with add.get_publisher(connection) as publisher:
            for args in NUMBERS:
                results.append(add.apply_async(args, publisher=publisher))
    messages = box.take_all(4)
    assert [tuple(message.args) for message in messages] == NUMBERS
    assert [message.headers["id"] for message in messages] == [result.id for result in results]


def test_c133_producer_and_connection(box, add):
    with box.app.producer_pool.acquire(block=True) as producer:
        add.apply_async((1,), producer=producer)
        add.apply_async((2,), publisher=producer)
    with box.app.connection_for_write() as connection:
        add.apply_async((3,), connection=connection)
        add.apply_async((4,), connection=connection, countdown=1)
    with box.app.producer_or_acquire() as producer:
        add.s(5).apply_async(producer=producer)
        group(add.s(6), add.s(7)).apply_async(producer=producer)
        (add.s(8) | add.s(9)).apply_async(producer=producer)
        box.app.send_task("row.add", (10,), producer=producer)
    assert sorted(message.args[0] for message in box.take_all(9)) == [1, 2, 3, 4, 5, 6, 7, 8, 10]


def test_c133_one_tcp_connection(amqp_url, boxes):
    relay = Relay(amqp_url)
    relay.open()
    box = boxes()
    box.app.conf.broker_url = relay.url
    with box.app.connection_for_write() as connection, box.app.amqp.Producer(connection) as producer:
        for number in range(5):
            box.app.send_task("row.any", (number,), producer=producer)
    assert [message.args for message in box.take_all(5)] == [[number] for number in range(5)]
    assert relay.accepted == 1
    relay.cut()


def test_c134_group_instead(running):
    add = running.tasks.add
    assert group(add.s(i, j) for i, j in NUMBERS).apply_async().get(timeout=15) == [4, 8, 16, 32]


def test_c135_threads(box, add):
    def send(first):
        for number in range(first, first + 25):
            add.delay(number)

    threads = [threading.Thread(target=send, args=(100 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(message.args[0] for message in box.take_all(100)) == sorted(
        100 * index + number for index in range(4) for number in range(25))


def test_c135_fork(box, add):
    """The child has connections of its own; the parent's stay in order."""
    add.delay(1)
    assert box.take().args == [1]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            add.delay(2)
            box.app.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert box.take().args == [2]
    add.delay(3)
    assert box.take().args == [3]
