"""The cluster as its events tell it: workers and tasks in memory (FEATURES 2.12)."""
from __future__ import annotations

import bisect
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import Any, TypeAlias
from weakref import WeakSet, ref

from kombu.clocks import timetuple
from kombu.utils.functional import LRUCache

from pyceleryc import states
from pyceleryc.utils.log import get_logger

__all__ = ('Worker', 'Task', 'State', 'heartbeat_expires', 'CallableDefaultdict', 'Table')

logger = get_logger('celery.events.state')

#: Per cent of the heartbeat's period after which a worker without one counts as dead.
HEARTBEAT_EXPIRE_WINDOW = 200
#: Seconds between the clocks of two hosts that are worth a warning.
HEARTBEAT_DRIFT_MAX = 16
HEARTBEATS_KEPT = 4

#: What the state of a task is after an event of this type.
TASK_EVENT_TO_STATE = {
    'sent': states.PENDING, 'received': states.RECEIVED, 'started': states.STARTED,
    'failed': states.FAILURE, 'retried': states.RETRY, 'succeeded': states.SUCCESS,
    'revoked': states.REVOKED, 'rejected': states.REJECTED,
}


def heartbeat_expires(
    timestamp: float, freq: float = 60, expire_window: float = HEARTBEAT_EXPIRE_WINDOW,
    Decimal: Any = None, float: Any = float, isinstance: Any = isinstance,  # noqa: A002, N803
) -> float:
    """Return when a worker counts as dead whose last heartbeat was at *timestamp*."""
    return timestamp + float(freq) * (float(expire_window) / 100)


