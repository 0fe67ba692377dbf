"""From the app's settings to the machine in C, and the machine's rare questions answered.

The machine (csrc/work) moves messages; here is what has to be said or stored in Python: log lines (T-100), signals, states
of tasks that never came to an end in their process (T-007, T-178, C-063), what a pool's child does when it starts.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import threading
from asyncio import CancelledError
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from kombu import Queue
from kombu.exceptions import OperationalError
from kombu.serialization import prepare_accept_content, registry

from pyceleryc import _core, _state, signals
from pyceleryc._billiard_pool import process_ends
from pyceleryc._ping import parse_address
from pyceleryc.app import coroutines
from pyceleryc.app.context import Context
from pyceleryc.app.trace import LOG_RECEIVED, Hooks, make_tracer
from pyceleryc.concurrency import get_implementation
from pyceleryc.concurrency.eventloop import EventLoop
from pyceleryc.einfo import ExceptionInfo
from pyceleryc.exceptions import (
    ImproperlyConfigured,
    NotRegistered,
    SoftTimeLimitExceeded,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
    WorkerTerminate,
)
from pyceleryc.utils.time import rate
from pyceleryc.utils.saferepr import saferepr
from pyceleryc.worker.autoscale import Autoscaler
from pyceleryc.worker.brokers import Brokers
from pyceleryc.worker.feed import Feed, check_transport
from pyceleryc.worker.keeper import Keeper
from pyceleryc.worker.message import TaskMessage
from pyceleryc.worker.news import News, RequestHooks
from pyceleryc.worker.protocol1 import Upgraded, upgrade
from pyceleryc.worker.request import Request
from pyceleryc.worker.steering import Steering
from pyceleryc.worker.strategy import Customs
from pyceleryc.worker.wakeup import Wakeup

if TYPE_CHECKING:
    from pyceleryc.app.base import Celery
    from pyceleryc.app.task import Task

consumer_log = logging.getLogger("celery.worker.consumer.consumer")
connection_log = logging.getLogger("celery.worker.consumer.connection")
strategy_log = logging.getLogger("celery.worker.strategy")
request_log = logging.getLogger("celery.worker.request")
pool_log = logging.getLogger("celery.concurrency")

WARM, COLD = 0, 1
#: The core tries again every 4 s at most, Celery every 32 s: the setting keeps its meaning in time.
RETRY_SCALE = 8
#: Seconds that a transport of kombu may take to put messages back.
FEED_PATIENCE = 5.0
#: Signals whose handlers belong to the parent only.
CHILD_DEFAULTS = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGTTIN", "SIGTTOU", "SIGUSR2")


class Machine(Steering):
    """One worker: builds the core's worker from the app and runs it.

    Parameters: the app; `hostname`, the node name; `pool`, one of prefork, threads, asyncio, solo; `concurrency`, its size; the others override the
    settings of the same meaning; `task_events` and `heartbeat` (seconds, 0: none) are about events, `autoscaler`
    changes the size; `http_address`, HOST:PORT for probes and metrics; `consumer`, the object that signals name as their sender, with the steps.
    """

    #: Is result.get() an error in the tasks of this worker (T-341)?  Workers of tests allow it.
    joins_block = True

    def __init__(self, app: Celery, hostname: str, consumer: Any, *, pool: str = "prefork", concurrency: int | None = None,
                 queues: Iterable[Queue] | None = None, prefetch_multiplier: int | None = None,
                 max_tasks_per_child: int | None = None, max_memory_per_child: int | None = None,
                 time_limit: float | None = None, soft_time_limit: float | None = None,
                 task_events: bool | None = None, heartbeat: float | None = None,
                 autoscaler: Autoscaler | None = None, http_address: str | None = None,
                 on_ready: Callable[[], None] | None = None) -> None:
        self.app = app
        self.hostname = hostname
        implementation = get_implementation(pool)
        self.pool = implementation.core_name
        self.concurrency = implementation.choose_limit(app.conf, concurrency if autoscaler is None else max(1, autoscaler.min_concurrency))
        self.consumer = consumer
        self.on_ready = on_ready
        self.limits = (time_limit, soft_time_limit)
        self.queues = list(queues) if queues is not None else list(app.amqp.queues.consume_from.values())
        multiplier = app.conf.worker_prefetch_multiplier if prefetch_multiplier is None else prefetch_multiplier
        self.multiplier = 1 if app.conf.worker_disable_prefetch else multiplier
        self.prefetch = (self.concurrency if autoscaler is None else autoscaler.max_concurrency) * self.multiplier
        self.max_tasks_per_child = max_tasks_per_child or app.conf.worker_max_tasks_per_child
        self.max_memory_per_child = max_memory_per_child or app.conf.worker_max_memory_per_child
        self.feed: Feed | None = None  # where no driver of the core does it
        self.brokers = Brokers(app, self.pool == "solo")
        self._init_steering(task_events, heartbeat, autoscaler)
        self.news = News(self)
        self.trace_hooks = self._trace_hooks()
        self.tracer = make_tracer(app, hostname, self.trace_hooks)
        self.hooks = MachineHooks(self)
        self.core = _core.Worker(self._config(), self.tracer, self.hooks)
        self.keeper = Keeper(self.core.call_later)
        self.events.attach()
        for task in app.tasks.values():
            self.register(task)
        for queue in self.queues:
            self.consume(queue.name)
        #: Of the HTTP address, once it is open; None without one.
        self.http_port = self._open_http(http_address or app.conf.worker_http_address)

    def _open_http(self, address: str | None) -> int | None:
        if not address:
            return None
        try:
            host, port = parse_address(address)
        except ValueError as exc:
            raise ImproperlyConfigured(f"http_address: {exc}") from exc
        try:
            return self.core.http(host, port)
        except _core.CoreError as exc:
            raise ImproperlyConfigured(
                f"{exc}. Stop what uses the address, or give another one to --http-address (setting worker_http_address).") from exc

    def _config(self) -> dict[str, Any]:
        conf = self.app.conf
        retry = conf.broker_connection_retry
        at_start = conf.broker_connection_retry_on_startup
        content_type, content_encoding = registry.name_to_type[conf.result_serializer], "utf-8"
        return {
            "broker": self._broker(),
            "store": self.app.backend.core_config(),
            "pool": self.pool,
            "concurrency": self.concurrency,
            "prefetch": self.prefetch,
            "log_level": logging.getLogger("celery.worker").getEffectiveLevel(),
            "accept": self._accept(),
            "max_tasks_per_child": self.max_tasks_per_child,
            "max_memory_per_child": self.max_memory_per_child,
            # The default would kill processes of projects whose start takes longer, again and again.
            "start_timeout": float(conf.worker_proc_alive_timeout) if conf.value_set_for("worker_proc_alive_timeout") else 0.0,
            "retry": bool(retry),
            "retry_on_startup": bool(retry if at_start is None else at_start),
            "end_if_refused": not conf.broker_channel_error_retry,
            "max_retries": (conf.broker_connection_max_retries or 0) * RETRY_SCALE or -1,
            "eta_task_limit": conf.worker_eta_task_limit,
            "park_after": conf.worker_park_eta_after,
            "chain_shortcut": bool(conf.worker_chain_shortcut),
            "disable_prefetch": bool(conf.worker_disable_prefetch),
            "cancel_on_loss": bool(conf.worker_cancel_long_running_tasks_on_connection_loss),
            "disable_rate_limits": bool(conf.worker_disable_rate_limits),
            "result_content_type": content_type,
            "result_content_encoding": content_encoding,
            **self.wanted(),
        }

    def _trace_hooks(self) -> Hooks:
        exits = self.pool == "prefork"
        if not self.news.wanted:
            return Hooks(self.app, self.hostname, exits)
        hooks = RequestHooks(self.app, self.hostname, exits)
        hooks.news = self.news
        return hooks

    def _broker(self) -> dict[str, Any]:
        config = self.brokers.core_config()
        if self.app.conf.worker_disable_prefetch and (config is None or config["scheme"] not in ("redis", "sqlite")):
            consumer_log.warning("--disable-prefetch: with this broker a worker holds a message for each process all the same, "
                                 "unless its tasks are acknowledged late (acks_late).")
        if config is not None:
            return config
        check_transport(self.app)
        self.feed = Feed(self.app, self.queues)
        self.feed.core = _core.Feed(self.feed)
        return {"scheme": "kombu", "feed": self.feed.core}

    #: What a ``_core.Producer`` raises when it cannot do something.
    core_errors = _core.CoreError

    def new_event_producer(self) -> _core.Producer | None:
        """A producer that keeps nothing to send it again; None without a C driver."""
        config = self.app.amqp.core_config(self.brokers.url)
        return None if config is None else _core.Producer({**config, "confirm": 0})

    def _accept(self) -> list[str]:
        return sorted(prepare_accept_content(self.app.conf.accept_content)
                      | {"application/data", "application/text"})

    def wanted(self) -> dict[str, bool]:
        """Which of the hooks that are called for every message are needed."""
        return {"want_received": strategy_log.isEnabledFor(logging.INFO) or self.wants_requests or bool(self.revoked_stamps),
                "want_accepted": request_log.isEnabledFor(logging.DEBUG)}

    @property
    def wants_requests(self) -> bool:
        """Is somebody told of each message?"""
        return bool(signals.task_received.receivers) or self.autoscaler is not None and self.autoscaler.follows_messages

    def register(self, task: Task) -> None:
        """Makes a task, or its changed options, known to the machine."""
        hard, soft = self.limits
        on_failure, on_timeout = task.acks_on_failure, task.acks_on_timeout
        either = task.acks_on_failure_or_timeout
        self.core.task(task.name, {
            "acks_late": bool(task.acks_late),
            "acks_on_failure": bool(either if on_failure is None else on_failure),
            "acks_on_timeout": bool(either if on_timeout is None else on_timeout),
            "reject_on_worker_lost": bool(task.reject_on_worker_lost),
            "ignore_result": bool(task.ignore_result),
            "send_events": bool(task.send_events),
            "time_limit": _seconds(task.time_limit, hard),
            "soft_time_limit": _seconds(task.soft_time_limit, soft),
            "rate": float(rate(task.rate_limit)) if task.rate_limit else 0.0,
            "watched": self.hooks.customs.concerns(task),
        })

    def run(self) -> None:
        """Until stop(). Signals are noticed while the machine waits, whichever thread the kernel gives them to.

        Raises OperationalError when the broker refuses this worker, or can't be reached and retries are off or used up; SystemExit
        when a step or a handler has raised it, after a warm shutdown (WorkerTerminate: at once).
        """
        # The tasks of this pool run right here; those of other pools in threads and processes that say so themselves.
        solo = self.joins_block if self.pool == "solo" else None
        with _state.joining(solo), Wakeup(self.core):
            try:
                self._turn()
            except _core.CoreError as exc:
                raise OperationalError(str(exc)) from exc

    def _turn(self) -> None:
        leaving: SystemExit | None = None
        while True:
            try:
                self.core.run()
                break
            except WorkerTerminate:
                raise
            except SystemExit as exc:
                leaving = leaving or exc  # what asks for it may go on asking until it is stopped
                self.consumer.controller.stop()
        if leaving is not None:
            raise leaving

    def stop(self, how: int = WARM, timeout: float | None = None) -> None:
        self.core.stop(how, -1.0 if timeout is None else timeout)

    def close(self) -> None:
        self.release()
        self.keeper.close()
        if self.feed is not None:
            self.feed.close(FEED_PATIENCE)
        self.core.close()


def _signal(number: int) -> int:
    """The signal with its name, if it has one."""
    try:
        return signal.Signals(number)
    except ValueError:  # one of the real-time signals
        return number


def _seconds(own: Any, default: float | None) -> float | None:
    value = default if own is None else own
    return None if not value else float(value)


class MachineHooks:
    """Answers the machine (see `_core.Worker`). All run in the thread that turns the loop."""

    soft_limit_exception = SoftTimeLimitExceeded

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.app = machine.app
        self.was_ready = False
        self.customs = Customs(self)

    # --- connection ---------------------------------------------------------------------------------------------------

    def ready(self) -> None:
        connection_log.info("Connected to %s", self.machine.brokers.uri())
        self.machine.steer()
        if self.was_ready or self.machine.consumer.stopping or self.machine.consumer.controller.failed:
            return
        self.was_ready = True
        logging.getLogger("celery.apps.worker").info("%s ready.", self.machine.hostname)
        if self.machine.on_ready is not None:
            self.machine.on_ready()
        signals.worker_ready.send(sender=self.machine.consumer)

    def down(self, reason: str, code: str, attempt: int, next_try: float) -> None:
        uri = self.machine.brokers.uri()
        self.machine.unsteer()
        self.machine.news.read()  # of those that have begun a moment ago
        self.customs.forget_unstarted()
        if next_try < 0:
            consumer_log.critical("consumer: Cannot connect to %s: %s.\nShutting down; tasks that run come to their end.", uri, reason)
            self.machine.consumer.controller.begin_stop()
            return
        if self.was_ready and attempt == 0:
            consumer_log.warning("consumer: Connection to broker lost: %s. Trying to re-establish the connection...", reason)
        consumer_log.error("consumer: Cannot connect to %s: %s.\nTrying again in %.2f seconds... (%s/%s)", uri, reason,
                           next_try, attempt + 1, (self.app.conf.broker_connection_max_retries or 0) * RETRY_SCALE or "∞")
        other = self.machine.brokers.next()
        if other is not None:
            self.machine.core.redirect(other)
            consumer_log.warning("consumer: Will try the next broker: %s", self.machine.brokers.uri())

    def stopping(self, how: int) -> None:
        """The shutdown begins, or gets colder."""
        self.machine.consumer.controller.begin_stop(cold=how == COLD)

    def cancelled(self, queue: str) -> None:
        """Deleted, or its node is gone: without this the worker would wait for ever."""
        consumer_log.error("The broker cancelled the consumer of queue %r (deleted, or moved); declaring it again.", queue)
        self.machine.consume(queue)

    def refused(self, queue: str, reason: str) -> None:
        """The broker does not let us consume a queue that was added while the worker ran."""
        consumer_log.error("Queue %r is not consumed, the broker refuses it: %s", queue, reason)
        self.machine.forget_queue(queue)

    def log(self, level: int, text: str) -> None:
        consumer_log.log(level, "%s", text)

    # --- messages -----------------------------------------------------------------------------------------------------

    def received(self, job: _core.Job) -> str | None:
        """None: it is to run; else what becomes of the message."""
        task = self.app.tasks[job.name]
        if self.customs.concerns(task):
            return self.customs.handle(task, TaskMessage(job, self.app.conf.accept_content))
        request = self.describe(job) if self.machine.wants_requests else None
        self.note_received(job.headers(), job.id, job.name, request)
        return None

    def note_received(self, headers: dict[str, Any], task_id: str, name: str, request: Request | None) -> None:
        """Tells those who want to know of a message that will run; `request` may be None if nobody else does."""
        if self.machine.revoked_stamps and self.machine.revoked_stamp(headers.get("stamps")):
            self.machine.core.revoke([task_id], False, 0)  # the machine looks at that next
        if signals.task_received.receivers:
            signals.task_received.send(sender=self.machine.consumer, request=request)
        if self.machine.autoscaler is not None and self.machine.autoscaler.follows_messages:
            self.machine.autoscaler.follow(request)
        if strategy_log.isEnabledFor(logging.INFO):
            data = {"id": task_id, "name": headers.get("shadow") or name, "args": headers.get("argsrepr"),
                    "kwargs": headers.get("kwargsrepr"), "eta": headers.get("eta")}
            strategy_log.info(LOG_RECEIVED, data, extra={"data": data})

    def accepted(self, job: _core.Job) -> None:
        request_log.debug("Task accepted: %s[%s] pid:%r", job.name, job.id, job.worker_pid or os.getpid())

    def upgrade(self, job: _core.Job) -> Upgraded | None:
        """A message that is not of protocol 2."""
        body, content_type, encoding = job.body()
        return upgrade(self.app, job.headers(), body, content_type, encoding)

    def bad(self, kind: str, job: _core.Job, reason: str) -> str:
        return str(getattr(self, f"_bad_{kind}")(job, reason))

    def _bad_unknown_task(self, job: _core.Job, reason: str) -> str:
        fields = job.request()
        name, task_id = fields.get("task"), fields.get("id")
        consumer_log.error(
            "Received unregistered task of type %r.\nThe message has been ignored and discarded.\n\n"
            "Did you remember to import the module containing this task?\nOr maybe you're using relative imports?\n"
            "Registered here: %d tasks; the message (id %s) came from %s.", name, len(self.app.tasks), task_id, fields.get("origin"))
        context = Context(fields)
        exc = NotRegistered(name)
        if not context.ignore_result:
            self.machine.keeper.store(task_id, lambda: self.app.backend.mark_as_failure(task_id, exc, request=context))
        self._tell("task-failed", task_id, exception=saferepr(exc), traceback=None)
        signals.task_unknown.send(sender=self.machine.consumer, message=job, exc=exc, name=name, id=task_id)
        return "reject"

    def _bad_no_task(self, job: _core.Job, reason: str) -> str:
        info = job.delivery_info()
        consumer_log.warning("Received and deleted unknown message. Wrong destination?!? It has no 'task' header "
                             "(routing key %r, %d bytes).", info.get("routing_key"), len(job.body()[0]))
        signals.task_rejected.send(sender=self.machine.consumer, message=job, exc=None)
        return "reject"

    def _bad_headers(self, job: _core.Job, reason: str) -> str:
        consumer_log.error("Received invalid task message: %s\nThe message has been ignored and discarded.", reason)
        signals.task_rejected.send(sender=self.machine.consumer, message=job, exc=ValueError(reason))
        return "reject"

    def _bad_refused(self, job: _core.Job, reason: str) -> str:
        _, content_type, _ = job.body()
        name = registry.type_to_name.get(content_type, content_type)
        consumer_log.error("Refusing to deserialize untrusted content of type %s (%s): task %s is rejected. "
                           "Add %r to accept_content if you trust its senders.", name, content_type,
                           job.headers().get("task"), name)
        signals.task_rejected.send(sender=self.machine.consumer, message=job, exc=None)
        return "reject"

    # --- fates --------------------------------------------------------------------------------------------------------

    def _task(self, job: _core.Job) -> tuple[Task, Context]:
        task = self.app.tasks[job.name]
        context = Context({**job.request(), "hostname": self.machine.hostname})
        args, kwargs, embed = self._payload(job)
        context.update(args=args, kwargs=kwargs, **embed)
        return task, context

    def _payload(self, job: _core.Job) -> tuple[Any, Any, dict[str, Any]]:
        """The arguments, for handlers that run in the parent because the child is gone."""
        body, content_type, encoding = job.body()
        try:
            hooks = Hooks(self.app, self.machine.hostname)
            args, kwargs, embed = hooks.decode(body, content_type, encoding, job.headers().get("compression"))
        except Exception as exc:  # the child could not have run it either
            consumer_log.error("Can't decode the arguments of %s[%s]: %r", job.name, job.id, exc)
            return (), {}, {}
        return args, kwargs, embed or {}

    def lost(self, job: _core.Job, kind: str, how: str, requeued: bool) -> None:
        task, context = self._task(job)
        getattr(self, f"_lost_{kind}")(job, task, context, how, requeued)

    def _lost_died(self, job: _core.Job, task: Task, context: Context, how: str, requeued: bool) -> None:
        exc = WorkerLostError(f"Worker exited prematurely: {how}.")
        fate = " The task is put back into its queue." if requeued else ""
        request_log.error("Task handler raised error: %s[%s]: %r%s", job.name, job.id, exc, fate)
        if requeued:
            self.customs.forget(job.id)
        else:
            self._fail(task, context, exc)
            self.customs.tell(job.id, "on_failure", ExceptionInfo.of(exc), last=True)

    def _lost_hard_limit(self, job: _core.Job, task: Task, context: Context, how: str, requeued: bool) -> None:
        limit = job.limits[0]
        number = int(limit) if limit is not None and float(limit).is_integer() else limit
        exc = TimeLimitExceeded(number)
        self._fail(task, context, exc)
        self.customs.tell(job.id, "on_failure", ExceptionInfo.of(exc))
        if not self.customs.tell(job.id, "on_timeout", False, number, last=True):
            self.describe(job).on_timeout(False, number)  # type: ignore[arg-type]

    def _lost_terminated(self, job: _core.Job, task: Task, context: Context, how: str, requeued: bool) -> None:
        self._revoke(job, task, context, "terminated", terminated=True)

    def _lost_cancelled(self, job: _core.Job, task: Task, context: Context, how: str, requeued: bool) -> None:
        request_log.warning("Task %s[%s] was cancelled by the worker's shutdown.", job.name, job.id)
        if not requeued:
            self._mark_cancelled(task, context)

    def _lost_cut_off(self, job: _core.Job, task: Task, context: Context, how: str, requeued: bool) -> None:
        request_log.warning("Task %s[%s] was cancelled, for the connection to the broker is lost: the broker gives it out again.",
                            job.name, job.id)
        self._mark_cancelled(task, context)

    def _mark_cancelled(self, task: Task, context: Context) -> None:
        self._tell("task-cancelled", context.id)
        if self._keeps(task, context):
            reason = TaskRevokedError("cancelled by Celery")
            self.machine.keeper.store(context.id, lambda: task.backend.mark_as_retry(context.id, reason, None, request=context))

    def _tell(self, type_: str, task_id: str | None, **fields: Any) -> None:
        self.machine.events.task(type_, {"uuid": task_id, **fields})

    def send_events(self, routing_key: str, body: bytes) -> bool:
        return self.machine.events.send_by_kombu(routing_key, body)

    def _keeps(self, task: Task, context: Context) -> bool:
        return not context.__dict__.get("ignore_result", task.ignore_result)

    def _fail(self, task: Task, context: Context, exc: Exception) -> None:
        keep = self._keeps(task, context) or bool(task.store_errors_even_if_ignored)
        self.machine.keeper.store(context.id, lambda: task.backend.mark_as_failure(context.id, exc, request=context, store_result=keep))
        task.on_failure(exc, context.id, context.args, context.kwargs, None)
        self._tell("task-failed", context.id, exception=saferepr(exc), traceback=None)
        if signals.task_failure.receivers:
            signals.task_failure.send(sender=task, task_id=context.id, exception=exc, args=context.args,
                                      kwargs=context.kwargs, traceback=None, einfo=None)

    def revoked(self, job: _core.Job, kind: str) -> None:
        task, context = self._task(job)
        self._revoke(job, task, context, kind, terminated=False)

    def _revoke(self, job: _core.Job, task: Task, context: Context, reason: str, terminated: bool) -> None:
        if not terminated:  # of that remote control has told
            header = self.machine.revoked_stamp(context.stamps) if reason == "revoked" else None
            request_log.info("Discarding revoked task: %s[%s]%s", job.name, job.id, f" (revoked by header: {header})" if header else "")
        self.customs.forget(job.id)
        keep = self._keeps(task, context)
        self.machine.keeper.store(context.id, lambda: task.backend.mark_as_revoked(context.id, reason, request=context, store_result=keep))
        signum = _signal(self.machine.signals.pop(job.id, signal.SIGTERM)) if terminated else None
        expired = reason == "expired"
        self._tell("task-revoked", job.id, terminated=terminated, signum=signum and int(signum), expired=expired)
        signals.task_revoked.send(sender=task, request=context, terminated=terminated, signum=signum, expired=expired)

    def soft_limit(self, job: _core.Job, seconds: float) -> None:
        number = int(seconds) if seconds.is_integer() else seconds
        if not self.customs.tell(job.id, "on_timeout", True, number):
            self.describe(job).on_timeout(True, number)

    def store_failed(self, job: _core.Job, reason: str) -> None:
        request_log.error("Can't store the result of %s[%s]: %s", job.name, job.id, reason)

    def store_down(self, reason: str | None) -> None:
        if reason is None:
            consumer_log.info("Connection to the result store is back.")
        else:
            consumer_log.error("Lost the connection to the result store: %s. Results are kept until it is back.", reason)

    def describe(self, job: _core.Job) -> Request:
        return Request.of_job(job, self.app, self.machine.hostname)

    # --- pool ---------------------------------------------------------------------------------------------------------

    def child(self, index: int, pid: int, up: bool, how: str | None) -> None:
        if not up and how is not None and how != "exitcode 0":
            pool_log.error("Process %r pid:%d exited with %r", _child_name(index), pid, how)

    def strike(self, thread: int) -> bool:
        """The soft limit of what the thread runs: is it a coroutine that waits, and gets the exception so?"""
        return coroutines.strike(thread)

    def turn(self, line: _core.Line) -> None:
        """The life of the thread of the pool asyncio."""
        EventLoop(line, self.machine.trace_hooks, self.machine.joins_block).turn()

    def strike_run(self, run: _core.Run, soft: bool) -> tuple[int, type[BaseException]] | None:
        """The run's soft limit has passed, or it is to end: which thread is to be interrupted, if the run keeps its loop from turning?"""
        thread = run.live.interrupted(soft) if run.live is not None else None
        return None if thread is None else (thread, SoftTimeLimitExceeded if soft else CancelledError)

    def start_thread(self, run: Callable[[], None], index: int) -> None:
        def run_tasks() -> None:
            try:
                with _state.joining(self.machine.joins_block):
                    run()
            finally:
                coroutines.leave()

        threading.Thread(target=run_tasks, name=f"ThreadPoolExecutor-0_{index}", daemon=True).start()

    def child_start(self, index: int) -> int:
        """In a new process of the prefork pool, before its first task."""
        process = multiprocessing.current_process()
        process.name = _child_name(index)
        process.index = index  # type: ignore[attr-defined]  # billiard's attribute, used for log file names
        self._reset_signals()
        gc.freeze()
        self.app.set_current()
        _state._set_task_join_will_block(True)
        _state.seal_memory_hub()
        self.app.loader.init_worker_process()
        signals.worker_process_init.send(sender=None)
        self.machine.link.abandon()
        self.machine.events.child_start()
        self.machine.register_tracer()
        return 0

    def _reset_signals(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for name in CHILD_DEFAULTS:
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, self._soft_limit_signal)

    def _soft_limit_signal(self, signum: int, frame: object) -> None:
        """Comes a moment late sometimes: then the next task must not pay for it."""
        if self.machine.core.soft_due() and not self.strike(threading.get_ident()):
            raise SoftTimeLimitExceeded

    def child_stop(self, code: int) -> int:
        signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=code)
        process_ends(code)
        self.app.close()
        for client in list(_state.result_clients.values()):
            client.close()  # results on their way to reply queues leave before _exit
        logging.shutdown()
        return code


def _child_name(index: int) -> str:
    return f"ForkPoolWorker-{index + 1}"


