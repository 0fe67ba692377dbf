"""Tasks guide, states and result backends (T-200..T-233)."""

from __future__ import annotations

import json
import sys
import time
import types
import uuid
from typing import Any

import pytest
from celery import Celery, states
from celery.backends.base import BaseBackend
from celery.exceptions import ImproperlyConfigured, TaskRevokedError, TimeoutError
from celery.result import AsyncResult
from kombu import Connection


@pytest.fixture
def app() -> Celery:
    return Celery("states", broker="memory://", backend="cache+memory://", set_as_current=False)


def stored(running: Any, task_id: str) -> dict[str, Any]:
    return dict(json.loads(running.tasks.notes.get(f"celery-task-meta-{task_id}")))


def wait_state(result: Any, state: str) -> None:
    deadline = time.monotonic() + 20
    while result.state != state:
        assert time.monotonic() < deadline, f"{result.state}, not {state}"
        time.sleep(0.01)


def test_t200_what_is_stored(running: Any) -> None:
    result = running.tasks.add.delay(2, 3)
    assert (result.get(timeout=20), result.state, result.result, result.traceback) == (5, "SUCCESS", 5, None)
    meta = stored(running, result.id)
    assert {"status": "SUCCESS", "result": 5, "traceback": None, "children": [], "task_id": result.id}.items() <= meta.items()
    assert meta["date_done"].startswith("20")
    failed = running.tasks.raises.delay("plain")
    failed.get(timeout=20, propagate=False)
    assert (failed.state, repr(failed.result)) == ("FAILURE", "ValueError('plain')")
    assert 'raise {"http"' in failed.traceback


def test_t201_only_the_last_state_is_kept(app: Celery) -> None:
    for state in ("STARTED", "PROGRESS", "RETRY"):
        app.backend.store_result("t201", ValueError("r") if state == "RETRY" else {"n": state}, state)
        assert app.AsyncResult("t201").state == state


def test_t201_success_stays(app: Celery) -> None:
    app.backend.store_result("t201s", 1, "SUCCESS")
    for state, value in (("FAILURE", ValueError("late")), ("PROGRESS", {}), ("REVOKED", TaskRevokedError("x"))):
        app.backend.store_result("t201s", value, state)
    assert (app.AsyncResult("t201s").state, app.AsyncResult("t201s").get()) == ("SUCCESS", 1)


def test_t201_success_stays_in_redis(running: Any) -> None:
    result = running.tasks.succeeds_then_sets.delay()
    assert result.get(timeout=20) == "first"
    running.worker.wait_for(f"succeeds_then_sets[{result.id}] succeeded")
    assert running.tasks.add.delay(1, 1).get(timeout=20) == 2
    assert stored(running, result.id)["result"] == "first"


def test_t202_sets() -> None:
    assert frozenset({"SUCCESS", "FAILURE", "REVOKED"}) == states.READY_STATES
    assert frozenset({"PENDING", "RECEIVED", "STARTED", "REJECTED", "RETRY"}) == states.UNREADY_STATES
    assert frozenset({"RETRY", "FAILURE", "REVOKED"}) == states.EXCEPTION_STATES
    assert frozenset({"FAILURE", "REVOKED"}) == states.PROPAGATE_STATES
    assert frozenset({"PENDING", "RECEIVED", "STARTED", "SUCCESS", "FAILURE", "RETRY", "REVOKED"}) == states.ALL_STATES


@pytest.mark.parametrize(("state", "raises"), [("FAILURE", True), ("REVOKED", True), ("SUCCESS", False)])
def test_t203_which_states_raise(app: Celery, state: str, raises: bool) -> None:
    app.backend.store_result("t203", KeyError("k") if raises else "value", state)
    result = app.AsyncResult("t203")
    if not raises:
        assert result.get() == "value"
        return
    with pytest.raises(KeyError):
        result.get()
    assert isinstance(result.get(propagate=False), KeyError)


def test_t204_only_ready_results_are_remembered(app: Celery) -> None:
    result = app.AsyncResult("t204")
    app.backend.store_result("t204", {"n": 1}, "PROGRESS")
    assert result.info == {"n": 1}
    app.backend.store_result("t204", "done", "SUCCESS")
    assert result.info == "done"
    app.backend.forget("t204")
    assert result.info == "done"
    assert app.AsyncResult("t204").state == "PENDING"


