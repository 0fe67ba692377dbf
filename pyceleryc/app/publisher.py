"""The process's publisher: a C producer that survives forks, failovers and exits.

Kombu's producers serve the transports without a C driver; see :mod:`pyceleryc.app.amqp`.
"""
from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from kombu import Queue
from kombu.exceptions import OperationalError

from pyceleryc import _core, _state
from pyceleryc.app.batch import Batching
from pyceleryc.app.drivers import failover, queue_config

__all__ = ('Publisher', 'RetryPolicy')

logger = logging.getLogger('celery.app.publisher')

#: Seconds that closing waits for confirms.
CLOSE_TIMEOUT = 5.0
#: Seconds that the end of the program waits for them before it says so; it goes on for ``publish_timeout`` then (D16).
QUIET_TIMEOUT = 2.0
#: Seconds after which the first attempt to connect tells what went wrong so far.
REFUSAL_TIMEOUT = 0.05
#: Seconds that a caller who wants no retries waits for a connection that was lost.
NO_RETRY_TIMEOUT = 0.1
#: Seconds that a broker whose connection was lost is waited for, if there are others.
FAILOVER_TIMEOUT = 4.0
#: AMQP properties that a message may have.
PROPERTIES = frozenset({
    'content_type', 'content_encoding', 'delivery_mode', 'priority', 'correlation_id',
    'reply_to', 'expiration', 'message_id', 'timestamp', 'type', 'user_id', 'app_id',
    'cluster_id',
})


class RetryPolicy:
    """How often, and after which pauses, publishing is tried again (C-070..C-077).

    :param max_retries: further attempts; None means for ever.
    :param interval_start: seconds before the first of them; each next one waits
        *interval_step* longer, but none longer than *interval_max*.
    :param retry_errors: exceptions to try again after, besides a lost connection.
    """

    def __init__(
        self, max_retries: int | None = 3, interval_start: float = 0, interval_step: float = 0.2,
        interval_max: float = 1, retry_errors: Any = None, **_: Any,
    ) -> None:
        self.max_retries = max_retries
        self.interval_start = interval_start or 0
        self.interval_step = interval_step or 0
        self.interval_max = interval_max or 0
        self.retry_errors = tuple(retry_errors or ())

    def pauses(self) -> Iterator[float]:
        """Yield the seconds to wait before each further attempt."""
        count = 0
        while self.max_retries is None or count < self.max_retries:
            yield min(self.interval_start + count * self.interval_step, self.interval_max)
            count += 1


NO_RETRY = RetryPolicy(max_retries=0)


