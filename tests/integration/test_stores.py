"""Result stores that are wrong, missing or down: clear errors, no secrets in them, nothing lost (T-206)."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from kombu.exceptions import EncodeError, OperationalError

import brokers
import stores
from fleet import Worker, ours
from pyceleryc.app.base import Celery
from pyceleryc.backends.database import DatabaseBackend, session_cleanup
from pyceleryc.backends.memcached import MemcachedBackend
from pyceleryc.exceptions import BackendGetMetaError, BackendStoreError, ImproperlyConfigured, NotRegistered, TimeLimitExceeded

HASTY = {"retry_policy": {"max_retries": 2, "interval_start": 0, "interval_step": 0.01}}


def make_app(url: str | None, **settings: Any) -> Celery:
    settings = {"result_backend_transport_options": HASTY, **settings}
    return Celery("t", broker="memory://", backend=url, set_as_current=False, **settings)


# --- configuration ---


@pytest.mark.parametrize(("url", "complaint"), [
    ("db+", "Unknown result backend"), ("db+sqlite", "Unknown result backend"), ("database", "Missing connection string"), ("db://", "Missing connection"),
    ("db+nonsense://u:s3cret@x/y", "nonsense://u:[*]+@x/y .*cannot be used"), ("db+postgresql+nodriver://h/d", "cannot be used"),
    ("db+oracle+oracledb://h/d", "driver.*oracledb.*install it"),
])
def test_bad_database_url(url: str, complaint: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=complaint) as caught:
        _ = make_app(url).backend
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("options", [{"nonsense": 1}, {"connect_args": {"nonsense": 1}}])
def test_bad_engine_options(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfigured, match="database_engine_options cannot be used.*nonsense"):
        _ = make_app(f"db+sqlite:///{tmp_path}/x.db", database_engine_options=options).backend


def test_keys_of_azure_are_not_shown() -> None:
    app = make_app("azureblockblob://DefaultEndpointsProtocol=http;AccountName=d;AccountKey=s3cret==;BlobEndpoint=http://127.0.0.1/d;")
    report = app.bugreport()
    assert "AccountName=d" in report and "s3cret" not in report


@pytest.mark.parametrize("name", ["elasticsearch://h", "cassandra://", "arangodb://h"])
def test_stores_that_are_not_here(name: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r'not part of pyceleryc.*package\.module:Class.*celery\.result_backends'):
        _ = make_app(name).backend


def test_a_store_that_is_not_here_may_come_from_elsewhere() -> None:
    app = make_app("arangodb://h/d")
    app.loader.override_backends = {"arangodb": "pyceleryc.backends.base:DisabledBackend"}
    assert app.backend.as_uri() == "disabled://"


@pytest.mark.parametrize(("module", "url", "extra"), [
    ("sqlalchemy", "db+sqlite:///x.db", "sqlalchemy"), ("pymemcache", "cache+memcached://h/", "pymemcache"),
    ("pymongo", "mongodb://h/d", "mongodb"), ("requests", "couchdb://h/d", "couchdb"),
    ("google.cloud.storage", "gs://b?gcs_project=p", "gcs"),
])
def test_missing_library(module: str, url: str, extra: str) -> None:
    code = f"""
import sys
sys.modules.update({{{module!r}: None, "pylibmc": None}})
from pyceleryc import Celery
Celery(backend={url!r}).backend
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "ImproperlyConfigured: " in done.stderr and f"pip install 'pyceleryc[{extra}]'" in done.stderr


@pytest.mark.parametrize("url", ["file:///no/such/directory", "file://relative", "file://", "filesystem:///x"])
def test_bad_directory(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="file:///absolute/path"):
        _ = make_app(url).backend


