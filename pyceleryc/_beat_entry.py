"""One line of the beat schedule: what to send, when, and when it was sent last (FEATURES 2.7)."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from kombu.utils.functional import reprcall

from pyceleryc._state import current_app
from pyceleryc.schedules import maybe_schedule

__all__ = ('BeatLazyFunc', 'ScheduleEntry', 'event_t', 'evaluated')


class event_t(NamedTuple):  # the public name
    """A place in the heap: timestamp, priority, entry."""

    time: float
    priority: int
    entry: Any


class BeatLazyFunc:
    """An argument that is computed each time the task is sent: ``BeatLazyFunc(date.today)``."""

    def __init__(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._func = func
        self._func_params: dict[str, Any] = {'args': args, 'kwargs': kwargs}

    def __call__(self) -> Any:
        return self.delay()

    def delay(self) -> Any:
        """Compute it."""
        return self._func(*self._func_params['args'], **self._func_params['kwargs'])


def evaluated(value: Any) -> Any:
    """Return *value* with its lazy arguments computed."""
    if isinstance(value, BeatLazyFunc):
        return value()
    if isinstance(value, dict):
        return {key: evaluated(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [item() if isinstance(item, BeatLazyFunc) else item for item in value]
    return value


class ScheduleEntry:
    """An entry of the schedule.

    :param name: its name, *task*: the task's name.
    :param schedule: seconds, timedelta or a schedule.
    :param options: of ``apply_async``.
    :param relative: run at full units of time, for intervals.
    :param last_run_at: default is now; *total_run_count*: runs so far.
    """

    name: str | None = None
    schedule: Any = None
    args: Any = None
    kwargs: Any = None
    options: Any = None
    last_run_at: Any = None
    total_run_count = 0
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self, name: str | None = None, task: str | None = None, last_run_at: Any = None,
        total_run_count: int | None = None, schedule: Any = None, args: Any = (),
        kwargs: Any = None, options: Any = None, relative: bool = False, app: Any = None,
    ) -> None:
        self.app = app
        self.name = name
        self.task = task
        self.args = args
        self.kwargs = kwargs or {}
        self.options = options or {}
        self.schedule = maybe_schedule(schedule, relative, app=app or current_app._get_current_object())
        self.last_run_at = last_run_at or self.default_now()
        self.total_run_count = total_run_count or 0

    def default_now(self) -> Any:
        """Return the time now, as the schedule sees it."""
        return self.schedule.now() if self.schedule else (self.app or current_app).now()

    _default_now = default_now

    def _next_instance(self, last_run_at: Any = None) -> ScheduleEntry:
        """Return the same entry, run once more."""
        return type(self)(**{
            **dict(self), 'last_run_at': last_run_at or self.default_now(),
            'total_run_count': self.total_run_count + 1})

    __next__ = next = _next_instance

    def update(self, other: ScheduleEntry) -> None:
        """Take what a configuration says from *other*; when it ran last stays."""
        self.task, self.schedule = other.task, other.schedule
        self.args, self.kwargs, self.options = other.args, other.kwargs, other.options

    def is_due(self) -> Any:
        """Return ``(is due, seconds until to ask again)``."""
        return self.schedule.is_due(self.last_run_at)

    def editable_fields_equal(self, other: Any) -> bool:
        """Tell whether both say the same, names and runs aside."""
        return all(getattr(self, name) == getattr(other, name)
                   for name in ('task', 'args', 'kwargs', 'options', 'schedule'))

    def __eq__(self, other: object) -> bool:
        return self.editable_fields_equal(other) if isinstance(other, ScheduleEntry) else NotImplemented

    def __lt__(self, other: Any) -> bool:
        # Two entries of the same time and priority must be comparable, in whatever order.
        return id(self) < id(other) if isinstance(other, ScheduleEntry) else NotImplemented

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(vars(self).items())

    def __repr__(self) -> str:
        call = reprcall(self.task, self.args or (), self.kwargs or {})
        return f'<{type(self).__name__}: {self.name} {call} {self.schedule!r}>'

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (
            self.name, self.task, self.last_run_at, self.total_run_count, self.schedule,
            self.args, self.kwargs, self.options)


#: Where pickles and subclasses look for them.
for _public in (BeatLazyFunc, ScheduleEntry, event_t):
    _public.__module__ = 'pyceleryc.beat'
