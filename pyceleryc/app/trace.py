"""The Python side of running a task: what happens around the body when somebody listens.

The order of things is the core's (csrc/py/run.c); here is what each step means: signals, handlers,
links, states (PROTOCOL §3.2, T-250..T-257, T-310..T-319). A task without hooks never comes here.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from kombu import compression as codecs
from kombu.exceptions import ContentDisallowed, DecodeError, EncodeError
from kombu.serialization import loads, prepare_accept_content

from pyceleryc import _core, _state, signals, states
from pyceleryc.app import coroutines
from pyceleryc.app.repeats import runs_once, stored_success
from pyceleryc.app.task import Context, Task
from pyceleryc.backends.base import Backend, DisabledBackend
from pyceleryc.backends.errors import StoreUnreachable
from pyceleryc.canvas.handover import hand_over
from pyceleryc.einfo import ExceptionInfo
from pyceleryc.exceptions import Ignore, Reject, Retry, SecurityError, WorkerLostError
from pyceleryc.utils.saferepr import saferepr

if TYPE_CHECKING:
    from pyceleryc.app.base import Celery

logger = logging.getLogger("celery.app.trace")

LOG_RECEIVED = "Task %(name)s[%(id)s] received"
LOG_SUCCESS = "Task %(name)s[%(id)s] succeeded in %(runtime)ss: %(return_value)s"
LOG_FAILURE = "Task %(name)s[%(id)s] %(description)s: %(exc)s"
LOG_INTERNAL_ERROR = "Task %(name)s[%(id)s] %(description)s: %(exc)s"
LOG_IGNORED = "Task %(name)s[%(id)s] %(description)s"
LOG_REPEATED = "Task %(name)s[%(id)s] already completed successfully."
LOG_REJECTED = "Task %(name)s[%(id)s] %(exc)s"
LOG_RETRY = "Task %(name)s[%(id)s] retry: %(exc)s"

STATE_INDEX = {name: index for index, name in enumerate(_core.STATES)}
Outcome = tuple[int, bytes | None, int]


class _Runs(threading.local):
    """What happens in this thread: whose tracers are made, and how the last run of one ended."""

    hooks: Hooks | None = None
    outcome: Outcome | None = None
    value: Any = None


_runs = _Runs()


class trace_ret(NamedTuple):
    """What the callable made by build_tracer returns."""

    retval: Any
    info: Any
    runtime: float
    retstr: str


def _outcome(state: str, document: bytes | None = None, flags: int = 0) -> Outcome:
    return STATE_INDEX[state], document, flags


_ORIGINALS = {name: getattr(Task, name) for name in (
    "__call__", "before_start", "on_success", "on_failure", "on_retry", "after_return")}


def _overrides(task: Task, name: str) -> bool:
    """Does the task's class replace this method of Task, or has somebody put another one into Task itself (D18)?"""
    return getattr(type(task), name, None) is not _ORIGINALS[name]


