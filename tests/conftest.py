"""Fixtures of all tests: servers, unique names, and a time limit for every test."""

from __future__ import annotations

import gc
import os
import signal
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType

import pytest

import brokers
import commands
import fleet
import stores

DESCRIPTORS = 80  # that a file's tests may leave open: of servers for the whole session, and of kombu's engines for SQLAlchemy
LIMIT = 60  # seconds a test may take, set-up aside; @pytest.mark.limit(n) changes it


@pytest.fixture(scope="session")
def amqp_url() -> Iterator[str]:
    """A RabbitMQ that others may use too: take unique names and delete what you declare."""
    with brokers.amqp_server() as url:
        yield url


@pytest.fixture(scope="session")
def breakable_rabbitmq() -> Iterator[brokers.PrivateRabbitMQ]:
    """A RabbitMQ that tests may kill, stop or pause; each leaves it running. Names in it are unique, too."""
    with brokers.private_rabbitmq() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis that others may use too: take unique keys and delete them."""
    with brokers.redis_server() as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """An empty database in PostgreSQL, as an URL of SQLAlchemy."""
    with stores.postgresql_database() as url:
        yield url


@pytest.fixture(scope="session")
def memcached_url() -> Iterator[str]:
    """A memcached that nobody else uses, as an URL of a result store."""
    with stores.private_memcached() as server:
        yield server.url


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """An empty file in which tasks note their runs: tests/marks.py."""
    path = tmp_path / "marks"
    path.touch()
    return path


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Makes names that nobody has used: unique("queue") -> "queue-3f9a61c2e07b"."""

    def name(prefix: str = "test") -> str:
        return f"{prefix}-{uuid.uuid4().hex[:12]}"

    return name


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="module", autouse=True)
def no_descriptors_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a file whose tests leave many descriptors open, before select() or the limit of the process does elsewhere."""
    before = descriptors()
    yield
    if descriptors() > before + DESCRIPTORS:
        gc.collect()
        left = descriptors() - before
        assert left <= DESCRIPTORS, f"the tests of {request.node.name} leave {left} descriptors open"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fails a test that runs longer than its limit, so that one that hangs does not stop all."""
    marker = item.get_closest_marker("limit")
    seconds = marker.args[0] if marker else LIMIT

    def give_up(signum: int, frame: FrameType | None) -> None:
        pytest.fail(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what the processes that run then have said."""
    report = yield
    if report.failed:
        for process in (*fleet.Worker.running, *commands.Command.running):
            report.sections.append((f"log of process {process.process.pid}", process.text()[-fleet.LOG_SHOWN:]))
    return report
