"""Schedules: what cron expressions mean, when the next run is, and what happens when the clocks are changed. Time is passed in."""

from __future__ import annotations

import importlib.util
import pickle
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pyceleryc import Celery
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.schedules import (
    BaseSchedule,
    ParseException,
    crontab,
    crontab_parser,
    maybe_schedule,
    schedstate,
    schedule,
    solar,
)

BERLIN = ZoneInfo("Europe/Berlin")


def make_app(zone: str = "Europe/Berlin", **conf: Any) -> Celery:
    app = Celery("schedules", broker="memory://", set_as_current=False)
    app.conf.update(timezone=zone, **conf)
    return app


@pytest.fixture(scope="module")
def app() -> Celery:
    return make_app()


def at(*fields: int, fold: int = 0, zone: str = "Europe/Berlin") -> datetime:
    return datetime(*fields, tzinfo=ZoneInfo(zone), fold=fold)  # type: ignore[misc, arg-type]


def runs(app: Celery, cron: tuple[Any, ...], start: datetime, end: datetime) -> list[str]:
    """The runs between two moments, as beat finds them: each is the last run for the next."""
    clock = [start]
    made = crontab(*cron, nowfun=lambda: clock[0], app=app)
    last, found = start, []
    while True:
        left = made.remaining_estimate(last)
        last = (clock[0].astimezone(timezone.utc) + left).astimezone(start.tzinfo)
        if last.timestamp() > end.timestamp():
            return found
        clock[0] = last
        found.append(f"{last:%d %H:%M%z}")


# --- fields -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("field", "spec", "expected"), [
    ("minute", "*/15", {0, 15, 30, 45}), ("minute", 7, {7}), ("minute", "1,3", {1, 3}), ("minute", " 1, 2", {1, 2}),
    ("minute", "5-5", {5}), ("minute", "50-10/7", {50, 57, 4}), ("minute", {1, 5}, {1, 5}), ("minute", ["1", "7-8"], {1, 7, 8}),
    ("minute", iter((1, 2)), {1, 2}), ("hour", "8-17/2", {8, 10, 12, 14, 16}), ("hour", "22-2", {22, 23, 0, 1, 2}),
    ("day_of_week", "mon-fri", {1, 2, 3, 4, 5}), ("day_of_week", "fri-sun", {5, 6, 0}), ("day_of_week", "sunday,Tuesday", {0, 2}),
    ("day_of_week", 0, {0}), ("day_of_month", "*/5", {1, 6, 11, 16, 21, 26, 31}), ("day_of_month", "30-2", {30, 31, 1, 2}),
    ("month_of_year", "jan", {1}), ("month_of_year", "nov-feb", {11, 12, 1, 2}), ("month_of_year", "jan-dec/2", {1, 3, 5, 7, 9, 11}),
    ("month_of_year", "2-12/3", {2, 5, 8, 11}),
])
def test_fields(field: str, spec: Any, expected: set[int]) -> None:
    assert getattr(crontab(**{field: spec}), field) == expected


@pytest.mark.parametrize(("fields", "error", "text"), [
    ({"minute": 60}, ValueError, "Valid range is 0-59"), ({"hour": -1}, ValueError, "Valid range is 0-23"),
    ({"minute": "5-60"}, ValueError, "Invalid end range: 60 > 59"), ({"day_of_week": "7"}, ValueError, "7 > 6"),
    ({"day_of_month": "0-3"}, ValueError, "Invalid beginning range: 0 < 1"), ({"minute": [1, 99]}, ValueError, "'99' was found"),
    ({"minute": "*/0"}, ValueError, "zero"), ({"minute": "*/-1"}, ParseException, "empty filter"), ({"minute": ""}, ParseException, "empty part"),
    ({"minute": "1,2,"}, ParseException, "empty part"), ({"minute": "-3"}, ParseException, "negative"), ({"minute": "5/10"}, ValueError, "5/10"),
    ({"minute": "1-2-3"}, ValueError, "1-2-3"), ({"day_of_week": "foo"}, ValueError, "Invalid weekday literal 'foo'"),
    ({"minute": 1.5}, TypeError, "float"), ({"minute": None}, TypeError, "None"),
])
def test_wrong_fields(fields: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text.replace("*", r"\*")):
        crontab(**fields)


def test_order_of_arguments_and_of_text() -> None:
    assert crontab(0, 4, "mon", 1, "jan") == crontab.from_string("0 4 1 jan mon")
    assert repr(crontab("*/15", "8-17/2", "mon-fri", "1,3", "jan-mar")) == "<crontab: */15 8-17/2 1,3 jan-mar mon-fri (m/h/dM/MY/d)>"
    with pytest.raises(ValueError, match="3 fields"):
        crontab.from_string("1 2 3")