def test_t205_order() -> None:
    order = ["SUCCESS", "FAILURE", "CUSTOM", "REVOKED", "STARTED", "RECEIVED", "REJECTED", "RETRY", "PENDING"]
    assert sorted(order, key=states.precedence) == order
    for above, below in zip(order, order[1:], strict=False):
        assert states.state(above) > states.state(below)
        assert states.state(below) < states.state(above)
    assert states.state("PROGRESS") > states.state("STARTED")
    assert states.state("A") >= states.state("B")
    assert states.precedence("A") == states.precedence("B")


@pytest.mark.parametrize(("url", "name"), [
    ("redis://localhost/3", "RedisBackend"), ("rediss://localhost/3?ssl_cert_reqs=required", "RedisBackend"),
    ("rpc://", "RPCBackend"), ("cache+memory://", "CacheBackend"), (None, "DisabledBackend"),
])
def test_t206_urls(url: str | None, name: str) -> None:
    app = Celery("urls", backend=url, broker="memory://", set_as_current=False)
    assert type(app.backend).__name__ == name


def test_t206_unknown() -> None:
    with pytest.raises(ImproperlyConfigured, match="nonsense"):
        _ = Celery("urls", backend="nonsense://", set_as_current=False).backend


class Remembers(BaseBackend):
    """The least that a backend must do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kept: dict[str, Any] = {}
        self.asked = 0

    def _store_result(self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any) -> Any:
        self.kept[task_id] = {"status": state, "result": result, "traceback": traceback, "task_id": task_id}

    def _get_task_meta_for(self, task_id: str) -> Any:
        self.asked += 1
        return self.meta_from_decoded(self.kept.get(task_id, {"status": "PENDING", "result": None}))


@pytest.fixture
def own_module(monkeypatch: Any) -> None:
    module = types.ModuleType("rows_backend")
    module.Remembers = Remembers  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rows_backend", module)


@pytest.mark.parametrize("name", ["rows_backend:Remembers", "rows_backend.Remembers", "mine://"])
def test_t207_own_backend(own_module: None, name: str) -> None:
    app = Celery("own", backend=name, set_as_current=False)
    app.loader.override_backends = {"mine": "rows_backend:Remembers"}
    assert type(app.backend) is Remembers
    app.backend.store_result("own", 5, "SUCCESS")
    app.backend.store_result("bad", ValueError("b"), "FAILURE")
    assert app.AsyncResult("own").get(timeout=2) == 5
    with pytest.raises(ValueError, match="b"):
        app.AsyncResult("bad").get(timeout=2)


def test_t208_no_backend() -> None:
    app = Celery("none", broker="memory://", set_as_current=False)
    assert type(app.backend).__name__ == "DisabledBackend"
    app.backend.store_result("x", 1, "SUCCESS")
    with pytest.raises(NotImplementedError, match="No result backend is configured"):
        app.AsyncResult("x").get()


def test_t208_state_without_backend() -> None:
    app = Celery("none", broker="memory://", set_as_current=False)
    with pytest.raises(NotImplementedError, match="No result backend is configured"):
        _ = app.AsyncResult("x").state


@pytest.mark.parametrize(("options", "most"), [({}, 4), ({"interval": 2}, 2), ({"interval": 0.1}, 14)])
def test_t214_interval_of_polling(own_module: None, options: dict[str, float], most: int) -> None:
    """A backend that has to be asked: get() asks every half second, or as often as it is told to."""
    app = Celery("polls", backend="rows_backend:Remembers", set_as_current=False)
    with pytest.raises(TimeoutError):
        app.AsyncResult("t214").get(timeout=1.2, **options)
    assert most // 2 <= app.backend.asked <= most


def test_t216_forget(running: Any) -> None:
    result = running.tasks.add.delay(1, 1)
    result.get(timeout=20)
    assert running.tasks.notes.exists(f"celery-task-meta-{result.id}")
    result.forget()
    assert not running.tasks.notes.exists(f"celery-task-meta-{result.id}")
    assert running.tasks.app.AsyncResult(result.id).state == "PENDING"


def test_t217_expiry(running: Any, unique: Any, redis_url: str) -> None:
    """The worker's results have the time to live of the settings; a day by default."""
    result = running.tasks.add.delay(1, 1)
    result.get(timeout=20)
    assert 590 < running.tasks.notes.ttl(f"celery-task-meta-{result.id}") <= 600
    app, task_id = Celery("day", backend=redis_url, set_as_current=False), unique()
    app.backend.store_result(task_id, 1, "SUCCESS")
    assert 86390 < running.tasks.notes.ttl(f"celery-task-meta-{task_id}") <= 86400
    app.AsyncResult(task_id).forget()


