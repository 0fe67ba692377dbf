"""Results as messages over a broker without a driver of our own for them: what ``rpc://`` is made of there.

DESIGN. Each process has one reply queue and one thread that consumes it, on a connection of its own: through kombu here,
with the core's Redis client in :mod:`pyceleryc.backends.redis_replies`. The
thread puts documents into the :class:`Inbox`, where any thread waits for those it wants. It starts when the first task is
sent, ends with the process (or with the last user of the :class:`ReplyClient`), and deletes the queue then. A forked child
begins anew, with another queue.

Where the broker can wait for us (Redis), the thread sleeps until something comes; where it must be asked again and again
(``filesystem://``, ``sqla+…``), it asks often while somebody waits and seldom otherwise.
"""
from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from kombu import Consumer, Queue
from kombu.utils.uuid import uuid

from pyceleryc import _state
from pyceleryc.backends.core import REREAD, Client
from pyceleryc.backends.errors import StoreUnreachable

__all__ = ('Inbox', 'KombuReceiver', 'Receiver', 'Replies', 'ReplyClient')

logger = logging.getLogger('celery.backends')

#: Most results that are kept though nobody asks for them; most documents of one task that nobody has read.
UNWATCHED_MAX, UNREAD_MAX = 10_000, 1000
#: Most documents that :meth:`Inbox.arrivals` remembers.
ARRIVALS_MAX = 10_000
#: Seconds between two questions to a broker that must be asked: at least; while somebody waits; else.
ASK_MIN, ASK_WAITING, ASK_IDLE = 0.01, 0.1, 1.0
#: Seconds for which a wait counts; it is renewed before.
WAITING = REREAD + 1
#: Seconds between two tries to reach the broker, and most seconds for which sending a task waits for the reply queue.
TRY_AGAIN, SET_UP = 1.0, 4.0
#: Seconds that a wait outlasts a broker that is away.
PATIENCE = 30.0
#: Most seconds in which the thread looks whether it shall end, if nothing wakes it, and that the end of the process waits for it.
SLICE, END = 1.0, 2.0


class _Entry:
    """The documents of one task: the newest, and before it those that were not read."""

    def __init__(self) -> None:
        self.documents: deque[bytes] = deque(maxlen=UNREAD_MAX)
        self.unread = False
        self.watched = False
        self.count = 0  # of all that were put

    def put(self, document: bytes) -> None:
        self.count += 1
        if not self.unread:
            self.documents.clear()
        self.documents.append(document)
        self.unread = True

    def read(self) -> bytes:
        """Return the oldest that was not read; the newest stays."""
        if len(self.documents) > 1:
            return self.documents.popleft()
        self.unread = False
        return self.documents[0]


