"""What remote control may ask of the machine (FEATURES 2.11)."""
from __future__ import annotations

import logging
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from kombu import Queue
from kombu.exceptions import OperationalError

from pyceleryc import _state, states
from pyceleryc.app.context import Context
from pyceleryc.app.trace import register_all
from pyceleryc.exceptions import TaskRevokedError, WorkerShutdown, WorkerTerminate
from pyceleryc.utils.imports import reload_from_cwd
from pyceleryc.worker import state as worker_state
from pyceleryc.worker.autoscale import Autoscaler
from pyceleryc.worker.emitter import WorkerEvents
from pyceleryc.worker.keeper import Keeper, rest_after
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
    trace_hooks: Any
    news: Any
    hostname: str
    consumer: Any
    queues: list[Queue]
    concurrency: int
    multiplier: int
    prefetch: int
    wanted: Any
    register: Any
    stop: Any
    keeper: Keeper

    def _init_steering(
        self, task_events: bool | None, heartbeat: float | None, autoscaler: Autoscaler | None,
    ) -> None:
        self.started = time.time()
        self.connected = False
        self.memory_samples: deque[str] = deque(maxlen=MEMORY_SAMPLES)
        #: Values of stamps whose tasks are revoked.
        self.revoked_stamps: dict[str, set[Any]] = {}
        #: Where revoked ids outlive the workers, or None.
        self.durable_revokes = self.app.control.durable_revokes
        #: Called when ids have been revoked.
        self.on_revoked: Callable[[], None] | None = None
        self._reads_later = False
        #: With which signal a task was terminated.
        self.signals: dict[str, int] = {}
        self.autoscaler = autoscaler
        self.link = Link(self, self._link_up, self._link_down)  # type: ignore[arg-type]
        events = self.app.conf.worker_send_task_events if task_events is None else task_events
        self.events = WorkerEvents(self, bool(events and self.link.possible), heartbeat)  # type: ignore[arg-type]
        self.pidbox = Pidbox(self)  # type: ignore[arg-type]

    def _link_up(self, connection: Any) -> None:
        self.consumer.up(connection)
        self._load_revoked()  # what was revoked while we did not hear it

    def _link_down(self) -> None:
        self.consumer.down()

    def _wants_link(self) -> bool:
        return bool(self.link.possible and (
            self.pidbox.enabled or self.events.enabled or self.events.heartbeat or self.consumer.wants_link))

    def steer(self) -> None:
        """The machine is connected, for the first time or again."""
        first = not self.connected and self not in _state.machines
        again = not self.connected
        self.connected = True
        if first:
            _state.machines.add(self)
            self.news.begin()
            if self.autoscaler is not None:
                self.autoscaler.watch()
            self.core.call_later(STOP_PERIOD, self._look_for_stop)
        self._load_revoked()
        if self._wants_link():
            self.link.open()
        elif again:
            self.consumer.up(None)

    def unsteer(self) -> None:
        """The machine has lost its connection."""
        if self.connected and not self.link.wanted:
            self.consumer.down()
        self.connected = False

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
        controller = self.consumer.controller
        (controller.terminate if cold else controller.stop)(exitcode=exitcode)

    def release(self) -> None:
        """The machine ends."""
        _state.machines.discard(self)
        self.news.close()
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
        """Register the tasks with the tracer, as signals and settings are now."""
        register_all(self.app, self.tracer, self.trace_hooks)

    def update_wanted(self) -> None:
        """Tell the machine which of the rare hooks are needed now."""
        wanted = self.wanted()
        self.core.want(wanted['want_received'], wanted['want_accepted'])

    # -- revoking ----------------------------------------------------------------------------

    def learn_revoked(self, ids: Any) -> None:
        """Take over ids that another worker knows: a mapping to times, or only the ids.

        The times are of the other host's monotonic clock, which says nothing here.
        """
        news = [str(task_id) for task_id in ids if task_id not in worker_state.revoked]
        worker_state.revoked.update(news)
        if news and self.on_revoked is not None:
            self.on_revoked()
        self.core.revoke(news, False, 0)

    def _load_revoked(self) -> None:
        """Take over the ids of ``worker_durable_revokes``; while their store is away try again."""
        if self.durable_revokes is None:
            return
        begin = time.monotonic()
        try:
            self.learn_revoked(self.durable_revokes.load())
        except OperationalError as exc:
            logger.error('Tasks that were revoked may run: which they are cannot be read now: %s', exc)
            if not self._reads_later:
                self._reads_later = True
                self.core.call_later(rest_after(begin), self._load_again)

    def _load_again(self) -> None:
        self._reads_later = False
        self._load_revoked()

    def _keep_revoked(self, ids: list[str]) -> None:
        """Store *ids* for workers that start later."""
        store, expires = self.durable_revokes, self.app.conf.worker_durable_revokes_expires
        if store is not None:
            self.keeper.store(', '.join(ids), lambda: store.add(ids, expires))

    def revoke(
        self, ids: Iterable[str], terminate: bool = False, signum: int = signal.SIGTERM, stored: bool = False,
    ) -> list[str]:
        """Revoke tasks; return the ids of those that are here.

        Their state is stored at once, for others wait for it (FEATURES 2.10); of those that run when
        they have ended.

        :param stored: are the ids kept for workers that start later?
        """
        ids = set(ids)
        worker_state.revoked.update(ids)
        if self.on_revoked is not None:
            self.on_revoked()
        running = {request.id for request in self.jobs('active')} & ids
        if not stored:
            self._keep_revoked(sorted(ids))
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
                 if self.revoked_stamp(request.request_dict.get('stamps'))]
        return self.revoke(found, terminate, signum) if found else []

    def revoked_stamp(self, stamps: Any) -> dict[str, Any]:
        """Return the first of a task's *stamps* that is revoked: ``{name: value}``, or nothing."""
        if isinstance(stamps, Mapping):  # it came over the network
            for name, revoked in self.revoked_stamps.items():
                for value in _values(stamps.get(name, ())) & revoked:
                    return {name: value}
        return {}

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
            try:
                self.consume(name)
            except BaseException:
                self.forget_queue(name)
                raise
            logger.info('Started consuming from %s', name)

    def consume(self, name: str) -> None:
        """Declare and consume one of our queues."""
        queue = next(queue for queue in self.queues if queue.name == name)
        self.core.add_queue(self.app.amqp.queue_config(queue))

    def cancel_consumer(self, name: str) -> None:
        """Stop consuming from a queue."""
        if self.forget_queue(name):
            self.core.drop_queue(name)
            logger.info('Stopped consuming from %s', name)

    def forget_queue(self, name: str) -> bool:
        """It is none of ours, or is not any more; was it?"""
        self.app.amqp.queues.deselect([name])
        ours = any(queue.name == name for queue in self.queues)
        self.queues[:] = [queue for queue in self.queues if queue.name != name]
        return ours

    # -- size ----------------------------------------------------------------------------------

    def resize(self, size: int) -> None:
        """Change the number of processes or threads.

        :raises ValueError: less than 1.
        """
        self.core.resize(size)
        self.concurrency = size
        self.update_prefetch()

    def restart_pool(self, modules: Iterable[str] = (), reload: bool = False, reloader: Any = None) -> None:
        """Import or reload *modules*, and replace the processes of the pool, each when its task is done."""
        for name in modules:
            module = sys.modules.get(name)
            if module is None:
                self.app.loader.import_from_cwd(name)
            elif reload:
                reload_from_cwd(module, reloader)
        for task in self.app.tasks.values():
            self.register(task)
        self.register_tracer()
        self.core.restart_pool()

    def update_prefetch(self) -> None:
        """Hold as many messages as the size of the pool allows."""
        size = self.concurrency if self.autoscaler is None else self.autoscaler.max_concurrency
        if size * self.multiplier != self.prefetch:
            self.set_prefetch(size * self.multiplier)

    def set_prefetch(self, count: int) -> None:
        """Hold so many messages; 0: no limit."""
        self.prefetch = count
        self.core.prefetch(count)


def _values(value: Any) -> set[Any]:
    several = value if isinstance(value, (list, tuple, set, frozenset)) else (value,)
    return {one for one in several if isinstance(one, Hashable)}
