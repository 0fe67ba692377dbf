"""Workers inside the test process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyceleryc import Celery
from pyceleryc.worker.worker import WorkController


@contextmanager
def embedded(app: Celery, **options: Any) -> Iterator[WorkController]:
    """A worker in a thread, ready; stopped at the end."""
    ready = threading.Event()
    worker = WorkController(app, ready_callback=lambda _: ready.set(), **options)
    thread = threading.Thread(target=worker.start)
    thread.start()
    try:
        assert ready.wait(30)
        yield worker
    finally:
        worker.stop()
        thread.join(30)
        assert not thread.is_alive()


def take_names(app: Celery, queue: str) -> None:
    """Whatever the app declares in the broker has names that begin with that of its queue."""
    app.conf.update(task_default_queue=queue, control_exchange=f"{queue}-control", event_exchange=f"{queue}-events")


def remove_names(url: str, queue: str, *more: str) -> None:
    """Delete the queues, and the exchanges of apps and workers with the names of take_names()."""
    app = Celery(broker=url, set_as_current=False)
    for name in (queue, *more):
        app.amqp.producer.remove(name, 5.0)
    with app.connection_for_write() as connection:
        if connection.transport.driver_type == "amqp":
            for name in (queue, f"{queue}-events", f"{queue}-control.pidbox", f"reply.{queue}-control.pidbox"):
                connection.default_channel.exchange_delete(name)
    app.close()
