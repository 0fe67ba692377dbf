"""How it goes with tasks that have a class of requests of their own: from the pool to the main process.

What happens in a process or thread of the pool reaches the main one through a socket pair whose messages stay whole, in order.
"""
from __future__ import annotations

import logging
import os
import pickle
import socket
import struct
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pyceleryc.app.trace import Hooks, Outcome, has_own_request
from pyceleryc.einfo import ExceptionInfo
from pyceleryc.utils.saferepr import saferepr
from pyceleryc.utils.serialization import UnpickleableExceptionWrapper, get_pickleable_exception

if TYPE_CHECKING:
    from pyceleryc.app.context import Context
    from pyceleryc.app.task import Task
    from pyceleryc.worker.machine import Machine

__all__ = ('News', 'RequestHooks')

logger = logging.getLogger('celery.worker.request')

#: Seconds that a process of the pool waits for a main process that takes no news.
SEND_TIMEOUT = 1
MESSAGE_MAX = 1 << 20
#: Bytes of an exception, characters of a text: what a socket takes at once is about 200 KB.
PART_MAX = 1 << 15


class News:
    """Calls methods of requests in the main process.  Without tasks that want it there are no sockets."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.wanted = any(map(has_own_request, machine.app.tasks.values()))
        self._pid = os.getpid()
        self._thread = 0
        self._inside: socket.socket | None = None
        self._outside: socket.socket | None = None
        if self.wanted:
            self._inside, self._outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._inside.setblocking(False)
            self._outside.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack('ll', SEND_TIMEOUT, 0))

    def begin(self) -> None:
        """The loop turns, in this thread."""
        self._thread = threading.get_ident()
        if self._inside is not None:
            self.machine.core.add_reader(self._inside.fileno(), self.read)

    def close(self) -> None:
        """The last task has ended."""
        if self._inside is None or self._outside is None:
            return
        self.read()
        self.machine.core.remove_reader(self._inside.fileno())
        self._inside.close()
        self._outside.close()
        self._inside = self._outside = None

    def tell(self, task_id: str, method: str, *args: Any, last: bool = False, **kwargs: Any) -> None:
        """Have a method of the task's request called, from whichever process or thread."""
        if os.getpid() == self._pid and threading.get_ident() == self._thread:
            self.machine.hooks.customs.tell(task_id, method, *args, last=last, **kwargs)
        elif self._outside is not None:
            try:
                self._outside.send(pickle.dumps((task_id, method, args, last, kwargs)))
            except (OSError, pickle.PickleError, TypeError, AttributeError) as exc:
                logger.warning('The request of task %s is not told of %s: %s', task_id, method, exc)

    def read(self) -> None:
        """Pass on what has come so far."""
        while self._inside is not None:
            try:
                data = self._inside.recv(MESSAGE_MAX)
            except (BlockingIOError, InterruptedError):
                return
            if not data:
                return
            task_id, method, args, last, kwargs = pickle.loads(data)
            self.machine.hooks.customs.tell(task_id, method, *args, last=last, **kwargs)


class RequestHooks(Hooks):
    """The hooks of the tracer, with news."""

    news: News

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._entered: set[str | None] = set()  # their end is still to be told

    def done_before(self, task: Task, request: Context) -> Outcome | None:
        outcome = super().done_before(task, request)
        if outcome is not None and has_own_request(task):
            self.news.tell(request.id, 'on_accepted', os.getpid(), time.time())
            self.news.tell(request.id, 'on_success', (False, None, 0.0), last=True)
        return outcome

    def enter(self, task: Task, request: Context) -> None:
        if has_own_request(task):
            self._entered.add(request.id)
            self.news.tell(request.id, 'on_accepted', os.getpid(), time.time())
        super().enter(task, request)

    def log_success(self, task: Task, request: Context, retval: Any, runtime: float) -> None:
        super().log_success(task, request, retval, runtime)
        if has_own_request(task):
            text = saferepr(retval, maxlen=min(task.resultrepr_maxsize, PART_MAX))
            self._entered.discard(request.id)
            self.news.tell(request.id, 'on_success', (False, text, runtime), last=True)

    def fail(self, task: Task, request: Context, exc: BaseException) -> Outcome:
        outcome = super().fail(task, request, exc)
        if has_own_request(task):
            self._tell_failure_of(request.id, exc)
        return outcome

    def internal_error(self, task: Task | None, request: Context | None, exc: BaseException) -> Outcome:
        outcome = super().internal_error(task, request, exc)
        if request is not None and request.id in self._entered:
            self._tell_failure_of(request.id, exc, internal=True)
        return outcome

    def bad_message(self, exc: BaseException, headers: Mapping[str, Any], *args: Any) -> Outcome:
        outcome = super().bad_message(exc, headers, *args)
        if has_own_request(self.app.tasks[headers['task']]):
            self._tell_failure_of(headers['id'], exc)
        return outcome

    def _tell_failure_of(self, task_id: Any, exc: BaseException, internal: bool = False) -> None:
        self._entered.discard(task_id)
        self.news.tell(task_id, 'on_failure', _portable(exc, internal), send_failed_event=True, return_ok=True, last=True)


def _portable(exc: BaseException, internal: bool) -> ExceptionInfo:
    """Return what another process can be told of *exc*."""
    einfo = ExceptionInfo.of(exc, internal)
    try:
        data = pickle.dumps(einfo)
        pickle.loads(data)
        if len(data) <= PART_MAX:
            return einfo
    except Exception:  # of the exception's class
        pass
    small = get_pickleable_exception(exc)
    if len(pickle.dumps(small)) > PART_MAX:
        kind = type(exc)
        small = UnpickleableExceptionWrapper(kind.__module__, kind.__name__, (), saferepr(exc, maxlen=PART_MAX))
    text = einfo.traceback[:PART_MAX]
    einfo = ExceptionInfo.of(small, internal)
    einfo.traceback = text
    return einfo
