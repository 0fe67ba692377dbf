"""Calling guide, retries of sending and connection errors (FEATURES §1.25)."""

from __future__ import annotations

import logging
import socket
import threading
import time

import brokers
import celery.exceptions
import kombu.exceptions
import pytest
from celery import Celery
from celery.utils.log import get_logger
from relay import Relay


@pytest.fixture
def nobody():
    """A task of an app whose broker refuses connections."""
    app = Celery("nobody", broker=f"amqp://guest:guest@127.0.0.1:{brokers.free_port()}//", set_as_current=False)

    @app.task(name="nobody.add")
    def add(x, y):
        return x + y

    yield add
    app.close()


@pytest.fixture
def relay(amqp_url):
    made = Relay(amqp_url)
    yield made
    made.cut()


@pytest.fixture
def box(boxes, relay):
    """Sends through the relay, reads without it."""
    made = boxes()
    made.app.conf.broker_url = relay.url
    yield made
    relay.cut()
    relay.open()  # what is unconfirmed wants to be sent before the app is closed
    made.app.close()


@pytest.fixture
def add(box):
    @box.app.task(name="row.add")
    def add(x, y):
        return x + y

    return add


def seconds_until_refused(task, **options):
    start = time.monotonic()
    with pytest.raises(kombu.exceptions.OperationalError):
        task.apply_async((1, 1), **options)
    return time.monotonic() - start


def test_c070_sent_when_the_broker_is_back(add, box, relay):
    relay.open()
    add.delay(1, 1)
    assert box.take().args == [1, 1]
    relay.cut()
    threading.Timer(0.3, relay.open).start()
    add.apply_async((2, 2), retry_policy={"max_retries": 50, "interval_start": 0.1})
    assert box.take().args == [2, 2]


def test_c070_setting(nobody):
    assert nobody.app.conf.task_publish_retry is True
    assert nobody.app.conf.task_publish_retry_policy == {
        "max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2}
    assert 0.3 <= seconds_until_refused(nobody) < 15  # X15: under a second, if the machine is not busy


def test_c070_setting_no_retry(nobody):
    nobody.app.conf.task_publish_retry_policy = {"max_retries": 0, "interval_start": 30, "interval_max": 30}
    assert seconds_until_refused(nobody) < 15


def test_c071_no_retry(nobody):
    """X16"""
    nobody.app.conf.task_publish_retry_policy = {"interval_start": 30, "interval_max": 30}
    assert seconds_until_refused(nobody, retry=False) < 4  # Celery takes six


def test_c072_c073_policy_is_merged_over_the_default(nobody):
    nobody.app.conf.task_publish_retry_policy = {"max_retries": 2, "interval_start": 0.3, "interval_step": 0, "interval_max": 1}
    assert 0.6 <= seconds_until_refused(nobody) < 15
    assert 0.3 <= seconds_until_refused(nobody, retry_policy={"max_retries": 1}) < 5
    assert seconds_until_refused(nobody, retry_policy={"max_retries": 0, "interval_start": 30, "interval_max": 30}) < 15


def test_c074_c075_c076_pauses(nobody):
    """interval_max is the longest pause of all, as documented (not longer than interval_start by so much): without it the second
    would take 21 seconds, the last 60."""
    policy = {"max_retries": 3, "interval_start": 0.2, "interval_step": 0.2, "interval_max": 0.3}
    assert 0.2 + 0.3 + 0.3 <= seconds_until_refused(nobody, retry_policy=policy) < 15
    policy = {"max_retries": 12, "interval_start": 0.1, "interval_step": 0.3, "interval_max": 0.1}
    assert 12 * 0.1 <= seconds_until_refused(nobody, retry_policy=policy) < 15
    policy = {"max_retries": 3, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 60}
    assert 0.1 + 0.3 + 0.5 <= seconds_until_refused(nobody, retry_policy=policy) < 15
    policy = {"max_retries": 2, "interval_start": 20, "interval_step": 20, "interval_max": 0.1}
    assert 0.1 + 0.1 <= seconds_until_refused(nobody, retry_policy=policy) < 15


def test_c073_retried_for_ever(add, box, relay):
    policy = {"max_retries": None, "interval_start": 0, "interval_step": 0.05, "interval_max": 0.05}
    sender = threading.Thread(target=add.apply_async, args=((3, 3),), kwargs={"retry_policy": policy}, daemon=True)
    sender.start()
    time.sleep(1)
    assert sender.is_alive()
    relay.open()
    assert box.take(timeout=20).args == [3, 3]
    sender.join(10)
    assert not sender.is_alive()


def test_c077_retry_errors(add, box, relay):
    assert kombu.exceptions.TimeoutError is socket.timeout
    relay.open()
    add.apply_async((1, 1), retry_policy={"retry_errors": (kombu.exceptions.TimeoutError,)})
    add.apply_async((2, 2), retry_policy={"retry_errors": None})
    assert [message.args for message in box.take_all(2)] == [[1, 1], [2, 2]]


def test_c078_the_error_and_its_names(nobody):
    assert nobody.OperationalError is kombu.exceptions.OperationalError is celery.exceptions.OperationalError
    try:
        nobody.apply_async((1, 1), retry_policy={"max_retries": 0})
    except nobody.OperationalError as exc:
        assert exc.__cause__ is not None
        assert str(exc)
    else:
        pytest.fail("sent to nobody")


def test_c079_connection_lost(add, relay):
    relay.open()
    add.delay(1, 1)
    relay.cut()
    with pytest.raises(add.OperationalError):
        for _ in range(50):  # the first may still fit into the buffers of a socket that is dead
            add.apply_async((2, 2), retry=False)
            time.sleep(0.05)


def test_c080_log_of_an_error(nobody, caplog):
    logger = get_logger("rows.sending")
    assert isinstance(logger, logging.Logger)
    try:
        nobody.apply_async((2, 2), retry_policy={"max_retries": 0})
    except nobody.OperationalError as exc:
        logger.exception("Sending task raised: %r", exc)
    (record,) = [record for record in caplog.records if record.name == "rows.sending"]
    assert record.getMessage().startswith("Sending task raised: OperationalError(")
    assert record.exc_info


def test_c081_dead_connections_are_replaced(add, box, relay):
    """A message whose confirm was cut off with its connection comes again: nothing else may come between."""
    relay.open()
    for number in range(3):
        add.delay(number, 0)
        seen = box.take().args
        while seen == [number - 1, 0]:
            seen = box.take().args
        assert seen == [number, 0]
        relay.cut()
        relay.open()
    assert relay.accepted >= 3