def test_parser() -> None:
    assert crontab_parser(12, 1).parse("*/5") == {1, 6, 11}
    assert crontab_parser(7).parse("*") == set(range(7))


# --- the next run -----------------------------------------------------------------------------------------------------


def test_is_due_and_next(app: Celery) -> None:
    now = at(2024, 3, 20, 12, 0, 30)
    hourly = crontab(0, nowfun=lambda: now, app=app)
    assert hourly.is_due(at(2024, 3, 20, 11, 0)) == schedstate(True, 3570.0)
    assert hourly.is_due(at(2024, 3, 20, 12, 0)) == schedstate(False, 3570.0)
    assert hourly.is_due(at(2024, 3, 20, 9, 0)) == schedstate(True, 3570.0)
    assert hourly.remaining_estimate(at(2024, 3, 20, 11, 0)) == timedelta(seconds=-30)


def test_all_fields_must_match(app: Celery) -> None:
    """The 13th that is a Friday: both day fields count."""
    assert runs(app, (0, 0, "fri", 13), at(2026, 1, 1), at(2027, 1, 1)) == ["13 00:00+0100", "13 00:00+0100", "13 00:00+0100"]


def test_leap_days(app: Celery) -> None:
    clock = at(2024, 3, 1)
    leap = crontab(0, 0, day_of_month=29, month_of_year=2, nowfun=lambda: clock, app=app)
    assert clock + leap.remaining_estimate(clock) == at(2028, 2, 29)
    monday = crontab(0, 0, "mon", 29, 2, nowfun=lambda: clock, app=app)
    assert (clock + monday.remaining_estimate(clock)).year == 2044


def test_no_date_matches(app: Celery) -> None:
    with pytest.raises(RuntimeError, match=r"day_of_month=\[31\], month_of_year=\[2\]"):
        crontab(0, 0, day_of_month=31, month_of_year=2, app=app).is_due(at(2024, 1, 1))


def test_naive_times_are_utc(app: Celery) -> None:
    noon = datetime(2024, 3, 20, 12, 0)
    assert crontab(0, 13, nowfun=lambda: noon, app=app).is_due(noon - timedelta(hours=1)).is_due


def test_last_run_in_another_zone(app: Celery) -> None:
    now = at(2024, 3, 20, 2, 0)
    midnight = crontab(0, 0, nowfun=lambda: now, app=app)
    assert midnight.is_due(now.astimezone(timezone.utc)).next == 22 * 3600
    assert midnight.is_due(now).next == 22 * 3600


def test_other_zone_of_the_app() -> None:
    now = datetime(2024, 3, 20, 0, 0, tzinfo=timezone.utc)
    tokyo = crontab(0, 10, nowfun=lambda: now, app=make_app("Asia/Tokyo"))
    assert tokyo.remaining_estimate(now) == timedelta(hours=1)


# --- the clocks are changed -------------------------------------------------------------------------------------------


def test_time_left_out_in_spring(app: Celery) -> None:
    """2:30 does not exist on the 31st: run at 3:30, once, and again at 2:30 the next day."""
    expected = ["30 02:30+0100", "31 03:30+0200", "01 02:30+0200"]
    assert runs(app, (30, 2), at(2024, 3, 30), at(2024, 4, 1, 12)) == expected


def test_time_that_falls_on_another_in_spring(app: Celery) -> None:
    assert runs(app, (30, "2,3"), at(2024, 3, 31), at(2024, 3, 31, 12)) == ["31 03:30+0200"]


def test_beat_that_looks_in_the_gap_does_not_lose_the_run(app: Celery) -> None:
    now = at(2024, 3, 31, 3, 1)
    assert crontab(30, 2, nowfun=lambda: now, app=app).is_due(at(2024, 3, 31, 3, 0)) == schedstate(False, 1740.0)


def test_every_hour_in_spring(app: Celery) -> None:
    assert runs(app, (0,), at(2024, 3, 31, 0, 30), at(2024, 3, 31, 4)) == [
        "31 01:00+0100", "31 03:00+0200", "31 04:00+0200"]


def test_time_that_comes_twice_in_autumn(app: Celery) -> None:
    expected = ["26 02:30+0200", "27 02:30+0200", "28 02:30+0100"]
    assert runs(app, (30, 2), at(2024, 10, 26), at(2024, 10, 28, 12)) == expected


def test_every_half_hour_goes_on_in_autumn(app: Celery) -> None:
    assert runs(app, ("*/30",), at(2024, 10, 27, 1, 40), at(2024, 10, 27, 3, 0)) == [
        "27 02:00+0200", "27 02:30+0200", "27 02:00+0100", "27 02:30+0100", "27 03:00+0100"]