def test_settings_of_the_database(tmp_path: Path) -> None:
    made: list[Any] = []
    app = make_app(
        "database", database_url=f"sqlite:///{tmp_path}/x.db", database_table_names={"task": "my_tasks", "group": "my_groups"},
        database_engine_options={"echo": False, "pool_recycle": 60}, database_short_lived_sessions=True, database_engine_callback=made.append)
    app.backend.store_result("a", 1, "SUCCESS")
    app.GroupResult("g", []).save()
    assert isinstance(app.backend, DatabaseBackend) and app.backend.as_uri() == f"sqlite:///{tmp_path}/x.db"
    (engine,) = made
    assert type(engine.pool).__name__ == "NullPool"
    assert set(sa.inspect(engine).get_table_names()) >= {"my_tasks", "my_groups"}
    session = app.backend.ResultSession()
    with session_cleanup(session):  # as others read it
        (row,) = session.scalars(sa.select(app.backend.task_cls)).all()
        assert app.backend.meta_from_decoded(row.to_dict())["result"] == 1


def test_schemas_of_the_database(postgresql_url: str) -> None:
    schema = f"s{uuid.uuid4().hex[:8]}"
    engine = sa.create_engine(postgresql_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text(f"create schema {schema}"))
    app = make_app(f"db+{postgresql_url}", database_table_schemas={"task": schema, "group": schema})
    app.backend.store_result("a", 1, "SUCCESS")
    assert app.AsyncResult("a").get(timeout=30) == 1
    assert sorted(sa.inspect(engine).get_table_names(schema)) == ["celery_taskmeta", "celery_tasksetmeta"]


def test_cache_backend_setting(memcached_url: str) -> None:
    app = make_app("cache", cache_backend=memcached_url.removeprefix("cache+"), cache_backend_options={})
    assert isinstance(app.backend, MemcachedBackend) and app.backend.as_uri() == memcached_url
    with pytest.raises(ImproperlyConfigured, match="Unknown cache backend: abacus"):
        _ = make_app("cache", cache_backend="abacus://").backend


@pytest.mark.parametrize(("url", "servers"), [
    ("cache+memcached://", ["127.0.0.1:11211"]), ("cache+memcached://a;b:5/", ["a:11211", "b:5"]),
    ("cache+memcached:///run/m.sock", ["/run/m.sock"]), ("cache+memcache://h:1", ["h:1"]),
])
def test_addresses_of_memcached(url: str, servers: list[str]) -> None:
    assert make_app(url).backend.servers == servers


# --- limits ---


def test_what_memcached_does_not_take(memcached_url: str) -> None:
    app = make_app(memcached_url)
    with pytest.raises(BackendStoreError, match="memcached -I"):
        app.backend.store_result("big", "x" * 2_000_000, "SUCCESS")
    with pytest.raises(BackendStoreError, match="no key of memcached"):
        app.backend.store_result("no key " * 2, 1, "SUCCESS")


def test_long_expiry_in_memcached(memcached_url: str) -> None:
    app = make_app(memcached_url, result_expires=60 * 86400)
    app.backend.store_result("long", 1, "SUCCESS")
    assert app.AsyncResult("long").get(timeout=30) == 1


@pytest.mark.parametrize("id", ["../outside", "a/b", "x" * 300, "nul\0"])
def test_ids_that_are_no_file_names(tmp_path: Path, id: str) -> None:
    directory = tmp_path / "results"
    directory.mkdir()
    app = make_app(f"file://{directory}")
    with pytest.raises(BackendStoreError, match="cannot be the name of a file"):
        app.backend.store_result(id, 1, "SUCCESS")
    assert list(tmp_path.rglob("*")) == [directory]


def test_results_of_any_class_are_refused_when_stored(tmp_path: Path) -> None:
    app = make_app(f"db+sqlite:///{tmp_path}/x.db")
    with pytest.raises(EncodeError, match="pathlib.*result_accept_content"):
        app.backend.store_result("a", tmp_path, "SUCCESS")


def test_large_results_in_a_database(postgresql_url: str) -> None:
    app = make_app(f"db+{postgresql_url}")
    app.backend.store_result("large", "x" * 3_000_000, "SUCCESS", traceback="t" * 100_000)
    assert len(app.AsyncResult("large").get(timeout=30)) == 3_000_000


# --- expiry ---


