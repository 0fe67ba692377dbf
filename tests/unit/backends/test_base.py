"""What all result backends share: documents, exceptions, marks, errbacks; and finding a backend."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from kombu.exceptions import ContentDisallowed, DecodeError, OperationalError

from pyceleryc import exceptions, states
from pyceleryc.app import backends
from pyceleryc.app.base import Celery
from pyceleryc.app.context import Context
from pyceleryc.backends.base import BaseBackend, Backend, BaseDictBackend, BaseKeyValueStoreBackend, DisabledBackend, KeyValueStoreBackend
from pyceleryc.backends.cache import CacheBackend
from pyceleryc.backends.redis import RedisBackend
from pyceleryc.backends.remote import pauses
from pyceleryc.backends.replies import ReplyClient
from pyceleryc.backends.rpc import RPCBackend
from pyceleryc.backends.sqlite import SQLiteBackend
from pyceleryc.exceptions import BackendGetMetaError, BackendStoreError, ChordError, ImproperlyConfigured, SecurityError


class DictBackend(KeyValueStoreBackend):
    """A store as other projects write them: four methods."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.data: dict[str, Any] = {}
        self.fails = 0
        super().__init__(*args, **kwargs)

    def get(self, key: Any) -> Any:
        if self.fails:
            self.fails -= 1
            raise OSError("no")
        return self.data.get(key)

    def mget(self, keys: Any) -> Any:
        return [self.data.get(key) for key in keys]

    def set(self, key: Any, value: Any) -> None:
        self.data[key] = value

    def delete(self, key: Any) -> None:
        self.data.pop(key, None)

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        return isinstance(exc, OSError)


class CountingBackend(DictBackend):
    """One that can count, too."""

    implements_incr = True

    def incr(self, key: Any) -> int:
        self.data[key] = self.data.get(key, 0) + 1
        return int(self.data[key])

    def expire(self, key: Any, value: float) -> None:
        assert value


@pytest.fixture
def make_app() -> Callable[..., Celery]:
    def make(backend: Any = DictBackend, **settings: Any) -> Celery:
        return Celery("t", broker="memory://", backend=backend, set_as_current=False, **settings)

    return make


@pytest.fixture
def app(make_app: Callable[..., Celery]) -> Celery:
    return make_app()


# --- finding a backend ---


@pytest.mark.parametrize(("url", "cls", "passed"), [
    ("redis://h:1/2", RedisBackend, "redis://h:1/2"), ("rediss://h", RedisBackend, "rediss://h"),
    ("redis+socket:///x", RedisBackend, "redis+socket:///x"), ("redis", RedisBackend, None), ("rpc://", RPCBackend, "rpc://"),
    ("sqlite:///a.db", SQLiteBackend, "sqlite:///a.db"), ("cache+memory://", CacheBackend, "memory://"),
    ("memory://", CacheBackend, "memory://"), ("disabled://", DisabledBackend, "disabled://"), (None, DisabledBackend, None),
    (DictBackend, DictBackend, None), ("pyceleryc.backends.redis:RedisBackend", RedisBackend, None),
    ("pyceleryc.backends.redis.RedisBackend", RedisBackend, None),
])
def test_by_url(app: Celery, url: Any, cls: Any, passed: Any) -> None:
    assert backends.by_url(url, app.loader) == (cls, passed)


@pytest.mark.parametrize("name", ["abacus://", "abacus", "no.such.module:Class", "pyceleryc.backends.redis:Nothing", "json"])
def test_unknown(app: Celery, name: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="Known are: .*redis"):
        backends.by_url(name, app.loader)


def test_overridden(make_app: Callable[..., Celery]) -> None:
    app = make_app(backend="redis://", override_backends={"redis": f"{__name__}:DictBackend"})
    loader = app.loader
    loader.override_backends = {"redis": "pyceleryc.backends.cache:CacheBackend"}
    assert backends.by_name("redis", loader) is CacheBackend


def test_names() -> None:
    assert BaseDictBackend is BaseBackend
    assert issubclass(RedisBackend, BaseKeyValueStoreBackend) and issubclass(KeyValueStoreBackend, Backend)


