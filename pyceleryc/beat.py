"""Beat: sends periodic tasks when they are due (FEATURES 2.7).

A scheduler keeps its entries in a heap by time and is asked, by :class:`Service`, what to do
and how long to sleep.  Other packages derive schedulers that keep the entries elsewhere.
"""
from __future__ import annotations

import copy
import heapq
import logging
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from threading import Event
from typing import Any

from kombu.utils.imports import symbol_by_name

from pyceleryc import __version__, platforms, signals
from pyceleryc._beat_broker import FirstConnection
from pyceleryc._beat_clock import Bell, ClockWatch
from pyceleryc._beat_embedded import BeatProcess, BeatThread
from pyceleryc._beat_entry import BeatLazyFunc, ScheduleEntry, evaluated, event_t
from pyceleryc._beat_lease import Leader, find_lease
from pyceleryc._beat_store import SUFFIXES, ScheduleFile
from pyceleryc.schedules import crontab, schedstate, solar
from pyceleryc.utils.functional import is_numeric_value
from pyceleryc.utils.imports import load_extension_class_names
from pyceleryc.utils.log import get_logger
from pyceleryc.utils.time import humanize_seconds, maybe_make_aware

__all__ = (
    'SchedulingError', 'ScheduleEntry', 'Scheduler', 'PersistentScheduler', 'Service',
    'EmbeddedService', 'BeatLazyFunc', 'event_t', 'DEFAULT_MAX_INTERVAL',
)

logger = get_logger('celery.beat')
#: Seconds to sleep at most, unless a scheduler or the settings say something else.
DEFAULT_MAX_INTERVAL = 300
#: Of all entries.
PRIORITY = 5
#: Seconds after which a sleeping beat looks whether the clock was set.
LOOK_AT_CLOCK = 10.0
ENTRY_POINTS = 'celery.beat_schedulers'
CLEANUP = 'celery.backend_cleanup'


class SchedulingError(Exception):
    """A task could not be sent."""