def test_lord_howe_changes_by_half_an_hour() -> None:
    app = make_app("Australia/Lord_Howe")
    zone = "Australia/Lord_Howe"
    spring = at(2024, 10, 6, 1, 0, zone=zone), at(2024, 10, 6, 4, 0, zone=zone)
    assert runs(app, ("10,35", 2), *spring) == ["06 02:35+1100", "06 02:40+1100"]
    autumn = at(2024, 4, 7, 1, 0, zone=zone), at(2024, 4, 7, 2, 30, zone=zone)
    assert runs(app, ("*/15",), *autumn) == [
        "07 01:15+1100", "07 01:30+1100", "07 01:45+1100", "07 01:30+1030", "07 01:45+1030", "07 02:00+1030", "07 02:15+1030", "07 02:30+1030"]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"])
def test_every_minute_of_two_years_near_the_changes(zone: str) -> None:
    """However clocks jump, a run of every minute is a minute after the one before."""
    clock = [datetime(2024, 1, 1, tzinfo=timezone.utc)]
    minutely = crontab(nowfun=lambda: clock[0], app=make_app(zone))
    for hour in range(0, 2 * 366 * 24, 7):
        clock[0] = datetime(2024, 1, 1, tzinfo=timezone.utc) + timedelta(hours=hour)
        assert minutely.remaining_estimate(clock[0]) == timedelta(minutes=1)


# --- beat_cron_starting_deadline ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "due"), [(0, True), (60, True), (61, False), (3599, False), (3600, True), (3661, False)])
def test_starting_deadline(seconds: int, due: bool) -> None:
    noon = at(2024, 3, 20, 12)
    hourly = crontab(0, nowfun=lambda: noon + timedelta(seconds=seconds), app=make_app(beat_cron_starting_deadline=60))
    answer = hourly.is_due(noon - timedelta(hours=1, minutes=30))
    assert answer.is_due is due
    assert answer.next == 3600 - seconds % 3600


# --- intervals --------------------------------------------------------------------------------------------------------


def test_interval(app: Celery) -> None:
    now = at(2024, 3, 20, 12)
    every = schedule(10, nowfun=lambda: now, app=app)
    assert every.is_due(now - timedelta(seconds=3)) == (False, 7.0)
    assert every.is_due(now - timedelta(seconds=13)) == (True, 10.0)
    assert repr(every) == "<freq: 10.00 seconds>"
    assert every == timedelta(seconds=10) == schedule(timedelta(seconds=10))


def test_intervals_are_real_time(app: Celery) -> None:
    now = at(2024, 3, 31, 3, 30)
    daily = schedule(timedelta(days=1), nowfun=lambda: now, app=app)
    assert daily.is_due(at(2024, 3, 30, 3, 0)) == (False, 1800.0)


def test_relative_interval(app: Celery) -> None:
    now = at(2024, 3, 20, 12, 0)
    hourly = schedule(timedelta(hours=1), relative=True, nowfun=lambda: now, app=app)
    assert hourly.is_due(at(2024, 3, 20, 11, 4, 50)) == (True, 3600.0)


def test_maybe_schedule(app: Celery) -> None:
    assert maybe_schedule(2.5).seconds == 2.5
    assert maybe_schedule(timedelta(days=5), relative=True).relative
    assert maybe_schedule(None) is None
    cron = crontab(1)
    assert maybe_schedule(cron, app=app) is cron
    assert cron.app is app


def test_pickle_and_equality(app: Celery) -> None:
    for one in (crontab(1, "2-4", app=app), schedule(3, relative=True)):
        again = pickle.loads(pickle.dumps(crontab(1, "2-4") if isinstance(one, crontab) else one))
        assert again == one
        assert repr(again) == repr(one)
    assert crontab(1) != crontab(2)
    assert crontab(1) != 1
    with pytest.raises(TypeError):
        hash(crontab(1))


def test_base_is_for_subclasses(app: Celery) -> None:
    base = BaseSchedule(app=app)
    for method in (base.is_due, base.remaining_estimate):
        with pytest.raises(NotImplementedError):
            method(at(2024, 1, 1))
    assert base.tz == BERLIN


# --- sun --------------------------------------------------------------------------------------------------------------


def test_sun(app: Celery) -> None:
    """With ephem the sun rises over Greenwich at 6 on the equinox; without it the error says what to install."""
    if importlib.util.find_spec("ephem") is None:
        with pytest.raises(ImproperlyConfigured, match="pip install"):
            solar("sunrise", 51.5, 0)
        return
    now = datetime(2024, 3, 20, 0, 0, tzinfo=timezone.utc)
    sunrise = solar("sunrise", 51.5, 0, nowfun=lambda: now, app=app)
    assert sunrise.remaining_estimate(now).total_seconds() == pytest.approx(6 * 3600, abs=600)
    with pytest.raises(ValueError, match="must be one of"):
        solar("tea", 51.5, 0)
    with pytest.raises(ValueError, match="latitude 91"):
        solar("sunrise", 91, 0)
