"""Workers in a thread of the test process."""
from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from logging.handlers import QueueHandler as _QueueHandler
from typing import Any

from pyceleryc.contrib.testing import tasks  # noqa: F401  registers celery.ping
from pyceleryc.result import allow_join_result
from pyceleryc.utils.dispatch import Signal
from pyceleryc.utils.nodenames import anon_nodename
from pyceleryc.worker import WorkController

__all__ = (
    'TestWorkController', 'setup_app_for_worker', 'start_worker', 'test_worker_started',
    'test_worker_starting', 'test_worker_stopped',
)

WORKER_LOGLEVEL = os.environ.get('WORKER_LOGLEVEL', 'error')
#: Seconds in which a worker has to be ready.
START_TIMEOUT = 10.0
#: Seconds in which it has to look at something.
RELOAD_TIMEOUT = 10.0

#: A worker is about to be started in a test.  Sender: the app.
test_worker_starting = Signal(name='test_worker_starting', providing_args=set())
#: It is ready.  Arguments: *worker*, *consumer*.
test_worker_started = Signal(name='test_worker_started', providing_args={'worker', 'consumer'})
#: It has ended.
test_worker_stopped = Signal(name='test_worker_stopped', providing_args={'worker'})


class TestWorkController(WorkController):
    """A worker that other threads can wait for."""

    #: Not for the runner, whatever the name says.
    __test__ = False

    #: Hands log records to the thread that reads them; *queue* is a :class:`queue.Queue`.
    class QueueHandler(_QueueHandler):
        def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
            """Keep the exception as an object; it stays in this process."""
            return record

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: What :meth:`start` has raised.
        self.error: BaseException | None = None
        self._on_started = threading.Event()
        self._calls: list[tuple[Callable[[], None], Future[None]]] = []
        self._ends: tuple[socket.socket, socket.socket] | None = None
        super().__init__(*args, **kwargs)

    def on_start(self) -> None:
        """Let the loop notice what other threads ask for."""
        super().on_start()
        assert self.machine is not None
        self.machine.joins_block = False
        self._ends = socket.socketpair()
        self.machine.core.add_reader(self._ends[0].fileno(), self._do_calls)

    def _do_calls(self) -> None:
        assert self._ends is not None
        self._ends[0].recv(4096)
        while self._calls:
            call, done = self._calls.pop(0)
            try:
                done.set_result(call())
            except Exception as exc:
                done.set_exception(exc)

    def start(self) -> None:
        """Run until it is stopped."""
        try:
            super().start()
        except BaseException as exc:
            # Noted before those who wait for the start are woken.
            self.error = exc
            raise
        finally:
            test_worker_stopped.send(sender=self.app, worker=self)
            self._on_started.set()
            for end in self._ends or ():
                end.close()

    def _ready(self) -> None:
        super()._ready()
        self.on_consumer_ready(self.consumer)

    def on_consumer_ready(self, consumer: Any) -> None:
        """It has begun to take tasks."""
        self._on_started.set()
        test_worker_started.send(sender=self.app, worker=self, consumer=consumer)

    def ensure_started(self) -> None:
        """Wait until it takes tasks, or has ended.

        :raises TimeoutError: it did neither in time.
        """
        if not self._on_started.wait(START_TIMEOUT):
            raise TimeoutError(
                f'The worker was not ready within {START_TIMEOUT:g} seconds: is the broker {self.app.conf.broker_url!r} there?')

    def reload(self, modules: Iterable[str] = (), reload: bool = False, reloader: Any = None) -> None:
        """Make tasks known that were defined after the start.

        :param modules: to be imported, or with *reload* imported anew.
        """
        machine, ends = self.machine, self._ends
        if machine is None or ends is None:
            raise RuntimeError('The worker does not run: reload() is for after its start')
        done: Future[None] = Future()
        self._calls.append((lambda: machine.restart_pool(modules or (), reload, reloader), done))
        ends[1].send(b'.')
        try:
            done.result(RELOAD_TIMEOUT)
        except TimeoutError:
            raise TimeoutError(
                f'The worker has not reloaded its tasks within {RELOAD_TIMEOUT:g} seconds: is it busy?') from None


@contextmanager
def start_worker(
    app: Any, concurrency: int = 1, pool: str = 'solo', loglevel: str | int = WORKER_LOGLEVEL,
    logfile: str | None = None, perform_ping_check: bool = True, ping_task_timeout: float = 10.0,
    shutdown_timeout: float = 10.0, **kwargs: Any,
) -> Iterator[TestWorkController]:
    """Run a worker in a thread during the block.

    :param perform_ping_check: send a task to it first; the app needs a result backend for that.
    :param ping_task_timeout: seconds in which that has to be done.
    :param shutdown_timeout: seconds in which the worker has to end.
    :param kwargs: of :class:`~pyceleryc.worker.WorkController`; without saying so it has no
        heartbeats, mingle and gossip.
    :raises RuntimeError: the worker ended by itself, or did not end in time.
    """
    test_worker_starting.send(sender=app)
    with _worker_thread(app, concurrency, pool, loglevel, logfile, shutdown_timeout, kwargs) as worker:
        if perform_ping_check:
            with allow_join_result():
                answer = app.tasks['celery.ping'].delay().get(timeout=ping_task_timeout)
            if answer != 'pong':
                raise RuntimeError(f'The worker answered {answer!r} to celery.ping')
        yield worker


@contextmanager
def _worker_thread(
    app: Any, concurrency: int, pool: str, loglevel: Any, logfile: Any, shutdown_timeout: float,
    options: dict[str, Any],
) -> Iterator[TestWorkController]:
    setup_app_for_worker(app, loglevel, logfile)
    quiet = {'without_heartbeat': True, 'without_mingle': True, 'without_gossip': True, 'hostname': anon_nodename()}
    worker = TestWorkController(
        app, concurrency=concurrency, pool=pool, loglevel=loglevel, logfile=logfile, **{**quiet, **options})

    def run() -> None:
        with suppress(BaseException):  # they are told below
            worker.start()

    thread = threading.Thread(target=run, daemon=True, name='celery test worker')
    thread.start()
    try:
        worker.ensure_started()
        if worker.error is not None:
            raise RuntimeError(f'The worker could not be started: {worker.error!r}') from worker.error
        yield worker
    finally:
        worker.stop()
        thread.join(shutdown_timeout)
        if thread.is_alive():
            raise RuntimeError(
                'Worker thread failed to exit within the allocated timeout. '
                'Consider raising `shutdown_timeout` if your tasks take longer to execute.')
    if worker.error is not None:
        raise RuntimeError(f'The worker ended with an error: {worker.error!r}') from worker.error


def setup_app_for_worker(app: Any, loglevel: str | int, logfile: str | None) -> None:
    """Finalize *app*, make it the current and default one, and set up logging as it wants it."""
    app.finalize()
    app.set_current()
    app.set_default()
    app.log.setup(loglevel=loglevel, logfile=logfile)