class Scheduler:
    """Base of schedulers; this one forgets everything when it ends.

    :param app: the app.
    :param schedule: the entries by name.
    :param max_interval: seconds to sleep at most (setting ``beat_max_loop_interval``).
    :param lazy: do not set up the schedule yet.
    :param sync_every_tasks: tasks after which to store (setting ``beat_sync_every``).
    """

    Entry: Any = ScheduleEntry
    schedule: Any
    max_interval: float = DEFAULT_MAX_INTERVAL
    #: Seconds after which to store.
    sync_every: float = 3 * 60
    sync_every_tasks: int | None = None
    logger: logging.Logger = logger
    #: Whether this beat may send, where others stand by; asked before every task.
    may_send: Callable[[], bool] | None = None
    _last_sync: float | None = None
    _tasks_since_sync = 0

    def __init__(
        self, app: Any, schedule: Any = None, max_interval: float | None = None,
        Producer: Any = None, lazy: bool = False,  # noqa: N803  the public name
        sync_every_tasks: int | None = None, **kwargs: Any,
    ) -> None:
        self.app = app
        self.data = maybe_evaluated({} if schedule is None else schedule)
        self.max_interval = max_interval or app.conf.beat_max_loop_interval or self.max_interval
        self.Producer = Producer or app.amqp.Producer
        self.sync_every_tasks = app.conf.beat_sync_every if sync_every_tasks is None else sync_every_tasks
        self.old_schedulers: Any = None
        self._heap: list[event_t] | None = None
        self._clock = ClockWatch(
            lambda: app.now().timestamp(), kwargs.get('monotonic', time.monotonic))
        if not lazy:
            self.setup_schedule()

    # -- the entries ------------------------------------------------------------------------

    def setup_schedule(self) -> None:
        """Fill the schedule; for subclasses."""
        self.install_default_entries(self.data)
        self.merge_inplace(self._wanted())

    def _wanted(self) -> dict[str, Any]:
        """Return the entries of the settings and our own."""
        return {**self._default_entries(), **self.app.conf.beat_schedule}

    def _default_entries(self) -> dict[str, Any]:
        if not self.app.conf.result_expires or self.app.backend.supports_autoexpire:
            return {}
        return {CLEANUP: {
            'task': CLEANUP, 'schedule': crontab('0', '4', '*'), 'options': {'expires': 12 * 3600}}}

    def install_default_entries(self, data: Any) -> None:
        """Add the removal of old results, unless *data* has it or the backend does it itself."""
        self.update_from_dict({
            name: entry for name, entry in self._default_entries().items() if name not in data})

    def update_from_dict(self, dict_: Any) -> None:
        """Add entries, or replace those of the same name."""
        self.schedule.update({
            name: self._maybe_entry(name, entry) for name, entry in dict_.items()})

    def merge_inplace(self, b: Any) -> None:
        """Make the entries those of *b*; of those that stay it is kept when they ran last."""
        current = self.schedule
        for name in set(current) - set(b):
            del current[name]
        for name, fields in b.items():
            entry = self._maybe_entry(name, fields)
            if name in current:
                current[name].update(entry)
            else:
                current[name] = entry

    def _maybe_entry(self, name: str, entry: Any) -> Any:
        if isinstance(entry, self.Entry):
            entry.app = self.app
            return entry
        return self.Entry(**dict(entry, name=name, app=self.app))

    def add(self, **kwargs: Any) -> Any:
        """Add an entry; the arguments are those of :class:`ScheduleEntry`."""
        entry = self.Entry(app=self.app, **kwargs)
        self.schedule[entry.name] = entry
        return entry

    def reserve(self, entry: Any) -> Any:
        """Note that *entry* runs now; return what takes its place."""
        new_entry = self.schedule[entry.name] = next(entry)
        return new_entry

    def get_schedule(self) -> Any:
        """Return the entries by name."""
        return self.data

    def set_schedule(self, schedule: Any) -> None:
        """Replace all entries."""
        self.data = schedule

    schedule = property(lambda self: self.get_schedule(), lambda self, value: self.set_schedule(value))

    @property
    def info(self) -> str:
        """A line for the banner."""
        return ''

    # -- time -------------------------------------------------------------------------------

    def tick(self) -> float:
        """Send one task if one is due; return the seconds to sleep before the next call."""
        self._notice_clock()
        if self._heap is None or not self.schedules_equal(self.old_schedulers, self.schedule):
            self.old_schedulers = copy.copy(self.schedule)
            self.populate_heap()
        heap = self._heap
        if not heap:
            return self.max_interval
        entry = heap[0].entry
        due, pause = self._ask(entry)
        if due:
            wait = self._first_connection.pause()
            if wait:
                return wait
            if self.may_send is not None and not self.may_send():
                return 0
            heapq.heappop(heap)
            following = self.reserve(entry)
            self.apply_entry(entry, producer=self.producer)
            self._push(heap, following, pause)
            return 0
        pause = self.adjust(pause) if is_numeric_value(pause) else self.max_interval
        return float(min(pause, self.max_interval))

    def _push(self, heap: list[event_t], entry: Any, pause: Any) -> None:
        when = self._when(entry, pause if is_numeric_value(pause) else 0) or 0
        heapq.heappush(heap, event_t(when, PRIORITY, entry))

    def _ask(self, entry: Any) -> Any:
        """Return what ``is_due`` says; an entry that fails must not end the others."""
        try:
            return self.is_due(entry)
        except Exception:
            self.logger.exception('The schedule of %r failed, it is asked again in %s seconds', entry, self.max_interval)
            # To the end of the queue: the first one there hides the others.
            if self._heap and self._heap[0].entry is entry:
                heapq.heapreplace(self._heap, event_t(
                    self._now(entry) + self.max_interval, PRIORITY, entry))
                return schedstate(False, 0.0)
            return schedstate(False, self.max_interval)

    def is_due(self, entry: Any) -> Any:
        """Return ``(is due, seconds)`` of *entry*."""
        return entry.is_due()

    def populate_heap(self, event_t: Any = event_t, heapify: Any = heapq.heapify) -> None:
        """Put all entries into the heap."""
        self._heap = []
        for entry in list(self.schedule.values()):
            due, pause = self._ask(entry)
            pause = 0 if due else pause or 0
            if is_numeric_value(pause):
                self._heap.append(event_t(self._when(entry, pause) or 0, PRIORITY, entry))
        heapify(self._heap)

    def schedules_equal(self, old_schedules: Any, new_schedules: Any) -> bool:
        """Tell whether no entry was added, removed or changed."""
        if old_schedules is None or new_schedules is None:
            return old_schedules is new_schedules
        return old_schedules.keys() == new_schedules.keys() and all(
            entry == old_schedules[name] for name, entry in new_schedules.items())

    def _now(self, entry: Any) -> float:
        return float(maybe_make_aware(entry.default_now()).timestamp())

    def _when(self, entry: Any, next_time_to_run: float, **kwargs: Any) -> float | None:
        """Return the timestamp *next_time_to_run* seconds from now."""
        return self._now(entry) + float(self.adjust(next_time_to_run))

    def adjust(self, n: Any, drift: float = -0.010) -> Any:
        """Return *n* seconds a bit shorter: waking up takes time."""
        return n + drift if n and n > 0 else n

    def _notice_clock(self) -> None:
        """After the clock was set the order of the heap means nothing, and last runs may lie ahead."""
        moved = self._clock.step()
        if moved:
            self.logger.warning('beat: The clock was set by %+.1f seconds, all entries are looked at again', moved)
            self._heap = None
        if moved or self.old_schedulers is None:
            for entry in list(self.schedule.values()):
                self._settle(entry)

    def _settle(self, entry: Any) -> None:
        """Do not wait for a last run that lies ahead, by a clock that was wrong.

        What runs at given times is left alone for a day: after a small correction it must not
        run again.
        """
        ahead = timedelta(days=1) if isinstance(entry.schedule, (crontab, solar)) else timedelta(0)
        now = maybe_make_aware(entry.default_now())
        last = entry.last_run_at and maybe_make_aware(entry.last_run_at)
        if last and last.timestamp() > (now + ahead).timestamp():
            entry.last_run_at = now

    def clock_was_set(self) -> bool:
        """Tell whether the clock was set since the last tick."""
        moved = self._clock.step()
        if moved:
            self.old_schedulers = None
            self.logger.warning('beat: The clock was set by %+.1f seconds, all entries are looked at again', moved)
        return bool(moved)

    # -- sending ----------------------------------------------------------------------------

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send the task of *entry*; errors are logged."""
        self.logger.info('Scheduler: Sending due task %s (%s)', entry.name, entry.task)
        try:
            result = self.apply_async(entry, producer=producer, advance=False)
        except Exception as exc:
            self.logger.error('Message Error: %s\n%s', exc, ''.join(traceback.format_stack()), exc_info=True)
        else:
            if result and hasattr(result, 'id'):
                self.logger.debug('%s sent. id->%s', entry.task, result.id)
            else:
                self.logger.debug('%s sent.', entry.task)

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> Any:
        """Send the task of *entry*.

        :param advance: note the run, too.
        :raises SchedulingError: it could not be sent.
        """
        entry = self.reserve(entry) if advance else entry
        try:
            args, options = evaluated(entry.args or ()), evaluated(entry.kwargs or {})
            task = self.app.tasks.get(entry.task)
            if task:
                return task.apply_async(args, options, producer=producer, **entry.options)
            return self.send_task(entry.task, args, options, producer=producer, **entry.options)
        except Exception as exc:
            raise SchedulingError(f"Couldn't apply scheduled task {entry.name}: {exc}") from exc
        finally:
            self._tasks_since_sync += 1
            if self.should_sync():
                self._do_sync()

    def send_task(self, *args: Any, **kwargs: Any) -> Any:
        """Send a task that is not registered here."""
        return self.app.send_task(*args, **kwargs)

    @cached_property
    def _first_connection(self) -> FirstConnection:
        return FirstConnection(self.app, self.logger)  # not in the constructor, which schedulers of other packages may skip

    @cached_property
    def connection(self) -> Any:
        """A connection of kombu to publish on."""
        return self.app.connection_for_write()

    @cached_property
    def producer(self) -> Any:
        """A producer of kombu; None where the app's own publisher has a driver, which is used then."""
        if self.app.amqp.producer is not None:
            return None
        return self.Producer(self.connection, auto_declare=False)

    # -- storing ----------------------------------------------------------------------------

    def should_sync(self) -> bool:
        """Tell whether it is time to store."""
        return bool(
            self._last_sync is None
            or time.monotonic() - self._last_sync > self.sync_every
            or (self.sync_every_tasks and self._tasks_since_sync >= self.sync_every_tasks))

    def _do_sync(self) -> None:
        try:
            self.logger.debug('beat: Synchronizing schedule...')
            self.sync()
        finally:
            self._last_sync = time.monotonic()
            self._tasks_since_sync = 0

    def sync(self) -> None:
        """Store the entries; for subclasses."""

    def close(self) -> None:
        """Store the entries and end."""
        self.sync()


