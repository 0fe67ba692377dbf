"""Redis as a broker: shared with Celery's workers and clients, and losing nothing (DESIGN D11, PEERS 3.2)."""

from __future__ import annotations

import json
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from brokers import private_redis
from fleet import Side, Worker, ours, theirs

DATABASE = 9
ROUNDS = int(os.environ.get("KILL_TIMES", "10"))
TASKS = int(os.environ.get("KILL_TASKS", "2000"))


class Redis:
    """A few commands, without a client library."""

    def __init__(self, url: str, database: int) -> None:
        parts = urlsplit(url)
        self.url = f"redis://{parts.hostname}:{parts.port or 6379}/{database}"
        self.socket = socket.create_connection((parts.hostname, parts.port or 6379), 5)
        self.file = self.socket.makefile("rb")
        self("SELECT", str(database))

    def __call__(self, *words: str) -> Any:
        encoded = [word.encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in encoded))
        return self._reply()

    def _reply(self) -> Any:
        line = self.file.readline().rstrip()
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest.decode()
        if int(rest) < 0:
            return None
        if kind == b"$":
            return self.file.read(int(rest) + 2)[:-2].decode()
        return [self._reply() for _ in range(int(rest))]

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    made = Redis(redis_url, DATABASE)
    yield made
    made.close()


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    path = tmp_path / "marks"
    path.touch()
    return path


@pytest.fixture
def env(redis: Redis, marks: Path, unique: Callable[[str], str]) -> Iterator[dict[str, str]]:
    """Both sides use the same keys, of which none are left when the test ends."""
    queue = unique("redis")
    options = {"global_keyprefix": f"{queue}:", "visibility_timeout": 3600, "lease": 3}
    made = ours().env(redis.url, None, queue, FLEET_MARKS=str(marks), FLEET_PREFETCH="32",
                      FLEET_OPTIONS=json.dumps(options))
    yield made
    left = redis("KEYS", f"{queue}:*")
    if left:
        redis("DEL", *left)
    assert [key for key in left if not key.startswith(f"{queue}:_kombu.binding")] == []


def with_options(env: dict[str, str], **options: Any) -> dict[str, str]:
    return {**env, "FLEET_OPTIONS": json.dumps({**json.loads(env["FLEET_OPTIONS"]), **options})}


def publish(side: Side, env: dict[str, str], task: str, count: int, first: int = 0, **options: Any) -> None:
    side.client(f"for number in range({first}, {first + count}):\n"
                f"    tasks.{task}.apply_async((number,), **{options!r})\nresult = None", env)


def ran(marks: Path) -> Counter[int]:
    return Counter(int(line) for line in marks.read_text().split())


def wait_all(marks: Path, count: int, timeout: float) -> Counter[int]:
    deadline = time.monotonic() + timeout
    while len(seen := ran(marks)) < count:
        assert time.monotonic() < deadline, f"only {len(seen)} of {count} tasks ran"
        time.sleep(0.05)
    return seen


@pytest.mark.parametrize(("client", "worker"), [(ours, theirs), (theirs, ours), (ours, ours)],
                         ids=["ours-theirs", "theirs-ours", "ours"])
@pytest.mark.limit(120)
def test_mixed_fleet(client: Callable[[], Side], worker: Callable[[], Side], env: dict[str, str], marks: Path,
                     redis: Redis) -> None:
    """Every task of one side runs on the other, the more urgent ones (0 is highest) first."""
    for priority in (9, 6, 3, 0):
        publish(client(), env, "late", 10, priority * 100, priority=priority)
    queue = env["FLEET_QUEUE"]
    assert [redis("LLEN", f"{queue}:{queue}{end}") for end in ("", "\x06\x163", "\x06\x166", "\x06\x169")] == [10] * 4
    env = {**env, "FLEET_PREFETCH": "1"}
    with worker().worker(env, "-c", "1"):
        seen = wait_all(marks, 40, 60)
    assert max(seen.values()) == 1
    order = [int(line) for line in marks.read_text().split()]
    if worker is ours:
        assert order == sorted(order)
    assert order[:10] == list(range(10))


