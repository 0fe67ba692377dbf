"""What has arrived for ``rpc://`` where kombu receives it."""

from __future__ import annotations

import json
import threading
import time

import pytest

from brokers import PrivateRedis, private_redis
from pyceleryc import states
from pyceleryc.app.base import Celery
from pyceleryc.app.context import Context
from pyceleryc.backends import replies
from pyceleryc.backends.errors import StoreUnreachable
from pyceleryc.backends.replies import Inbox
from pyceleryc.exceptions import TimeoutError


def test_documents_are_read_in_order_and_the_newest_stays() -> None:
    inbox = Inbox()
    inbox.watch("id")
    assert inbox.peek("id") is None
    for document in (b"1", b"2", b"3"):
        inbox.put("id", document)
    assert inbox.peek("id") == b"3"
    assert [inbox.read("id", None) for _ in range(3)] == [b"1", b"2", b"3"]
    assert inbox.read("id", time.monotonic()) is None and inbox.peek("id") == b"3"
    inbox.unwatch("id")
    assert inbox.peek("id") == b"3"
    inbox.forget("id")
    assert inbox.peek("id") is None


def test_what_nobody_watches_is_limited() -> None:
    inbox = Inbox()
    inbox.watch("wanted")
    inbox.put("wanted", b"x")
    for number in range(replies.UNWATCHED_MAX + 5):
        inbox.put(str(number), b"y")
    assert inbox.peek("wanted") == b"x"
    assert inbox.peek("4") is None and inbox.peek("5") == b"y"
    for _ in range(replies.UNREAD_MAX + 5):
        inbox.put("wanted", b"z")
    assert len(inbox._entries["wanted"].documents) == replies.UNREAD_MAX


def test_all_who_wait_get_it() -> None:
    inbox, got = Inbox(), []
    threads = [threading.Thread(target=lambda: got.append(inbox.read("id", time.monotonic() + 20))) for _ in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while len(inbox._changed._waiters) < 4 and time.monotonic() < deadline:  # type: ignore[attr-defined]
        time.sleep(0.01)
    inbox.put("id", b"x")
    for thread in threads:
        thread.join()
    assert got == [b"x"] * 4


def test_what_arrived_is_told_once() -> None:
    inbox = Inbox()
    assert inbox.arrivals(0, time.monotonic()) == (0, [])
    for number in range(3):
        inbox.put(str(number), b"x")
    assert inbox.arrivals(1, time.monotonic()) == (3, ["1", "2"])
    assert inbox.arrivals(3, time.monotonic() + 0.01) == (3, [])
    for number in range(replies.ARRIVALS_MAX + 1):
        inbox.put("0", b"y")
    assert inbox.arrivals(3, time.monotonic()) == (replies.ARRIVALS_MAX + 4, None)


def test_waiting_for_many_looks_at_what_arrived_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at all of them whenever one arrives would be work without end."""
    with private_redis() as server:
        app = Celery("t", broker=server.url, backend="rpc://", set_as_current=False)
        inbox, seen, looks = app.backend.core.results._inbox, [], []
        look = inbox.peek
        monkeypatch.setattr(inbox, "peek", lambda task_id: (looks.append(task_id), look(task_id))[1])

        def deliver(ids: list[str], pause: float) -> None:
            for number, task_id in reversed([*enumerate(ids)]):  # what is looked for first comes last
                inbox.put(task_id, document(task_id, states.STARTED, None))
                inbox.put(task_id, document(task_id, states.SUCCESS, number))
                if number % 30 == 0:
                    time.sleep(pause)

        def get(ids: list[str]) -> None:
            got = {task_id: meta["result"] for task_id, meta in app.backend.get_many(
                ids, timeout=60, on_message=lambda meta: seen.append(meta["status"]))}
            assert got == {task_id: number for number, task_id in enumerate(ids)}

        there, to_come = ([f"{name}-{number}" for number in range(3000)] for name in ("there", "to-come"))
        for task_id in there:
            inbox.watch(task_id)
        deliver(there, 0)
        get(there)
        thread = threading.Thread(target=deliver, args=(to_come, 0.03))
        thread.start()
        get(to_come)
        thread.join()
        assert len(looks) < 4 * 6000
        assert seen == [states.STARTED, states.SUCCESS] * 6000
        # What was read before is ready all the same.
        assert dict(app.backend.get_many(there[:2], timeout=10))[there[1]]["result"] == 1
        app.backend.core.close()


def test_waiting_for_many_ends_with_an_error() -> None:
    with private_redis() as server:
        app = Celery("t", broker=server.url, backend="rpc://", set_as_current=False)
        calls = []
        with pytest.raises(TimeoutError):
            list(app.backend.get_many(["1", "2"], timeout=0.3, interval=0.1, on_interval=lambda: calls.append(1)))
        assert 1 <= len(calls) <= 4
        server.kill()
        receiver = app.backend.core.results.receiver
        deadline = time.monotonic() + 10
        while receiver.failure is None and time.monotonic() < deadline:
            time.sleep(0.01)
        receiver._failed -= replies.PATIENCE
        with pytest.raises(StoreUnreachable, match="cannot be received"):
            list(app.backend.get_many(["1", "2"], timeout=20, interval=0.1, on_interval=lambda: None))
        app.backend.core.close()


def document(task_id: str, state: str, value: int | None) -> bytes:
    return json.dumps({"task_id": task_id, "status": state, "result": value, "traceback": None, "children": []}).encode()


def test_a_wait_outlasts_a_broker_that_is_away() -> None:
    """Who only looks is told at once."""
    with private_redis() as server:
        app = Celery("t", broker=server.url, backend="rpc://", set_as_current=False)
        app.backend.on_task_call(None, "id")
        result = app.AsyncResult("id")
        request = Context(id="id", reply_to=app.backend.reply_to, correlation_id="id")
        server.kill()
        receiver = app.backend.core.results.receiver
        deadline = time.monotonic() + 10
        while receiver.failure is None and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(StoreUnreachable, match="cannot be received"):
            result.state  # noqa: B018
        thread = threading.Thread(target=store_when_possible, args=(server, app, request))
        thread.start()
        assert result.get(timeout=20, interval=0.1, on_interval=lambda: None) == 5
        thread.join()
        app.backend.core.close()


def store_when_possible(server: PrivateRedis, app: Celery, request: Context) -> None:
    time.sleep(0.3)
    server.start()
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            app.backend.store_result("id", 5, states.SUCCESS, request=request)
            return
        except StoreUnreachable:
            time.sleep(0.1)
