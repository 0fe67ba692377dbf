"""Redis as a broker: shared with Celery's workers and clients, and losing nothing (DESIGN D11, PEERS 3.2)."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from brokers import private_redis
from commands import wait_until
from fleet import Side, Worker, ours, theirs
from freeze import freeze
from marks import ran, wait_all
from redis_kills import Experiment
from resp import Redis

DATABASE = 9


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    made = Redis(redis_url, DATABASE)
    yield made
    made.close()


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


def forget_the_dead(env: dict[str, str], redis: Redis) -> None:
    """A worker runs until those that were killed are forgotten, when their leases have ended."""
    with ours().worker(env):
        wait_until(lambda: redis("ZCARD", f"{env['FLEET_QUEUE']}:unacked.pyceleryc") == 1)


def with_options(env: dict[str, str], **options: Any) -> dict[str, str]:
    return {**env, "FLEET_OPTIONS": json.dumps({**json.loads(env["FLEET_OPTIONS"]), **options})}


def publish(side: Side, env: dict[str, str], task: str, count: int, first: int = 0, **options: Any) -> None:
    side.client(f"for number in range({first}, {first + count}):\n"
                f"    tasks.{task}.apply_async((number,), **{options!r})\nresult = None", env)


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


@pytest.mark.limit(200)
def test_worker_group_killed_again_and_again(env: dict[str, str], marks: Path, redis: Redis) -> None:
    """kill -9 of parent and children under load: 0 lost, and only what was in flight at a kill runs again. More kills, and
    Celery beside it: tests/soak/soak_redis_kills.py."""
    env = with_options(env, lease=1)
    report = Experiment(ours(), env, redis, marks, f"{env['FLEET_QUEUE']}:").run(2500, 5, 0.002, 0.3, 60)
    assert report.lost == 0, report
    assert report.beyond == [], report
    forget_the_dead(env, redis)


@pytest.mark.limit(200)
def test_worker_killed_when_messages_trickle(env: dict[str, str], marks: Path, redis: Redis) -> None:
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
    finally:
        for worker in workers:
            worker.end()
    assert set(seen) == set(range(1200))
    forget_the_dead(env, redis)


@pytest.mark.limit(60)
def test_messages_of_the_dead_come_back_soon(env: dict[str, str], marks: Path) -> None:
    """Not after visibility_timeout (an hour), but when the lease of the killed worker ends."""
    env = with_options(env, lease=2)
    worker = Worker(ours(), env)
    worker.wait_ready()
    ours().client("for n in range(4):\n    tasks.late.delay(n, 2)\nresult = None", env)
    worker.wait_for("received")
    worker.kill_group()
    worker.end()
    killed = time.monotonic()
    with ours().worker(env, "-c", "4") as second:
        second.wait_for("are back")
        assert time.monotonic() - killed < 30
        seen = wait_all(marks, 4, 30)
    assert seen == Counter(range(4))


@pytest.mark.limit(90)
def test_c054_eta_beyond_the_visibility_timeout_beside_celery(env: dict[str, str], marks: Path) -> None:
    """ETA 6 s, visibility_timeout 2 s, and an idle Celery worker, which restores what is too old when it starts (kombu#337)."""
    env = with_options(env, visibility_timeout=2)
    with ours().worker(env):
        publish(ours(), env, "late", 5, countdown=6)
        time.sleep(2)
        with theirs().worker(env) as other:
            wait_all(marks, 5, 20)
            time.sleep(1)
            assert "received" not in other.text()
    assert ran(marks) == Counter(range(5))


@pytest.mark.parametrize(("dead", "heir"), [(ours, theirs), (theirs, ours)], ids=["celery-inherits", "ours-inherits"])
@pytest.mark.limit(90)
def test_left_by_the_other_kind(dead: Callable[[], Side], heir: Callable[[], Side], env: dict[str, str],
                                marks: Path, redis: Redis) -> None:
    """A killed worker's messages, when only workers of the other kind remain: after visibility_timeout."""
    env = with_options(env, visibility_timeout=2)
    worker = Worker(dead(), env)
    worker.wait_ready()
    ours().client("for n in range(4):\n    tasks.late.delay(n, 1.5)\nresult = None", env)
    worker.wait_for("received")
    worker.kill_group()
    worker.end()
    time.sleep(2.5)
    with heir().worker(env, "-c", "4"):
        wait_all(marks, 4, 40)
    assert set(ran(marks)) == set(range(4))
    if dead is ours:  # its entry waits for a worker that knows it
        forget_the_dead(with_options(env, lease=1), redis)


@pytest.mark.limit(60)
def test_banner_names_the_broker(env: dict[str, str]) -> None:
    with ours().worker(env) as worker:
        assert env["FLEET_BROKER"].replace("://", "://:**@") in worker.text()  # as Celery prints it


@pytest.mark.parametrize(("durable", "pool"), [(True, "prefork"), (False, "threads"), (False, "solo")])
@pytest.mark.limit(120)
def test_broker_restarted_under_load(durable: bool, pool: str, marks: Path, unique: Callable[[str], str]) -> None:
    """Killed while tasks run and are published. A Redis that writes everything down loses none; of one that comes back
    empty the worker takes what is published from then on, with its results."""
    with private_redis({"appendonly": "yes" if durable else "no", "appendfsync": "always"}) as server:
        queue = unique("restart")
        env = ours().env(server.url, server.url, queue, FLEET_MARKS=str(marks))
        with ours().worker(env, "-P", pool, "-c", "2") as worker:
            publish(ours(), env, "late", 2000)
            time.sleep(0.1)
            server.kill()
            worker.wait_for("Trying again", 30)
            server.start()
            up = time.monotonic()
            while worker.text().count("Connected to") < 2:
                assert time.monotonic() - up < 30, worker.text()[-3000:]
                time.sleep(0.02)
            publish(ours(), env, "late", 2000, 2000)
            deadline = time.monotonic() + 60
            while missing := set(range(0 if durable else 2000, 4000)) - set(ran(marks)):
                assert time.monotonic() < deadline, f"{len(missing)} tasks did not run"
                time.sleep(0.05)
            assert ours().client("result = tasks.add.delay(1, 1).get(timeout=20)", env) == 2
        redis = Redis(server.url, 0)
        assert [key for key in redis("KEYS", "*") if not key.startswith(("_kombu.binding", "celery-task-meta-"))] == []
        redis.close()


@pytest.mark.limit(90)
def test_busy_solo_worker_keeps_its_messages(env: dict[str, str], marks: Path) -> None:
    """Its loop stands still for five leases and two socket timeouts; nobody takes its task away."""
    env = with_options(env, lease=1, socket_timeout=2)
    with ours().worker(env, "-P", "solo") as busy:
        ours().client("for n in range(2):\n    tasks.late.delay(n, 5)\nresult = None", env)
        busy.wait_for("received")
        with ours().worker(env, "-P", "solo"):
            wait_all(marks, 2, 30)
            time.sleep(1.5)
        assert "Trying again" not in busy.text()
    assert ran(marks) == Counter(range(2))


@pytest.mark.limit(120)
def test_stopped_worker_is_relieved(env: dict[str, str], marks: Path) -> None:
    """SIGSTOP (of the parent: its children go on) for longer than two leases: another worker takes its messages; when it goes on it runs no more than what it had
    begun, and acknowledges nothing that is not its own (PEERS 3.2)."""
    env = with_options(env, lease=1)
    side = ours()
    with side.worker(env, "-c", "2") as stopped:
        side.client("for n in range(60):\n    tasks.late.delay(n, 0.3)\nresult = None", env)
        wait_all(marks, 4, 30)
        freeze(stopped.process.pid)
        with side.worker(env, "-c", "8") as heir:
            heir.wait_for("hangs or was stopped")
            wait_all(marks, 40, 30)
            stopped.process.send_signal(signal.SIGCONT)
            stopped.wait_for("stood still")
            wait_all(marks, 60, 30)
            stopped.wait_for("Connected to")
            side.client("tasks.late.delay(60)\nresult = None", env)
            wait_all(marks, 61, 20)
            time.sleep(1)
    seen = ran(marks)
    assert set(seen) == set(range(61))
    assert sum(seen.values()) - 61 <= 4  # what the two children were given before


@pytest.mark.limit(120)
@pytest.mark.parametrize("task", ["late", "early"])
def test_stopped_solo_worker_is_relieved(env: dict[str, str], marks: Path, task: str) -> None:
    """In the middle of a task, and longer than a worker that is only busy would be silent: another one takes what waits behind that
    task. When it goes on it ends the task, and runs nothing else of what it had."""
    env = with_options(env, lease=1)
    side = ours()
    with side.worker(env, "-P", "solo") as stopped:
        side.client(f"for n in range(12):\n    tasks.{task}.delay(n, 1.5)\nresult = None", env)
        wait_all(marks, 2, 30)
        freeze(stopped.process.pid)
        (running,) = {number for number in range(3) if number not in ran(marks)}
        with side.worker(env, "-P", "threads", "-c", "8") as heir:
            heir.wait_for("hangs or was stopped")
            wait_all(marks, 12 if task == "late" else 11, 30)
            stopped.process.send_signal(signal.SIGCONT)
            # its loop finds out, or the thread does while the task goes on
            wait_until(lambda: "stood still" in stopped.text() or "given back the messages of this one" in stopped.text())
            side.client(f"tasks.{task}.delay(12)\nresult = None", env)
            wait_all(marks, 13, 20)
            time.sleep(2)
    assert ran(marks) == Counter(range(13)) + Counter({running: 1} if task == "late" else {})
