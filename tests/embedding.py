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
