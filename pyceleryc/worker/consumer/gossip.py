"""The step that listens to other workers, and elections among them (PROTOCOL 3.7, 3.8)."""
from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pyceleryc import bootsteps
from pyceleryc.app.drivers import broker_urls, scheme_of
from pyceleryc.worker.consumer.mingle import Mingle

__all__ = ('Gossip',)

logger = logging.getLogger('celery.worker.consumer.gossip')

#: Brokers that delete the queues of workers that were killed. Elsewhere such a queue would collect messages for ever.
SERVERS = frozenset({'amqp', 'amqps', 'redis', 'sentinel'})
#: Seconds between looks for workers whose heartbeat is missing.
PERIOD = 5.0
#: Other workers that are listened to. In larger fleets it would be too much: the messages are the square of the workers.
LARGE_FLEET = 50
#: Seconds from candidature to vote.
VOTE_DELAY = 0.2
#: Seconds after which an election is decided without those who have not voted.
PATIENCE = 3.0


class _Callbacks:
    """``gossip.on``: sets of functions that are called with a worker (of the events' state)."""

    def __init__(self) -> None:
        self.node_join: set[Callable[[Any], Any]] = set()
        self.node_leave: set[Callable[[Any], Any]] = set()
        self.node_lost: set[Callable[[Any], Any]] = set()

    def any(self) -> bool:
        """Does anybody want to know?"""
        return bool(self.node_join or self.node_leave or self.node_lost)


class _Election:
    def __init__(self) -> None:
        self.candidates: list[tuple[int, str, str, Any]] = []
        self.votes: set[str] = set()


