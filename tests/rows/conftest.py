"""Tests of the guides' rows. They say `from celery import …` and run on both implementations:

- here, where `celery` is pyceleryc;
- on the real Celery (tests/compat/test_rows_on_celery.py runs this folder in its environment with ROWS_IMPL=celery), so that
  each expectation is Celery's own behaviour, or stands in docs/DIFFERENCES.md.

The row's id is in the name of the test (test_t040_…) or in its docstring (T-040); tools/rows.py lists the rows without one.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

IMPL = os.environ.get("ROWS_IMPL", "pyceleryc")
if IMPL == "pyceleryc":
    import pyceleryc

    pyceleryc.install_as_celery()

import brokers  # noqa: E402  after the alias
from fleet import Side, Worker  # noqa: E402


@pytest.fixture(scope="session")
def impl() -> str:
    """pyceleryc or celery: for the rows where an erratum decides against Celery."""
    return IMPL


@pytest.fixture(scope="session")
def side() -> Side:
    return Side(IMPL, sys.executable)


@pytest.fixture(scope="session")
def amqp_url() -> Iterator[str]:
    with brokers.amqp_server() as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with brokers.redis_server() as url:
        yield url


@pytest.fixture
def unique() -> Callable[[str], str]:
    return lambda prefix="row": f"{prefix}-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def outboxes(amqp_url: str) -> Iterator[Callable[..., Any]]:
    """Makes apps with settings, whose messages the test reads back; see outbox.py."""
    from outbox import Outbox

    made: list[Outbox] = []

    def make(**settings: Any) -> Outbox:
        made.append(Outbox(amqp_url, **settings))
        return made[-1]

    yield make
    for box in made:
        box.close()


@pytest.fixture
def box(outboxes: Callable[..., Any]) -> Any:
    """An Outbox with Celery's defaults."""
    return outboxes()


def remove_queues(amqp_url: str, *names: str) -> None:
    from kombu import Connection

    with Connection(amqp_url) as connection:
        for name in names:
            connection.default_channel.queue_delete(name)


@pytest.fixture(scope="session")
def running(side: Side, amqp_url: str, redis_url: str) -> Iterator[Running]:
    """One worker (prefork, two children, RabbitMQ, Redis results, -l DEBUG) on the tasks of rows_tasks.py, for all rows
    that only need a worker. Rows that need one of their own use side.worker()."""
    queue = f"rows-{uuid.uuid4().hex[:10]}"
    env = side.env(amqp_url, redis_url, queue, FLEET_APP="rows_tasks", FLEET_LOGLEVEL="DEBUG",
                   PYTHONPATH=os.pathsep.join([os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]))
    os.environ.update({name: env[name] for name in env if name.startswith("FLEET_")})
    sys.path.insert(0, os.path.dirname(__file__))
    with side.worker(env) as worker:
        import rows_tasks

        yield Running(worker, env, rows_tasks, queue)
    remove_queues(amqp_url, queue)


class Running:
    """The shared worker, its environment, the module with its tasks, its queue."""

    def __init__(self, worker: Worker, env: dict[str, str], tasks: object, queue: str) -> None:
        self.worker = worker
        self.env = env
        self.tasks = tasks
        self.queue = queue
