"""Messages from kombu's transports to the machine: every broker that has no driver in C (D3).

A thread owns the kombu connection: it consumes, hands raw messages to the core, and does what the machine asks for,
acknowledgements above all, in the order in which it asks. Nobody else touches the connection or its channel.

What is taken from the broker and not settled yet is kept here until it is: the transports over a database or files have
no server that would give it to somebody else when the connection ends, so it is put back from here.
"""
from __future__ import annotations

import logging
import os
import queue as queues
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from kombu import Consumer, Queue

from pyceleryc.app.connections import transport_named
from pyceleryc.app.drivers import broker_urls, scheme_of

if TYPE_CHECKING:
    from pyceleryc.app.base import Celery

__all__ = ('Feed', 'check_transport')

logger = logging.getLogger('celery.worker.consumer.consumer')

#: Messages taken from the broker before orders are looked at.
BATCH = 100
#: Seconds that a transport that waits for the broker itself may do so before orders are looked at.
BLOCKING = 0.1
#: Seconds between looks at the broker while the thread has nothing else to do.
IDLE = 1.0
#: Seconds that a fork waits for the thread to be between two things.
FORK_PATIENCE = 1.0
#: Order of _core.Feed's settlements: PC_ACK, PC_REJECT, PC_REQUEUE.
_SETTLE = ('ack', 'reject', 'requeue')
_TEXTS = ('correlation_id', 'reply_to', 'message_id', 'type', 'user_id', 'app_id', 'cluster_id')


def check_transport(app: Celery) -> None:
    """Raise ImproperlyConfigured unless kombu has the transport of ``broker_read_url`` and can import it."""
    for url in broker_urls(app.conf.broker_read_url):
        with transport_named(url):
            app.connection_for_read(url).get_transport_cls()


class Feed:
    """One worker's consumer through kombu.

    :param known: the queues that the machine may ask for by name; looked at when it does.
    :attr core: the ``_core.Feed``; set by the owner.
    """

    core: Any

    def __init__(self, app: Celery, known: Iterable[Queue]) -> None:
        self.app = app
        self._known = known
        self._urls = broker_urls(app.conf.broker_read_url)
        self._orders: queues.SimpleQueue[Callable[[], None]] = queues.SimpleQueue()
        self._thread: threading.Thread | None = None
        #: Held by the thread while it works, so that no process is forked in the middle of that.
        self.busy = threading.RLock()
        # The rest belongs to the thread.
        self._connection: Any = None
        self._channel: Any = None
        self._queues: dict[str, Queue] = {}
        self._consumers: dict[str, Consumer] = {}
        self._unsettled: dict[int, Any] = {}
        self._prefetch = 0
        self._paused = False
        self._ended = False
        _feeds.add(self)

    # -- what the machine wants (see csrc/py/feed.h); in the thread that turns its loop ------------

    def connect(self) -> None:
        """Try to connect; ``core.up()`` or ``core.down()`` follows."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name='pyceleryc-feed', daemon=True)
            self._thread.start()
        self._orders.put(self._connect)

    def add(self, name: str) -> None:
        """Consume this queue, also after reconnects."""
        queue = next(queue for queue in self._known if queue.name == name)
        self._orders.put(partial(self._add, queue))

    def drop(self, name: str) -> None:
        """Do not consume this queue any more."""
        self._orders.put(partial(self._drop, name))

    def prefetch(self, count: int) -> None:
        """Have at most so many messages unsettled; 0: any number."""
        self._orders.put(partial(self._set_prefetch, count))

    def settle(self, orders: list[tuple[int, int]]) -> None:
        """Acknowledge, reject or put back."""
        self._orders.put(partial(self._settle, orders))

    def pause(self) -> None:
        """Take no more messages."""
        self._orders.put(self._pause)

    def close(self, seconds: float) -> None:
        """Put back what is not settled and disconnect.

        :raises TimeoutError: the transport takes longer than that.
        """
        thread = self._thread
        if thread is None or not thread.is_alive():
            return
        self._orders.put(self._end)
        thread.join(min(seconds, threading.TIMEOUT_MAX))
        if thread.is_alive():
            raise TimeoutError(
                f'the broker did not answer within {seconds:.1f} seconds: tasks that were not started come back when '
                'it has noticed that this worker is gone')

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        wait = 0.0
        while not self._ended:
            try:
                order = self._orders.get(timeout=max(wait, 0.001))
            except queues.Empty:
                order = None
            with self.busy:
                while order is not None:
                    self._guard(order)
                    order = None if self._ended or self._orders.empty() else self._orders.get()
                wait = IDLE
                if self._channel is not None and not self._paused:
                    self._guard(self._drain)
                    wait = self._pause_length()

    def _pause_length(self) -> float:
        """How long until the broker is asked again, unless an order comes."""
        if self._channel is None:
            return IDLE
        interval = getattr(self._connection.transport, 'polling_interval', None)
        return float(interval or 0) if self._empty else 0.0

    def _drain(self) -> None:
        """Take what there is. Transports that poll are not waited for: they would sleep."""
        polls = getattr(self._connection.transport, 'polling_interval', None) is not None
        self._empty = False
        for _ in range(BATCH):
            try:
                self._connection.drain_events(timeout=0 if polls else BLOCKING)
            except (socket.timeout, BlockingIOError):
                self._empty = True
                return
            if not self._orders.empty():
                return

    _empty = True

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as exc:  # of any transport: its errors are of many classes
            logger.debug('The transport failed', exc_info=True)
            self._lost(exc)

    # -- connection --------------------------------------------------------------------------------

    def _connect(self) -> None:
        url = self._urls[0]
        self._urls.append(self._urls.pop(0))  # the next one has its turn if this fails
        self._connection = self.app.connection_for_read(url)
        self._connection.connect()
        self._channel = self._connection.channel()
        self._channel.basic_qos(0, self._prefetch, False)
        self._paused = False
        for queue in self._queues.values():
            self._consume(queue)
        self._urls.insert(0, self._urls.pop())
        self.core.up()

    def _lost(self, why: BaseException) -> None:
        """Tell the machine; what it had is void, so it goes back first."""
        self._disconnect()
        reason = str(why) or repr(why)
        self.core.down(f'{type(why).__name__}: {reason}', _is_refusal(why))

    def _disconnect(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        self._consumers.clear()
        self._put_back()
        if connection is not None:
            try:
                connection.close()
            except Exception as exc:  # it is over either way
                logger.debug('Closing the connection to the broker: %r', exc)

    def _put_back(self) -> None:
        unsettled, self._unsettled = self._unsettled, {}
        for message in unsettled.values():
            try:
                message.requeue()
            except Exception as exc:  # a real broker notices that we are gone and gives it to others
                logger.debug('A message cannot be put back: %r', exc)

    def _end(self) -> None:
        self._ended = True
        self._disconnect()

    def abandon(self) -> None:
        """In a child after a fork: the connection is the parent's, and must not be closed by the garbage collector."""
        _abandoned.append((self._connection, self._channel, self._consumers, self._unsettled))
        self._thread = None
        self._connection = self._channel = None
        self._consumers, self._unsettled = {}, {}

    # -- orders ------------------------------------------------------------------------------------

    def _add(self, queue: Queue) -> None:
        self._queues[queue.name] = queue
        if self._channel is not None:
            self._consume(queue)

    def _consume(self, queue: Queue) -> None:
        if queue.name in self._consumers:
            return
        # Bodies stay as they are: whoever runs the task decodes them, or refuses to.
        consumer = Consumer(self._channel, [queue], no_ack=queue.no_ack, on_message=self._on_message)
        consumer.consume()
        self._consumers[queue.name] = consumer

    def _drop(self, name: str) -> None:
        self._queues.pop(name, None)
        consumer = self._consumers.pop(name, None)
        if consumer is not None:
            consumer.cancel()

    def _set_prefetch(self, count: int) -> None:
        self._prefetch = count
        if self._channel is not None:
            self._channel.basic_qos(0, count, False)

    def _settle(self, orders: list[tuple[int, int]]) -> None:
        for tag, how in orders:
            message = self._unsettled.get(tag)  # None: of a connection that was lost
            if message is not None:
                getattr(message, _SETTLE[how])()
                del self._unsettled[tag]

    def _pause(self) -> None:
        self._paused = True

    # -- messages ------------------------------------------------------------------------------------

    def _on_message(self, message: Any) -> None:
        info = message.delivery_info or {}
        try:
            tag = self.core.push(
                str(info.get('exchange') or ''), str(info.get('routing_key') or ''), _body(message),
                _headers(message), _properties(message), bool(info.get('redelivered')))
        except (TypeError, ValueError, OverflowError) as exc:
            logger.error('A message that no task message can be is rejected: %s', exc)
            message.reject()
            return
        self._unsettled[tag] = message