class Inbox:
    """Documents that arrived, by task id, for the threads that wait for them.

    Of tasks that nobody watches the oldest are dropped beyond :data:`UNWATCHED_MAX`.
    """

    def __init__(self) -> None:
        # Reentrant: destructors of results come here whenever they like.
        self._changed = threading.Condition(threading.RLock())
        self._entries: dict[str, _Entry] = {}
        self._unwatched: dict[str, None] = {}  # oldest first
        self._last: deque[str] = deque(maxlen=ARRIVALS_MAX)  # tasks of the newest documents
        self._count = 0  # of all documents

    def put(self, task_id: str, document: bytes) -> None:
        """Add a document."""
        with self._changed:
            entry = self._entries.setdefault(task_id, _Entry())
            entry.put(document)
            self._last.append(task_id)
            self._count += 1
            if not entry.watched:
                self._set_unwatched(task_id)
            self._changed.notify_all()

    def peek(self, task_id: str) -> bytes | None:
        """Return the newest document, read or not; None if there is none."""
        with self._changed:
            entry = self._entries.get(task_id)
            return entry.documents[-1] if entry is not None and entry.documents else None

    def arrivals(self, seen: int, deadline: float) -> tuple[int, list[str] | None]:
        """Wait until more than *seen* documents have come; return how many have, and the tasks of those that are new.

        Instead of more than are remembered it tells None: any may have come. Who waits for many looks at these only.
        """
        with self._changed:
            while self._count <= seen and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            new = self._count - seen
            if new > len(self._last):
                return self._count, None
            return self._count, list(islice(reversed(self._last), new))[::-1]

    def watch(self, task_id: str) -> None:
        """Keep documents of this task until :meth:`unwatch`."""
        with self._changed:
            self._entries.setdefault(task_id, _Entry()).watched = True
            self._unwatched.pop(task_id, None)

    def unwatch(self, task_id: str) -> None:
        """The newest document stays, as that of a task never watched."""
        with self._changed:
            entry = self._entries.get(task_id)
            if entry is None or not entry.watched:
                return
            entry.watched = False
            if entry.documents:
                self._set_unwatched(task_id)
            else:
                self.forget(task_id)

    def forget(self, task_id: str) -> None:
        """Drop all documents of a task."""
        with self._changed:
            self._entries.pop(task_id, None)
            self._unwatched.pop(task_id, None)

    def _set_unwatched(self, task_id: str) -> None:
        self._unwatched[task_id] = None
        if len(self._unwatched) > UNWATCHED_MAX:
            self.forget(next(iter(self._unwatched)))

    def read(self, task_id: str, deadline: float | None) -> bytes | None:
        """Wait for the next document that was not read; None if none came until *deadline*.

        Of several threads that wait for the same task one reads it, and the others get the newest.

        :param deadline: of :func:`time.monotonic`; None: never.
        """
        with self._changed:
            known = self._entries[task_id].count if task_id in self._entries else 0
            while True:
                entry = self._entries.get(task_id)
                if entry is not None and entry.unread:
                    return entry.read()
                if entry is not None and entry.count > known:
                    return entry.documents[-1]
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)


class Receiver:
    """The thread that consumes the reply queue; a subclass says how.

    :param queue: name of the reply queue.
    :param deliver: called with task id and document.
    """

    def __init__(self, queue: str, deliver: Callable[[str, bytes], None]) -> None:
        self._queue = queue
        self._deliver = deliver
        self._lock = threading.Condition()
        self._thread: threading.Thread | None = None
        self._tried = threading.Event()  # the first attempt to consume has ended
        self._wake = threading.Event()
        self._stopping = False
        self._polls = False  # the broker must be asked again and again
        self._asked = self._answered = 0
        self._waited_until = 0.0
        #: Why nothing can be received now; None if all is well.
        self.failure: str | None = None
        self._failed = 0.0

    # -- for those who want results ---------------------------------------------------------------

    def start(self) -> None:
        """Begin to consume, and wait until the queue is there: some brokers drop messages for queues that are not."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name='pyceleryc-results', daemon=True)
                    self._thread.start()
            self._tried.wait(SET_UP)

    def look(self) -> None:
        """See to it that what is in the queue now arrives, if the broker must be asked for it."""
        self.start()
        with self._lock:
            if self._polls and self.failure is None:
                question = self._asked + 1
                self._wake.set()
                self._lock.wait_for(lambda: self._answered >= question or self.failure, SLICE)

    def hurry(self) -> None:
        """Somebody waits."""
        self.start()
        was_idle = self._waited_until < time.monotonic()
        self._waited_until = time.monotonic() + WAITING
        if self._polls and was_idle:
            self._wake.set()

    def trouble(self) -> str | None:
        """Return why nothing can be received; None if all is well, or somebody waits and it is not hopeless yet."""
        now = time.monotonic()
        patient = now < self._waited_until and now < self._failed + PATIENCE
        return None if patient else self.failure

    def stop(self) -> None:
        """Tell the thread to end, when it has time."""
        self._stopping = True
        self._wake.set()

    def close(self) -> None:
        """End the thread, and wait a moment for it."""
        self.stop()
        thread = self._thread
        if thread is None or not thread.is_alive() or thread is threading.current_thread():
            return
        if not self._polls and self.failure is None:
            try:
                self._ring()
            except Exception as exc:  # the broker is away: then there is no queue to be deleted
                logger.debug('The reply queue %s is left behind: %r', self._queue, exc)
        thread.join(END)

    def abandon(self) -> None:
        """Drop the connection, in a forked child; kombu's stay as they are."""

    def _ring(self) -> None:
        """Send the thread a message, for it sleeps until one comes."""
        raise NotImplementedError(f'{type(self).__name__} must define _ring()')

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._consume()
            except Exception as exc:
                if not self._stopping:
                    self._fail(exc)
            finally:
                self._tried.set()

    def _fail(self, exc: Exception) -> None:
        text = f'{type(exc).__name__}: {exc}'
        if self.failure is None:
            self._failed = time.monotonic()
            logger.warning('Results cannot be received from %s now: %s', self._where(), text)
        with self._lock:
            self.failure = text
            self._lock.notify_all()
        self._wake.wait(TRY_AGAIN)
        self._wake.clear()

    def _where(self) -> str:
        """Return the broker's address, for messages."""
        raise NotImplementedError(f'{type(self).__name__} must define _where()')

    def _consume(self) -> None:
        """Connect, call :meth:`_consuming`, deliver what comes until :attr:`_stopping`, and delete the queue then."""
        raise NotImplementedError(f'{type(self).__name__} must define _consume()')

    def _consuming(self, polls: bool) -> None:
        self._polls = polls
        self.failure = None
        self._tried.set()

    def _take(self, task_id: str | None, body: bytes | str) -> None:
        if task_id:
            self._deliver(task_id, body.encode() if isinstance(body, str) else bytes(body))
        elif not self._stopping:
            logger.warning('A result without correlation id was dropped')


