"""Waiting for results, in every store that tells of them: what is given up leaves nothing behind."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from pyceleryc import Celery, states
from pyceleryc.exceptions import TimeoutError

COUNT = 300
#: Bytes for each result, on average; one that is still watched takes 150.
LITTLE = 40


@pytest.fixture(params=["redis", "rpc", "sqlite", "memory"])
def app(request: pytest.FixtureRequest, tmp_path: Path, unique: Callable[[str], str]) -> Iterator[Celery]:
    if request.param == "redis":
        broker, backend = "memory://", request.getfixturevalue("redis_url")
    elif request.param == "rpc":
        broker, backend = request.getfixturevalue("amqp_url"), "rpc://"
    elif request.param == "sqlite":
        broker, backend = "memory://", f"sqlite:///{tmp_path}/results.db"
    else:
        broker, backend = "memory://", "cache+memory://"
    made = Celery("waiting", broker=broker, backend=backend, set_as_current=False)
    made.conf.update(task_default_queue=unique("waiting"), result_expires=60, result_cache_max=10)
    yield made
    made.amqp.producer.remove(made.conf.task_default_queue, 5.0)
    made.close()


def given_up(app: Celery) -> None:
    result = app.send_task("no.worker")
    with pytest.raises(TimeoutError):
        result.get(timeout=0)


def interrupted(app: Celery) -> None:
    result = app.send_task("no.worker")
    with pytest.raises(KeyboardInterrupt):
        result.get(timeout=5, interval=0.0001, on_interval=interrupt)


def interrupt() -> None:
    raise KeyboardInterrupt


def looked_at(app: Celery) -> None:
    result = app.send_task("no.worker")
    if app.conf.result_backend != "rpc://":  # where the client is not the one to store it
        app.backend.store_result(result.id, 1, states.SUCCESS)
        assert result.ready()
        app.backend.forget(result.id)
    else:
        assert not result.ready()


def group_given_up(app: Celery) -> None:
    results = app.ResultSet([app.send_task("no.worker")])
    with pytest.raises(TimeoutError):
        results.get(timeout=0)


def unknown(app: Celery) -> None:
    with pytest.raises(TimeoutError):
        app.GroupResult("g", [app.AsyncResult("unknown")]).get(timeout=0)
    with pytest.raises(TimeoutError):
        app.AsyncResult("also unknown").get(timeout=0)


@pytest.mark.parametrize("what", [given_up, interrupted, looked_at, group_given_up, unknown])
def test_nothing_is_left(app: Celery, what: Callable[[Celery], None]) -> None:
    def rounds() -> int:
        for _ in range(COUNT):
            what(app)
        app.control.purge()  # the messages, which a broker in memory keeps
        app.amqp.producer.flush(20.0)  # and what is kept until a broker has confirmed it
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    rounds()  # caches fill
    tracemalloc.start()
    try:
        sizes = [rounds() for _ in range(4)]
    finally:
        tracemalloc.stop()
    # a buffer may grow once, with what the broker is slow to take; what is left behind is left each time
    assert min(after - before for before, after in pairwise(sizes)) < COUNT * LITTLE, sizes


def test_waiting_again_after_a_timeout(app: Celery) -> None:
    """What was given up can be waited for again, and by others."""
    result = app.send_task("some.task")
    for _ in range(2):
        with pytest.raises(TimeoutError):
            result.get(timeout=0.01)
    request = type("Request", (), {"reply_to": app.backend.reply_to, "correlation_id": result.id})()
    app.backend.store_result(result.id, {}, "PROGRESS", request=request)
    app.backend.store_result(result.id, 3, states.SUCCESS, request=request)
    assert result.get(timeout=4) == 3
    assert app.AsyncResult(result.id).get(timeout=4) == 3
