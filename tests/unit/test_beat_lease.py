"""Which of several beats sends: what the answers about the lease mean, and that nothing is sent without one. Time is passed in."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pyceleryc import Celery
from pyceleryc._beat_lease import FileLease, Leader
from pyceleryc.beat import Scheduler

SECONDS = 30.0


class SlowLease(FileLease):
    """One whose broker answers after a while, or whose asker stood still meanwhile."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), SECONDS)
        self.mono, self.takes, self.asked = 1000.0, 0.0, 0

    def renew(self) -> bool:
        self.asked += 1
        self.mono += self.takes
        return super().renew()


class Sent(Scheduler):
    """Writes down what it would send."""

    sent: list[str]

    def __init__(self, app: Celery) -> None:
        self.sent = []
        super().__init__(app)

    def send_task(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self.sent.append(name)


@pytest.fixture
def scheduler(tmp_path: Path) -> Sent:
    app = Celery("beat", broker=f"sqlite:///{tmp_path}/tasks.db", set_as_current=False)
    app.conf.update(beat_schedule={"often": {"task": "often", "schedule": 0.001}}, result_expires=None)
    return Sent(app)


@pytest.fixture
def lease(tmp_path: Path) -> SlowLease:
    return SlowLease(tmp_path / "lease")


@pytest.fixture
def leader(lease: SlowLease) -> Leader:
    return Leader(lease, lambda: lease.mono)


def test_an_answer_that_took_too_long_is_none(leader: Leader, lease: SlowLease, scheduler: Sent,
                                              caplog: pytest.LogCaptureFixture) -> None:
    """The process was stopped while it waited: what it reads now was true long ago."""
    assert leader.lead(scheduler)
    lease.takes = SECONDS - 1
    assert leader.confirm()
    lease.takes = SECONDS
    assert not leader.confirm()
    assert not leader.leads
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "beat: Standing by: the answer about the lease came too late"]
    assert not leader.lead(scheduler)  # nor is it taken over so late
    lease.takes = 0
    assert leader.lead(scheduler)


def test_it_is_renewed_from_time_to_time(leader: Leader, lease: SlowLease, scheduler: Sent) -> None:
    assert leader.lead(scheduler)
    asked = lease.asked
    lease.mono += leader.pause - 1
    assert leader.lead(scheduler)
    assert lease.asked == asked
    lease.mono += 2
    assert leader.lead(scheduler)
    assert lease.asked == asked + 1


def tick(scheduler: Sent) -> None:
    """Until its task was due."""
    while scheduler.tick() != 0:
        time.sleep(0.001)


def test_nothing_is_sent_when_the_lease_has_ended_since_the_last_look(
        leader: Leader, lease: SlowLease, scheduler: Sent, tmp_path: Path) -> None:
    """It was renewed a moment ago, but the broker has given it to another one."""
    scheduler.may_send = leader.confirm
    assert leader.lead(scheduler)
    tick(scheduler)
    leader.note(scheduler)
    assert scheduler.sent == ["often"]
    os.unlink(lease.path)
    other = FileLease(lease.path, SECONDS)
    assert other.acquire()
    last = scheduler.schedule["often"].last_run_at
    assert leader.lead(scheduler)  # as far as it knows
    tick(scheduler)
    leader.note(scheduler)
    assert scheduler.sent == ["often"]
    assert scheduler.schedule["often"].last_run_at == last
    assert not leader.lead(scheduler)
    assert other.load() == {}  # nothing was noted there
    other.release()
    assert leader.lead(scheduler)
    tick(scheduler)
    assert scheduler.sent == ["often", "often"]
