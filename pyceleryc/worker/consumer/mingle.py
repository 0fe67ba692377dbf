"""The step that asks other workers what was revoked (PROTOCOL 3.8)."""
from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from kombu import Producer
from kombu.utils.uuid import uuid

from pyceleryc import bootsteps
from pyceleryc.worker import state as worker_state
from pyceleryc.worker.consumer.events import Events

__all__ = ('Mingle',)

logger = logging.getLogger('celery.worker.consumer.mingle')

#: Seconds after the question at which answers are looked for; then nobody else is expected to answer.
LOOKS = (0.02, 0.1, 0.3, 1.0)


class Mingle(bootsteps.StartStopStep):
    """Sends ``hello`` to all workers; takes over ids of revoked tasks and the logical clock from their answers.

    The worker does not wait for that, it works already (Celery waits for a second).
    """

    label = 'Mingle'
    requires = (Events,)
    conditional = True
    uses_connection = True

    def __init__(self, c: Any, without_mingle: bool = False, **kwargs: Any) -> None:
        self.enabled = not without_mingle and bool(c.app.conf.worker_enable_remote_control)
        self._round = 0

    def start(self, c: Any) -> None:
        if c.connection is None:
            return
        logger.info('mingle: searching for neighbors')
        self._round += 1
        _Question(c, self, self._round).ask()

    def stop(self, c: Any) -> None:
        self._round += 1  # answers to what was asked before are not waited for

    def is_current(self, number: int) -> bool:
        """Is this the last question that was asked?"""
        return number == self._round


class _Question:
    def __init__(self, c: Any, step: Mingle, number: int) -> None:
        self.c, self.step, self.number = c, step, number
        self.mailbox = c.app.control.make_mailbox()
        self.channel = c.connection.default_channel
        self.queue = self.mailbox.reply_queue(self.channel)
        self.ticket = uuid()
        self.answers = 0

    def ask(self) -> None:
        c, mailbox = self.c, self.mailbox
        self.queue.declare()
        producer = Producer(self.channel, auto_declare=False)
        revoked = worker_state.monotonic_times(worker_state.revoked)
        mailbox._publish(
            'hello', {'from_node': c.hostname, 'revoked': revoked}, reply_ticket=self.ticket,
            channel=self.channel, timeout=LOOKS[-1], serializer=mailbox.serializer, producer=producer)
        for seconds in LOOKS:
            c.machine.core.call_later(seconds, lambda last=seconds == LOOKS[-1]: self._look(last))

    def _look(self, last: bool) -> None:
        if self.step.is_current(self.number):
            self.c.machine.link.guard(lambda: self._take(last))

    def _take(self, last: bool) -> None:
        while (message := self.queue.get(no_ack=True, accept=self.mailbox.accept)) is not None:
            if message.headers.get('ticket') == self.ticket:
                self._on_answer(message)
        if not last:
            return
        self.queue.delete()
        if self.answers:
            logger.info('mingle: sync with %d nodes', self.answers)
            logger.info('mingle: sync complete')
        else:
            logger.info('mingle: all alone')

    def _on_answer(self, message: Any) -> None:
        try:
            answers = message.payload
            for node, answer in answers.items():
                if node != self.c.hostname and isinstance(answer, Mapping) and 'clock' in answer:
                    self._merge(node, answer)
        except Exception as exc:  # whatever came over the network
            logger.warning('mingle: an answer cannot be used: %r', exc)

    def _merge(self, node: str, answer: Mapping[str, Any]) -> None:
        logger.debug('mingle: processing reply from %s', node)
        self.answers += 1
        self.c.app.clock.adjust(int(answer['clock']))
        self.c.machine.learn_revoked(answer.get('revoked') or {})
