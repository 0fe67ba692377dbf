"""Results in a real MongoDB: documents as Celery's, settings, limits, expiry, a server that goes away (soak_stores.sh)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from kombu.exceptions import EncodeError, OperationalError

import stores
from peers import celery
from pyceleryc.app.base import Celery
from pyceleryc.app.context import Context
from pyceleryc.exceptions import BackendError, ImproperlyConfigured

HASTY = {"retry_policy": {"max_retries": 2, "interval_start": 0, "interval_step": 0.01}}


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with stores.private(stores.PrivateMongoDB) as server:
        yield server


@pytest.fixture
def database(server: Any) -> Iterator[Any]:
    with pymongo.MongoClient(server.url) as client:
        yield client["results"]
        client.drop_database("results")


def make_app(url: str, **settings: Any) -> Celery:
    return Celery("t", broker="memory://", backend=url, set_as_current=False, **settings)


def request_of(app: Celery, id: str, **fields: Any) -> Context:
    request = Context(**{"id": id, "task": "t.add", "args": [1, 2], "kwargs": {"k": "é"}, "hostname": "w@h", "retries": 2, "group": "g",
                         "parent_id": "p", "delivery_info": {"routing_key": "q"}, "stamped_headers": ["s"], "stamps": {"s": ["1"]}, **fields})
    request.children.append(app.AsyncResult("child", parent=app.AsyncResult("p")))
    return request


def documents(collection: Any) -> dict[str, Any]:
    found = {document.pop("_id"): document for document in collection.find()}
    for document in found.values():
        document["date_done"] = document["date_done"] and type(document["date_done"]).__name__
    return found


@pytest.mark.parametrize("settings", [{}, {"result_extended": True}, {"result_serializer": "msgpack", "result_accept_content": ["msgpack"]}])
def test_the_documents_are_the_same(server: Any, database: Any, settings: dict[str, Any]) -> None:
    """Key by key, in the same order; dates are UTC."""
    app = make_app(server.url, **settings)
    app.backend.mark_as_done("done", {"a": [1, "é"]}, request_of(app, "done"))
    app.backend.mark_as_failure("failed", KeyError("b", 3), "Traceback: text")
    app.backend.mark_as_revoked("revoked", "expired")
    app.backend.store_result("progress", {"n": 1}, "PROGRESS")
    app.GroupResult("group", [app.AsyncResult("a"), app.AsyncResult("b")]).save()
    names = ("celery_taskmeta", "celery_groupmeta")
    ours = [documents(database[name]) for name in names]
    for name in names:
        database[name].drop()
    celery(server.url, """
backend.mark_as_done("done", {"a": [1, "é"]}, request_of("done"))
backend.mark_as_failure("failed", KeyError("b", 3), "Traceback: text")
backend.mark_as_revoked("revoked", "expired")
backend.store_result("progress", {"n": 1}, "PROGRESS")
app.GroupResult("group", [app.AsyncResult("a"), app.AsyncResult("b")]).save()
""", **settings)
    theirs = [documents(database[name]) for name in names]
    assert ours == theirs and len(ours[0]) == 4
    assert [list(document) for part in ours for document in part.values()] == [list(document) for part in theirs for document in part.values()]


def test_they_read_ours(server: Any, database: Any) -> None:
    app = make_app(server.url, result_extended=True)
    app.backend.mark_as_done("a", {"a": [1, "é"]}, request_of(app, "a"))
    app.backend.mark_as_failure("f", KeyError("b", 3), "Traceback: text", request_of(app, "f"))
    app.backend.mark_as_revoked("r", "expired", request_of(app, "r"))
    inner = app.GroupResult("inner", [app.AsyncResult("x")])
    app.GroupResult("g", [app.AsyncResult("m"), inner]).save()
    assert celery(server.url, """
r, f, x = (app.AsyncResult(id) for id in ("a", "f", "r"))
answer = [r.get(timeout=30), r.name, r.args, r.kwargs, r.worker, r.retries, r.queue, r.date_done is not None, r.children[0].id,
          repr(f.result), f.traceback, type(x.result).__module__, str(x.result), [m.id for m in app.GroupResult.restore("g")]]
