"""Moving messages between brokers and between queues (FEATURES 2.13).

A message is taken off its queue after the other broker has it, never before: an interruption may leave it in both
places, not in none.  Only ``sqlite://`` gives messages away when they are read; they are put back at the end, and after
an error, but not after a SIGKILL: keep a copy of the file.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from kombu import Connection, Producer, Queue
from kombu.exceptions import KombuError

from pyceleryc._state import app_or_default
from pyceleryc.app.connections import own_transport, transport_named
from pyceleryc.utils.nodenames import worker_direct

__all__ = (
    'State', 'StopFiltering', 'filter_callback', 'migrate_task', 'migrate_tasks', 'move', 'move_by_idmap',
    'move_by_taskmap', 'move_direct', 'move_direct_by_id', 'move_task_by_id', 'republish', 'start_filter',
    'task_id_eq', 'task_id_in',
)

#: Seconds between looks at queues that are empty.
POLL = 0.1
#: Properties of a message that its copy gets; the others are the broker's.
KEPT = ('correlation_id', 'reply_to', 'priority', 'delivery_mode', 'message_id', 'timestamp', 'type', 'app_id')


class StopFiltering(Exception):
    """A callback has seen enough."""


class State:
    """How far it got: *count* messages were looked at of about *total_apx*, *filtered* of them passed over."""

    count = 0
    filtered = 0
    total_apx = 0

    @property
    def strtotal(self) -> str:
        """The total, or a question mark."""
        return str(self.total_apx) if self.total_apx else '?'

    def __repr__(self) -> str:
        skipped = f'^{self.filtered}' if self.filtered else ''
        return f'{skipped}{self.count}/{self.strtotal}'


# -- one message ----------------------------------------------------------------------------------

def republish(producer: Any, message: Any, exchange: str | None = None, routing_key: str | None = None,
              remove_props: Iterable[str] = ()) -> None:
    """Send a copy of *message*; where it went before, unless an exchange or a routing key is given.

    :param remove_props: properties that the copy does not get.
    """
    headers, info = dict(message.headers or {}), message.delivery_info
    properties = {name: value for name, value in message.properties.items()
                  if name in KEPT and name not in remove_props and value is not None}
    expiration = message.properties.get('expiration')
    if expiration is not None and 'expiration' not in remove_props:
        properties['expiration'] = float(expiration) / 1000  # kombu counts seconds, messages milliseconds
    producer.publish(
        message.body, content_type=message.content_type, content_encoding=message.content_encoding,
        exchange=info.get('exchange') if exchange is None else exchange,
        routing_key=info.get('routing_key') if routing_key is None else routing_key,
        # Kombu has taken the compression off.
        compression=headers.pop('compression', None), headers=headers, **properties)


def migrate_task(producer: Any, body_: Any, message: Any, queues: Mapping[str, str] | None = None) -> None:
    """Send a message to the queue it was in, or the one that *queues* names for that."""
    queue = message.delivery_info.get('queue') or message.delivery_info['routing_key']
    republish(producer, message, exchange='', routing_key=(queues or {}).get(queue, queue))


def task_of(message: Any, body: Any, key: str) -> Any:
    """Return *key* (id, task) of a message of either protocol."""
    found = (message.headers or {}).get(key)
    return body.get(key) if found is None and isinstance(body, Mapping) else found


def task_id_eq(task_id: str, body: Any, message: Any) -> bool:
    """Tell whether the message is of this task."""
    return bool(task_of(message, body, 'id') == task_id)


def task_id_in(ids: Iterable[str], body: Any, message: Any) -> bool:
    """Tell whether the message is of one of these tasks."""
    return task_of(message, body, 'id') in ids


def filter_callback(callback: Callable[[Any, Any], Any], tasks: Iterable[str]) -> Callable[[Any, Any], Any]:
    """Return *callback*, called only for messages of *tasks* (names)."""
    wanted = frozenset(tasks)

    def filtered(body: Any, message: Any) -> Any:
        return callback(body, message) if task_of(message, body, 'task') in wanted else None

    return filtered


# -- many messages ----------------------------------------------------------------------------------

class _Pass:
    """Takes messages from queues, each once: those that are not acknowledged go back at the end."""

    def __init__(self, app: Any, connection: Any, queues: Iterable[str], accept: Any) -> None:
        self.connection, self.accept = connection, accept
        self.channel = connection.channel()
        self.queues = [app.amqp.queues[name](self.channel) for name in queues]
        self.taken: list[Any] = []

    def size(self) -> int:
        """About how many messages there are.  :raises ChannelError: RabbitMQ has no such queue."""
        total = 0
        for queue in self.queues:
            try:
                total += queue.queue_declare(passive=True).message_count
            except self.connection.channel_errors:
                # With the other brokers an empty queue is one that is not there.
                if self.connection.transport.driver_type == 'amqp':
                    raise
        return total

    def messages(self, timeout: float, forever: bool) -> Iterator[Any]:
        """Yield messages until there was none for *timeout* seconds."""
        deadline = time.monotonic() + timeout
        while forever or time.monotonic() < deadline:
            idle = True
            self.taken = [message for message in self.taken if not message.acknowledged]
            for queue in self.queues:
                while (message := queue.get(accept=self.accept)) is not None:
                    idle = False
                    message.delivery_info['queue'] = queue.name
                    self.taken.append(message)
                    yield message
            if idle:
                time.sleep(POLL)
            else:
                deadline = time.monotonic() + timeout

    def close(self) -> None:
        """Give back what was not acknowledged: not every transport does that when the channel is closed."""
        try:
            for message in self.taken:
                if not message.acknowledged:
                    message.requeue()
            self.channel.close()
        except self.connection.connection_errors:
            # The broker gives back what a connection leaves behind.
            return


def start_filter(
    app: Any, conn: Any, filter: Callable[[Any, Any], Any], limit: int | None = None, timeout: float = 1.0,
    ack_messages: bool = False, tasks: Iterable[str] | str | None = None,
    queues: Iterable[str] | Mapping[str, str] | str | None = None,
    callback: Callable[[State, Any, Any], Any] | None = None, forever: bool = False,
    on_declare_queue: Callable[[Queue], Any] | None = None, state: State | None = None, accept: Any = None,
    **kwargs: Any,
) -> State:
    """Call ``filter(body, message)`` for the messages in queues; return how many there were.

    :param conn: connection to read from.
    :param limit: look at so many at most.
    :param timeout: end when there was no message for so many seconds, unless *forever*.
    :param ack_messages: take those that were looked at off their queues.
    :param tasks: names; other messages are passed over.
    :param queues: names, default all that the app knows.
    :param callback: called with (state, body, message) after each.
    :param on_declare_queue: called with each queue before.
    :param accept: content types to decode; the body of others is None.
    """
    state = state or State()
    wanted = frozenset(_names(tasks))
    reader = _Pass(app, conn, queue_map(app, queues), accept or app.conf.accept_content)
    try:
        for queue in reader.queues:
            if on_declare_queue is not None:
                on_declare_queue(queue)
        state.total_apx = reader.size()
        for message in reader.messages(timeout, forever):
            body = _decoded(message)
            if wanted and task_of(message, body, 'task') not in wanted:
                state.filtered += 1
                continue
            filter(body, message)
            if ack_messages and not message.acknowledged:
                message.ack()
            state.count += 1
            if callback is not None:
                callback(state, body, message)
            if limit and state.count >= limit:
                break
    except StopFiltering:
        return state
    finally:
        reader.close()
    return state


def _decoded(message: Any) -> Any:
    try:
        return message.payload
    except (KombuError, ValueError):
        # It is moved all the same: whoever may read it is at the other end.
        return None


def _names(value: Iterable[str] | str | None) -> list[str]:
    parts = value.split(',') if isinstance(value, str) else value or ()
    return [part.strip() for part in parts if part.strip()]


def queue_map(app: Any, queues: Iterable[str] | Mapping[str, str] | str | None) -> dict[str, str]:
    """Return the queues to read, each with the one it goes to: ``a,b:c`` is {a: a, b: c}; None is all of the app."""
    if isinstance(queues, Mapping):
        return dict(queues)
    if queues is None:
        return {name: name for name in app.amqp.queues}
    pairs = [name.partition(':') for name in _names(queues)]
    return {source: dest or source for source, _, dest in pairs}


def migrate_tasks(
    source: Any, dest: Any, migrate: Callable[..., Any] = migrate_task, app: Any = None,
    queues: Iterable[str] | Mapping[str, str] | str | None = None, **kwargs: Any,
) -> State:
    """Copy messages from one broker to another; with ``ack_messages=True`` move them.

    :param source: connection, as is *dest*, where queues are declared as the app knows them.
    :param migrate: called with (producer, body, message, queues=…) for each message.
    :param queues: names, or a map of names to those at *dest*, also written ``name:other``.

    The other parameters are those of :func:`start_filter`.
    """
    app = app_or_default(app)
    mapping = queue_map(app, queues)
    producer = Producer(dest.default_channel, auto_declare=False)

    def declare(queue: Queue) -> None:
        app.amqp.queues[mapping[queue.name]](producer.channel).declare()

    return start_filter(app, source, partial(migrate, producer, queues=mapping), queues=mapping,
                        on_declare_queue=declare, **kwargs)


def move(
    predicate: Callable[[Any, Any], Any], connection: Any = None, exchange: str | None = None,
    routing_key: str | None = None, source: Iterable[str] | str | None = None, app: Any = None,
    callback: Callable[[State, Any, Any], Any] | None = None, limit: int | None = None,
    transform: Callable[[Any], Any] | None = None, **kwargs: Any,
) -> State:
    """Move messages to other queues of the same broker.

    :param predicate: called with (body, message); the message is moved if the answer is true.  It may be the
        place itself: a Queue, the name of one, or (exchange, routing key); True stands for *exchange* and *routing_key*.
    :param source: queues to look at, default all.
    :param transform: makes a place of another answer.
    :param limit: move so many at most.
    :param callback: called with (state, body, message) after each that was moved.
    """
    app = app_or_default(app)
    state = kwargs.pop('state', None) or State()
    moved = 0
    with app.connection_or_acquire(connection) as conn:
        producer = Producer(conn.default_channel, auto_declare=False)

        def on_task(body: Any, message: Any) -> None:
            nonlocal moved
            place = predicate(body, message)
            if not place:
                return
            republish(producer, message, *_place(app, transform(place) if transform else place, exchange, routing_key, producer))
            message.ack()
            moved += 1
            if callback is not None:
                callback(state, body, message)
            if limit and moved >= limit:
                raise StopFiltering

        return start_filter(app, conn, on_task, queues=source, state=state, **kwargs)


def _place(app: Any, place: Any, exchange: str | None, routing_key: str | None, producer: Any) -> tuple[str | None, str | None]:
    """Return exchange and routing key; a queue is declared, so that nothing is sent into the void."""
    if place is True:
        return exchange, routing_key
    if isinstance(place, (list, tuple)):
        return place[0], place[1]
    queue = place if isinstance(place, Queue) else app.amqp.queues[place]
    queue(producer.channel).declare()
    return '', queue.name


def move_task_by_id(task_id: str, dest: Any, **kwargs: Any) -> State:
    """Move the message of one task to the queue *dest*."""
    return move_by_idmap({task_id: dest}, **kwargs)


def move_by_idmap(map: Mapping[str, Any], **kwargs: Any) -> State:
    """Move the messages of tasks: *map* has a queue for each id."""
    return move(lambda body, message: map.get(task_of(message, body, 'id')), limit=len(map), **kwargs)


def move_by_taskmap(map: Mapping[str, Any], **kwargs: Any) -> State:
    """Move messages by the name of the task: *map* has a queue for each name."""
    return move(lambda body, message: map.get(task_of(message, body, 'task')), **kwargs)


def move_direct(predicate: Callable[[Any, Any], Any], **kwargs: Any) -> State:
    """As :func:`move`; the predicate returns the name of a node, whose own queue gets the message (``worker_direct``)."""
    return move(predicate, transform=worker_direct, **kwargs)


def move_direct_by_id(task_id: str, dest: str, **kwargs: Any) -> State:
    """Move the message of one task to the queue of the node *dest*."""
    return move_direct(lambda body, message: dest if task_id_eq(task_id, body, message) else None, limit=1, **kwargs)


def connect(url: str) -> Connection:
    """Return a connection on which a publish returns when the broker has the message.

    :raises ImproperlyConfigured: kombu does not know the scheme, or lacks a package for it.
    """
    amqp = url.startswith(('amqp', 'pyamqp'))
    with transport_named(url):
        return Connection(url, transport=own_transport(url), transport_options={'confirm_publish': True} if amqp else {})
