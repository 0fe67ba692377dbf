"""Cron expressions: from text to sets of numbers, and from those to the next moment (FEATURES 2.7)."""
from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any, NamedTuple

from pyceleryc.utils.time import weekday, yearmonth

__all__ = ('ParseException', 'crontab_parser', 'expand', 'Times', 'moment_after')

MINUTE = timedelta(minutes=1)
#: No change of a clock is larger, those of the date line aside.
NEAR = timedelta(hours=3)
#: The 29th of February on a given weekday may be this far away, around a century without a leap day.
MAX_YEARS = 41
IMPOSSIBLE = 'unable to find the next run, no date matches day_of_month={0}, month_of_year={1} and day_of_week={2}'
OUT_OF_RANGE = 'Invalid crontab pattern.  Valid range is {0}-{1}. {2!r} was found.'
WRONG_TYPE = 'Argument cronspec needs to be of any of the following types: int, str, or an iterable type. {0!r} was given.'


class ParseException(Exception):  # the public name
    """The text is no cron expression."""


class crontab_parser:  # the public name
    """Parser of one field of a cron expression.

    :param max_: how many values the field has.
    :param min_: the first of them.

    Knows ``*``, ``*/3``, ``5``, ``1-5``, ``1-30/3``, names of days and months, and lists of those.
    A range may go over the end: ``fri-mon``.
    """

    ParseException = ParseException
    _PART = re.compile(r'(?:(?P<star>\*)|(?P<first>\w+)-(?P<last>\w+))(?:/(?P<step>-?\w+))?')

    def __init__(self, max_: int = 60, min_: int = 0) -> None:
        self.max_ = max_
        self.min_ = min_

    def parse(self, spec: str) -> set[int]:
        """Return the numbers that *spec* stands for.

        :raises ParseException: a part is missing.
        :raises ValueError: a part is no number, name or range of this field.
        """
        return {number for part in spec.split(',') for number in self._expand(part.strip())}

    def _expand(self, part: str) -> list[int]:
        if not part:
            raise ParseException('empty part')
        match = self._PART.fullmatch(part)
        if match is None:
            return [self._number(part)]
        if match['star']:
            numbers = list(range(self.min_, self.min_ + self.max_))
        else:
            numbers = self._range(self._number(match['first']), self._number(match['last']))
        return numbers if match['step'] is None else self._every(numbers, match['step'])

    def _every(self, numbers: list[int], step: str) -> list[int]:
        count = int(step)
        if count == 0:
            raise ValueError('slice step cannot be zero')
        if count < 0:
            raise ParseException('empty filter')
        return numbers[::count]

    def _range(self, first: int, last: int) -> list[int]:
        if first <= last:
            return list(range(first, last + 1))
        return [*range(first, self.min_ + self.max_), *range(self.min_, last + 1)]

    def _number(self, text: str) -> int:
        number = _value(text)
        if number > self.min_ + self.max_ - 1:
            raise ValueError(f'Invalid end range: {number} > {self.min_ + self.max_ - 1}.')
        if number < self.min_:
            raise ValueError(f'Invalid beginning range: {number} < {self.min_}.')
        return number


def _value(text: str) -> int:
    if text.startswith('-'):
        raise ParseException('negative numbers not supported')
    readers: tuple[Callable[[str], int], ...] = (int, yearmonth, weekday)
    for read in readers:
        try:
            return read(text)
        except (ValueError, KeyError):
            # The next one may know it.
            continue
    raise ValueError(f'Invalid weekday literal {text!r}.')


def expand(spec: Any, count: int, first: int = 0) -> set[int]:
    """Return the numbers of a field that has *count* values from *first* on.

    :param spec: a number, text, or an iterable of those.
    :raises TypeError: it is something else.
    :raises ValueError: a number is out of range.
    """
    if isinstance(spec, int):
        numbers = {spec}
    elif isinstance(spec, str):
        numbers = crontab_parser(count, first).parse(spec)
    elif isinstance(spec, Iterable):
        return {number for item in spec for number in expand(item, count, first)}
    else:
        raise TypeError(WRONG_TYPE.format(type(spec)))
    for number in numbers:
        if not first <= number < first + count:
            raise ValueError(OUT_OF_RANGE.format(first, first + count - 1, str(number)))
    return numbers


