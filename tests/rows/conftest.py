"""Tests of the guides' rows. They say `from celery import …` and run on both implementations:

- here, where `celery` is pyceleryc;
- on the real Celery (tests/soak/soak_rows_on_celery.py runs this folder in its environment with ROWS_IMPL=celery), so that
  each expectation is Celery's own behaviour, or stands in docs/DIFFERENCES.md.

The row's id is in the name of the test (test_t040_…) or in its docstring (T-040); tools/rows.py lists the rows without one.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from typing import Any

import pytest

IMPL = os.environ.get("ROWS_IMPL", "pyceleryc")
if IMPL == "pyceleryc":
    import pyceleryc

    pyceleryc.install_as_celery()

import brokers  # noqa: E402  after the alias
from fleet import Side, Worker  # noqa: E402

sys.path.insert(0, os.path.dirname(__file__))
from letterbox import Letterbox  # noqa: E402


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
def boxes(amqp_url: str) -> Iterator[Callable[..., Any]]:
    """Makes apps with settings, whose messages the test reads back; see letterbox.py."""
    made: list[Letterbox] = []

    def make(**settings: Any) -> Letterbox:
        made.append(Letterbox(amqp_url, **settings))
        return made[-1]

    yield make
    for box in made:
        box.close()


@pytest.fixture
def box(boxes: Callable[..., Any]) -> Any:
    """A Letterbox with Celery's defaults."""
    return boxes()


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
    node = f"{queue}@here"
    with side.worker(env, "-c", "2", "-n", node) as worker:
        import rows_tasks

        yield Running(worker, env, rows_tasks, queue, node)
    remove_queues(amqp_url, queue)


@pytest.fixture
def outbox(amqp_url: str) -> Iterator[Outbox]:
    """A queue that no worker reads, to look at raw messages."""
    box = Outbox(amqp_url)
    yield box
    remove_queues(amqp_url, box.queue, *box.more)


class Outbox:
    """`app()` makes an app whose tasks go to `queue`; `take()` returns the next message there (a kombu Message), `empty()`
    tells whether there is none. Other queues that are declared belong into `more`, to be deleted at the end."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.queue = f"outbox-{uuid.uuid4().hex[:12]}"
        self.more: list[str] = []

    def app(self, name: str | None = "outbox", **conf: Any) -> Any:
        from celery import Celery

        app = Celery(name, broker=self.url, set_as_current=False, **conf)
        app.conf.task_default_queue = self.queue
        return app

    def take(self, queue: str | None = None, timeout: float = 30) -> Any:
        from kombu import Connection

        deadline = time.monotonic() + timeout
        with Connection(self.url) as connection:
            while (message := _get(connection, queue or self.queue)) is None:
                assert time.monotonic() < deadline, f"nothing in {queue or self.queue}"
                time.sleep(0.02)
            return message

    def empty(self) -> bool:
        """Mind that what was sent just now may be on its way: send a last message and take() all before it."""
        from kombu import Connection

        with Connection(self.url) as connection:
            return connection.default_channel.queue_declare(self.queue, durable=True, auto_delete=False).message_count == 0


def _get(connection: Any, queue: str) -> Any:
    """A message of the queue; None also if there is no such queue yet."""
    from kombu import Queue

    with connection.channel() as channel:
        try:
            return Queue(queue, channel=channel).get(no_ack=True)
        except connection.channel_errors:
            return None


class Running:
    """The shared worker, its environment, the module with its tasks, its queue and node name."""

    def __init__(self, worker: Worker, env: dict[str, str], tasks: object, queue: str, node: str) -> None:
        self.worker = worker
        self.env = env
        self.tasks = tasks
        self.queue = queue
        self.node = node


@pytest.fixture(scope="session")
def formats(side: Side, amqp_url: str, redis_url: str) -> Iterator[Running]:
    """A worker (threads pool, two queues) on the tasks of rows_formats.py, which accepts all serializers."""
    queue = f"formats-{uuid.uuid4().hex[:10]}"
    env = side.env(amqp_url, redis_url, queue, FLEET_APP="rows_formats",
                   PYTHONPATH=os.pathsep.join([os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]))
    before = {name: os.environ.get(name) for name in env if name.startswith("FLEET_")}
    os.environ.update({name: env[name] for name in before})
    import rows_formats

    for name, value in before.items():  # the shared worker's tasks may be imported later
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    with side.worker(env, "-c", "2", "-Q", f"{queue},{queue}.high") as worker:
        yield Running(worker, env, rows_formats, queue, "")
    remove_queues(amqp_url, queue, f"{queue}.high")
