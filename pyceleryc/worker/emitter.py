"""Events of a worker (PROTOCOL 3.7): where they come from and how they get out.

The parent sends all of them, in batches. What happens in a process or thread of the pool reaches it through a
socket pair whose messages stay whole; so a task's events keep their order.  The flag that turns them
on is in memory that the processes share, and a signal tells them to look at it. While it is off nothing of
this is called: tasks are registered without the hooks.
"""
from __future__ import annotations

import logging
import mmap
import os
import pickle
import signal
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

from kombu.common import maybe_declare

from pyceleryc import __version__
from pyceleryc.app.trace import Hooks, Outcome, state_of
from pyceleryc.einfo import ExceptionInfo
from pyceleryc.exceptions import Reject
from pyceleryc.utils.saferepr import saferepr
from pyceleryc.utils.sysinfo import load_average

if TYPE_CHECKING:
    from pyceleryc.app.context import Context
    from pyceleryc.app.task import Task
    from pyceleryc.worker.machine import Machine

__all__ = ('WorkerEvents', 'EventHooks')

logger = logging.getLogger('celery.worker.events')

#: Seconds between heartbeats.
HEARTBEAT = 2.0
#: Ignored by default, so that nothing happens to a process that does not handle it yet.
WAKE_UP = signal.SIGURG
#: Seconds that a process of the pool waits for a parent that takes no events.
SEND_TIMEOUT = 1
SOFTWARE = {'sw_ident': 'py-celery', 'sw_ver': __version__, 'sw_sys': os.uname().sysname}


class WorkerEvents:
    """Sends the events of *machine* while they are wanted.

    :param enabled: send events about tasks from the start.
    :param heartbeat: seconds between heartbeats; 0: none.
    """

    def __init__(self, machine: Machine, enabled: bool, heartbeat: float | None = None) -> None:
        self.machine = machine
        self.heartbeat = HEARTBEAT if heartbeat is None else heartbeat
        self.dispatcher: Any = None
        self._flag = mmap.mmap(-1, 1)  # survives forks, shared
        self._flag[0] = enabled
        self._pid = os.getpid()
        self._thread = 0
        self._inside, self._outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._inside.setblocking(False)
        self._outside.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack('ll', SEND_TIMEOUT, 0))
        self._flushing = False
        self._reading = False
        self._beats = 0

    @property
    def enabled(self) -> bool:
        """Are events about tasks wanted?"""
        return bool(self._flag[0])

    # -- on and off ------------------------------------------------------------------------

    def enable(self) -> bool:
        """Send events about tasks; False if that is so already."""
        if self.enabled:
            return False
        self._flag[0] = 1
        self._tell_pool()
        self.machine.link.open()
        self._start()
        return True

    def disable(self) -> bool:
        """Do not send them any more."""
        if not self.enabled:
            return False
        self._on_readable()
        self._flag[0] = 0
        self._tell_pool()
        self.send('worker-offline')
        return True

    def _tell_pool(self) -> None:
        machine = self.machine
        machine.register_tracer()
        machine.update_wanted()
        for pid in machine.core.stats()['processes']:
            if pid != self._pid:
                try:
                    os.kill(pid, WAKE_UP)
                except ProcessLookupError:  # its successor reads the flag when it starts
                    continue

    def begin(self) -> None:
        """The loop turns, in this thread."""
        self._thread = threading.get_ident()
        self.machine.core.add_reader(self._inside.fileno(), self._on_readable)
        self._reading = True

    def _start(self) -> None:
        self.send('worker-online')
        if self.heartbeat:
            self._beats += 1
            self._plan_beat(self._beats)

    def _plan_beat(self, number: int) -> None:
        def due() -> None:
            if self.enabled and self._beats == number:
                self.beat()
                self._plan_beat(number)

        self.machine.core.call_later(self.heartbeat, due)

    # -- the connection --------------------------------------------------------------------

    def open(self, channel: Any) -> None:
        """There is a connection."""
        app = self.machine.app
        old, self.dispatcher = self.dispatcher, app.events.Dispatcher(
            channel=channel, hostname=self.machine.hostname, buffer_group=['task'],
            on_send_buffered=self._plan_flush)
        maybe_declare(self.dispatcher.exchange, channel)
        if old is not None:
            self.dispatcher.extend_buffer(old)
        if self.enabled:
            self._start()

    def close(self) -> None:
        """The worker ends."""
        if self._reading:
            self._on_readable()
            self.machine.core.remove_reader(self._inside.fileno())
            self._reading = False
        if self.enabled:
            self.send('worker-offline')
        self.flush()
        self._inside.close()
        self._outside.close()

    # -- sending ---------------------------------------------------------------------------

    def send(self, type_: str, **fields: Any) -> None:
        """Send an event about this worker at once."""
        if self.dispatcher is None:
            return
        numbers = self.machine.core.stats()
        frequency = fields.pop('freq', self.heartbeat or HEARTBEAT)
        self.machine.link.guard(lambda: self.dispatcher.send(
            type_, freq=frequency, active=numbers['in_pool'], processed=numbers['done'],
            loadavg=load_average(), **SOFTWARE, **fields))

    def beat(self, freq: float | None = None) -> None:
        """Send a heartbeat."""
        self.send('worker-heartbeat', **({} if freq is None else {'freq': freq}))

    def task(self, type_: str, fields: dict[str, Any]) -> None:
        """Send an event about a task, from whichever process or thread."""
        fields['timestamp'] = time.time()
        if os.getpid() == self._pid and threading.get_ident() == self._thread:
            self._put(type_, fields)
            return
        try:
            self._outside.send(pickle.dumps((type_, fields)))
        except OSError as exc:  # too long, or the parent takes nothing: events may be lost, tasks not
            logger.warning('An event is lost (%s): %s', type_, exc)

    def _put(self, type_: str, fields: dict[str, Any]) -> None:
        if self.dispatcher is not None:
            self.dispatcher.send(type_, **fields)

    def _on_readable(self) -> None:
        while True:
            try:
                data = self._inside.recv(1 << 20)
            except (BlockingIOError, InterruptedError):
                return
            if not data:
                return
            type_, fields = pickle.loads(data)
            self._put(type_, fields)

    def _plan_flush(self) -> None:
        if not self._flushing:
            self._flushing = True
            self.machine.core.call_later(0.0, self.flush)

    def flush(self) -> None:
        """Send the events that wait for others."""
        self._flushing = False
        if self.dispatcher is not None and self.machine.link.up:
            self.dispatcher.flush()

    # -- in a process of the pool ------------------------------------------------------------

    def child_start(self) -> None:
        """After the fork."""
        self.dispatcher = None
        self._inside.close()
        signal.signal(WAKE_UP, lambda signum, frame: self.machine.register_tracer())


