"""Ctrl-C, and any signal whose handler raises, ends a publish that waits: at once, not at its deadline."""
from __future__ import annotations

import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from brokers import free_port
from relay import Relay
from senders import NewSender, new_sender  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures('before')

#: Seconds; far above what a signal takes on the busiest machine, far below the deadline.
SOON, DEADLINE = 20, 50


class Stop(Exception):
    """Raised by the handler: an Exception, as SoftTimeLimitExceeded is."""


@pytest.fixture
def app(new_sender: NewSender) -> Callable[..., Any]:
    return lambda url, **options: new_sender(url, DEADLINE, **options)


@pytest.fixture
def mute() -> Iterator[int]:
    """A port that accepts and says nothing."""
    with closing(socket.create_server(('127.0.0.1', 0))) as server:
        yield server.getsockname()[1]


@pytest.fixture
def before() -> Iterator[None]:
    """Puts the handler of SIGUSR1 back."""
    old = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGUSR1, old)


@contextmanager
def repeated(over: threading.Event, seconds: float) -> Iterator[None]:
    """SIGUSR1 again and again, until `over`."""
    def send() -> None:
        while not over.wait(seconds):
            os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def interrupted(exc: BaseException) -> Iterator[None]:
    """A signal whose handler raises `exc` ends what is done within, soon."""
    over = threading.Event()

    def handler(*_: Any) -> None:
        if not over.is_set():
            over.set()
            raise exc

    signal.signal(signal.SIGUSR1, handler)
    start = time.monotonic()
    with pytest.raises(type(exc)), repeated(over, 0.3):
        yield
    assert time.monotonic() - start < SOON


@pytest.mark.parametrize('exc', [KeyboardInterrupt(), Stop()], ids=['ctrl-c', 'soft-limit'])
@pytest.mark.parametrize('scheme', ['amqp', 'redis'])
def test_while_connecting(app: Any, mute: int, scheme: str, exc: BaseException) -> None:
    task = app(f'{scheme}://127.0.0.1:{mute}').tasks['t.add']
    with interrupted(exc):
        task.delay(1)


def test_while_nobody_is_there(app: Any) -> None:
    """Between two attempts to connect; the retry policy would go on for ever."""
    task = app(f'amqp://127.0.0.1:{free_port()}').tasks['t.add']
    with interrupted(KeyboardInterrupt()):
        task.apply_async((1,), retry_policy={'max_retries': None, 'interval_start': 0.05})


def test_while_sqlite_is_locked(app: Any, tmp_path: Path) -> None:
    made = app(f'sqlite:///{tmp_path}/queue.db')
    task = made.tasks['t.add']
    task.delay(1)
    with open(tmp_path / 'queue.db-lock', 'rb') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with interrupted(Stop()):
            task.delay(2)
    assert task.delay(3)
    assert made.amqp.producer.size('celery', None)[0] == 2


@pytest.fixture
def relay(amqp_url: str) -> Iterator[Relay]:
    made = Relay(amqp_url)
    made.open()
    yield made
    made.cut()


@pytest.mark.parametrize('options', [{'publish_window': 5}, {'confirm_publish': True}], ids=['window-full', 'confirm'])
def test_while_confirms_are_missing(
    app: Any, relay: Relay, amqp_url: str, unique: Any, options: Any,
) -> None:
    made = app(relay.url, **options)
    made.conf.task_default_queue = unique('interrupt')
    task = made.tasks['t.add']
    task.delay(0)
    relay.silence()
    with interrupted(Stop()):
        for number in range(1, 100):
            task.delay(number)
    relay.speak()
    task.delay(100)
    made.amqp.producer.flush(None)
    made.amqp.producer.remove(made.conf.task_default_queue, None)


def test_a_handler_that_returns_changes_nothing(app: Any, relay: Relay, unique: Any) -> None:
    """The message is neither sent twice nor lost, and the handler may publish, too."""
    made = app(relay.url, confirm_publish=True)
    made.conf.task_default_queue = unique('interrupt')
    task = made.tasks['t.add']
    task.delay(0)
    calls = []

    def handler(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            relay.speak()
            task.delay('handler')

    signal.signal(signal.SIGUSR1, handler)
    relay.silence()
    with repeated(threading.Event(), 0.1):
        task.delay(1)
    assert len(calls) >= 3
    assert made.amqp.producer.size(made.conf.task_default_queue, None)[0] == 3
    made.amqp.producer.remove(made.conf.task_default_queue, None)
