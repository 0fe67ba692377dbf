"""Tasks that end their process by sys.exit()."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import pytest
from embedding import embedded
from relay import Relay

from pyceleryc import Celery
from pyceleryc.exceptions import WorkerLostError

QUIET = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}


@pytest.fixture
def relay(amqp_url: str) -> Iterator[Relay]:
    made = Relay(amqp_url)
    made.open()
    yield made
    made.cut()


def test_what_it_has_published_is_confirmed_first(relay: Relay, unique: Callable[[str], str]) -> None:
    """The kernel resets the connection of a process that ends with answers unread, and the broker may lose what it has not read."""
    app = Celery("exits", backend="cache+memory://", set_as_current=False)
    queue = unique("exits")
    app.conf.update(broker_read_url=relay.direct, broker_write_url=relay.url, task_default_queue=queue,
                    worker_enable_remote_control=False)

    @app.task
    def other() -> None:
        """Never run: nobody consumes where it goes."""

    @app.task
    def publish(times: int, leave: bool) -> None:
        for _ in range(times):
            other.apply_async(queue=f"{queue}-sink")
        if leave:
            sys.exit(0)

    producer = app.amqp.producer
    try:
        with embedded(app, pool="prefork", concurrency=1, **QUIET):
            publish.delay(1, False).get(timeout=30)  # it has a connection now
            producer.flush(10.0)
            relay.silence()
            result = publish.delay(5, True)
            time.sleep(1.5)
            assert result.state == "PENDING"  # it has not ended
            relay.speak()
            with pytest.raises(WorkerLostError):
                result.get(timeout=30)
            assert producer.size(f"{queue}-sink", 10.0)[0] == 6
    finally:
        relay.speak()
        for name in (queue, f"{queue}-sink"):
            producer.remove(name, 10.0)
        app.close()
