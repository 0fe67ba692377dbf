"""What has arrived for ``rpc://`` where kombu receives it."""

from __future__ import annotations

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
