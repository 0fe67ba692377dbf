"""Dates, time zones, rates and durations."""
from __future__ import annotations

import calendar
import numbers
import os
import random
import time as _time
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, tzinfo
from datetime import timezone as datetime_timezone
from functools import cached_property
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pyceleryc.utils.iso8601 import parse_iso8601
from pyceleryc.utils.text import pluralize

__all__ = (
    'LocalTimezone', 'timezone', 'maybe_timedelta', 'delta_resolution', 'remaining', 'rate',
    'weekday', 'yearmonth', 'humanize_seconds', 'maybe_iso8601', 'is_naive', 'make_aware',
    'localize', 'to_utc', 'maybe_make_aware', 'ffwd', 'utcoffset', 'adjust_timestamp',
    'get_exponential_backoff_interval',
)

ZERO = timedelta(0)
DAYNAMES = ('sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat')
WEEKDAYS = {name: number for number, name in enumerate(DAYNAMES)}
MONTHNAMES = (
    'jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec',
)
YEARMONTHS = {name: number for number, name in enumerate(MONTHNAMES, start=1)}

#: Seconds per unit in a rate such as ``10/m``.
_RATE_UNITS = {'s': 1.0, 'm': 60.0, 'h': 3600.0}
_HUMAN_UNITS = (('day', 86400.0), ('hour', 3600.0), ('minute', 60.0), ('second', 1.0))


# -- time zones -----------------------------------------------------------------------------