def test_stores_that_encode_to_objects(make_app: Callable[..., Celery]) -> None:
    """django-celery-results keeps tuples in its cache."""
    class Objects(DictBackend):
        def encode(self, data: Any) -> Any:
            return self._encode(data)

        def decode(self, payload: Any) -> Any:
            return super().decode(payload[2])

    app = make_app(Objects)
    app.backend.store_result("id", {"a": 1}, states.SUCCESS)
    assert app.AsyncResult("id").get(timeout=5) == {"a": 1}


# --- configuration ---


@pytest.mark.parametrize(("url", "expected"), [
    ("redis://", {"host": None, "port": None, "db": 0}),
    ("redis://:p%40w@h:1/3", {"host": "h", "port": 1, "db": 3, "password": "p@w"}),
    ("redis://u:p@h/", {"host": "h", "user": "u", "password": "p", "db": 0}),
    ("redis://h?socket_timeout=5&socket_connect_timeout=2", {"socket_timeout": 5.0, "connect_timeout": 2.0}),
    ("redis+socket:///run/r.sock?virtual_host=4", {"unix_path": "/run/r.sock", "db": 4, "host": None}),
    ("rediss://h?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=/ca.pem", {"ssl": {"verify": True, "ca_file": "/ca.pem"}}),
    ("rediss://h?ssl_cert_reqs=none", {"ssl": {"verify": False}}),
])
def test_redis_urls(make_app: Callable[..., Celery], url: str, expected: dict[str, Any]) -> None:
    config = make_app(url).backend.client_config()
    assert {key: config.get(key) for key in expected} == expected
    assert config["expires"] == 86400


@pytest.mark.parametrize("url", ["rediss://h", "redis://h/x"])
def test_wrong_redis_urls(make_app: Callable[..., Celery], url: str) -> None:
    with pytest.raises(ValueError, match="ssl_cert_reqs|Database is int"):
        make_app(url).backend.client_config()


def test_redis_settings(make_app: Callable[..., Celery]) -> None:
    app = make_app("redis", redis_host="h", redis_port=5, redis_db=6, redis_password="p", result_expires=timedelta(minutes=1),
                   result_backend_transport_options={"global_keyprefix": "a", "retry_policy": {"max_retries": 1}})
    config = app.backend.client_config()
    assert (config["host"], config["port"], config["db"], config["password"], config["expires"]) == ("h", 5, 6, "p", 60.0)
    assert config["key_prefix"] == "a_"
    assert app.backend.get_key_for_task("id") == "a_celery-task-meta-id"
    assert list(pauses(app.backend.retry_policy)) == [0]


def test_no_redis(make_app: Callable[..., Celery]) -> None:
    app = make_app("redis://127.0.0.1:1", result_backend_transport_options={"retry_policy": {"max_retries": 1, "interval_step": 0.01}})
    with pytest.raises(OperationalError):
        app.backend.store_result("id", 1, states.SUCCESS)
    with pytest.raises(OperationalError):
        app.AsyncResult("id").state  # noqa: B018


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///"])
def test_wrong_sqlite_url(make_app: Callable[..., Celery], url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="names no file"):
        make_app(url).backend.client_config()


def test_rpc_follows_the_broker(tmp_path: Any) -> None:
    def config(broker: str) -> dict[str, Any]:
        return dict(Celery("t", broker=broker, backend="rpc://", set_as_current=False).backend.client_config())

    assert config("amqp://h")["scheme"] == "rpc" and config("amqp://h")["broker"]["host"] == "h"
    assert config("memory://")["scheme"] == "memory"
    assert config("sqlite:///q.db")["path"] == "q.db"
    for broker in ("filesystem://", "redis://h", "sqla+sqlite:///q.db"):
        backend = Celery("t", broker=broker, backend="rpc://", set_as_current=False).backend
        assert isinstance(backend.core, ReplyClient)
        # With Redis the worker's machine sends them itself.
        assert (backend.core_config() or {}).get("scheme") == ("redis" if broker.startswith("redis") else None)
        with pytest.raises(ImproperlyConfigured, match="by kombu"):
            backend.client_config()


def test_clients_are_shared(make_app: Callable[..., Celery]) -> None:
    one, two, other = (make_app(url).backend for url in ("redis://h", "redis://h", "redis://i"))
    assert one.core is two.core is not other.core


def test_a_client_of_redis_py(make_app: Callable[..., Celery], redis_url: str, unique: Callable[[str], str]) -> None:
    client, key = make_app(redis_url).backend.client, unique("key")
    assert client.set(key, "x", ex=5) and client.get(key) == b"x"
    client.delete(key)
    client.close()


