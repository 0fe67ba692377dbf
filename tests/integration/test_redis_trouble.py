"""A Redis that refuses, and queues with what does not belong there: said clearly, nothing lost, no busy loop."""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from brokers import PrivateRedis, private_redis
from fleet import Worker, ours
from pyceleryc import Celery
from resp import Redis

FAIL = "try:\n    tasks.add.apply_async((1, 2), retry=False)\n    result = 'sent'\nexcept Exception as exc:\n    result = repr(exc)"
BUSY = 0.25  # of a processor: a loop that does not wait takes all of it


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with private_redis() as made:
        yield made


@pytest.fixture
def probe(server: PrivateRedis) -> Iterator[Redis]:
    made = Redis(server.url, 0)
    yield made
    made.close()


@pytest.fixture
def env(server: PrivateRedis, tmp_path: Path, unique: Callable[[str], str]) -> dict[str, str]:
    marks = tmp_path / "marks"
    marks.touch()
    return ours().env(server.url, None, unique("trouble"), FLEET_MARKS=str(marks))


def wait_for(env: dict[str, str], numbers: set[int]) -> None:
    path, deadline = Path(env["FLEET_MARKS"]), time.monotonic() + 30
    while (seen := set(map(int, path.read_text().split()))) != numbers:
        assert time.monotonic() < deadline, seen
        time.sleep(0.02)


def send(env: dict[str, str], number: int) -> None:
    ours().client(f"tasks.late.delay({number})\nresult = None", env)


def load(worker: Worker, seconds: float = 1.5) -> float:
    """The share of a processor that the worker's own process takes."""

    def used() -> float:
        fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = used()
    time.sleep(seconds)
    return (used() - before) / seconds


@pytest.mark.limit(60)
def test_wrong_password(env: dict[str, str], server: PrivateRedis) -> None:
    """A refused login is no matter of time: the worker ends, a publish fails at once."""
    env = {**env, "FLEET_BROKER": server.url.replace("redis://", "redis://nobody:geheim@")}
    found = ours().client(FAIL, env)
    assert "OperationalError" in found and "WRONGPASS" in found and "geheim" not in found
    worker = Worker(ours(), env)
    assert worker.process.wait(20) != 0
    assert "WRONGPASS" in worker.text() and "geheim" not in worker.text()
    worker.end()


@pytest.mark.limit(60)
def test_wrong_database(env: dict[str, str], server: PrivateRedis) -> None:
    env = {**env, "FLEET_BROKER": server.url.replace("/0", "/99")}
    assert "DB index is out of range" in ours().client(FAIL, env)
    worker = Worker(ours(), env)
    worker.wait_for("DB index is out of range", 20)
    if worker.process.poll() is None:
        assert load(worker) < BUSY
    worker.end()


def envelope(**changes: Any) -> str:
    body = base64.b64encode(json.dumps([[1], {}, {}]).encode()).decode()
    whole = {"body": body, "content-encoding": "utf-8", "content-type": "application/json",
             "headers": {"task": "fleet_tasks.late", "id": "x"},
             "properties": {"delivery_info": {"exchange": "", "routing_key": "q"}, "body_encoding": "base64", "delivery_tag": "t", **changes}}
    return json.dumps(whole)


@pytest.mark.limit(90)
def test_what_does_not_belong_there(env: dict[str, str], probe: Redis) -> None:
    """Texts that are no envelopes are put aside, and a key that is no list is left alone; the rest of the queue runs."""
    queue = env["FLEET_QUEUE"]
    bad = ["", "no JSON", "[]", "12", '{"body": ', envelope()[:-40], '{"body": "%%%", "properties": {"body_encoding": "base64"}}',
           json.dumps({"a": "x" * 2_000_000})]
    probe("LPUSH", queue, *bad)
    probe("SET", f"{queue}\x06\x163", "a text")
    with ours().worker(env, "-c", "1") as worker:
        send(env, 1)
        wait_for(env, {1})
        worker.wait_for("WRONGTYPE", 10)
        assert worker.text().count("moved to the list of the dead") == len(bad)
        assert load(worker) < BUSY
        assert worker.text().count("WRONGTYPE") < 3  # once a minute is enough
        probe("DEL", f"{queue}\x06\x163")
        ours().client("tasks.late.apply_async((2,), priority=3)\nresult = None", env)
        wait_for(env, {1, 2})
        assert worker.stop() == 0
    assert sorted(probe("LRANGE", "unacked.pyceleryc.dead", "0", "-1")) == sorted(bad)
    probe("DEL", "unacked.pyceleryc.dead")


@pytest.mark.limit(60)
def test_no_memory(env: dict[str, str], server: PrivateRedis, probe: Redis) -> None:
    """A publish waits for room and then says what is wrong; a worker goes on with what is there, results wait."""
    env = {**env, "FLEET_BACKEND": server.url, "FLEET_OPTIONS": json.dumps({"publish_timeout": 1, "confirm_publish": True})}
    with ours().worker(env, "-c", "1") as worker:
        send(env, 1)
        wait_for(env, {1})
        script = "result = tasks.sleep.delay(2.5).get(timeout=30)"
        answer: list[Any] = []
        waiting = threading.Thread(target=lambda: answer.append(ours().client(script, env)))
        waiting.start()
        worker.wait_for("Task fleet_tasks.sleep[", 20)
        probe("CONFIG", "SET", "maxmemory", "1")
        found = ours().client(FAIL, env)
        assert "OperationalError" in found and "OOM" in found
        worker.wait_for("OOM", 20)  # the task has ended, and its result waits
        assert load(worker) < BUSY
        assert not answer
        probe("CONFIG", "SET", "maxmemory", "0")
        waiting.join(30)
        assert answer == ["slept"]
        send(env, 2)
        wait_for(env, {1, 2})
        assert worker.stop() == 0


@pytest.mark.limit(90)
def test_server_that_is_still_loading(env: dict[str, str]) -> None:
    """It answers -LOADING for two seconds after its start: not an error to give up for."""
    with private_redis() as own:
        env = {**env, "FLEET_BROKER": own.url}
        probe = Redis(own.url, 0)
        for start in range(0, 2000, 100):
            probe("MSET", *(word for number in range(start, start + 100) for word in (f"key{number}", "x" * 2000)))
        probe("BGREWRITEAOF")
        while "aof_rewrite_in_progress:0" not in probe("INFO", "persistence"):
            time.sleep(0.05)
        with ours().worker(env, "-c", "1") as worker:
            own.kill()
            worker.wait_for("Trying again", 20)
            own.options.update({"key-load-delay": "1000", "loading-process-events-interval-bytes": "1024"})
            starting = threading.Thread(target=own.start)
            starting.start()
            worker.wait_for("LOADING", 20)
            starting.join(60)
            send(env, 1)
            wait_for(env, {1})
            assert worker.stop() == 0


def test_first_message_after_a_restart_leaves(server: PrivateRedis, unique: Callable[[str], str]) -> None:
    """The connection is dead, and nobody calls the publisher again: it is sent all the same, not kept for the next call."""
    app = Celery("restarted", broker=server.url, set_as_current=False)
    app.conf.task_default_queue = unique("restarted")
    task = app.task(name="restarted.t", ignore_result=True)(lambda: None)
    for _ in range(2):
        task.delay()
        server.kill()
        server.start()
        probe = Redis(server.url, 0)
        probe("DEL", app.conf.task_default_queue)  # it was on the disk
        task.delay()
        deadline = time.monotonic() + 20
        while probe("LLEN", app.conf.task_default_queue) < 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        probe("DEL", app.conf.task_default_queue)
        probe.close()
    app.close()