class Publisher(Batching):
    """Publishes through the C driver of the first broker URL that works.

    :param configs: configurations of ``_core.Producer``, one per URL.
    :param strategy: which of them is the next; see :func:`~pyceleryc.app.drivers.failover`.
    """

    def __init__(self, configs: list[dict[str, Any]], strategy: Any = None) -> None:
        if len(configs) > 1:
            configs = [{**config, 'publish_timeout': min(config['publish_timeout'], FAILOVER_TIMEOUT)}
                       for config in configs]
        self.configs = configs
        self.config = configs[0]
        self._next_configs = failover(configs, strategy)
        #: Producers of brokers that were left, with what these have not confirmed.
        self._left: list[Any] = []
        self.scheme = configs[0]['scheme']
        self._lock = threading.Lock()
        #: The ``_core.Producer`` in use, or None; see :attr:`core`.
        self.current: Any = None
        self._declared: dict[str, Queue] = {}
        self._was_connected = False
        self._start_batching()
        _state.publishers.add(self)

    @property
    def core(self) -> Any:
        """The ``_core.Producer``, made at the first use."""
        found = self.current
        if found is not None:
            return found
        with self._lock:
            if self.current is None:
                self.current = _core.Producer(self.config, _notice)
            return self.current

    def new_core_batch(self) -> Any:
        """Make a ``_core.Batch`` for messages of this publisher."""
        return _core.Batch(self.core)

    # -- sending ------------------------------------------------------------------------

    def call(self, function: Callable[[Any], Any], policy: RetryPolicy | None) -> Any:
        """Return ``function(core)``; if there is no connection try again as *policy* says.

        A connection that was there and is lost is not the policy's business: the core
        itself waits for it to come back, for ``publish_timeout`` seconds.

        :raises OperationalError: it could not be done; the cause is the core's error.
        """
        policy = policy or NO_RETRY
        pauses = policy.pauses()
        while True:
            try:
                self._connect()
                return function(self.core)
            except _core.BadData:
                raise
            except Exception as exc:
                pause = next(pauses, None) if self._may_retry(exc, policy) else None
                if pause is None:
                    if isinstance(exc, _core.CoreError):
                        raise OperationalError(str(exc)) from exc
                    raise
                if isinstance(exc, _core.CoreError):
                    self.fail_over()
            time.sleep(pause)

    def _connect(self) -> None:
        """Connect for the first time; ConnectionLost at once if that is refused."""
        core = self.core
        if self._was_connected:
            return
        try:
            # The core goes on trying until the deadline, but a refusal is known at once.
            core.connect(REFUSAL_TIMEOUT)
        except _core.Timeout:
            core.connect(None)
        self._was_connected = True

    def _may_retry(self, exc: Exception, policy: RetryPolicy) -> bool:
        if isinstance(exc, (_core.ConnectionLost, _core.Timeout)):
            return not self._was_connected or len(self.configs) > 1
        return isinstance(exc, policy.retry_errors)

    def has_declared(self, queue: Queue) -> bool:
        """Tell whether :meth:`declare` has nothing to do for *queue*."""
        return self.current is not None and self._declared.get(queue.name) is queue

    def declare(self, queue: Queue, timeout: float | None = None) -> None:
        """Declare *queue*, its exchange and binding, unless this was done here before."""
        if not self.has_declared(queue):
            self.core.declare(queue_config(queue), timeout)
            self._declared[queue.name] = queue

    def publish(
        self, body: bytes | str, *, exchange: str, routing_key: str, headers: Mapping[str, Any],
        properties: Mapping[str, Any], declare: Any = (), mandatory: bool = False,
        due: float | None = None, timeout: float | None = None, policy: RetryPolicy = NO_RETRY,
    ) -> None:
        """Publish one message, or collect it if this thread collects.

        :param properties: of AMQP; those unknown to it are left out.
        :param due: Unix time, for drivers that hold messages until then.
        :param timeout: seconds; None means the configured one.
        """
        if timeout is None and policy.max_retries == 0:
            timeout = NO_RETRY_TIMEOUT
        known = {key: value for key, value in properties.items()
                 if key in PROPERTIES and value is not None}

        batch = self.batch

        def once(core: Any) -> None:
            for queue in declare or ():
                self.declare(queue, timeout)
            if batch is None:
                core.publish(exchange, routing_key, body, headers, known, mandatory, due, timeout)

        if batch is None or not all(map(self.has_declared, declare or ())):
            self.call(once, policy)
        if batch is not None:
            batch.add(body, exchange, routing_key, headers, known, mandatory, due, policy)

    def fail_over(self) -> None:
        """Use the next broker URL, if there are several."""
        if len(self.configs) < 2:
            return
        with self._lock:
            self.config = next(self._next_configs)
            old, self.current = self.current, None
            self._forget_connection()
            if old is not None and old.unconfirmed():
                # Sent when the broker is there again: by flush(), or at the end.
                self._left.append(old)
                return
        if old is not None:
            old.close(0)

    # -- the end ------------------------------------------------------------------------

    def _forget_connection(self) -> None:
        self._declared.clear()
        self._was_connected = False

    def flush(self, timeout: float | None = None) -> None:
        """Wait until the broker has confirmed everything."""
        for core in (*self._left, self.current):
            if core is not None:
                core.flush(timeout)

    def close(self, timeout: float | None = CLOSE_TIMEOUT) -> None:
        """Flush, then disconnect.  It may be used again: that connects anew."""
        with self._lock:
            core, self.current = self.current, None
            left, self._left = self._left, []
            self._forget_connection()
        try:
            for old in left:
                old.close(timeout)
        finally:
            if core is not None:
                core.close(timeout)

    def pause(self) -> None:
        """Before a fork: no thread of the core's is to be there."""
        for core in self._cores():
            core.pause()

    def resume(self) -> None:
        """After it, in the parent."""
        for core in self._cores():
            core.resume()

    def _cores(self) -> list[_core.Producer]:
        current = self.current
        return [*self._left, *([] if current is None else [current])]

    def after_fork(self) -> None:
        """In the child: forget the parent's connection without touching it."""
        self._lock = threading.Lock()
        self._start_batching()
        core, self.current = self.current, None
        left, self._left = self._left, []
        self._forget_connection()
        for old in (*left, core):
            if old is not None:
                old.abandon()


def _notice(level: int, text: str) -> None:
    logger.log(level, '%s', text)


def _before_fork() -> None:
    for publisher in list(_state.publishers):
        publisher.pause()


def _after_fork() -> None:
    for publisher in list(_state.publishers):
        publisher.resume()


def _after_fork_in_child() -> None:
    for publisher in list(_state.publishers):
        publisher.after_fork()


def _at_exit() -> None:
    for publisher in list(_state.publishers):
        try:
            _wait_for_confirms(publisher)
            publisher.close()
        except (_core.CoreError, KeyboardInterrupt) as exc:
            # Nobody can catch it any more, and the other publishers want to be flushed.
            _say(f'messages may be lost at exit: {exc or "interrupted"}')
            with suppress(_core.CoreError):
                publisher.close(0)


def _wait_for_confirms(publisher: Publisher) -> None:
    try:
        publisher.flush(QUIET_TIMEOUT)
    except (_core.ConnectionLost, _core.Timeout, _core.WindowFull) as exc:
        _say(f'waiting for the broker to confirm messages; interrupt to give up: {exc}')
        publisher.flush(None)


def _say(text: str) -> None:
    # Straight to stderr: logging may be shut down already.
    os.write(2, f'pyceleryc: {text}\n'.encode())


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
