"""Results in CouchDB (PouchDB's server): documents as Celery's, conflicts, users, a server that goes away (soak_stores.sh)."""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from kombu.exceptions import OperationalError

import stores
from peers import celery
from pyceleryc.app.base import Celery
from pyceleryc.exceptions import BackendError, ImproperlyConfigured

HASTY = {"retry_policy": {"max_retries": 2, "interval_start": 0, "interval_step": 0.01}}


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with stores.private(stores.PrivateCouchDB) as server:
        yield server


@pytest.fixture
def url(server: Any) -> str:
    """Of a database that is not there yet."""
    return f"couchdb://127.0.0.1:{server.port}/r{uuid.uuid4().hex[:8]}"


def make_app(url: str, **settings: Any) -> Celery:
    return Celery("t", broker="memory://", backend=url, set_as_current=False, **settings)


def documents(url: str) -> dict[str, Any]:
    """Without what says when, and which revision."""
    answer = requests.get(f"{url.replace('couchdb', 'http')}/_all_docs?include_docs=true", timeout=10).json()
    found = {row["id"]: row["doc"] for row in answer["rows"]}
    for document in found.values():
        del document["_rev"]
        value = json.loads(document["value"])
        value.pop("date_done", None)
        document["value"] = json.dumps(value)
    return found


def test_the_documents_are_the_same(url: str) -> None:
    app = make_app(url)
    app.backend.mark_as_done("done", {"a": [1, "é"]})
    app.backend.mark_as_failure("failed", KeyError("b", 3), "Traceback: text")
    app.backend.store_result("progress", {"n": 1}, "PROGRESS")
    app.backend.store_result("progress", {"n": 2}, "PROGRESS")
    app.GroupResult("group", [app.AsyncResult("a"), app.GroupResult("in", [app.AsyncResult("b")])]).save()
    theirs = url + "t"
    celery(theirs, """
backend.mark_as_done("done", {"a": [1, "é"]})
backend.mark_as_failure("failed", KeyError("b", 3), "Traceback: text")
backend.store_result("progress", {"n": 2}, "PROGRESS")
app.GroupResult("group", [app.AsyncResult("a"), app.GroupResult("in", [app.AsyncResult("b")])]).save()
""")
    assert documents(url) == documents(theirs) and len(documents(url)) == 4


def test_both_read_both(url: str) -> None:
    app = make_app(url, result_extended=True)
    app.backend.mark_as_done("ours", {"a": [1, "é"]})
    app.backend.mark_as_revoked("revoked", "expired")
    assert celery(url, """
backend.mark_as_done("theirs", {"a": [1, "é"]}, request_of("theirs"))
backend.store_result("ours", None, "RETRY")
x = app.AsyncResult("revoked").result
answer = [app.AsyncResult("ours").get(timeout=30), type(x).__module__, str(x)]
""", result_extended=True) == [{"a": [1, "é"]}, "celery.exceptions", "expired"]
    result = app.AsyncResult("theirs")
    assert (result.get(timeout=30), result.name, result.children[0].id) == ({"a": [1, "é"]}, "t.add", "child")
    result.forget()
    assert result.state == "PENDING"


def test_what_is_no_text(url: str) -> None:
    app = make_app(url, result_serializer="msgpack", result_accept_content=["msgpack"])
    app.backend.store_result("a", b"\xff", "SUCCESS")
    (row,) = requests.get(f"{url.replace('couchdb', 'http')}/_all_docs?include_docs=true", timeout=10).json()["rows"]
    assert row["doc"]["encoding"] == "base64" and b"SUCCESS" in base64.b64decode(row["doc"]["value"])
    assert make_app(url, result_serializer="msgpack", result_accept_content=["msgpack"]).AsyncResult("a").get(timeout=30) == b"\xff"


def test_many_write_the_same_document(url: str) -> None:
    """Into a database that each of them finds missing."""
    apps, errors = [make_app(url) for _ in range(8)], []

    def write(app: Celery, number: int) -> None:
        try:
            app.backend.store_result("a", number, "PROGRESS")
        except Exception as exc:
            errors.append(exc)

    threads = [threading.Thread(target=write, args=(app, number)) for number, app in enumerate(apps)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and apps[0].AsyncResult("a").result in range(8)


def test_ids_of_any_kind(url: str) -> None:
    app, ids = make_app(url), ["a/b", "ü é", "?x=1&y#z", "_design", "%2F", '"quoted"']
    for id in ids:
        app.backend.store_result(id, id, "STARTED")
        app.backend.store_result(id, id, "SUCCESS")
    group = app.GroupResult("g", [app.AsyncResult(id) for id in ids])
    assert group.get(timeout=30) == ids
    group.forget()
    assert [make_app(url).AsyncResult(id).state for id in ids] == ["PENDING"] * len(ids)


def test_many_at_once(url: str) -> None:
    app = make_app(url)
    for number in range(600):
        app.backend.store_result(str(number), number, "SUCCESS")
    results = [app.AsyncResult(str(number)) for number in range(600)]
    assert app.GroupResult("g", results).get(timeout=30) == list(range(600))


def test_forget_what_is_not_there(url: str) -> None:
    app = make_app(url)
    app.backend.forget("nobody")
    app.backend.store_result("a", 1, "SUCCESS")
    app.backend.forget("nobody")
    assert app.AsyncResult("a").get(timeout=30) == 1


@pytest.mark.parametrize(("url", "place"), [
    ("couchdb://", "http://localhost:5984/default"), ("couchdb://h", "http://h:5984/default"), ("couchdb://h:1/", "http://h:1/default"),
    ("couchdb://u:p@h/d%2Fe", "http://h:5984/d%2Fe"), ("couchdb", "http://localhost:5984/default"),
])
def test_addresses(url: str, place: str) -> None:
    assert make_app(url).backend._database == place


def test_bad_address() -> None:
    with pytest.raises(ImproperlyConfigured, match="cannot be used.*couchdb://user:password@host") as caught:
        _ = make_app("couchdb://u:s3cret@h:port/d").backend
    assert "s3cret" not in str(caught.value)


class Guarded(BaseHTTPRequestHandler):
    """Lets in who knows the password, has nothing, and takes all."""

    def answer(self) -> None:
        known = self.headers.get("Authorization") == "Basic " + base64.b64encode("ü:s3c/ret".encode()).decode()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response((404 if self.command == "GET" else 201) if known else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_PUT = answer  # noqa: N815

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""


def test_users() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as guard:
        threading.Thread(target=guard.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{guard.server_address[1]}/d"
        app = make_app(f"couchdb://%C3%BC:s3c%2Fret@{place}")
        app.backend.store_result("a", 1, "SUCCESS")
        assert "s3c" not in app.backend.as_uri() + app.bugreport()
        with pytest.raises(BackendError, match="refuses the call: Refused: 401") as caught:
            make_app(f"couchdb://u:wrong@{place}").backend.store_result("a", 1, "SUCCESS")
        assert "wrong" not in str(caught.value)
        guard.shutdown()


def test_a_server_that_goes_and_comes_back() -> None:
    with stores.private(stores.PrivateCouchDB) as server:
        app = make_app(server.url, result_backend_transport_options=HASTY)
        app.backend.store_result("a", 1, "SUCCESS")
        server.kill()
        with pytest.raises(OperationalError, match="cannot be reached"):
            app.backend.store_result("b", 2, "SUCCESS")
        server.start()
        app.backend.store_result("b", 2, "SUCCESS")
        assert make_app(server.url).AsyncResult("b").get(timeout=30) == 2
