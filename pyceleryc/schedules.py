"""When periodic tasks run: intervals, cron expressions and the position of the sun (FEATURES 2.7)."""
from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone, tzinfo
from functools import cached_property
from typing import Any, NamedTuple

from pyceleryc._crontab import ParseException, Times, crontab_parser, expand, moment_after
from pyceleryc._state import current_app
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.utils.time import ffwd, humanize_seconds, localize, maybe_make_aware, maybe_timedelta, remaining

__all__ = (
    'ParseException', 'schedule', 'crontab', 'crontab_parser', 'maybe_schedule', 'solar',
    'BaseSchedule', 'schedstate', 'cronfield',
)

NO_EPHEM = 'The solar schedule needs the package ephem: pip install "pyceleryc[solar]"'
SOLAR_EVENT = 'Argument event "{0}" is invalid, must be one of {1}.'
SOLAR_LIMIT = 'Argument {0} {1} is invalid, must be between -{2} and {2}.'
#: Days to look ahead where the sun does not rise or set; half a year is the longest.
POLAR_DAYS = 370


class schedstate(NamedTuple):  # the public name
    """Whether an entry is due, and in how many seconds to ask again."""

    is_due: bool
    next: float


class BaseSchedule:
    """Base of schedules: :meth:`is_due` and :meth:`remaining_estimate` are for subclasses.

    :param nowfun: returns the time now; default is the app's.
    :param app: whose time zone counts.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, nowfun: Callable[[], datetime] | None = None, app: Any = None) -> None:
        self.nowfun = nowfun
        self._app = app

    def now(self) -> datetime:
        """Return the time now."""
        return (self.nowfun or self.app.now)()

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return the time until the run after *last_run_at*; negative if it is late."""
        raise NotImplementedError

    def is_due(self, last_run_at: datetime) -> tuple[bool, float]:
        """Return whether it is to run now, and in how many seconds to ask again."""
        raise NotImplementedError

    def maybe_make_aware(self, dt: datetime, naive_as_utc: bool = True) -> datetime:
        """Return *dt* with a time zone; one without is UTC and converted to the schedule's."""
        return maybe_make_aware(dt, self.tz, naive_as_utc=naive_as_utc)

    @property
    def app(self) -> Any:
        """The app, by default the current one."""
        return self._app or current_app._get_current_object()

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app

    @cached_property
    def tz(self) -> tzinfo:
        """The time zone in which the schedule is meant."""
        return self.app.timezone

    @cached_property
    def utc_enabled(self) -> bool:
        """The setting ``enable_utc``."""
        return bool(self.app.conf.enable_utc)

    def to_local(self, dt: datetime) -> datetime:
        """Return *dt* as it is, or in local time where ``enable_utc`` is off."""
        return dt if self.utc_enabled else localize(dt, self.tz)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BaseSchedule):
            return other.nowfun == self.nowfun
        return NotImplemented


class schedule(BaseSchedule):  # the public name
    """Every so often.

    :param run_every: seconds or timedelta, in real time also when the clocks change.
    :param relative: run at full days, hours or minutes: at the unit of *run_every*.
    """

    relative: bool = False

    def __init__(
        self, run_every: Any = None, relative: bool = False,
        nowfun: Callable[[], datetime] | None = None, app: Any = None,
    ) -> None:
        self.run_every: timedelta = maybe_timedelta(run_every)
        self.relative = relative
        super().__init__(nowfun=nowfun, app=app)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return the time until the next run."""
        return remaining(
            self.maybe_make_aware(last_run_at), self.run_every,
            self.maybe_make_aware(self.now()), self.relative)

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Return whether it is due, and the seconds to the next run."""
        seconds = self.remaining_estimate(last_run_at).total_seconds()
        return schedstate(True, self.seconds) if seconds <= 0 else schedstate(False, seconds)

    @property
    def seconds(self) -> float:
        """The interval in seconds, 0 at least."""
        return max(self.run_every.total_seconds(), 0)

    @property
    def human_seconds(self) -> str:
        """The interval for people."""
        return humanize_seconds(self.seconds)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, schedule):
            return self.run_every == other.run_every
        return bool(self.run_every == other)

    def __repr__(self) -> str:
        return f'<freq: {self.human_seconds}>'

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.run_every, self.relative, self.nowfun)


def cronfield(s: Any) -> Any:
    """Return the text of a field of a cron expression; None is ``*``."""
    return '*' if s is None else s


