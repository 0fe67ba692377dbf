"""A broker that is killed, stopped or takes nothing while tasks are published: nothing lost, nothing hangs (D16, X16)."""
from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from broker_killed import kill_while_publishing
from brokers import PrivateRabbitMQ
from commands import wait_until
from fleet import ours
from kombu.exceptions import OperationalError
from senders import NewSender, new_sender  # noqa: F401  a fixture

#: Seconds: the deadline, and what a busy machine may add to it.
DEADLINE, SLACK = 1.0, 10.0
WINDOW = 20


@pytest.fixture
def server(breakable_rabbitmq: PrivateRabbitMQ) -> PrivateRabbitMQ:
    return breakable_rabbitmq


@pytest.fixture
def new_app(server: PrivateRabbitMQ, new_sender: NewSender) -> Callable[..., Any]:
    return functools.partial(new_sender, server.url, DEADLINE, publish_window=WINDOW)


def seconds_until_refused(function: Callable[[], Any], match: str) -> float:
    start = time.monotonic()
    with pytest.raises(OperationalError, match=match):
        for _ in range(WINDOW + 1):
            function()
    return time.monotonic() - start


def check_refusals(app: Any, match: str) -> int:
    """A connected app: what fits into the window is taken, then there is an error, in time, and at once if so wanted.
    Returns how many were taken; some may be confirmed before the broker stalls."""
    task, taken = app.tasks['t.add'], []
    assert DEADLINE / 2 < seconds_until_refused(lambda: taken.append(task.delay(1)), match) < DEADLINE + SLACK
    held = app.amqp.producer.unconfirmed()
    assert 0 < held <= len(taken) <= WINDOW
    # A busy machine may take its time once, but not always.
    assert min(seconds_until_refused(lambda: task.apply_async((1,), retry=False), match) for _ in range(3)) < DEADLINE / 2
    assert seconds_until_refused(lambda: app.send_many([task.s(1), task.s(2)]), match) < DEADLINE + SLACK
    assert app.amqp.producer.unconfirmed() == held
    return len(taken)


@pytest.mark.limit(120)
def test_stopped(server: PrivateRabbitMQ, new_app: Callable[..., Any]) -> None:
    connected, waiting, cold = new_app(), new_app(confirm_publish=True), new_app()
    for app in (connected, waiting):
        app.tasks['t.add'].delay(0)
    connected.amqp.producer.flush(None)
    server.pause()
    try:
        check_refusals(connected, 'too slow|not confirmed')
        assert seconds_until_refused(lambda: waiting.tasks['t.add'].delay(1), 'not confirmed in time') < DEADLINE + SLACK
        assert seconds_until_refused(
            lambda: cold.tasks['t.add'].apply_async((1,), retry=False), 'connection|time') < DEADLINE + SLACK
    finally:
        server.resume()
    connected.amqp.producer.flush(30)
    assert connected.amqp.producer.unconfirmed() == 0


@pytest.mark.limit(120)
def test_blocked_for_want_of_memory(server: PrivateRabbitMQ, new_app: Callable[..., Any]) -> None:
    """RabbitMQ blocks a connection when it publishes while the alarm is on."""
    app = new_app()
    app.tasks['t.add'].delay(0)
    app.amqp.producer.flush(None)
    before = app.amqp.producer.size('celery', None)[0]
    server.ctl('set_vm_memory_high_watermark', '0')
    try:
        taken = check_refusals(app, 'takes no messages|too slow')
        assert seconds_until_refused(lambda: app.tasks['t.add'].delay(1), 'takes no messages now .*low on memory') < DEADLINE + SLACK
    finally:
        server.ctl('set_vm_memory_high_watermark', '0.7')
    app.amqp.producer.flush(30)
    assert app.amqp.producer.size('celery', None)[0] == before + taken


@pytest.mark.limit(240)
def test_killed(server: PrivateRabbitMQ, unique: Callable[[str], str], tmp_path: Path) -> None:
    """Small; tests/soak/soak_broker_killed.py is large, and compares with Celery."""
    assert kill_while_publishing(ours(), server, unique('killed'), 3000, tmp_path, 120) == set()


@pytest.mark.limit(120)
@pytest.mark.parametrize('kind', ['early', 'late'])
def test_confirms_of_what_a_task_sends(
        kind: str, server: PrivateRabbitMQ, redis_url: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    """A late ack waits for them, and so does the outcome; an early one does not, and nothing is lost either."""
    side, marks = ours(), tmp_path / 'marks'
    marks.touch()
    env = side.env(server.url, redis_url, unique('confirms'), FLEET_MARKS=str(marks))
    script = f"""
from celery.exceptions import TimeoutError
sent = tasks.{kind}_sender.delay({server.pid}, 7)
try:
    result = sent.get(timeout={30 if kind == 'early' else 5})
except TimeoutError:
    result = "waits"
"""
    with side.worker(env, '-c', '1'):
        try:
            assert side.client(script, env) == {'early': 'sent', 'late': 'waits'}[kind]
            assert '7' not in marks.read_text().split()
        finally:
            server.resume()
        wait_until(lambda: sorted(marks.read_text().split()) == ['0', '7'])

