"""Which messages with an ETA RabbitMQ keeps, and how these are addressed (PROTOCOL 3.9). What arrives: tests/compat."""

from __future__ import annotations

import time
from typing import Any

import pytest
from kombu import Exchange, Queue
from kombu.common import Broadcast
from kombu.exceptions import OperationalError

from pyceleryc import Celery, signals
from pyceleryc.app.delayed import Delayed

QUORUM = {"x-queue-type": "quorum"}
FIVE = "0." * 25 + "1.0.1."


def make(*queues: Queue) -> tuple[Celery, Delayed]:
    app = Celery("delayed", broker="amqp://nobody:@127.0.0.1:1//", set_as_current=False)
    app.conf.update(task_queues=list(queues), task_default_queue=queues[0].name, task_publish_retry=False)
    assert list(app.amqp.queues.values()) == list(queues)
    delayed = app.amqp._delayed
    delayed.reached.update(queue.name for queue in queues)  # as if they were declared: there is no broker
    return app, delayed


def topic(name: str, arguments: Any = QUORUM) -> Queue:
    return Queue(name, Exchange(f"{name}-x", type="topic"), routing_key=f"{name}.key", queue_arguments=arguments)


def test_address() -> None:
    queue = topic("q")
    _, delayed = make(queue)
    assert delayed.route(time.time() + 5.5, queue, "q-x", "q.key") == ("celery_delayed_27", f"{FIVE}q.key")


@pytest.mark.parametrize("seconds", [0.5, 0, -3])
def test_not_worth_a_delay(seconds: float) -> None:
    queue = topic("q")
    _, delayed = make(queue)
    assert delayed.route(time.time() + seconds, queue, "q-x", "q.key") == ("q-x", "q.key")


def test_very_long_delays_have_28_digits() -> None:
    queue = topic("q")
    _, delayed = make(queue)
    assert delayed.route(time.time() + 2 ** 28 + 7, queue, "q-x", "q.key")[1] == "1." * 28 + "q.key"


def test_queues_that_cannot_be_led_to() -> None:
    direct = Queue("d", Exchange("d"), routing_key="d", queue_arguments=QUORUM)
    broadcast = Broadcast("b")
    classic = topic("c", None)
    _, delayed = make(direct, broadcast, classic)
    due = time.time() + 5.5
    assert delayed.route(due, direct, "", "d") == ("", "d")
    assert delayed.route(due, broadcast, "b", "") == ("b", "")
    assert delayed.route(due, classic, "c-x", "c.key")[0] == "celery_delayed_27", "another queue is a quorum queue: as Celery"
    assert delayed.route(due, None, "foreign", "key") == ("foreign", "key"), "nobody has bound that"
    assert delayed.route(due, classic, "c-x", "other.key") == ("c-x", "other.key"), "delayed it would not reach the queue"


def test_no_quorum_queue() -> None:
    queue = topic("q", None)
    _, delayed = make(queue)
    assert delayed.route(time.time() + 5.5, queue, "q-x", "q.key") == ("q-x", "q.key")


def test_retry_of_a_delayed_message() -> None:
    _, delayed = make(topic("q"))
    came = "1." * 28 + "q.key"
    assert delayed.route(time.time() + 5.5, None, "celery_delayed_delivery", came) == ("celery_delayed_27", f"{FIVE}q.key")
    assert delayed.route(time.time(), None, "celery_delayed_0", came) == ("celery_delayed_0", came)


def test_send_task_uses_it() -> None:
    app, _ = make(topic("q"))
    seen: list[tuple[str, str]] = []

    def note(exchange: str, routing_key: str, **_: Any) -> None:
        seen.append((exchange, routing_key))

    signals.before_task_publish.connect(note)
    try:
        for options in ({"countdown": 5.5}, {}):
            with pytest.raises(OperationalError):
                app.send_task("a.b", **options)
    finally:
        signals.before_task_publish.disconnect(note)
        app.close()
    assert seen == [("celery_delayed_27", f"{FIVE}q.key"), ("q-x", "q.key")]