@pytest.mark.limit(120)
def test_both_kinds_of_workers_share_a_queue(env: dict[str, str], marks: Path, redis: Redis) -> None:
    with theirs().worker(env), ours().worker(env):
        publish(ours(), env, "late", 300, 0)
        publish(theirs(), env, "late", 300, 300)
        seen = wait_all(marks, 600, 60)
    assert seen == Counter(range(600))


@pytest.mark.limit(400)
def test_worker_group_killed_again_and_again(env: dict[str, str], marks: Path) -> None:
    """kill -9 of parent and children under load: 0 lost; doubles are at most what was in flight."""
    chance = random.Random(11)
    env = with_options(env, lease=1)
    for number in range(ROUNDS):
        publish(ours(), env, "late", TASKS, number * TASKS)
        worker = Worker(ours(), env)
        worker.wait_ready()
        time.sleep(chance.uniform(0.0, 0.1))
        worker.kill_group()
        worker.end()
    with ours().worker(env):
        seen = wait_all(marks, ROUNDS * TASKS, 100)
        time.sleep(2)  # the last one killed is forgotten, too
    assert set(seen) == set(range(ROUNDS * TASKS))
    assert sum(seen.values()) - ROUNDS * TASKS <= ROUNDS * 64


@pytest.mark.limit(200)
def test_worker_killed_when_messages_trickle(env: dict[str, str], marks: Path) -> None:
    """The queue is empty most of the time: where Celery loses what BRPOP has taken and nobody has booked."""
    env = with_options(env, lease=1)
    chance = random.Random(5)
    workers = [Worker(ours(), env) for _ in range(2)]
    try:
        for number in range(6):
            publish(ours(), env, "late", 200, number * 200)
            workers[0].wait_ready()
            time.sleep(chance.uniform(0.0, 0.05))
            workers[0].kill_group()
            workers.pop(0).end()
            workers.append(Worker(ours(), env))
        seen = wait_all(marks, 1200, 60)
        time.sleep(2)  # the last one killed is forgotten, too
    finally:
        for worker in workers:
            worker.end()
    assert set(seen) == set(range(1200))


@pytest.mark.limit(60)
def test_messages_of_the_dead_come_back_soon(env: dict[str, str], marks: Path) -> None:
    """Not after visibility_timeout (an hour), but when the lease of the killed worker ends."""
    env = with_options(env, lease=2)
    worker = Worker(ours(), env)
    worker.wait_ready()
    ours().client("for n in range(4):\n    tasks.late.delay(n, 2)\nresult = None", env)
    worker.wait_for("received", 10)
    worker.kill_group()
    worker.end()
    killed = time.monotonic()
    with ours().worker(env, "-c", "4") as second:
        second.wait_for("are back", 15)
        assert time.monotonic() - killed < 6
        seen = wait_all(marks, 4, 15)
    assert seen == Counter(range(4))


@pytest.mark.parametrize("neighbour", [ours, theirs], ids=["ours", "celery"])
@pytest.mark.limit(90)
def test_eta_beyond_the_visibility_timeout_runs_once(neighbour: Callable[[], Side], env: dict[str, str],
                                                     marks: Path) -> None:
    """ETA 6 s, visibility_timeout 2 s, a second worker that restores what is too old (kombu#337)."""
    env = with_options(env, visibility_timeout=2)
    with ours().worker(env):
        publish(ours(), env, "late", 5, countdown=6)
        time.sleep(1)
        with neighbour().worker(env) as other:
            wait_all(marks, 5, 20)
            time.sleep(1)
            assert "received" not in other.text()
    assert ran(marks) == Counter(range(5))


