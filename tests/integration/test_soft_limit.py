"""A soft time limit that strikes when the task has ended already."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from embedding import embedded

from pyceleryc import Celery

QUIET = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
#: The core takes several times longer to write it than the limit allows.
LARGE = [1 / 3] * 500_000


@pytest.fixture
def app() -> Iterator[Celery]:
    made = Celery("soft", broker="memory://", backend="cache+memory://", set_as_current=False)
    yield made
    made.close()


@pytest.mark.parametrize("pool", ["prefork", "threads", "asyncio"])
def test_while_the_result_is_written(app: Celery, pool: str) -> None:
    """It is too late then: the task has succeeded, and its request is taken off the stack."""

    @app.task(soft_time_limit=0.03)
    def large() -> list[float]:
        return LARGE

    @app.task
    def left() -> list[int]:
        return [len(large.request_stack), os.getpid(), threading.get_ident()]

    with embedded(app, pool=pool, concurrency=1, **QUIET):
        before = left.delay().get(timeout=30)
        for _ in range(2):
            assert len(large.delay().get(timeout=60)) == len(LARGE)
            assert left.delay().get(timeout=30) == before
        assert before[0] == 0
