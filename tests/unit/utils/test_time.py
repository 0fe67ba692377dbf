from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pyceleryc.utils import time as t
from pyceleryc.utils.iso8601 import parse_iso8601

PARIS, UTC = ZoneInfo('Europe/Paris'), ZoneInfo('UTC')
NOON = datetime(2015, 5, 20, 12, 33, 44, 555)


@pytest.mark.parametrize(('text', 'expected'), [
    ('2020-01-02T10:20:30Z', datetime(2020, 1, 2, 10, 20, 30, tzinfo=timezone.utc)),
    ('2020-01-02T10:20:30', datetime(2020, 1, 2, 10, 20, 30)),
    ('2020-01-02 10:20', datetime(2020, 1, 2, 10, 20)),
    ('20200102T102030', datetime(2020, 1, 2, 10, 20, 30)),
    ('2020-01', datetime(2020, 1, 1)),
    ('2020', datetime(2020, 1, 1)),
    ('2020-01-02T10:20:30.1', datetime(2020, 1, 2, 10, 20, 30, 100000)),
    ('2020-01-02T10:20:30.1234567', datetime(2020, 1, 2, 10, 20, 30, 123456)),
    ('2020-01-02T10:20:30.5-03:30',
     datetime(2020, 1, 2, 10, 20, 30, 500000, timezone(-timedelta(hours=3, minutes=30)))),
    ('2020-01-02T10:20:30+02', datetime(2020, 1, 2, 10, 20, 30, 0, timezone(timedelta(hours=2)))),
])
def test_iso8601(text: str, expected: datetime) -> None:
    parsed = parse_iso8601(text)
    assert parsed == expected and parsed.utcoffset() == expected.utcoffset()


@pytest.mark.parametrize('text', ['garbage', '2020-13-01', '2020-01-01T25:00', '2020-01-01x', ''])
def test_iso8601_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        parse_iso8601(text)


def test_iso8601_reads_what_isoformat_writes() -> None:
    for moment in (NOON, NOON.replace(tzinfo=PARIS), NOON.replace(tzinfo=UTC, microsecond=0)):
        assert parse_iso8601(moment.isoformat()) == moment


def test_maybe_iso8601() -> None:
    assert t.maybe_iso8601(None) is None
    assert t.maybe_iso8601(NOON) is NOON
    assert t.maybe_iso8601('2015-05-20') == datetime(2015, 5, 20)


@pytest.mark.parametrize(('text', 'per_second'), [
    ('10/s', 10), ('10/m', 10 / 60), ('10/h', 10 / 3600), ('2.5/m', 2.5 / 60), ('10', 10),
    (10, 10), (None, 0), (0, 0), ('0', 0),
])
def test_rate(text: Any, per_second: float) -> None:
    assert t.rate(text) == pytest.approx(per_second)


def test_rate_refuses() -> None:
    with pytest.raises(ValueError, match='/s, /m or /h'):
        t.rate('10/y')


@pytest.mark.parametrize(('seconds', 'text'), [
    (4 * 86400, '4.00 days'), (86400, '1.00 day'), (14400, '4.00 hours'), (60, '1.00 minute'),
    (4.4567, '4.46 seconds'), (1, '1.00 second'), (0, 'now'), (-3, 'now'), (0.5, 'now'),
])
def test_humanize_seconds(seconds: float, text: str) -> None:
    assert t.humanize_seconds(seconds) == text


def test_humanize_options() -> None:
    assert t.humanize_seconds(4, prefix='about ') == 'about 4.00 seconds'
    assert t.humanize_seconds(4, 'in', ' ') == 'in 4.00 seconds'
    assert t.humanize_seconds(0.2, microseconds=True) == '0.20 seconds'
    assert t.humanize_seconds(0, now='at once') == 'at once'


def test_backoff() -> None:
    values = [t.get_exponential_backoff_interval(2, n, 600) for n in range(12)]
    assert values[:4] == [2, 4, 8, 16] and values[-1] == 600
    assert t.get_exponential_backoff_interval(1, 10 ** 9, 600) == 600
    jittered = {t.get_exponential_backoff_interval(4, 2, 600, True) for _ in range(500)}
    assert jittered == set(range(17))