class Hooks:
    """Called by `_core.Tracer`; see its stub for who calls what when.

    Parameters: the app; `hostname`, the node name; `exits`, true where a task that ends its process
    (SystemExit) may really do so, as in a child of the prefork pool.
    """

    store_when_asked = True

    def __init__(self, app: Celery, hostname: str, exits: bool = False) -> None:
        self.app = app
        self.hostname = hostname
        self.exits = exits
        self.accept = prepare_accept_content(app.conf.accept_content)
        #: Of tasks whose tracer somebody has replaced: what build_tracer() returned.
        self.traces: dict[str, Callable[..., Any]] = {}

    # --- message ----------------------------------------------------------------------------------------------------

    def decode(self, body: bytes, content_type: str | None, content_encoding: str | None,
               compression: str | None) -> Any:
        if compression:
            body = codecs.decompress(body, compression)
        return loads(body, content_type, content_encoding, accept=self.accept)

    def bad_message(self, exc: BaseException, headers: Mapping[str, Any], properties: Mapping[str, Any],
                    delivery_info: Mapping[str, Any], body: bytes) -> Outcome:
        """Nothing of the body is logged: it may hold secrets."""
        where = {"name": headers.get("task"), "id": headers.get("id")}
        # Kombu makes a DecodeError of the error that the serializer auth raises.
        refusal = exc.args[0] if isinstance(exc, DecodeError) and exc.args else exc
        if isinstance(refusal, (ContentDisallowed, SecurityError)):
            logger.error("Task %(name)s[%(id)s] refused: %(exc)s", {**where, "exc": refusal})
            return _outcome(states.FAILURE, None, _core.OUT_REFUSED)
        logger.critical(
            "Can't decode message body of task %(name)s[%(id)s]: %(exc)r [type:%(type)r encoding:%(encoding)r, %(size)d bytes]",
            {**where, "exc": exc, "type": properties.get("content_type"),
             "encoding": properties.get("content_encoding"), "size": len(body)})
        return _outcome(states.FAILURE, None, _core.OUT_UNDECODABLE)

    def around(self, task: Task, request: Context) -> tuple[Outcome, Any]:
        """Run a task through its replaced tracer; in the end that calls ours (D18)."""
        _runs.outcome = _runs.value = None
        self.traces[task.name](request.id, request.args, request.kwargs, dict(request.__dict__))
        outcome, value, _runs.outcome, _runs.value = _runs.outcome, _runs.value, None, None
        if outcome is None:
            raise RuntimeError(f"Whoever has replaced build_tracer() did not run the task {task.name}")
        return outcome, value

    # --- before and after ---------------------------------------------------------------------------------------------

    def done_before(self, task: Task, request: Context) -> Outcome | None:
        """Leave out a task that has succeeded already; send its links if that run did not get to it."""
        meta = stored_success(task, request.id)
        if meta is None:
            return None
        if not meta.get("children"):
            self._send_links(request, meta["result"])
        if request.chord:
            task.backend.resume_chord(request)
        logger.info(LOG_REPEATED, {"name": request.shadow or task.name, "id": request.id})
        return _outcome(states.SUCCESS)

    def enter(self, task: Task, request: Context) -> None:
        args, kwargs = request.args, request.kwargs
        if signals.task_prerun.receivers:
            signals.task_prerun.send(sender=task, task_id=request.id, task=task, args=args, kwargs=kwargs)
        self.app.loader.on_task_init(request.id, task)
        if task.track_started and self.keeps_state(task, request) and not request.is_eager:
            task.backend.mark_as_started(request.id, pid=os.getpid(), hostname=self.hostname, request=request)
        task.before_start(request.id, args, kwargs)

    def leave(self, task: Task, request: Context, retval: Any, state: str) -> None:
        args, kwargs = request.args, request.kwargs
        try:
            if state in (states.SUCCESS, states.FAILURE):
                task.after_return(state, retval, request.id, args, kwargs, None)
        finally:
            if signals.task_postrun.receivers:
                signals.task_postrun.send(sender=task, task_id=request.id, task=task, args=args,
                                          kwargs=kwargs, retval=retval, state=state)
            if not request.is_eager:
                task.backend.process_cleanup()
                self.app.loader.on_process_cleanup()

    def publisher(self) -> Any:
        """What tasks publish with, if the core has a driver for it."""
        return self.app.amqp.producer

    def flush(self) -> None:
        producer = self.app.amqp.producer
        try:
            if producer is not None:
                producer.flush(None)  # takes note of a refusal, too: else closing would raise it
        except (_core.ConnectionLost, _core.Timeout, _core.WindowFull) as exc:
            logger.error("What a task has published may be lost: %s", exc)
        except _core.CoreError as exc:  # one was refused: the publisher has said so
            logger.debug("Publishing: %s", exc)

    def now_iso(self) -> str:
        return self.app.now().isoformat()

    def run_coroutine(self, coroutine: Any) -> Any:
        return coroutines.run(coroutine) if inspect.isawaitable(coroutine) else coroutine

    # --- outcomes -----------------------------------------------------------------------------------------------------

    def keeps_state(self, task: Task, request: Context) -> bool:
        """Are results of this run wanted? The message says so, else the task (C-143)."""
        return not request.__dict__.get("ignore_result", task.ignore_result)

    def keeps_errors(self, task: Task, request: Context) -> bool:
        return self.keeps_state(task, request) or bool(task.store_errors_even_if_ignored)

    def succeed(self, task: Task, request: Context, retval: Any) -> Outcome:
        try:
            self._send_links(request, retval)
            document = self._store_success(task, request, retval)
        except EncodeError as exc:
            return self.fail(task, request, exc)
        task.on_success(retval, request.id, request.args, request.kwargs)
        if signals.task_success.receivers:
            signals.task_success.send(sender=task, result=retval)
        return _outcome(states.SUCCESS, document)

    def _store_success(self, task: Task, request: Context, retval: Any) -> bytes | None:
        keep = self.keeps_state(task, request)
        plain = not (request.chord or _overrides(task, "on_success") or signals.task_success.receivers)
        if plain and self._machine_stores(task):
            return task.backend.make_document(request.id, retval, states.SUCCESS, request=request) if keep else None
        task.backend.mark_as_done(request.id, retval, request, keep)
        return None

    def _machine_stores(self, task: Task) -> bool:
        """The worker's machine writes documents of the app's own backend; other backends write themselves."""
        return self.store_when_asked and task.backend is self.app.backend and task.backend.core_config() is not None

    def _send_links(self, request: Context, retval: Any) -> None:
        """Groups first, the other callbacks as one group, then the next task of the chain (X19)."""
        chain = request.chain
        if not request.callbacks and (not chain or self._hand_over(chain, retval)):
            return
        options = self._child_options(request)
        callbacks = [self.app.signature(sig) for sig in request.callbacks or ()]
        groups = [sig for sig in callbacks if sig.subtask_type == "group"]
        singles = [sig for sig in callbacks if sig.subtask_type != "group"]
        for sig in groups:
            sig.apply_async((retval,), **options)
        if len(singles) == 1:
            singles[0].apply_async((retval,), **options)
        elif singles:
            from pyceleryc.canvas import group  # canvas imports tasks, which import this module

            group(singles, app=self.app).apply_async((retval,), **options)
        if chain:
            rest = list(chain)
            self.app.signature(rest.pop()).apply_async((retval,), chain=rest, **options)

    def _hand_over(self, chain: Sequence[Any], retval: Any) -> bool:
        parent = _state.get_current_worker_task()
        if parent is None or parent.request.stamped_headers:
            return False
        request = parent.request
        embed = {"callbacks": None, "errbacks": None, "chain": chain[:-1], "chord": None}
        sent = hand_over(self.app, chain[-1], retval, embed, request.root_id or request.id, request.id)
        if sent is not None:
            parent.add_trail(sent)
        return sent is not None

    def hand_over(
        self, task: Task, link: Any, retval: Any, embed: str, root_id: str, task_id: str, tracer: _core.Tracer | None,
    ) -> str | None:
        """Send the next link of a chain for the core, or have it run without; return the children of the run as JSON.

        None: nothing was sent, and `succeed` has to do it all."""
        try:
            offer = None if tracer is None else tracer.offer
            sent = hand_over(self.app, link, retval, embed, root_id, task_id, offer)
        except EncodeError:
            return None
        if sent is None:
            return None
        return _core.json_dumps([sent.as_tuple()] if task.trail else [])

    def _child_options(self, request: Context) -> dict[str, Any]:
        options = {"parent_id": request.id, "root_id": request.root_id or request.id}
        if self.app.conf.task_inherit_parent_priority:
            options["priority"] = (request.delivery_info or {}).get("priority")
        return options

    def fail(self, task: Task, request: Context, exc: BaseException) -> Outcome:
        for kind, handler in _HANDLERS:
            if isinstance(exc, kind):
                return handler(self, task, request, exc)
        return self._leave_process(task, request, exc)

    def _ignored(self, task: Task, request: Context, exc: Ignore) -> Outcome:
        self._log(logging.INFO, LOG_IGNORED, task, request, exc, "ignored")
        return _outcome(states.IGNORED)

    def _rejected(self, task: Task, request: Context, exc: Reject) -> Outcome:
        self._log(logging.WARNING, LOG_REJECTED, task, request, exc, "rejected")
        if exc.requeue:
            return _outcome(states.REJECTED, None, _core.OUT_REQUEUE)
        document = self._store_failure(task, request, exc, ExceptionInfo.of(exc))
        self._tell_failure(task, request, exc, ExceptionInfo.of(exc))
        return _outcome(states.REJECTED, document)

    def _retried(self, task: Task, request: Context, exc: Retry) -> Outcome:
        einfo = ExceptionInfo.of(exc)
        reason = exc.exc if exc.exc is not None else exc
        document = None
        if self.keeps_errors(task, request):
            if self._machine_stores(task) and not _overrides(task, "on_retry"):
                document = task.backend.make_document(request.id, reason, states.RETRY, einfo.traceback, request)
            else:
                task.backend.mark_as_retry(request.id, reason, einfo.traceback, request=request)
        task.on_retry(reason, request.id, request.args, request.kwargs, einfo)
        if signals.task_retry.receivers:
            signals.task_retry.send(sender=task, request=request, reason=exc, einfo=einfo)
        self._log(logging.INFO, LOG_RETRY, task, request, exc, "retry")
        return _outcome(states.RETRY, document)

    def _failed(self, task: Task, request: Context, exc: BaseException) -> Outcome:
        einfo = ExceptionInfo.of(exc)
        document = self._store_failure(task, request, exc, einfo)
        self._tell_failure(task, request, exc, einfo)
        expected = bool(task.throws) and isinstance(exc, tuple(task.throws) if not isinstance(task.throws, type) else task.throws)
        if expected:
            self._log(logging.INFO, LOG_FAILURE, task, request, exc, "raised expected")
        else:
            self._log(logging.ERROR, LOG_FAILURE, task, request, exc, "raised unexpected", einfo)
        return _outcome(states.FAILURE, document)

    def _store_failure(self, task: Task, request: Context, exc: BaseException, einfo: ExceptionInfo) -> bytes | None:
        keep = self.keeps_errors(task, request)
        plain = not (request.errbacks or request.chain or request.chord or _overrides(task, "on_failure")
                     or signals.task_failure.receivers)
        if plain and self._machine_stores(task):
            return task.backend.make_document(request.id, exc, states.FAILURE, einfo.traceback, request) if keep else None
        task.backend.mark_as_failure(request.id, exc, einfo.traceback, request=request, store_result=keep)
        return None

    def _tell_failure(self, task: Task, request: Context, exc: BaseException, einfo: ExceptionInfo) -> None:
        task.on_failure(exc, request.id, request.args, request.kwargs, einfo)
        if signals.task_failure.receivers:
            signals.task_failure.send(sender=task, task_id=request.id, exception=exc, args=request.args,
                                      kwargs=request.kwargs, traceback=einfo.tb, einfo=einfo)

    def _leave_process(self, task: Task, request: Context, exc: BaseException) -> Outcome:
        """SystemExit and the like: in a pool's child the process ends, and the parent does the rest (T-007)."""
        if self.exits:
            try:
                self.flush()
            except Exception as error:
                logger.error("What Task %s[%s] has published before it ended its process may be lost: %r", task.name, request.id, error)
            sys.stdout.flush()
            sys.stderr.flush()
            code = exc.code if isinstance(exc, SystemExit) else 1
            os._exit(code if isinstance(code, int) else int(code is not None))
        lost = WorkerLostError(f"The task ended its process: {exc!r}.")
        return self._failed(task, request, lost.with_traceback(exc.__traceback__))

    def internal_error(self, task: Task | None, request: Context | None, exc: BaseException) -> Outcome:
        """A hook failed: a signal, a handler, the backend or we ourselves."""
        einfo = ExceptionInfo.of(exc, internal=True)
        name = getattr(task, "name", "?")
        task_id = getattr(request, "id", None)
        logger.critical(LOG_INTERNAL_ERROR, {"name": name, "id": task_id, "description": "INTERNAL ERROR", "exc": saferepr(exc)},
                        exc_info=(type(exc), exc, exc.__traceback__))
        if signals.task_internal_error.receivers and task is not None and request is not None:
            signals.task_internal_error.send(sender=task, task_id=task_id, args=request.args, kwargs=request.kwargs,
                                             request=request, exception=exc, traceback=einfo.tb, einfo=einfo)
        document = None
        if _store_is_down(exc) and task is not None and not self._machine_stores(task):
            # The result cannot be kept here for longer: if the message is still ours, the task runs again.
            return _outcome(states.FAILURE, None, _core.OUT_REQUEUE)
        if task is not None and request is not None and self._machine_stores(task) and self.keeps_errors(task, request):
            document = task.backend.make_document(task_id, exc, states.FAILURE, einfo.traceback, request)
        return _outcome(states.FAILURE, document)

    def describe(self, state: str, exc: BaseException) -> tuple[str, str]:
        """For the event about a run that did not succeed: representation of the reason, and traceback.

        As Celery has it the reason of a retry is None where the task gave no exception to retry()."""
        reason = getattr(exc, "exc", None) if state == states.RETRY else exc
        return saferepr(reason), ExceptionInfo.of(exc).traceback

    # --- log ----------------------------------------------------------------------------------------------------------

    def log_success(self, task: Task, request: Context, retval: Any, runtime: float) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        text = saferepr(retval, maxlen=task.resultrepr_maxsize)
        data = {"id": request.id, "name": request.shadow or task.name, "return_value": text, "runtime": runtime,
                "args": request.argsrepr or saferepr(request.args), "kwargs": request.kwargsrepr or saferepr(request.kwargs)}
        logger.info(LOG_SUCCESS, data, extra={"data": data})

    def _log(self, level: int, template: str, task: Task, request: Context, exc: BaseException, description: str,
             einfo: ExceptionInfo | None = None) -> None:
        if not logger.isEnabledFor(level):
            return
        text = str(exc) if isinstance(exc, Retry) else saferepr(exc)
        data = {"hostname": self.hostname, "id": request.id, "name": request.shadow or task.name, "exc": text,
                "args": request.argsrepr or saferepr(request.args),
                "kwargs": request.kwargsrepr or saferepr(request.kwargs), "description": description,
                "traceback": einfo.traceback if einfo else None, "internal": False}
        logger.log(level, template, data, exc_info=einfo.exc_info if einfo else None, extra={"data": data})