def test_t220_pending_is_unknown(app: Celery, running: Any, unique: Any) -> None:
    unknown = app.AsyncResult("never-heard-of")
    assert (unknown.state, unknown.result, unknown.ready(), unknown.successful(), unknown.failed()) == (
        "PENDING", None, False, False, False)
    assert app.backend.get_task_meta("never-heard-of")["status"] == "PENDING"
    assert running.tasks.app.AsyncResult(unique("never")).state == "PENDING"


def test_t187_t221_started(running: Any, unique: Any) -> None:
    tasks, name = running.tasks, unique()
    result = tasks.waits.delay(name)
    untracked = tasks.waits_untracked.delay(name + "-u")
    wait_state(result, "STARTED")
    assert set(result.info) == {"pid", "hostname"}
    assert result.info["hostname"] == running.node
    started = result.info["pid"]
    tasks.noted(untracked.id)
    assert untracked.state == "PENDING"
    tasks.go(name)
    tasks.go(name + "-u")
    assert result.get(timeout=20) == started
    assert untracked.get(timeout=20) == "done"


def test_t222_success(running: Any) -> None:
    result = running.tasks.echo.delay(1, a=[2])
    assert result.get(timeout=20) == [[1], {"a": [2]}]
    assert (result.state, result.ready(), result.successful(), result.failed()) == ("SUCCESS", True, True, False)


def test_t223_failure(running: Any) -> None:
    tasks = running.tasks
    result = tasks.raises.delay("local")
    with pytest.raises(tasks.FailWhaleError) as caught:
        result.get(timeout=20)
    assert caught.value.args == ("deep",)
    assert (result.state, result.ready(), result.successful(), result.failed()) == ("FAILURE", True, False, True)
    assert result.traceback.rstrip().endswith("FailWhaleError: deep")


def test_t224_retry(running: Any) -> None:
    """X2: the cause is the result; it is not ready, and nothing is raised."""
    result = running.tasks.will_retry.delay()
    wait_state(result, "RETRY")
    assert (repr(result.result), result.ready()) == ("ValueError('next time')", False)
    assert "Retry" in result.traceback
    with pytest.raises(TimeoutError):
        result.get(timeout=0.1)


@pytest.mark.parametrize("reason", ["revoked", "expired", "terminated"])
def test_t225_revoked(app: Celery, reason: str) -> None:
    app.backend.mark_as_revoked("t225", reason)
    result = app.AsyncResult("t225")
    with pytest.raises(TaskRevokedError, match=reason):
        result.get(timeout=2)
    assert (result.state, result.ready(), result.result.args) == ("REVOKED", True, (reason,))


def test_t225_expired(running: Any) -> None:
    """By the worker; AMQP's own expiration would have dropped the message already: so it is sent without."""
    result = running.tasks.add.apply_async((1, 1), expires=-1, expiration=None)
    with pytest.raises(TaskRevokedError, match="expired"):
        result.get(timeout=20)
    assert (result.state, result.ready()) == ("REVOKED", True)


def test_t225_revoked_by_remote_control(running: Any, unique: Any) -> None:
    """One that waits for its time, and one that runs."""
    tasks, name = running.tasks, unique()
    waiting = tasks.add.apply_async((1, 1), countdown=1.5)
    working = tasks.waits.delay(name)
    wait_state(working, "STARTED")
    running.worker.wait_for(f"add[{waiting.id}] received")
    waiting.revoke()
    working.revoke(terminate=True)
    for result in (working, waiting):
        with pytest.raises(TaskRevokedError, match="revoked|terminated"):
            result.get(timeout=20)
        assert (result.state, result.ready()) == ("REVOKED", True)


def test_t226_constants(app: Celery) -> None:
    from celery.exceptions import Ignore, Reject

    assert (states.RECEIVED, states.REJECTED, states.IGNORED) == ("RECEIVED", "REJECTED", "IGNORED")

    @app.task(shared=False)
    def raises(kind: str) -> None:
        raise {"ignore": Ignore("i"), "reject": Reject("r")}[kind]

    assert raises.apply(("ignore",)).state == "IGNORED"
    assert raises.apply(("reject",)).state == "REJECTED"


def test_t230_custom_state(running: Any, unique: Any) -> None:
    task_id = unique("custom")
    assert running.tasks.sets_state.delay(task_id, "COOKING", ["egg", 7]).get(timeout=20) == "COOKING"
    result = running.tasks.app.AsyncResult(task_id)
    assert (result.state, result.info, result.ready()) == ("COOKING", ["egg", 7], False)
    result.forget()


