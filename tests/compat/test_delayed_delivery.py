"""Quorum queues: what is sent with an ETA arrives in time, whoever sends and whoever works (PROTOCOL 3.9)."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import fleet
import pytest
from embedding import embedded
from kombu import Exchange, Queue

from pyceleryc import Celery
from pyceleryc.app.delayed import declare_delayed
from pyceleryc.exceptions import ImproperlyConfigured

pytestmark = pytest.mark.long

QUIET = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
SEND = """
from celery import Celery
from kombu import Exchange, Queue
app = Celery(broker={url!r})
app.conf.task_queues = [Queue({queue!r}, Exchange({queue!r}, type="topic"), routing_key={queue!r},
                              queue_arguments={{"x-queue-type": "quorum"}})]
app.conf.task_default_queue = {queue!r}
app.send_task("delayed.note", (1,), countdown=3)
"""


def make_app(url: str, queue: str) -> Celery:
    app = Celery("delayed", broker=url, backend="cache+memory://", set_as_current=False)
    app.conf.task_queues = [Queue(queue, Exchange(queue, type="topic"), routing_key=queue,
                                  queue_arguments={"x-queue-type": "quorum"})]
    app.conf.update(task_default_queue=queue, control_exchange=f"{queue}-control", event_exchange=f"{queue}-events")
    return app


def test_sent_by_celery(amqp_url: str, unique: Callable[[str], str]) -> None:
    queue = unique("delayed")
    app = make_app(amqp_url, queue)
    seen: list[tuple[float, str]] = []

    @app.task(name="delayed.note", bind=True)
    def note(self: object, number: int) -> None:
        seen.append((time.monotonic(), self.request.delivery_info["exchange"]))  # type: ignore[attr-defined]

    with embedded(app, pool="threads", concurrency=1, **QUIET) as worker:
        deadline = time.monotonic() + 20
        while worker.consumer.blueprint.started < len(worker.consumer.steps):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        before = time.monotonic()
        subprocess.run([fleet.theirs().python, "-c", SEND.format(url=amqp_url, queue=queue)], check=True, timeout=40)
        while not seen:
            assert time.monotonic() < deadline + 20
            time.sleep(0.05)
    assert seen[0][0] - before >= 2.5, "not before its time"
    assert seen[0][1].startswith("celery_delayed_"), "and not from the worker's memory"
    with app.connection_for_write() as connection:
        for name in (queue, f"{queue}-events", f"{queue}-control.pidbox", f"reply.{queue}-control.pidbox"):
            connection.default_channel.exchange_delete(name)
    app.amqp.producer.remove(queue, 5.0)
    app.close()


def test_bad_setting(amqp_url: str, unique: Callable[[str], str]) -> None:
    queue = unique("delayed")
    app = make_app(amqp_url, queue)
    app.conf.broker_native_delayed_delivery_queue_type = "stream"
    with pytest.raises(ImproperlyConfigured, match="has to be one of classic, quorum"):
        app.WorkController(app, "w@here", pool="solo", **QUIET).start()
    app.amqp.producer.remove(queue, 5.0)
    with app.connection_for_write() as connection:
        connection.default_channel.exchange_delete(queue)
    app.close()


@contextmanager
def environment(amqp_url: str, redis_url: str, queue: str) -> Iterator[dict[str, str]]:
    """Of both sides' processes with tests/delayed_tasks.py; what they declare is deleted."""
    yield fleet.ours().env(amqp_url, redis_url, queue, FLEET_APP="delayed_tasks")
    with make_app(amqp_url, queue).connection_for_write() as connection:
        channel = connection.default_channel
        channel.queue_delete(queue)
        for name in (queue, f"{queue}-events", f"{queue}-control.pidbox", f"reply.{queue}-control.pidbox"):
            channel.exchange_delete(name)


def test_sent_to_celery_before_it_runs(amqp_url: str, redis_url: str, unique: Callable[[str], str]) -> None:
    """The sender declares what leads to the queue: the broker would drop the task if no worker had done that yet."""
    with environment(amqp_url, redis_url, unique("delayed")) as env:
        task_id = fleet.ours().client("result = tasks.where.apply_async(countdown=1.5).id", env)
        time.sleep(2.0)  # its time comes before there is a worker
        with fleet.theirs().worker(env, "-c", "1"):
            script = f"result = tasks.app.AsyncResult({task_id!r}).get(timeout=20)"
            assert fleet.ours().client(script, env)[0].startswith("celery_delayed_")


def test_retry_is_delayed_too(amqp_url: str, redis_url: str, unique: Callable[[str], str]) -> None:
    with environment(amqp_url, redis_url, unique("delayed")) as env, fleet.ours().worker(env, "-c", "1"):
        script = "result = tasks.where.apply_async((1.5,), countdown={}).get(timeout=30)"
        for first in (0, 1.5):  # a retry is sent as the message came: from the queue's exchange, or from the delay
            exchange, retries = fleet.ours().client(script.format(first), env)
            assert exchange.startswith("celery_delayed_") and retries == 1


def test_queues_of_another_type_are_there(amqp_url: str, unique: Callable[[str], str]) -> None:
    """The exchanges belong to the broker: whoever came first has chosen the type of the queues."""
    queue = unique("delayed")
    app = make_app(amqp_url, queue)
    with app.connection_for_write() as connection:
        app.amqp.queues[queue](connection.default_channel).declare()
        declare_delayed(app, connection, app.amqp.queues.values())
    app.conf.broker_native_delayed_delivery_queue_type = "classic"
    app.send_task("delayed.note", (1,), countdown=1.5)
    deadline = time.monotonic() + 20
    with app.connection_for_write() as connection:
        bound = app.amqp.queues[queue](connection.default_channel)
        while (message := bound.get()) is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        message.ack()
        assert message.headers["task"] == "delayed.note"
        bound.delete()
        connection.default_channel.exchange_delete(queue)
    app.close()