def maybe_evaluated(value: Any) -> Any:
    """Return *value*, computed if it is a lazy one of kombu."""
    return value.evaluate() if hasattr(value, 'evaluate') else value


class PersistentScheduler(Scheduler):
    """Keeps in a file when which entry ran last.

    :param schedule_filename: the file; dbm may add a suffix.

    A damaged file is removed, and a disk that is full costs only the storing.
    """

    known_suffixes = SUFFIXES
    _store: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.schedule_filename: str = kwargs.get('schedule_filename') or 'celerybeat-schedule'
        self._file = ScheduleFile(self.schedule_filename)
        self._rare = False
        super().__init__(*args, **kwargs)

    def setup_schedule(self) -> None:
        """Read the file, then take over the settings."""
        self._file.check()
        self._store = self._load()
        self._reset_if_changed()
        self.merge_inplace(self._wanted())
        self.install_default_entries(self.schedule)
        self.sync()
        self.logger.debug('Current schedule:\n%s', '\n'.join(repr(entry) for entry in self.schedule.values()))

    def _load(self) -> dict[str, Any]:
        try:
            store = self._file.load()
            for entry in store.setdefault('entries', {}).values():
                entry.app = entry.schedule.app = self.app
            return store
        except Exception as exc:
            return self._start_over(exc)

    def _start_over(self, exc: Exception) -> dict[str, Any]:
        self.logger.error('Removing corrupted schedule file %r: %r', self.schedule_filename, exc, exc_info=True)
        self._file.remove()
        return {'entries': {}}

    def _reset_if_changed(self) -> None:
        """Times in another zone mean something else: begin anew."""
        now = {'tz': self.app.conf.timezone, 'utc_enabled': self.app.conf.enable_utc}
        for key, value in now.items():
            if key in self._store and self._store[key] != value:
                self.logger.warning('Reset: %s changed from %r to %r', key, self._store[key], value)
                self._store['entries'].clear()
        self._store.update(now, __version__=__version__)

    def get_schedule(self) -> Any:
        """Return the entries by name."""
        return self._store['entries'] if self._store else {}

    def set_schedule(self, schedule: Any) -> None:
        """Replace all entries."""
        if self._store is None:
            self._store = {}
        self._store['entries'] = schedule

    schedule = property(get_schedule, set_schedule)

    def reserve(self, entry: Any) -> Any:
        """Note the run; that of a rare task is stored at once, it would be noticed if it came twice."""
        following = super().reserve(entry)
        self._rare = self._rare or self._ask(following)[1] >= self.sync_every
        return following

    def should_sync(self) -> bool:
        """Tell whether it is time to store."""
        return self._rare or super().should_sync()

    def sync(self) -> None:
        """Write the file; if that fails an error is logged, and the next time it is tried again."""
        self._rare = False
        if self._store is None:
            return
        try:
            self._file.save(self._store)
        except OSError as exc:
            self.logger.error(
                'Cannot store the schedule in %r: %s. Beat goes on; after a restart tasks may run twice or late',
                self.schedule_filename, exc)

    def close(self) -> None:
        """Write the file and end."""
        self.sync()
        self._store = None

    @property
    def info(self) -> str:
        """A line for the banner."""
        return f'    . db -> {self.schedule_filename}'


