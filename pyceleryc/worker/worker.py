"""WorkController: one worker as a Python object, on the command line or embedded in a program (FEATURES §2.10).

It may run in any thread, several times in one process: nothing here or in the core is process-wide. Signals, banner and exit
belong to the program around it (pyceleryc.apps.worker).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from pyceleryc import signals
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.utils.nodenames import default_nodename, node_format
from pyceleryc.worker.autoscale import autoscale_bounds
from pyceleryc.worker.machine import COLD, WARM, Machine
from pyceleryc.worker.state import Persistent, revoked

if TYPE_CHECKING:
    from pyceleryc.app.base import Celery

logger = logging.getLogger("celery.worker")

EX_OK, EX_FAILURE = 0, 1


def _names(value: str | Iterable[str] | None) -> list[str]:
    if value is None:
        return []
    parts = value.split(",") if isinstance(value, str) else value
    return [part.strip() for part in parts if part.strip()]


class WorkController:
    """A worker.

    Parameters (names of Celery's worker options): the app; `hostname`, the node name or its left part (default celery@<host>);
    `pool`, prefork, threads or solo; `concurrency`, processes or threads; `queues` and `exclude_queues`, names as list
    or comma-separated; `include`, modules to import; `prefetch_multiplier`; `time_limit`, `soft_time_limit` in seconds; `max_tasks_per_child`;
    `max_memory_per_child` in KiB; `purge`, to empty the queues first; `statedb`, file for revoked ids; `task_events`, to send
    events; `heartbeat_interval` in seconds and `without_heartbeat` of those; `autoscale`, (most, fewest) processes or
    "10,3"; `ready_callback(worker)`.
    Raises ImproperlyConfigured for unknown pools, brokers without a driver, unknown queues when missing ones may not be created.
    """

    def __init__(self, app: Celery | None = None, hostname: str | None = None, *, pool: str | None = None,
                 concurrency: int | None = None, queues: str | Iterable[str] | None = None,
                 exclude_queues: str | Iterable[str] | None = None, include: str | Iterable[str] | None = None,
                 prefetch_multiplier: int | None = None, time_limit: float | None = None,
                 soft_time_limit: float | None = None, max_tasks_per_child: int | None = None,
                 max_memory_per_child: int | None = None, purge: bool = False,
                 statedb: str | None = None, task_events: bool | None = None, heartbeat_interval: float | None = None,
                 without_heartbeat: bool = False, autoscale: Any = None,
                 ready_callback: Callable[[WorkController], None] | None = None, **options: Any) -> None:
        from pyceleryc.app import app_or_default  # the app imports nothing of the worker, but the package does

        self.app = app_or_default(app or getattr(self, "app", None))  # app.Worker has it as class attribute
        self.hostname = default_nodename(hostname)
        self.options = options
        self.ready_callback = ready_callback
        self.exitcode: int | None = None
        self.machine: Machine | None = None
        self.purge = purge
        self.purged = 0
        self._stop_asked: tuple[int, float | None] | None = None
        self.on_before_init(hostname=self.hostname, **options)
        self._import(include)
        self._choose_queues(queues, exclude_queues)
        self.pool_name = pool or self.app.conf.worker_pool
        self._machine_options = {
            "pool": self.pool_name, "concurrency": concurrency, "prefetch_multiplier": prefetch_multiplier,
            "time_limit": time_limit, "soft_time_limit": soft_time_limit,
            "max_tasks_per_child": max_tasks_per_child, "max_memory_per_child": max_memory_per_child,
            "task_events": task_events, "heartbeat": 0.0 if without_heartbeat else heartbeat_interval,
            "autoscale": autoscale_bounds(autoscale),
        }
        self.statedb = node_format(statedb or self.app.conf.worker_state_db, self.hostname)
        self._kept: Persistent | None = None
        self._ended = False
        self.concurrency = 1 if self.pool_name == "solo" else concurrency or self.app.conf.worker_concurrency or os.cpu_count() or 1
        signals.worker_init.send(sender=self)

    # --- preparing ----------------------------------------------------------------------------------------------------

    def on_before_init(self, **kwargs: Any) -> None:
        """For subclasses: before anything is imported."""

    def on_start(self) -> None:
        """For subclasses: the machine is about to start."""

    def _import(self, include: str | Iterable[str] | None) -> None:
        names = _names(include)
        if names:
            self.app.conf.include = (*self.app.conf.include, *names)
        self.app.loader.init_worker()
        self.app.finalize()

    def _choose_queues(self, queues: str | Iterable[str] | None, exclude: str | Iterable[str] | None) -> None:
        try:
            self.app.amqp.queues.select(_names(queues) or None)
        except KeyError as exc:
            raise ImproperlyConfigured(
                f"Trying to select queue subset of {queues!r}, but queue {exc} isn't defined in the `task_queues` setting. "
                "Set `task_create_missing_queues` to have queues made as needed.") from exc
        if exclude:
            self.app.amqp.queues.deselect(_names(exclude))

    # --- running ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Runs until stop() or terminate(); then `exitcode` is set. An exception that a signal handler raised passes through."""
        self.machine = Machine(self.app, self.hostname, consumer=self, on_ready=self._ready, **self._machine_options)
        try:
            if self.purge:
                self.purged = self._purge()
            self._open_statedb()
            self.on_start()
            self._apply_early_stop()
            self.machine.run()
            self.exitcode = EX_OK if self.exitcode is None else self.exitcode
        except BaseException:
            self.exitcode = EX_FAILURE if self.exitcode is None else self.exitcode
            raise
        finally:
            signals.worker_shutdown.send(sender=self)
            self._ended = True
            self.machine.close()
            self._close_statedb()
            self.app.loader.shutdown_worker()

    def _open_statedb(self) -> None:
        if self.statedb:
            self._kept = Persistent(filename=self.statedb, clock=self.app.clock)
        if self.machine is not None and revoked:
            self.machine.core.revoke([str(task_id) for task_id in revoked], False, 0)

    def _close_statedb(self) -> None:
        if self._kept is not None:
            self._kept.sync()
            self._kept.close()
            self._kept = None

    def _ready(self) -> None:
        if self.ready_callback is not None:
            self.ready_callback(self)

    def _apply_early_stop(self) -> None:
        """stop() may come before there is a machine, from another thread or a signal handler."""
        if self._stop_asked is not None and self.machine is not None:
            self.machine.stop(*self._stop_asked)

    def _purge(self) -> int:
        producer = self.app.amqp.producer
        if producer is None:
            return 0
        return sum(_purge_one(producer, self.app, queue) for queue in self.app.amqp.queues.consume_from.values())

    def stop(self, in_sighandler: bool = False, exitcode: int | None = None, timeout: float | None = None) -> None:
        """Warm shutdown: what runs is finished, the rest is given back. From any thread or signal handler."""
        self._ask(WARM, exitcode, timeout)

    def terminate(self, in_sighandler: bool = False, exitcode: int | None = None) -> None:
        """Cold shutdown: what runs is cancelled."""
        self._ask(COLD, exitcode, None)

    def _ask(self, how: int, exitcode: int | None, timeout: float | None) -> None:
        if exitcode is not None:
            self.exitcode = exitcode
        self._stop_asked = (how, timeout)
        if self.machine is not None and not self._ended:
            self.machine.stop(how, timeout)

    @property
    def stats(self) -> dict[str, Any]:
        return {} if self.machine is None else self.machine.core.stats()

    def __str__(self) -> str:
        return self.hostname

    def __repr__(self) -> str:
        return f"<Worker: {self.hostname}>"


def _purge_one(producer: Any, app: Celery, queue: Any) -> int:
    producer.declare(app.amqp.queue_config(queue), None)
    return int(producer.purge(queue.name, None))
