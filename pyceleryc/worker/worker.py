"""WorkController: one worker as a Python object, on the command line or embedded in a program (FEATURES §2.10).

It may run in any thread, several times in one process: nothing here or in the core is process-wide. Signals, banner and exit
belong to the program around it (pyceleryc.apps.worker).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from pyceleryc import signals
from pyceleryc.app.repeats import knows_states
from pyceleryc.concurrency import get_implementation
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.utils.nodenames import default_nodename, node_format, worker_direct
from pyceleryc.worker.autoscale import Autoscaler, autoscale_bounds
from pyceleryc.worker.components import Blueprint
from pyceleryc.worker.link import is_possible
from pyceleryc.worker.machine import COLD, WARM, Machine
from pyceleryc.worker.state import Persistent, revoked

if TYPE_CHECKING:
    from pyceleryc.app.base import Celery

logger = logging.getLogger("celery.worker")

EX_OK, EX_FAILURE = 0, 1
#: Settings of Celery that change nothing here (docs/DIFFERENCES.md): who sets them shall know.
WITHOUT_EFFECT = ("worker_timer",)
#: Seconds from a revoke to the file of revoked ids.
SAVE_DELAY = 0.5


def _names(value: str | Iterable[str] | None) -> list[str]:
    if value is None:
        return []
    parts = value.split(",") if isinstance(value, str) else value
    return [part.strip() for part in parts if part.strip()]


class WorkController:
    """A worker.

    Parameters (names of Celery's worker options): the app; `hostname`, the node name or its left part (default celery@<host>);
    `pool`, prefork, threads, asyncio or solo; `concurrency`, processes, threads or tasks at once; `queues` and `exclude_queues`, names as list
    or comma-separated; `include`, modules to import; `prefetch_multiplier`; `time_limit`, `soft_time_limit` in seconds; `max_tasks_per_child`;
    `max_memory_per_child` in KiB; `purge`, to empty the queues first; `statedb`, file for revoked ids; `task_events`, to send
    events; `heartbeat_interval` in seconds and `without_heartbeat` of those; `without_gossip`, `without_mingle`; `autoscale`,
    (most, fewest) processes or "10,3"; `http_address`, HOST:PORT on which /livez, /readyz and /metrics are answered;
    `ready_callback(worker)`; others are for bootsteps (see pyceleryc.bootsteps).
    Raises ImproperlyConfigured for unknown pools, brokers without a driver, unknown queues when missing ones may not be created.
    """

    #: Class of the steps.
    Blueprint = Blueprint

    def __init__(self, app: Celery | None = None, hostname: str | None = None, *, pool: str | None = None,
                 concurrency: int | None = None, queues: str | Iterable[str] | None = None,
                 exclude_queues: str | Iterable[str] | None = None, include: str | Iterable[str] | None = None,
                 prefetch_multiplier: int | None = None, time_limit: float | None = None,
                 soft_time_limit: float | None = None, max_tasks_per_child: int | None = None,
                 max_memory_per_child: int | None = None, purge: bool = False,
                 statedb: str | None = None, task_events: bool | None = None, heartbeat_interval: float | None = None,
                 without_heartbeat: bool = False, without_gossip: bool = False, without_mingle: bool = False,
                 autoscale: Any = None, http_address: str | None = None,
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
        self._stopping = False
        self._failure: BaseException | None = None
        self.pid = os.getpid()
        self.on_before_init(hostname=self.hostname, **options)
        self._import(include)
        self._choose_queues(queues, exclude_queues)
        self.pool_name = pool or self.app.conf.worker_pool
        self._machine_options: dict[str, Any] = {
            "pool": self.pool_name, "concurrency": concurrency, "prefetch_multiplier": prefetch_multiplier,
            "time_limit": time_limit, "soft_time_limit": soft_time_limit,
            "max_tasks_per_child": max_tasks_per_child, "max_memory_per_child": max_memory_per_child,
            "task_events": task_events, "heartbeat": 0.0 if without_heartbeat else heartbeat_interval,
            "http_address": http_address,
        }
        #: (most, fewest) processes with `autoscale`; else None.
        self.autoscale = autoscale_bounds(autoscale)
        self.autoscaler: Autoscaler | None = None
        self.statedb = node_format(statedb or self.app.conf.worker_state_db, self.hostname)
        self._kept: Persistent | None = None
        self._save_due = False
        self._ended = False
        self.concurrency = get_implementation(self.pool_name).choose_limit(self.app.conf, concurrency)
        self.max_concurrency, self.min_concurrency = self.autoscale or (self.concurrency, self.concurrency)
        self.step_options = {
            **self._machine_options, "autoscale": self.autoscale, "task_events": task_events, "heartbeat_interval": heartbeat_interval,
            "without_heartbeat": without_heartbeat, "without_gossip": without_gossip, "without_mingle": without_mingle,
            "queues": queues, "purge": purge, "statedb": self.statedb, **getattr(self, "_options", {}), **options}
        signals.worker_init.send(sender=self)
        self._make_steps()

    # --- preparing ----------------------------------------------------------------------------------------------------

    def _make_steps(self) -> None:
        self.on_init_blueprint()
        #: The steps that are started, and what they have made (see pyceleryc.worker.components).
        self.steps: list[Any] = []
        self.timer: Any = None
        self.hub: Any = None
        self.pool: Any = None
        self.consumer: Any = None
        self.blueprint = self.Blueprint(self.app.steps["worker"])
        self.blueprint.apply(self, **self.step_options)

    def on_before_init(self, **kwargs: Any) -> None:
        """For subclasses: before anything is imported."""

    def on_init_blueprint(self) -> None:
        """For subclasses: the steps are about to be made."""

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
        if self.app.conf.worker_direct:
            self.app.amqp.queues.select_add(worker_direct(self.hostname))

    # --- running ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Runs until stop() or terminate(); then `exitcode` is set. An exception that a signal handler raised passes through."""
        self.machine = self.make_machine()
        for name in filter(self.app.conf.value_set_for, WITHOUT_EFFECT):
            logger.warning("The setting %s has no effect in this worker.", name)
        if self.autoscale is not None and self.autoscaler is None:
            logger.warning("--autoscale has no effect: this pool always has one process.")
        if self.app.conf.worker_deduplicate_successful_tasks and not knows_states(self.app.backend):
            logger.warning("worker_deduplicate_successful_tasks has no effect: the result backend %s does not keep the states of tasks.",
                           self.app.backend.as_uri())
        try:
            if self.purge:
                self.purged = self.app.control.purge()
            self.on_start()
            self.consumer.attach()
            self.timer.attach()
            self._apply_early_stop()
            self.blueprint.start(self)  # the last step runs the machine
            if self._failure is not None:
                raise self._failure
            self.exitcode = EX_OK if self.exitcode is None else self.exitcode
        except BaseException as exc:
            if isinstance(exc, Exception) and not isinstance(exc, OperationalError):  # of that the machine has told
                logger.critical("Unrecoverable error: %r", exc)
            self.exitcode = EX_FAILURE if self.exitcode is None else self.exitcode
            raise
        finally:
            signals.worker_shutdown.send(sender=self)
            self._ended = True
            self.begin_stop()
            self.consumer.shutdown()
            self.machine.close()
            self._close_statedb()
            self.app.loader.shutdown_worker()

    def make_machine(self) -> Machine:
        """What will do the work."""
        return Machine(self.app, self.hostname, self.consumer, on_ready=self._ready, autoscaler=self.autoscaler, **self._machine_options)

    @property
    def failed(self) -> bool:
        """Is it about to end with an error?"""
        return self._failure is not None

    def fail(self, exc: BaseException) -> None:
        """End the worker; start() raises `exc` then."""
        self._failure = exc
        self.stop()

    def begin_stop(self, cold: bool = False) -> None:
        """The shutdown begins: stop the steps, except for what the last tasks need. Called by the machine."""
        if self._stopping:
            return
        self._stopping = True
        self.blueprint.stop(self, terminate=cold)

    def open_statedb(self) -> None:
        """Read the file of revoked ids."""
        self._kept = Persistent(filename=self.statedb, clock=self.app.clock)
        if self.machine is not None:
            self.machine.on_revoked = self._save_statedb_soon

    def _save_statedb_soon(self) -> None:
        """A worker that is killed shall know what was revoked; many revokes are written at once."""
        if not self._save_due and self.machine is not None:
            self._save_due = True
            self.machine.core.call_later(SAVE_DELAY, self._save_statedb)

    def _save_statedb(self) -> None:
        self._save_due = False
        if self._kept is None:
            return
        try:
            self._kept.sync()
        except OSError as exc:
            logger.error("Cannot store the ids of revoked tasks in %r: %s. What was stored before stays; other workers may know the rest.",
                         self.statedb, exc)

    def apply_revoked(self) -> None:
        """Tell the machine which ids are known to be revoked."""
        if self.machine is not None and revoked:
            self.machine.core.revoke([str(task_id) for task_id in revoked], False, 0)

    def _close_statedb(self) -> None:
        self._save_statedb()
        self._kept = None

    def _ready(self) -> None:
        if self.ready_callback is not None:
            self.ready_callback(self)

    def _apply_early_stop(self) -> None:
        """stop() may come before there is a machine, from another thread or a signal handler."""
        if self._stop_asked is not None and self.machine is not None:
            self.machine.stop(*self._stop_asked)

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
    def active_requests(self) -> list[Any]:
        """What runs now."""
        return [] if self.machine is None else self.machine.jobs("active")

    @property
    def has_fanout(self) -> bool:
        """Can the broker reach all workers?"""
        return is_possible(self.app)

    @property
    def stats(self) -> dict[str, Any]:
        return {} if self.machine is None else self.machine.core.stats()

    def __str__(self) -> str:
        return self.hostname

    def __repr__(self) -> str:
        return f"<Worker: {self.hostname} ({self.blueprint.human_state()})>"