@pytest.mark.parametrize(("dead", "heir"), [(ours, theirs), (theirs, ours)], ids=["celery-inherits", "ours-inherits"])
@pytest.mark.limit(90)
def test_left_by_the_other_kind(dead: Callable[[], Side], heir: Callable[[], Side], env: dict[str, str],
                                marks: Path) -> None:
    """A killed worker's messages, when only workers of the other kind remain: after visibility_timeout."""
    env = with_options(env, visibility_timeout=2)
    worker = Worker(dead(), env)
    worker.wait_ready()
    ours().client("for n in range(4):\n    tasks.late.delay(n, 1.5)\nresult = None", env)
    worker.wait_for("received", 10)
    worker.kill_group()
    worker.end()
    time.sleep(2.5)
    with heir().worker(env, "-c", "4"):
        wait_all(marks, 4, 40)
    assert set(ran(marks)) == set(range(4))
    if dead is ours:  # its entry waits for a worker that knows it
        with ours().worker(with_options(env, lease=1)):
            time.sleep(5)


@pytest.mark.limit(90)
def test_warm_shutdown_gives_back_at_once(env: dict[str, str], marks: Path, redis: Redis) -> None:
    """What has not started returns to the front, in order; nothing stays booked."""
    queue = env["FLEET_QUEUE"]
    side = ours()
    with side.worker(env, "-c", "1") as worker:
        side.client("for n in range(30):\n    tasks.late.delay(n, 0.5)\nresult = None", env)
        worker.wait_for("succeeded", 15)
        assert worker.stop() == 0
    assert redis("EXISTS", f"{queue}:unacked", f"{queue}:unacked_index", f"{queue}:unacked.pyceleryc") == 0
    done = len(ran(marks))
    assert redis("LLEN", f"{queue}:{queue}") == 30 - done
    first = json.loads(redis("LINDEX", f"{queue}:{queue}", "-1"))
    assert first["properties"]["delivery_info"] == {"exchange": "", "routing_key": queue, "redelivered": True}
    assert first["headers"]["redelivered"] is True
    with theirs().worker(env, "-c", "4"):
        seen = wait_all(marks, 30, 40)
    assert seen == Counter(range(30))


@pytest.mark.limit(60)
def test_banner_names_the_broker(env: dict[str, str]) -> None:
    with ours().worker(env) as worker:
        assert env["FLEET_BROKER"].replace("://", "://:**@") in worker.text()  # as Celery prints it


@pytest.mark.limit(120)
def test_broker_restarted_under_load(marks: Path, unique: Callable[[str], str]) -> None:
    """A Redis that writes everything down is killed while tasks run and are published: none is lost."""
    with private_redis({"appendonly": "yes", "appendfsync": "always"}) as server:
        env = ours().env(server.url, None, unique("restart"), FLEET_MARKS=str(marks))
        with ours().worker(env) as worker:
            publish(ours(), env, "late", 2000)
            time.sleep(0.1)
            server.kill()
            worker.wait_for("Trying again", 30)
            server.start()
            up = time.monotonic()
            while worker.text().count("Connected to") < 2:
                assert time.monotonic() - up < 10, worker.text()[-3000:]
                time.sleep(0.02)
            publish(ours(), env, "late", 2000, 2000)
            seen = wait_all(marks, 4000, 60)
    assert set(seen) == set(range(4000))


@pytest.mark.limit(90)
def test_busy_solo_worker_keeps_its_messages(env: dict[str, str], marks: Path) -> None:
    """Its loop stands still for five leases and two socket timeouts; nobody takes its task away."""
    env = with_options(env, lease=1, socket_timeout=2)
    with ours().worker(env, "-P", "solo") as busy:
        ours().client("for n in range(2):\n    tasks.late.delay(n, 5)\nresult = None", env)
        busy.wait_for("received", 10)
        with ours().worker(env, "-P", "solo"):
            wait_all(marks, 2, 30)
            time.sleep(1.5)
        assert "Trying again" not in busy.text()
    assert ran(marks) == Counter(range(2))
