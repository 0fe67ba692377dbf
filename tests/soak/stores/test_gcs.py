"""Results in Google Cloud Storage, counters in Firestore (emulators): objects and documents as Celery's (soak_stores.sh)."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.cloud import firestore, storage
from kombu.exceptions import OperationalError

import stores
from peers import celery
from pyceleryc.app.base import Celery
from pyceleryc.app.context import Context
from pyceleryc.backends.gcs import GCSBackend
from pyceleryc.exceptions import BackendError, ChordError, ImproperlyConfigured

#: As in a task, but sooner.
PATIENT = {"retry_policy": {"max_retries": 50, "interval_start": 0.1, "interval_step": 0}}


@pytest.fixture(scope="module", autouse=True)
def emulators() -> Iterator[None]:
    with stores.google():
        yield


@pytest.fixture
def url() -> Iterator[str]:
    base = uuid.uuid4().hex[:8]
    yield f"gs://results/{base}?gcs_project=project"
    for document in firestore.Client(project="project").collection("celery").stream():
        document.reference.delete()


def bucket() -> Any:
    return storage.Client(project="project").get_bucket("results")


def make_app(url: str, **settings: Any) -> Celery:
    return Celery("t", broker="memory://", backend=url, set_as_current=False, **settings)


def objects(url: str) -> dict[str, Any]:
    """Names and contents, without what says when."""
    base, found = url.removeprefix("gs://results/").partition("?")[0], {}
    for blob in bucket().list_blobs(prefix=f"{base}/"):
        found[blob.name.removeprefix(f"{base}/")] = document = json.loads(blob.download_as_bytes())
        document.pop("date_done", None)
    return found


def counters() -> dict[str, Any]:
    return {document.id: document.to_dict() for document in firestore.Client(project="project").collection("celery").stream()}


def test_objects_and_counters_are_the_same(url: str) -> None:
    app = make_app(url)
    app.backend.mark_as_done("done", {"a": [1, "é"]})
    app.backend.mark_as_failure("failed", KeyError("b", 3), "Traceback: text")
    app.backend.apply_chord(("group", [app.AsyncResult("a"), app.AsyncResult("b")]), app.signature("t.body"))
    assert app.backend.incr(app.backend.get_key_for_chord("group")) == 1
    ours, theirs = counters(), url.replace("results/", "results/their")
    celery(theirs, """
backend.mark_as_done("done", {"a": [1, "é"]})
backend.mark_as_failure("failed", KeyError("b", 3), "Traceback: text")
backend.apply_chord(("group", [app.AsyncResult("a"), app.AsyncResult("b")]), app.signature("t.body"))
answer = backend.incr(backend.get_key_for_chord("group"))
""")
    assert objects(url) == objects(theirs) and len(objects(url)) == 3
    (name, one), (other, two) = *ours.items(), *counters().items()
    assert name == other == "chord-unlock-group" and one.keys() == two.keys() == {"expires_at", "chord_count"}
    assert (one["chord_count"], two["chord_count"]) == (1, 2)  # it is the same document
    assert abs(one["expires_at"] - two["expires_at"]) < timedelta(seconds=50)


def test_both_read_both(url: str) -> None:
    app = make_app(url, result_extended=True)
    app.backend.mark_as_done("ours", {"a": [1, "é"]})
    app.backend.mark_as_revoked("revoked", "expired")
    app.GroupResult("g", [app.AsyncResult("a"), app.GroupResult("in", [app.AsyncResult("b")])]).save()
    assert celery(url, """