@pytest.mark.parametrize("kind", ["db+sqlite", "file"])
def test_t217_cleanup(tmp_path: Path, kind: str) -> None:
    url = f"db+sqlite:///{tmp_path}/x.db" if kind == "db+sqlite" else f"file://{tmp_path}"
    keeping, dropping = make_app(url, result_expires=3600), make_app(url, result_expires=0.05)
    keeping.backend.store_result("a", 1, "SUCCESS")
    keeping.GroupResult("g", []).save()
    (tmp_path / "mine.txt").write_text("not a result")
    time.sleep(0.1)
    keeping.backend.cleanup()
    assert keeping.AsyncResult("a").state == "SUCCESS" and keeping.GroupResult.restore("g") is not None
    dropping.backend.cleanup()
    assert dropping.AsyncResult("a").state == "PENDING" and dropping.GroupResult.restore("g") is None
    assert (tmp_path / "mine.txt").exists()


# --- servers that are down, or refuse ---


@pytest.mark.parametrize("url", [
    "db+postgresql+psycopg2://someone:s3cret@127.0.0.1:1/d", "db+sqlite:////no/such/directory/x.db", "cache+memcached://127.0.0.1:1/",
])
def test_unreachable(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    app = make_app(url)
    for call in (lambda: app.backend.store_result("a", "private", "SUCCESS"), lambda: app.AsyncResult("a").state,
                 lambda: app.backend.forget("a")):
        with pytest.raises(OperationalError, match="result store .* cannot be reached") as caught:
            call()
        assert "s3cret" not in str(caught.value) and "private" not in str(caught.value)
    assert "s3cret" not in caplog.text and "private" not in caplog.text


def test_wrong_password(postgresql_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """The server of the tests believes everybody who exists; so this one does not."""
    url = sa.engine.make_url(postgresql_url).set(username="nobody_there", password="s3cret")
    app = make_app(f"db+{url.render_as_string(hide_password=False)}")
    with pytest.raises(OperationalError, match="nobody_there.*does not exist") as caught:
        app.backend.store_result("a", 1, "SUCCESS")
    assert "s3cret" not in str(caught.value) + caplog.text


def test_missing_table(postgresql_url: str) -> None:
    app = make_app(f"db+{postgresql_url}", database_table_names={"task": f"t{uuid.uuid4().hex[:8]}"})
    app.backend.store_result("a", "private", "SUCCESS")
    with sa.create_engine(postgresql_url, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.text(f"drop table {app.backend.task_cls.__table__.name}"))
    with pytest.raises(BackendStoreError, match="does not exist") as caught:
        app.backend.store_result("a", "private", "SUCCESS")
    assert "private" not in str(caught.value)
    with pytest.raises(BackendGetMetaError, match="does not exist"):
        _ = app.AsyncResult("a").state


def test_directory_removed(tmp_path: Path) -> None:
    directory = tmp_path / "results"
    directory.mkdir()
    app = make_app(f"file://{directory}")
    app.backend.store_result("a", 1, "STARTED")
    app.backend.forget("a")
    directory.rmdir()
    with pytest.raises(OperationalError, match="cannot be reached: FileNotFoundError"):
        app.backend.store_result("a", 1, "SUCCESS")


def test_always_retry(tmp_path: Path) -> None:
    """result_backend_always_retry tries again as its own settings say."""
    app = make_app(f"db+sqlite:///{tmp_path}/missing/x.db", result_backend_always_retry=True, result_backend_max_retries=3,
                   result_backend_base_sleep_between_retries_ms=1)
    seen: list[BaseException] = []
    app.backend.on_backend_retryable_error = seen.append
    with pytest.raises(BackendStoreError, match="failed to store result"):
        app.backend.store_result("a", 1, "SUCCESS")
    assert len(seen) == 3
    (tmp_path / "missing").mkdir()
    app.backend.store_result("a", 1, "SUCCESS")
    assert app.AsyncResult("a").get(timeout=30) == 1


@pytest.mark.parametrize(("kind", "prefix"), [(stores.private_memcached, ""), (stores.private_postgresql, "db+")])
def test_a_server_that_comes_back(kind: Any, prefix: str) -> None:
    """The same client, after a restart of the server."""
    with kind() as server:
        app = make_app(prefix + server.url)
        app.backend.store_result("a", 1, "SUCCESS")
        server.kill()
        server.start()
        app.backend.store_result("b", 2, "SUCCESS")
        assert app.AsyncResult("b").get(timeout=30) == 2


TASKS = """
import json
import os
import time

from celery import Celery

app = Celery("stores", broker=os.environ["FLEET_BROKER"], backend=os.environ["FLEET_BACKEND"])
app.conf.update(task_default_queue=os.environ["FLEET_QUEUE"], result_backend_transport_options=json.loads(os.environ["FLEET_STORE"]))


@app.task(time_limit=0.5)
def slow():
    time.sleep(60)


@app.task(acks_late=True)
def note(number):
    with open(os.environ["FLEET_NOTES"], "a") as file:
        file.write(f"{number}\\n")
    return number
"""


@pytest.fixture
def start(tmp_path: Path, amqp_url: str, unique: Callable[[str], str]) -> Any:
    """Starts a worker on TASKS: (result store, options of its retries) -> (worker, app to send with, notes)."""
    (tmp_path / "store_tasks.py").write_text(TASKS)
    notes, queue = tmp_path / "notes", unique("stores")
    notes.touch()
    running: list[Worker] = []

    def make(url: str, options: dict[str, Any]) -> tuple[Worker, Celery, Path]:
        env = ours().env(amqp_url, url, queue, FLEET_APP="store_tasks", FLEET_STORE=json.dumps(options), FLEET_NOTES=str(notes),
                         PYTHONPATH=os.pathsep.join([str(tmp_path), os.path.dirname(brokers.__file__)]))
        running.append(Worker(ours(), env, ("-c", "1")))
        running[-1].wait_ready()
        return running[-1], Celery("t", broker=amqp_url, backend=url, set_as_current=False, task_default_queue=queue), notes

    yield make
    for worker in running:
        worker.end()
    Celery("t", broker=amqp_url, set_as_current=False).amqp.producer.remove(queue, 5.0)


@pytest.mark.parametrize(("kind", "prefix"), [(stores.private_memcached, ""), (stores.private_postgresql, "db+")])
def test_the_worker_keeps_a_result_until_the_store_is_back(start: Any, kind: Any, prefix: str) -> None:
    with kind() as server:
        worker, app, notes = start(prefix + server.url, {})
        server.kill()
        sent = app.send_task("store_tasks.note", (1,), ignore_result=False)
        worker.wait_for("Trying again in 1 s")
        server.start()
        assert sent.get(timeout=30) == 1
        assert notes.read_text() == "1\n"


def test_the_worker_gives_the_message_back_when_the_store_stays_away(start: Any) -> None:
    with stores.private_memcached() as server:
        worker, app, notes = start(server.url, {"retry_policy": {"max_retries": 1, "interval_start": 0.2}})
        server.kill()
        sent = app.send_task("store_tasks.note", (1,), ignore_result=False)
        worker.wait_for("INTERNAL ERROR")
        server.start()
        assert sent.get(timeout=30) == 1
        assert set(notes.read_text().split()) == {"1"} and len(notes.read_text().split()) > 1


def test_the_parent_keeps_results_until_the_store_is_back(start: Any) -> None:
    """Of tasks whose process is gone: here by the hard time limit, and of one that nobody knows."""
    with stores.private_memcached() as server:
        worker, app, _ = start(server.url, {})
        server.kill()
        slow = app.send_task("store_tasks.slow", ignore_result=False)
        worker.wait_for(f"Can't store the result of {slow.id} now")
        unknown = app.send_task("store_tasks.unknown", ignore_result=False)
        worker.wait_for("unregistered task")
        server.start()
        with pytest.raises(TimeLimitExceeded):
            slow.get(timeout=30)
        with pytest.raises(NotRegistered):
            unknown.get(timeout=30)


def test_results_that_are_lost_at_the_end_are_named(start: Any) -> None:
    with stores.private_memcached() as server:
        worker, app, _ = start(server.url, {})
        server.kill()
        slow = app.send_task("store_tasks.slow", ignore_result=False)
        worker.wait_for(f"Can't store the result of {slow.id} now")
        worker.stop()
        assert f"these results are lost: {slow.id}" in worker.text()