class CallableDefaultdict(defaultdict):  # type: ignore[type-arg]
    """A defaultdict that can be called, too: what is returned then is up to *fun*."""

    def __init__(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.fun = fun
        super().__init__(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fun(*args, **kwargs)


class Worker:
    """A worker.  Attributes are what its last event said.

    :ivar heartbeats: times of the last few, sorted.
    :ivar freq: seconds between heartbeats.
    """

    heartbeat_max = HEARTBEATS_KEPT
    expire_window = HEARTBEAT_EXPIRE_WINDOW

    _fields = ('hostname', 'pid', 'freq', 'heartbeats', 'clock', 'active', 'processed', 'loadavg',
               'sw_ident', 'sw_ver', 'sw_sys')

    def __init__(
        self, hostname: str | None = None, pid: int | None = None, freq: float = 60,
        heartbeats: list[float] | None = None, clock: int = 0, active: int | None = None,
        processed: int | None = None, loadavg: Any = None, sw_ident: str | None = None,
        sw_ver: str | None = None, sw_sys: str | None = None,
    ) -> None:
        self.hostname = hostname
        self.pid = pid
        self.freq = freq
        self.heartbeats = heartbeats or []
        self.clock = clock or 0
        self.active = active
        self.processed = processed
        self.loadavg = loadavg
        self.sw_ident = sw_ident
        self.sw_ver = sw_ver
        self.sw_sys = sw_sys
        self._warned = False

    def event(
        self, type_: str, timestamp: float | None = None, local_received: float | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Take in an event: ``online``, ``heartbeat``, ``offline`` or another."""
        for name, value in (fields or {}).items():
            # Elections have fields of their own, and the network is not to replace what this class defines.
            if name != 'heartbeats' and not hasattr(Worker, name):
                setattr(self, name, value)
        if type_ == 'offline':
            self.heartbeats = []
        elif timestamp and local_received:
            self._check_drift(timestamp, local_received)
            self._note(local_received)

    def _check_drift(self, timestamp: float, received: float) -> None:
        drift = abs(int(received) - int(timestamp))
        if drift > HEARTBEAT_DRIFT_MAX and not self._warned:
            self._warned = True
            logger.warning(
                'The clock of %s may be wrong: its event is %s seconds away from our time [here: %s there: %s]',
                self.hostname, drift, datetime.fromtimestamp(received), datetime.fromtimestamp(timestamp))

    def _note(self, received: float) -> None:
        beats = self.heartbeats
        if beats and received <= beats[-1]:
            bisect.insort(beats, received)
        else:
            beats.append(received)
        del beats[:-self.heartbeat_max]

    def update(self, f: Mapping[str, Any], **kw: Any) -> None:
        """Set attributes."""
        for name, value in {**f, **kw}.items():
            setattr(self, name, value)

    @property
    def status_string(self) -> str:
        """``ONLINE`` or ``OFFLINE``."""
        return 'ONLINE' if self.alive else 'OFFLINE'

    @property
    def heartbeat_expires(self) -> float:
        """When it counts as dead, Unix time."""
        return heartbeat_expires(self.heartbeats[-1], self.freq, self.expire_window)

    @property
    def alive(self) -> bool:
        """Was there a heartbeat lately?"""
        return bool(self.heartbeats and time.time() < self.heartbeat_expires)

    @property
    def id(self) -> str:
        """``hostname.pid``"""
        return f'{self.hostname}.{self.pid}'

    def __eq__(self, other: object) -> bool:
        return self.hostname == other.hostname if isinstance(other, Worker) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.hostname)

    def __repr__(self) -> str:
        return f'<Worker: {self.hostname} ({self.status_string} clock:{self.clock})>'

    def __reduce__(self) -> Any:
        return type(self), tuple(getattr(self, name) for name in self._fields)


class Task:
    """A task.  Attributes are what its events said; one that none has named is None.

    :ivar state: as its events tell it; *timestamp* and *clock*: of the last of them.
    :ivar sent: time of that event; likewise *received*, *started*, *succeeded*, *failed*,
        *retried*, *revoked*, *rejected*.
    :ivar worker: :class:`Worker`; *client*: host that sent it.
    """

    name = received = sent = started = succeeded = failed = retried = revoked = rejected = None
    args = kwargs = eta = expires = retries = result = exception = traceback = None
    worker: Any = None
    timestamp: float | None = None
    runtime = exchange = routing_key = root_id = parent_id = client = queue = None
    hostname: str | None = None
    local_received: float | None = None
    state = states.PENDING
    clock = 0

    _fields = ('uuid', 'name', 'state', 'received', 'sent', 'started', 'rejected', 'succeeded',
               'failed', 'retried', 'revoked', 'args', 'kwargs', 'eta', 'expires', 'retries',
               'worker', 'result', 'exception', 'timestamp', 'runtime', 'traceback', 'exchange',
               'routing_key', 'clock', 'client', 'root', 'root_id', 'parent', 'parent_id', 'children')

    #: Fields that an event sets although a later one has come before it.
    merge_rules = {
        states.RECEIVED: ('name', 'args', 'kwargs', 'parent_id', 'root_id', 'retries', 'eta', 'expires')}
    #: Fields of :meth:`info`.
    _info_fields = ('args', 'kwargs', 'retries', 'result', 'eta', 'runtime', 'expires', 'exception',
                    'exchange', 'routing_key', 'root_id', 'parent_id')

    def __init__(
        self, uuid: str | None = None, cluster_state: Any = None, children: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.uuid = uuid
        self.cluster_state = cluster_state
        known = cluster_state.tasks if cluster_state is not None else {}
        self.children: WeakSet[Task] = WeakSet(known[one] for one in children or () if one in known)
        self.__dict__.update((key, value) for key, value in kwargs.items() if value is not None)

    def event(
        self, type_: str, timestamp: float | None = None, local_received: float | None = None,
        fields: Mapping[str, Any] | None = None, precedence: Any = states.precedence,
        setattr: Any = setattr, task_event_to_state: Any = TASK_EVENT_TO_STATE.get,  # noqa: A002
        RETRY: str = states.RETRY,  # noqa: N803
    ) -> None:
        """Take in an event, such as ``received``.  It may be late: then it changes no state."""
        fields = fields or {}
        state = task_event_to_state(type_) or type_.upper()
        if task_event_to_state(type_) is not None:
            setattr(self, type_, timestamp)
        late = (state != RETRY and self.state != RETRY
                and precedence(state) > precedence(self.state))
        if late:
            keep = self.merge_rules.get(state)
            taken = {key: fields.get(key) for key in keep} if keep is not None else dict(fields)
        else:
            taken = {**fields, 'state': state, 'timestamp': timestamp}
        self.__dict__.update(taken)

    def info(self, fields: Iterable[str] | None = None, extra: Iterable[str] = ()) -> dict[str, Any]:
        """Return those attributes that are not None."""
        names = [*(self._info_fields if fields is None else fields), *extra]
        found = {name: getattr(self, name, None) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def as_dict(self) -> dict[str, Any]:
        """Return all fields; other tasks by their ids."""
        special: dict[str, Callable[[Any], Any]] = {
            'root': lambda task: task and task.id, 'parent': lambda task: task and task.id,
            'children': lambda tasks: [task.id for task in tasks]}
        return {name: special.get(name, lambda value: value)(getattr(self, name, None)) for name in self._fields}

    def __reduce__(self) -> Any:
        return _unpickle_task, (type(self), self.as_dict())

    @property
    def id(self) -> str | None:
        """The same as *uuid*."""
        return self.uuid

    @property
    def origin(self) -> str | None:
        """Who sent it, or the worker."""
        return self.client if self.worker is None else getattr(self.worker, 'id', self.worker)

    @property
    def ready(self) -> bool:
        """Is it over?"""
        return self.state in states.READY_STATES

    def _relative(self, task_id: str | None) -> Task | None:
        if task_id is None or self.cluster_state is None:
            return None
        found: Task | None = self.cluster_state.tasks.get(task_id)
        return found

    @property
    def parent(self) -> Task | None:
        """The task that has sent it, if that is known here."""
        return self._relative(self.parent_id)

    @property
    def root(self) -> Task | None:
        """The first task of its workflow, if that is known here."""
        return self._relative(self.root_id)

    def __repr__(self) -> str:
        return f'<Task: {self.name} ({self.uuid}) {self.state} clock:{self.clock}>'


def _unpickle_task(cls: Any, fields: dict[str, Any]) -> Any:
    fields.pop('root', None)
    fields.pop('parent', None)
    task = cls(fields.pop('uuid', None))
    task.__dict__.update((key, value) for key, value in fields.items() if value is not None and key != 'children')
    return task


class Table(LRUCache):
    """Objects by name, the newest ones only: ``limit``, ``data``."""


# State has attributes of these names, and annotations in it would mean those.
_Task: TypeAlias = Task
_Worker: TypeAlias = Worker


class State:
    """The cluster, made of events.  Thread-safe.

    :param callback: called as ``callback(state, event)`` after each event.
    :param max_workers_in_memory: how many are remembered; *max_tasks_in_memory* likewise.
    :param on_node_join: called with a :class:`Worker` that is new; *on_node_leave*: that is gone.
    """

    Worker = Worker
    Task = Task
    event_count = 0
    task_count = 0
    heap_multiplier = 4

    def __init__(
        self, callback: Callable[..., Any] | None = None, workers: Any = None, tasks: Any = None,
        taskheap: Any = None, max_workers_in_memory: int = 5000, max_tasks_in_memory: int = 10000,
        on_node_join: Any = None, on_node_leave: Any = None, tasks_by_type: Any = None,
        tasks_by_worker: Any = None,
    ) -> None:
        self.event_callback = callback
        self.workers = Table(max_workers_in_memory) if workers is None else workers
        self.tasks = Table(max_tasks_in_memory) if tasks is None else tasks
        self._taskheap: list[Any] = [] if taskheap is None else taskheap
        self.max_workers_in_memory = max_workers_in_memory
        self.max_tasks_in_memory = max_tasks_in_memory
        self.on_node_join = on_node_join
        self.on_node_leave = on_node_leave
        self._mutex = threading.RLock()
        self.handlers: dict[str, Callable[..., Any]] = {}
        self._seen_types: set[str] = set()
        self._orphans: dict[str, WeakSet[_Task]] = {}
        self.tasks_by_type = CallableDefaultdict(self._tasks_by_type, WeakSet)
        self.tasks_by_worker = CallableDefaultdict(self._tasks_by_worker, WeakSet)
        self._reindex(tasks_by_type, tasks_by_worker)
        self.rebuild_taskheap()

    def _reindex(self, by_type: Any, by_worker: Any) -> None:
        """Weak sets are not pickled; what they had is found again by the tasks' ids."""
        for index, given in ((self.tasks_by_type, by_type), (self.tasks_by_worker, by_worker)):
            for key, ids in (given or {}).items():
                index[key].update(self.tasks[one] for one in ids if one in self.tasks)
        for task in list(self.tasks.data.values()) if hasattr(self.tasks, 'data') else self.tasks.values():
            task.cluster_state = self

    # -- taking in ---------------------------------------------------------------------------

    def event(self, event: dict[str, Any]) -> Any:
        """Take in an event; return ((object, is it new), type)."""
        with self._mutex:
            return self._event(event)

    def _event(self, event: dict[str, Any]) -> Any:
        self.event_count += 1
        type_ = event.get('type', '')
        group, _, subject = type_.partition('-')
        if self.event_callback is not None:
            self.event_callback(self, event)
        handler = self.handlers.get(group)
        if handler is not None:
            return handler(subject, dict(event)), subject
        if group == 'worker' and event.get('hostname'):
            return self._worker_event(subject, event)
        if group == 'task' and event.get('uuid'):
            return self._task_event(subject, event), subject
        return None

    def worker_event(self, type_: str, fields: dict[str, Any]) -> Any:
        """Take in an event about a worker, by its fields."""
        return self._event({**fields, 'type': f'worker-{type_}'})[0]

    def task_event(self, type_: str, fields: dict[str, Any]) -> Any:
        """Take in an event about a task, by its fields."""
        return self._event({**fields, 'type': f'task-{type_}'})[0]

    def _worker_event(self, subject: str, event: dict[str, Any]) -> Any:
        fields = {key: value for key, value in event.items() if key not in _ENVELOPE}
        hostname, timestamp = event['hostname'], event.get('timestamp')
        received = event.get('local_received') or time.time()
        is_offline = subject == 'offline'
        worker = self.workers.get(hostname)
        is_new = worker is None
        if is_new:
            worker = self.Worker(hostname)
            self.workers[hostname] = worker
        worker.event(subject, timestamp or received, received, fields)
        if self.on_node_join and (is_new or subject == 'online'):
            self.on_node_join(worker)
        if is_offline:
            if self.on_node_leave:
                self.on_node_leave(worker)
            self.workers.pop(hostname, None)
        return (worker, is_new), subject

    def _task_event(self, subject: str, event: dict[str, Any]) -> Any:
        uuid, hostname = event['uuid'], event.get('hostname')
        task, is_new = self.get_or_create_task(uuid)
        task.local_received = event.get('local_received')
        if subject == 'sent':
            task.client = hostname
        else:
            self._assign(task, hostname, task.local_received)
        fields = {key: value for key, value in event.items() if key not in _NOT_FIELDS}
        timestamp = event.get('timestamp')
        if is_new or subject == 'received':
            self.task_count += subject == 'received'
        task.event(subject, timestamp, task.local_received, fields)
        task.clock = max(task.clock, event.get('clock') or 0)
        self._remember(task, event.get('clock') or 0, timestamp or 0.0)
        if task.name is not None:
            self._seen_types.add(task.name)
            self.tasks_by_type[task.name].add(task)
        self._relate(task)
        return task, is_new

    def _assign(self, task: _Task, hostname: str | None, received: float | None) -> None:
        if not hostname:
            return
        worker, _ = self.get_or_create_worker(hostname)
        task.worker = worker
        if received:
            # Who works is alive, with or without heartbeats.
            worker.event('', received, received)
        self.tasks_by_worker[hostname].add(task)

    def _remember(self, task: _Task, clock: int, timestamp: float) -> None:
        heap = self._taskheap
        if len(heap) + 1 > self.heap_multiplier * self.max_tasks_in_memory:
            del heap[0]
        entry = timetuple(clock, timestamp, task.origin or '', ref(task))
        if heap and entry < heap[-1]:
            bisect.insort(heap, entry)
        else:
            heap.append(entry)

    def _relate(self, task: _Task) -> None:
        """Parents may be heard of later than their children."""
        if task.parent_id:
            parent = self.tasks.get(task.parent_id)
            if parent is not None:
                parent.children.add(task)
            else:
                self._orphans.setdefault(task.parent_id, WeakSet()).add(task)
        children = self._orphans.pop(task.uuid or '', None)
        if children:
            task.children.update(children)
        if len(self._orphans) > self.max_tasks_in_memory:
            self._orphans.pop(next(iter(self._orphans)))

    def get_or_create_worker(self, hostname: str, **kwargs: Any) -> tuple[_Worker, bool]:
        """Return (worker, is it new)."""
        worker = self.workers.get(hostname)
        if worker is not None:
            worker.update(kwargs)
            return worker, False
        worker = self.workers[hostname] = self.Worker(hostname, **kwargs)
        return worker, True

    def get_or_create_task(self, uuid: str) -> tuple[_Task, bool]:
        """Return (task, is it new)."""
        task = self.tasks.get(uuid)
        if task is not None:
            return task, False
        task = self.tasks[uuid] = self.Task(uuid, cluster_state=self)
        return task, True

    # -- forgetting --------------------------------------------------------------------------

    @contextmanager
    def _stopped(self, clear_after: bool = False) -> Iterator[None]:
        with self._mutex:
            try:
                yield
            finally:
                if clear_after:
                    self._clear()

    def freeze_while(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return ``fun(*args)``, called while no event comes in; *clear_after*: forget all then."""
        with self._stopped(kwargs.pop('clear_after', False)):
            return fun(*args, **kwargs)

    def clear_tasks(self, ready: bool = True) -> None:
        """Forget the tasks that are over; all of them if *ready* is False."""
        with self._mutex:
            self._clear_tasks(ready)

    def _clear_tasks(self, ready: bool = True) -> None:
        # True: forget those that are over; False: everything.
        keep = {uuid: task for uuid, task in self.itertasks() if not task.ready} if ready else {}
        self.tasks.clear()
        self.tasks.update(keep)
        self._taskheap[:] = [entry for entry in self._taskheap if _task_of(entry) in keep.values()] if keep else []

    def _clear(self, ready: bool = True) -> None:
        self.workers.clear()
        self._clear_tasks(ready)
        self.event_count = self.task_count = 0

    def clear(self, ready: bool = True) -> None:
        """Forget everything; but keep tasks that are not over, with *ready*."""
        with self._mutex:
            self._clear(ready)

    def rebuild_taskheap(self, timetuple: Any = timetuple) -> None:
        """Sort the tasks anew by clock and time."""
        self._taskheap[:] = sorted(
            timetuple(task.clock, task.timestamp or 0.0, task.origin or '', ref(task))
            for _, task in self.itertasks())

    # -- looking -----------------------------------------------------------------------------

    def itertasks(self, limit: int | None = None) -> Iterator[tuple[str, _Task]]:
        """Iterate over (id, task)."""
        return islice(iter(list(self.tasks.items())), limit)

    def tasks_by_time(self, limit: int | None = None, reverse: bool = True) -> Iterator[tuple[str, _Task]]:
        """Iterate over (id, task) by clock; the newest first, with *reverse*."""
        heap = list(self._taskheap)
        return islice(_unique(reversed(heap) if reverse else heap), limit)

    tasks_by_timestamp = tasks_by_time

    def _tasks_by_type(
        self, name: str, limit: int | None = None, reverse: bool = True,
    ) -> Iterator[tuple[str, _Task]]:
        found = ((uuid, task) for uuid, task in self.tasks_by_time(reverse=reverse) if task.name == name)
        return islice(found, limit)

    def _tasks_by_worker(
        self, hostname: str, limit: int | None = None, reverse: bool = True,
    ) -> Iterator[tuple[str, _Task]]:
        found = ((uuid, task) for uuid, task in self.tasks_by_time(reverse=reverse)
                 if task.worker is not None and task.worker.hostname == hostname)
        return islice(found, limit)

    def task_types(self) -> list[str]:
        """Return the names of all tasks that were seen."""
        return sorted(self._seen_types)

    def alive_workers(self) -> Iterator[_Worker]:
        """Iterate over the workers with a heartbeat of late."""
        return (worker for worker in list(self.workers.values()) if worker.alive)

    def __repr__(self) -> str:
        return f'<State: events={self.event_count} tasks={self.task_count}>'

    def __reduce__(self) -> Any:
        return type(self), (
            self.event_callback, self.workers, self.tasks, None, self.max_workers_in_memory,
            self.max_tasks_in_memory, self.on_node_join, self.on_node_leave,
            _ids(self.tasks_by_type), _ids(self.tasks_by_worker))


#: Fields that are not of the worker or task itself.
_ENVELOPE = frozenset({'type', 'hostname', 'timestamp', 'local_received', 'utcoffset'})
#: What an event cannot say of a task: its links, and what the class defines.
_NOT_FIELDS = _ENVELOPE | {'uuid', 'state', 'worker', 'children', 'cluster_state'} | {
    name for name in dir(Task) if callable(getattr(Task, name)) or isinstance(getattr(Task, name), property)}


def _task_of(entry: Any) -> Any:
    return entry[3]()


def _unique(entries: Iterable[Any]) -> Iterator[tuple[str, Task]]:
    seen: set[str] = set()
    for entry in entries:
        task = _task_of(entry)
        if task is not None and task.uuid not in seen:
            seen.add(task.uuid)
            yield task.uuid, task


def _ids(index: Mapping[str, Iterable[Task]]) -> dict[str, list[str]]:
    return {key: [task.uuid or '' for task in tasks] for key, tasks in index.items()}
