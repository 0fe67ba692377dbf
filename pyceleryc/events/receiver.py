"""Receives events (PROTOCOL 3.7)."""
from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kombu import Queue
from kombu.connection import maybe_channel
from kombu.mixins import ConsumerMixin
from kombu.utils.uuid import uuid

from pyceleryc.app import app_or_default
from pyceleryc.events.event import get_exchange
from pyceleryc.utils.time import adjust_timestamp

__all__ = ('EventReceiver',)

#: The clock of programs that send tasks is behind those of workers: they never hear of others.
CLIENT_CLOCK_SKEW = -1
Handler = Callable[[Mapping[str, Any]], Any]


logger = logging.getLogger('celery.events')

#: What everybody relies on, where it is given.
_TYPES: dict[str, Any] = {
    'hostname': str, 'uuid': str, 'name': str, 'root_id': str, 'parent_id': str, 'timestamp': (int, float), 'utcoffset': (int, float), 'freq': (int, float), 'clock': int,
}
#: Of numbers that become times: up to the year 9999.
_RANGES = {'timestamp': (0, 253402214400), 'utcoffset': (-26, 26)}


def check_event(event: Any) -> None:
    """Look at an event that came over the network.

    :raises ValueError: it is no mapping, has no type, or a field is not what it must be.
    """
    if not isinstance(event, dict) or not isinstance(event.get('type'), str):
        raise ValueError('it is no mapping with a type')
    for name, wanted in _TYPES.items():
        value = event.get(name)
        if value is not None and not isinstance(value, wanted):
            raise ValueError(f'{name} is {value!r:.100}')
        low, high = _RANGES.get(name, (0, 0))
        if value is not None and high and not low <= value <= high:
            raise ValueError(f'{name} is {value!r:.100}')


class EventReceiver(ConsumerMixin):
    """Calls handlers with the events that come.

    :param channel: connection or channel of kombu.
    :param handlers: by event type; ``*`` has those without a handler of their own.
    :param routing_key: which events: ``#`` all, ``worker.#`` those about workers.
    :param node_id: makes the name of the queue; default: a random one.
    """

    app: Any = None

    def __init__(
        self, channel: Any, handlers: Mapping[str, Handler] | None = None, routing_key: str = '#',
        node_id: str | None = None, app: Any = None, queue_prefix: str | None = None,
        accept: Iterable[str] | None = None, queue_ttl: float | None = None,
        queue_expires: float | None = None, queue_exclusive: bool | None = None,
        queue_durable: bool | None = None,
    ) -> None:
        self.app = app_or_default(app or self.app)
        conf = self.app.conf
        self.channel = maybe_channel(channel)
        self.handlers = {} if handlers is None else handlers
        self.routing_key = routing_key
        self.node_id = node_id or uuid()
        self.queue_prefix = queue_prefix or conf.event_queue_prefix
        self.exchange = get_exchange(self.connection or self.app.connection_for_write(), conf.event_exchange)
        exclusive = conf.event_queue_exclusive if queue_exclusive is None else queue_exclusive
        durable = conf.event_queue_durable if queue_durable is None else queue_durable
        self.queue = Queue(
            '.'.join((self.queue_prefix, self.node_id)), exchange=self.exchange, routing_key=self.routing_key,
            auto_delete=not durable, durable=durable, exclusive=exclusive,
            message_ttl=conf.event_queue_ttl if queue_ttl is None else queue_ttl,
            expires=conf.event_queue_expires if queue_expires is None else queue_expires)
        self.clock = self.app.clock
        self.adjust_clock = self.clock.adjust
        self.forward_clock = self.clock.forward
        self.accept = {conf.event_serializer, 'json'} if accept is None else accept

    @property
    def connection(self) -> Any:
        """The connection of the channel."""
        return self.channel.connection.client if self.channel else None

    def process(self, type: str, event: Mapping[str, Any]) -> None:  # noqa: A002
        """Call the handler of *event*, if there is one."""
        handler = self.handlers.get(type) or self.handlers.get('*')
        if handler is not None:
            handler(event)

    def get_consumers(self, Consumer: Any, channel: Any) -> list[Any]:  # noqa: N803
        """For kombu's mixin."""
        return [Consumer(queues=[self.queue], callbacks=[self._receive], no_ack=True, accept=self.accept)]

    def on_consume_ready(
        self, connection: Any, channel: Any, consumers: Any, wakeup: bool = True, **kwargs: Any,
    ) -> None:
        """For kombu's mixin: have the workers say that they are there."""
        if wakeup:
            self.wakeup_workers(channel=channel)

    def itercapture(
        self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True,
    ) -> Any:
        """Return an iterator that receives as it is advanced; see :meth:`capture`."""
        return self.consume(limit=limit, timeout=timeout, wakeup=wakeup)

    def capture(
        self, limit: int | None = None, timeout: float | None = None, wakeup: bool = True,
    ) -> None:
        """Receive, and call the handlers.

        :param limit: messages to receive; default: no limit.
        :param timeout: seconds of silence after which TimeoutError (socket.timeout) is raised.
        :param wakeup: have the workers send a heartbeat first.
        """
        for _ in self.consume(limit=limit, timeout=timeout, wakeup=wakeup):
            continue

    def wakeup_workers(self, channel: Any = None) -> None:
        """Have all workers send a heartbeat."""
        self.app.control.broadcast('heartbeat', connection=self.connection, channel=channel)

    def event_from_message(
        self, body: dict[str, Any], localize: bool = True, now: Callable[[], float] = time.time,
        tzfields: Any = None, adjust_timestamp: Any = adjust_timestamp,
        CLIENT_CLOCK_SKEW: int = CLIENT_CLOCK_SKEW,  # noqa: N803
    ) -> tuple[str, dict[str, Any]]:
        """Return (type, event) with clock and time made ours.

        :raises ValueError: it is no event.
        """
        check_event(body)
        type_ = body['type']
        if type_ == 'task-sent':
            body['clock'] = (self.clock.value or 1) + CLIENT_CLOCK_SKEW
            self.adjust_clock(body['clock'])
        else:
            try:
                self.adjust_clock(body['clock'])
            except (KeyError, TypeError, ValueError):
                body['clock'] = self.forward_clock()
        if localize and body.get('utcoffset') is not None and body.get('timestamp') is not None:
            body['timestamp'] = adjust_timestamp(body['timestamp'], body['utcoffset'])
        body['local_received'] = now()
        return type_, body

    def _receive(self, body: Any, message: Any) -> None:
        for event in body if isinstance(body, list) else (body,):
            try:
                type_, event = self.event_from_message(event)
            except (ArithmeticError, LookupError, TypeError, ValueError) as exc:
                logger.warning('An event is malformed, and ignored: %r', exc)
                continue
            self.process(type_, event)