_HANDLERS: Sequence[tuple[type[BaseException], Callable[..., Outcome]]] = (
    (Ignore, Hooks._ignored),
    (Reject, Hooks._rejected),
    (Retry, Hooks._retried),
    (Exception, Hooks._failed),
    (CancelledError, Hooks._failed),  # something that a coroutine has waited for was cancelled
)


def _store_is_down(exc: BaseException) -> bool:
    return isinstance(exc, StoreUnreachable) or isinstance(exc.__cause__, StoreUnreachable)


class EagerHooks(Hooks):
    """For `apply()`: results are only stored when `task_store_eager_result` or the task says so."""

    store_when_asked = False

    def keeps_state(self, task: Task, request: Context) -> bool:
        return bool(task.store_eager_result) and super().keeps_state(task, request)

    def keeps_errors(self, task: Task, request: Context) -> bool:
        return self.keeps_state(task, request)

    def _store_success(self, task: Task, request: Context, retval: Any) -> bytes | None:
        if self.keeps_state(task, request):
            task.backend.mark_as_done(request.id, retval, request, True)
        return None

    def _store_failure(self, task: Task, request: Context, exc: BaseException, einfo: ExceptionInfo) -> bytes | None:
        if self.keeps_state(task, request) or request.errbacks:
            task.backend.mark_as_failure(request.id, exc, einfo.traceback, request=request,
                                         store_result=self.keeps_state(task, request))
        return None


