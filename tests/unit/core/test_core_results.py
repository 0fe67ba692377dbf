"""Results and Redis: a program's side of the result stores."""

from __future__ import annotations

import gc
import json
import os
import signal
import threading
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import pytest

from pyceleryc import _core


def redis_config(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {"scheme": "redis", "host": parts.hostname, "port": parts.port or 6379, "db": int(parts.path.strip("/") or 0),
            "password": parts.password, "expires": 60.0, "connect_timeout": 5.0, "socket_timeout": 5.0, "key_prefix": "core-test-"}


@pytest.fixture(params=["memory", "sqlite", "redis"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "redis":
        return redis_config(request.getfixturevalue("redis_url"))
    return {"scheme": request.param, "hub": _core.Hub(), "path": str(tmp_path / "results.db"), "expires": 60.0}


@pytest.fixture
def results(config: dict[str, Any]) -> _core.Results:
    return _core.Results(config)


@pytest.fixture
def id(results: _core.Results) -> Iterator[str]:
    made = str(uuid.uuid4())
    yield made
    results.forget(made, None)


def store(results: _core.Results, id: str, state: str = "SUCCESS", result: Any = 1) -> bytes:
    document = json.dumps({"status": state, "result": result, "traceback": None, "children": [], "date_done": None, "task_id": id}).encode()
    results.set(id, state, document, "application/json", "utf-8", None, id, None)
    return document


def test_set_get_forget(results: _core.Results, id: str) -> None:
    assert results.get(id, None) is None
    document = store(results, id)
    assert results.get(id, None) == document
    results.forget(id, None)
    assert results.get(id, None) is None


def test_success_stays(results: _core.Results, id: str) -> None:
    store(results, id, "STARTED")
    document = store(results, id)
    store(results, id, "RETRY")
    assert results.get(id, None) == document


def test_wait_finds_what_is_stored(results: _core.Results, id: str) -> None:
    document = store(results, id)
    assert results.wait(id, 5.0) == document
    results.unwatch(id)


def test_wait_is_woken(results: _core.Results, config: dict[str, Any], id: str) -> None:
    results.watch(id)
    other = _core.Results(config)
    timer = threading.Timer(0.3, store, (other, id, "SUCCESS", "late"))
    timer.start()
    assert json.loads(results.wait(id, 10.0))["result"] == "late"
    timer.join()
    results.unwatch(id)


@pytest.mark.parametrize("timeout", [0, 0.05, 0.6])
def test_wait_in_vain(results: _core.Results, id: str, timeout: float) -> None:
    start = time.monotonic()
    with pytest.raises(_core.Timeout) as caught:
        results.wait(id, timeout)
    assert timeout <= time.monotonic() - start < timeout + 10
    assert isinstance(caught.value, TimeoutError)


def test_signal_handlers_run_while_waiting(results: _core.Results, id: str) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda signum, frame: seen.append(signum))
    try:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        start = time.monotonic()
        with pytest.raises(_core.Timeout):
            results.wait(id, 0.7)
        assert seen == [signal.SIGUSR1]
        assert 0.7 <= time.monotonic() - start < 10
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_handlers_exception_ends_the_wait(results: _core.Results, id: str) -> None:
    class Stop(Exception):
        pass

    def handler(signum: int, frame: FrameType | None) -> None:
        raise Stop

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(Stop):
            results.wait(id, None)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert results.get(id, None) is None


def test_many_threads_wait(results: _core.Results, config: dict[str, Any]) -> None:
    ids = [str(uuid.uuid4()) for _ in range(8)]
    got: dict[str, Any] = {}

    def work(id: str) -> None:
        got[id] = json.loads(results.wait(id, 10.0))["result"]

    threads = [threading.Thread(target=work, args=(i,)) for i in ids]
    for thread in threads:
        thread.start()
    other = _core.Results(config)
    for number, i in enumerate(ids):
        store(other, i, result=number)
    for thread in threads:
        thread.join()
    assert got == {i: number for number, i in enumerate(ids)}
    for i in ids:
        results.unwatch(i)
        results.forget(i, None)


def test_abandoned_in_a_child(results: _core.Results, id: str) -> None:
    document = store(results, id)
    if (pid := os.fork()) == 0:
        status = 1
        try:
            results.abandon()
            try:
                results.get(id, None)
            except _core.Unsupported:
                status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert results.get(id, None) == document


def test_wrong_calls(results: _core.Results) -> None:
    with pytest.raises(TypeError, match="8 positional"):
        results.set("id")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="id must be a str"):
        results.get(1, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        results.set("id", "SUCCESS", 5, "a", "b", None, None, None)  # type: ignore[arg-type]
    with pytest.raises(_core.Unsupported, match="abacus"):
        _core.Results({"scheme": "abacus"})
    with pytest.raises(ValueError, match="not a number"):
        results.get("id", float("nan"))


def test_rpc(amqp_url: str, unique: Callable[[str], str]) -> None:
    parts = urlsplit(amqp_url)
    broker = {"scheme": "amqp", "host": parts.hostname, "port": parts.port or 5672, "user": parts.username or "guest",
              "password": parts.password or "guest", "vhost": parts.path.strip("/") or "/", "publish_timeout": 10.0}
    config = {"scheme": "rpc", "broker": broker, "reply_queue": unique("reply"), "expires": 60.0, "persistent": False}
    client, worker, id = _core.Results(config), _core.Results(config | {"reply_queue": unique("other")}), str(uuid.uuid4())
    client.watch(id)
    document = json.dumps({"status": "SUCCESS", "result": 1, "task_id": id}).encode()
    worker.set(id, "SUCCESS", document, "application/json", "utf-8", config["reply_queue"], id, None)
    assert client.wait(id, 10.0) == document
    client.unwatch(id)
    producer = _core.Producer(broker)
    del client, worker
    producer.remove(config["reply_queue"], None)


def test_redis_commands(redis_url: str, unique: Callable[[str], str]) -> None:
    redis, key = _core.Redis(redis_config(redis_url)), unique("core")
    assert redis.run([], False, None) == []
    assert redis.run([["SET", key, "é"], ["GET", key], ["GET", key + "-no"], ["EXPIRE", key, 60]], False, None) == [b"OK", "é".encode(), None, 1]
    assert redis.run([("SET", key, 5), ("INCRBY", key, 37), (b"GET", key.encode())], True, None) == [b"OK", 42, b"42"]
    script = "return {1, {'a', false}, redis.error_reply('ERR no')}"
    (number, nested, error), = redis.run([["EVAL", script, 0]], False, 5.0)
    assert (number, nested, str(error)) == (1, [b"a", None], "ERR no") and isinstance(error, _core.BadData)
    assert redis.run([["DEL", key], ["ZADD", key, 1.5, "member"], ["ZRANGE", key, 0, -1, "WITHSCORES"]], True, None)[2] == [b"member", b"1.5"]
    with pytest.raises(_core.BadData, match="WRONGTYPE"):
        redis.run([["GET", key]], False, None)
    redis.run([["DEL", key]], False, None)


def test_redis_wrong_calls(redis_url: str) -> None:
    redis = _core.Redis(redis_config(redis_url))
    for bad in ([[]], [["GET", None]], [["GET", ["x"]]], [5], None):
        with pytest.raises((TypeError, ValueError)):
            redis.run(bad, False, None)  # type: ignore[arg-type]
    redis.abandon()
    with pytest.raises(_core.Unsupported):
        redis.run([["PING"]], False, None)


def test_no_redis() -> None:
    config = {"scheme": "redis", "host": "127.0.0.1", "port": 1, "connect_timeout": 0.5, "socket_timeout": 0.5}
    with pytest.raises(_core.ConnectionLost):
        _core.Redis(config).run([["PING"]], False, 0.5)
    with pytest.raises((_core.ConnectionLost, _core.Timeout)):
        _core.Results(config).get("id", 0.5)


def test_nothing_is_kept(results: _core.Results, id: str) -> None:
    def work(count: int) -> None:
        for _ in range(count):
            store(results, id)
            results.get(id, None)
            results.wait(id, 5.0)
            results.unwatch(id)

    tracemalloc.start()
    try:
        work(50)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        work(150)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 5_000
    finally:
        tracemalloc.stop()
