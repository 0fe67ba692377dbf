"""The scheduler: what is sent when, what is stored, and what a damaged file, a full disk or a clock that is set do. Time is passed in."""

from __future__ import annotations

import dbm
import logging
import os
import pickle
import resource
import signal
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pyceleryc import Celery, signals
from pyceleryc._beat_clock import Bell, ClockWatch
from pyceleryc._beat_store import ScheduleFile
from pyceleryc.beat import (
    BeatLazyFunc,
    EmbeddedService,
    PersistentScheduler,
    ScheduleEntry,
    Scheduler,
    SchedulingError,
    Service,
    event_t,
)
from pyceleryc.loaders.app import AppLoader
from pyceleryc.schedules import crontab, schedule

START = datetime(2024, 3, 20, 12, 0, tzinfo=timezone.utc)


class Clock:
    """The wall clock, and the one that nobody sets."""

    def __init__(self) -> None:
        self.wall, self.mono = START, 1000.0

    def pass_(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.mono += seconds

    def set_by(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)


class Sent(Scheduler):
    """Writes down what it would send."""

    sent: list[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.sent = []
        super().__init__(*args, **kwargs)

    def send_task(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self.sent.append(name)


class SentStored(Sent, PersistentScheduler):
    """The same with the file."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(clock: Clock) -> Celery:
    class Loader(AppLoader):
        def now(self, utc: bool = True) -> datetime:
            return clock.wall

    made = Celery("beat", broker="memory://", backend="cache+memory://", loader=Loader, set_as_current=False)
    made.conf.update(beat_schedule={}, result_expires=None)
    return made


def begin(app: Celery, clock: Clock, entries: dict[str, Any], kind: Any = Sent, **options: Any) -> Any:
    app.conf.beat_schedule = entries
    return kind(app, monotonic=lambda: clock.mono, **options)


def let_pass(scheduler: Any, clock: Clock, seconds: float) -> list[tuple[float, str]]:
    """Runs as a service does, without waiting; what was sent at which second."""
    start, found = clock.mono, []
    while True:
        before = len(scheduler.sent)
        pause = scheduler.tick()
        found += [(round(clock.mono - start, 1), name) for name in scheduler.sent[before:]]
        if clock.mono - start + pause > seconds:
            clock.pass_(start + seconds - clock.mono)
            return found
        clock.pass_(pause + 0.01 if pause else 0)


# --- when what is sent ------------------------------------------------------------------------------------------------


def test_intervals_and_crontabs(app: Celery, clock: Clock) -> None:
    entries = {"often": {"task": "often", "schedule": 20}, "minute": {"task": "minute", "schedule": crontab()}}
    sent = sorted((round(at), name) for at, name in let_pass(begin(app, clock, entries), clock, 61))
    assert sent == [(20, "often"), (40, "often"), (60, "minute"), (60, "often")]


def test_a_single_entry_is_sent_again_and_again(app: Celery, clock: Clock) -> None:
    sent = let_pass(begin(app, clock, {"one": {"task": "t", "schedule": 10}}), clock, 3605)
    assert 355 <= len(sent) <= 360


def test_sleeps_as_long_as_nothing_is_due(app: Celery, clock: Clock) -> None:
    scheduler = begin(app, clock, {"one": {"task": "t", "schedule": 90}})
    assert scheduler.tick() == pytest.approx(89.99)
    assert begin(app, clock, {}).tick() == 300
    assert begin(app, clock, {"one": {"task": "t", "schedule": 90}}, max_interval=5).tick() == 5
    app.conf.beat_max_loop_interval = 11
    assert begin(app, clock, {}).max_interval == 11


def test_an_entry_that_is_added_is_noticed(app: Celery, clock: Clock) -> None:
    scheduler = begin(app, clock, {"one": {"task": "unit.one", "schedule": 90}})
    scheduler.tick()
    scheduler.add(name="two", task="unit.two", schedule=3)
    assert scheduler.tick() == pytest.approx(2.99)
    assert [name for _, name in let_pass(scheduler, clock, 4)] == ["unit.two"]


def test_an_entry_that_fails_does_not_stop_the_others(app: Celery, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    entries = {"never": {"task": "never", "schedule": crontab(0, 0, day_of_month=31, month_of_year=2)},
               "good": {"task": "good", "schedule": 30}}
    sent = let_pass(begin(app, clock, entries), clock, 3700)
    assert len(sent) >= 120
    assert {name for _, name in sent} == {"good"}
    failures = [record for record in caplog.records if "is asked again" in record.getMessage()]
    assert 0 < len(failures) < 20


def test_sending(app: Celery, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    scheduler = begin(app, clock, {})
    entry = scheduler.add(name="bad", task="celery.group", schedule=3, options={"serializer": "nix"})
    with pytest.raises(SchedulingError, match="Couldn't apply scheduled task bad"):
        scheduler.apply_async(entry)
    assert scheduler.schedule["bad"].total_run_count == 1
    with caplog.at_level(logging.INFO, "celery.beat"):
        scheduler.apply_entry(entry)
    assert "Scheduler: Sending due task bad (celery.group)" in caplog.text
    assert "Message Error: Couldn't apply scheduled task bad" in caplog.text


def test_lazy_arguments(app: Celery, clock: Clock) -> None:
    seen: list[Any] = []

    class Seen(Scheduler):
        def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> None:
            seen.append((args, kwargs, options))

    values = iter(range(10))
    scheduler = begin(app, clock, {}, Seen)
    entry = scheduler.add(name="n", task="n", schedule=3, args=(BeatLazyFunc(next, values), "a"), kwargs={"k": BeatLazyFunc(max, 3, 4)},
                          options={"queue": "q"})
    scheduler.apply_async(entry)
    scheduler.apply_async(entry)
    assert seen == [([0, "a"], {"k": 4}, {"producer": seen[0][2]["producer"], "queue": "q"}),
                    ([1, "a"], {"k": 4}, {"producer": seen[0][2]["producer"], "queue": "q"})]


# --- the clock is set -------------------------------------------------------------------------------------------------


def test_clock_set_back_by_an_hour(app: Celery, clock: Clock) -> None:
    """Intervals go on, and a crontab that has run does not run again."""
    entries = {"often": {"task": "often", "schedule": 30}, "hourly": {"task": "hourly", "schedule": crontab(5)}}
    scheduler = begin(app, clock, entries)
    let_pass(scheduler, clock, 400)
    assert scheduler.sent.count("hourly") == 1
    clock.set_by(-3600)
    sent = let_pass(scheduler, clock, 600)
    assert [name for _, name in sent].count("often") in (19, 20)
    assert [name for _, name in sent].count("hourly") == 0


def test_clock_set_forward_by_an_hour(app: Celery, clock: Clock) -> None:
    scheduler = begin(app, clock, {"often": {"task": "often", "schedule": 30}, "hourly": {"task": "hourly", "schedule": crontab(5)}})
    let_pass(scheduler, clock, 400)
    clock.set_by(3600)
    sent = [name for _, name in let_pass(scheduler, clock, 300)]
    assert sent.count("hourly") == 1
    assert sent.count("often") in (10, 11)


def test_clock_that_was_a_year_ahead(app: Celery, clock: Clock) -> None:
    scheduler = begin(app, clock, {"hourly": {"task": "hourly", "schedule": crontab(5)}})
    scheduler.schedule["hourly"].last_run_at = START + timedelta(days=365)
    assert [name for _, name in let_pass(scheduler, clock, 3600)] == ["hourly"]


def test_clock_watch() -> None:
    clock = Clock()
    watch = ClockWatch(lambda: clock.wall.timestamp(), lambda: clock.mono)
    clock.pass_(5000)
    assert watch.step() == 0
    clock.set_by(-60)
    assert watch.step() == pytest.approx(-60)
    assert watch.step() == 0


# --- the schedule -----------------------------------------------------------------------------------------------------


def test_merge_keeps_last_runs(app: Celery, clock: Clock) -> None:
    scheduler = begin(app, clock, {"a": {"task": "unit.a", "schedule": 3}, "b": {"task": "b", "schedule": 3}})
    clock.pass_(9)
    scheduler.reserve(scheduler.schedule["a"])
    scheduler.merge_inplace({"a": {"task": "other", "schedule": 5, "args": (1,)}, "c": {"task": "c", "schedule": 1}})
    assert sorted(scheduler.schedule) == ["a", "c"]
    entry = scheduler.schedule["a"]
    assert (entry.task, entry.schedule, entry.args, entry.total_run_count, entry.last_run_at) == (
        "other", schedule(5), (1,), 1, clock.wall)


def test_removal_of_old_results() -> None:
    app = Celery("beat", broker="memory://", set_as_current=False)
    entry = Scheduler(app).schedule["celery.backend_cleanup"]
    assert (entry.schedule, entry.options) == (crontab("0", "4"), {"expires": 12 * 3600})
    app.conf.result_expires = None
    assert Scheduler(app).schedule == {}
    expiring = Celery("beat", broker="memory://", backend="redis://127.0.0.1:1", set_as_current=False)
    assert Scheduler(expiring).schedule == {}


def test_entry(app: Celery) -> None:
    entry = ScheduleEntry(name="a", task="t", args=(1,), kwargs={"k": 2}, schedule=5, app=app)
    following = next(entry)
    assert (entry.total_run_count, following.total_run_count) == (0, 1)
    assert repr(entry) == "<ScheduleEntry: a t(1, k=2) <freq: 5.00 seconds>>"
    assert entry == ScheduleEntry(name="b", task="t", args=(1,), kwargs={"k": 2}, schedule=5, app=app)
    assert entry != ScheduleEntry(name="a", task="t", schedule=5, app=app)
    assert sorted([event_t(1, 5, following), event_t(1, 5, entry), event_t(0, 5, entry)])[0].time == 0
    again = pickle.loads(pickle.dumps(entry))
    assert dict(again, app=None) == dict(entry, app=None)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_last_runs_are_kept(app: Celery, clock: Clock, tmp_path: Path) -> None:
    path = str(tmp_path / "schedule")
    entries = {"a": {"task": "unit.a", "schedule": 60}}
    scheduler = begin(app, clock, entries, SentStored, schedule_filename=path)
    let_pass(scheduler, clock, 70)
    scheduler.close()
    clock.pass_(20)
    again = begin(app, clock, entries, SentStored, schedule_filename=path)
    assert again.schedule["a"].total_run_count == 1
    assert let_pass(again, clock, 40)[0][0] == pytest.approx(30, abs=0.2)
    assert again.info == f"    . db -> {path}"


def test_a_rare_run_is_stored_at_once(app: Celery, clock: Clock, tmp_path: Path) -> None:
    """Nobody closes the first scheduler: it is killed."""
    path = str(tmp_path / "schedule")
    entries = {"hourly": {"task": "hourly", "schedule": crontab(5)}, "often": {"task": "often", "schedule": 10}}
    killed = begin(app, clock, entries, SentStored, schedule_filename=path)
    let_pass(killed, clock, 310)
    again = begin(app, clock, entries, SentStored, schedule_filename=path)
    assert again.schedule["hourly"].total_run_count == 1
    assert "hourly" not in [name for _, name in let_pass(again, clock, 60)]


def test_content_is_celerys(app: Celery, clock: Clock, tmp_path: Path) -> None:
    """The keys, and in the pickles no name of ours: Celery itself reads them."""
    path = str(tmp_path / "schedule")
    begin(app, clock, {"a": {"task": "unit.a", "schedule": crontab(5)}}, SentStored, schedule_filename=path).close()
    with dbm.open(path, "r") as db:
        content = {key: db[key] for key in db.keys()}
    assert set(content) == {b"entries", b"__version__", b"tz", b"utc_enabled"}
    assert b"pyceleryc.schedules" not in content[b"entries"]
    assert b"celery.schedules:crontab" in content[b"entries"]


@pytest.mark.parametrize("suffix", ["", ".dat", ".dir", ".db", "-journal"])
def test_damaged_file(app: Celery, clock: Clock, tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "schedule"
    Path(f"{path}{suffix}").write_bytes(b"garbage" * 100)
    scheduler = begin(app, clock, {"a": {"task": "unit.a", "schedule": 5}}, SentStored, schedule_filename=str(path))
    assert list(scheduler.schedule) == ["a"]
    if suffix in ("", "-journal"):
        assert "Removing corrupted schedule file" in caplog.text
    scheduler.close()
    assert ScheduleFile(str(path)).load()["entries"]["a"].task == "unit.a"


def test_crash_in_mid_write(tmp_path: Path) -> None:
    """At whichever system call the writer is killed, the file holds the old or the new content."""
    file = ScheduleFile(str(tmp_path / "schedule"))
    file.save({"count": 0, "more": ["x" * 5000] * 20})
    for number in range(1, 40):
        before = file.load()["count"]
        pid = os.fork()
        if not pid:
            _die_after(number, lambda: ScheduleFile(file.path).save({"count": before + 1, "more": ["y" * 5000] * 20}))
        os.waitpid(pid, 0)
        assert file.load()["count"] in (before, before + 1)


def _die_after(count: int, action: Any) -> None:
    """In a child: kill it before its `count`-th opening, renaming or removing of a file."""
    left = [count]

    def audit(event: str, args: Any) -> None:
        if event in ("open", "os.rename", "os.remove"):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    action()
    os._exit(0)


def test_full_disk(app: Celery, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Beat goes on, the file stays as it was, and storing is tried again."""
    path = str(tmp_path / "schedule")
    scheduler = begin(app, clock, {"a": {"task": "unit.a", "schedule": 5}}, SentStored, schedule_filename=path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        let_pass(scheduler, clock, 21)
        scheduler.sync()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert "Cannot store the schedule" in caplog.text
    assert scheduler.sent == ["unit.a"] * 4
    assert ScheduleFile(path).load()["entries"]["a"].total_run_count == 0
    scheduler.sync()
    assert ScheduleFile(path).load()["entries"]["a"].total_run_count == 4


def test_place_that_cannot_be_written(app: Celery, clock: Clock, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no directory"):
        begin(app, clock, {}, SentStored, schedule_filename=str(tmp_path / "no" / "schedule"))
    with pytest.raises(IsADirectoryError, match="is a directory"):
        begin(app, clock, {}, SentStored, schedule_filename=str(tmp_path))


def test_other_time_zone_begins_anew(app: Celery, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = str(tmp_path / "schedule")
    scheduler = begin(app, clock, {"a": {"task": "unit.a", "schedule": 5}}, SentStored, schedule_filename=path)
    scheduler.reserve(scheduler.schedule["a"])
    scheduler.close()
    app.conf.timezone = "Asia/Tokyo"
    again = begin(app, clock, {"a": {"task": "unit.a", "schedule": 5}}, SentStored, schedule_filename=path)
    assert again.schedule["a"].total_run_count == 0
    assert "Reset: tz changed from None to 'Asia/Tokyo'" in caplog.text


# --- service ----------------------------------------------------------------------------------------------------------


def test_service_in_a_thread(tmp_path: Path) -> None:
    app = Celery("beat", broker="memory://", set_as_current=False)
    app.conf.beat_schedule = {"a": {"task": "celery.accumulate", "schedule": 0.05}}
    begun = threading.Event()

    def on_init(sender: Any, **kwargs: Any) -> None:
        begun.set()

    signals.beat_init.connect(on_init)
    thread = EmbeddedService(app, thread=True, schedule_filename=str(tmp_path / "schedule"))
    assert thread.service.max_interval == 1
    thread.start()
    assert begun.wait(10)
    while thread.service.scheduler.schedule["a"].total_run_count < 3:
        assert thread.is_alive()
    thread.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert ScheduleFile(str(tmp_path / "schedule")).load()["entries"]["a"].total_run_count >= 3
    app.close()


def test_service_options(app: Celery, tmp_path: Path) -> None:
    service = Service(app, schedule_filename=str(tmp_path / "s"), max_interval=3)
    scheduler = service.get_scheduler(lazy=True)
    assert isinstance(scheduler, PersistentScheduler)
    assert (scheduler.max_interval, scheduler.schedule_filename, scheduler.schedule) == (3, str(tmp_path / "s"), {})
    again = pickle.loads(pickle.dumps(Service(Celery("x", set_as_current=False), max_interval=4)))
    assert again.max_interval == 4
    named = Service(app, scheduler_cls="pyceleryc.beat:Scheduler").get_scheduler(lazy=True)
    assert type(named) is Scheduler


def test_bell() -> None:
    bell = Bell()
    assert not bell.wait(0)
    for _ in range(100_000):
        bell.ring()
    assert bell.wait(5)
    bell.close()