def test_t231_progress(running: Any, unique: Any) -> None:
    name = unique()
    result = running.tasks.upload_files.delay(["a", "b"], name)
    wait_state(result, "PROGRESS")
    deadline = time.monotonic() + 30
    while result.info != {"current": 1, "total": 2}:
        assert time.monotonic() < deadline, result.info
        time.sleep(0.01)
    running.tasks.go(name)
    assert result.get(timeout=20) == 2


def test_t231_update_state_of_the_run_itself(app: Celery) -> None:
    @app.task(bind=True, shared=False)
    def updates(self: Any) -> Any:
        self.update_state(state="PROGRESS", meta={"n": 1})
        return AsyncResult(self.request.id, app=app).info

    assert updates.apply(task_id="t231").get() == {"n": 1}


def test_t232_called_directly(running: Any) -> None:
    assert running.tasks.upload_files(["a", "b", "c"]) == 3


def test_t233_abortable(redis_url: str, unique: Any) -> None:
    from celery.contrib.abortable import ABORTED, AbortableAsyncResult, AbortableTask

    app = Celery("abortable", broker="memory://", backend=redis_url, set_as_current=False)

    @app.task(bind=True, base=AbortableTask, shared=False)
    def long_one(self: Any) -> Any:
        return self.is_aborted()

    assert ABORTED == "ABORTED"
    result = long_one.AsyncResult(unique("abort"))
    assert isinstance(result, AbortableAsyncResult)
    assert result.is_aborted() is False
    assert long_one.is_aborted(task_id=result.id) is False
    result.abort()
    assert (result.is_aborted(), result.state) == (True, "ABORTED")
    assert long_one.is_aborted(task_id=result.id) is True
    long_one.push_request(id=result.id, called_directly=False)
    assert long_one.is_aborted() is True
    long_one.pop_request()
    result.forget()


@pytest.fixture(scope="module")
def over_rpc(side: Any, amqp_url: str) -> Any:
    """The environment of a worker whose results go back as messages."""
    queue = f"rows-rpc-{uuid.uuid4().hex[:10]}"
    env = side.env(amqp_url, "rpc://", queue, FLEET_APP="fleet_tasks", FLEET_LOGLEVEL="INFO")
    with side.worker(env, "-c", "1"):
        yield env
    with Connection(amqp_url) as connection:
        connection.default_channel.queue_delete(queue)


def test_t210_a_result_is_a_message(side: Any, over_rpc: Any) -> None:
    """To the queue that the task's message names; here one of the test's own."""
    script = """
import time, uuid
from kombu import Connection, Queue
name = f"rows-reply-{uuid.uuid4().hex}"
with Connection(tasks.app.conf.broker_url) as connection:
    queue = Queue(name, channel=connection.default_channel)
    queue.queue_declare()
    sent = tasks.add.apply_async((2, 3), reply_to=name)
    deadline = time.monotonic() + 20
    while (message := queue.get(no_ack=True)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    queue.delete()
about = message.properties
result = [about["correlation_id"] == sent.id, about["delivery_mode"], message.content_type, message.delivery_info["exchange"],
          message.headers, message.payload["result"], message.payload["task_id"] == sent.id]
"""
    assert side.client(script, over_rpc) == [True, 1, "application/json", "", {}, 5, True]


def test_t210_t211_a_result_is_for_its_sender(side: Any, over_rpc: Any) -> None:
    """It comes to a queue of the sender; another process never sees it, and nobody sees it twice."""
    sender = """
from kombu import Connection
sent = tasks.add.delay(2, 3)
value = sent.get(timeout=20)
with Connection(tasks.app.conf.broker_url) as connection:
    left = connection.default_channel.queue_declare(tasks.app.backend.oid, passive=True).message_count
result = [sent.id, value, left]
"""
    task_id, value, left = side.client(sender, over_rpc)
    assert (value, left) == (5, 0)
    assert side.client(f"result = tasks.app.AsyncResult({task_id!r}).state", over_rpc) == "PENDING"


def test_t212_persistent_only_if_set(side: Any, over_rpc: Any) -> None:
    script = "tasks.app.conf.result_persistent = True\nresult = tasks.app.backend.persistent, tasks.app.conf.result_persistent"
    assert side.client(script, over_rpc) == [True, True]
    assert side.client("result = bool(tasks.app.backend.persistent)", over_rpc) is False


def test_t213_no_chords(side: Any, over_rpc: Any) -> None:
    script = """
from celery import chord
try:
    chord([tasks.add.s(1, 1), tasks.add.s(2, 2)])(tasks.about_me.si())
    result = "started"
except NotImplementedError as exc:
    result = "refused"
"""
    assert side.client(script, over_rpc) == "refused"