def test_uris(make_app: Callable[..., Celery]) -> None:
    backend = make_app("redis://u:secret@h:1/2").backend
    assert "secret" not in backend.as_uri() and "h:1" in backend.as_uri()
    assert "secret" in backend.as_uri(include_password=True)


def test_unknown_serializer(make_app: Callable[..., Celery]) -> None:
    with pytest.raises(ImproperlyConfigured, match="no serializer 'morse'"):
        make_app(result_serializer="morse").backend  # noqa: B018


def test_a_subclass_that_writes_is_not_bypassed(make_app: Callable[..., Celery]) -> None:
    class Mine(RedisBackend):
        def _store_result(self, *args: Any, **kwargs: Any) -> Any:
            return super()._store_result(*args, **kwargs)

    assert make_app("redis://").backend.core_config() is not None
    assert make_app(Mine).backend.core_config() is None
    assert make_app().backend.core_config() is None


def test_who_overrides_on_task_call_is_called() -> None:
    class Mine(DictBackend):
        def on_task_call(self, producer: Any, task_id: str) -> None:
            self.called = task_id

    assert Mine.wants_task_call and not DictBackend.wants_task_call
    assert RedisBackend.wants_task_call and RPCBackend.wants_task_call and not SQLiteBackend.wants_task_call


# --- no backend ---


def test_disabled(make_app: Callable[..., Celery]) -> None:
    app = make_app(None)
    app.backend.store_result("id", 1, states.SUCCESS)
    result = app.AsyncResult("id")
    for ask in (result.get, lambda: result.state, result.forget, app.GroupResult("g", [result]).get):
        with pytest.raises(NotImplementedError, match="No result backend is configured."):
            ask()
    with pytest.raises(NotImplementedError, match="chord"):
        app.backend.apply_chord((None, []), None)
    assert app.backend.as_uri() == "disabled://"


def test_no_rpc_chords(make_app: Callable[..., Celery]) -> None:
    with pytest.raises(NotImplementedError, match="rpc"):
        make_app("rpc://").backend.apply_chord((None, []), None)


# --- a store of four methods ---


def test_key_value_store(app: Celery) -> None:
    backend = app.backend
    backend.store_result("id", 4, states.SUCCESS)
    backend.store_result("id", None, states.STARTED)
    assert json.loads(backend.data["celery-task-meta-id"])["result"] == 4
    result = app.AsyncResult("id")
    assert result.get() == 4
    with pytest.raises(ImproperlyConfigured, match="Backend does not support on_message callback"):
        app.AsyncResult("id").get(on_message=print)
    with pytest.raises(exceptions.TimeoutError):
        app.AsyncResult("other").get(timeout=0.05, interval=0.01)
    backend.store_result("two", 5, states.SUCCESS)
    assert dict(app.GroupResult("g", [result, app.AsyncResult("two")]).iter_native(timeout=1))["two"]["result"] == 5
    with pytest.raises(exceptions.TimeoutError):
        list(backend.get_many(["other"], timeout=0.05, interval=0.01))
    result.forget()
    assert app.AsyncResult("id").state == states.PENDING
    with pytest.raises(ValueError, match="no id"):
        backend.get_key_for_task("")


def test_groups_and_cache(make_app: Callable[..., Celery]) -> None:
    app = make_app(result_cache_max=2)
    group = app.GroupResult("g", [app.AsyncResult("a")])
    group.save()
    assert app.backend.restore_group("g") == group
    app.backend.data.clear()
    assert app.backend.restore_group("g") == group
    app.backend.delete_group("g")
    assert app.backend.restore_group("g") is None
    for id in "abc":
        app.backend.store_result(id, id, states.SUCCESS)
        assert app.backend.get_result(id) == id
    assert set(app.backend._cache) == {"b", "c"}


def test_always_retry(make_app: Callable[..., Celery]) -> None:
    app = make_app(result_backend_always_retry=True, result_backend_max_retries=2, result_backend_base_sleep_between_retries_ms=1)
    app.backend.fails = 2
    assert app.backend.get_state("id") == states.PENDING
    app.backend.fails = 99
    with pytest.raises(BackendGetMetaError) as read:
        app.backend.get_task_meta("id")
    with pytest.raises(BackendStoreError) as written:
        app.backend.store_result("id", 1, states.SUCCESS)
    assert (read.value.task_id, written.value.task_id, written.value.state) == ("id", "id", states.SUCCESS)


