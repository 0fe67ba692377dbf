"""Sends events (PROTOCOL 3.7)."""
from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from kombu import Producer

from pyceleryc.app import app_or_default
from pyceleryc.app.drivers import has_fanout
from pyceleryc.events.event import Event, get_exchange, group_from, routing_key_of
from pyceleryc.utils.nodenames import anon_nodename
from pyceleryc.utils.time import utcoffset

__all__ = ('EventDispatcher',)

#: Events, or batches of them, kept while they cannot be sent; then the oldest are lost.
OUTBOUND_MAX = 1000


class EventDispatcher:
    """Sends events of one node.  A context manager; thread-safe.

    :param connection: of kombu.
    :param hostname: name of the node; default ``gen<pid>@<host>``.
    :param channel: used instead of a new one.
    :param buffer_while_offline: keep what cannot be sent, for :meth:`flush`; otherwise the error is raised.
    :param enabled: False: nothing is sent, and nothing connected, until :meth:`enable`.
    :param serializer: default: the setting ``event_serializer``.
    :param groups: send events of these groups only: ``worker``, ``task``.
    :param buffer_group: groups whose events are sent together, when *buffer_limit* of them have
        come or at :meth:`flush`.
    :param on_send_buffered: called then.
    """

    DISABLED_TRANSPORTS = frozenset({'sql'})

    app: Any = None

    def __init__(
        self, connection: Any = None, hostname: str | None = None, enabled: bool = True,
        channel: Any = None, buffer_while_offline: bool = True, app: Any = None,
        serializer: str | None = None, groups: Iterable[str] | None = None, delivery_mode: int = 1,
        buffer_group: Iterable[str] | None = None, buffer_limit: int = 24,
        on_send_buffered: Callable[[], Any] | None = None,
    ) -> None:
        self.app = app_or_default(app or self.app)
        self.connection = connection
        self.channel = channel
        self.hostname = hostname or anon_nodename()
        self.buffer_while_offline = buffer_while_offline
        self.buffer_group = frozenset(buffer_group or ())
        self.buffer_limit = buffer_limit
        self.on_send_buffered = on_send_buffered
        self.serializer = serializer or self.app.conf.event_serializer
        self.groups = set(groups or ())
        self.delivery_mode = delivery_mode
        self.tzoffset = utcoffset()
        self.pid = os.getpid()
        self.clock = self.app.clock
        self.on_enabled: set[Callable[[], Any]] = set()
        self.on_disabled: set[Callable[[], Any]] = set()
        self.producer: Any = None
        self.enabled = False
        self.mutex = threading.RLock()
        self._outbound: deque[tuple[dict[str, Any], str]] = deque(maxlen=OUTBOUND_MAX)
        self._groups: dict[str, list[dict[str, Any]]] = {group: [] for group in self.buffer_group}
        self.headers = {'hostname': self.hostname}
        if connection is None and channel is not None:
            self.connection = channel.connection.client
        self.exchange = self._exchange()
        if enabled and self.exchange is not None:
            self.enable()

    def _exchange(self) -> Any:
        name = self.app.conf.event_exchange
        if self.connection is not None:
            if self.connection.transport.driver_type in self.DISABLED_TRANSPORTS:
                return None
            return get_exchange(self.connection, name)
        if not has_fanout(self.app.conf.broker_write_url):
            return None
        # Only publish() with somebody else's producer works then.
        return get_exchange(self.app.connection_for_write(), name)

    def __enter__(self) -> EventDispatcher:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()

    # -- on and off ------------------------------------------------------------------------

    def enable(self) -> None:
        """Send from now on."""
        self.producer = Producer(
            self.channel or self.connection, exchange=self.exchange, serializer=self.serializer,
            auto_declare=False)
        self.enabled = True
        for callback in self.on_enabled:
            callback()

    def disable(self) -> None:
        """Close, and do not send any more."""
        if self.enabled:
            self.enabled = False
            self.close()
            for callback in self.on_disabled:
                callback()

    def close(self) -> None:
        """Let go of the connection, which stays open."""
        self.producer = None

    # -- sending ---------------------------------------------------------------------------

    def _complete(self, fields: dict[str, Any], blind: bool, offset: Callable[[], float]) -> dict[str, Any]:
        clock = None if blind else self.clock.forward()
        return {'hostname': self.hostname, 'utcoffset': offset(), 'pid': self.pid, 'clock': clock, **fields}

    def publish(
        self, type: str, fields: dict[str, Any], producer: Any, blind: bool = False,  # noqa: A002
        Event: Callable[..., Any] = Event, **kwargs: Any,  # noqa: N803  the public name
    ) -> None:
        """Send an event with *producer*, at once.

        :param blind: do not count it in the logical clock.
        :param kwargs: ``retry``, ``retry_policy``.
        """
        clock = None if blind else self.clock.forward()
        event = Event(type, hostname=self.hostname, utcoffset=utcoffset(), pid=self.pid, clock=clock, **fields)
        with self.mutex:
            self._publish(event, producer, routing_key_of(type), **kwargs)

    def _publish(
        self, event: Any, producer: Any, routing_key: str, retry: bool = False,
        retry_policy: Any = None,
    ) -> None:
        try:
            producer.publish(
                event, routing_key=routing_key, exchange=self.exchange.name, retry=retry,
                retry_policy=retry_policy, declare=[self.exchange], serializer=self.serializer,
                headers=self.headers, delivery_mode=self.delivery_mode)
        except Exception:
            if not self.buffer_while_offline:
                raise
            self._outbound.append((event, routing_key))

    def send(
        self, type: str, blind: bool = False, utcoffset: Callable[[], float] = utcoffset,  # noqa: A002
        retry: bool = False, retry_policy: Any = None,
        Event: Callable[..., Any] = Event, **fields: Any,  # noqa: N803
    ) -> None:
        """Send an event if this is enabled; those of *buffer_group* wait for each other.

        :param type: such as ``task-custom``.
        :param fields: of the event.
        """
        if not self.enabled:
            return
        group = group_from(type)
        if self.groups and group not in self.groups:
            return
        event = Event(type, **self._complete(fields, blind, utcoffset))
        with self.mutex:
            if group not in self._groups:
                self._publish(event, self.producer, routing_key_of(type), retry, retry_policy)
                return
            waiting = self._groups[group]
            waiting.append(event)
            if len(waiting) >= self.buffer_limit:
                self.flush()
            elif self.on_send_buffered:
                self.on_send_buffered()

    def flush(self, errors: bool = True, groups: bool = True) -> None:
        """Send what waits: what could not be sent before (*errors*), and buffered groups."""
        with self.mutex:
            if errors:
                for event, routing_key in [self._outbound.popleft() for _ in range(len(self._outbound))]:
                    self._publish(event, self.producer, routing_key)
            if groups:
                for group, waiting in self._groups.items():
                    if waiting:
                        self._groups[group] = []
                        self._publish(waiting, self.producer, f'{group}.multi')

    def extend_buffer(self, other: EventDispatcher) -> None:
        """Take over what *other* could not send."""
        self._outbound.extend(other._outbound)