# --- tracers ----------------------------------------------------------------------------------------------------------

def task_flags(app: Celery, task: Task) -> int:
    """What the core has to ask Python for when it runs this task."""
    conf, loader = app.conf, app.loader
    own = has_own_request(task)
    enter = (own or signals.task_prerun.receivers or task.track_started or _overrides(task, "before_start")
             or _loader_overrides(loader, "on_task_init"))
    slow = (_overrides(task, "on_success") or signals.task_success.receivers or conf.result_extended
            or conf.result_serializer != "json" or not _core_stores(app, task))
    leave = (_overrides(task, "after_return") or signals.task_postrun.receivers
             or _loader_overrides(loader, "on_process_cleanup")
             or type(task.backend).process_cleanup is not Backend.process_cleanup)
    flags = _core.TASK_ENTER if enter else 0
    flags |= _core.TASK_SUCCESS if slow else 0
    flags |= _core.TASK_LEAVE if leave else 0
    flags |= _core.TASK_LOG if own or logger.isEnabledFor(logging.INFO) else 0
    flags |= _core.TASK_IGNORE_RESULT if task.ignore_result else 0
    flags |= _core.TASK_CUSTOM_CALL if task_has_custom(task, "__call__") else 0
    flags |= _core.TASK_LATE if task.acks_late else 0
    flags |= _core.TASK_ONCE if runs_once(app, task) else 0
    flags |= _core.TASK_COROUTINE if inspect.iscoroutinefunction(inspect.unwrap(task.run)) else 0
    return flags