def _body(message: Any) -> Any:
    body = message.body
    return body if isinstance(body, (bytes, bytearray, memoryview, str)) else repr(body)


def _headers(message: Any) -> dict[str, Any]:
    headers = dict(message.headers or {})
    if 'compression' in headers and not message.errors:
        del headers['compression']  # kombu has undone it
    return headers


def _properties(message: Any) -> dict[str, Any]:
    given = message.properties or {}
    made: dict[str, Any] = {name: str(given[name]) for name in _TEXTS if given.get(name) is not None}
    for name in ('content_type', 'content_encoding'):
        value = getattr(message, name)
        if value is not None:
            made[name] = str(value)
    if given.get('expiration') is not None:
        made['expiration'] = str(given['expiration'])
    priority, mode = given.get('priority'), given.get('delivery_mode')
    if isinstance(priority, int) and 0 <= priority <= 255:
        made['priority'] = priority
    if mode in (1, 2):
        made['delivery_mode'] = mode
    return made


def _is_refusal(exc: BaseException) -> bool:
    """Credentials, permissions, bad options, as far as one can tell: trying again at the start makes no sense."""
    return (isinstance(exc, (TypeError, ValueError, LookupError, ImportError))
            or type(exc).__name__ in ('AccessRefused', 'NotAllowed', 'AuthenticationError'))


#: All of this process, for forks.
_feeds: weakref.WeakSet[Feed] = weakref.WeakSet()
_abandoned: list[Any] = []
_stopped: list[Feed] = []


def _before_fork() -> None:
    """A child must not inherit a transport in the middle of something: its locks would stay locked there."""
    deadline = time.monotonic() + FORK_PATIENCE
    for feed in list(_feeds):
        if feed.busy.acquire(timeout=max(0.0, deadline - time.monotonic())):
            _stopped.append(feed)


def _after_fork() -> None:
    while _stopped:
        _stopped.pop().busy.release()


def _after_fork_in_child() -> None:
    _stopped.clear()
    for feed in list(_feeds):
        feed.busy = threading.RLock()
        feed.abandon()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
