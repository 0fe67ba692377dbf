"""Tasks guide, the result stores that it names: databases, memcached, files (T-206, T-214, T-216)."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import remove_queues
from celery import Celery

import stores

STORES = ("database", "memcached", "file")


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    directory = tmp_path_factory.mktemp("stores")
    (directory / "files").mkdir()
    with stores.private_memcached() as memcached:
        yield {"database": f"db+sqlite:///{directory}/results.db", "memcached": memcached.url, "file": f"file://{directory}/files"}


@pytest.fixture(scope="module")
def send(side: Any, amqp_url: str, urls: dict[str, str]) -> Iterator[Any]:
    """Sends a task of store_tasks.py to a worker that has all the stores; returns its result."""
    queue = f"stores-{uuid.uuid4().hex[:10]}"
    here = os.path.dirname(__file__)
    env = side.env(amqp_url, None, queue, FLEET_APP="store_tasks", FLEET_STORES=json.dumps(urls),
                   PYTHONPATH=os.pathsep.join([here, os.path.dirname(here)]))
    apps = {name: Celery("client", broker=amqp_url, backend=url, set_as_current=False, task_default_queue=queue, result_extended=True)
            for name, url in urls.items()}
    with side.worker(env, "-c", "2"):
        yield lambda store, task, *args: apps[store].send_task(f"{store}.{task}", args, ignore_result=False)
    remove_queues(amqp_url, queue)


@pytest.mark.parametrize("store", STORES)
def test_t206_success(send: Any, store: str) -> None:
    result = send(store, "add", 2, 3)
    assert result.get(timeout=20, interval=0.05) == 5
    assert (result.state, result.name, result.args, result.traceback) == ("SUCCESS", f"{store}.add", [2, 3], None)
    assert result.date_done is not None


@pytest.mark.parametrize("store", STORES)
def test_t206_failure(send: Any, store: str) -> None:
    result = send(store, "fail")
    with pytest.raises(KeyError) as caught:
        result.get(timeout=20, interval=0.05)
    assert caught.value.args == ("lost", 3)
    assert result.state == "FAILURE" and 'raise KeyError("lost", 3)' in result.traceback


@pytest.mark.parametrize("store", STORES)
def test_t206_own_state(send: Any, store: str) -> None:
    assert send(store, "track").get(timeout=20, interval=0.05) == "PROGRESS"


@pytest.mark.parametrize("store", STORES)
def test_t216_forget(send: Any, store: str) -> None:
    result = send(store, "add", 1, 1)
    assert result.get(timeout=20, interval=0.05) == 2
    result.forget()
    assert result.state == "PENDING"


@pytest.mark.parametrize("store", STORES)
def test_t206_groups(urls: dict[str, str], store: str) -> None:
    app = Celery("groups", broker="memory://", backend=urls[store], set_as_current=False)
    group = app.GroupResult("saved", [app.AsyncResult("a"), app.AsyncResult("b")])
    group.save()
    assert app.GroupResult.restore("saved").results == group.results
    group.delete()
    assert app.GroupResult.restore("saved") is None


def test_t206_file_per_result(urls: dict[str, str]) -> None:
    app = Celery("files", broker="memory://", backend=urls["file"], set_as_current=False)
    app.backend.store_result("one", {"a": 1}, "SUCCESS")
    document = json.loads(Path(urls["file"].removeprefix("file://"), "celery-task-meta-one").read_text())
    assert (document["status"], document["result"], document["task_id"]) == ("SUCCESS", {"a": 1}, "one")


@pytest.mark.parametrize("url", ["file:///no/such/directory", "db+nonsense://host"])
def test_t206_bad_url(url: str) -> None:
    with pytest.raises(Exception, match="path|plugin|dialect"):
        Celery("bad", broker="memory://", backend=url, set_as_current=False).backend.get_state("x")