def test_chord_is_counted(make_app: Callable[..., Celery]) -> None:
    app, got = make_app(CountingBackend), []
    app.backend.finish_chord = lambda body, values: got.append(values())
    app.backend.apply_chord(("g", [app.AsyncResult("a"), app.AsyncResult("b")]), None)
    body = {"task": "t.body", "options": {"task_id": "body"}, "args": [], "kwargs": {}}
    for id in "ab":
        app.backend.mark_as_done(id, id.upper(), Context(id=id, group="g", chord=body))
    assert got == [["A", "B"]]
    assert not [key for key in app.backend.data if "g" in key.split("-")[-1]]


# --- documents ---


def test_accept(make_app: Callable[..., Celery]) -> None:
    app = make_app("cache+memory://", result_serializer="json", result_accept_content=["yaml"])
    app.backend.store_result("refused", 1, states.SUCCESS)
    with pytest.raises(ContentDisallowed):
        app.AsyncResult("refused").state  # noqa: B018
    with pytest.raises(DecodeError):
        make_app("cache+memory://").backend.decode(b"{")


@pytest.mark.parametrize("backend", [DictBackend, "cache+memory://"])
def test_timezone(make_app: Callable[..., Celery], backend: Any) -> None:
    app = make_app(backend, timezone="Asia/Tokyo")
    document = json.loads(app.backend.make_document("id", 1, states.SUCCESS))
    assert document["date_done"].endswith("+09:00")
    assert json.loads(app.backend.make_document("id", 1, "PROGRESS"))["date_done"] is None


# --- exceptions ---


class Strange(Exception):
    def __init__(self, a: Any, b: Any) -> None:
        self.sum = a + b


def test_exception_document(app: Celery) -> None:
    prepare = app.backend.prepare_exception
    assert prepare(KeyError("b", 1)) == {"exc_type": "KeyError", "exc_message": ("b", 1), "exc_module": "builtins"}
    assert prepare(KeyError(object))["exc_message"] == ("<class 'object'>",)
    assert prepare(exceptions.TaskRevokedError("x"))["exc_module"] == "celery.exceptions"
    assert prepare(exceptions.TimeLimitExceeded(1))["exc_module"] == "billiard.exceptions"
    assert isinstance(prepare(KeyError("b"), "pickle"), KeyError)
    assert list(prepare(KeyError())) == ["exc_type", "exc_message", "exc_module"]


@pytest.mark.parametrize("exc", [KeyError("b", 1), exceptions.ChordError("x"), exceptions.TimeLimitExceeded(1), exceptions.Retry("m", "x")])
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_exceptions_come_back(app: Celery, exc: Exception, serializer: str) -> None:
    back = app.backend.exception_to_python(app.backend.prepare_exception(exc, serializer))
    assert type(back) is type(exc) and str(back) == str(exc)


@pytest.mark.parametrize(("document", "expected"), [
    ({"exc_type": "KeyError", "exc_message": "text", "exc_module": "builtins"}, KeyError("text")),
    ({"exc_type": "Odd", "exc_message": ["a"], "exc_module": "no.such"}, ("Odd", "no.such", ("a",))),
    ({"exc_type": "Odd", "exc_message": ["a"]}, ("Odd", None, ("a",))),
    ({"exc_type": "Nothing", "exc_message": [], "exc_module": "celery.exceptions"}, ("Nothing", "celery.exceptions", ())),
    ({"exc_type": "Strange", "exc_message": [1], "exc_module": __name__}, Exception(f"{Strange}([1])")),
])
def test_exceptions_of_others(app: Celery, document: Any, expected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import SimpleNamespace

    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(Strange=Strange))  # type: ignore[arg-type]
    exc = app.backend.exception_to_python(document)
    if isinstance(expected, tuple):
        name, module, args = expected
        assert isinstance(exc, Exception) and (type(exc).__name__, exc.args) == (name, args)
        assert module is None or type(exc).__module__ == module
    else:
        assert repr(exc) == repr(expected)