def has_own_request(task: Task) -> bool:
    """Has the task a class of requests that is told how it goes (Tasks guide, "Custom requests")?"""
    return task.Request not in ("pyceleryc.worker.request:Request", "celery.worker.request:Request")


def _core_stores(app: Celery, task: Task) -> bool:
    """Can the core store the results of this task, or is there nothing to store?"""
    if isinstance(task.backend, DisabledBackend):
        return True
    return task.backend is app.backend and task.backend.core_config() is not None


def _loader_overrides(loader: Any, name: str) -> bool:
    from pyceleryc.loaders.base import BaseLoader  # loaders import the app's modules

    return getattr(type(loader), name) is not getattr(BaseLoader, name)


def task_has_custom(task: Task, attr: str) -> bool:
    """Is this method of Task replaced for this task?"""
    return _overrides(task, attr) if attr in _ORIGINALS else getattr(type(task), attr, None) is not getattr(Task, attr, None)


def register_all(app: Celery, tracer: _core.Tracer, hooks: Hooks) -> None:
    """Makes all tasks known, with the signals and settings of this moment."""
    replaced = build_tracer is not _build_tracer
    for name, task in app.tasks.items():
        if replaced:
            _build_for(app, hooks, task)
        flags = task_flags(app, task)
        if replaced:
            flags = _core.TASK_AROUND | flags & _core.TASK_ONCE
        tracer.register(name, task, task.run, task.request_stack, flags)


