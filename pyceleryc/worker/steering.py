"""What remote control may ask of the machine (FEATURES 2.11)."""
from __future__ import annotations

import logging
import signal
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from kombu import Queue

from pyceleryc import _state, states
from pyceleryc.app.context import Context
from pyceleryc.app.trace import register_all
from pyceleryc.exceptions import TaskRevokedError, WorkerShutdown, WorkerTerminate
from pyceleryc.worker import state as worker_state
from pyceleryc.worker.autoscale import Autoscaler
from pyceleryc.worker.emitter import WorkerEvents
from pyceleryc.worker.link import Link
from pyceleryc.worker.pidbox import Pidbox

if TYPE_CHECKING:
    from pyceleryc.worker.request import Request

__all__ = ('Steering',)

logger = logging.getLogger('celery.worker.control')

#: Seconds between looks at celery.worker.state.should_stop.
STOP_PERIOD = 1.0
MEMORY_SAMPLES = 1000


class Steering:
    """The part of :class:`~pyceleryc.worker.machine.Machine` that remote control and events use."""

    app: Any
    core: Any
    tracer: Any
    hostname: str
    consumer: Any
    queues: list[Queue]
    concurrency: int
    multiplier: int
    prefetch: int
    wanted: Any
    stop: Any

    def _init_steering(
        self, task_events: bool | None, heartbeat: float | None, autoscale: tuple[int, int] | None,
    ) -> None:
        self.started = time.time()
        self.connected = False
        self.memory_samples: deque[str] = deque(maxlen=MEMORY_SAMPLES)
        #: Values of stamps whose tasks are revoked.
        self.revoked_stamps: dict[str, set[Any]] = {}
        #: With which signal a task was terminated.
        self.signals: dict[str, int] = {}
        self.autoscaler = Autoscaler(self, *autoscale) if autoscale else None  # type: ignore[arg-type]
        self.link = Link(self, self._link_up, self._link_down)  # type: ignore[arg-type]
        events = self.app.conf.worker_send_task_events if task_events is None else task_events
        self.events = WorkerEvents(self, bool(events and self.link.possible), heartbeat)  # type: ignore[arg-type]
        self.pidbox = Pidbox(self)  # type: ignore[arg-type]

    def _link_up(self, channel: Any) -> None:
        self.events.open(channel)
        self.pidbox.open(channel)

    def _link_down(self) -> None:
        self.pidbox.close()

    def steer(self) -> None:
        """The machine is connected, for the first time or again."""
        first = not self.connected and self not in _state.machines
        self.connected = True
        if first:
            _state.machines.add(self)
            self.events.begin()
            if self.autoscaler is not None:
                self.autoscaler.start()
            self.core.call_later(STOP_PERIOD, self._look_for_stop)
        if self.pidbox.enabled or self.events.enabled:
            self.link.open()

    def _look_for_stop(self) -> None:
        self.core.call_later(STOP_PERIOD, self._look_for_stop)
        try:
            worker_state.maybe_shutdown()
        except WorkerTerminate as exc:
            self.end(exc.code, cold=True)
        except WorkerShutdown as exc:
            self.end(exc.code)

    def end(self, exitcode: Any = 0, cold: bool = False) -> None:
        """Shut the worker down; its program exits with *exitcode*."""
        if self.consumer is self:  # there is no program around
            self.stop(int(cold))
        elif cold:
            self.consumer.terminate(exitcode=exitcode)
        else:
            self.consumer.stop(exitcode=exitcode)

    def release(self) -> None:
        """The machine ends."""
        _state.machines.discard(self)
        self.events.close()
        self.link.close()

    # -- looking -----------------------------------------------------------------------------

    def jobs(self, which: str) -> list[Request]:
        """Return the requests that are active, reserved or scheduled."""
        if which == 'reserved':
            # The machine counts those that wait for their ETA among them.
            later = {request.id for request in self.core.jobs('scheduled')}
            return [request for request in self.core.jobs(which) if request.id not in later]
        return list(self.core.jobs(which))

    def totals(self) -> dict[str, int]:
        """Return how many messages came for each task."""
        return dict(self.core.stats()['total'])

    def register_tracer(self) -> None:
        """Register the tasks with the tracer, as signals, settings and events are now."""
        register_all(self.app, self.tracer, self.events.enabled)

    def update_wanted(self) -> None:
        """Tell the machine which of the rare hooks are needed now."""
        wanted = self.wanted()
        self.core.want(wanted['want_received'], wanted['want_accepted'])

    # -- revoking ----------------------------------------------------------------------------

    def revoke(self, ids: Iterable[str], terminate: bool = False, signum: int = signal.SIGTERM) -> list[str]:
        """Revoke tasks; return the ids of those that are here.

        Their state is stored at once, for others wait for it (FEATURES 2.10); of those that run when
        they have ended.
        """
        ids = set(ids)
        worker_state.revoked.update(ids)
        running = {request.id for request in self.jobs('active')} & ids
        held = {request.id: request for request in self.core.jobs('reserved') if request.id in ids}
        if terminate:
            self.signals.update(dict.fromkeys(running, signum))
        for task_id in ids - running:
            self._store_revoked(task_id, held.get(task_id))
        return list(self.core.revoke(sorted(ids), terminate, signum))

    def _store_revoked(self, task_id: str, request: Request | None) -> None:
        context = Context(request.request_dict) if request is not None else None
        try:
            self.app.backend.store_result(task_id, TaskRevokedError('revoked'), states.REVOKED, request=context)
        except Exception as exc:  # of any backend; the task is revoked all the same
            logger.warning('Cannot store that task %s is revoked: %s', task_id, exc)

    def revoke_stamped(
        self, headers: Mapping[str, Any], terminate: bool = False, signum: int = signal.SIGTERM,
    ) -> list[str]:
        """Revoke tasks with one of these stamps, now and later; return the ids of those that are here."""
        for name, value in headers.items():
            self.revoked_stamps.setdefault(name, set()).update(_values(value))
        self.update_wanted()
        found = [request.id for which in ('active', 'reserved') for request in self.core.jobs(which)
                 if self.has_revoked_stamp(request.request_dict)]
        return self.revoke(found, terminate, signum) if found else []

    def has_revoked_stamp(self, headers: Mapping[str, Any]) -> bool:
        """Has a message with *headers* one of the stamps that are revoked?"""
        stamps = headers.get('stamps') or {}
        return any(revoked.intersection(_values(stamps.get(name, ())))
                   for name, revoked in self.revoked_stamps.items())

    # -- queues --------------------------------------------------------------------------------

    def add_consumer(
        self, name: str, exchange: str | None = None, exchange_type: str = 'direct',
        routing_key: str | None = None, **options: Any,
    ) -> None:
        """Consume from a queue; one that is not configured is made of the arguments."""
        queues = self.app.amqp.queues
        if name in queues and exchange is None:
            queue = queues[name]
            queues.select_add(queue)
        else:
            exchange = name if exchange is None else exchange
            kind = exchange_type or ('direct' if exchange else '')
            queue = queues.select_add(
                name, exchange=exchange, exchange_type=kind, routing_key=routing_key or name, **options)
        if all(own.name != name for own in self.queues):
            self.queues.append(queue)
            self.consume(name)
            logger.info('Started consuming from %s', name)

    def consume(self, name: str) -> None:
        """Declare and consume one of our queues."""
        queue = next(queue for queue in self.queues if queue.name == name)
        self.core.add_queue(self.app.amqp.queue_config(queue))

    def cancel_consumer(self, name: str) -> None:
        """Stop consuming from a queue."""
        self.app.amqp.queues.deselect([name])
        if any(queue.name == name for queue in self.queues):
            self.queues[:] = [queue for queue in self.queues if queue.name != name]
            self.core.drop_queue(name)
            logger.info('Stopped consuming from %s', name)

    # -- size ----------------------------------------------------------------------------------

    def resize(self, size: int) -> None:
        """Change the number of processes or threads.

        :raises ValueError: less than 1.
        """
        self.core.resize(size)
        self.concurrency = size
        self.update_prefetch()

    def update_prefetch(self) -> None:
        """Hold as many messages as the size of the pool allows."""
        size = self.concurrency if self.autoscaler is None else self.autoscaler.high
        if size * self.multiplier != self.prefetch:
            self.prefetch = size * self.multiplier
            self.core.prefetch(self.prefetch)


def _values(value: Any) -> set[Any]:
    return set(value) if isinstance(value, (list, tuple, set, frozenset)) else {value}