class Gossip(bootsteps.ConsumerStep):
    """``c.gossip``: which workers there are, and elections.

    In fleets of more than 50 workers it stops listening, unless somebody has put a callback in ``gossip.on``.
    """

    label = 'Gossip'
    requires = (Mingle,)
    conditional = True

    def __init__(self, c: Any, without_gossip: bool = False, **kwargs: Any) -> None:
        self.enabled = not without_gossip
        self.on = _Callbacks()
        self.election_handlers: dict[str, Callable[[Any], Any]] = {'task': self.call_task}
        self.listening = False
        self._elections: dict[str, _Election] = {}

    def include_if(self, c: Any) -> bool:
        url = broker_urls(c.app.conf.broker_read_url)[0]
        return self.enabled and c.controller.has_fanout and scheme_of(url) in SERVERS

    def create(self, c: Any) -> None:
        c.gossip, self.c, self.app = self, c, c.app
        self.state = c.app.events.State(
            on_node_join=self._join, on_node_leave=self._leave, max_tasks_in_memory=1)

    # -- listening -----------------------------------------------------------------------------

    def start(self, c: Any) -> None:
        if c.connection is not None:
            super().start(c)
            self.listening = True
            self._plan(self.consumers)

    def get_consumers(self, channel: Any) -> list[Any]:
        """For :meth:`start`."""
        heartbeat = self.c.machine.events.heartbeat or PERIOD
        self.receiver = self.app.events.Receiver(channel, routing_key='worker.#', queue_ttl=heartbeat)
        return [self.app.amqp.Consumer(
            channel, [self.receiver.queue], callbacks=[self._on_message], no_ack=True, accept=self.receiver.accept,
            on_decode_error=self._on_decode_error)]

    def stop(self, c: Any) -> None:
        self.listening = False
        super().stop(c)

    def _on_message(self, body: Any, message: Any) -> None:
        try:
            self._on_event(body)
        except Exception as exc:  # whatever came over the network
            logger.warning('gossip: an event cannot be used: %r', exc)

    def _on_decode_error(self, message: Any, exc: Exception) -> None:
        logger.warning('gossip: an event cannot be decoded: %r', exc)

    def _on_event(self, body: dict[str, Any]) -> None:
        handler = {'worker-elect': self._on_elect, 'worker-elect-ack': self._on_vote}.get(body['type'])
        if handler is not None:
            self.app.clock.adjust(int(body['clock']))
            handler(body)
        elif body['hostname'] != self.c.hostname:
            _, event = self.receiver.event_from_message(body)
            self.state.event(event)

    def _plan(self, consumers: Any) -> None:
        def due() -> None:
            if self.listening and self.consumers is consumers:
                self.periodic()
                self._plan(consumers)

        self.c.machine.core.call_later(PERIOD, due)

    def periodic(self) -> None:
        """Look whose heartbeat is missing, and how many there are."""
        for worker in list(self.state.workers.values()):
            if not worker.alive:
                logger.info('missed heartbeat from %s', worker.hostname)
                self._call(self.on.node_lost, worker)
                self.state.workers.pop(worker.hostname, None)
        if len(self.state.workers) > LARGE_FLEET and not self.on.any():
            logger.info('gossip: there are more than %d workers, this one stops listening', LARGE_FLEET)
            self.c.machine.link.guard(lambda: self.stop(self.c))

    def _join(self, worker: Any) -> None:
        logger.debug('%s joined the party', worker.hostname)
        self._call(self.on.node_join, worker)

    def _leave(self, worker: Any) -> None:
        logger.debug('%s left', worker.hostname)
        self._call(self.on.node_leave, worker)

    def _call(self, callbacks: set[Callable[[Any], Any]], worker: Any) -> None:
        for callback in list(callbacks):
            try:
                callback(worker)
            except Exception as exc:
                logger.exception('Ignored error from handler %r: %r', callback, exc)

    # -- elections -----------------------------------------------------------------------------

    def election(self, id: str, topic: str, action: Any = None) -> None:  # noqa: A002
        """Stand as a candidate; the worker that wins calls the handler of *topic* with *action*.

        :param id: all workers that stand in the same election know it by this.
        """
        self._send('worker-elect', id=id, topic=topic, action=action, cver=1)

    def _send(self, type_: str, **fields: Any) -> None:
        dispatcher = self.c.machine.events.dispatcher
        if dispatcher is not None:
            self.c.machine.link.guard(lambda: dispatcher.send(type_, **fields))

    def _on_elect(self, event: dict[str, Any]) -> None:
        known = event['id'] in self._elections
        election = self._elections.setdefault(event['id'], _Election())
        node = f'{event["hostname"]}.{event["pid"]}'
        election.candidates.append((int(event['clock']), node, event['topic'], event['action']))
        # A worker of Celery's that gets votes before it has seen the candidates fails, and connects anew.
        self.c.machine.core.call_later(VOTE_DELAY, lambda: self._send('worker-elect-ack', id=event['id']))
        if not known:
            self.c.machine.core.call_later(PATIENCE, lambda: self._decide(event['id']))
        self._decide_if_complete(event['id'])

    def _on_vote(self, event: dict[str, Any]) -> None:
        election = self._elections.get(event['id'])
        if election is not None:
            election.votes.add(event['hostname'])
            self._decide_if_complete(event['id'])

    def _decide_if_complete(self, id: str) -> None:  # noqa: A002
        election = self._elections[id]
        voters = sum(1 for _ in self.state.alive_workers()) + 1
        if min(len(election.votes), len(election.candidates)) >= voters:
            self._decide(id)

    def _decide(self, id: str) -> None:  # noqa: A002
        election = self._elections.pop(id, None)
        if election is None:
            return
        _, winner, topic, action = min(election.candidates, key=lambda candidate: candidate[:2])
        if winner != f'{self.c.hostname}.{self.c.pid}':
            logger.info('node %s elected for %r', winner, id)
            return
        logger.info('I won the election %r', id)
        handler = self.election_handlers.get(topic)
        if handler is None:
            logger.error('Nobody here handles elections of the topic %r; known are: %s', topic,
                         ', '.join(sorted(self.election_handlers)))
            return
        try:
            handler(action)
        except Exception as exc:
            logger.exception('The action of the election %r failed: %r', id, exc)

    def call_task(self, task: Any) -> None:
        """Handler of the topic ``task``: send the task that the signature *task* describes."""
        self.app.signature(task).apply_async()