class LocalTimezone(tzinfo):
    """The zone of the system's clock, as the C library knows it."""

    def _local(self, dt: datetime | None) -> _time.struct_time:
        if dt is None:
            return _time.localtime()
        # Naive, because timetuple() of an aware one asks this class for its dst().
        clock = dt.replace(tzinfo=None).timetuple()[:8]
        return _time.localtime(_time.mktime((*clock, 0 if dt.fold else -1)))

    def utcoffset(self, dt: datetime | None) -> timedelta:
        return timedelta(seconds=self._local(dt).tm_gmtoff)

    def dst(self, dt: datetime | None) -> timedelta:
        if not self._local(dt).tm_isdst:
            return ZERO
        return timedelta(seconds=_time.timezone - _time.altzone)

    def tzname(self, dt: datetime | None) -> str:
        return self._local(dt).tm_zone

    def fromutc(self, dt: datetime) -> datetime:
        aware = dt.replace(tzinfo=datetime_timezone.utc).astimezone()
        return aware.replace(tzinfo=self)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def __repr__(self) -> str:
        hours = int(self.utcoffset(None).total_seconds() // 3600)
        return f'<LocalTimezone: UTC{hours:+03d}>'


def _local_zone_names() -> Iterator[str]:
    if 'TZ' in os.environ:
        yield os.environ['TZ'].lstrip(':')
        return
    yield os.path.realpath('/etc/localtime').partition('/zoneinfo/')[2]
    try:
        with open('/etc/timezone') as file:
            yield file.readline().strip()
    except OSError:
        # Only Debian has this file.
        return


def _named_local_zone() -> ZoneInfo | None:
    for name in filter(None, _local_zone_names()):
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            # A rule such as "CET-1CEST", or a path: only the C library knows those.
            continue
    return None


class _Zone:
    """The zones, and conversion between them."""

    @cached_property
    def utc(self) -> tzinfo:
        """UTC."""
        return ZoneInfo('UTC')

    @cached_property
    def local(self) -> tzinfo:
        """The zone of this machine."""
        return _named_local_zone() or LocalTimezone()

    def get_timezone(self, zone: Any) -> Any:
        """Return the zone called *zone*; a tzinfo is returned as it is."""
        if isinstance(zone, str):
            return self.utc if zone.upper() == 'UTC' else ZoneInfo(zone)
        return zone

    def tz_or_local(self, tzinfo: Any = None) -> tzinfo:
        """Return the zone *tzinfo* (a name or an object), or the local one for None."""
        return self.local if tzinfo is None else self.get_timezone(tzinfo)

    def to_local(self, dt: datetime, local: Any = None, orig: Any = None) -> datetime:
        """Return *dt* in zone *local*; if naive it is in zone *orig* (default UTC)."""
        if is_naive(dt):
            dt = make_aware(dt, orig or self.utc)
        return localize(dt, self.tz_or_local(local))

    def to_system(self, dt: datetime) -> datetime:
        """Return *dt* with the fixed offset that the system's clock has then."""
        return dt.astimezone(tz=None)

    def to_local_fallback(self, dt: datetime) -> datetime:
        """Return *dt* in the local zone."""
        return localize(make_aware(dt, self.utc) if is_naive(dt) else dt, self.local)


timezone = _Zone()


def is_naive(dt: datetime) -> bool:
    """Tell whether *dt* has no time zone."""
    return dt.tzinfo is None or dt.tzinfo.utcoffset(dt) is None


def make_aware(dt: datetime, tz: tzinfo) -> datetime:
    """Say that the naive *dt* is in zone *tz*; the clock time stays."""
    return dt.replace(tzinfo=tz)


def localize(dt: datetime, tz: tzinfo) -> datetime:
    """Return the same moment in zone *tz*; a naive *dt* is taken as being there."""
    return make_aware(dt, tz) if is_naive(dt) else dt.astimezone(tz)


def to_utc(dt: datetime) -> datetime:
    """Return *dt* in UTC; a naive *dt* is taken as UTC."""
    return localize(dt, timezone.utc)


def maybe_make_aware(
    dt: Any, tz: tzinfo | None = None, naive_as_utc: bool = True,
) -> Any:
    """Give *dt* a zone if it has none.

    :param naive_as_utc: a naive *dt* is UTC and converted to *tz*; else it is in *tz*.
    """
    if not isinstance(dt, datetime) or not is_naive(dt):
        return dt
    zone = timezone.utc if tz is None else timezone.tz_or_local(tz)
    return localize(to_utc(dt), zone) if naive_as_utc else make_aware(dt, zone)


def maybe_iso8601(dt: datetime | str | None) -> datetime | None:
    """Parse an ISO-8601 string; None and datetimes are returned as they are."""
    if not dt:
        return None
    return dt if isinstance(dt, datetime) else parse_iso8601(dt)


def utcoffset(
    time: ModuleType = _time, localtime: Callable[..., _time.struct_time] = _time.localtime,
) -> float:
    """Return the hours that the local clock is behind UTC now."""
    seconds: int = time.altzone if localtime().tm_isdst else time.timezone
    return seconds // 3600


def adjust_timestamp(
    ts: float, offset: int, here: Callable[..., float] = utcoffset,
) -> float:
    """Convert the timestamp *ts* from a host *offset* hours behind UTC to this one."""
    return ts - (offset - here()) * 3600


# -- durations --------------------------------------------------------------------------------

def maybe_timedelta(delta: Any) -> Any:
    """Convert seconds to a timedelta; anything but a number stays."""
    return timedelta(seconds=float(delta)) if isinstance(delta, numbers.Real) else delta


def delta_resolution(dt: datetime, delta: timedelta) -> datetime:
    """Cut *dt* to the unit of *delta*: a day, an hour, or a minute."""
    total = delta.total_seconds()
    if total >= 86400:
        return dt.replace(hour=0, minute=0, second=0, microsecond=0)
    if total >= 3600:
        return dt.replace(minute=0, second=0, microsecond=0)
    if total >= 60:
        return dt.replace(second=0, microsecond=0)
    return dt


def remaining(
    start: datetime, ends_in: Any, now: datetime | None = None, relative: bool = False,
) -> timedelta:
    """Return the real time from *now* until *start* plus *ends_in*.

    A timedelta is added as elapsed time, a :class:`ffwd` moves the clock of the
    zone of *start*, so a daily schedule stays at its hour when the clocks change.

    :param relative: cut the end to the unit of *ends_in*.
    """
    if isinstance(ends_in, timedelta) and not is_naive(start):
        end = (to_utc(start) + ends_in).astimezone(start.tzinfo)
    else:
        end = start + ends_in
    if relative:
        end = delta_resolution(end, ends_in)
    if now is None:
        utcnow = datetime.now(datetime_timezone.utc)
        now = utcnow.replace(tzinfo=None) if is_naive(end) else utcnow
    if is_naive(end) or is_naive(now):
        return end - now
    # Python subtracts clock times when both have the same tzinfo object.
    return to_utc(end) - to_utc(now)


def rate(r: Any) -> float:
    """Return the tasks per second of ``10/s``, ``10/m``, ``10/h``, a number or None (0)."""
    if not r:
        return 0
    if not isinstance(r, str):
        return float(r)
    count, _, unit = r.partition('/')
    try:
        return float(count) / _RATE_UNITS[unit.strip().lower() or 's']
    except KeyError:
        raise ValueError(
            f'invalid rate {r!r}: write a number and /s, /m or /h, such as "10/m"') from None


def humanize_seconds(
    secs: float, prefix: str = '', sep: str = '', now: str = 'now', microseconds: bool = False,
) -> str:
    """Return a duration for people: ``4.00 minutes``."""
    for unit, length in _HUMAN_UNITS:
        if secs >= length:
            count = float(secs) / length
            return f'{prefix}{sep}{count:.2f} {pluralize(count, unit)}'
    if microseconds and secs > 0.0:
        return f'{prefix}{sep}{secs:.2f} seconds'
    return now


def get_exponential_backoff_interval(
    factor: float, retries: int, maximum: float, full_jitter: bool = False,
) -> float:
    """Return the seconds to wait before retry number *retries*: ``factor * 2**retries``.

    :param maximum: never more than this.
    :param full_jitter: a random whole number between 0 and that instead.
    """
    # 2**64 seconds is beyond any maximum; larger powers only cost memory.
    countdown: float = min(maximum, factor * 2 ** min(retries, 64))
    if full_jitter:
        countdown = random.randrange(int(countdown) + 1)
    return max(0, countdown)


# -- the calendar -------------------------------------------------------------------------------

def weekday(name: str) -> int:
    """Return the number of a day by the start of its name: Sunday is 0.  KeyError if none."""
    return WEEKDAYS[name[:3].lower()]


def yearmonth(name: str) -> int:
    """Return the number of a month by the start of its name: January is 1.  KeyError if none."""
    return YEARMONTHS[name[:3].lower()]


class ffwd:  # the public name
    """Moves a date forward: ``dt + ffwd(...)``.

    Fields given are set, then *weeks* and *days* added, then the date moves on to
    *weekday* (0 is Monday) if it is not one already.  A *day* beyond the end of the
    month becomes its last day.
    """

    def __init__(
        self, year: int | None = None, month: int | None = None, weeks: int = 0,
        weekday: int | None = None, day: int | None = None, hour: int | None = None,
        minute: int | None = None, second: int | None = None, microsecond: int | None = None,
        days: int = 0,
    ) -> None:
        self.year = year
        self.month = month
        self.weeks = weeks
        self.weekday = weekday
        self.day = day
        self.hour = hour
        self.minute = minute
        self.second = second
        self.microsecond = microsecond
        self.days = days + weeks * 7

    def _time_fields(self) -> dict[str, int]:
        names = ('hour', 'minute', 'second', 'microsecond')
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def __radd__(self, other: Any) -> Any:
        if not isinstance(other, date):
            return NotImplemented
        year = self.year or other.year
        month = self.month or other.month
        day = min(calendar.monthrange(year, month)[1], self.day or other.day)
        fields: dict[str, Any] = {'year': year, 'month': month, 'day': day}
        if isinstance(other, datetime):
            fields.update(self._time_fields())
        moved = other.replace(**fields) + timedelta(days=self.days)
        if self.weekday is not None:
            moved += timedelta(days=(7 - moved.weekday() + self.weekday) % 7)
        return moved

    def __repr__(self) -> str:
        names = ('year', 'month', 'weeks', 'weekday', 'day', 'hour', 'minute', 'second',
                 'microsecond')
        shown = ', '.join(
            f'{name}={value}' for name in names if (value := getattr(self, name)) is not None)
        return f'ffwd({shown})'
