"""What every result store promises, against the real servers.

PYCELERYC_TEST_STORES="db+mysql s3 …" runs the tests on those stores instead (tests/soak/soak_stores.sh).
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kombu.exceptions import EncodeError

import stores
from pyceleryc import chain, states
from pyceleryc.app.base import Celery
from pyceleryc.app.context import Context
from pyceleryc.backends.core import REREAD
from pyceleryc.exceptions import ChordError, ImproperlyConfigured, TaskRevokedError, TimeoutError

CORE = ["memory", "sqlite", "redis"]  # with a driver in C
DATABASES = ["db+sqlite", "db+postgresql", "db+mysql"]
COUNTING = ["memcached"]  # chords, by a counter and nothing else
POLLED = ["db+sqlite", "db+postgresql", "memcached", "file"]  # asked again and again
if wanted := os.environ.get("PYCELERYC_TEST_STORES"):
    CORE, POLLED = [], wanted.split()
    COUNTING = [kind for kind in POLLED if kind in ("pylibmc", "dynamodb", "gs")]
KEEPING = [*CORE, *POLLED]  # rpc keeps nothing: a result is a message
RPC = [] if wanted else ["rpc"]
REPLIES = [] if wanted else ["rpc-redis", "rpc-filesystem"]  # the same over kombu
ALL = [*KEEPING, *RPC, *REPLIES]


def on(kinds: list[str]) -> Callable[[Any], Any]:
    """For these stores; where none of them is asked for there is no such test."""
    return pytest.mark.parametrize("kind", kinds) if kinds else lambda test: None


@pytest.fixture(params=ALL)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_app(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Celery]:
    urls: dict[str, Callable[[], str]] = {
        "memory": lambda: "cache+memory://",
        "sqlite": lambda: f"sqlite:///{tmp_path}/results.db",
        "redis": lambda: str(request.getfixturevalue("redis_url")),
        **dict.fromkeys(["rpc", *REPLIES], lambda: "rpc://"),
        "db+sqlite": lambda: f"db+sqlite:///{tmp_path}/results.db",
        "db+postgresql": lambda: f"db+{request.getfixturevalue('postgresql_url')}",
        "memcached": lambda: str(request.getfixturevalue("memcached_url")),
        "file": lambda: f"file://{tmp_path}",
        "db+mysql": lambda: f"db+{request.getfixturevalue('mariadb_url')}",
        "pylibmc": lambda: str(request.getfixturevalue("memcached_url")).replace("memcached", "pylibmc"),
        "azureblockblob": lambda: str(request.getfixturevalue("azurite_url")),
        "s3": lambda: "s3://",
        "couchdb": lambda: str(request.getfixturevalue("couchdb_url")),
        "gs": lambda: str(request.getfixturevalue("google_url")),
        "mongodb": lambda: str(request.getfixturevalue("mongodb_url")),
        "dynamodb": lambda: "dynamodb://key:s3cret@us-east-1/results?ttl_seconds=600",
    }
    url = urls[kind]()
    brokers: dict[str, Callable[[], str]] = {
        "rpc": lambda: str(request.getfixturevalue("amqp_url")), "rpc-redis": lambda: str(request.getfixturevalue("redis_url")),
        "rpc-filesystem": lambda: "filesystem://",
    }
    broker = brokers.get(kind, lambda: "memory://")()
    more = request.getfixturevalue("aws") if kind in ("s3", "dynamodb") else {}
    if kind == "rpc-filesystem":
        more = {"broker_transport_options": {"data_folder_in": str(tmp_path), "data_folder_out": str(tmp_path),
                                             "control_folder": str(tmp_path / "control")}}

    def make(**settings: Any) -> Celery:
        return Celery("t", broker=broker, backend=url, set_as_current=False, result_expires=60, **more, **settings)

    return make


@pytest.fixture
def app(make_app: Callable[..., Celery], kind: str) -> Iterator[Celery]:
    app = make_app()
    if wanted:  # the first call of some clients takes a second
        app.backend.get_task_meta("first")
    yield app
    if kind == "rpc":
        app.amqp.producer.remove(app.backend.core.reply_queue, 5.0)
    if kind in REPLIES:
        app.backend.core.close()


@pytest.fixture
def id(app: Celery) -> Iterator[str]:
    made = str(uuid.uuid4())
    yield made
    app.backend.forget(made)


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    with stores.mariadb_database() as url:
        yield url


@pytest.fixture(scope="session")
def azurite_url() -> Iterator[str]:
    with stores.private(stores.PrivateAzurite) as server:
        yield server.url


@pytest.fixture(scope="session")
def mongodb_url() -> Iterator[str]:
    with stores.private(stores.PrivateMongoDB) as server:
        yield server.url


@pytest.fixture(scope="session")
def couchdb_url() -> Iterator[str]:
    with stores.private(stores.PrivateCouchDB) as server:
        yield server.url


@pytest.fixture(scope="session")
def google_url() -> Iterator[str]:
    with stores.google() as url:
        yield url


@pytest.fixture(scope="session")
def aws() -> Iterator[dict[str, str]]:
    with stores.private(stores.PrivateMoto) as server:
        yield stores.aws_settings(server.url)


def request_of(app: Celery, id: str, **fields: Any) -> Context:
    return Context(id=id, reply_to=app.backend.reply_to, correlation_id=id, task="t.add", **fields)


def store(app: Celery, id: str, result: Any, state: str = states.SUCCESS, **fields: Any) -> None:
    app.backend.store_result(id, result, state, request=request_of(app, id, **fields))


def later(seconds: float, *call: Any) -> threading.Timer:
    timer = threading.Timer(seconds, call[0], call[1:])
    timer.start()
    return timer


def eventually(check: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def test_unknown_is_pending(app: Celery, id: str) -> None:
    result = app.AsyncResult(id)
    assert (result.state, result.result, result.ready()) == ("PENDING", None, False)
    assert app.backend.get_task_meta(id).items() >= {"status": "PENDING", "result": None}.items()
    assert not result.exists()


def test_success(app: Celery, id: str, kind: str) -> None:
    app.backend.on_task_call(None, id)
    store(app, id, {"a": [1, "é", None]}, group="g", parent_id="p")
    result = app.AsyncResult(id)
    assert result.get(timeout=30) == {"a": [1, "é", None]}
    assert result.successful() and result.ready() and not result.failed() and result.exists()
    if kind in DATABASES:  # Celery's tables have no more, and their times no zone
        assert list(result._get_task_meta()) == ["task_id", "status", "result", "traceback", "date_done"]
        assert abs(result.date_done - datetime.now()) < timedelta(days=2)
        return
    assert list(result._get_task_meta()) == ["status", "result", "traceback", "children", "date_done", "group_id", "parent_id", "task_id"]
    assert result.children == []
    if kind == "mongodb":  # as there: UTC, without a zone
        assert abs(result.date_done - datetime.now(UTC).replace(tzinfo=None)) < timedelta(seconds=60)
        return
    assert result.date_done.tzinfo is not None


def test_failure(app: Celery, id: str) -> None:
    app.backend.on_task_call(None, id)
    app.backend.mark_as_failure(id, KeyError("b", 3), "Traceback: text", request=request_of(app, id))
    result = app.AsyncResult(id)
    with pytest.raises(KeyError) as caught:
        result.get(timeout=30)
    assert caught.value.args == ("b", 3)
    assert result.get(propagate=False).args == ("b", 3)
    assert (result.state, result.traceback, result.failed()) == ("FAILURE", "Traceback: text", True)


def test_revoked(app: Celery, id: str) -> None:
    app.backend.on_task_call(None, id)
    app.backend.mark_as_revoked(id, "expired", request=request_of(app, id))
    with pytest.raises(TaskRevokedError, match="expired"):
        app.AsyncResult(id).get(timeout=30)


def test_states_in_between(app: Celery, id: str) -> None:
    app.backend.on_task_call(None, id)
    request = request_of(app, id)
    app.backend.mark_as_started(id, pid=5, hostname="w@h", request=request)
    result = app.AsyncResult(id)
    assert eventually(lambda: result.state == "STARTED")
    assert result.info == {"pid": 5, "hostname": "w@h"} and result.date_done is None
    app.backend.mark_as_retry(id, ValueError("again"), "text", request=request)
    assert eventually(lambda: result.state == "RETRY")
    assert repr(result.result) == "ValueError('again')" and not result.ready()
    store(app, id, {"current": 1}, "PROGRESS")
    assert eventually(lambda: result.state == "PROGRESS")
    assert result.info == {"current": 1}


@on(KEEPING)
def test_success_stays(app: Celery, id: str) -> None:
    store(app, id, 1)
    store(app, id, None, states.RETRY)
    assert app.AsyncResult(id).get(timeout=30) == 1


def test_waits_until_it_comes(app: Celery, id: str) -> None:
    app.backend.on_task_call(None, id)
    timer = later(0.2, store, app, id, 42)
    start = time.monotonic()
    assert app.AsyncResult(id).get(timeout=30, interval=0.05) == 42
    assert time.monotonic() - start < 10
    timer.join()


def test_waits_without_announcement(app: Celery, id: str, kind: str) -> None:
    assert app.backend.reply_to is not None or kind not in [*RPC, *REPLIES]
    app.backend.get_task_meta(id)
    timer = later(0.2, store, app, id, 42)
    assert app.AsyncResult(id).get(timeout=30, interval=0.05) == 42
    timer.join()


@pytest.mark.parametrize("timeout", [0, 0.1, 0.4])
def test_waits_in_vain(app: Celery, id: str, timeout: float) -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        app.AsyncResult(id).get(timeout=timeout)
    assert timeout <= time.monotonic() - start < timeout + 10


def test_many_get_the_same_result(app: Celery, id: str) -> None:
    app.backend.on_task_call(None, id)
    start, got = time.monotonic(), list[Any]()
    threads = [threading.Thread(target=lambda: got.append(app.AsyncResult(id).get(timeout=20, interval=0.05))) for _ in range(6)]
    for thread in threads[:3]:
        thread.start()
    timer = later(0.2, store, app, id, "x")
    for thread in threads[3:]:
        thread.start()
    for thread in [*threads, timer]:
        thread.join()
    assert got == ["x"] * 6
    assert time.monotonic() - start < REREAD, "all are woken, none looks again of itself"
    assert app.AsyncResult(id).get(timeout=30, interval=0.05) == "x"


def test_a_forgotten_copy_does_not_end_a_wait(app: Celery, id: str) -> None:
    app.backend.on_task_call(None, id)
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(app.AsyncResult(id).get(timeout=30, interval=0.05)))
    thread.start()
    time.sleep(0.1)
    app.backend.on_task_call(None, id)
    app.AsyncResult(id)  # gone at once
    store(app, id, 7)
    thread.join()
    assert got == [7]


@on([*CORE, *RPC, *REPLIES])
def test_messages(app: Celery, id: str) -> None:
    """C-040"""
    app.backend.on_task_call(None, id)
    seen: list[Any] = []

    def work() -> None:
        for count, percent in enumerate((50, 90), 1):
            store(app, id, percent, "PROGRESS")
            eventually(lambda: len(seen) == count)  # noqa: B023  called at once; some stores only have the last state
        store(app, id, "done")

    timer = later(0.2, work)
    assert app.AsyncResult(id).get(timeout=30, on_message=seen.append) == "done"
    timer.join()
    assert [(meta["status"], meta["result"]) for meta in seen] == [("PROGRESS", 50), ("PROGRESS", 90), ("SUCCESS", "done")]
    assert all(meta["task_id"] == id for meta in seen)


@on(POLLED)
def test_no_messages(app: Celery, id: str) -> None:
    """C-042"""
    with pytest.raises(ImproperlyConfigured, match="on_message"):
        app.AsyncResult(id).get(timeout=30, on_message=print)


def test_callback_and_interval(app: Celery, id: str) -> None:
    app.backend.on_task_call(None, id)
    ticks: list[int] = []
    got: list[Any] = []
    timer = later(0.35, store, app, id, 5)
    result, start = app.AsyncResult(id), time.monotonic()
    result.get(timeout=30, interval=0.1, on_interval=lambda: ticks.append(1), callback=lambda *args: got.append(args))
    taken = time.monotonic() - start
    timer.join()
    assert got == [(id, 5)] and 2 <= len(ticks) <= taken / 0.1 + 1


def test_signals_while_waiting(app: Celery, id: str) -> None:
    class Stop(Exception):
        pass

    def stop(signum: int, frame: Any) -> None:
        raise Stop

    app.backend.on_task_call(None, id)
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        timer = later(0.2, os.kill, os.getpid(), signal.SIGUSR1)
        with pytest.raises(Stop):
            app.AsyncResult(id).get(timeout=20)
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_parents_errors_come_first(app: Celery, id: str) -> None:
    app.backend.on_task_call(None, id)
    parent = app.AsyncResult(str(uuid.uuid4()))
    app.backend.on_task_call(None, parent.id)
    timer = later(0.2, lambda: app.backend.mark_as_failure(parent.id, KeyError("up"), request=request_of(app, parent.id)))
    with pytest.raises(KeyError, match="up"):
        app.AsyncResult(id, parent=parent).get(timeout=30, interval=0.1)
    timer.join()
    parent.forget()


def test_group(app: Celery) -> None:
    results = [app.AsyncResult(str(uuid.uuid4())) for _ in range(5)]
    for result in results:
        app.backend.on_task_call(None, result.id)
    store(app, results[0].id, 0)
    timers = [later(0.3 - 0.05 * number, store, app, result.id, number) for number, result in enumerate(results[1:], 1)]
    group = app.GroupResult(str(uuid.uuid4()), results)
    assert group.get(timeout=30, interval=0.1) == [0, 1, 2, 3, 4]
    assert group.get(timeout=30) == [0, 1, 2, 3, 4]
    assert group.successful() and group.completed_count() == 5
    for timer in timers:
        timer.join()
    group.forget()


def test_group_in_the_order_of_completion(app: Celery) -> None:
    results = [app.AsyncResult(str(uuid.uuid4())) for _ in range(3)]
    for result in results:
        app.backend.on_task_call(None, result.id)
    group = app.GroupResult(str(uuid.uuid4()), results)
    ready = group.iter_native(timeout=30, interval=0.05)
    for number in (2, 1, 0):
        later(0.1, store, app, results[number].id, number)
        assert next(ready)[1]["result"] == number
    assert list(ready) == []
    group.forget()


def test_group_finds_what_is_stored(app: Celery) -> None:
    results = [app.AsyncResult(str(uuid.uuid4())) for _ in range(3)]
    app.backend.get_task_meta(results[0].id)
    for number, result in enumerate(results):
        store(app, result.id, number)
    start = time.monotonic()
    assert app.GroupResult("g", results).get(timeout=30, interval=0.05) == [0, 1, 2]
    assert time.monotonic() - start < 10
    app.GroupResult("g", results).forget()


def test_group_fails_and_times_out(app: Celery) -> None:
    results = [app.AsyncResult(str(uuid.uuid4())) for _ in range(2)]
    for result in results:
        app.backend.on_task_call(None, result.id)
    group = app.GroupResult("g", results)
    with pytest.raises(TimeoutError):
        group.get(timeout=0.2, interval=0.05)
    app.backend.mark_as_failure(results[1].id, KeyError("k"), request=request_of(app, results[1].id))
    with pytest.raises(KeyError):
        group.get(timeout=30, interval=0.05)
    store(app, results[0].id, 1)
    values = group.get(timeout=30, interval=0.05, propagate=False)
    assert values[0] == 1 and isinstance(values[1], KeyError)
    group.forget()


def test_saved_group(app: Celery, kind: str) -> None:
    group = app.GroupResult(str(uuid.uuid4()), [app.AsyncResult("a"), app.GroupResult("in", [app.AsyncResult("b")])])
    if kind in [*RPC, *REPLIES]:
        with pytest.raises(NotImplementedError, match="rpc"):
            group.save()
        return
    group.save()
    assert app.GroupResult.restore(group.id) == group
    group.delete()
    assert app.GroupResult.restore(group.id) is None


@on([kind for kind in ALL if kind not in DATABASES])  # Celery's tables have no place for them
def test_children(app: Celery, id: str) -> None:
    app.backend.on_task_call(None, id)
    request = request_of(app, id)
    request.children.append(app.AsyncResult("child", parent=app.AsyncResult("p")))
    request.children.append(app.GroupResult("gid", [app.AsyncResult("m")]))
    app.backend.mark_as_done(id, app.AsyncResult("other"), request)
    result = app.AsyncResult(id)
    assert result.get(timeout=30) == [["other", None], None]
    child, group = result.children
    assert (child.id, child.parent.id, group.id, group.results[0].id) == ("child", "p", "gid", "m")


def test_extended(make_app: Callable[..., Celery], kind: str) -> None:
    app, id = make_app(result_extended=True), str(uuid.uuid4())
    app.backend.on_task_call(None, id)
    store(app, id, 1, args=[1], kwargs={"k": 2}, hostname="w@h", retries=3, delivery_info={"routing_key": "q"},
          stamped_headers=["s"], stamps={"s": [1]})
    result = app.AsyncResult(id)
    assert result.get(timeout=30) == 1
    assert (result.name, result.args, result.kwargs, result.worker, result.retries, result.queue) == ("t.add", [1], {"k": 2}, "w@h", 3, "q")
    if kind not in DATABASES:
        assert list(result._get_task_meta()) == ["status", "result", "traceback", "children", "date_done", "name", "args", "kwargs",
                                                 "worker", "retries", "queue", "stamped_headers", "s", "task_id"]
    app.backend.forget(id)


@pytest.mark.parametrize("serializer", ["pickle", "yaml", "msgpack"])
def test_serializers(make_app: Callable[..., Celery], serializer: str) -> None:
    app, id = make_app(result_serializer=serializer, accept_content=["json", serializer]), str(uuid.uuid4())
    app.backend.on_task_call(None, id)
    store(app, id, {"a": [1, 2]})
    assert app.AsyncResult(id).get(timeout=30) == {"a": [1, 2]}
    app.backend.forget(id)
    failed = str(uuid.uuid4())
    app.backend.on_task_call(None, failed)
    app.backend.mark_as_failure(failed, KeyError("x"), "text", request=request_of(app, failed))
    with pytest.raises(KeyError):
        app.AsyncResult(failed).get(timeout=30)
    app.backend.forget(failed)


def test_not_serializable(app: Celery, id: str) -> None:
    with pytest.raises(EncodeError):
        store(app, id, object())


@on(COUNTING)
@pytest.mark.parametrize("late", [True, False])
def test_a_chord_is_counted(app: Celery, late: bool) -> None:
    """A part that is delivered again, as late acknowledgements allow, is counted once; and it makes up for a lost last one."""
    sent: list[Any] = []

    @app.task(name="t.add", acks_late=late)
    def add() -> int:
        return 1

    @app.task(name="t.total")
    def total(numbers: list[int]) -> None:
        sent.append(numbers)

    app.conf.update(task_always_eager=True, task_store_eager_result=True)
    for lost in (False, True) if late else (False,):
        group, members = str(uuid.uuid4()), [str(uuid.uuid4()) for _ in range(3)]
        app.backend.apply_chord((group, [app.AsyncResult(id) for id in members]), total.s())
        requests = [Context(id=id, task="t.add", group=group, chord=total.s()) for id in members]
        for request in requests[:2]:
            for _ in range(1 + late):
                app.backend.mark_as_done(request.id, 1, request)
        assert sent == []
        if lost:  # the process died when it had counted
            store(app, members[2], 1)
            app.backend.incr(app.backend.get_key_for_chord(group))
            app.backend.mark_as_done(members[0], 1, requests[0])
        else:
            app.backend.mark_as_done(members[2], 1, requests[2])
        assert sent == [[1, 1, 1]]
        if late:
            app.backend.mark_as_done(members[0], 1, requests[0])
        assert sent.pop() == [1, 1, 1] and sent == []


@on(COUNTING)
def test_a_failed_part_is_counted_once(app: Celery) -> None:
    """The worker repeats the whole of it where the store was away in the midst of it."""
    @app.task(name="t.add")
    def add() -> int:
        return 1

    group, members, body = str(uuid.uuid4()), [str(uuid.uuid4()) for _ in range(2)], str(uuid.uuid4())
    signature = app.signature("t.total", task_id=body)
    app.backend.apply_chord((group, [app.AsyncResult(id) for id in members]), signature)
    requests = [Context(id=id, task="t.add", group=group, chord=signature) for id in members]
    for _ in range(2):
        app.backend.mark_as_failure(members[0], KeyError("lost"), request=requests[0])
    assert app.AsyncResult(body).state == "PENDING"
    app.backend.mark_as_done(members[1], 1, requests[1])
    with pytest.raises(ChordError, match="lost"):
        app.AsyncResult(body).get(timeout=30)


def test_forget(app: Celery, id: str) -> None:
    app.backend.on_task_call(None, id)
    store(app, id, 1)
    result = app.AsyncResult(id)
    assert result.get(timeout=30) == 1
    result.forget()
    assert result.state == "PENDING"


def test_after_a_fork(app: Celery, id: str, kind: str) -> None:
    app.backend.on_task_call(None, id)
    app.backend.get_task_meta(id)
    if kind == "memory":  # no memory is shared with a child
        store(app, id, "child")
    elif (pid := os.fork()) == 0:
        status = 1
        try:
            reply_to = app.backend.reply_to
            request = Context(id=id, correlation_id=id, reply_to=os.environ.get("PARENT_QUEUE"))
            app.backend.store_result(id, "child", states.SUCCESS, request=request)
            if kind not in POLLED:
                app.backend.core.close()
            status = 0 if kind not in [*RPC, *REPLIES] or reply_to != os.environ["PARENT_QUEUE"] else 2
        finally:
            os._exit(status)
    else:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert app.AsyncResult(id).get(timeout=30, interval=0.05) == "child"


@pytest.fixture(autouse=True)
def parent_queue(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARENT_QUEUE", app.backend.reply_to or "")


@on([kind for kind in ALL if kind not in ("memcached", "pylibmc")])  # its client is for one thread
def test_threads_that_begin_at_once_share_a_backend(make_app: Callable[..., Celery], kind: str) -> None:
    app, barrier, seen = make_app(), threading.Barrier(8), []

    def work() -> None:
        barrier.wait()
        seen.append((app.backend, kind in POLLED or app.backend.core))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8 and len(set(seen)) == 1


@on([*CORE, *RPC, *REPLIES])
def test_results_that_are_dropped_are_not_listened_for(app: Celery) -> None:
    for _ in range(20):
        id = str(uuid.uuid4())
        app.backend.on_task_call(None, id)
        app.AsyncResult(id)
    assert not app.backend.core.announced


@on([*CORE, *RPC, *REPLIES])
def test_the_middle_of_a_chain(app: Celery) -> None:
    """Stores that keep results are not listened to for those that nobody waits for; and who waits after all gets them."""
    work = app.task(name="t.work", shared=False)(lambda *args: None)
    last = chain(work.s(), work.s(), work.s()).freeze()
    announced = app.backend.core.announced
    assert announced == ({last.id} if app.backend.finds_late else {last.id, last.parent.id, last.parent.parent.id}
                         if app.backend.wants_task_call else set())
    timer = later(0.3, store, app, last.parent.id, 2)
    assert last.parent.get(timeout=10) == 2
    timer.join()


@on(KEEPING)
def test_the_first_error_of_a_chain(app: Celery) -> None:
    """It is found among many parents, also among those of which the results are known or will come."""
    ids = [str(uuid.uuid4()) for _ in range(6)]
    results = [app.AsyncResult(id) for id in ids]
    for before, after in pairwise(results):
        after.parent = before
    store(app, ids[0], 1)
    assert results[0].get(timeout=10) == 1
    store(app, ids[1], 2)
    with pytest.raises(TimeoutError):
        results[-1].get(timeout=0.2)
    assert results[1].result == 2
    store(app, ids[2], ValueError("first"), states.FAILURE)
    store(app, ids[3], KeyError("then"), states.FAILURE)
    with pytest.raises(ValueError, match="first"):
        results[-1].get(timeout=10)


@on([kind for kind in CORE if kind == "redis"])
def test_many_parents_are_read_at_once(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    results = [app.AsyncResult(str(uuid.uuid4())) for _ in range(20)]
    for before, after in pairwise(results):
        after.parent = before
    asked: list[str] = []
    original = type(app.backend)._get_task_meta_for
    monkeypatch.setattr(type(app.backend), "_get_task_meta_for",
                        lambda backend, task_id: asked.append(task_id) or original(backend, task_id))
    store(app, results[-1].id, 3)
    assert results[-1].get(timeout=10) == 3
    assert asked == [results[-1].id]


@on(REPLIES)
def test_the_reply_queue_goes_with_its_owner(app: Celery, id: str, tmp_path: Path) -> None:
    """What is for nobody in Redis goes by itself."""
    app.backend.on_task_call(None, id)
    queue = app.backend.reply_to
    store(app, id, 1)
    assert app.AsyncResult(id).get(timeout=10) == 1
    app.backend.core.close()
    if app.amqp.publisher is None:
        assert list(tmp_path.glob("*.msg*")) == []
        return
    assert app.amqp.producer.size(queue, None)[0] == 0
    app.backend.store_result(id, 2, states.SUCCESS, request=Context(id=id, reply_to=queue, correlation_id=id))
    assert app.amqp.producer.size(queue, None)[0] == 1
    with app.connection() as connection:
        assert 0 < connection.default_channel.client.ttl(queue) <= 60
    app.amqp.producer.remove(queue, None)
    assert app.backend.reply_to != queue


@on([*CORE, *RPC])
def test_the_worker_writes_the_same_document(app: Celery, id: str) -> None:
    assert app.backend.core_config() is not None
    document = app.backend.make_document(id, 4, states.SUCCESS, request=request_of(app, id))
    assert app.backend.decode_result(document)["result"] == 4
    assert document.startswith(b'{"status": "SUCCESS", "result": 4, "traceback": null, "children": [], "date_done": "')
    assert document.endswith(b'"task_id": "%s"}' % id.encode())


def test_no_on_message_in_join(app: Celery) -> None:
    with pytest.raises(ImproperlyConfigured):
        app.GroupResult("g", [app.AsyncResult("a")]).join(on_message=print)