class KombuReceiver(Receiver):
    """Consumes through kombu.

    :param connection: of kombu; it is cloned.
    :param queue: of kombu: the reply queue.
    """

    def __init__(self, connection: Any, queue: Queue, deliver: Callable[[str, bytes], None]) -> None:
        super().__init__(queue.name, deliver)
        self._connection = connection
        self._declared = queue

    def _where(self) -> str:
        return str(self._connection.as_uri())

    def _ring(self) -> None:
        with self._connection.clone() as connection:
            connection.Producer().publish(b'', exchange='', routing_key=self._queue, content_type='text/plain',
                                          content_encoding='utf-8')

    def _consume(self) -> None:
        with self._connection.clone() as connection:
            self._consume_from(connection)

    def _consume_from(self, connection: Any) -> None:
        queue = self._declared(connection.channel())
        consumer = Consumer(queue.channel, [queue], no_ack=True, on_message=self._receive)
        consumer.consume()
        self._consuming(getattr(connection.transport, 'polling_interval', None) is not None)
        pause = ASK_MIN
        while not self._stopping:
            if not self._polls:
                self._drain(connection, SLICE)
            elif self._ask(connection):
                pause = ASK_MIN
            else:
                self._wake.wait(pause)
                pause = ASK_MIN if self._wake.is_set() else min(2 * pause, self._longest(connection))
                self._wake.clear()
        consumer.cancel()
        queue.delete()

    def _longest(self, connection: Any) -> float:
        """Return the longest pause between two questions: somebody who has set it knows what they cost."""
        given = connection.transport_options.get('polling_interval')
        if time.monotonic() < self._waited_until:
            return float(given or ASK_WAITING)
        return max(float(given or 0), ASK_IDLE)

    def _ask(self, connection: Any) -> bool:
        with self._lock:
            self._asked += 1
        found = self._drain(connection, 0)
        if not found:  # all that was there has arrived
            with self._lock:
                self._answered = self._asked
                self._lock.notify_all()
        return found

    def _drain(self, connection: Any, seconds: float) -> bool:
        """Tell whether a message came within *seconds*."""
        try:
            connection.drain_events(timeout=seconds)
        except TimeoutError:
            return False
        return True

    def _receive(self, message: Any) -> None:
        self._take(message.properties.get('correlation_id'), message.body)