@pytest.mark.parametrize(("module", "name"), [("os", "system"), ("builtins", "eval"), ("builtins", "int"), ("os", "path")])
def test_only_exceptions_are_called(app: Celery, module: str, name: str) -> None:
    with pytest.raises(SecurityError):
        app.backend.exception_to_python({"exc_type": name, "exc_message": ["1"], "exc_module": module})


def test_nested_names(app: Celery) -> None:
    with pytest.raises(SecurityError):
        app.backend.exception_to_python({"exc_type": "path.join", "exc_message": ["1"], "exc_module": "os"})


def test_unpicklable(make_app: Callable[..., Celery]) -> None:
    class Local(Exception):
        pass

    backend = make_app(result_serializer="pickle", accept_content=["pickle"]).backend
    backend.store_result("id", Local("a"), states.FAILURE)
    exc = backend.get_result("id")
    assert (type(exc).__name__, exc.args) == ("Local", ("a",))


def test_failure_with_own_data(app: Celery) -> None:
    app.backend.store_result("id", {"why": 1}, states.FAILURE)
    assert app.AsyncResult("id").result.args == ({"why": 1},)


# --- marks ---


def test_rest_of_a_chain_fails(app: Celery) -> None:
    def step(id: str) -> dict[str, Any]:
        return {"task": "t.x", "options": {"task_id": id}, "args": [], "kwargs": {}}

    members = {"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": [step("m1"), step("m2")]}, "options": {}}
    chord = {"task": "celery.chord", "subtask_type": "chord", "kwargs": {"header": [], "body": step("body")}, "options": {}}
    request = Context(id="first", chain=[step("last"), members, chord])
    app.backend.mark_as_failure("first", KeyError("b"), "tb", request)
    for id in ("first", "last", "m1", "m2", "body"):
        assert (app.AsyncResult(id).state, app.AsyncResult(id).traceback) == (states.FAILURE, "tb")


def test_nothing_is_stored_if_ignored(app: Celery) -> None:
    app.backend.mark_as_failure("id", KeyError("b"), request=Context(id="id"), store_result=False)
    app.backend.mark_as_revoked("id", store_result=False)
    assert app.backend.mark_as_retry("id", KeyError("b"), store_result=False) is None
    app.backend.mark_as_done("id", 1, store_result=False)
    assert app.backend.data == {}


def test_errbacks(make_app: Callable[..., Celery], caplog: pytest.LogCaptureFixture) -> None:
    """X20, C-024..C-028"""
    app, called = make_app(task_always_eager=True), []

    @app.task(name="details", shared=False)
    def details(request: Any, exc: Any, traceback: Any) -> None:
        called.append(("details", request.id, repr(exc), traceback))

    @app.task(name="plain", shared=False)
    def plain(task_id: str) -> None:
        called.append(("plain", task_id))

    @app.task(name="bound", shared=False, bind=True)
    def bound(self: Any, task_id: str) -> None:
        called.append(("bound", task_id))

    @app.task(name="bad", shared=False)
    def bad(request: Any, exc: Any, traceback: Any) -> None:
        raise RuntimeError

    app.finalize()
    errbacks = [dict(task.s()) for task in (plain, bad, bound, details)]
    request = Context(id="id", errbacks=errbacks, delivery_info={})
    with caplog.at_level(logging.ERROR):
        app.backend.mark_as_failure("id", KeyError("b"), "tb", request)
    assert called == [("details", "id", "KeyError('b')", "tb"), ("plain", "id"), ("bound", "id")]
    assert "raised an exception" in caplog.text
    assert app.backend.data["celery-task-meta-id"]


def test_failed_chord(make_app: Callable[..., Celery]) -> None:
    """C-030"""
    app, called = make_app(), []

    @app.task(name="details", shared=False)
    def details(request: Any, exc: Any, traceback: Any) -> None:
        called.append((request.id, request.task, request.delivery_info, repr(exc), traceback))

    app.finalize()
    body = app.signature({"task": "t.body", "args": [], "kwargs": {}, "subtask_type": None, "immutable": False,
                          "options": {"task_id": "body", "link_error": [dict(details.s())]}})
    app.backend.chord_error_from_stack(body, ChordError("Dependency a raised KeyError('b')"))
    assert called == [("body", "t.body", {}, 'ChordError("Dependency a raised KeyError(\'b\')")', None)]
    assert isinstance(app.AsyncResult("body").result, ChordError)
