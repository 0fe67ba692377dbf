"""Events of a worker (PROTOCOL 3.7): whether they are wanted, and what they leave through.

The core writes those about tasks (csrc/work/events.c, report.c); here are those about the worker, and those of rare fates that only
Python knows of. Children of the pool send none: what is to be told about a run comes back with its outcome.

While events about tasks are wanted all leave through a C producer with a connection of its own. Otherwise, and with a serializer or
a transport that is kombu's alone, there are few, and they take the connection of remote control.
"""
from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

from kombu.common import maybe_declare

from pyceleryc import __version__, signals
from pyceleryc.events.event import routing_key_of
from pyceleryc.utils.sysinfo import load_average
from pyceleryc.utils.time import utcoffset

if TYPE_CHECKING:
    from pyceleryc.worker.machine import Machine

__all__ = ('WorkerEvents',)

logger = logging.getLogger('celery.worker.events')

#: Seconds between heartbeats.
HEARTBEAT = 2.0
#: Seconds that the last events have at the end.
CLOSE_TIMEOUT = 1.0
SOFTWARE = {'sw_ident': 'py-celery', 'sw_ver': __version__, 'sw_sys': os.uname().sysname}


class WorkerEvents:
    """Sends the events of *machine*.

    :param enabled: send events about tasks from the start.
    :param heartbeat: seconds between heartbeats; 0: none.
    """

    def __init__(self, machine: Machine, enabled: bool, heartbeat: float | None = None) -> None:
        self.machine = machine
        self.app = machine.app
        self.heartbeat = HEARTBEAT if heartbeat is None else heartbeat
        #: Are events about tasks wanted?
        self.enabled = enabled
        #: On the connection of remote control, for steps and gossip.
        self.dispatcher: Any = None
        #: A ``_core.Producer``; the one of tasks would wait for confirms.
        self.producer: Any = None
        self._offset = 0
        self._beats = 0
        #: Sender of the signal heartbeat_sent.
        self._heart: Any = None

    def attach(self) -> None:
        """There is a core."""
        self._introduce()
        self.machine.core.events_on(self.enabled)

    def _introduce(self) -> None:
        self._offset = int(utcoffset())
        self.machine.core.events_identity(
            self.machine.hostname, self._offset, os.getpid(), self.app.conf.event_exchange, self.app.clock.cell)

    # -- on and off ------------------------------------------------------------------------

    def enable(self) -> bool:
        """Send events about tasks; False if that is so already."""
        if self.enabled:
            return False
        self.enabled = True
        self.machine.core.events_on(True)
        self.machine.link.open()
        if self.dispatcher is not None:
            self._choose_way()
        self.send('worker-online')
        return True

    def disable(self) -> bool:
        """Do not send them any more."""
        if not self.enabled:
            return False
        self.enabled = False
        self.machine.core.events_on(False)
        if not self.heartbeat:
            self.send('worker-offline')
        return True

    def start_beats(self, heart: Any = None) -> None:
        """Say that the worker is there, now and from time to time; *heart* is the sender of the signal."""
        self._heart = heart
        self._beats += 1
        self.send('worker-online')
        if self.heartbeat:
            self._plan_beat(self._beats)

    def stop_beats(self) -> None:
        """Do not say so any more."""
        self._beats += 1

    def _plan_beat(self, number: int) -> None:
        def due() -> None:
            if self._beats == number:
                self.beat()
                self._plan_beat(number)

        self.machine.core.call_later(self.heartbeat, due)

    # -- the connection --------------------------------------------------------------------

    def open(self, channel: Any) -> None:
        """There is a connection, and so probably can be another."""
        old, self.dispatcher = self.dispatcher, self.app.events.Dispatcher(channel=channel, hostname=self.machine.hostname)
        maybe_declare(self.dispatcher.exchange, channel)
        if old is not None:
            self.dispatcher.extend_buffer(old)
        self._choose_way()
        if self.enabled and not self.heartbeat:
            self.send('worker-online')

    def _choose_way(self) -> None:
        if self.enabled and self.producer is None and self.app.conf.event_serializer == 'json':
            self.producer = self.machine.new_event_producer()
        if self.producer is not None:
            self._declare()
        self.machine.core.events_open(self.producer)

    def _declare(self) -> None:
        exchange = self.dispatcher.exchange
        timeout = float(self.app.conf.broker_connection_timeout or 4)
        try:
            self.producer.connect(timeout)
            self.producer.declare({'name': '', 'exchange': exchange.name, 'exchange_type': exchange.type,
                                   'exchange_durable': exchange.durable}, timeout)
        except self.machine.core_errors as exc:  # the core goes on trying
            logger.warning('No connection for events yet: %s', exc)

    def send_by_kombu(self, routing_key: str, body: bytes) -> bool:
        """For the core, which has no producer; False: not now."""
        dispatcher = self.dispatcher
        return dispatcher is not None and self.machine.link.guard(lambda: dispatcher.producer.publish(
            json.loads(body), routing_key=routing_key, exchange=dispatcher.exchange.name, serializer=dispatcher.serializer,
            headers=dispatcher.headers, delivery_mode=dispatcher.delivery_mode))

    def close(self) -> None:
        """The worker ends."""
        if self.enabled or self.heartbeat:
            self.send('worker-offline')
        self.machine.core.events_close()
        if self.producer is not None:
            try:
                self.producer.close(CLOSE_TIMEOUT)
            except self.machine.core_errors as exc:
                logger.debug('The last events may be lost: %s', exc)

    # -- sending ---------------------------------------------------------------------------

    def send(self, type_: str, **fields: Any) -> None:
        """Send an event about this worker at once."""
        if int(utcoffset()) != self._offset:  # summer time begins or ends
            self._introduce()
        numbers = self.machine.core.stats()
        frequency = fields.pop('freq', self.heartbeat or HEARTBEAT)
        self.machine.core.event(type_, routing_key_of(type_), {
            'freq': frequency, 'active': numbers['in_pool'], 'processed': numbers['done'],
            'loadavg': load_average(), **SOFTWARE, **fields})

    def beat(self, freq: float | None = None) -> None:
        """Send a heartbeat."""
        self.send('worker-heartbeat', **({} if freq is None else {'freq': freq}))
        signals.heartbeat_sent.send(sender=self._heart)

    def task(self, type_: str, fields: dict[str, Any]) -> None:
        """Send an event about a task, with those of the core."""
        if self.enabled:
            self.machine.core.event(type_, None, fields)

    # -- in a process of the pool ------------------------------------------------------------

    def child_start(self) -> None:
        """After the fork."""
        self.dispatcher = None
        if self.producer is not None:
            self.producer.abandon()