def _build_for(app: Celery, hooks: Hooks, task: Task) -> None:
    before, _runs.hooks = _runs.hooks, hooks
    try:
        hooks.traces[task.name] = build_tracer(task.name, task, app.loader, hooks.hostname, app=app)
    finally:
        _runs.hooks = before


def build_tracer(
    name: str, task: Task, loader: Any = None, hostname: str | None = None, store_errors: bool = True,
    Info: Any = None, eager: bool = False, propagate: bool = False, app: Any = None, **kwargs: Any,  # noqa: N803
) -> Callable[..., trace_ret]:
    """Return the function that runs messages of *task*: ``trace(uuid, args, kwargs, request=None)``.

    Instrumentation replaces this function in its module before the worker starts; then every task of the worker
    runs through what the replacement returns. Nobody pays for that as long as it is not replaced.

    :param eager: results are not stored.
    :param propagate: exceptions of the task are raised.
    """
    app = app or task.app
    hooks = _runs.hooks or (EagerHooks if eager else Hooks)(app, hostname or request_hostname())
    tracer = _core.Tracer(hooks, Context, hooks.hostname, app.conf.enable_utc and not app.conf.timezone,
                          _state._task_stack)

    def trace(uuid: str, args: Sequence[Any], kwargs: Mapping[str, Any], request: Any = None) -> trace_ret:
        context = Context({**(request or {}), "id": uuid, "args": args, "kwargs": kwargs}, is_eager=eager)
        # What instrumentation has put in the place of the body since then is used.
        flags = task_flags(app, task)
        tracer.register(name, task, task.run, task.request_stack, flags | _EAGER_FLAGS)
        started = time.monotonic()
        index, value, _runs.outcome = tracer.call(name, context, args, dict(kwargs))
        _runs.value = value
        state = _core.STATES[index]
        if propagate and isinstance(value, BaseException) and state in states.EXCEPTION_STATES:
            raise value
        info = None if state == states.SUCCESS else ExceptionInfo.of(value) if isinstance(value, BaseException) else None
        return trace_ret(value, info, time.monotonic() - started, saferepr(value))

    return trace