""", result_extended=True) == [{"a": [1, "é"]}, "t.add", [1, 2], {"k": "é"}, "w@h", 2, "q", True, "child", "KeyError('b', 3)", "Traceback: text",
                                "celery.exceptions", "expired", ["m", "inner"]]
    assert app.GroupResult.restore("g").results[1] == inner


def test_we_read_theirs(server: Any, database: Any) -> None:
    celery(server.url, """
backend.mark_as_done("a", {"a": [1, "é"]}, request_of("a"))
backend.mark_as_failure("f", KeyError("b", 3), "Traceback: text")
app.GroupResult("g", [app.AsyncResult("m"), app.AsyncResult("n")]).save()
""", result_extended=True)
    app = make_app(server.url)
    result, failed = app.AsyncResult("a"), app.AsyncResult("f")
    assert result.get(timeout=30) == {"a": [1, "é"]}
    assert (result.name, result.args, result.kwargs, result.children[0].parent.id) == ("t.add", [1, 2], {"k": "é"}, "p")
    assert (repr(failed.result), failed.traceback, failed.state) == ("KeyError('b', 3)", "Traceback: text", "FAILURE")
    assert app.GroupResult.restore("g") == app.GroupResult("g", [app.AsyncResult("m"), app.AsyncResult("n")])


def test_settings(server: Any, database: Any) -> None:
    host = server.url.removeprefix("mongodb://").partition("/")[0]
    names = {"database": "results", "taskmeta_collection": "tasks", "groupmeta_collection": "groups"}
    for url, more in ((f"mongodb://{host}", {}), (f"mongodb://{host}/another", {}), ("mongodb://", {"host": [host]}),
                      ("mongodb", {"host": f"mongodb://{host}"}), ("mongodb://", {"host": "127.0.0.1", "port": server.port})):
        app = make_app(url, mongodb_backend_settings={**names, **more, "max_pool_size": 3, "appname": "x", "options": {"retryWrites": False}})
        app.backend.store_result("a", 1, "SUCCESS")
        app.GroupResult("g", [app.AsyncResult("a")]).save()
        options = app.backend.database.client.options
        assert (options.pool_options.max_pool_size, options.pool_options.appname, options.retry_writes) == (3, "x", False)
        assert [database[name].delete_many({}).deleted_count for name in ("tasks", "groups")] == [1, 1]
    app = make_app(f"mongodb://{host}?maxPoolSize=7&serverSelectionTimeoutMS=900")
    options = app.backend.database.client.options
    assert (options.pool_options.max_pool_size, options.server_selection_timeout, app.backend.database.name) == (7, 0.9, "celery")
    assert make_app(server.url).backend.database.client.options.pool_options.max_pool_size == 10


def test_users(server: Any, database: Any) -> None:
    """Of the database admin, as in Celery, though results are in another one."""
    host, users = server.url.removeprefix("mongodb://"), {}
    for name in ("admin", "results"):
        database.client[name].command("createUser", name, pwd="s3c:ret", roles=["readWriteAnyDatabase"] if name == "admin" else ["readWrite"])
    for url, settings in (
        (f"mongodb://admin:s3c%3Aret@{host}", None), (f"mongodb://{host}", {"user": "admin", "password": "s3c:ret"}),
        (f"mongodb://results:s3c%3Aret@{host}?authSource=results", None),
    ):
        app = make_app(url, mongodb_backend_settings=settings)
        app.backend.store_result("a", 1, "SUCCESS")
        assert "s3c" not in app.backend.as_uri() + app.bugreport()
        users[app.backend.as_uri()] = app.AsyncResult("a").get(timeout=30)
    assert list(users.values()) == [1, 1, 1]
    app = make_app(f"mongodb://admin:wrong@{host}")
    with pytest.raises(BackendError, match="Authentication failed") as caught:
        app.backend.store_result("a", 1, "SUCCESS")
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(("url", "settings", "complaint"), [
    ("mongodb://h", 5, "has to be a dict"), ("mongodb://u:s3cret@h:x/", None, "cannot be used"), ("mongodb://h/?nonsense=1", {"nonsense": 1}, "nonsense"),
    ("mongodb://h/a$b", None, "cannot be used"), ("mongodb://u:s3cret@h1,h2", {"maxPoolSize": "many"}, "u:[*]+@h1,h2.*maxPoolSize"),
])
def test_bad_configuration(url: str, settings: Any, complaint: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=complaint) as caught:
        _ = make_app(url, mongodb_backend_settings=settings).backend
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("args", [[{1: 2}], [2**70], [{1, 2}]])
def test_arguments_that_no_document_can_have(server: Any, database: Any, args: Any) -> None:
    """The result is kept, the arguments as text."""
    app = make_app(server.url, result_extended=True)
    if args == [{1, 2}]:
        app = make_app(server.url, result_extended=True, result_serializer="pickle", result_accept_content=["pickle"])
    app.backend.mark_as_done("a", 5, request_of(app, "a", args=args))
    result = app.AsyncResult("a")
    assert result.get(timeout=30) == 5 and app.backend.decode(result.args) in (args, [{"1": 2}])


def test_what_does_not_fit(server: Any, database: Any) -> None:
    app = make_app(server.url)
    with pytest.raises(EncodeError, match="16 MB") as caught:
        app.backend.store_result("a", "private" * 3_000_000, "SUCCESS")
    assert "private" not in str(caught.value)
    assert app.AsyncResult("a").state == "PENDING"


def test_many_at_once(server: Any, database: Any) -> None:
    app = make_app(server.url)
    for number in range(1100):
        app.backend.store_result(str(number), number, "SUCCESS")
    assert app.GroupResult("g", [app.AsyncResult(str(number)) for number in range(1100)]).get(timeout=30) == list(range(1100))


def test_t217_cleanup(server: Any, database: Any) -> None:
    keeping, dropping = make_app(server.url, result_expires=3600), make_app(server.url, result_expires=0.05)
    keeping.backend.store_result("a", 1, "SUCCESS")
    keeping.backend.store_result("running", None, "STARTED")
    keeping.GroupResult("g", []).save()
    time.sleep(0.1)
    keeping.backend.cleanup()
    assert keeping.AsyncResult("a").state == "SUCCESS" and keeping.GroupResult.restore("g") is not None
    dropping.backend.cleanup()
    fresh = make_app(server.url)
    assert [fresh.AsyncResult(id).state for id in ("a", "running")] == ["PENDING", "STARTED"] and fresh.GroupResult.restore("g") is None
    ours = {name: database[name].index_information() for name in ("celery_taskmeta", "celery_groupmeta")}
    database.client.drop_database("results")
    celery(server.url, "backend.mark_as_done('a', 1)\napp.GroupResult('g', []).save()")
    assert ours == {name: database[name].index_information() for name in ours}


def test_cleanup_beside_an_index_of_the_users_own(server: Any, database: Any) -> None:
    database["celery_taskmeta"].create_index("date_done", expireAfterSeconds=1000)
    app = make_app(server.url, result_expires=0.05)
    app.backend.store_result("a", 1, "SUCCESS")
    time.sleep(0.1)
    app.backend.cleanup()
    assert make_app(server.url).AsyncResult("a").state == "PENDING"


def test_a_child_has_a_client_of_its_own(server: Any, database: Any) -> None:
    app = make_app(server.url)
    app.backend.store_result("parent", 1, "SUCCESS")
    before = app.backend.database.client
    child = os.fork()
    if not child:
        app.backend.store_result("child", 2, "SUCCESS")
        os._exit(app.backend.database.client is before)
    assert os.waitpid(child, 0)[1] == 0
    assert app.AsyncResult("child").get(timeout=30) == 2 and app.backend.database.client is before


def test_a_server_that_goes_and_comes_back() -> None:
    with stores.private(stores.PrivateMongoDB) as server:
        app = make_app(server.url + "?journal=true&serverSelectionTimeoutMS=300", result_backend_transport_options=HASTY)
        app.backend.store_result("a", 1, "SUCCESS")
        server.kill()
        with pytest.raises(OperationalError, match="cannot be reached"):
            app.backend.store_result("b", 2, "SUCCESS")
        server.start()
        app.backend.store_result("b", 2, "SUCCESS")
        assert [make_app(server.url).AsyncResult(id).get(timeout=30) for id in "ab"] == [1, 2]
