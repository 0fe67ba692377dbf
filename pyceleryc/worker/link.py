"""The worker's line to those who control and watch it: one kombu connection on the machine's loop.

Commands come in through it, replies and events go out (PROTOCOL 3.7, 3.8).  Everything runs in the thread
that turns the loop and never waits for the broker, except for connecting, which is only tried
while the machine itself is connected.  When the line breaks the worker goes on without it and tries again.
"""
from __future__ import annotations

import importlib
import logging
import os
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pyceleryc.app.drivers import broker_urls, has_fanout, scheme_of

if TYPE_CHECKING:
    from pyceleryc.worker.machine import Machine

logger = logging.getLogger('celery.worker.control')

#: Seconds between looks at a broker that has no socket to be watched.
POLL = 0.25
#: Seconds until the next attempt to connect: doubled each time, up to the last.
FIRST_PAUSE, LAST_PAUSE = 1.0, 32.0
#: Seconds that a write may wait for a peer that takes nothing.
WRITE_TIMEOUT = 2.0
#: How many times in an interval of heartbeats they are looked at.
HEARTBEAT_RATE = 4


class Link:
    """A connection that is opened when it is first wanted, and kept.

    :param on_open: called with a new connection: what to declare and consume.
    :param on_close: called when the connection is gone.
    """

    def __init__(self, machine: Machine, on_open: Callable[[Any], None], on_close: Callable[[], None]) -> None:
        self.machine = machine
        self.app = machine.app
        self.possible = is_possible(machine.app)
        self.connection: Any = None
        self.wanted = False
        self._on_open, self._on_close = on_open, on_close
        self._fds: list[int] = []
        self._pause = FIRST_PAUSE
        self._waiting = False
        self._draining = False

    @property
    def up(self) -> bool:
        """Is there a connection?"""
        return self.connection is not None

    # -- opening ---------------------------------------------------------------------------

    def open(self) -> None:
        """Connect unless this is done; when it fails try again later."""
        self.wanted = self.possible
        if not self.wanted or self.up or self._waiting or not self.machine.connected:
            return
        connection = self._new_connection()
        self.connection = connection
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, interval_max=0)
            self._on_open(connection)
            self._attach()
        except self._errors() as exc:
            self._broken(exc)
            return
        self._pause = FIRST_PAUSE
        # What came with the answers to our declarations is in no socket any more.
        self.machine.core.call_later(0.0, self._on_readable)

    def _new_connection(self) -> Any:
        url = self.machine.brokers.url
        options: dict[str, Any] = {}
        if scheme_of(url).startswith('amqp'):
            # A confirm would have to be waited for.
            options = {'write_timeout': WRITE_TIMEOUT, 'confirm_publish': False}
        elif url.lower().startswith('sentinel'):
            options = {'sentinel_kwargs': _impatient(self.app.conf.broker_transport_options or {})}
        several = len(self.machine.brokers.urls) > 1
        return self.app.connection_for_read(
            url if several else None, heartbeat=self.app.conf.broker_heartbeat, transport_options=options)

    def _errors(self) -> tuple[type[BaseException], ...]:
        return self.errors(self.connection)

    @staticmethod
    def errors(connection: Any) -> tuple[type[BaseException], ...]:
        """What using *connection* may raise when it is broken."""
        return (*connection.recoverable_connection_errors, *connection.recoverable_channel_errors,
                *connection.connection_errors, *connection.channel_errors, OSError)

    def _attach(self) -> None:
        self._watch_sockets()
        if self.up and not self._fds:
            self._poll(self.connection)
        interval = self.connection.get_heartbeat_interval()
        if interval:
            self._beat(self.connection, interval / HEARTBEAT_RATE)

    def _watch_sockets(self) -> None:
        for fd in self._sockets():
            if fd not in self._fds:
                self.machine.core.add_reader(fd, self._on_readable)
                self._fds.append(fd)

    def _sockets(self) -> list[int]:
        if self._by_subscription:
            # Kombu subscribes when it is asked for messages for the first time.
            self._drain()
            return list(self.connection.transport.cycle.fds) if self.up else []
        if self.connection.transport.driver_type == 'amqp':
            return [self.connection.connection.transport.sock.fileno()]
        return []

    @property
    def _by_subscription(self) -> bool:
        return bool(self.connection.transport.driver_type == 'redis')

    def _poll(self, connection: Any) -> None:
        def due() -> None:
            if self.connection is connection:
                self._on_readable()
                self._poll(connection)

        self.machine.core.call_later(POLL, due)

    def _beat(self, connection: Any, pause: float) -> None:
        def due() -> None:
            if self.connection is not connection:
                return
            self.guard(lambda: connection.heartbeat_check(rate=HEARTBEAT_RATE))
            self.machine.core.call_later(pause, due)

        self.machine.core.call_later(pause, due)

    # -- using -----------------------------------------------------------------------------

    def guard(self, action: Callable[[], Any]) -> bool:
        """Do something with the connection; if it breaks say so and return False."""
        if not self.up:
            return False
        try:
            action()
        except self._errors() as exc:
            self._broken(exc)
            return False
        return True

    def _on_readable(self) -> None:
        if self._draining or not self.up:  # a command may have waited for the broker
            return
        self._draining = True
        try:
            self.guard(self._drain)
            if self.up and self._by_subscription:
                # An answer without a message ends kombu's question for the next one: it has to ask again.
                self.guard(self._watch_sockets)
        finally:
            self._draining = False

    def _drain(self) -> None:
        connection = self.connection
        while self.connection is connection:
            try:
                connection.drain_events(timeout=0)
            except (BlockingIOError, socket.timeout):
                return

    # -- closing ---------------------------------------------------------------------------

    def _broken(self, why: BaseException) -> None:
        level = logging.WARNING if self._pause == FIRST_PAUSE else logging.DEBUG
        logger.log(level, 'The connection for remote control and events is lost: %s. Trying again in %.0f seconds.',
                   why, self._pause)
        self._drop()
        if not self._waiting:
            self._waiting = True
            self.machine.core.call_later(self._pause, self._again)
        self._pause = min(self._pause * 2, LAST_PAUSE)

    def _again(self) -> None:
        self._waiting = False
        if self.wanted:
            self.open()

    def _drop(self) -> None:
        connection, self.connection = self.connection, None
        self._detach()
        self._on_close()
        if connection is not None:
            _let_go(connection)

    def _detach(self) -> None:
        while self._fds:
            self.machine.core.remove_reader(self._fds.pop())

    def close(self) -> None:
        """Say good-bye."""
        self.wanted = False
        connection, self.connection = self.connection, None
        if connection is None:
            return
        self._detach()
        try:
            connection.release()
        except Exception as exc:  # it is over either way
            logger.debug('Closing the connection for remote control: %r', exc)

    def abandon(self) -> None:
        """In a child after a fork: forget the connection without a word to the broker."""
        connection, self.connection = self.connection, None
        self.wanted = False
        if connection is not None:
            _let_go(connection)


def _impatient(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``sentinel_kwargs`` with which a Sentinel that is down costs no time: the others are asked."""
    retry, backoff = importlib.import_module('redis.retry'), importlib.import_module('redis.backoff')
    return {'socket_connect_timeout': WRITE_TIMEOUT, 'socket_timeout': WRITE_TIMEOUT,
            'retry': retry.Retry(backoff.NoBackoff(), 0), **(options.get('sentinel_kwargs') or {})}


def _let_go(connection: Any) -> None:
    """Close the socket only.  The library would wait for an answer, or end it for the parent, too."""
    transport = getattr(connection._connection, '_transport', None)
    sock = getattr(transport, 'sock', None)
    if transport is not None and sock is not None:
        transport.sock = None
        os.close(sock.detach())


def is_possible(app: Any) -> bool:
    """Can this broker reach all workers?"""
    return has_fanout(app.conf.broker_read_url)
