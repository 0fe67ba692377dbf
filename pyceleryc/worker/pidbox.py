"""Remote control of a worker: takes commands from its mailbox, and answers (PROTOCOL 3.8)."""
from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from kombu import Consumer, Exchange, Producer

from pyceleryc.utils.collections import AttributeDict
from pyceleryc.worker import control as commands
from pyceleryc.worker.panel import NO_REPLY

if TYPE_CHECKING:
    from pyceleryc.worker.machine import Machine

__all__ = ('Pidbox',)

logger = logging.getLogger('celery.worker.control')


class Pidbox:
    """The mailbox of one worker; it works while :attr:`~pyceleryc.worker.link.Link` has a channel."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.enabled = bool(machine.app.conf.worker_enable_remote_control)
        self.mailbox = machine.app.control.make_mailbox()
        state = AttributeDict(app=machine.app, hostname=machine.hostname, consumer=machine.consumer,
                              machine=machine, tset=set)
        self.node = self.mailbox.Node(machine.hostname, state=state, handlers=commands.Panel.data)
        self.node.reply = self._reply
        self._producer: Any = None

    def open(self, channel: Any) -> None:
        """Consume on *channel*."""
        if not self.enabled:
            return
        reply_exchange: Exchange = self.mailbox.reply_exchange(channel)
        reply_exchange.declare()
        self._producer = Producer(channel, auto_declare=False, serializer=self.mailbox.serializer)
        queue = self.mailbox.get_queue(self.machine.hostname)(channel)
        Consumer(channel, [queue], no_ack=True, accept=self.mailbox.accept, callbacks=[self._on_message],
                 on_decode_error=self._on_decode_error).consume()
        self.node.channel = channel

    def close(self) -> None:
        """The channel is gone."""
        self._producer = self.node.channel = None

    def _on_message(self, body: Any, message: Any) -> None:
        try:
            self.node.handle_message(body, message)
        except Exception:
            # Whatever it was, it must not take the connection with it.  Ill-formed, most likely.
            logger.exception('A message for remote control cannot be handled')

    def _on_decode_error(self, message: Any, exc: Exception) -> None:
        logger.error('Cannot decode a message for remote control: %r', exc)

    def _reply(self, data: Any, exchange: str, routing_key: str, ticket: str, **kwargs: Any) -> None:
        """Kombu's own would wait for a lost connection, and stop the worker that long."""
        if NO_REPLY in data.values():
            return
        if exchange != self.mailbox.reply_exchange.name or not isinstance(routing_key, str):
            # One that does not exist would cost us the connection.
            logger.error('The reply to a command is wanted at exchange %r, key %r: replies go to exchange %r only',
                         exchange, routing_key, self.mailbox.reply_exchange.name)
            return
        producer, clock = self._producer, self.machine.app.clock
        self.machine.link.guard(lambda: producer.publish(
            data, exchange=exchange, routing_key=routing_key, delivery_mode=1,
            headers={'ticket': ticket, 'clock': clock.forward()}))