class crontab(BaseSchedule):  # the public name
    """As cron has it; a run needs all fields to match, in the app's time zone.

    :param minute: 0-59, *hour*: 0-23, *day_of_week*: 0-6, Sunday is 0, or names,
        *day_of_month*: 1-31, *month_of_year*: 1-12 or names.  Each is a number, text such as
        ``*/15`` or ``8-17/2,20`` or ``mon-fri``, or an iterable.

    :raises ParseException, ValueError, TypeError: a field is wrong.
    """

    def __init__(
        self, minute: Any = '*', hour: Any = '*', day_of_week: Any = '*', day_of_month: Any = '*',
        month_of_year: Any = '*', **kwargs: Any,
    ) -> None:
        self._orig_minute = cronfield(_kept(minute))
        self._orig_hour = cronfield(_kept(hour))
        self._orig_day_of_week = cronfield(_kept(day_of_week))
        self._orig_day_of_month = cronfield(_kept(day_of_month))
        self._orig_month_of_year = cronfield(_kept(month_of_year))
        self._orig_kwargs = kwargs
        self.minute = expand(self._orig_minute, 60)
        self.hour = expand(self._orig_hour, 24)
        self.day_of_week = expand(self._orig_day_of_week, 7)
        self.day_of_month = expand(self._orig_day_of_month, 31, 1)
        self.month_of_year = expand(self._orig_month_of_year, 12, 1)
        super().__init__(**kwargs)

    @classmethod
    def from_string(cls, crontab: str) -> crontab:
        """Make it of ``minute hour day-of-month month day-of-week``, the order of cron.

        :raises ValueError: there are not five fields.
        """
        fields = crontab.split()
        if len(fields) != 5:
            raise ValueError(f'{crontab!r} has {len(fields)} fields: write minute, hour, day of month, month, day of week')
        minute, hour, day_of_month, month_of_year, day_of_week = fields
        return cls(minute, hour, day_of_week, day_of_month, month_of_year)

    @property
    def _times(self) -> Times:
        return Times(self.minute, self.hour, self.day_of_week, self.day_of_month, self.month_of_year)

    def _after(self, moment: datetime) -> datetime:
        return moment_after(self._times, moment, self.tz)

    def remaining_delta(
        self, last_run_at: datetime, tz: tzinfo | None = None, ffwd: Any = ffwd,
    ) -> tuple[datetime, Any, datetime]:
        """Return ``(last run, what to add to its clock time, now)``, all in zone *tz*."""
        zone = tz or self.tz
        last = self.maybe_make_aware(last_run_at).astimezone(zone)
        wall = moment_after(self._times, last, zone)
        return last, ffwd(
            year=wall.year, month=wall.month, day=wall.day, hour=wall.hour, minute=wall.minute,
            second=0, microsecond=0), self.maybe_make_aware(self.now()).astimezone(zone)

    def remaining_estimate(self, last_run_at: datetime, ffwd: Any = ffwd) -> timedelta:
        """Return the real time until the run after *last_run_at*; negative if it is late."""
        return self._until(self.maybe_make_aware(last_run_at), self.maybe_make_aware(self.now()))

    def _until(self, last: datetime, now: datetime) -> timedelta:
        return self._after(last).astimezone(timezone.utc) - now.astimezone(timezone.utc)

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Return whether a run came since *last_run_at*, and the seconds to the next one.

        Of a run that is more than ``beat_cron_starting_deadline`` seconds late nothing is
        made up.
        """
        now = self.maybe_make_aware(self.now())
        last = self.maybe_make_aware(last_run_at)
        deadline = self.app.conf.beat_cron_starting_deadline
        if deadline is not None:
            # The run at the edge still counts, and it is the one after this.
            last = max(last, now - timedelta(seconds=deadline, microseconds=1), key=datetime.timestamp)
        left = self._until(last, now).total_seconds()
        if left > 0:
            return schedstate(False, left)
        return schedstate(True, self._until(now, now).total_seconds())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, crontab):
            return self._times == other._times and super().__eq__(other)
        return NotImplemented

    def __repr__(self) -> str:
        return (f'<crontab: {self._orig_minute} {self._orig_hour} {self._orig_day_of_month} '
                f'{self._orig_month_of_year} {self._orig_day_of_week} (m/h/dM/MY/d)>')

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (
            self._orig_minute, self._orig_hour, self._orig_day_of_week, self._orig_day_of_month,
            self._orig_month_of_year), self._orig_kwargs

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        super().__init__(**state)


def _kept(field: Any) -> Any:
    """Return *field*, an iterator as what it yields: it is looked at more than once."""
    if field is None:
        raise TypeError('a field of a crontab cannot be None: write "*" for every value')
    return list(field) if hasattr(field, '__next__') else field


def maybe_schedule(s: Any, relative: bool = False, app: Any = None) -> Any:
    """Return a schedule of seconds or a timedelta; a schedule gets the app and is returned."""
    if s is None:
        return None
    if isinstance(s, (int, float)):
        s = timedelta(seconds=s)
    if isinstance(s, timedelta):
        return schedule(s, relative, app=app)
    s.app = app
    return s


class solar(BaseSchedule):  # the public name
    """At an event of the sun.

    :param event: dawn_astronomical, dawn_nautical, dawn_civil, sunrise, solar_noon, sunset,
        dusk_civil, dusk_nautical or dusk_astronomical.
    :param lat: latitude in degrees, north is positive.
    :param lon: longitude in degrees, east is positive.
    :raises ImproperlyConfigured: the package ephem is missing.
    :raises ValueError: the event or the place does not exist.
    """

    #: Of each event: degrees and minutes of the horizon, method of ephem's observer, and whether the
    #: centre of the sun counts rather than its edge.
    _EVENTS: Mapping[str, tuple[str, str, bool]] = {
        'dawn_astronomical': ('-18', 'next_rising', True),
        'dawn_nautical': ('-12', 'next_rising', True),
        'dawn_civil': ('-6', 'next_rising', True),
        'sunrise': ('-0:34', 'next_rising', False),
        'solar_noon': ('0', 'next_transit', False),
        'sunset': ('-0:34', 'next_setting', False),
        'dusk_civil': ('-6', 'next_setting', True),
        'dusk_nautical': ('-12', 'next_setting', True),
        'dusk_astronomical': ('-18', 'next_setting', True),
    }

    def __init__(self, event: str, lat: float, lon: float, **kwargs: Any) -> None:
        try:
            self.ephem = importlib.import_module('ephem')
        except ImportError as exc:
            raise ImproperlyConfigured(NO_EPHEM) from exc
        if event not in self._EVENTS:
            raise ValueError(SOLAR_EVENT.format(event, ', '.join(sorted(self._EVENTS))))
        for name, value, limit in (('latitude', lat, 90), ('longitude', lon, 180)):
            if not -limit <= value <= limit:
                raise ValueError(SOLAR_LIMIT.format(name, value, limit))
        self.event, self.lat, self.lon = event, lat, lon
        super().__init__(**kwargs)

    def _next(self, after: datetime) -> datetime:
        """Return the event after *after*, days later where the sun stays up or down."""
        horizon, method, centre = self._EVENTS[self.event]
        place = self.ephem.Observer()
        place.lat, place.lon = str(self.lat), str(self.lon)
        place.elevation, place.pressure, place.horizon = 0, 0, horizon
        options = {} if method == 'next_transit' else {'use_center': centre}
        start = after.astimezone(timezone.utc)
        for day in range(POLAR_DAYS):
            begin = start + timedelta(days=day)
            try:
                found = getattr(place, method)(self.ephem.Sun(), start=self.ephem.Date(begin.replace(tzinfo=None)), **options)
            except self.ephem.CircumpolarError:
                continue
            return found.datetime().replace(tzinfo=timezone.utc)
        raise RuntimeError(f'there is no {self.event} at latitude {self.lat}')

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return the time until the event after *last_run_at*; negative if it is late."""
        now = self.maybe_make_aware(self.now()).astimezone(timezone.utc)
        return self._next(self.maybe_make_aware(last_run_at)) - now

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Return whether the event came since *last_run_at*, and the seconds to the next one."""
        left = self.remaining_estimate(last_run_at).total_seconds()
        if left > 0:
            return schedstate(False, left)
        return schedstate(True, self.remaining_estimate(self.now()).total_seconds())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, solar):
            return (other.event, other.lat, other.lon) == (self.event, self.lat, self.lon)
        return NotImplemented

    def __repr__(self) -> str:
        return f'<solar: {self.event} at latitude {self.lat}, longitude: {self.lon}>'

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.event, self.lat, self.lon)