def test_zones() -> None:
    assert t.timezone.get_timezone('Europe/Paris') == PARIS
    assert t.timezone.get_timezone(PARIS) is PARIS
    assert t.timezone.tz_or_local('UTC') == UTC
    assert t.timezone.tz_or_local().utcoffset(NOON) is not None
    local = t.timezone.to_local(NOON, PARIS)
    assert local.isoformat() == '2015-05-20T14:33:44.000555+02:00'
    assert t.timezone.to_local(NOON, PARIS, orig=PARIS).hour == 12
    assert t.timezone.to_system(NOON.replace(tzinfo=UTC)) == NOON.replace(tzinfo=UTC)


def test_awareness() -> None:
    assert t.is_naive(NOON) and not t.is_naive(NOON.replace(tzinfo=UTC))
    assert t.maybe_make_aware(NOON) == NOON.replace(tzinfo=UTC)
    assert t.maybe_make_aware(NOON, PARIS).hour == 14
    assert t.maybe_make_aware(NOON, PARIS, naive_as_utc=False).hour == 12
    aware = NOON.replace(tzinfo=PARIS)
    assert t.maybe_make_aware(aware, UTC) is aware
    assert t.to_utc(aware).hour == 10 and t.to_utc(NOON).hour == 12
    assert t.localize(aware, UTC) == aware


def test_local_timezone_agrees_with_the_system() -> None:
    for month in (1, 7):
        moment = datetime(2021, month, 15, 12)
        assert moment.replace(tzinfo=t.LocalTimezone()).utcoffset() == (
            moment.astimezone().utcoffset())
        back = moment.replace(tzinfo=t.LocalTimezone()).astimezone(timezone.utc)
        assert back.astimezone(t.LocalTimezone()).replace(tzinfo=None) == moment


def test_remaining() -> None:
    assert t.remaining(NOON, timedelta(seconds=30), now=NOON) == timedelta(seconds=30)
    aware = NOON.replace(tzinfo=PARIS)
    assert t.remaining(aware, timedelta(hours=1), now=aware.astimezone(UTC)) == timedelta(hours=1)
    assert t.remaining(NOON, timedelta(minutes=1), now=NOON, relative=True) == (
        timedelta(seconds=15, microseconds=999445))
    assert t.remaining(datetime.now(timezone.utc), timedelta(hours=1)) > timedelta(minutes=59)


def test_remaining_when_the_clocks_change() -> None:
    before = datetime(2015, 3, 28, 12, tzinfo=PARIS)
    assert t.remaining(before, timedelta(hours=24), now=before) == timedelta(hours=24)
    # The wall clock of the next noon comes an hour early.
    noon = t.ffwd(day=29, hour=12, minute=0)
    assert t.remaining(before, noon, now=before) == timedelta(hours=23)


def test_delta_resolution() -> None:
    cut = {delta: t.delta_resolution(NOON, timedelta(**{delta: 2}))
           for delta in ('days', 'hours', 'minutes', 'seconds')}
    assert cut['days'] == datetime(2015, 5, 20)
    assert cut['hours'] == datetime(2015, 5, 20, 12)
    assert cut['minutes'] == datetime(2015, 5, 20, 12, 33)
    assert cut['seconds'] == NOON


def test_ffwd() -> None:
    assert NOON + t.ffwd(hour=1, minute=3) == NOON.replace(hour=1, minute=3)
    assert NOON + t.ffwd(weeks=1) == NOON + timedelta(days=7)
    assert (NOON + t.ffwd(month=2, day=31)).day == 28
    assert NOON + t.ffwd(weekday=2) == NOON
    assert NOON + t.ffwd(weekday=1) == NOON + timedelta(days=6)
    assert date(2015, 5, 20) + t.ffwd(day=1, hour=3) == date(2015, 5, 1)
    assert repr(t.ffwd(hour=1)) == 'ffwd(weeks=0, hour=1)'
    with pytest.raises(TypeError):
        3 + t.ffwd(hour=1)


def test_names_of_days_and_months() -> None:
    assert (t.weekday('sun'), t.weekday('Monday'), t.yearmonth('DEC')) == (0, 1, 12)
    with pytest.raises(KeyError):
        t.weekday('noday')


def test_timestamps() -> None:
    assert t.adjust_timestamp(1000.0, 2, here=lambda: -1) == 1000.0 - 3 * 3600
    assert t.maybe_timedelta(30) == timedelta(seconds=30)
    assert t.maybe_timedelta(None) is None
