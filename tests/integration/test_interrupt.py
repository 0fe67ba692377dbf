"""Ctrl-C, and any signal whose handler raises, ends a publish that waits: at once, not at its deadline."""
from __future__ import annotations

import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from brokers import free_port

from pyceleryc import Celery

#: Seconds; far above what a signal takes on the busiest machine, far below the deadline.
SOON, DEADLINE = 20, 50


class Stop(Exception):
    """Raised by the handler: an Exception, as SoftTimeLimitExceeded is."""


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    made = []

    def make(url: str, **options: Any) -> Any:
        app = Celery('interrupt', broker=url, set_as_current=False)
        app.conf.broker_transport_options = {'publish_timeout': DEADLINE, **options}
        app.conf.broker_connection_timeout = DEADLINE
        app.task(name='t.add', shared=False)(lambda x: x)
        made.append(app)
        return app

    yield make
    for app in made:
        if app.amqp.publisher.current is not None:
            app.amqp.publisher.current.abandon()


@pytest.fixture
def mute() -> Iterator[int]:
    """A port that accepts and says nothing."""
    with closing(socket.create_server(('127.0.0.1', 0))) as server:
        yield server.getsockname()[1]


@pytest.fixture
def raising() -> Iterator[Callable[[BaseException], None]]:
    """Makes SIGUSR1 raise, and sends it again and again from now on."""
    over = threading.Event()

    def start(exc: BaseException) -> None:
        def handler(*_: Any) -> None:
            over.set()
            raise exc

        signal.signal(signal.SIGUSR1, handler)

        def send() -> None:
            while not over.wait(0.3):
                os.kill(os.getpid(), signal.SIGUSR1)

        threading.Thread(target=send, daemon=True).start()

    yield start
    over.set()
    time.sleep(0.01)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


@pytest.mark.parametrize('exc', [KeyboardInterrupt(), Stop()], ids=['ctrl-c', 'soft-limit'])
@pytest.mark.parametrize('scheme', ['amqp', 'redis'])
def test_while_connecting(app: Any, mute: int, raising: Any, scheme: str, exc: BaseException) -> None:
    task = app(f'{scheme}://127.0.0.1:{mute}').tasks['t.add']
    raising(exc)
    start = time.monotonic()
    with pytest.raises(type(exc)):
        task.delay(1)
    assert time.monotonic() - start < SOON


def test_while_nobody_is_there(app: Any, raising: Any) -> None:
    """Between two attempts to connect; the retry policy would go on for ever."""
    task = app(f'amqp://127.0.0.1:{free_port()}').tasks['t.add']
    raising(KeyboardInterrupt())
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        task.apply_async((1,), retry_policy={'max_retries': None, 'interval_start': 0.05})
    assert time.monotonic() - start < SOON


def test_while_sqlite_is_locked(app: Any, tmp_path: Path, raising: Any) -> None:
    made = app(f'sqlite:///{tmp_path}/queue.db')
    task = made.tasks['t.add']
    task.delay(1)
    with open(tmp_path / 'queue.db-lock', 'rb') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        raising(Stop())
        start = time.monotonic()
        with pytest.raises(Stop):
            task.delay(2)
        assert time.monotonic() - start < SOON
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
    app: Any, valve: Valve, amqp_url: str, unique: Any, raising: Any, options: Any,
) -> None:
    made = app(valve.url, **options)
    made.conf.task_default_queue = unique('interrupt')
    task = made.tasks['t.add']
    task.delay(0)
    valve.open.clear()
    raising(Stop())
    start = time.monotonic()
    with pytest.raises(Stop):
        for number in range(1, 100):
            task.delay(number)
    assert time.monotonic() - start < SOON
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
    over = threading.Event()

    def send() -> None:
        while not over.wait(0.1):
            os.kill(os.getpid(), signal.SIGUSR1)

    valve.open.clear()
    thread = threading.Thread(target=send)
    thread.start()
    try:
        task.delay(1)
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    assert len(calls) >= 3
    assert made.amqp.producer.size(made.conf.task_default_queue, None)[0] == 3
    made.amqp.producer.remove(made.conf.task_default_queue, None)