backend.mark_as_done("theirs", {"a": [1, "é"]}, request_of("theirs"))
backend.store_result("ours", None, "RETRY")
x = app.AsyncResult("revoked").result
answer = [app.AsyncResult("ours").get(timeout=30), type(x).__module__, str(x), app.GroupResult.restore("g").results[1].results[0].id]
""", result_extended=True) == [{"a": [1, "é"]}, "celery.exceptions", "expired", "b"]
    result = app.AsyncResult("theirs")
    assert (result.get(timeout=30), result.name, result.children[0].id) == ({"a": [1, "é"]}, "t.add", "child")
    result.forget()
    result.forget()
    assert result.state == "PENDING"


def test_counting(url: str) -> None:
    """Every number once, in processes and threads; nothing is left at the end."""
    backend = make_app(url).backend
    backend.prepare_count("g")
    key = backend.get_key_for_chord("g")
    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(backend.incr, [key] * 40)) == list(range(1, 41))
    child = os.fork()
    if not child:
        os._exit(backend.incr(key))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 41 and backend.incr(key) == 42
    backend.delete(key)
    assert counters() == {}
    with pytest.raises(ChordError, match="counter chord-unlock-g is gone"):
        backend.incr(key)
    backend.delete(key)


@pytest.mark.parametrize("prefix", ["", "mine"])
def test_a_chord(url: str, prefix: str) -> None:
    app = make_app(url, task_store_eager_result=True, result_backend_transport_options={"global_keyprefix": prefix})
    sent: list[Any] = []

    @app.task(name="t.total")
    def total(numbers: Any) -> None:
        sent.append(numbers)

    app.conf.task_always_eager = True
    members = [app.AsyncResult(str(uuid.uuid4())) for _ in range(3)]
    app.backend.apply_chord(("g", members), total.s())
    for number, member in enumerate(members):
        assert sent == [] and len(counters()) == 1
        app.backend.mark_as_done(member.id, number, Context(id=member.id, group="g", chord=total.s()))
    assert sent == [[0, 1, 2]] and counters() == {}


def test_settings(url: str) -> None:
    places = {
        "gs://b/p/q?gcs_project=x": ("b", "x", "p/q", 0, "x"),
        "gs://b?gcs_project=x&firestore_project=y": ("b", "x", "set", 0, "y"),
        "gs://": ("set", "set", "set", 0, "set"), "gs": ("set", "set", "set", 0, "set"),
        "gs://?gcs_bucket=b&gcs_base_path=/c/": ("b", "set", "c", 0, "set"),
    }
    for place, expected in places.items():
        backend = make_app(place, gcs_bucket="set", gcs_project="set", gcs_base_path="/set/").backend
        assert (backend.bucket_name, backend.project, backend.base_path, backend.ttl, backend.firestore_project) == expected


@pytest.mark.parametrize(("url", "complaint"), [
    ("gs://", "Missing bucket name.*gcs_bucket"), ("gs://b", "Missing project.*gcs_project"), ("gs://b?gcs_project=p&gcs_ttl=long", "no number of seconds"),
    ("gs://results?gcs_project=p&gcs_ttl=60", "bucket results has no rule that deletes by custom time"),
])
def test_bad_configuration(url: str, complaint: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=complaint):
        _ = make_app(url).backend


def test_time_to_live(url: str) -> None:
    place = bucket()
    place.add_lifecycle_delete_rule(days_since_custom_time=0)
    place.patch()
    try:
        app = make_app(f"{url}&gcs_ttl=3600")
        app.backend.store_result("a", 1, "SUCCESS")
        (blob,) = place.list_blobs(prefix=app.backend.base_path)
        assert abs(blob.custom_time - datetime.now(UTC) - timedelta(hours=1)) < timedelta(seconds=60)
    finally:
        place.lifecycle_rules = []
        place.patch()


def test_a_bucket_that_is_not_there() -> None:
    app = make_app("gs://missing?gcs_project=p")
    with pytest.raises(BackendError, match="refuses the call: NotFound: 404"):
        app.backend.store_result("a", 1, "SUCCESS")


def test_without_credentials(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with pytest.raises(BackendError, match="missing.json was not found"):
        make_app(url).backend.store_result("a", 1, "SUCCESS")


def test_servers_that_go_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with stores.private(stores.PrivateStorage) as server, stores.private(stores.PrivateFirestore) as counting:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", counting.url)
        app = make_app("gs://results?gcs_project=project", result_backend_transport_options=PATIENT)
        assert isinstance(app.backend, GCSBackend)
        for part in (server, counting):
            app.backend.store_result("a", 1, "SUCCESS")
            app.backend.prepare_count("g")
            part.kill()
            with pytest.raises(OperationalError, match="cannot be reached"):
                app.backend.store_result("b", 2, "SUCCESS")
                app.backend.prepare_count("h")
            part.start()

        @app.task
        def store() -> None:
            app.backend.store_result("b", 2, "SUCCESS")
            app.backend.prepare_count("h")

        store.apply(throw=True)  # in a task: gRPC waits before it connects again, a second or two
        assert app.AsyncResult("b").get(timeout=30) == 2 and app.backend.incr(app.backend.get_key_for_chord("h")) == 1