class EventHooks(Hooks):
    """The hooks of the tracer, with events."""

    def __init__(self, app: Any, hostname: str, events: WorkerEvents, exits: bool = False) -> None:
        super().__init__(app, hostname, exits)
        self.events = events

    def _wants(self, task: Task) -> bool:
        return self.events.enabled and bool(task.send_events)

    def enter(self, task: Task, request: Context) -> None:
        if self._wants(task):
            self.events.task('task-started', {'uuid': request.id})
        super().enter(task, request)

    def log_success(self, task: Task, request: Context, retval: Any, runtime: float) -> None:
        super().log_success(task, request, retval, runtime)
        if self._wants(task):
            text = saferepr(retval, maxlen=task.resultrepr_maxsize)
            self.events.task('task-succeeded', {'uuid': request.id, 'result': text, 'runtime': runtime})

    def fail(self, task: Task, request: Context, exc: BaseException) -> Outcome:
        outcome = super().fail(task, request, exc)
        if self._wants(task):
            self._tell(state_of(outcome), request, exc)
        return outcome

    def _tell(self, state: str, request: Context, exc: BaseException) -> None:
        if state == 'REJECTED':
            requeue = isinstance(exc, Reject) and bool(exc.requeue)
            self.events.task('task-rejected', {'uuid': request.id, 'requeue': requeue})
            if requeue:
                return
        type_ = {'FAILURE': 'task-failed', 'REJECTED': 'task-failed', 'RETRY': 'task-retried'}.get(state)
        if type_ is not None:
            # As Celery has it: None where the task gave no exception to retry().
            reason = getattr(exc, 'exc', None) if state == 'RETRY' else exc
            self.events.task(type_, {
                'uuid': request.id, 'exception': saferepr(reason),
                'traceback': ExceptionInfo.of(exc).traceback})