class Replies:
    """What the documents of results are sent and waited for with; the interface is that of ``_core.Results``.

    :param send: ``send(document, content_type, content_encoding, reply_to, correlation_id)``.
    """

    def __init__(self, receiver: Receiver, inbox: Inbox, send: Callable[..., None]) -> None:
        self.receiver = receiver
        self._inbox = inbox
        self._send = send

    def set(self, task_id: str, state: str, document: bytes | str, content_type: str, content_encoding: str,
            reply_to: str | None, correlation_id: str | None, timeout: float | None) -> None:
        """Send a document to who has sent the task, if that wants to know."""
        if reply_to:
            self._send(document, content_type, content_encoding, reply_to, correlation_id)

    def get(self, task_id: str, timeout: float | None) -> bytes | None:
        """Return the newest document; None if there is none.

        :raises StoreUnreachable: there is none, and the broker cannot be reached.
        """
        document = self._inbox.peek(task_id)
        if document is None:
            self.receiver.look()
            document = self._inbox.peek(task_id)
        if document is None:
            self._check()
        return document

    def _check(self) -> None:
        trouble = self.receiver.trouble()
        if trouble is not None:
            raise StoreUnreachable(f'Results cannot be received: {trouble}')

    def peek(self, task_id: str) -> bytes | None:
        """Return the newest document that has arrived here; None if there is none."""
        return self._inbox.peek(task_id)

    def arrivals(self, seen: int, seconds: float) -> tuple[int, list[str] | None]:
        """Do as :meth:`Inbox.arrivals` says, for at most *seconds*.

        :raises StoreUnreachable: nothing came, and the broker cannot be reached.
        """
        self.receiver.hurry()
        count, tasks = self._inbox.arrivals(seen, time.monotonic() + seconds)
        if count == seen:
            self.receiver.look()
            self._check()
        return count, tasks

    def watch(self, task_id: str) -> None:
        """Keep the documents of a task that will be sent."""
        self._inbox.watch(task_id)
        self.receiver.start()

    def watch_many(self, task_ids: Iterable[str]) -> None:
        """Keep those of many."""
        for task_id in task_ids:
            self._inbox.watch(task_id)
        self.receiver.start()

    def wait(self, task_id: str, timeout: float | None) -> bytes:
        """Return the next document of a task.

        :raises TimeoutError: (the builtin) it did not come within *timeout* seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        self._inbox.watch(task_id)
        self.receiver.hurry()
        document = self._inbox.read(task_id, deadline)
        if document is None:
            raise TimeoutError(f'no result of {task_id} within {timeout} s')
        return document

    def unwatch(self, task_id: str) -> None:
        """End :meth:`watch`."""
        self._inbox.unwatch(task_id)

    def forget(self, task_id: str, timeout: float | None) -> None:
        """Drop what has arrived; the broker keeps nothing."""
        self._inbox.forget(task_id)


class ReplyClient(Client):
    """One app's reply queue in this process.

    :param receive: makes the receiver, of the queue's name and the ``deliver`` of :class:`Receiver`.
    :param send: of :class:`Replies`.
    """

    def __init__(self, receive: Callable[[str, Callable[[str, bytes], None]], Receiver], send: Callable[..., None]) -> None:
        self._receive = receive
        self._send = send
        super().__init__({})
        _state.result_clients[uuid()] = self

    def _start(self) -> None:
        super()._start()
        inbox = Inbox()
        receiver = self._receive(self.reply_queue, inbox.put)
        self._results = Replies(receiver, inbox, self._send)
        weakref.finalize(self, receiver.stop).atexit = False

    @property
    def results(self) -> Replies:
        """What documents are sent and waited for with."""
        return self._results

    def close(self) -> None:
        """Delete the queue; another one is used after that."""
        self._results.receiver.close()
        self._start()

    def after_fork(self) -> None:
        """In the child: another queue; the parent's thread is not here, and its connections say nothing more."""
        self._results.receiver.abandon()
        self._start()