class Times(NamedTuple):
    """The values of the five fields; a minute matches if all of them do."""

    minute: set[int]
    hour: set[int]
    day_of_week: set[int]
    day_of_month: set[int]
    month_of_year: set[int]

    def day_matches(self, day: datetime) -> bool:
        """Tell whether there are runs on that day."""
        return (day.day in self.day_of_month and day.isoweekday() % 7 in self.day_of_week
                and day.month in self.month_of_year)

    def matches(self, wall: datetime) -> bool:
        """Tell whether the clock shows the time of a run."""
        return wall.minute in self.minute and wall.hour in self.hour and self.day_matches(wall)

    def every_hour(self) -> bool:
        """Tell whether it is about minutes only, at any time of the day."""
        return len(self.hour) == 24

    def wall_after(self, wall: datetime) -> datetime:
        """Return the first matching minute on the clock after the naive *wall*.

        :raises RuntimeError: there is none, as on the 31st of February.
        """
        start = wall.replace(second=0, microsecond=0) + MINUTE
        if self.day_matches(start):
            found = self._on_day(start)
            if found is not None:
                return found
        for day in self._days_after(start):
            return day.replace(hour=min(self.hour), minute=min(self.minute))
        raise RuntimeError(IMPOSSIBLE.format(
            *(sorted(field) for field in (self.day_of_month, self.month_of_year, self.day_of_week))))

    def _on_day(self, start: datetime) -> datetime | None:
        if start.hour in self.hour:
            minutes = [minute for minute in self.minute if minute >= start.minute]
            if minutes:
                return start.replace(minute=min(minutes))
        hours = [hour for hour in self.hour if hour > start.hour]
        return start.replace(hour=min(hours), minute=min(self.minute)) if hours else None

    def _days_after(self, start: datetime) -> Iterator[datetime]:
        """Yield the matching days after that of *start*."""
        first = start.replace(hour=0, minute=0) + timedelta(days=1)
        for month in range(first.month - 1, first.month - 1 + 12 * MAX_YEARS):
            year, number = first.year + month // 12, month % 12 + 1
            if number not in self.month_of_year:
                continue
            last = calendar.monthrange(year, number)[1]
            for day in sorted(self.day_of_month):
                if day <= last:
                    found = first.replace(year=year, month=number, day=1) + timedelta(days=day - 1)
                    if found >= first and self.day_matches(found):
                        yield found


# -- from clocks to moments -----------------------------------------------------------------

def moment_after(times: Times, last: datetime, zone: tzinfo) -> datetime:
    """Return the first run after the moment *last*, in *zone*; both ends in real time.

    A time that a clock put forward leaves out is run as long after the change as it is after
    the beginning of the gap: 2:30 at 3:30, once, even if 3:30 is a time of its own.  A time
    that comes twice is run the first time only; schedules that have every hour go on through
    both.

    :raises RuntimeError: there is none.
    """
    last = last.astimezone(timezone.utc)
    found = _real(times.wall_after(_wall(last, zone)), zone)
    if not _changes(last, zone) and not _changes(found, zone):
        return found.astimezone(zone)
    start = last
    if not _changes(last, zone):
        # The change is at the far end, and nothing can be due before it.
        start = max(last, found - 2 * NEAR)
    for moment in _minutes(start, 4 * NEAR):
        if _is_run(times, moment, zone):
            return moment.astimezone(zone)
    return moment_after(times, start + 4 * NEAR, zone)


def _wall(moment: datetime, zone: tzinfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def _real(wall: datetime, zone: tzinfo) -> datetime:
    return wall.replace(tzinfo=zone).astimezone(timezone.utc)


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)


def _changes(moment: datetime, zone: tzinfo) -> bool:
    """Tell whether the clocks are changed within three hours of *moment*."""
    return len({_offset(moment + distance, zone) for distance in (-NEAR, timedelta(0), NEAR)}) > 1


def _minutes(start: datetime, length: timedelta) -> Iterator[datetime]:
    moment = start.replace(second=0, microsecond=0)
    for _ in range(length // MINUTE):
        moment += MINUTE
        yield moment


def _is_run(times: Times, moment: datetime, zone: tzinfo) -> bool:
    local = moment.astimezone(zone)
    wall = local.replace(tzinfo=None, fold=0)
    if times.matches(wall) and (not local.fold or times.every_hour()):
        return True
    gap = _offset(moment, zone) - _offset(moment - NEAR, zone)
    if gap <= timedelta(0):
        return False
    left_out = wall - gap
    exists = _wall(_real(left_out, zone), zone) == left_out
    return not exists and times.matches(left_out)


#: Where pickles look for it.
ParseException.__module__ = crontab_parser.__module__ = 'pyceleryc.schedules'