class Service:
    """Runs a scheduler until :meth:`stop`.

    :param schedule_filename: setting ``beat_schedule_filename``.
    :param scheduler_cls: class, its name, or an entry point of ``celery.beat_schedulers``.
    """

    scheduler_cls: Any = PersistentScheduler

    def __init__(
        self, app: Any, max_interval: float | None = None, schedule_filename: str | None = None,
        scheduler_cls: Any = None,
    ) -> None:
        self.app = app
        self.max_interval = max_interval or app.conf.beat_max_loop_interval
        self.scheduler_cls = scheduler_cls or self.scheduler_cls
        self.schedule_filename = schedule_filename or app.conf.beat_schedule_filename
        self._is_shutdown = Event()
        self._is_stopped = Event()
        self._stop_asked = False
        self._bell: Bell | None = None
        lease = find_lease(app)
        self._leader = Leader(lease) if lease else None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.app, self.max_interval, self.schedule_filename, self.scheduler_cls)

    def start(self, embedded_process: bool = False) -> None:
        """Run."""
        self._bell = Bell()
        try:
            logger.info('beat: Starting...')
            logger.debug('beat: Ticking with max interval->%s', humanize_seconds(self.scheduler.max_interval))
            signals.beat_init.send(sender=self)
            if embedded_process:
                signals.beat_embedded_init.send(sender=self)
                platforms.set_process_title('celery beat')
            self._run()
        finally:
            self._end()

    def _run(self) -> None:
        leader = self._leader
        if leader is not None:
            self.scheduler.may_send = leader.confirm
        while not self._stopping():
            if leader is not None and not leader.lead(self.scheduler):
                self._sleep(leader.pause)
                continue
            interval = self.scheduler.tick()
            if leader is not None:
                interval = self._share(leader, interval)
            if interval and interval > 0.0:
                logger.debug('beat: Waking up %s.', humanize_seconds(interval, prefix='in '))
                self._sleep(interval)
                if self.scheduler.should_sync():
                    self.scheduler._do_sync()

    def _share(self, leader: Leader, interval: float) -> float:
        if not interval:  # something was sent
            leader.note(self.scheduler)
        return min(interval, leader.pause)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        assert self._bell is not None
        while (left := end - time.monotonic()) > 0 and not self._stopping():
            self._bell.wait(min(left, LOOK_AT_CLOCK))
            # Schedulers of other packages may have skipped our constructor.
            clock_was_set: Callable[[], bool] | None = getattr(self.scheduler, 'clock_was_set', None)
            if left > LOOK_AT_CLOCK and clock_was_set is not None and clock_was_set():
                return

    def _stopping(self) -> bool:
        return self._stop_asked or self._is_shutdown.is_set()

    def _end(self) -> None:
        bell, self._bell = self._bell, None
        try:
            self.sync()
        finally:
            if self._leader is not None:
                self._leader.end()
            if bell is not None:
                bell.close()
            self._is_stopped.set()

    def sync(self) -> None:
        """Store the entries and close the scheduler."""
        self.scheduler.close()

    def ask_stop(self) -> None:
        """Let :meth:`start` return soon; safe in signal handlers."""
        self._stop_asked = True
        if self._bell is not None:
            self._bell.ring()

    def stop(self, wait: bool = False) -> None:
        """Let :meth:`start` return; *wait* until it does."""
        logger.info('beat: Shutting down...')
        self._is_shutdown.set()
        self.ask_stop()
        if wait:
            self._is_stopped.wait()

    def get_scheduler(self, lazy: bool = False, extension_namespace: str = ENTRY_POINTS) -> Any:
        """Make the scheduler.  :raises ImportError, AttributeError: there is no such class."""
        aliases = dict(load_extension_class_names(extension_namespace))
        return symbol_by_name(self.scheduler_cls, aliases=aliases)(
            app=self.app, schedule_filename=self.schedule_filename,
            max_interval=self.max_interval, lazy=lazy)

    @cached_property
    def scheduler(self) -> Any:
        """The scheduler, made at the first use."""
        return self.get_scheduler()


def EmbeddedService(app: Any, max_interval: float | None = None, **kwargs: Any) -> Any:  # noqa: N802  the public name
    """Return beat as a process or thread with ``start()`` and ``stop()``.

    :param thread: a thread instead of a process; the others are those of :class:`Service`.
    """
    thread = kwargs.pop('thread', False)
    service = Service(app, max_interval=1 if thread and max_interval is None else max_interval, **kwargs)
    return BeatThread(service) if thread else BeatProcess(service)
