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


class Valve:
    """A relay to RabbitMQ that can stop to pass on what the broker says."""

    def __init__(self, url: str) -> None:
        self.open = threading.Event()
        self.open.set()
        target = url.partition('@')[2].partition('/')[0].partition(':')
        self.target = target[0], int(target[2] or 5672)
        self.server = socket.create_server(('127.0.0.1', 0))
        self.url = f'amqp://guest:guest@127.0.0.1:{self.server.getsockname()[1]}//'
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        client, _ = self.server.accept()
        broker = socket.create_connection(self.target)
        threading.Thread(target=self._copy, args=(client, broker, False), daemon=True).start()
        self._copy(broker, client, True)

    def _copy(self, source: socket.socket, sink: socket.socket, waits: bool) -> None:
        try:
            while data := source.recv(65536):
                if waits:
                    self.open.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the other end is gone: so is the test


@pytest.fixture
def valve(amqp_url: str) -> Iterator[Valve]:
    made = Valve(amqp_url)
    yield made
    made.open.set()
    made.server.close()


@pytest.mark.parametrize('options', [{'publish_window': 5}, {'confirm_publish': True}], ids=['window-full', 'confirm'])
def test_while_confirms_are_missing(
    app: Any, valve: Valve, amqp_url: str, unique: Any, options: Any,
) -> None:
    made = app(valve.url, **options)
    made.conf.task_default_queue = unique('interrupt')
    task = made.tasks['t.add']
    task.delay(0)
    valve.open.clear()
    with interrupted(Stop()):
        for number in range(1, 100):
            task.delay(number)
    valve.open.set()
    task.delay(100)
    made.amqp.producer.flush(None)
    made.amqp.producer.remove(made.conf.task_default_queue, None)


def test_a_handler_that_returns_changes_nothing(app: Any, valve: Valve, unique: Any) -> None:
    """The message is neither sent twice nor lost, and the handler may publish, too."""
    made = app(valve.url, confirm_publish=True)
    made.conf.task_default_queue = unique('interrupt')
    task = made.tasks['t.add']
    task.delay(0)
    calls = []

    def handler(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            valve.open.set()
            task.delay('handler')

    signal.signal(signal.SIGUSR1, handler)
    valve.open.clear()
    with repeated(threading.Event(), 0.1):
        task.delay(1)
    assert len(calls) >= 3
    assert made.amqp.producer.size(made.conf.task_default_queue, None)[0] == 3
    made.amqp.producer.remove(made.conf.task_default_queue, None)
