"""Leases of beats, on every broker that keeps one: who gets it, what the next one finds, and when it is over."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyceleryc import Celery
from pyceleryc._beat_lease import FileLease, Leader, Lease, find_lease
from pyceleryc.beat import Scheduler
from relay import Relay

BROKERS = ["amqp", "redis", "redis with a prefix", "sqlite"]
SECONDS = 2.0


class Hosts:
    """Beats on the same broker, each with an app and a lease of its own."""

    def __init__(self, url: str, name: str, options: dict[str, Any]) -> None:
        self.url, self.name, self.options = url, name, options
        self.made: list[Lease] = []

    def lease(self, url: str | None = None) -> Lease:
        app = Celery(broker=url or self.url, set_as_current=False)
        app.conf.update(beat_lease=self.name, beat_lease_timeout=SECONDS, broker_transport_options=self.options)
        lease = find_lease(app)
        assert lease is not None
        self.made.append(lease)
        return lease


@pytest.fixture
def hosts(request: pytest.FixtureRequest, tmp_path: Path, unique: Callable[[str], str]) -> Iterator[Hosts]:
    kind = request.param
    url = f"sqlite:///{tmp_path}/tasks.db" if kind == "sqlite" else request.getfixturevalue(f"{kind.split()[0]}_url")
    options = {"global_keyprefix": unique("prefix")} if "prefix" in kind else {}
    hosts = Hosts(url, unique("lease"), options)
    yield hosts
    for lease in hosts.made:
        lease.release()
    with Celery(broker=hosts.url, set_as_current=False).connection_for_write() as connection:
        if kind == "amqp":
            connection.default_channel.queue_delete(f"pyceleryc.beat.{hosts.name}.runs")
        elif kind != "sqlite":
            lock = f"{options.get('global_keyprefix', '')}pyceleryc:beat:{hosts.name}"
            assert connection.default_channel.client.delete(lock) == 0  # given back
            connection.default_channel.client.delete(f"{lock}:runs")


every_broker = pytest.mark.parametrize("hosts", BROKERS, indirect=True)


@every_broker
def test_one_has_it_and_the_next_finds_what_it_saved(hosts: Hosts) -> None:
    first, second = hosts.lease(), hosts.lease()
    assert first.acquire()
    assert not second.acquire()
    assert first.load() == {}
    for when in ("2024-03-20T12:00:00+00:00", "2024-03-20T12:00:01.500000+00:00"):
        assert first.save({"every second": when})
    assert first.renew()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    assert second.load() == {"every second": "2024-03-20T12:00:01.500000+00:00"}
    assert not first.acquire()


@every_broker
def test_who_saves_keeps_it(hosts: Hosts) -> None:
    leader, other = Leader(hosts.lease()), hosts.lease()
    scheduler = beat_of(hosts)
    assert leader.lead(scheduler)
    for _ in range(3):
        scheduler.reserve(scheduler.schedule["often"])
        leader.note(scheduler)
        assert leader.leads
        assert not other.acquire()
    leader.end()
    assert other.acquire()
    assert list(other.load()) == ["often"]


def beat_of(hosts: Hosts) -> Scheduler:
    app = Celery(broker=hosts.url, set_as_current=False)
    app.conf.update(result_expires=None, beat_schedule={"often": {"task": "often", "schedule": 1.0}})
    return Scheduler(app)


@pytest.mark.parametrize("hosts", ["amqp", "redis"], indirect=True)
def test_it_ends_with_its_time_and_not_before(hosts: Hosts) -> None:
    """A host that is silent: with RabbitMQ two to three heartbeats."""
    first, second = hosts.lease(), hosts.lease()
    assert first.acquire()
    begin = time.monotonic()
    while not second.acquire():
        assert time.monotonic() - begin < 30
        time.sleep(0.05)
    assert time.monotonic() - begin > first.seconds - 0.2
    assert second.save({"a": "2024-03-20T12:00:00+00:00"})
    for question in (first.renew, lambda: first.save({"a": "2000-01-01T00:00:00+00:00"}), first.renew):
        assert refused(question)
    assert second.load() == {"a": "2024-03-20T12:00:00+00:00"}


def refused(question: Callable[[], bool]) -> bool:
    try:
        return not question()
    except Exception:  # what the client of this broker raises when its connection is gone
        return True


@pytest.mark.parametrize("hosts", ["amqp", "redis"], indirect=True)
def test_a_broker_that_is_silent_does_not_stop_beat(hosts: Hosts) -> None:
    relay = Relay(hosts.url)
    relay.open()
    leader = Leader(hosts.lease(relay.url))
    scheduler = beat_of(hosts)
    try:
        assert leader.lead(scheduler)
        relay.silence()
        begin = time.monotonic()
        assert not leader.confirm()
        assert not leader.leads
        assert time.monotonic() - begin < 10 * SECONDS
        relay.speak()
        deadline = time.monotonic() + 30
        while not leader.lead(scheduler):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert leader.confirm()
    finally:
        leader.end()
        relay.cut()


@pytest.mark.parametrize("hosts", ["amqp"], indirect=True)
def test_it_ends_with_its_connection(hosts: Hosts) -> None:
    """Nothing may be sent then, though the lease was renewed a moment ago: another beat may have it."""
    relay = Relay(hosts.url)
    relay.open()
    leader, other = Leader(hosts.lease(relay.url)), hosts.lease()
    scheduler = beat_of(hosts)
    try:
        assert leader.lead(scheduler)
        relay.cut()
        relay.open()
        deadline = time.monotonic() + 30
        while not other.acquire():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not leader.confirm()
        assert not leader.lead(scheduler)
    finally:
        leader.end()
        relay.cut()


def test_a_file_that_was_removed_is_no_lease(tmp_path: Path) -> None:
    path = str(tmp_path / "lease")
    first, second = FileLease(path, SECONDS), FileLease(path, SECONDS)
    assert first.acquire()
    os.unlink(path)
    assert second.acquire()
    leader = Leader(first)
    assert not leader.confirm()
    assert not first.save({"a": "2024-03-20T12:00:00+00:00"})
    assert second.load() == {}
    for lease in (first, second):
        lease.release()