_build_tracer = build_tracer


def make_tracer(app: Celery, hostname: str, hooks: Hooks) -> _core.Tracer:
    tracer = _core.Tracer(hooks, Context, hostname, app.conf.enable_utc and not app.conf.timezone,
                          _state._task_stack)
    register_all(app, tracer, hooks)
    return tracer


_EAGER_FLAGS = _core.TASK_ENTER | _core.TASK_SUCCESS | _core.TASK_LEAVE


def _eager_tracer(app: Celery) -> _core.Tracer:
    found: _core.Tracer | None = app.__dict__.get("_eager_tracer")
    if found is None:
        hostname = request_hostname()
        found = _core.Tracer(EagerHooks(app, hostname), Context, hostname, False, _state._task_stack)
        app.__dict__["_eager_tracer"] = found
    return found


def request_hostname() -> str:
    return os.uname().nodename


def eager_trace(task: Task, request: Context, args: Sequence[Any], kwargs: Mapping[str, Any],
                throw: bool) -> tuple[str, Any, str | None]:
    """Runs the task here and now; returns (state, return value or exception, traceback text).

    With `throw` an exception that ends the task is raised instead."""
    tracer = _eager_tracer(task.app)
    flags = _EAGER_FLAGS
    flags |= _core.TASK_LOG if logger.isEnabledFor(logging.INFO) else 0
    if task_has_custom(task, "__call__"):
        flags |= _core.TASK_CUSTOM_CALL
    if inspect.iscoroutinefunction(inspect.unwrap(task.run)):
        flags |= _core.TASK_COROUTINE
    tracer.register(task.name, task, task.run, task.request_stack, flags)
    index, value, _ = tracer.call(task.name, request, args, dict(kwargs))
    state = _core.STATES[index]
    if not isinstance(value, BaseException) or state == states.SUCCESS:
        return state, value, None
    if throw and state in states.EXCEPTION_STATES:
        raise value
    return state, value, ExceptionInfo.of(value).traceback
