"""The reply queue of ``rpc://`` in Redis, read by the core's client."""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from brokers import PrivateRedis, private_redis
from pyceleryc import states
from pyceleryc.app.base import Celery
from pyceleryc.app.context import Context
from pyceleryc.backends import redis_replies
from pyceleryc.backends.redis_replies import RedisReceiver
from pyceleryc.backends.rpc import RPCBackend
from resp import Redis


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with private_redis() as found:
        yield found


@pytest.fixture
def redis(server: PrivateRedis) -> Iterator[Redis]:
    client = Redis(server.url, 0)
    client("FLUSHALL")
    yield client
    client.close()


def make_app(server: PrivateRedis, **options: object) -> Celery:
    return Celery("t", broker=server.url, backend="rpc://", set_as_current=False, broker_transport_options=options)


def envelope(task_id: str, body: str) -> str:
    return json.dumps({"body": base64.b64encode(body.encode()).decode(), "headers": {}, "content-type": "application/json",
                       "content-encoding": "utf-8", "properties": {"correlation_id": task_id, "body_encoding": "base64"}})


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def commands(redis: Redis, name: str) -> int:
    lines = str(redis("INFO", "commandstats")).splitlines()
    return sum(int(line.split("calls=")[1].split(",")[0]) for line in lines if line.startswith(f"cmdstat_{name}:"))


def test_many_are_read_at_once_in_order(server: PrivateRedis, redis: Redis) -> None:
    got: list[tuple[str, bytes]] = []
    config = make_app(server).amqp.core_config()
    assert config is not None
    receiver = RedisReceiver(lambda: config, "replies", lambda task_id, document: got.append((task_id, document)))
    count = 3 * redis_replies.AT_ONCE + 7
    for number in range(count):
        redis("LPUSH", "replies", envelope(str(number), f"document {number}"))
    before = commands(redis, "brpop")
    receiver.start()
    until(lambda: len(got) == count)
    assert got == [(str(number), b"document %d" % number) for number in range(count)]
    assert commands(redis, "brpop") - before <= 5
    receiver.close()
    assert redis("EXISTS", "replies") == 0


def test_what_is_no_message_is_dropped(server: PrivateRedis, redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    got: list[str] = []
    config = make_app(server).amqp.core_config()
    assert config is not None
    receiver = RedisReceiver(lambda: config, "replies", lambda task_id, document: got.append(task_id))
    receiver.start()
    with caplog.at_level(logging.WARNING):
        for text in ("no JSON", "[]", "{}", '{"properties": [], "body": ""}', '{"properties": {"body_encoding": "base64"}, "body": 1}'):
            redis("LPUSH", "replies", text)
        redis("LPUSH", "replies", json.dumps({"properties": {}, "body": "secret"}))
        redis("LPUSH", "replies", envelope("id", "x"))
        until(lambda: got == ["id"])
    receiver.close()
    assert caplog.text.count("is no message was dropped") == 5
    assert caplog.text.count("without correlation id") == 1 and "secret" not in caplog.text


@pytest.mark.parametrize("options", [
    {}, {"global_keyprefix": "here:"}, {"priority_steps": [2, 5], "sep": "#"}, {"socket_timeout": 0.5}], ids=str)
def test_options_of_the_broker(server: PrivateRedis, redis: Redis, options: dict[str, object]) -> None:
    app = make_app(server, **options)
    app.backend.on_task_call(None, "id")
    time.sleep(1)  # longer than the answer may take, and it is not missed
    app.backend.store_result("id", 5, states.SUCCESS, request=Context(id="id", reply_to=app.backend.reply_to, correlation_id="id"))
    assert app.AsyncResult("id").get(timeout=10) == 5
    app.backend.core.close()
    assert redis("DBSIZE") == 0


def test_a_child_leaves_the_connection_of_its_parent_alone(server: PrivateRedis) -> None:
    app, others = make_app(server), sockets()
    app.backend.on_task_call(None, "id")
    reply_to, ours = app.backend.reply_to, sockets() - others
    assert ours
    pid = os.fork()
    if pid == 0:
        os._exit(0 if not sockets() & ours and app.backend.reply_to != reply_to else 1)
    assert os.waitpid(pid, 0)[1] == 0
    app.backend.store_result("id", 5, states.SUCCESS, request=Context(id="id", reply_to=reply_to, correlation_id="id"))
    assert app.AsyncResult("id").get(timeout=10) == 5
    app.backend.core.close()


def sockets() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


def test_the_thread_ends_when_the_server_is_away() -> None:
    with private_redis() as server:
        app = make_app(server)
        app.backend.on_task_call(None, "id")
        server.kill()
        app.backend.core.close()
        until(lambda: not any(thread.name == "pyceleryc-results" and thread.is_alive() for thread in threading.enumerate()))


def test_the_machine_sends_results_where_it_can(server: PrivateRedis) -> None:
    config = make_app(server).backend.core_config()
    assert config is not None and config["scheme"] == "redis" and config["broker"]["port"] == server.port
    assert config["expires"] == 86400.0 and not config["persistent"]
    two = Celery("t", broker=f"{server.url};{server.url}", backend="rpc://", set_as_current=False)
    assert two.backend.core_config() is None  # the result goes where the task came from, which only the publisher knows
    own = Celery("t", broker=server.url, backend=f"{__name__}:Own", set_as_current=False)
    assert own.backend.core_config() is None


class Own(RPCBackend):
    """Has its own way to write."""

    def encode_result(self, result: object, state: str) -> object:
        return super().encode_result(result, state)
