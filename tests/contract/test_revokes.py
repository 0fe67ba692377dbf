"""One body of tests for every place that keeps revoked ids (setting `worker_durable_revokes`)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyceleryc import Celery
from pyceleryc.backends import revokes
from pyceleryc.backends.database.revokes import TableRevokes
from pyceleryc.backends.revokes import durable_revokes
from pyceleryc.exceptions import ImproperlyConfigured

Urls = tuple[str, str]


def _urls(place: str, request: pytest.FixtureRequest, tmp_path: Path) -> Urls:
    """(broker, result store)"""
    if place == "redis store":
        return "memory://", request.getfixturevalue("redis_url")
    if place == "redis broker":
        return request.getfixturevalue("redis_url"), "cache+memory://"
    if place == "sqlite store":
        return "memory://", f"sqlite:///{tmp_path}/results.db"
    if place == "sqlite broker":
        return f"sqlite:///{tmp_path}/broker.db", "cache+memory://"
    if place == "sqlalchemy sqlite":
        return "memory://", f"db+sqlite:///{tmp_path}/db.db"
    return "memory://", "db+postgresql+psycopg2://" + request.getfixturevalue("postgresql_url").partition("://")[2]


@pytest.fixture(params=["redis store", "redis broker", "sqlite store", "sqlite broker", "sqlalchemy sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path, unique: Callable[[str], str],
         monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    broker, backend = _urls(request.param, request, tmp_path)
    key = unique("revoked")  # the server is shared
    monkeypatch.setattr(revokes, "KEY", key)
    apps: list[Celery] = []

    def new() -> Any:
        app = Celery("revokes", broker=broker, backend=backend, set_as_current=False)
        app.conf.worker_durable_revokes = True
        apps.append(app)
        store = durable_revokes(app)
        if isinstance(store, revokes.RedisRevokes):
            store.key = key
        return store

    yield new
    store = new()
    if isinstance(store, TableRevokes):
        store.base.metadata.drop_all(store.backend._engine())
    if isinstance(store, revokes.RedisRevokes):
        with Celery("revokes", broker=request.getfixturevalue("redis_url"), set_as_current=False).connection() as connection:
            connection.default_channel.client.delete(key)
    for app in apps:
        app.close()


def test_ids_come_back_in_order(make: Callable[[], Any]) -> None:
    assert make().load() == []
    store = make()
    store.add(["b"], 50.0)
    store.add(["c"], 60.0)
    store.add(["a"], 55.0)
    assert make().load() == ["b", "a", "c"], "the one that is forgotten first is the oldest"


def test_an_id_is_kept_once_and_renewed(make: Callable[[], Any]) -> None:
    store = make()
    store.add(["a", "b"], 50.0)
    store.add(["a", "a"], 60.0)
    assert store.load() == ["b", "a"]


def test_ids_are_forgotten(make: Callable[[], Any]) -> None:
    store = make()
    store.add(["long"], 60.0)
    store.add(["short"], 0.01)
    time.sleep(0.05)
    assert store.load() == ["long"]
    store.add(["other"], 50.0)  # cleans up
    assert store.load() == ["other", "long"]


def test_many(make: Callable[[], Any]) -> None:
    ids = [f"id-{number:05}" for number in range(2500)]
    store = make()
    store.add(ids, 50.0)
    assert sorted(store.load()) == ids


def test_several_at_once(make: Callable[[], Any]) -> None:
    """All workers may write the same id at the same moment."""
    ids = [f"id-{number}" for number in range(20)]
    stores = [make() for _ in range(4)]
    failures: list[BaseException] = []

    def write(store: Any) -> None:
        try:
            store.add(ids, 50.0)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=write, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sorted(stores[0].load()) == sorted(ids)


def test_prefix_of_the_broker(redis_url: str, unique: Callable[[str], str]) -> None:
    prefix = unique("prefix")
    app = Celery("revokes", broker=redis_url, backend="cache+memory://", set_as_current=False)
    app.conf.update(worker_durable_revokes=True, broker_transport_options={"global_keyprefix": prefix})
    store: Any = durable_revokes(app)
    store.add(["a"], 50.0)
    assert store.load() == ["a"]
    with Celery("revokes", broker=redis_url, set_as_current=False).connection() as connection:
        assert connection.default_channel.client.delete(f"{prefix}pyceleryc-revoked") == 1, "it has the prefix once"
    app.close()


def test_off() -> None:
    assert durable_revokes(Celery("revokes", broker="memory://", set_as_current=False)) is None


@pytest.mark.parametrize(("broker", "backend"), [("memory://", "cache+memory://"), ("amqp://", "rpc://"), ("amqp://", None)])
def test_nobody_can_keep_them(broker: str, backend: str | None) -> None:
    app = Celery("revokes", broker=broker, backend=backend, set_as_current=False)
    app.conf.worker_durable_revokes = True
    with pytest.raises(ImproperlyConfigured, match="neither the result store .* nor the broker .* can keep revoked ids"):
        durable_revokes(app)


@pytest.mark.parametrize("expires", [0, -1.5])
def test_no_time_to_keep_them(expires: float) -> None:
    app = Celery("revokes", broker="redis://", backend="redis://", set_as_current=False)
    app.conf.update(worker_durable_revokes=True, worker_durable_revokes_expires=expires)
    with pytest.raises(ImproperlyConfigured, match="worker_durable_revokes_expires is"):
        durable_revokes(app)
