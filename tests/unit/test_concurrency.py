"""The pools by name, and what steps know as ``worker.pool``."""

from __future__ import annotations

import os

import pytest

from pyceleryc import Celery, concurrency
from pyceleryc.concurrency import asyncio as event_loop
from pyceleryc.concurrency import prefork, solo, thread
from pyceleryc.exceptions import ImproperlyConfigured
from pyceleryc.worker import WorkController


@pytest.mark.parametrize(("name", "cls"), [
    ("prefork", prefork.TaskPool), ("processes", prefork.TaskPool), ("solo", solo.TaskPool), ("threads", thread.TaskPool),
    ("asyncio", event_loop.TaskPool),
    ("celery.concurrency.thread:TaskPool", thread.TaskPool), ("pyceleryc.concurrency.solo:TaskPool", solo.TaskPool), (solo.TaskPool, solo.TaskPool)])
def test_names(name: object, cls: type) -> None:
    assert concurrency.get_implementation(name) is cls
    assert cls.task_join_will_block and not cls.is_green  # type: ignore[attr-defined]


def test_available_names() -> None:
    assert set(concurrency.get_available_pool_names()) == {"asyncio", "prefork", "processes", "solo", "threads"}


@pytest.mark.parametrize(("name", "advice"), [("gevent", "use threads"), ("custom", "cannot replace it"), ("no-such", "choose one of asyncio, prefork, processes")])
def test_other_names(name: str, advice: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=advice):
        concurrency.get_implementation(name)


def test_pool_of_a_worker() -> None:
    app = Celery("pools", broker="memory://", set_as_current=False)
    worker = WorkController(app, pool="threads", concurrency=3)
    assert type(worker.pool) is thread.TaskPool and worker.pool.limit == 3
    with pytest.raises(RuntimeError, match="not there yet"):
        worker.pool.grow()
    app.close()


@pytest.mark.parametrize(("pool", "wanted", "setting", "limit"), [
    ("asyncio", None, None, 100), ("asyncio", 7, 5, 7), ("asyncio", None, 5, 5), ("solo", 7, 5, 1), ("threads", None, 5, 5),
    ("prefork", None, None, os.cpu_count())])
def test_limit(pool: str, wanted: int | None, setting: int | None, limit: int) -> None:
    app = Celery("pools", broker="memory://", set_as_current=False)
    app.conf.worker_concurrency = setting
    worker = WorkController(app, pool=pool, concurrency=wanted)
    assert worker.concurrency == worker.pool.limit == limit
    app.close()
