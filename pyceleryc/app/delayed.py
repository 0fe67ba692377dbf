"""Native delayed delivery: with quorum queues RabbitMQ keeps tasks until their ETA (PROTOCOL 3.9).

A message goes to the exchange ``celery_delayed_27`` with a routing key that begins with the seconds as 28 binary digits. Exchanges and
queues of one level for each digit lead it, when its time has come, to the topic exchange ``celery_delayed_delivery``, and that
to the exchange of its queue. Exchanges that are direct cannot be led to; messages for those are held by a worker.
"""
from __future__ import annotations

import logging
import re
import time
from typing import Any

from amqp.exceptions import PreconditionFailed
from kombu import Queue
from kombu.common import Broadcast
from kombu.exceptions import OperationalError
from kombu.transport.native_delayed_delivery import (
    CELERY_DELAYED_DELIVERY_EXCHANGE,
    MAX_LEVEL,
    MAX_NUMBER_OF_BITS_TO_USE,
    bind_queue_to_native_delayed_delivery_exchange,
    calculate_routing_key,
    declare_native_delayed_delivery_exchanges_and_queues,
    level_name,
)

from pyceleryc.exceptions import ImproperlyConfigured

__all__ = ('Delayed', 'can_be_delayed', 'declare_delayed', 'has_quorum_queues')

logger = logging.getLogger('celery.worker.consumer.delayed_delivery')

_QUEUE_TYPES = ('classic', 'quorum')
#: A longer delay would need one more digit, and reach nobody; the worker waits for the rest.
_LONGEST = (1 << MAX_NUMBER_OF_BITS_TO_USE) - 1
#: Where a message comes from that was delayed before: a retry is sent there again.
_EXCHANGES = frozenset({CELERY_DELAYED_DELIVERY_EXCHANGE, *map(level_name, range(MAX_LEVEL + 1))})
_DIGITS = re.compile(r'(?:[01]\.){%d}' % MAX_NUMBER_OF_BITS_TO_USE)


def has_quorum_queues(app: Any) -> bool:
    """Is one of the app's queues of the kind whose tasks are delayed by the broker?"""
    return any((queue.queue_arguments or {}).get('x-queue-type') == 'quorum' for queue in app.amqp.queues.values())


def can_be_delayed(queue: Any) -> bool:
    """Can delayed messages be led to *queue*?"""
    return not isinstance(queue, Broadcast) and queue.exchange.type != 'direct' and bool(queue.routing_key)


def declare_delayed(app: Any, connection: Any, queues: Any) -> None:
    """Declare the exchanges and queues that delay, and lead those to *queues* that can be led to.

    :raises ImproperlyConfigured: ``broker_native_delayed_delivery_queue_type`` is no kind of queue.
    """
    kind = app.conf.broker_native_delayed_delivery_queue_type
    if kind not in _QUEUE_TYPES:
        raise ImproperlyConfigured(
            f'broker_native_delayed_delivery_queue_type is {kind!r}: it has to be one of {", ".join(_QUEUE_TYPES)}')
    try:
        declare_native_delayed_delivery_exchanges_and_queues(connection, kind)
    except PreconditionFailed as exc:  # others have declared them as another type: they serve as well
        logger.debug('The queues of native delayed delivery are not of type %s: %s', kind, exc)
    for queue in queues:
        if can_be_delayed(queue):
            bind_queue_to_native_delayed_delivery_exchange(connection, queue)
        else:
            logger.debug('Queue %s cannot be reached by native delayed delivery', queue.name)


class Delayed:
    """The sender's side, of one app."""

    def __init__(self, app: Any) -> None:
        self.app = app
        #: Queues that delayed messages are known to reach.
        self.reached: set[str] = set()

    def route(
        self, due: float, queue: Queue | None, exchange: str, routing_key: str | None, connection: Any = None,
    ) -> tuple[str, str | None]:
        """Return exchange and key for a message that is *due* at that Unix time: those given, if nothing can delay it.

        :param connection: that the message will be published on; None: the app's own.
        :raises OperationalError: the broker cannot be reached.
        """
        seconds = int(due - time.time())
        if seconds < 1 or not has_quorum_queues(self.app):
            return exchange, routing_key
        if exchange in _EXCHANGES and routing_key and _DIGITS.match(routing_key):
            routing_key = _DIGITS.sub('', routing_key, count=1)
        elif queue is None or not can_be_delayed(queue) or (exchange, routing_key) != (queue.exchange.name, queue.routing_key):
            return exchange, routing_key
        else:
            self._reach(queue, connection)
        return level_name(MAX_LEVEL), calculate_routing_key(min(seconds, _LONGEST), routing_key)

    def _reach(self, queue: Queue, connection: Any) -> None:
        """See to it, once, that delayed messages reach *queue*: without that the broker drops them when they are due."""
        if queue.name in self.reached:
            return
        if connection is not None:
            self._declare(connection, queue)
        else:
            with self.app.connection_for_write() as own:
                policy = self.app.send_settings.retry_policy
                own.ensure_connection(**{name: policy[name] for name in (
                    'max_retries', 'interval_start', 'interval_step', 'interval_max') if name in policy})
                self._declare(own, queue)
        self.reached.add(queue.name)

    def _declare(self, connection: Any, queue: Queue) -> None:
        try:
            with connection.channel() as channel:
                queue(channel).declare()
            declare_delayed(self.app, connection, [queue])
        except (*connection.recoverable_connection_errors, *connection.recoverable_channel_errors) as exc:
            raise OperationalError(f'cannot declare the queues of native delayed delivery: {exc}') from exc
